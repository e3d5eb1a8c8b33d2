//! The sending side: numbers packets, groups them, computes parity (docs/spec/kcptun.md, section 6.3).

use core::time::Duration;

use fulmar_gf256::{Kernel, Plan, Rows, RowsMut};
use fulmar_wire::fec::{self, HEADER_LEN, Header, Kind, SHARD_OFFSET};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;

use crate::shape::Shape;

/// A group whose last packet follows the one before it after this long or longer gets no parity: the stream is
/// not continuous.
pub const CONTINUITY: Duration = Duration::from_millis(500);

/// Shards are kept at multiples of this, in bytes: a cache line, and the longest vector of any kernel.
const ALIGN: usize = 64;

/// The encoder of one direction of one session.
///
/// Its user passes every outgoing packet to [`Self::push`]; when that says so, the packet is the last of its group,
/// and [`Self::emit_parity`] writes the parity packets straight to where they leave from: behind the data packet in
/// the same transmit run. Both work on clear text, before the run is sealed.
///
/// It keeps the group's packets in one buffer that grows to `data` times the longest packet and is allocated with
/// the first; nothing is allocated per packet or per group.
#[derive(Debug)]
pub struct Encoder {
    shape: Shape,
    plan: Plan,
    /// The number of the next data packet.
    next: u32,
    /// When the packet before this one was pushed.
    last: Option<Instant>,
    /// The shards of the group, zero-padded only when parity is computed.
    bytes: Vec<u8>,
    stride: usize,
    /// Where each shard of the group begins in `bytes`, for all `data` of them.
    starts: Vec<usize>,
    /// The length of each shard of the group so far.
    lens: Vec<usize>,
    /// The length of the longest.
    longest: usize,
    /// The number of the first parity packet, while parity may be asked for.
    due: Option<u32>,
    /// Whether the group that is being filled gets no parity.
    withheld: bool,
}

impl Encoder {
    /// An encoder that starts at sequence number 0.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self::with_kernel(shape, Kernel::best())
    }

    /// As [`Self::new`], with a kernel of the caller's choice.
    #[must_use]
    pub fn with_kernel(shape: Shape, kernel: Kernel) -> Self {
        Self {
            shape,
            plan: shape.code().encoding(kernel),
            next: 0,
            last: None,
            bytes: Vec::new(),
            stride: 0,
            starts: vec![0; shape.data()],
            lens: Vec::with_capacity(shape.data()),
            longest: 0,
            due: None,
            withheld: false,
        }
    }

    /// Starts with group number `group` (modulo the number of groups until the wrap) instead of 0.
    #[must_use]
    pub fn starting_at(mut self, group: u32) -> Self {
        let step = self.shape.step();
        self.next = group % (self.shape.wrap() / step) * step;
        self
    }

    /// The shape of its groups.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The sequence number of the next data packet.
    #[must_use]
    pub fn next_seqid(&self) -> Seq {
        Seq(self.next)
    }

    /// Takes an outgoing KCP datagram that lies behind [`HEADER_LEN`] bytes of room, fills the header in, and
    /// returns how many parity packets are due right behind it: 0, or all of the group's.
    ///
    /// Acknowledgements and retransmissions count like any datagram; out-of-band packets must not be passed.
    /// Parity that is due and not emitted before the next `push` is never sent, which receivers bear.
    ///
    /// `packet` must be [`HEADER_LEN`] to 65,541 bytes long. Anything else is a bug of the caller, which debug
    /// builds assert; other builds then return 0 and leave `packet` as it is.
    pub fn push(&mut self, now: Instant, packet: &mut [u8]) -> usize {
        let fits = (HEADER_LEN..=HEADER_LEN + fec::MAX_PAYLOAD).contains(&packet.len());
        debug_assert!(fits, "a packet of {} bytes", packet.len());
        if !fits {
            return 0;
        }
        if self.lens.len() == self.shape.data() {
            self.lens.clear();
            self.longest = 0;
        }
        self.due = None;

        fec::emit_data(Seq(self.next), packet);
        self.next = self.after(self.next, 1);
        self.keep(&packet[SHARD_OFFSET..]);

        let continuous = self.last.is_some_and(|last| now.since(last) < CONTINUITY);
        self.last = Some(now);
        if self.lens.len() < self.shape.data() {
            return 0;
        }
        let first_parity = self.next;
        self.next = self.after(self.next, self.shape.parity() as u32);
        if core::mem::take(&mut self.withheld) || !continuous {
            return 0;
        }
        self.due = Some(first_parity);
        self.shape.parity()
    }

    /// The group of the packet that was pushed last gets no parity: its loss has to show at the other end.
    pub fn withhold(&mut self) {
        self.due = None;
        self.withheld = self.lens.len() < self.shape.data();
    }

    /// Bytes of each parity packet that is due, from the FEC header on: those of the longest data packet of the
    /// group. 0 when none is due.
    #[must_use]
    pub fn parity_len(&self) -> usize {
        if self.due.is_some() {
            SHARD_OFFSET + self.longest
        } else {
            0
        }
    }

    /// Writes all parity packets that are due: the `i`-th is [`Self::parity_len`] bytes long and begins at
    /// `out[i * stride + offset]`. `stride` is the distance between datagrams in the transmit run and `offset` the
    /// room that the cipher wants in front of a packet. Does nothing when none is due.
    ///
    /// # Panics
    /// When a packet does not fit into `stride` or `out`.
    pub fn emit_parity(&mut self, out: &mut [u8], stride: usize, offset: usize) {
        let Some(first_parity) = self.due.take() else {
            return;
        };
        assert!(
            stride >= SHARD_OFFSET + self.longest || self.shape.parity() == 1,
            "parity packets overlap"
        );
        for (&start, &len) in self.starts.iter().zip(&self.lens) {
            self.bytes[start + len..start + self.longest].fill(0);
        }
        for (i, seqid) in (0..self.shape.parity()).zip(first_parity..) {
            let header = Header {
                seqid: Seq(seqid),
                kind: Kind::Parity,
            };
            header.emit(&mut out[i * stride + offset..]);
        }
        let sources = Rows {
            bytes: &self.bytes,
            starts: &self.starts,
        };
        let sinks = RowsMut {
            bytes: out,
            first: offset + SHARD_OFFSET,
            stride,
        };
        self.plan.apply(sources, sinks, self.longest);
    }

    /// `n` numbers after `seqid`, modulo the wrap. `seqid + n` exceeds the wrap never, as that is a group's edge.
    fn after(&self, seqid: u32, n: u32) -> u32 {
        match seqid + n {
            sum if sum == self.shape.wrap() => 0,
            sum => sum,
        }
    }

    /// Appends `shard` to the group.
    fn keep(&mut self, shard: &[u8]) {
        if shard.len() > self.stride {
            self.widen(shard.len());
        }
        let start = self.starts[self.lens.len()];
        self.bytes[start..start + shard.len()].copy_from_slice(shard);
        self.lens.push(shard.len());
        self.longest = self.longest.max(shard.len());
    }

    /// Makes room for shards of `len` bytes, aligned for the kernels, keeping those of the group.
    fn widen(&mut self, len: usize) {
        let stride = len.next_multiple_of(ALIGN);
        let bytes = vec![0; stride * self.shape.data() + ALIGN];
        let first = bytes.as_ptr().align_offset(ALIGN) % ALIGN;
        let old = core::mem::replace(&mut self.bytes, bytes);
        for (i, start) in self.starts.iter_mut().enumerate() {
            let moved = first + i * stride;
            if let Some(&len) = self.lens.get(i) {
                self.bytes[moved..moved + len].copy_from_slice(&old[*start..*start + len]);
            }
            *start = moved;
        }
        self.stride = stride;
    }
}

#[cfg(test)]
mod tests {
    use fulmar_testkit::vectors::{self, Value, bytes, hex, to_hex};
    use proptest::prelude::*;

    use super::*;

    fn shape(v: &Value) -> Shape {
        let shards = |key: &str| usize::try_from(v[key].as_u64().expect("a count")).expect("usize");
        Shape::new(shards("datashard"), shards("parityshard")).expect("a shape")
    }

    fn hexes<'a>(v: &'a Value, key: &str) -> Vec<&'a str> {
        let list = v[key].as_array().expect("a list");
        list.iter().map(|x| x.as_str().expect("hex")).collect()
    }

    /// A datagram behind room for its header.
    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xcc; HEADER_LEN];
        packet.extend_from_slice(payload);
        packet
    }

    /// All parity packets that are due, out of a run with other bytes between them, which have to stay.
    fn parity(encoder: &mut Encoder) -> Vec<Vec<u8>> {
        let len = encoder.parity_len();
        let count = if len == 0 {
            0
        } else {
            encoder.shape().parity()
        };
        let (front, stride) = (20, len + 36);
        let mut run = vec![0xcc; count * stride];
        encoder.emit_parity(&mut run, stride, front);
        run.chunks(stride.max(1))
            .map(|datagram| {
                let (before, rest) = datagram.split_at(front);
                let (packet, after) = rest.split_at(len);
                assert!(before.iter().chain(after).all(|&b| b == 0xcc));
                packet.to_vec()
            })
            .collect()
    }

    #[test]
    fn a_group_whose_loss_has_to_show_gets_no_parity() {
        let shape = Shape::new(3, 2).expect("a shape");
        let now = Instant::ZERO;
        for withheld_at in 0..3 {
            let mut encoder = Encoder::new(shape);
            encoder.last = Some(now);
            for group in 0..3 {
                for i in 0..3 {
                    let due = encoder.push(now, &mut packet(&[i; 40]));
                    if group == 1 && i == withheld_at {
                        encoder.withhold();
                    }
                    assert!(due == 0 || i == 2);
                }
                assert_eq!(
                    parity(&mut encoder).len(),
                    if group == 1 { 0 } else { 2 },
                    "{group} {withheld_at}"
                );
            }
            // Numbers go on as if it had been sent.
            assert_eq!(encoder.next_seqid(), Seq(15));
        }
    }

    #[test]
    fn groups_of_the_vectors() {
        let file = vectors::load("kcptun/fec_encode.json");
        let groups = file["groups"].as_array().expect("groups");
        assert!(!groups.is_empty());
        for (group, kernel) in groups
            .iter()
            .flat_map(|g| Kernel::available().map(move |k| (g, k)))
        {
            let shape = shape(group);
            let number = |key: &str| u32::try_from(group[key].as_u64().expect(key)).expect(key);
            assert_eq!(shape.wrap(), number("paws"));
            let first = number("first_seqid") / shape.step();
            let mut encoder = Encoder::with_kernel(shape, kernel).starting_at(first);
            assert_eq!(encoder.next_seqid(), Seq(number("first_seqid")));
            // The stream was continuous before: as if a group had just ended.
            encoder.last = Some(Instant::ZERO);

            let expected = hexes(group, "data_packets_hex");
            let payloads = hexes(group, "kcp_payloads_hex");
            assert_eq!(payloads.len(), shape.data());
            for (i, (payload, expected)) in payloads.iter().zip(expected).enumerate() {
                let mut packet = packet(&hex(payload));
                let due = encoder.push(Instant::ZERO, &mut packet);
                assert_eq!(to_hex(&packet), expected);
                let last = i + 1 == shape.data();
                assert_eq!(due, if last { shape.parity() } else { 0 });
                assert_eq!(encoder.parity_len() == 0, !last);
            }
            let found: Vec<String> = parity(&mut encoder).iter().map(|p| to_hex(p)).collect();
            assert_eq!(
                found,
                hexes(group, "parity_packets_hex"),
                "{}",
                group["name"]
            );
            assert_eq!(encoder.next_seqid(), Seq(number("next_seqid")));
        }
    }

    #[test]
    fn continuity_rule_of_the_vectors() {
        let file = vectors::load("kcptun/fec_encode.json");
        let rules = file["continuity_rule"].as_array().expect("rules");
        assert!(!rules.is_empty());
        for rule in rules {
            let number = |key: &str| rule[key].as_u64();
            let mut encoder = Encoder::new(shape(rule));
            let data = encoder.shape().data();
            let mut now = Instant::from_millis(1_000_000);
            let mut due = 0;
            for i in 0..data {
                if i > 0 && i + 1 == data {
                    let gap = number("ms_between_last_two_data_packets").expect("a gap");
                    now += Duration::from_millis(gap);
                }
                due = encoder.push(now, &mut packet(b"some payload"));
            }
            assert_eq!(Some(due as u64), number("parity_sent"), "{rule}");
            assert_eq!(parity(&mut encoder).len(), due);
            assert_eq!(
                Some(u64::from(encoder.next_seqid().0)),
                number("next_seqid")
            );
            if let Some(expected) = number("parity_sent_for_second_packet") {
                let due = encoder.push(now, &mut packet(b"second"));
                assert_eq!(due as u64, expected);
            }
        }
    }

    #[test]
    fn out_of_band_packet_of_the_vectors() {
        let file = vectors::load("kcptun/fec_encode.json");
        let oob = &file["oob_packet"];
        let conv = u32::try_from(oob["conv"].as_u64().expect("conv")).expect("32 bits");
        let mut packet = vec![0; fec::OUT_OF_BAND_HEADER_LEN];
        packet.extend_from_slice(oob["payload_utf8"].as_str().expect("payload").as_bytes());
        fec::emit_out_of_band(conv, &mut packet);
        assert_eq!(packet, bytes(oob, "packet_hex"));
    }

    #[test]
    fn the_limit_of_continuity_is_half_a_second() {
        for (gap, due) in [(499_999, 1), (500_000, 0)] {
            let mut encoder = Encoder::new(Shape::new(1, 1).expect("a shape"));
            let start = Instant::from_micros(77);
            encoder.push(start, &mut packet(b"first"));
            let now = start + Duration::from_micros(gap);
            assert_eq!(encoder.push(now, &mut packet(b"second")), due);
        }
    }

    #[test]
    fn buffers_are_reused() {
        let mut encoder = Encoder::new(Shape::new(10, 3).expect("a shape"));
        let mut run = vec![0; 3 * 1400];
        let mut buffers = |groups: usize| {
            for i in 0..groups * 10 {
                let len = if i % 10 == 0 { 1322 } else { i % 1322 };
                if encoder.push(Instant::ZERO, &mut packet(&vec![0; len])) > 0 {
                    encoder.emit_parity(&mut run, 1400, 0);
                }
            }
            let starts = (encoder.starts.as_ptr(), encoder.starts.capacity());
            let lens = (encoder.lens.as_ptr(), encoder.lens.capacity());
            (encoder.bytes.as_ptr(), encoder.bytes.len(), starts, lens)
        };
        let warm = buffers(2);
        assert_eq!(buffers(100), warm);
    }

    #[test]
    fn parity_that_nobody_fetches_is_skipped() {
        let mut encoder = Encoder::new(Shape::new(2, 1).expect("a shape"));
        for _ in 0..2 {
            encoder.push(Instant::ZERO, &mut packet(b"payload"));
        }
        assert_eq!(encoder.parity_len(), 15);
        assert_eq!(encoder.push(Instant::ZERO, &mut packet(b"next")), 0);
        assert_eq!(encoder.next_seqid(), Seq(4));
        assert!(parity(&mut encoder).is_empty());
    }

    #[test]
    fn parity_is_emitted_once() {
        let mut encoder = Encoder::new(Shape::new(2, 3).expect("a shape"));
        for _ in 0..2 {
            encoder.push(Instant::ZERO, &mut packet(b"payload"));
        }
        assert_eq!(parity(&mut encoder).len(), 3);
        assert!(parity(&mut encoder).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Shards that follow longer ones are padded with zeros, not with what was there; growth keeps the group.
        #[test]
        fn parity_of_any_lengths_is_that_of_the_padded_shards(
            data in 1usize..6, parity_count in 1usize..5,
            lens in prop::collection::vec(0usize..300, 1..24),
        ) {
            let shape = Shape::new(data, parity_count).expect("a shape");
            let code = shape.code();
            let mut encoder = Encoder::new(shape);
            encoder.last = Some(Instant::ZERO);
            let mut group: Vec<Vec<u8>> = Vec::new();
            for (i, len) in lens.into_iter().enumerate() {
                let mut packet = packet(&vectors::xs(u32::try_from(i + 1).expect("small"), len));
                let due = encoder.push(Instant::ZERO, &mut packet);
                group.push(packet);
                if due == 0 {
                    prop_assert!(group.len() < data);
                    continue;
                }
                let longest = group.iter().map(Vec::len).max().unwrap_or(0);
                prop_assert_eq!(encoder.parity_len(), longest);
                for (row, packet) in parity(&mut encoder).into_iter().enumerate() {
                    for (at, &byte) in packet.iter().enumerate().skip(SHARD_OFFSET) {
                        let sum = group.iter().enumerate().fold(0, |sum, (column, shard)| {
                            let byte = shard.get(at).copied().unwrap_or(0);
                            sum ^ fulmar_gf256::field::mul(code.coefficient(row, column), byte)
                        });
                        prop_assert_eq!(byte, sum);
                    }
                }
                group.clear();
            }
        }
    }
}
