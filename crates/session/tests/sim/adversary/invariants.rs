//! What holds whatever an outsider has done.

use std::time::Duration;

use fulmar_session::endpoint::Event;
use fulmar_session::session::Reason;

use fulmar_wire::time::Instant;

use super::observer::is_the_observers;
use super::setups::Class;
use crate::harness::{Host, Sim, secs};

/// An honest application reads nothing for at most so long more than it would in peace.
pub(crate) const MAX_STALL: Duration = secs(2);
/// Bytes that the server may send to an address for each byte that came from there, while it is not known whether anybody is there
/// (RFC 9000, section 8).
pub(crate) const AMPLIFICATION: u64 = 3;
/// And so many beside: a datagram of 320 bytes, sent ten times.
pub(crate) const BESIDE_CREDIT: u64 = 10 * 320;
/// What several conversations of an address may send beyond that at one moment, bytes: seen in one of 30,000 histories of open ciphers.
const AT_ONCE: u64 = 320;
/// Sessions that an observer's addresses may have at the server at one time, all together: each an IP address of its own, with
/// the default limits.
const MAX_SESSIONS: usize = 1024;

/// Why sessions of this host have ended.
pub(crate) fn ends_of(host: &Host) -> Vec<Reason> {
    let closed = host.events.iter().filter_map(|(_, e)| match e {
        Event::Closed(_, path, reason) if !is_the_observers(path.remote) => Some(reason.clone()),
        _ => None,
    });
    closed.collect()
}

/// Whether a session ends like this when its client has closed it.
fn is_told(reason: &Reason) -> bool {
    use fulmar_session::layer::LayerError;
    matches!(
        reason,
        Reason::Closed
            | Reason::PeerReset
            | Reason::PeerEnded
            | Reason::Layer(LayerError::Ended(_))
    )
}

/// Nobody's sessions have ended, moved or been fed. (That every byte is right, applications check.)
pub(crate) fn assert_unharmed(sim: &Sim, what: &str) {
    // What its client has closed may take until now to end at the server.
    let closed = |(_, e): &(Instant, Event)| matches!(e, Event::Closed(_, _, Reason::Closed));
    let ended = sim.client().events.iter().any(closed);
    let hosts = sim.clients.iter().map(|c| &c.host).chain(sim.servers());
    for host in hosts {
        let reasons = ends_of(host);
        let fine = |r: &Reason| *r == Reason::Finished || ended && is_told(r);
        assert!(
            reasons.iter().all(fine),
            "{what}: sessions ended: {reasons:?}"
        );
        let counters = host.endpoint.counters();
        assert_eq!(counters.misbehaved_sessions, 0, "{what}: sessions were fed");
    }
    assert_stays(sim, what);
}

/// No session has moved to an address of the observer's.
pub(crate) fn assert_stays(sim: &Sim, what: &str) {
    for (_, event) in sim.servers().flat_map(|h| &h.events) {
        if let Event::Moved(_, path) = event {
            let to = path.remote;
            assert!(!is_the_observers(to), "{what}: a session moved to {to}");
        }
    }
}

/// No more is sent to an address than what came from there allows, and nothing grows.
pub(crate) fn assert_bounded(sim: &Sim, what: &str) {
    let observer = sim.observer.as_ref().expect("an observer");
    for (addr, account) in observer.ledger() {
        let most = AMPLIFICATION * account.to_server + BESIDE_CREDIT + AT_ONCE;
        assert!(
            account.from_server <= most,
            "{what}: {addr} sent {} bytes and got {}",
            account.to_server,
            account.from_server
        );
    }
    for host in sim.servers() {
        let sessions = host.endpoint.sessions().count();
        assert!(sessions <= MAX_SESSIONS, "{what}: {sessions} sessions");
    }
}

/// Outsiders can do nothing to this class but what its format leaves open.
pub(crate) fn assert_holds(sim: &Sim, class: Class, what: &str) {
    if class != Class::Open {
        assert_unharmed(sim, what);
    }
    assert_bounded(sim, what);
}

/// The longest time for which an honest client's application read nothing.
pub(crate) fn longest_stall(sim: &Sim) -> Duration {
    let apps = sim.clients.iter().flat_map(|c| c.host.apps.iter());
    apps.map(|(_, app)| app.longest_gap)
        .max()
        .unwrap_or_default()
}
