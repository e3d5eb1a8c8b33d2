//! What the status page says of a kcptun-libev process (docs/spec/kcptun-libev.md, section 15).

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fulmar_config::libev::{LibevConfig, LibevRole, Place};
use fulmar_netio::{ObfsContext, ObfsState};
use fulmar_session::Counters;
use fulmar_session::counters::Kind;
use fulmar_session::dialect::PathEvent;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::silence_limit;
use crate::clock::Clock;
use crate::describe::{self, Description};
use crate::http::{
    self, ContextState, ContextView, Healthy, ObfsView, Pair, Rates, StatsQuery, StatsView,
    StatusSource, Traffic,
};
use crate::inquiry::{Inquiry, Question};
use crate::stats::Hub;

/// See the module.
pub(super) struct Status {
    hub: Hub,
    clock: Clock,
    /// How a client has its server asked.
    inquiry: Option<Inquiry>,
    rates: Rates,
    state: Mutex<State>,
}

struct State {
    /// Silence that is tolerated (section 11.2).
    limit: Duration,
    /// A rendezvous client has not found its server.
    pending: bool,
    /// Bytes around what is sealed.
    overhead: u64,
    peer: Option<SocketAddr>,
    rtt: Option<Duration>,
}

impl Status {
    /// The status, and where its questions come out.
    pub(super) fn new(
        config: &LibevConfig,
        hub: Hub,
        clock: Clock,
    ) -> (Arc<Self>, mpsc::Receiver<Question>) {
        let rendezvous = matches!(config.role.place(), Some(Place::Rendezvous { .. }));
        let listens = matches!(config.role, LibevRole::Client { .. });
        let state = State {
            limit: silence_limit(config),
            pending: rendezvous && listens,
            overhead: config.crypto.method().overhead() as u64,
            peer: None,
            rtt: None,
        };
        let (inquiry, questions) = Inquiry::new(hub.clone(), clock);
        let status = Self {
            hub,
            clock,
            inquiry: listens.then_some(inquiry),
            rates: Rates::default(),
            state: Mutex::new(state),
        };
        (Arc::new(status), questions)
    }

    /// Answers on `listener` until it is aborted.
    pub(super) fn serve(self: &Arc<Self>, listener: tokio::net::TcpListener) -> JoinHandle<()> {
        let source: Arc<dyn StatusSource> = Arc::clone(self) as _;
        tokio::spawn(async move { http::serve(listener, source).await })
    }

    pub(super) fn configure(&self, config: &LibevConfig) {
        self.lock().limit = silence_limit(config);
    }

    pub(super) fn path(&self, event: &PathEvent) {
        let mut state = self.lock();
        match event {
            PathEvent::PeerFound { peer, .. } | PathEvent::PeerChanged { peer, .. } => {
                state.pending = false;
                state.peer = Some(*peer);
            }
            PathEvent::PeerLost => state.pending = true,
            PathEvent::Rtt(rtt) => state.rtt = Some(*rtt),
            _ => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing that panics is done under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn view(&self) -> StatsView {
        let Description { sessions, obfs } = self.hub.describe().await;
        let totals = self.hub.totals();
        let (sessions, counts) = describe::views(&sessions);
        StatsView {
            banner: concat!("fulmar ", env!("CARGO_PKG_VERSION")).into(),
            server_time: http::server_time(),
            sessions,
            counts,
            traffic: traffic(&totals, self.lock().overhead),
            uptime: self.clock.now() - fulmar_wire::time::Instant::ZERO,
            cpu: fulmar_netio::cpu_time(),
            obfs: obfs.map(obfs_view),
        }
    }
}

fn obfs_view(contexts: Vec<ObfsContext>) -> ObfsView {
    let contexts = contexts.into_iter().map(|c| ContextView {
        peer: c.peer.to_string(),
        state: match c.state {
            ObfsState::Uncaptured => ContextState::Opening,
            ObfsState::Unauthenticated => ContextState::Captured,
            ObfsState::Authenticated => ContextState::Authenticated,
        },
        seen_secs: c.seen.as_secs(),
        bytes: Pair {
            rx: c.rx_bytes,
            tx: c.tx_bytes,
        },
        ecn: c.ecn,
        ece: c.ece,
    });
    ObfsView {
        contexts: contexts.collect(),
        ..ObfsView::default()
    }
}

/// The application's bytes, KCP's datagrams and the sealed ones. The first are those in KCP's stream: with the four bytes of each
/// message.
fn traffic(c: &Counters, overhead: u64) -> Traffic {
    Traffic {
        tcp: Pair {
            rx: c.bytes_sent,
            tx: c.bytes_received,
        },
        kcp: Pair {
            rx: c.in_bytes,
            tx: c.out_bytes.saturating_sub(c.out_pkts * overhead),
        },
        pkt: Pair {
            rx: c.in_bytes + c.in_pkts * overhead,
            tx: c.out_bytes,
        },
    }
}

impl StatusSource for Status {
    fn healthy(self: Arc<Self>) -> Healthy {
        Box::pin(async move {
            let Some(inquiry) = &self.inquiry else {
                return http::health(false, false, None, Duration::ZERO);
            };
            inquiry.ask().await;
            let state = self.lock();
            http::health(true, state.pending, inquiry.heard(), state.limit)
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
        Box::pin(async move {
            let view = self.view().await;
            self.rates.text(&view, query, post)
        })
    }

    fn metrics(&self) -> String {
        let state = self.lock();
        let rtt = state
            .rtt
            .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        let pending = u64::from(state.pending);
        drop(state);
        http::metrics_text(
            &self.hub.totals(),
            &[
                (
                    "ping_rtt_us",
                    "Round trip of the latest ping beside conversations, in microseconds.",
                    Kind::Gauge,
                    rtt,
                ),
                (
                    "rendezvous_pending",
                    "1 while the server has not been found at the relay.",
                    Kind::Gauge,
                    pending,
                ),
            ],
        )
    }
}
