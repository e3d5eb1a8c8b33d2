//! A network emulator without I/O: what a path between two hosts does to datagrams, in whatever time its
//! caller passes in.
//!
//! A simulation drives [`Net`] in virtual time, where an hour of storm takes a second; a demonstration
//! drives it in real time between real sockets. Both see the same behaviour, because everything random comes from a seed:
//! the n-th datagram of a direction meets the same fate in every run.
//!
//! ```
//! use std::time::Duration;
//! use fulmar_netem::{Direction, Net, Path};
//! use fulmar_wire::time::Instant;
//!
//! let path = Path { delay: Duration::from_millis(40), loss: 0.05, ..Path::default() };
//! let mut net = Net::new(1, path.clone(), path);
//! let (client, server) = ("10.0.0.1:5000".parse()?, "10.0.0.2:29900".parse()?);
//! net.send(Instant::ZERO, Direction::Up, client, server, b"hello");
//! while let Some(now) = net.next_arrival() {
//!     while let Some(delivery) = net.poll(now) {
//!         assert_eq!((delivery.from, &delivery.data[..]), (client, &b"hello"[..]));
//!     }
//! }
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! What a datagram meets, in this order: the sender's address translation ([`Net::change_address`]), a blackout, the
//! MTU, a policer, the bottleneck and its queue, random and bursty loss, corruption, truncation, duplication, delay
//! with jitter and reordering, the receiver's address translation. So lost datagrams have used up the
//! bottleneck's capacity: goodput is at most rate × (1 − loss).
#![forbid(unsafe_code)]

mod nat;
mod net;
mod path;
mod rng;

pub use net::{Delivery, Net};
pub use path::{Bursts, Counters, Direction, Path, Policer, Rate, Reordering};
pub use rng::Rng;
