//! stub for compiling
#![allow(missing_docs, dead_code)]
use crate::transmit::Path;
use core::time::Duration;
use fulmar_wire::libev::Hello;
use fulmar_wire::time::Instant;
use std::net::SocketAddr;
pub struct Control {
    server: Option<SocketAddr>,
}
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Resolve,
}
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Reset { conv: u32 },
}
impl Control {
    pub fn handle(&mut self, _n: Instant, _p: Path, _b: &[u8], _f: bool) -> Option<Told> {
        None
    }
    pub fn heard(&mut self, _n: Instant, _f: SocketAddr) {}
    pub fn sent(&mut self, _n: Instant) {}
    pub fn suspect(&mut self, _n: Instant) {}
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn handle_timeout(&mut self, _n: Instant) {}
    pub fn poll_transmit(&mut self, _o: &mut Vec<u8>) -> Option<Path> {
        None
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    pub fn server(&self) -> Option<SocketAddr> {
        self.server
    }
    pub fn hello(&self, _o: SocketAddr) -> Option<Hello> {
        None
    }
    pub fn resolved(&mut self, _n: Instant, _a: Vec<SocketAddr>) {}
    pub fn rtt(&self) -> Option<Duration> {
        None
    }
}
