//! The receiving side: keeps what arrived, recovers what did not, finds out the sender's shape
//! (docs/spec/kcptun.md, sections 6.4 to 6.6).

use fulmar_gf256::Kernel;
use fulmar_wire::fec::{self, Kind, Packet};
use fulmar_wire::kcptun::MAX_DATAGRAM;

use crate::certainty::Certainty;
use crate::groups::{Groups, Stored};
use crate::shape::Shape;
use crate::tune::Tuner;

/// The decoder of one direction of one session.
///
/// Its user hands data packets to KCP first and then passes every FEC packet to [`Self::handle_packet`]. Memory is
/// bounded by four groups of the longest packet whatever arrives, and nothing is allocated once the pool has grown
/// to what the path's losses need.
#[derive(Debug)]
pub struct Decoder {
    groups: Groups,
    /// [`Shape::wrap`] of their shape.
    wrap: u32,
    kernel: Kernel,
    late: Late,
    tuner: Tuner,
    out_of_sync: bool,
    cautious: bool,
    certainty: Certainty,
    counters: Counters,
}

/// What happens to packets of a group that was complete already.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Late {
    /// They are counted and dropped: KCP has everything that they could tell.
    #[default]
    Ignore,
    /// They start the group afresh, as upstream does. With at least as much parity as data that rebuilds packets
    /// which KCP has already.
    Reopen,
}

/// What a packet was good for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// Stored; its group is not complete.
    Stored,
    /// It completed a group of which no data was lost.
    Complete,
    /// It completed a group, and this many lost data packets were handed over.
    Recovered(usize),
    /// Its group had enough packets, and yet nothing could be recovered.
    Failed,
    /// It is in its group already.
    Duplicate,
    /// Its group was complete already.
    Late,
    /// The sender's shape is another one, not yet known; the packet only served to find it.
    OutOfSync,
    /// With this packet the sender's shape became known. Recovery starts with the next one.
    Tuned(Shape),
    /// Not part of the code. Its content is the caller's business.
    OutOfBand,
}

/// Why a packet was dropped.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a FEC packet.
    #[error("malformed: {0}")]
    Malformed(#[from] fec::Error),
    /// Longer than a datagram may be, 1500 bytes.
    #[error("{0} bytes are more than a datagram may have")]
    TooLong(usize),
    /// A sequence number that senders of the current shape do not reach.
    #[error("sequence number {0} lies beyond the wrap")]
    BeyondWrap(u32),
}

/// What a decoder has seen. All but the last two grow only.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Groups that needed no help (`FECFullShards`).
    pub full_shards: u64,
    /// Parity packets taken in (`FECParityShards`).
    pub parity_shards: u64,
    /// Failed reconstructions, and rebuilt packets with an impossible size (`FECErrs`).
    pub errors: u64,
    /// Packets rebuilt and handed over (`FECRecovered`).
    pub recovered: u64,
    /// Out-of-band packets (`OOBPackets`).
    pub out_of_band: u64,
    /// Packets dropped because of a [`DecodeError`].
    pub rejected: u64,
    /// Packets rebuilt and not handed over, because the shape was not certain.
    pub withheld: u64,
    /// How often the shape was found, changed or not.
    pub tunings: u64,
    /// Groups held now (`FECShardSet`), at most 4.
    pub shard_sets: u64,
    /// The newest group's number (`FECShardMin`).
    pub newest_group: u32,
}

impl Decoder {
    /// A decoder for a sender of groups of `shape`, or one that was not told: it starts at 1+1 and tunes itself
    /// (section 6.5).
    #[must_use]
    pub fn new(shape: Option<Shape>) -> Self {
        Self::with_kernel(shape, Kernel::best())
    }

    /// As [`Self::new`], with a kernel of the caller's choice.
    #[must_use]
    pub fn with_kernel(shape: Option<Shape>, kernel: Kernel) -> Self {
        let late = Late::default();
        let shape = shape.unwrap_or(Shape::UNKNOWN);
        Self {
            groups: Groups::new(shape, late, kernel),
            wrap: shape.wrap(),
            kernel,
            late,
            tuner: Tuner::default(),
            out_of_sync: false,
            cautious: false,
            certainty: Certainty::default(),
            counters: Counters::default(),
        }
    }

    /// Hands nothing over before the sender's shape is certain. Upstream does from the first group on; when its shape
    /// is another one than assumed, what is rebuilt until that is noticed is rubbish that KCP takes for data.
    #[must_use]
    pub const fn cautious(mut self) -> Self {
        self.cautious = true;
        self
    }

    /// Chooses what happens to late packets; forgets all groups.
    #[must_use]
    pub fn late_packets(mut self, late: Late) -> Self {
        self.late = late;
        self.groups = Groups::new(self.shape(), late, self.kernel);
        self
    }

    /// The shape assumed now.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.groups.shape()
    }

    /// Whether the sender's shape is known to be another one and is being looked for; nothing is recovered
    /// meanwhile.
    #[must_use]
    pub fn out_of_sync(&self) -> bool {
        self.out_of_sync
    }

    /// Whether the sender's shape is certain: what was seen fits no other.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        self.certainty.is_certain()
    }

    /// What was seen so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            shard_sets: self.groups.held() as u64,
            newest_group: self.groups.newest(),
            ..self.counters
        }
    }

    /// Takes one packet, from the FEC header on. The KCP datagrams that it makes known go to `recovered`, in
    /// the order of their sequence numbers.
    ///
    /// # Errors
    /// [`DecodeError`]: the packet is counted and dropped, and nothing else happens.
    pub fn handle_packet(
        &mut self,
        packet: &[u8],
        recovered: &mut dyn FnMut(&[u8]),
    ) -> Result<Accepted, DecodeError> {
        let (mut good, mut bad) = (0, 0);
        let result = self.handle(packet, &mut |shard| match fec::shard_payload(shard) {
            Some(payload) => {
                good += 1;
                recovered(payload);
            }
            None => bad += 1,
        });
        self.counters.recovered += good;
        self.counters.errors += bad;
        self.counters.rejected += u64::from(result.is_err());
        result
    }

    /// [`Self::handle_packet`] in terms of whole shards.
    fn handle(
        &mut self,
        packet: &[u8],
        rebuilt: &mut dyn FnMut(&[u8]),
    ) -> Result<Accepted, DecodeError> {
        if packet.len() > MAX_DATAGRAM {
            return Err(DecodeError::TooLong(packet.len()));
        }
        let packet = Packet::parse(packet)?;
        let is_data = match packet.kind() {
            Kind::Data => true,
            Kind::Parity => false,
            Kind::OutOfBand => {
                self.counters.out_of_band += 1;
                return Ok(Accepted::OutOfBand);
            }
        };
        let seqid = packet.seqid();
        self.tuner.sample(seqid, is_data);

        let shape = self.shape();
        if seqid.0 >= self.wrap {
            return Err(DecodeError::BeyondWrap(seqid.0));
        }
        let (group, position) = (seqid.0 / shape.step(), seqid.0 % shape.step());
        if ((position as usize) < shape.data()) != is_data {
            self.out_of_sync = true;
            self.certainty = Certainty::default();
        }
        if self.out_of_sync {
            return Ok(self.tune());
        }

        // Below 256, the largest total.
        #[allow(clippy::cast_possible_truncation)]
        let position = position as u8;
        let sure = !self.cautious || self.is_certain();
        let mut withheld = 0;
        let stored = self
            .groups
            .store(group, position, packet.shard(), &mut |shard| {
                if sure {
                    rebuilt(shard);
                } else {
                    withheld += 1;
                }
            });
        self.counters.withheld += withheld;
        if stored == Stored::Duplicate {
            return Ok(Accepted::Duplicate);
        }
        self.certainty
            .fits(group, position.into(), shape.data(), shape.parity());
        self.groups.advance(group);
        self.counters.parity_shards += u64::from(!is_data);
        Ok(match stored {
            Stored::Kept => Accepted::Stored,
            Stored::Duplicate => Accepted::Duplicate,
            Stored::Late => Accepted::Late,
            Stored::Complete => {
                self.counters.full_shards += 1;
                Accepted::Complete
            }
            Stored::Rebuilt(count) => Accepted::Recovered(count),
            Stored::Failed => {
                self.counters.errors += 1;
                Accepted::Failed
            }
        })
    }

    /// Looks for the sender's shape and adopts it (section 6.5).
    fn tune(&mut self) -> Accepted {
        let Some(shape) = self.tuner.shape() else {
            return Accepted::OutOfSync;
        };
        let old = self.shape();
        if shape == old {
            self.groups.forget();
        } else {
            // The same place in the stream, counted in groups of the new size: the old number could be so far
            // ahead that no packet would be new enough to be kept.
            let newest = u64::from(self.groups.newest()) * u64::from(old.step());
            self.groups = Groups::new(shape, self.late, self.kernel);
            self.wrap = shape.wrap();
            // A 32-bit sequence number divided by at least 2.
            #[allow(clippy::cast_possible_truncation)]
            self.groups
                .set_newest((newest / u64::from(shape.step())) as u32);
        }
        self.out_of_sync = false;
        self.certainty = Certainty::established();
        self.counters.tunings += 1;
        Accepted::Tuned(shape)
    }
}

#[cfg(test)]
mod tests {
    use fulmar_testkit::vectors::{self, Value, bytes};
    use fulmar_wire::fec::{HEADER_LEN, Header, SHARD_OFFSET};
    use fulmar_wire::seq::Seq;
    use fulmar_wire::time::Instant;
    use proptest::prelude::*;

    use super::*;
    use crate::encoder::Encoder;

    fn start(case: &Value, kernel: Kernel) -> Decoder {
        let shards = |key: &str| usize::try_from(case[key].as_u64().expect(key)).expect(key);
        let shape = Shape::new(shards("start_datashard"), shards("start_parityshard"));
        let unknown = case["name"]
            .as_str()
            .is_some_and(|n| n.contains("without FEC"));
        let shape = (!unknown).then(|| shape.expect("a shape"));
        Decoder::with_kernel(shape, kernel)
    }

    /// Feeds all steps of `case`, checks the state after each, and returns what each step recovered.
    fn replay(case: &Value, mut decoder: Decoder) -> Vec<Vec<Vec<u8>>> {
        let steps = case["steps"].as_array().expect("steps");
        assert!(!steps.is_empty());
        let mut all = Vec::new();
        for step in steps {
            let mut shards = Vec::new();
            // A step may expect a refusal: what counts is the state behind it.
            let _ = decoder.handle(&bytes(step, "in_hex"), &mut |s| shards.push(s.to_vec()));
            let counters = decoder.counters();
            let number = |key: &str| step[key].as_u64().expect(key);
            let context = format!("{}: {step}", case["name"]);
            assert_eq!(decoder.shape().data() as u64, number("ds"), "{context}");
            assert_eq!(decoder.shape().parity() as u64, number("ps"), "{context}");
            assert_eq!(counters.shard_sets, number("groups_held"), "{context}");
            assert_eq!(
                u64::from(counters.newest_group),
                number("newest_group"),
                "{context}"
            );
            assert_eq!(
                Some(decoder.out_of_sync()),
                step["out_of_sync"].as_bool(),
                "{context}"
            );
            all.push(shards);
        }
        all
    }

    fn expected(case: &Value) -> Vec<Vec<Vec<u8>>> {
        let steps = case["steps"].as_array().expect("steps");
        steps
            .iter()
            .map(|step| {
                let recovered = step["recovered"].as_array().expect("recovered");
                recovered
                    .iter()
                    .map(|r| {
                        let shard = bytes(r, "shard_hex");
                        assert_eq!(
                            fec::shard_payload(&shard),
                            Some(&bytes(r, "kcp_payload_hex")[..])
                        );
                        shard
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn every_step_of_the_vectors() {
        let file = vectors::load("kcptun/fec_decode.json");
        let cases = file["cases"].as_array().expect("cases");
        assert!(!cases.is_empty());
        for case in cases {
            for kernel in Kernel::available() {
                let decoder = start(case, kernel).late_packets(Late::Reopen);
                assert_eq!(replay(case, decoder), expected(case), "{}", case["name"]);
            }
        }
    }

    /// Without reopening, the same is recovered but for what KCP was given before: the data packet itself.
    #[test]
    fn every_step_of_the_vectors_without_duplicates() {
        let file = vectors::load("kcptun/fec_decode.json");
        for case in file["cases"].as_array().expect("cases") {
            let mut known: Vec<Vec<u8>> = Vec::new();
            let mut fresh = expected(case);
            for (step, recovered) in case["steps"]
                .as_array()
                .expect("steps")
                .iter()
                .zip(&mut fresh)
            {
                let packet = bytes(step, "in_hex");
                if Kind::of(&packet) == Some(Kind::Data) {
                    known.push(packet[SHARD_OFFSET..].to_vec());
                }
                recovered.retain(|shard| !known.contains(shard));
            }
            let decoder = start(case, Kernel::best());
            assert_eq!(decoder.late, Late::Ignore);
            assert_eq!(replay(case, decoder), fresh, "{}", case["name"]);
        }
    }

    /// The packets of whole groups of random datagrams, each with the datagram that it carries, if any.
    fn stream(shape: Shape, first: u32, groups: usize) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut encoder = Encoder::new(shape).starting_at(first);
        let mut packets = Vec::new();
        for i in 0..groups * shape.data() {
            let len = 24 + i * 37 % 400;
            let payload = vectors::xs(u32::try_from(i + 1).expect("small"), len);
            let mut packet = vec![0; HEADER_LEN];
            packet.extend_from_slice(&payload);
            let mut due = encoder.push(Instant::ZERO, &mut packet);
            if i == 0 && shape.data() == 1 {
                // The first packet ever has no predecessor to be continuous with: send it again.
                encoder = encoder.starting_at(first);
                due = encoder.push(Instant::ZERO, &mut packet);
            }
            packets.push((packet, Some(payload)));
            let len = encoder.parity_len();
            let mut run = vec![0; due * len];
            encoder.emit_parity(&mut run, len, 0);
            packets.extend(run.chunks(len.max(1)).map(|p| (p.to_vec(), None)));
        }
        assert_eq!(packets.len(), groups * shape.total());
        packets
    }

    fn shape(data: usize, parity: usize) -> Shape {
        Shape::new(data, parity).expect("a shape")
    }

    #[test]
    fn counters_tell_what_happened() {
        let packets = stream(shape(3, 2), 0, 3);
        let mut decoder = Decoder::new(Some(shape(3, 2)));
        let mut recovered = Vec::new();
        for (i, (packet, _)) in packets.iter().enumerate() {
            // Lost: nothing of the first group, two data packets of the second, too much of the third.
            if ![5, 7, 10, 11, 13].contains(&i) {
                let result = decoder.handle_packet(packet, &mut |p| recovered.push(p.to_vec()));
                assert!(result.is_ok());
            }
        }
        let lost = [&packets[5], &packets[7]].map(|(_, payload)| payload.clone().expect("data"));
        assert_eq!(recovered, lost);
        assert_eq!(
            decoder.handle_packet(&packets[14].0, &mut |_| {}),
            Ok(Accepted::Duplicate)
        );
        assert!(decoder.handle_packet(b"nonsense", &mut |_| {}).is_err());
        assert!(decoder.handle_packet(&[0xf1; 1501], &mut |_| {}).is_err());
        let mut oob = *b"............hello";
        fec::emit_out_of_band(7, &mut oob);
        assert_eq!(
            decoder.handle_packet(&oob, &mut |_| {}),
            Ok(Accepted::OutOfBand)
        );
        assert_eq!(
            decoder.counters(),
            Counters {
                full_shards: 1,
                parity_shards: 5,
                errors: 0,
                recovered: 2,
                out_of_band: 1,
                rejected: 2,
                withheld: 0,
                tunings: 0,
                shard_sets: 3,
                newest_group: 2,
            }
        );
    }

    #[test]
    fn an_impossible_size_is_an_error_and_not_delivered() {
        // With one data shard the parity is the data: say that the payload is longer than the shard.
        let mut parity = [0; 30];
        let header = Header {
            seqid: Seq(1),
            kind: Kind::Parity,
        };
        header.emit(&mut parity);
        parity[SHARD_OFFSET] = 25;
        let mut decoder = Decoder::new(Some(shape(1, 1)));
        let result = decoder.handle_packet(&parity, &mut |_| panic!("delivered"));
        assert_eq!(result, Ok(Accepted::Recovered(1)));
        assert_eq!(
            (decoder.counters().recovered, decoder.counters().errors),
            (0, 1)
        );
    }

    /// The sender's groups are a little different, and the one packet that would tell gets lost.
    #[test]
    fn a_wrong_shape_rebuilds_rubbish_unless_cautious() {
        let packets = stream(shape(9, 4), 0, 2);
        for cautious in [false, true] {
            let mut decoder = Decoder::new(Some(shape(10, 3)));
            if cautious {
                decoder = decoder.cautious();
            }
            let mut rubbish = 0;
            for (i, (packet, _)) in packets.iter().enumerate() {
                if i != 9 {
                    let _ = decoder.handle_packet(packet, &mut |_| rubbish += 1);
                }
            }
            assert_eq!(decoder.counters().withheld, u64::from(cautious));
            let told = decoder.counters();
            // Whether its size is a possible one is chance.
            assert_eq!(rubbish > 0 || told.errors > 0, !cautious);
            assert!(!decoder.is_certain() && decoder.out_of_sync());
        }
    }

    #[test]
    fn certainty_comes_within_a_few_groups() {
        for (data, parity) in [(10, 3), (1, 1), (3, 2), (2, 5), (20, 1)] {
            for seed in 1..20 {
                let groups = 200;
                let mut decoder = Decoder::new(Some(shape(data, parity))).cautious();
                let mut noise = vectors::xs(seed, groups * (data + parity)).into_iter();
                let mut certain_after = None;
                let mut recovered = 0;
                for (i, (packet, _)) in stream(shape(data, parity), 0, groups).iter().enumerate() {
                    if noise.next().is_some_and(|n| n < 51) {
                        continue;
                    }
                    let _ = decoder.handle_packet(packet, &mut |_| recovered += 1);
                    if decoder.is_certain() {
                        certain_after.get_or_insert(i);
                    }
                }
                // One packet in five is lost.
                let most = 16 * 2 + 10 * (data + parity);
                assert!(certain_after.is_some_and(|i| i < most), "{certain_after:?}");
                assert!(recovered > 3);
            }
        }
    }

    /// A stream whose sender's shape has more packets per group than the one before goes on from its place.
    #[test]
    fn tuning_to_larger_groups_does_not_make_the_stream_look_old() {
        let mut decoder = Decoder::new(Some(shape(3, 2)));
        for (packet, _) in stream(shape(3, 2), 10_000, 2) {
            assert!(decoder.handle_packet(&packet, &mut |_| {}).is_ok());
        }
        let mut recovered = 0;
        for (i, (packet, _)) in stream(shape(10, 3), 3848, 30).iter().enumerate() {
            if i < 260 || i % 13 != 4 {
                let _ = decoder.handle_packet(packet, &mut |_| recovered += 1);
            }
        }
        assert_eq!(decoder.shape(), shape(10, 3));
        assert_eq!(recovered, 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Of each group any packets may be lost, up to as many as it has parity, and the rest may come in any
        /// order: every datagram is known afterwards, and none is recovered twice.
        #[test]
        fn what_was_lost_is_recovered(
            data in 1usize..12, parity in 1usize..6, first: u32, wraps: bool, seed: u32,
        ) {
            let shape = shape(data, parity);
            let first = if wraps { shape.wrap() / shape.step() - 3 } else { first };
            let packets = stream(shape, first, 6);
            let mut decoder = Decoder::new(Some(shape));
            let mut random = vectors::xs(seed, 4096).into_iter().map(usize::from);
            for (i, group) in packets.chunks(shape.total()).enumerate() {
                let mut group = group.to_vec();
                for at in (1..group.len()).rev() {
                    group.swap(at, random.next().expect("enough") % (at + 1));
                }
                // Until the first two groups have passed, a number far from 0 may look old.
                let joined = i >= 2;
                let lose = if joined { random.next().expect("enough") % (parity + 1) } else { 0 };
                let lost = group.split_off(group.len() - lose);
                let mut recovered = Vec::new();
                for (packet, _) in &group {
                    let result = decoder.handle_packet(packet, &mut |p| recovered.push(p.to_vec()));
                    prop_assert!(result.is_ok());
                }
                let payloads = |group: &[(_, Option<Vec<u8>>)]| -> Vec<Vec<u8>> {
                    group.iter().filter_map(|(_, payload)| payload.clone()).collect()
                };
                let (came, lost) = (payloads(&group), payloads(&lost));
                prop_assert!(lost.iter().all(|p| recovered.contains(p)), "group {}", i);
                // One can be recovered and come by itself later.
                prop_assert!(recovered.iter().all(|p| lost.contains(p) || came.contains(p)));
                let count = recovered.len();
                recovered.sort();
                recovered.dedup();
                prop_assert!(!joined || recovered.len() == count);
            }
        }

        #[test]
        fn any_bytes_do_no_harm(
            data in 1usize..20, parity in 1usize..20,
            packets in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..64), 0u8..4, 0u32..400), 0..300),
        ) {
            let mut decoder = Decoder::new(Some(shape(data, parity)));
            for (mut packet, kind, seqid) in packets {
                // Noise that looks like packets most of the time, so that it gets further than the parser.
                if let Some(kind) = Kind::from_code(0xf0 + u16::from(kind))
                    && packet.len() >= SHARD_OFFSET
                {
                    Header { seqid: Seq(seqid), kind }.emit(&mut packet);
                }
                let longest = packet.len().max(64);
                let _ = decoder.handle_packet(&packet, &mut |p| assert!(p.len() <= longest));
                prop_assert!(decoder.counters().shard_sets <= 4);
                // What the newest shape can need, of shards that long.
                let bound = 4 * decoder.shape().data() * 64 + 64;
                prop_assert!(decoder.groups.storage() <= bound);
            }
        }
    }
}
