//! When to stop, when to read the configuration again, when to show the counters.
//!
//! Each function takes its signals over when it is called, within a runtime; what it returns waits for them. So no
//! signal that arrives later has the system's own effect, which is to kill the process.

use std::future::Future;
use std::io;

/// Ready when the program is to stop: on SIGINT or SIGTERM, and, as a plugin, when its host is gone.
#[cfg(unix)]
pub(crate) fn shutdown(plugin: bool) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            () = orphaned(), if plugin => "the end of the shadowsocks host",
        };
        tracing::info!("stopping after {name}");
    })
}

/// Ready when the program is to stop: on Ctrl-C.
#[cfg(not(unix))]
pub(crate) fn shutdown(_plugin: bool) -> io::Result<impl Future<Output = ()>> {
    Ok(async move {
        if let Err(e) = tokio::signal::ctrl_c().await {
            // Then only the system's own action on it is left.
            tracing::error!("Ctrl-C cannot be received: {e}");
            std::future::pending::<()>().await;
        }
        tracing::info!("stopping after Ctrl-C");
    })
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

/// Does `work` on every SIGHUP, one after the other.
#[cfg(unix)]
pub(crate) fn on_hangup<F: Future<Output = ()>>(
    work: impl Fn() -> F,
) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            work().await;
        }
    })
}

/// There is no such signal here.
#[cfg(not(unix))]
pub(crate) fn on_hangup<F: Future<Output = ()>>(
    _work: impl Fn() -> F,
) -> io::Result<impl Future<Output = ()>> {
    Ok(std::future::ready(()))
}

/// Calls `report` on every SIGUSR1.
#[cfg(unix)]
pub(crate) fn on_user_signal(report: impl Fn()) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut user = signal(SignalKind::user_defined1())?;
    Ok(async move {
        while user.recv().await.is_some() {
            report();
        }
    })
}

/// There is no such signal here.
#[cfg(not(unix))]
pub(crate) fn on_user_signal(_report: impl Fn()) -> io::Result<impl Future<Output = ()>> {
    Ok(std::future::ready(()))
}
