//! A configuration that was read again: new streams go to its target.

use fulmar_config::{Config, Role, StreamAddr};
use tokio::sync::watch;

use crate::reload::{Change, kcptun_changes};

/// What a server runs with, as far as it can change.
pub(super) struct Reloadable {
    config: Config,
    target: watch::Sender<StreamAddr>,
}

impl Reloadable {
    /// Of a server that was started with `config`, whose target is `target`.
    pub(super) fn new(config: Config, target: StreamAddr) -> Self {
        let target = watch::Sender::new(target);
        Self { config, target }
    }

    /// The target, and its changes.
    pub(super) fn target(&self) -> watch::Receiver<StreamAddr> {
        self.target.subscribe()
    }

    /// Takes the target of `config` over; what else there is belongs to the drivers, which are made at the start.
    ///
    /// # Errors
    /// When it is not a server's.
    pub(super) fn reload(&mut self, config: &Config) -> Result<Vec<Change>, String> {
        let Role::Server(new) = &config.role else {
            return Err("it describes a client now, and this is a server: start it anew".into());
        };
        let changes = kcptun_changes(&self.config, config);
        if let Role::Server(old) = &mut self.config.role {
            old.target.clone_from(&new.target);
        }
        self.config.log.quiet = config.log.quiet;
        self.target.send_if_modified(|target| {
            let differs = *target != new.target;
            target.clone_from(&new.target);
            differs
        });
        Ok(changes)
    }
}
