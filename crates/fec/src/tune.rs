//! Finds the sender's shape in what arrives: how long the runs of data and of parity packets are
//! (docs/spec/kcptun.md, section 6.5).

use fulmar_wire::seq::Seq;

use crate::shape::Shape;

/// Packets that are looked back on.
pub const WINDOW: usize = 258;

/// The kinds of the last [`WINDOW`] packets.
#[derive(Clone, Debug)]
pub struct Tuner {
    seqids: [u32; WINDOW],
    is_data: [bool; WINDOW],
    /// Samples ever taken; the next one goes to this index modulo the window.
    taken: usize,
}

impl Default for Tuner {
    fn default() -> Self {
        Self {
            seqids: [0; WINDOW],
            is_data: [false; WINDOW],
            taken: 0,
        }
    }
}

impl Tuner {
    /// Takes note of one packet; forgets the oldest when the window is full.
    pub fn sample(&mut self, seqid: Seq, is_data: bool) {
        let at = self.taken % WINDOW;
        self.seqids[at] = seqid.0;
        self.is_data[at] = is_data;
        self.taken = match self.taken + 1 {
            // Keeps "the window is full" while the count stays small.
            count if count == 2 * WINDOW => WINDOW,
            count => count,
        };
    }

    /// The length of the first whole run of packets of one kind, in the order of sequence numbers; `None` when
    /// there is none, or a packet in front of its end is missing or there twice.
    #[must_use]
    pub fn period(&self, is_data: bool) -> Option<usize> {
        let mut buffer = [0; WINDOW];
        first_run(self.sorted(&mut buffer), is_data)
    }

    /// The shape that both periods make, when both are known and their sum is below 256.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        let mut buffer = [0; WINDOW];
        let sorted = self.sorted(&mut buffer);
        let (data, parity) = (first_run(sorted, true)?, first_run(sorted, false)?);
        // Senders have shapes up to 256, but this is as far as upstream tunes.
        if data + parity < 256 {
            Shape::new(data, parity).ok()
        } else {
            None
        }
    }

    /// The samples in the order of sequence numbers, each twice its number plus one for data.
    ///
    /// Numbers are taken relative to half the number space before the newest sample: that is the wrapped order
    /// for any stream, and an order at all for any nonsense.
    fn sorted<'a>(&self, buffer: &'a mut [u64; WINDOW]) -> &'a [u64] {
        let count = self.taken.min(WINDOW);
        let newest = self.seqids[(self.taken + WINDOW - 1) % WINDOW];
        let base = newest.wrapping_sub(1 << 31);
        let samples = &mut buffer[..count];
        for (i, sample) in samples.iter_mut().enumerate() {
            let offset = self.seqids[i].wrapping_sub(base);
            *sample = u64::from(offset) << 1 | u64::from(self.is_data[i]);
        }
        samples.sort_unstable();
        samples
    }
}

fn first_run(sorted: &[u64], is_data: bool) -> Option<usize> {
    let seqid = |sample: u64| sample >> 1;
    let matches = |sample: u64| (sample & 1 != 0) == is_data;
    let mut left = None;
    for (i, pair) in sorted.windows(2).enumerate() {
        if seqid(pair[1]) != seqid(pair[0]) + 1 {
            return None;
        }
        match (matches(pair[0]), matches(pair[1]), left) {
            (false, true, None) => left = Some(i),
            (true, false, Some(left)) => return Some(i - left),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use fulmar_testkit::vectors;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn periods_of_the_vectors() {
        let file = vectors::load("kcptun/fec_autotune.json");
        let cases = file["cases"].as_array().expect("cases");
        assert!(!cases.is_empty());
        for case in cases {
            let mut tuner = Tuner::default();
            for sample in case["samples_seq_isdata"].as_array().expect("samples") {
                let number = |i: usize| sample[i].as_u64().expect("a number");
                let seqid = u32::try_from(number(0)).expect("32 bits");
                tuner.sample(Seq(seqid), number(1) == 1);
            }
            for (key, is_data) in [("period_data", true), ("period_parity", false)] {
                let expected = usize::try_from(case[key].as_i64().expect("a period")).ok();
                assert_eq!(tuner.period(is_data), expected, "{key} of {}", case["name"]);
            }
        }
    }

    fn stream(tuner: &mut Tuner, from: u32, count: u32, data: u32, parity: u32) {
        for i in 0..count {
            let seqid = from.wrapping_add(i);
            tuner.sample(Seq(seqid), seqid % (data + parity) < data);
        }
    }

    #[test]
    fn sums_of_256_and_more_are_not_tuned_to() {
        for (data, parity, found) in [(200, 55, true), (200, 56, false)] {
            let mut tuner = Tuner::default();
            // From the last parity packet of a group over a whole group into the next.
            stream(
                &mut tuner,
                data + parity - 1,
                data + parity + 2,
                data,
                parity,
            );
            assert_eq!(tuner.period(true), Some(data as usize));
            assert_eq!(tuner.period(false), Some(parity as usize));
            assert_eq!(tuner.shape().is_some(), found);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_stream_without_loss_is_understood(
            from: u32, data in 1u32..60, parity in 1u32..60, order in any::<u64>(),
        ) {
            // A wrap in the middle of a group is not what senders do: stay below it.
            let from = from.min(u32::MAX - 1000);
            let mut tuner = Tuner::default();
            // Swapped neighbours: the order of arrival does not matter.
            let count = 2 * (data + parity) + 1;
            let seqids: Vec<u32> = (from..from + count).collect();
            let mut shuffled = seqids.clone();
            for i in (1..shuffled.len()).step_by(2) {
                if order >> (i % 64) & 1 != 0 {
                    shuffled.swap(i - 1, i);
                }
            }
            for seqid in shuffled {
                tuner.sample(Seq(seqid), seqid % (data + parity) < data);
            }
            let expected = Shape::new(data as usize, parity as usize).ok();
            prop_assert_eq!(tuner.shape(), expected);
        }

        #[test]
        fn nonsense_does_not_panic(samples in prop::collection::vec(any::<(u32, bool)>(), 0..600)) {
            let mut tuner = Tuner::default();
            for (seqid, is_data) in samples {
                tuner.sample(Seq(seqid), is_data);
                if let Some(shape) = tuner.shape() {
                    prop_assert!(shape.total() < 256);
                }
            }
        }
    }
}
