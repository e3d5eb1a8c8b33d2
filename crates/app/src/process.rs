//! What a program does with its process on a Unix system: the background, the user it runs as, the system's log.
#![cfg(unix)]
// Used once kcptun-libev's command line is taken.
#![allow(dead_code)]

pub(crate) mod daemon;
pub(crate) mod syslog;
pub(crate) mod user;
