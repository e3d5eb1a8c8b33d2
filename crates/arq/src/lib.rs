//! The KCP machine: windows, acknowledgements, resend (docs/spec/kcptun.md, section 7).
//!
//! A [`Kcp`] carries one stream of bytes each way in segments on datagrams that may be lost, repeated or swapped. It
//! does no I/O, reads no clock and draws no random numbers: time and bytes are arguments.
//!
//! # Driving it
//!
//! ```
//! use fulmar_arq::{Config, DatagramSink, Kcp, Origin};
//! use fulmar_wire::time::Instant;
//!
//! #[derive(Default)]
//! struct Datagrams(Vec<Vec<u8>>, Vec<u8>);
//!
//! impl DatagramSink for Datagrams {
//!     fn reserve(&mut self, max_len: usize) -> &mut [u8] {
//!         self.1.resize(max_len.max(self.1.len()), 0);
//!         &mut self.1
//!     }
//!     fn commit(&mut self, len: usize) {
//!         self.0.push(self.1[..len].to_vec());
//!     }
//! }
//!
//! let now = Instant::from_millis(1000);
//! let (mut a, mut b) = (Kcp::new(7, Config::default()), Kcp::new(7, Config::default()));
//! let mut wire = Datagrams::default();
//! // After a run of writes, and after a run of received datagrams: the flush that is wanted.
//! a.send(b"hello");
//! if let Some(kind) = a.flush_wanted().kind() {
//!     a.flush(now, kind, &mut wire);
//! }
//! for datagram in &wire.0 {
//!     b.handle_datagram(now, datagram, Origin::Wire).expect("sound");
//! }
//! assert_eq!(b.recv(<[u8]>::to_vec).as_deref(), Some(&b"hello"[..]));
//! // The acknowledgement may wait for company; then the timer fires.
//! let due = b.poll_timeout().expect("an acknowledgement is owed");
//! b.handle_timeout(due, &mut wire);
//! assert_eq!(b.poll_timeout(), None);
//! ```
//!
//! # Cost
//!
//! Upstream looks at every segment of the window on each acknowledgement and each flush. Here cost follows what changed: see
//! the notes in `send.rs` (counting without scanning), `deadlines.rs` (timeouts by batch), `receive.rs` (one copy, nothing moves) and
//! `slab.rs` (no allocation while buffers are warm). A window of 32,768 segments costs the same per packet as one of 128.
//!
//! # Differences from kcp-go 5.6.64
//!
//! The traces of the real program are reproduced byte for byte. Deliberate differences, none of which an honest peer can see:
//!
//! * An acknowledgement of what was never sent is ignored and counted, where upstream drops the unsent data.
//! * An acknowledgement that echoes a time before the first transmission of its segment does not count as skipping earlier ones.
//! * A window beyond 65,535 is taken as 65,535, where upstream advertises it modulo 65,536.
//! * The reader never sees a segment without data, where upstream's blocks for ever.
//! * Timers: [`Kcp::poll_timeout`] instead of a flush per interval. [`Kcp::update`] is upstream's.
//! * [`Kcp::probe`] and [`Kcp::challenge`] send an old segment once more, for its acknowledgement; only when they are called.
//! * With [`StrategyKind::Auto`] the sender is another one altogether: see [`control`].
//! * With [`Config::measure_repairs`] off (it is on by default, and exact), what parity brings late is no measurement of a round trip.
#![forbid(unsafe_code)]

pub mod control;

mod config;
mod copies;
mod counters;
mod deadlines;
mod echo;
mod flush;
mod input;
mod kcp;
mod ranges;
mod receive;
mod rest;
mod restart;
mod rtt;
mod send;
mod skips;
mod slab;
mod timer;

pub use config::{Config, DEFAULT_MTU, DEFAULT_WINDOW, MAX_WINDOW, Profile, Rules};
pub use control::{PathStats, SenderControl, Strategy, StrategyKind};
pub use counters::Counters;
pub use kcp::{
    Answers, DatagramSink, Flush, FlushWanted, InputError, Kcp, Origin, State, WindowLimited,
};
pub use rest::{Rest, Restful};
