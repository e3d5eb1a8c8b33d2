//! System calls, and all `unsafe` code of this crate.
//!
//! `linux` and `fallback` have one shape, so nothing outside this folder asks which system it runs on;
//! `portable` is the socket that every system has, and what the tests compare the other with.
#![allow(unsafe_code)]

mod errors;
mod files;
mod portable;
mod thread;
pub(crate) use errors::{is_fatal, trouble};
pub(crate) use files::{cpu_time, permit_open_files};
pub(crate) use portable::Portable;
pub(crate) use thread::start_plain_thread;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use linux::Alarm;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::*;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod fallback;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use fallback::*;

#[cfg(unix)]
mod unix {
    //! The descriptor, for a runtime that waits for it.

    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

    impl AsFd for crate::RawTcp {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.raw.fd()
        }
    }

    impl AsRawFd for crate::RawTcp {
        fn as_raw_fd(&self) -> RawFd {
            self.as_fd().as_raw_fd()
        }
    }
}
