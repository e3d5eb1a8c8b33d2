//! One measurement: a tunnel, a case, figures.

use std::time::Duration;

use fulmar_interop::program::Programs;
use fulmar_interop::tunnel::{Setup, Tunnel};
use fulmar_netem::Direction;

use crate::cases::{Case, Load, TunnelKind};
use crate::load::{self, Work};

/// What was measured; what a case does not have is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Useful Mbit/s.
    pub(crate) goodput: Option<f64>,
    /// Goodput as a share of what the path could carry, percent.
    pub(crate) share: Option<f64>,
    /// Processor seconds of both ends per gigabyte.
    pub(crate) cpu_per_gb: Option<f64>,
    /// Processor seconds of the client and the server.
    pub(crate) cpu: (f64, f64),
    /// Round trips, milliseconds: half, 99 of 100, all are below.
    pub(crate) latency: Option<(f64, f64, f64)>,
    /// Largest resident memory of the client and the server, MB.
    pub(crate) memory: (f64, f64),
    /// Bytes of UDP payload on the path per useful byte.
    pub(crate) overhead: Option<f64>,
}

/// Starts the tunnel, applies the load, stops the tunnel.
pub(crate) async fn measure(
    programs: &Programs,
    kind: &TunnelKind,
    case: &Case,
    both: &str,
) -> Result<Figures, String> {
    let mut setup = Setup::new(kind.pair, 2)
        .both("--quiet")
        .both(kind.flags)
        .both(both);
    if let Some(path) = &case.path {
        setup = setup.link(path.clone());
    }
    let mut tunnel = Tunnel::start(programs, setup).await?;
    let before = (tunnel.client.cpu(), tunnel.server.cpu());
    let work = apply(&tunnel, case)
        .await
        .map_err(|e| format!("{e}; {}", tunnel.last_words()))?;
    let cpu = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64();
    let cpu = (
        cpu(tunnel.client.cpu(), before.0),
        cpu(tunnel.server.cpu(), before.1),
    );
    tunnel.healthy()?;
    let mut figures = Figures {
        cpu,
        memory: (
            tunnel.client.peak_kib() as f64 / 1e3,
            tunnel.server.peak_kib() as f64 / 1e3,
        ),
        ..Figures::default()
    };
    if work.bytes > 0 {
        let goodput = work.bytes as f64 * 8e-6 / work.elapsed.as_secs_f64();
        figures.goodput = Some(goodput);
        figures.share = case.capacity().map(|capacity| goodput / capacity * 100.0);
        figures.cpu_per_gb = Some((cpu.0 + cpu.1) / (work.bytes as f64 / 1e9));
        figures.overhead = tunnel.relay.as_ref().map(|relay| {
            let sent = |direction| relay.counters(direction).sent_bytes;
            (sent(Direction::Up) + sent(Direction::Down)) as f64 / work.bytes as f64
        });
    }
    let at = |share: f64| {
        let last = work.latencies_ms.len().checked_sub(1)?;
        work.latencies_ms
            .get((last as f64 * share) as usize)
            .copied()
    };
    figures.latency = at(0.5)
        .zip(at(0.99))
        .zip(at(1.0))
        .map(|((p50, p99), max)| (p50, p99, max));
    Ok(figures)
}

async fn apply(tunnel: &Tunnel, case: &Case) -> Result<Work, load::Fault> {
    let entry = tunnel.entry();
    match case.load {
        Load::Get {
            seconds,
            connections,
        } => load::bulk(entry, seconds, connections, true).await,
        Load::Put {
            seconds,
            connections,
        } => {
            let mut work = load::bulk(entry, seconds, connections, false).await?;
            // What arrived, not what was handed in: the difference lies in buffers.
            if let Some(target) = &tunnel.target {
                let book = target.book();
                work.bytes = book.records.values().map(|r| r.received).sum();
                if let Some(at) = book.records.values().find_map(|r| r.wrong_at) {
                    return Err(load::Fault::Wrong { at });
                }
            }
            Ok(work)
        }
        Load::Ping { count, every, size } => load::ping(entry, count, every, size).await,
        Load::Requests { count, every, size } => load::requests(entry, count, every, size).await,
        Load::Hold {
            connections,
            seconds,
        } => {
            let held = load::hold(entry, connections).await?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            drop(held);
            Ok(Work::default())
        }
    }
}
