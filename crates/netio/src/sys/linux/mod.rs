//! Linux: one call per run.

mod control;
mod name;
mod options;
mod recv;
mod segmentation;
mod send;
mod udp;

pub(crate) use options::*;
pub(crate) use udp::Native;
