//! Every socket option: what is set is what is read back, and what is not asked for is not touched.
#![cfg_attr(not(target_os = "linux"), allow(unused_imports, dead_code))]

use std::io::ErrorKind;
use std::net::SocketAddr;

use fulmar_netio::{OptionError, SockRef, SocketOptions, UdpState, adopt, bind, bind_group};

mod skipped;
use skipped::skipped;

const LOCAL: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn has_family(local: &str) -> bool {
    let there = std::net::UdpSocket::bind(local).is_ok();
    if !there {
        skipped(&format!("no address {local} here"));
    }
    there
}

#[test]
fn buffers_are_granted_or_the_clamp_shows() {
    let options = SocketOptions {
        recv_buffer: Some(100_000),
        send_buffer: Some(50_000),
        ..SocketOptions::default()
    };
    let (socket, granted) = bind(addr("127.0.0.1:0"), &options).expect("bind");
    assert_eq!(
        (granted.recv_buffer, granted.send_buffer),
        (100_000, 50_000)
    );
    assert_eq!(granted.recv_buffer_clamped(&options), None);
    assert_eq!(granted.send_buffer_clamped(&options), None);
    assert!(granted.refused.is_empty());
    // The granted size is in the unit in which it was asked for.
    #[cfg(target_os = "linux")]
    assert_eq!(
        SockRef::from(&socket).recv_buffer_size().expect("size"),
        200_000
    );
    drop(socket);

    // No system grants that much; whatever it grants is said.
    let greedy = SocketOptions {
        recv_buffer: Some(usize::MAX / 4),
        send_buffer: Some(usize::MAX / 4),
        ..SocketOptions::default()
    };
    let (_, granted) = bind(addr("127.0.0.1:0"), &greedy).expect("bind");
    assert_eq!(granted.recv_buffer_clamped(&greedy), greedy.recv_buffer);
    assert_eq!(granted.send_buffer_clamped(&greedy), greedy.send_buffer);
}

#[cfg(target_os = "linux")]
#[test]
fn a_privileged_program_passes_the_limit() {
    let limit: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max")
        .expect("limit")
        .trim()
        .parse()
        .expect("number");
    let options = SocketOptions {
        recv_buffer: Some(limit * 2),
        ..SocketOptions::default()
    };
    let (_, granted) = bind(addr("127.0.0.1:0"), &options).expect("bind");
    if granted.recv_buffer == limit * 2 {
        assert_eq!(granted.recv_buffer_clamped(&options), None);
    } else {
        skipped("in part: no privilege to pass net.core.rmem_max");
        assert_eq!(granted.recv_buffer, limit);
        assert_eq!(granted.recv_buffer_clamped(&options), Some(limit * 2));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_code_point_is_shifted_in_both_families() {
    let options = SocketOptions {
        dscp: Some(46),
        ..SocketOptions::default()
    };
    for local in LOCAL.into_iter().filter(|l| has_family(l)) {
        let (socket, granted) = bind(addr(local), &options).expect("bind");
        assert_eq!(granted.dscp, Some(46));
        // IPv4 through a dual-stack socket carries it as well.
        assert_eq!(SockRef::from(&socket).tos_v4().expect("tos"), 0xb8);
        if local.starts_with('[') {
            assert_eq!(SockRef::from(&socket).tclass_v6().expect("class"), 0xb8);
        }
    }
}

#[test]
fn a_code_point_has_six_bits() {
    let options = SocketOptions {
        dscp: Some(64),
        ..SocketOptions::default()
    };
    let error = bind(addr("127.0.0.1:0"), &options).expect_err("out of range");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("dscp 64"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_port_is_shared_only_when_asked() {
    let shared = SocketOptions {
        reuse_port: true,
        ..SocketOptions::default()
    };
    let (first, _) = bind(addr("127.0.0.1:0"), &shared).expect("bind");
    assert!(SockRef::from(&first).reuse_port().expect("option"));
    let same = first.local_addr().expect("address");
    bind(same, &shared).expect("shared");
    let error = bind(same, &SocketOptions::default()).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&same.to_string()), "{error}");
    assert!(
        error
            .get_ref()
            .and_then(|e| e.downcast_ref::<OptionError>())
            .is_some()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_group_shares_its_port_and_no_second_group_gets_in() {
    for local in ["127.0.0.1:0", "[::]:0"] {
        if !has_family(local) {
            continue;
        }
        let (first, _) = bind_group(addr(local), true, &SocketOptions::default()).expect("first");
        let same = first.local_addr().expect("address");
        let joining = SocketOptions {
            reuse_port: true,
            ..SocketOptions::default()
        };
        let mut group = vec![first];
        for _ in 0..3 {
            group.push(bind(same, &joining).expect("joined").0);
        }
        for options in [SocketOptions::default(), joining.clone()] {
            let error = bind_group(same, true, &options).expect_err("in use");
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        }
        // 64 peers, and all of them at one of four sockets: once in 4^63.
        let to = SocketAddr::from(([127, 0, 0, 1], same.port()));
        let peers: Vec<_> = (0..64)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a peer"))
            .collect();
        for peer in &peers {
            peer.send_to(b"x", to).expect("sent");
        }
        let mut arrived = vec![0; group.len()];
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while arrived.iter().sum::<usize>() < peers.len() && std::time::Instant::now() < patience {
            for (n, socket) in arrived.iter_mut().zip(&group) {
                *n += std::iter::from_fn(|| socket.recv(&mut [0]).ok()).count();
            }
            std::thread::yield_now();
        }
        assert_eq!(arrived.iter().sum::<usize>(), 64, "{arrived:?}");
        assert!(
            arrived.iter().filter(|n| **n > 0).count() > 1,
            "{arrived:?}"
        );
        // Whoever was first may leave: the group holds the port, and takes members.
        group.remove(0);
        assert_eq!(
            bind_group(same, true, &SocketOptions::default())
                .expect_err("in use")
                .kind(),
            ErrorKind::AddrInUse
        );
        bind(same, &joining).expect("joined");
    }
}

#[test]
fn a_v6_socket_is_dual_unless_asked() {
    if !has_family("[::1]:0") {
        return;
    }
    for only_v6 in [false, true] {
        let options = SocketOptions {
            only_v6,
            ..SocketOptions::default()
        };
        let (socket, _) = bind(addr("[::]:0"), &options).expect("bind");
        assert_eq!(SockRef::from(&socket).only_v6().expect("option"), only_v6);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn mark_and_device_are_set_or_an_error() {
    let options = SocketOptions {
        mark: Some(7),
        device: Some("lo".to_owned()),
        ..SocketOptions::default()
    };
    match bind(addr("127.0.0.1:0"), &options) {
        Ok((socket, granted)) => {
            assert_eq!(
                (granted.mark, granted.device.as_deref()),
                (Some(7), Some("lo"))
            );
            assert_eq!(SockRef::from(&socket).mark().expect("mark"), 7);
        }
        Err(e) => {
            skipped("no privilege to set a mark");
            assert_eq!(e.kind(), ErrorKind::PermissionDenied);
            assert!(e.to_string().contains("mark 7"), "{e}");
        }
    }
    let nowhere = SocketOptions {
        device: Some("no-such-device".to_owned()),
        ..SocketOptions::default()
    };
    let error = bind(addr("127.0.0.1:0"), &nowhere).expect_err("no such device");
    assert!(error.to_string().contains("no-such-device"), "{error}");
}

#[test]
fn options_apply_to_a_socket_that_exists() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let options = SocketOptions {
        recv_buffer: Some(30_000),
        dscp: Some(10),
        ..SocketOptions::default()
    };
    let granted = adopt(&socket, &options).expect("adopt");
    assert_eq!(granted.recv_buffer, 30_000);
    #[cfg(unix)]
    assert_eq!(granted.dscp, Some(10));
    assert_eq!(
        socket.recv(&mut [0]).expect_err("non-blocking").kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn nothing_asked_is_nothing_changed() {
    let fresh = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let (socket, granted) = bind(addr("127.0.0.1:0"), &SocketOptions::default()).expect("bind");
    UdpState::new((&socket).into()).expect("state");
    let (fresh, ours) = (SockRef::from(&fresh), SockRef::from(&socket));
    assert_eq!(
        fresh.recv_buffer_size().expect("size"),
        ours.recv_buffer_size().expect("size")
    );
    assert_eq!(
        fresh.send_buffer_size().expect("size"),
        ours.send_buffer_size().expect("size")
    );
    assert_eq!(fresh.tos_v4().expect("tos"), ours.tos_v4().expect("tos"));
    assert_eq!(fresh.ttl_v4().expect("ttl"), ours.ttl_v4().expect("ttl"));
    assert!(granted.refused.is_empty() && granted.mark.is_none() && granted.device.is_none());
}
