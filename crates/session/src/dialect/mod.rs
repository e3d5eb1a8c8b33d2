//! The compositions: what differs between wire formats, chosen when a session is built.

pub mod kcptun;
pub mod libev;
