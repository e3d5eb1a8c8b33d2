//! Interoperability: real programs, real sockets, every byte checked.
//!
//! This crate starts a tunnel the way an operator would (a server process, a client process, command lines), puts a
//! TCP service behind it and TCP load in front of it, and reports what came out. Either end can be Fulmar or the
//! kcptun of Debian. It knows nothing of wire formats: it sees what an application sees, plus the programs' logs.
//!
//! * [`pattern`]: the bytes; [`target`]: the service behind the server; [`load`]: the applications before the client
//! * [`program`]: where the programs are; [`process`]: one running child; [`place`]: addresses and readiness
//! * [`relay`]: an imperfect network between the two ends; [`tunnel`]: all of the above put together
//! * [`rows`]: what is tried; [`runner`]: runs it; [`isolation`]: in a network namespace where it must;
//!   [`table`]: writes it down
//!
//! Linux only: readiness is read from `/proc`, and every tunnel gets a loopback address of its own from `127/8`.

#![forbid(unsafe_code)]

pub mod isolation;
pub mod load;
pub mod pattern;
pub mod place;
pub mod process;
pub mod program;
pub mod relay;
pub mod rows;
pub mod runner;
pub mod table;
pub mod target;
pub mod tunnel;
