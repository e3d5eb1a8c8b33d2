//! Systems without packet sockets: nothing constructs an end here.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::options::{ObfsContext, ObfsError, ObfsKind, ObfsOptions, ObfsTotals};
use crate::counters::IoCounters;
use crate::options::Granted;
use crate::run::{RecvBuffers, RecvMeta, Sent, Transmit};

/// One end of kcptun-libev's obfuscation, which this system cannot have.
#[derive(Debug)]
pub enum Obfs {}

#[allow(missing_docs, clippy::missing_errors_doc)] // As on Linux.
impl Obfs {
    pub fn listen(
        _kind: ObfsKind,
        _local: SocketAddr,
        _options: &ObfsOptions,
    ) -> Result<Self, ObfsError> {
        Err(ObfsError::Unsupported)
    }

    pub fn dial(
        _kind: ObfsKind,
        _remote: SocketAddr,
        _local_bind: Option<SocketAddr>,
        _options: &ObfsOptions,
    ) -> Result<Self, ObfsError> {
        Err(ObfsError::Unsupported)
    }

    pub fn kind(&self) -> ObfsKind {
        match *self {}
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        match *self {}
    }

    pub fn readiness(&self) -> io::Result<UdpSocket> {
        match *self {}
    }

    pub fn send_readiness(&self) -> io::Result<UdpSocket> {
        match *self {}
    }

    pub fn granted(&self) -> &Granted {
        match *self {}
    }

    pub fn firewall(&self) -> Option<String> {
        match *self {}
    }

    pub fn firewall_error(&self) -> Option<String> {
        match *self {}
    }

    pub fn is_ready(&self) -> bool {
        match *self {}
    }

    pub fn redial(&self, _remote: SocketAddr) {
        match *self {}
    }

    pub fn authenticate(&self, _peer: SocketAddr) -> bool {
        match *self {}
    }

    pub fn accept_bad_checksums(&self, _accept: bool) {
        match *self {}
    }

    pub fn contexts(&self) -> Vec<ObfsContext> {
        match *self {}
    }

    pub fn totals(&self) -> ObfsTotals {
        match *self {}
    }

    pub fn counters(&self) -> IoCounters {
        match *self {}
    }

    pub fn recv(&self, _buffers: &mut RecvBuffers, _metas: &mut [RecvMeta]) -> io::Result<usize> {
        match *self {}
    }

    pub fn send(&self, _transmit: &Transmit<'_>) -> io::Result<Sent> {
        match *self {}
    }

    pub fn send_many(&self, _transmits: &[Transmit<'_>]) -> io::Result<Sent> {
        match *self {}
    }
}
