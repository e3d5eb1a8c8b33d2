//! What the status interface says of a kcptun tunnel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use fulmar_session::reachability::FRESH;
use fulmar_wire::time::Instant;

use crate::clock::Clock;
use crate::describe;
use crate::http::{self, Healthy, Pair, Rates, StatsQuery, StatsView, StatusSource, Traffic};
use crate::inquiry::Inquiry;
use crate::stats::Hub;

/// See the module.
pub(crate) struct Status {
    hub: Hub,
    clock: Clock,
    /// How a client has its server asked.
    inquiry: Option<Inquiry>,
    rates: Rates,
}

impl Status {
    pub(crate) fn new(hub: Hub, clock: Clock, inquiry: Option<Inquiry>) -> Arc<Self> {
        Arc::new(Self {
            hub,
            clock,
            inquiry,
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
    fn healthy(self: Arc<Self>) -> Healthy {
        Box::pin(async move {
            let Some(inquiry) = &self.inquiry else {
                return http::health(false, false, None, FRESH);
            };
            inquiry.ask().await;
            // A server that lives has answered by now, or was heard a short while ago.
            http::health(true, false, inquiry.heard(), FRESH)
        })
    }

    fn stats(
        self: Arc<Self>,
        query: StatsQuery,
        post: bool,
    ) -> Pin<Box<dyn Future<Output = String> + Send>> {
        if let Some(inquiry) = &self.inquiry {
            inquiry.ask_for_later();
        }
        Box::pin(async move { self.rates.text(&self.view().await, query, post) })
    }

    fn metrics(&self) -> String {
        http::metrics_text(&self.hub.totals(), &[])
    }
}
