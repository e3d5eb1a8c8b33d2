//! What a program does with its process: the background, the user it runs as, the system's log, who
//! may look into it.

#[cfg(target_os = "linux")]
pub(crate) mod command_line;
#[cfg(unix)]
pub(crate) mod daemon;
#[cfg(not(unix))]
#[path = "process/no_daemon.rs"]
pub(crate) mod daemon;
pub(crate) mod dumpable;
#[cfg(unix)]
pub(crate) mod syslog;
#[cfg(unix)]
pub(crate) mod user;
#[cfg(not(unix))]
#[path = "process/no_user.rs"]
pub(crate) mod user;
