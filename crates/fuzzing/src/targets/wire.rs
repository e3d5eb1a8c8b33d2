//! Targets of `fulmar-wire`: whatever parses is written again as it was.

use fulmar_wire::{fec, kcp, smux};

use crate::input::Input;

/// KCP segments back to back, in both byte orders.
///
/// Input: a byte for the byte order, then the datagram.
pub fn kcp_segments(data: &[u8]) {
    let mut input = Input::new(data);
    let format = if input.byte().is_multiple_of(2) {
        kcp::Format::LittleEndian
    } else {
        kcp::Format::BigEndian
    };
    let mut datagram = input.rest();
    while let Ok(view) = format.view(datagram) {
        match view.parse() {
            Ok((header, data, rest)) => {
                assert_eq!((header.conv, header.sn), (view.conv(), view.sn()));
                assert_eq!(header.command as u8, view.command_byte());
                let (head, behind) = datagram.split_at(kcp::HEADER_LEN);
                assert_eq!(format.emit(&header), head);
                assert_eq!([data, rest].concat(), behind);
                datagram = rest;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
    assert!(datagram.len() < kcp::HEADER_LEN);
}

/// One FEC packet.
///
/// Input: the packet.
pub fn fec_packet(data: &[u8]) {
    match fec::Packet::parse(data) {
        Ok(packet) => {
            assert_eq!(fec::Kind::of(data), Some(packet.kind()));
            let mut again = data.to_vec();
            again[..fec::SHARD_OFFSET].fill(0);
            packet.header().emit(&mut again);
            assert_eq!(again, data);
            assert_eq!(packet.shard(), &data[fec::SHARD_OFFSET..]);
            assert_eq!(packet.payload(), &data[fec::HEADER_LEN..]);
            assert_eq!(
                packet.out_of_band().is_some(),
                packet.kind() == fec::Kind::OutOfBand
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Some(payload) = fec::shard_payload(data) {
        assert!(payload.len() + fec::SIZE_LEN <= data.len());
    }
}

/// A stream of smux frames.
///
/// Input: the stream.
pub fn smux_frames(data: &[u8]) {
    let mut stream = data;
    loop {
        let header = match smux::Header::parse(stream) {
            Ok(header) => header,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        assert_eq!(header.to_bytes(), stream[..smux::HEADER_LEN]);
        if let Some(hello) = smux::Hello::parse(&header) {
            assert_eq!(hello.header(header.version), header);
        }
        let body = &stream[smux::HEADER_LEN..];
        if let Ok(update) = smux::Update::parse(body) {
            assert_eq!(update.to_bytes(), body[..smux::UPDATE_LEN]);
        }
        if let Ok(reset) = smux::Reset::parse(body) {
            assert_eq!(reset.to_bytes(), body[..smux::RESET_LEN]);
        }
        let len = header
            .command
            .fixed_len()
            .unwrap_or(usize::from(header.len));
        match body.get(len..) {
            Some(rest) => stream = rest,
            None => return,
        }
    }
}
