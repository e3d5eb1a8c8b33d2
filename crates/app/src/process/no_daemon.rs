//! The background, on systems that have none: whoever asks for it is told.

use std::convert::Infallible;
use std::io;

/// Which process this is.
pub(crate) enum Stage {
    /// Go on as usual.
    Foreground,
    /// Never.
    #[allow(dead_code)]
    Parent,
    /// Never.
    #[allow(dead_code)]
    Child(Readiness),
}

/// There is none.
pub(crate) struct Readiness(Infallible);

impl Readiness {
    /// Never called.
    ///
    /// # Errors
    /// None.
    pub(crate) fn ready(self) -> io::Result<()> {
        match self.0 {}
    }

    /// Never called.
    pub(crate) fn failed(self, _why: &str) {
        match self.0 {}
    }
}

/// Goes on, unless a daemon is `wanted`.
///
/// # Errors
/// When one is.
pub(crate) fn start(wanted: bool) -> Result<Stage, String> {
    if wanted {
        return Err("-d: this system has no such daemons; run it as a service".into());
    }
    Ok(Stage::Foreground)
}
