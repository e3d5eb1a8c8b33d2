//! Targets of `fulmar-arq`.

use std::time::Duration;

use fulmar_arq::{Config, DatagramSink, Flush, Kcp, Origin, Profile, StrategyKind};
use fulmar_wire::kcp::{Format, HEADER_LEN};
use fulmar_wire::time::Instant;

use crate::input::Input;

/// The conversation of the golden traces, so that their datagrams count.
const CONV: u32 = 195_939_070;

/// A conversation whose other side sends anything.
///
/// Input: two bytes for the profile, one each for the windows, one for the rest of the configuration; then operations, each a byte and
/// what it needs.
pub fn kcp_input(data: &[u8]) {
    let mut input = Input::new(data);
    let (nodelay, resend) = (input.byte(), input.byte());
    let (snd_wnd, rcv_wnd) = (u32::from(input.byte() % 64), u32::from(input.byte() % 64));
    let flags = input.byte();
    let config = Config {
        mtu: [50, 112, 576, 1400][usize::from(flags & 3)],
        profile: Profile::new(
            u32::from(nodelay & 1),
            u32::from(nodelay >> 1),
            u32::from(resend >> 1),
            resend & 1 == 1,
        ),
        snd_wnd,
        rcv_wnd,
        ack_no_delay: flags & 4 != 0,
        write_delay: flags & 8 != 0,
        strategy: if flags & 16 == 0 {
            StrategyKind::Classic
        } else {
            StrategyKind::Auto
        },
        ..Config::default()
    }
    .normalized();
    let mut kcp = Kcp::new(CONV, config);
    kcp.send_ack_ranges(flags & 32 != 0);
    let mut sink = Checked::new(config.mtu);
    let mut now = Instant::from_millis(5000);
    let mut given = 0;
    for _ in 0..500 {
        let op = input.byte();
        match op % 8 {
            0 | 1 => {
                let Some(datagram) = input.chunk() else {
                    break;
                };
                let origin = if op.is_multiple_of(8) {
                    Origin::Wire
                } else {
                    Origin::Recovered
                };
                match kcp.handle_datagram(now, datagram, origin) {
                    Ok(wanted) => assert!(wanted <= kcp.flush_wanted()),
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
                // Once per received run, as a driver does.
                if let Some(kind) = kcp.flush_wanted().kind() {
                    kcp.flush(now, kind, &mut sink);
                }
            }
            2 => now += Duration::from_millis(u64::from(input.u16())),
            3 => {
                let len = usize::from(input.u16() % 3000);
                if kcp.has_room() {
                    kcp.send(&vec![op; len]);
                    given += len;
                }
            }
            4 => {
                while let Some(len) = kcp.recv(<[u8]>::len) {
                    assert!((1..=config.max_payload).contains(&len));
                }
                assert!(!kcp.is_readable());
            }
            5 => kcp.flush(now, Flush::Full, &mut sink),
            6 => {
                if let Some(due) = kcp.poll_timeout() {
                    now = now.max(due);
                    kcp.handle_timeout(now, &mut sink);
                    let again = kcp.poll_timeout();
                    assert!(again.is_none_or(|again| again > now), "timer stands still");
                }
            }
            _ => kcp.probe(now),
        }
        let state = kcp.state();
        assert!(state.len_rcv_queue <= config.rcv_wnd);
        assert!(state.len_rcv_buf <= config.rcv_wnd);
        assert!(state.len_snd_buf <= config.snd_wnd);
        assert_eq!(
            state.len_snd_buf,
            state.snd_nxt.0.wrapping_sub(state.snd_una.0)
        );
        assert!(kcp.in_flight() <= state.len_snd_buf);
        assert!(given >= sink.distinct_bytes());
    }
    kcp.release_memory();
}

/// Takes datagrams and looks at them.
struct Checked {
    mtu: usize,
    buffer: Vec<u8>,
    reserved: usize,
    /// The highest number of a data segment seen, and the bytes of all segments seen for the first time.
    next_sn: u32,
    bytes: usize,
}

impl Checked {
    fn new(mtu: usize) -> Self {
        Self {
            mtu,
            buffer: vec![0; 2048],
            reserved: 0,
            next_sn: 0,
            bytes: 0,
        }
    }

    /// Bytes of the stream that have left.
    const fn distinct_bytes(&self) -> usize {
        self.bytes
    }
}

impl DatagramSink for Checked {
    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        assert!(max_len <= self.mtu);
        self.reserved = max_len;
        &mut self.buffer[..max_len]
    }

    fn commit(&mut self, len: usize) {
        assert!((HEADER_LEN..=self.reserved).contains(&len));
        let mut rest = &self.buffer[..len];
        while !rest.is_empty() {
            let Ok((header, data, behind)) = Format::LittleEndian
                .view(rest)
                .and_then(|view| view.parse())
            else {
                panic!("a malformed segment leaves");
            };
            assert_eq!((header.conv, header.frg), (CONV, 0));
            if !data.is_empty() && header.sn.0 == self.next_sn {
                self.next_sn += 1;
                self.bytes += data.len();
            }
            rest = behind;
        }
        self.buffer.fill(0xaa);
    }
}
