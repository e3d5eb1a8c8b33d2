//! What the system knows of this process: how many files it may have open, and what it has cost.

/// See [`crate::permit_open_files`].
#[cfg(unix)]
pub(crate) fn permit_open_files() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it is written to a value of the right type, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    // More is refused there, whatever the limit says.
    let most = match cfg!(target_os = "macos") {
        true => limit.rlim_max.min(10_240),
        false => limit.rlim_max,
    };
    if limit.rlim_cur < most {
        let raised = libc::rlimit {
            rlim_cur: most,
            ..limit
        };
        // SAFETY: it is read from a value of the right type, which outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    #[allow(clippy::unnecessary_cast)] // Signed on some systems.
    Some(limit.rlim_cur as u64)
}

/// See [`crate::permit_open_files`].
#[cfg(not(unix))]
pub(crate) fn permit_open_files() -> Option<u64> {
    None
}

/// See [`crate::cpu_time`].
#[cfg(unix)]
pub(crate) fn cpu_time() -> Option<std::time::Duration> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: it is written to a value of the right type, which outlives the call.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has succeeded, so all of it has been written.
    let usage = unsafe { usage.assume_init() };
    let time = |t: libc::timeval| {
        let seconds = u64::try_from(t.tv_sec).ok()?;
        let micros = u64::try_from(t.tv_usec).ok()?;
        Some(std::time::Duration::from_secs(seconds) + std::time::Duration::from_micros(micros))
    };
    Some(time(usage.ru_utime)? + time(usage.ru_stime)?)
}

/// See [`crate::cpu_time`].
#[cfg(not(unix))]
pub(crate) fn cpu_time() -> Option<std::time::Duration> {
    None
}
