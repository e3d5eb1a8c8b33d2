//! When to stop, and when to open the log file anew.

use crate::logging::LogFile;

/// Ready when the program is to stop: on SIGINT or SIGTERM, and, as a plugin, when its host is gone.
#[cfg(unix)]
pub(crate) async fn shutdown(plugin: bool) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        () = orphaned(), if plugin => "the end of the shadowsocks host",
    };
    tracing::info!("stopping after {name}");
    Ok(())
}

/// Ready when the program is to stop: on Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn shutdown(_plugin: bool) -> std::io::Result<()> {
    tokio::signal::ctrl_c().await?;
    tracing::info!("stopping after Ctrl-C");
    Ok(())
}

/// Ready when the process that started us has ended.
#[cfg(unix)]
async fn orphaned() {
    use std::os::unix::process::parent_id;
    use std::time::Duration;
    let parent = parent_id();
    let mut tick = tokio::time::interval(Duration::from_secs(3));
    loop {
        tick.tick().await;
        if parent_id() != parent {
            return;
        }
    }
}

/// Opens the log file anew on every SIGHUP, so that it can be rotated.
#[cfg(unix)]
pub(crate) async fn reopen_on_hangup(file: LogFile) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    while hangup.recv().await.is_some() {
        match file.reopen() {
            Ok(()) => tracing::info!("opened the log file anew"),
            Err(e) => {
                tracing::error!("the log file cannot be opened anew, so the old one stays: {e}");
            }
        }
    }
    Ok(())
}

/// There is no such signal here.
#[cfg(not(unix))]
pub(crate) async fn reopen_on_hangup(_file: LogFile) -> std::io::Result<()> {
    Ok(())
}

/// Calls `report` on every SIGUSR1.
#[cfg(unix)]
pub(crate) async fn on_user_signal(report: impl Fn()) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut user = signal(SignalKind::user_defined1())?;
    while user.recv().await.is_some() {
        report();
    }
    Ok(())
}

/// There is no such signal here.
#[cfg(not(unix))]
pub(crate) async fn on_user_signal(_report: impl Fn()) -> std::io::Result<()> {
    Ok(())
}
