//! The only place that reads a clock for machines.

use std::time::Instant as System;

use fulmar_wire::time::Instant;

/// Time since the start of the process, for machines.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Clock {
    epoch: System,
}

impl Clock {
    /// A clock whose epoch is now.
    pub(crate) fn start() -> Self {
        Self {
            epoch: System::now(),
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The same instant for timers of the async runtime.
    pub(crate) fn system(&self, at: Instant) -> tokio::time::Instant {
        (self.epoch + std::time::Duration::from_micros(at.as_micros())).into()
    }
}
