//! Composes cipher, FEC, ARQ, compression and mux into one pipeline per dialect, still without I/O.
//!
//! | module | what |
//! |---|---|
//! | [`endpoint`] | many sessions behind one socket: whose datagram it is, timers, events |
//! | [`session`] | one conversation: ARQ, parity, streams |
//! | [`layer`] | the interface of a dialect's upper half: streams over a reliable byte stream |
//! | [`dialect`] | the compositions |
//! | [`transmit`] | runs of sealed datagrams on their way out |
//! | [`addresses`] | what may be sent to an address before the peer is known to be there |
//! | [`admission`] | which stranger gets a session |
//! | [`sharing`] | several endpoints behind one port |
//! | [`liveness`], [`diagnosis`] | whether the other end hears us, and what most likely differs |
//! | [`reachability`] | whether a client's server can be reached at all |
//! | [`pacer`] | the rate limit |
//! | [`measuring`] | what goes with a sender that measures the path: the two below, put together |
//! | [`mtu`] | the largest datagram that the path carries |
//! | [`redundancy`] | copies and parity, from what is lost |
//! | [`counters`] | everything that is counted |
//!
//! Time, bytes and seeds are arguments: the whole crate runs in virtual time in the simulator.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod admission;
mod chain;
pub mod counters;
mod crowds;
pub mod diagnosis;
pub mod dialect;
mod ended;
pub mod endpoint;
mod index;
pub mod layer;
pub mod liveness;
mod loss;
pub mod measuring;
pub mod memory;
pub mod mtu;
pub mod pacer;
pub mod reachability;
pub mod redundancy;
pub mod session;
pub mod sharing;
mod slots;
mod stub;
mod timers;
pub mod transmit;

pub use counters::Counters;
pub use endpoint::{Endpoint, Event};
pub use fulmar_arq as arq;
pub use session::Reason;
pub use slots::SessionKey;
