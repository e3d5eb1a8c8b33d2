//! What the other programs notice of a client that ends when it is told to.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::io::{Read, Write};
use std::net::TcpListener;

use kit::SOON;
use kit::pair::Pair;

/// A server keeps connections for two minutes for a client that may only be asleep; one that has ended says so.
#[test]
fn a_client_that_ends_cuts_its_connections_at_the_service() {
    for compat in ["", "2016", "2016bt", "libev"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let target = listener.local_addr().expect("address");
        let mut pair = Pair::start(compat, target, None, None);
        let mut application = pair.connect();
        application.write_all(b"hello").expect("written");
        let (mut service, _) = listener.accept().expect("a connection");
        service.set_read_timeout(Some(SOON)).expect("limit");
        let mut hello = [0; 5];
        service.read_exact(&mut hello).expect("what was sent");
        assert!(pair.client.end("INT").success());
        let end = service.read(&mut hello);
        let timeout = |e: &std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!end.as_ref().is_err_and(timeout), "{compat}: {end:?}");
        assert!(!matches!(end, Ok(1..)), "{compat}: {end:?}");
    }
}
