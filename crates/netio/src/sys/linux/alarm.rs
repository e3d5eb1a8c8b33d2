//! A timer with the kernel's resolution, to be waited for like a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A timer that becomes readable when its time has come (timerfd). Timers of runtimes round to milliseconds; this one
/// is exact to a few tens of microseconds.
#[derive(Debug)]
pub struct Alarm(OwnedFd);

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    ///
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call has no pointers.
        let fd = unsafe {
            libc::timerfd_create(
                libc::CLOCK_MONOTONIC,
                libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given it to us, and to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Goes off once, after `delay` (at least a nanosecond). What was set before is forgotten, and the timer is not readable until
    /// then.
    ///
    /// # Errors
    ///
    /// None that a caller can cause; the kernel's, should it have any.
    pub fn set(&self, delay: Duration) -> io::Result<()> {
        Self::set_on(&self.0, delay)
    }

    /// As [`Self::set`], for one that has been made an [`OwnedFd`] and given away.
    ///
    /// # Errors
    ///
    /// `fd` is no such timer.
    pub fn set_on(fd: &impl AsFd, delay: Duration) -> io::Result<()> {
        let delay = delay.max(Duration::from_nanos(1));
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: i32::try_from(delay.as_secs()).unwrap_or(i32::MAX).into(),
                tv_nsec: delay.subsec_nanos() as _,
            },
        };
        // SAFETY: `value` outlives the call, and no old value is asked for.
        let rc = unsafe {
            libc::timerfd_settime(fd.as_fd().as_raw_fd(), 0, &value, std::ptr::null_mut())
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl From<Alarm> for OwnedFd {
    fn from(alarm: Alarm) -> Self {
        alarm.0
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
