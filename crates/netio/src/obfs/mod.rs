//! kcptun-libev's obfuscation: sealed datagrams as the payload of TCP segments (docs/spec/kcptun-libev.md, section 13).
//!
//! ```text
//!  dpi/tcp-wnd   kernel:  connect ── GET /generate_204 ──▶ ◀── 204 ── accept      a window of 1152 bytes
//!                raw:     PSH+ACK, datagram, beyond that window ◀──────▶
//!
//!  dpi/tcp       raw:     SYN ──▶ ◀── SYN-ACK     PSH+ACK, datagram ◀──────▶      no connection of the kernels
//! ```
//!
//! Packets are seen by a packet socket, before the kernel's TCP and its firewall, and sent by a raw socket. Unlike the
//! original, segments whose checksum a device was to fill in are taken (the kernel says which those are), a first
//! segment that gets lost is sent again, `dpi/tcp` sets the firewall rule that it needs, and a flood of first segments
//! pushes out nobody who has proved to know the key.
//!
//! With `dpi/tcp-wnd` each end also announces its window once the peer's kernel was heard, without which a NAT that
//! tracks connections drops every long datagram; towards the original that helps one direction only.
//!
//! Segments carry no TCP options: a timestamp would take 12 bytes that section 5 has given to the datagram.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod absent;
mod options;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod client;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod end;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod flow;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod recv;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod send;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod server;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod table;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use absent::Obfs;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use end::Obfs;
#[cfg(any(target_os = "linux", target_os = "android"))]
use end::{Shared, local_of};
pub use options::{ObfsContext, ObfsError, ObfsKind, ObfsOptions, ObfsState, ObfsTotals};
