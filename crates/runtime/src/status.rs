//! What the status interface says of a kcptun tunnel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fulmar_config::Role;
use fulmar_wire::time::Instant;

use crate::clock::Clock;
use crate::describe;
use crate::http::{self, Pair, Rates, StatsQuery, StatsView, StatusSource, Traffic};
use crate::stats::Hub;

/// Silence of a session that is tolerated: keep-alives come every 10 s, at most every 30 s.
const LIMIT: Duration = Duration::from_secs(75);

/// See the module.
pub(crate) struct Status {
    hub: Hub,
    clock: Clock,
    client: bool,
    rates: Rates,
}

impl Status {
    pub(crate) fn new(role: &Role, hub: Hub, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            hub,
            clock,
            client: matches!(role, Role::Client(_)),
            rates: Rates::default(),
        })
    }

    async fn view(&self) -> StatsView {
        let sessions = self.hub.describe().await.sessions;
        let (sessions, counts) = describe::views(&sessions);
        let c = self.hub.totals();
        let pair = |rx, tx| Pair { rx, tx };
        StatsView {
            banner: concat!("fulmar ", env!("CARGO_PKG_VERSION")).into(),
            server_time: http::server_time(),
            sessions,
            counts,
            traffic: Traffic {
                tcp: pair(c.bytes_sent, c.bytes_received),
                kcp: pair(c.in_bytes, c.out_bytes),
                pkt: pair(c.in_bytes, c.out_bytes),
            },
            uptime: self.clock.now() - Instant::ZERO,
            cpu: fulmar_netio::cpu_time(),
            obfs: None,
        }
    }
}

impl StatusSource for Status {
    fn healthy(&self) -> (u16, String) {
        // A client makes a session when somebody needs one.
        let waits = self.client && self.hub.totals().curr_estab > 0;
        let ago = self.hub.last_heard().map(|at| self.clock.now() - at);
        http::health(waits, false, ago, LIMIT)
    }

    fn stats(
        self: Arc<Self>,
        query: StatsQuery,
        post: bool,
    ) -> Pin<Box<dyn Future<Output = String> + Send>> {
        Box::pin(async move { self.rates.text(&self.view().await, query, post) })
    }

    fn metrics(&self) -> String {
        http::metrics_text(&self.hub.totals(), &[])
    }
}
