//! Linux: one call per run.

mod alarm;
mod batch;
mod control;
mod errqueue;
mod memory;
mod name;
mod options;
mod packet;
mod raw;
mod recv;
mod relied;
mod segmentation;
mod send;
mod udp;

pub use alarm::Alarm;
pub(crate) use errqueue::icmp_error;
pub(crate) use memory::{forget_pages, return_free_memory};
pub(crate) use options::*;
pub(crate) use packet::{Capture, Injector, Wanted, Whole, device_number, narrow, wait};
pub(crate) use raw::{RawSocket, agreed, close_silently, is_missing_capability};
pub(crate) use relied::set_relied;
pub(crate) use udp::Native;

#[cfg(test)]
mod tests;
