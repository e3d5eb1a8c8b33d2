//! What the drivers of one service know together: whose a conversation is, and how to reach the others of the same port.
//!
//! The kernel chooses a driver's socket by the addresses of a datagram. When a client's address changes, or the kernel's
//! choice does, the datagrams of a session arrive at another driver than its own. That one looks here whose the
//! conversation is, and hands them over. The lock is taken when a session begins or ends, and for datagrams from addresses
//! that a driver does not know; never for those of its own sessions. See docs/design/threads.md.
//!
//! A conversation belongs to one port. What arrives for it at another one is nothing that a client sends: somebody has recorded it, or
//! leads it astray. It is refused as a replay, there as here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use fulmar_session::Endpoint;
use fulmar_session::addresses::Addresses;
use fulmar_session::sharing::{Conversations, Directory, Handover, Owner};
use fulmar_wire::time::Instant;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Conversations that are remembered after their sessions have ended, so that recordings of them open nothing.
const REMEMBERED: usize = 65_536;
/// Batches that wait for one driver, each of at most 64 datagrams. More are dropped and counted
/// ([`Counters::handovers_lost`](fulmar_session::Counters::handovers_lost)): the socket's own buffer would overflow as well.
const LINE: usize = 128;
/// Batches that a driver takes in one round.
const TAKEN: usize = 32;

/// The drivers of one service.
pub(crate) struct Registry {
    /// The port of each driver, as a number among the service's sockets of different addresses.
    ports: Vec<usize>,
    /// Where peers have been shown to be.
    addresses: Addresses,
    inner: Mutex<Inner>,
}

struct Inner {
    conversations: Conversations,
    /// The line to each driver; `None` while it has no socket, or no other driver on its port.
    lines: Vec<Option<mpsc::Sender<Handover>>>,
}

impl Registry {
    /// For a driver on each of `ports`; those with the same number share a port.
    pub(crate) fn new(ports: Vec<usize>) -> Arc<Self> {
        let inner = Inner {
            conversations: Conversations::new(REMEMBERED),
            lines: vec![None; ports.len()],
        };
        Arc::new(Self {
            ports,
            addresses: Addresses::default(),
            inner: Mutex::new(inner),
        })
    }

    /// What the drivers know together of where peers are.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// Drivers on the port of driver number `me`.
    pub(crate) fn on_port_of(&self, me: usize) -> usize {
        let port = self.ports.get(me);
        self.ports.iter().filter(|p| Some(*p) == port).count()
    }

    fn share_port(&self, one: usize, other: usize) -> bool {
        self.ports.get(one) == self.ports.get(other)
    }

    /// What driver number `me` and its endpoint need to know the others. A driver that starts again gets it anew.
    pub(crate) fn enter(self: &Arc<Self>, me: usize) -> (Box<dyn Directory>, Exchange) {
        let line = (self.on_port_of(me) > 1).then(|| {
            let (sender, line) = mpsc::channel(LINE);
            if let Some(place) = self.lock().lines.get_mut(me) {
                *place = Some(sender);
            }
            line
        });
        let entry = Entry {
            registry: Arc::clone(self),
            me,
        };
        let exchange = Exchange {
            registry: Arc::clone(self),
            me,
            line,
        };
        (Box::new(entry), exchange)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that panics is done under it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an endpoint asks.
struct Entry {
    registry: Arc<Registry>,
    me: usize,
}

impl Directory for Entry {
    fn owner(&mut self, conv: u32) -> Owner {
        let owner = self.registry.lock().conversations.owner(self.me, conv);
        match owner {
            Owner::Other(it) | Owner::Past(Some(it)) if !self.registry.share_port(self.me, it) => {
                Owner::Past(None)
            }
            owner => owner,
        }
    }

    fn claim(&mut self, conv: u32) -> bool {
        self.registry.lock().conversations.claim(self.me, conv)
    }

    fn release(&mut self, conv: u32, proven: bool) {
        self.registry
            .lock()
            .conversations
            .release(self.me, conv, proven);
    }
}

/// A driver's place among the drivers of its service. Dropped with the driver: what was its own is then over.
pub(crate) struct Exchange {
    registry: Arc<Registry>,
    me: usize,
    /// From the others of its port, if there are any.
    line: Option<mpsc::Receiver<Handover>>,
}

impl Exchange {
    /// Gives `endpoint` what other drivers have for it; `true` when there was anything. The task of `cx` is woken when
    /// there is more.
    pub(crate) fn take(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &mut Endpoint,
        now: Instant,
    ) -> bool {
        let mut worked = false;
        let Some(line) = &mut self.line else {
            return false;
        };
        for _ in 0..TAKEN {
            let Poll::Ready(Some(handover)) = line.poll_recv(cx) else {
                break;
            };
            endpoint.take_over(now, &handover);
            worked = true;
        }
        worked
    }

    /// Gives other drivers what `endpoint` has for them.
    pub(crate) fn pass_on(&self, endpoint: &mut Endpoint) {
        while let Some(handover) = endpoint.poll_handover() {
            let line = self.registry.lock().lines.get(handover.to).cloned();
            let lost = match line.flatten() {
                Some(line) => line.try_send(handover).err().map(TrySendError::into_inner),
                None => Some(handover),
            };
            if let Some(handover) = lost {
                endpoint.handover_lost(&handover);
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        if let Some(place) = inner.lines.get_mut(self.me) {
            *place = None;
        }
        inner.conversations.release_all(self.me);
    }
}

/// How many drivers serve each of `ports` ports with `threads` threads: one where there are enough ports to keep all
/// threads busy, and never more than eight, because each costs memory and cores beyond that are rarely a server's.
pub(crate) fn drivers_per_port(threads: usize, ports: usize) -> usize {
    (threads / ports.max(1)).clamp(1, MAX_DRIVERS)
}

/// Most drivers of one port.
const MAX_DRIVERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;
    use fulmar_cipher::NonceSpace;
    use fulmar_config::{Config, Environment, Invocation, Side, from_args};
    use fulmar_session::transmit::Path;

    #[test]
    fn threads_are_divided_among_ports() {
        for (threads, ports, each) in [
            (1, 1, 1),
            (2, 1, 2),
            (8, 1, 8),
            (64, 1, 8),
            (8, 2, 4),
            (8, 3, 2),
            (8, 7, 1),
            (8, 8, 1),
            (4, 1000, 1),
        ] {
            assert_eq!(drivers_per_port(threads, ports), each, "{threads} {ports}");
        }
    }

    /// A session at the first of two endpoints; then its client has another address, and the second endpoint gets what it sends.
    #[test]
    fn a_driver_that_does_not_keep_up_loses_what_is_counted() {
        let (client, server) = (config(Side::Client), config(Side::Server));
        let [client, server] =
            [(client, 1), (server, 2)].map(|(c, seed)| Link::new(&c, NonceSpace::new([seed; 32])));
        let registry = Registry::new(vec![0, 0]);
        let path = |port: u16| Path {
            remote: ([127, 0, 0, 1], port).into(),
            local: None,
        };
        let now = Instant::from_millis(1000);
        // Of a client that is known to be there, copies from elsewhere are strangers'.
        registry.addresses().validate(now, path(50).remote);
        let [mut home, mut away] = [0, 1].map(|me| {
            let mut endpoint = server.server(2);
            let (directory, exchange) = registry.enter(me);
            endpoint.share(directory);
            endpoint.share_addresses(registry.addresses());
            (endpoint, exchange)
        });
        let (mut client, session) = client.client(path(1), 7, now);
        client.open_stream(now, session).expect("a stream");
        while !client.flush(now) {}
        let run = client.next_run().expect("the first datagrams");
        let arrive = |endpoint: &mut Endpoint, from| {
            let mut data = run.data().to_vec();
            endpoint.handle_run(now, path(from), &mut data, run.segment());
        };
        arrive(&mut home.0, 50);
        assert_eq!(home.0.counters().passive_opens, 1);
        let batches = LINE + 9;
        for _ in 0..batches {
            arrive(&mut away.0, 60);
            away.1.pass_on(&mut away.0);
        }
        let counters = away.0.counters();
        assert_eq!(counters.passive_opens, 0);
        let each = counters.handovers / batches as u64;
        assert!(each > 0);
        assert_eq!(counters.handovers_lost, 9 * each);
        // What was in the line arrives, a bounded part of it at a time.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let before = home.0.counters().stranger_datagrams;
        for _ in 0..LINE / TAKEN {
            assert!(home.1.take(&mut cx, &mut home.0, now));
        }
        assert!(!home.1.take(&mut cx, &mut home.0, now));
        let taken = home.0.counters().stranger_datagrams - before;
        assert_eq!(taken, LINE as u64 * each, "replays, all of them");
        // Nobody is there any more.
        drop(home);
        arrive(&mut away.0, 60);
        away.1.pass_on(&mut away.0);
        assert_eq!(away.0.counters().handovers, counters.handovers);
        assert!(away.0.counters().refused_replays > 0);
    }

    /// Seen in the field: the memory of conversations was each port's own, so what was recorded at one port opened at the next.
    #[test]
    fn a_recording_of_one_port_opens_nothing_at_another() {
        let (client, server) = (config(Side::Client), config(Side::Server));
        let [client, server] =
            [(client, 1), (server, 2)].map(|(c, seed)| Link::new(&c, NonceSpace::new([seed; 32])));
        let registry = Registry::new(vec![0, 0, 1]);
        let mut endpoints = [0, 1, 2].map(|me| {
            let mut endpoint = server.server(registry.on_port_of(me));
            let (directory, exchange) = registry.enter(me);
            endpoint.share(directory);
            (endpoint, exchange)
        });
        assert_eq!([0, 1, 2].map(|me| registry.on_port_of(me)), [2, 2, 1]);
        let now = Instant::from_millis(1000);
        let path = |port: u16| Path {
            remote: ([127, 0, 0, 1], port).into(),
            local: None,
        };
        let (mut client, session) = client.client(path(1), 7, now);
        client.open_stream(now, session).expect("a stream");
        while !client.flush(now) {}
        let run = client.next_run().expect("the first datagrams");
        let mut opened = |me: usize| {
            let endpoint: &mut Endpoint = &mut endpoints[me].0;
            let mut data = run.data().to_vec();
            endpoint.handle_run(now, path(50), &mut data, run.segment());
            let counters = endpoint.counters();
            (
                counters.passive_opens,
                counters.refused_replays > 0,
                counters.handovers > 0,
            )
        };
        assert_eq!(opened(0), (1, false, false));
        // On the same port a datagram finds its session; on another there is none of it.
        assert_eq!(opened(1), (0, false, true));
        assert_eq!(opened(2), (0, true, false));
        // Nor when it is over.
        let [home, ..] = endpoints;
        drop(home);
        let (mut directory, _exchange) = registry.enter(2);
        assert_eq!(directory.owner(7), Owner::Past(None));
        assert!(!directory.claim(7));
    }

    fn config(side: Side) -> Config {
        match from_args(side, &[], &Environment::default()) {
            Ok(Invocation::Run(loaded)) => loaded.config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn directories_of_one_port_know_the_same() {
        let registry = Registry::new(vec![0, 0]);
        let ((mut a, line_a), (mut b, _line_b)) = (registry.enter(0), registry.enter(1));
        assert!(a.claim(7) && a.claim(8) && b.claim(9));
        assert_eq!((a.owner(7), b.owner(7)), (Owner::Free, Owner::Other(0)));
        a.release(7, true);
        a.release(8, false);
        assert_eq!(
            (b.owner(7), b.owner(8)),
            (Owner::Past(Some(0)), Owner::Free)
        );
        // A driver that has failed leaves nothing that could begin again, here or when it is back.
        assert!(a.claim(10));
        drop((a, line_a));
        assert_eq!(b.owner(10), Owner::Past(None));
        let (mut a, _line_a) = registry.enter(0);
        assert_eq!(
            (a.owner(10), a.owner(9)),
            (Owner::Past(None), Owner::Other(1))
        );
    }
}
