//! stub for compiling
#![allow(missing_docs, dead_code, clippy::all)]
use crate::transmit::Path;
use core::time::Duration;
use fulmar_wire::libev::{Hello, Session0};
use fulmar_wire::time::Instant;
use std::net::SocketAddr;
pub struct Control {
    server: Option<SocketAddr>,
    out: Vec<(Path, u32)>,
    ping: Option<Path>,
    hello: Vec<SocketAddr>,
}
#[derive(Clone, Debug)]
pub enum Place {
    Bound,
    Client {
        servers: Vec<SocketAddr>,
    },
    RendezvousClient {
        relays: Vec<SocketAddr>,
        id: Vec<u8>,
        local: Vec<SocketAddr>,
    },
    RendezvousServer {
        relays: Vec<SocketAddr>,
        id: Vec<u8>,
        local: Vec<SocketAddr>,
    },
}
#[derive(Clone, Debug)]
pub struct Settings {
    pub place: Place,
    pub keepalive: Option<Duration>,
    pub timeout: Duration,
    pub seed: u64,
    pub allow_loopback: bool,
}
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Resolve,
    Rtt(Duration),
    PeerLost,
    PeerFound { peer: SocketAddr },
    PeerChanged { peer: SocketAddr },
}
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Reset { conv: u32 },
}
impl Control {
    pub fn new(s: Settings, _n: Instant) -> Self {
        let server = match &s.place {
            Place::Client { servers } => servers.first().copied(),
            _ => None,
        };
        Self {
            server,
            out: vec![],
            ping: server.map(|remote| Path {
                remote,
                local: None,
            }),
            hello: vec![],
        }
    }
    pub fn handle(&mut self, _n: Instant, p: Path, b: &[u8], _f: bool) -> Option<Told> {
        match Session0::parse(b) {
            Ok(Session0::Reset { conv }) => Some(Told::Reset { conv }),
            Ok(Session0::Ping { time, hello }) => {
                if hello.is_some() {
                    self.hello.push(p.remote);
                }
                self.out.push((p, time));
                None
            }
            Ok(Session0::Pong { hello: Some(_), .. }) => {
                self.hello.push(p.remote);
                None
            }
            _ => None,
        }
    }
    pub fn heard(&mut self, _n: Instant, _f: SocketAddr) {}
    pub fn sent(&mut self, _n: Instant) {}
    pub fn suspect(&mut self, _n: Instant) {}
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn handle_timeout(&mut self, _n: Instant) {}
    pub fn poll_transmit(&mut self, o: &mut Vec<u8>) -> Option<Path> {
        let h = Some(Hello { features: 1 });
        if let Some(p) = self.ping.take() {
            Session0::Ping { time: 1, hello: h }.emit(o);
            return Some(p);
        }
        let (p, time) = self.out.pop()?;
        Session0::Pong { time, hello: h }.emit(o);
        Some(p)
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    pub fn server(&self) -> Option<SocketAddr> {
        self.server
    }
    pub fn hello(&self, o: SocketAddr) -> Option<Hello> {
        self.hello.contains(&o).then_some(Hello { features: 1 })
    }
    pub fn resolved(&mut self, _n: Instant, _a: Vec<SocketAddr>) {}
    pub fn local_changed(&mut self, _l: Vec<SocketAddr>) {}
    pub fn set_keepalive(&mut self, _k: Option<Duration>, _t: Duration) {}
    pub fn rtt(&self) -> Option<Duration> {
        None
    }
}
