//! A configuration that was read again: the next sessions are made from it.

use std::sync::Arc;

use fulmar_config::{Client, Config, Role};

use super::Manager;
use crate::link::Link;
use crate::reload::{Change, Effect, kcptun_changes};

impl Manager {
    /// Takes `config` over, but for what only a start can change. Sessions of the old one get no new connections, and end with
    /// the last that they have.
    ///
    /// # Errors
    /// When it is not a client's.
    pub(super) fn reload(&mut self, config: Config) -> Result<Vec<Change>, String> {
        let Role::Client(client) = config.role.clone() else {
            return Err("it describes a server now, and this is a client: start it anew".into());
        };
        let changes = kcptun_changes(&self.config, &config);
        let client = Client {
            listen: self.client.listen.clone(),
            conn: self.client.conn,
            ..client
        };
        let mut config = Config {
            role: Role::Client(client.clone()),
            log: fulmar_config::Log {
                file: self.config.log.file.clone(),
                ..config.log
            },
            stats: self.config.stats.clone(),
            threads: self.config.threads,
            ..config
        };
        config.tunnel.tcp = self.config.tunnel.tcp;
        self.link = Arc::new(Link::new(&config));
        self.config = Arc::new(config);
        self.client = client;
        if changes.iter().any(|c| c.effect == Effect::NewConnections) {
            self.generation += 1;
            for index in 0..self.slots.len() {
                if let Some(live) = self.slots[index].live.take() {
                    self.retire(live);
                }
            }
        }
        Ok(changes)
    }
}
