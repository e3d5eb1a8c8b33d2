//! Targets of the TCP-looking packets of `fulmar-wire`.

use std::net::{IpAddr, Ipv4Addr};

use fulmar_wire::libev_obfs::{self, Frame, MAX_FRAME_LEN, Packet};
use fulmar_wire::rawtcp::{self, Ipv4, MAX_HEADER_LEN, Segment};

use crate::input::Input;

/// An IP packet as a raw socket hands it out, and the segment in it; then a segment that we write for the same payload.
///
/// Input: a byte that says whether an IP header comes first, then the packet.
pub fn rawtcp_packet(data: &[u8]) {
    let mut input = Input::new(data);
    let with_ip = input.byte().is_multiple_of(2);
    let packet = input.rest();
    whole_packet(packet);
    let (mut src, mut dst) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 1));
    let mut bytes = packet;
    if with_ip {
        match Ipv4::parse(packet) {
            Ok(ip) => {
                (src, dst) = (ip.src, ip.dst);
                bytes = ip.payload;
                assert!(bytes.len() + rawtcp::IPV4_HEADER_LEN <= packet.len());
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
    let segment = match Segment::parse(bytes) {
        Ok(segment) => segment,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!((rawtcp::HEADER_LEN..=MAX_HEADER_LEN).contains(&segment.header_len()));
    assert_eq!(segment.header_len() + segment.payload().len(), bytes.len());
    let header = segment.header();
    assert_eq!(header.src_port, segment.src_port());
    assert_eq!(header.dst_port, segment.dst_port());

    let (src, dst) = (IpAddr::V4(src), IpAddr::V4(dst));
    let _ = segment.checksum_is_right(src, dst);
    let mut ours = vec![0; rawtcp::MAX_EMITTED_LEN];
    let len = header.emit(&mut ours);
    assert_eq!(len, header.len());
    ours.truncate(len);
    rawtcp::seal(&mut ours, segment.payload(), src, dst);
    ours.extend_from_slice(segment.payload());
    let again = match Segment::parse(&ours) {
        Ok(again) => again,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(again.header(), header);
    assert_eq!(again.payload(), segment.payload());
    assert!(again.checksum_is_right(src, dst));
}

/// A packet of either version of IP as a packet socket hands it out, the one that we write for the same payload, and
/// the same bytes as the texts that come on the connection beside.
fn whole_packet(bytes: &[u8]) {
    let _ = libev_obfs::answer(bytes);
    let _ = libev_obfs::is_accepted(bytes);
    let _ = libev_obfs::is_text(bytes);
    let packet = match Packet::parse(bytes) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let payload = packet.segment.payload();
    assert_eq!(
        bytes.get(packet.at..packet.at + payload.len()),
        Some(payload)
    );
    let frame = Frame {
        src: packet.src.ip(),
        dst: packet.dst.ip(),
        class: packet.class,
        id: 1,
        label: packet.label,
        tcp: packet.segment.header(),
    };
    let mut front = [0; MAX_FRAME_LEN];
    let len = frame.emit(payload, &mut front);
    assert_eq!(len, frame.len());
    let ours = [front.get(..len).unwrap_or_default(), payload].concat();
    let again = match Packet::parse(&ours) {
        Ok(again) => again,
        Err(error) => panic!("{error}"),
    };
    assert!(again.checksum_is_right());
    assert_eq!((again.src, again.dst), (packet.src, packet.dst));
    assert_eq!((again.class, again.label), (packet.class, packet.label));
    assert_eq!(again.segment.payload(), payload);
}
