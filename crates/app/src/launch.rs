//! The way into the runtime: the only file that knows it.

use std::future::Future;

use fulmar_config::Config;

/// Why a tunnel or the demonstration ended in failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The thread pool of the program cannot be had.
    #[error("the system gives no threads or timers: {0}")]
    Threads(#[from] std::io::Error),
    /// This build carries no bytes.
    #[error("this build of fulmar has no runtime")]
    NoRuntime,
}

/// What `fulmar demo` is asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[allow(dead_code)] // Read by the runtime.
pub(crate) struct Demo {
    /// Megabytes to carry.
    pub(crate) megabytes: u32,
    /// Packets that the link loses, in percent.
    pub(crate) loss_percent: u8,
    /// Round-trip time of the link in milliseconds.
    pub(crate) rtt_ms: u32,
    /// Rate of the link in Mbit/s.
    pub(crate) rate_mbit: u32,
    /// What the losses are drawn from.
    pub(crate) seed: u64,
}

/// Runs the tunnel that `config` describes until `shutdown` is ready.
pub(crate) async fn tunnel(
    _config: Config,
    _shutdown: impl Future<Output = ()>,
) -> Result<(), LaunchError> {
    Err(LaunchError::NoRuntime)
}

/// Runs the demonstration, and prints its progress and result.
pub(crate) async fn demo(_demo: Demo) -> Result<(), LaunchError> {
    Err(LaunchError::NoRuntime)
}

/// Runs `future` on the program's threads.
pub(crate) fn block_on<T>(
    future: impl Future<Output = Result<T, LaunchError>>,
) -> Result<T, LaunchError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(future)
}
