//! A configuration that was read again: the next sessions are made from it.

use std::sync::Arc;

use fulmar_config::{Client, Config, Role};

use super::{Maker, Manager};
use crate::Common;
use crate::advice::Advice;
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
        let old = Arc::clone(&self.maker);
        let changes = kcptun_changes(&old.common.config, &config);
        let client = Client {
            listen: old.client.listen.clone(),
            conn: old.client.conn,
            ..client
        };
        let mut config = Config {
            role: Role::Client(client.clone()),
            log: fulmar_config::Log {
                file: old.common.config.log.file.clone(),
                ..config.log
            },
            stats: old.common.config.stats.clone(),
            threads: old.common.config.threads,
            ..config
        };
        config.tunnel.tcp = old.common.config.tunnel.tcp;
        let link = old.link.renewed(&config);
        let advice = Advice::kcptun(&config);
        config.tunnel.key.wipe();
        self.maker = Arc::new(Maker {
            link,
            advice,
            common: Common {
                config: Arc::new(config),
                ..old.common.clone()
            },
            client,
            reports: old.reports.clone(),
        });
        if changes.iter().any(|c| c.effect == Effect::NewConnections) {
            self.generation += 1;
            // What was asked before may have gone to another server.
            self.reachability.forget_questions();
            for index in 0..self.slots.len() {
                if let Some(live) = self.slots[index].live.take() {
                    self.retire(live);
                }
            }
        }
        Ok(changes)
    }
}
