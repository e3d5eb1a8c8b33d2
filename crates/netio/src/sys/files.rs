//! How many files a process may have open.

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
