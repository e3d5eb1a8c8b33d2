//! What a driver does about a server that does not answer, or not from where it was looked for.

use std::net::SocketAddr;
use std::time::Duration;

use fulmar_netio::{IcmpError, unmapped};
use fulmar_session::SessionKey;
use fulmar_session::diagnosis::Suspicion;
use fulmar_session::dialect::PathEvent;
use fulmar_session::reachability::GIVE_UP;
use fulmar_session::session::Session;
use fulmar_wire::time::Instant;
use tracing::{debug, info};

use super::{Driver, Report, STREAM_LOG, Side};
use crate::advice::Advice;
use crate::log_kind;
use crate::pump::Pump;

/// How long an ICMP error is a better reason for silence than a guess.
const ICMP_TELLS: Duration = Duration::from_secs(30);

/// What a driver knows of how it reaches the other end.
#[derive(Debug)]
pub(super) struct Reach {
    began: Instant,
    /// Something of the other end has opened.
    answers: bool,
    /// Where a client looks for its server.
    servers: Vec<SocketAddr>,
    /// Where the server was found, if that was looked for.
    server: Option<SocketAddr>,
    /// Since when the server has been down.
    down: Option<Instant>,
    /// When an ICMP error last told why nothing comes.
    icmp: Option<Instant>,
}

impl Reach {
    pub(super) const fn new(began: Instant, servers: Vec<SocketAddr>) -> Self {
        Self {
            began,
            answers: false,
            servers,
            server: None,
            down: None,
            icmp: None,
        }
    }

    /// Whether anything of the other end has opened.
    pub(super) const fn answers(&self) -> bool {
        self.answers
    }

    pub(super) const fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Names were looked up again.
    pub(super) fn resolved(&mut self, servers: &[SocketAddr]) {
        self.servers = servers.to_vec();
    }

    fn is_server(&self, addr: SocketAddr) -> bool {
        let mut known = self.servers.iter().chain(&self.server);
        known.any(|known| unmapped(*known) == unmapped(addr))
    }
}

impl Driver {
    /// The server of a client answers for the first time, or the first client of a server has come.
    pub(super) fn first_answer(&mut self, now: Instant) {
        self.reach.answers = true;
        let Side::Client { lasts, .. } = self.side else {
            return;
        };
        for pump in self.pumps.iter() {
            tell_opened(pump, true);
        }
        // Where the server is asked beside conversations, that tells more.
        if !lasts
            && let Some(key) = self.endpoint.sessions().next()
            && let Some(session) = self.endpoint.session(key)
        {
            let after = session.kcp().srtt().unwrap_or(now - self.reach.began);
            self.report(Report::Answers);
            info!(name: log_kind::SERVER_STATE, "{}", self.advice.answers(session.path().remote, after));
        }
    }

    /// Something was found out beside conversations.
    pub(super) fn beside(&mut self, event: &PathEvent) {
        match event {
            PathEvent::PeerFound { peer } | PathEvent::PeerChanged { peer } => {
                self.reach.server = Some(*peer);
                let keys: Vec<_> = self.endpoint.sessions().collect();
                for key in keys {
                    self.move_on(key);
                }
            }
            PathEvent::Down => self.set_down(true),
            PathEvent::Up => self.set_down(false),
            _ => {}
        }
    }

    /// A session that gets no answer, while the server answers from another address: its connection moves there.
    pub(super) fn move_on(&mut self, key: SessionKey) {
        let suspect = self.endpoint.session(key).filter(|s| s.is_suspect());
        let elsewhere = |s: &Session| {
            self.reach
                .server
                .is_some_and(|server| server != s.path().remote)
        };
        if suspect.is_some_and(elsewhere) {
            self.surrender(key);
        }
    }

    /// Ends a session from which nothing was heard, and gives its connections back for another one. What it sent may have
    /// arrived all the same, but nothing of it was acknowledged.
    pub(super) fn surrender(&mut self, key: SessionKey) {
        let heard = self.endpoint.session(key).map(|s| s.kcp().last_heard());
        if heard != Some(None) {
            return;
        }
        let mut orphans = self.take_pumps(key, true);
        for orphan in &mut orphans {
            // No session died under it; that the server is down ends the search.
            orphan.carried -= 1;
        }
        if !orphans.is_empty() {
            self.report(Report::Orphans(orphans));
        }
        self.endpoint.close_session(key);
    }

    pub(super) fn set_down(&mut self, down: bool) {
        let now = self.clock.now();
        self.reach.down = down.then(|| self.reach.down.unwrap_or(now));
    }

    /// Resets connections that have waited for a server that is down.
    pub(super) fn give_up(&mut self, now: Instant) {
        let Some(down) = self.reach.down else {
            return;
        };
        for index in 0..self.pumps.end() {
            let Some(pump) = self.pumps.get_mut(index) else {
                continue;
            };
            let heard = self
                .endpoint
                .session(pump.session)
                .map(|s| s.kcp().last_heard());
            if heard == Some(None) && now >= down.max(pump.began) + GIVE_UP {
                let watched = pump.is_watched();
                let turn = pump.give_up(&mut self.endpoint, now);
                self.after_turn(index, watched, turn);
            }
        }
    }

    /// The likely reason why a session does not come to life.
    pub(super) fn suspicion(&self, now: Instant, suspicion: &Suspicion) {
        let told = self.reach.icmp.is_some_and(|at| now - at < ICMP_TELLS);
        if !(told && *suspicion == Suspicion::Silence) {
            self.advice.warn(&self.advice.suspicion(suspicion));
        }
    }

    /// Says what routers and hosts have said of our datagrams to the server. Anybody may have made that up, so nothing else follows.
    pub(super) fn icmp_errors(&mut self, now: Instant) {
        if let Side::Server { .. } = self.side {
            return;
        }
        let Self {
            socket,
            reach,
            advice,
            ..
        } = self;
        socket.drain_icmp(|error: IcmpError| {
            if !reach.is_server(error.remote) {
                return;
            }
            match Advice::icmp(&error) {
                Some(text) => {
                    reach.icmp = Some(now);
                    advice.warn(&text);
                }
                None => debug!(name: log_kind::ICMP, "ICMP about datagrams to {}: {}", error.remote, error.kind),
            }
        });
    }
}

/// A stream is open when its server is there.
pub(super) fn tell_opened(pump: &Pump, answers: bool) {
    let name = pump.name.as_deref().unwrap_or("?");
    let stream = pump.stream.wire();
    if answers {
        info!(name: log_kind::STREAMS_OPENED, target: STREAM_LOG, "stream opened: {name} ({stream})");
    } else {
        debug!(name: log_kind::STREAMS_WAITING, target: STREAM_LOG, "stream waits for the server: {name} ({stream})");
    }
}
