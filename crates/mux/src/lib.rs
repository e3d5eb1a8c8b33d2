//! Stream multiplexers: frames in, stream events out.
//!
//! A multiplexer carries many independent streams over one ordered stream of bytes. It is a machine: no I/O, no clock,
//! no random source; it knows nothing of what carries its frames or of what the streams are for.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | [`Mux`]: many streams, in the frames of smux 1 and 2 (kcptun) or of yamux (kcptun of 2016) |
//! | [`single`] | one stream and no multiplexer: the messages of kcptun-libev |
//!
//! What an application sees is the same whatever is spoken: [`StreamId`], [`Event`], the errors.
#![forbid(unsafe_code)]

mod error;
mod event;
mod list;
pub mod machine;
mod pool;
pub mod single;
mod slab;

pub use error::{Error, OpenError, WriteError};
pub use event::{Event, Peer, ReadState, ResetReason, StreamInfo, WriteState};
pub use machine::{Class, Config, Mux, Protocol, Rest, Role};
pub use pool::Slices;
pub use single::Single;
pub use slab::StreamId;
