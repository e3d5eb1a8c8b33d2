//! Packet and frame formats of every dialect: views, parse, emit.
//!
//! This crate knows what bytes mean and nothing of what to do about them: no I/O, no clock,
//! no state between calls, no dependencies. Parsing returns a typed error and never panics.
//!
//! | module | what |
//! |---|---|
//! | [`time`] | the virtual clock of all machines, and the 32-bit millisecond clock of the wire |
//! | [`seq`] | 32-bit sequence numbers with wrapping comparison |
//! | [`kcp`] | KCP segments |
//! | [`ended`] | "this conversation is over", between two Fulmar ends |
//! | [`fec`] | the FEC header |
//! | [`smux`] | smux frames, versions 1 and 2 |
//! | [`yamux`] | yamux frames |
//! | [`kcptun`] | the kcptun datagram: methods, header sizes, MTU arithmetic |
//! | [`kcptun2016`] | the datagram and the first message of kcptun as it was in spring 2016 |
//! | [`libev`] | the kcptun-libev datagram: methods, MTU arithmetic, messages beside and inside conversations |
//! | [`libev_obfs`] | packets and texts of kcptun-libev's obfuscation |
//! | [`rawtcp`] | TCP-looking packets of `--tcp` |
#![forbid(unsafe_code)]

pub mod ended;
pub mod fec;
pub mod kcp;
pub mod kcptun;
pub mod kcptun2016;
pub mod libev;
pub mod libev_obfs;
pub mod rawtcp;
pub mod seq;
pub mod smux;
pub mod time;
pub mod yamux;
