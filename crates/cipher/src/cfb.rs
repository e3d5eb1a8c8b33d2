//! Cipher feedback with full blocks and a constant IV (docs/spec/kcptun.md, section 4.3), for any block cipher.
//!
//! Encrypting is a chain: a block has to wait for the one before it. The chains of different packets are
//! independent, so the same block of several packets goes through the cipher together (*lanes*). Decrypting knows all
//! inputs beforehand, so consecutive blocks of one packet are the lanes. In both directions the previous block of
//! ciphertext is read back from the run itself; no state outlives a step.

use core::ops::Range;

use crate::framed::Transform;
use crate::run::{datagrams, stride};

const IV: [u8; 16] = [
    0xA7, 0x73, 0x4F, 0x9C, 0x12, 0xAC, 0x1B, 0x01, 0xA4, 0x15, 0xF2, 0xC1, 0xFC, 0x78, 0xE6, 0x6B,
];

/// The constant initialisation vector for a block size of `B` (at most 16).
pub(crate) fn iv<const B: usize>() -> [u8; B] {
    const { assert!(B <= 16) };
    let mut iv = [0; B];
    iv.copy_from_slice(&IV[..B]);
    iv
}

/// The forward direction of a block cipher with blocks of `B` bytes, and the two loops of CFB around it. Kernels
/// bring loops of their own that keep the blocks in registers.
pub(crate) trait LaneCipher<const B: usize>: Send {
    /// Encrypts independent blocks in place.
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; B]; L]);

    /// CFB encryption of the blocks in `range`, offsets of whole blocks, of the first `count` packets of a run, at
    /// most `L`, that lie `stride` bytes apart. Blocks in front of the range are encrypted already.
    fn chain<const L: usize>(
        &self,
        run: &mut [u8],
        stride: usize,
        count: usize,
        range: Range<usize>,
    ) {
        let starts = starts::<L>(stride, count);
        let mut feedback = feedback(run, &starts, range.start);
        for at in range.step_by(B) {
            self.encrypt(&mut feedback);
            for (block, start) in feedback.iter_mut().zip(&starts) {
                xor(block, block_at(run, start + at));
            }
            // Only now: several lanes may stand for one packet.
            for (block, start) in feedback.iter().zip(&starts) {
                run[start + at..start + at + B].copy_from_slice(block);
            }
        }
    }

    /// CFB decryption of a whole packet, `L` blocks at once.
    fn unchain<const L: usize>(&self, packet: &mut [u8]) {
        let mut feedback = iv();
        let mut rest = packet;
        while rest.len() >= L * B {
            let (group, tail) = rest.split_at_mut(L * B);
            let last = block_at(group, (L - 1) * B);
            let mut blocks: [[u8; B]; L] = core::array::from_fn(|i| {
                if i == 0 {
                    feedback
                } else {
                    block_at(group, (i - 1) * B)
                }
            });
            self.encrypt(&mut blocks);
            for (c, k) in group.iter_mut().zip(blocks.as_flattened()) {
                *c ^= k;
            }
            feedback = last;
            rest = tail;
        }
        // What is left are fewer than `L` blocks and a partial one: a single call with idle lanes.
        let mut blocks = [[0; B]; L];
        let used = rest.len().div_ceil(B);
        for (i, block) in blocks.iter_mut().take(used).enumerate() {
            *block = if i == 0 {
                feedback
            } else {
                block_at(rest, (i - 1) * B)
            };
        }
        match used {
            0 => return,
            1 => {
                let mut one = [blocks[0]];
                self.encrypt(&mut one);
                blocks[0] = one[0];
            }
            _ => self.encrypt(&mut blocks),
        }
        for (c, k) in rest.iter_mut().zip(blocks.as_flattened()) {
            *c ^= k;
        }
    }
}

/// A block cipher that takes exactly `W` blocks at once.
#[cfg(target_arch = "x86_64")]
pub(crate) trait WideCipher<const B: usize, const W: usize>: Send {
    /// Encrypts independent blocks in place.
    fn encrypt(&self, blocks: &mut [[u8; B]; W]);

    /// Encrypts so few blocks another way if that is faster, or leaves them and returns false.
    fn encrypt_few<const L: usize>(&self, _: &mut [[u8; B]; L]) -> bool {
        false
    }
}

/// A [`WideCipher`] for any number of blocks: where some are missing, it works on zeros.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Padded<const W: usize, C>(pub(crate) C);

#[cfg(target_arch = "x86_64")]
impl<const B: usize, const W: usize, C: WideCipher<B, W>> LaneCipher<B> for Padded<W, C> {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; B]; L]) {
        if self.0.encrypt_few(blocks) {
            return;
        }
        let (groups, rest) = blocks.as_chunks_mut::<W>();
        for group in groups {
            self.0.encrypt(group);
        }
        if !rest.is_empty() {
            let mut group = [[0; B]; W];
            group[..rest.len()].copy_from_slice(rest);
            self.0.encrypt(&mut group);
            rest.copy_from_slice(&group[..rest.len()]);
        }
    }
}

/// CFB over a run with up to `LANES` blocks at once (a power of two, at most 32).
pub(crate) struct Cfb<const B: usize, const LANES: usize, C> {
    cipher: C,
}

impl<const B: usize, const LANES: usize, C: LaneCipher<B>> Cfb<B, LANES, C> {
    pub(crate) fn new(cipher: C) -> Self {
        const { assert!(LANES.is_power_of_two() && LANES <= 32) };
        Self { cipher }
    }

    /// Encrypts up to `L` packets that lie `stride` bytes apart; all but the last are `stride` long. Whole blocks in
    /// front of `from` are ciphertext already.
    fn encrypt_group<const L: usize>(&self, group: &mut [u8], stride: usize, from: usize) {
        let count = group.len().div_ceil(stride);
        let last_len = group.len() - (count - 1) * stride;
        let common = last_len / B * B;
        let whole = stride / B * B;

        self.chain::<L>(group, stride, count, from..common);
        if count == 1 || last_len == stride {
            self.end::<L>(group, &starts(stride, count), common..last_len);
        } else {
            self.end::<1>(group, &[(count - 1) * stride], common..last_len);
            let others = count - 1;
            self.chain::<L>(group, stride, others, from.max(common)..whole);
            self.end::<L>(group, &starts(stride, others), whole..stride);
        }
    }

    fn chain<const L: usize>(
        &self,
        run: &mut [u8],
        stride: usize,
        count: usize,
        range: Range<usize>,
    ) {
        if !range.is_empty() {
            self.cipher.chain::<L>(run, stride, count, range);
        }
    }

    /// The last, partial block of the packets that begin at `starts`; nothing if `range` is empty.
    fn end<const L: usize>(&self, run: &mut [u8], starts: &[usize; L], range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let mut blocks = feedback(run, starts, range.start);
        self.cipher.encrypt(&mut blocks);
        if let Some(window) = range.end.checked_sub(16) {
            // The last 16 bytes of the packet as one number, of which the block concerns the upper part.
            let unused = 8 * (16 - range.len());
            let texts: [u128; L] = core::array::from_fn(|lane| {
                let mut key = [0; 16];
                key[..B].copy_from_slice(&blocks[lane]);
                u128::from_le_bytes(block_at(run, starts[lane] + window))
                    ^ u128::from_le_bytes(key) << unused
            });
            for (text, start) in texts.iter().zip(starts) {
                run[start + window..start + range.end].copy_from_slice(&text.to_le_bytes());
            }
        } else {
            for (block, start) in blocks.iter_mut().zip(starts) {
                for (b, p) in block.iter_mut().zip(&run[start + range.start..]) {
                    *b ^= p;
                }
            }
            for (block, start) in blocks.iter().zip(starts) {
                run[start + range.start..start + range.end].copy_from_slice(&block[..range.len()]);
            }
        }
    }
}

impl<const B: usize, const LANES: usize, C: LaneCipher<B>> Transform for Cfb<B, LANES, C> {
    fn encrypt(&mut self, run: &mut [u8], segment: usize, from: usize) {
        debug_assert!(from.is_multiple_of(B));
        if run.is_empty() {
            return;
        }
        let stride = stride(run.len(), segment);
        for group in run.chunks_mut(stride.saturating_mul(LANES)) {
            match group.len().div_ceil(stride) {
                1 => self.encrypt_group::<1>(group, stride, from),
                2 => self.encrypt_group::<2>(group, stride, from),
                3..=4 => self.encrypt_group::<4>(group, stride, from),
                5..=8 => self.encrypt_group::<8>(group, stride, from),
                9..=16 => self.encrypt_group::<16>(group, stride, from),
                _ => self.encrypt_group::<32>(group, stride, from),
            }
        }
    }

    fn decrypt(&mut self, run: &mut [u8], segment: usize) {
        for packet in datagrams(run, segment) {
            self.cipher.unchain::<LANES>(packet);
        }
    }
}

/// Where the packets of `L` lanes begin. Lanes without a packet of their own repeat the last one.
#[inline(always)]
pub(crate) fn starts<const L: usize>(stride: usize, count: usize) -> [usize; L] {
    core::array::from_fn(|lane| lane.min(count - 1) * stride)
}

/// The ciphertext blocks in front of offset `at` of the packets, which is the IV at their start.
fn feedback<const B: usize, const L: usize>(
    run: &[u8],
    starts: &[usize; L],
    at: usize,
) -> [[u8; B]; L] {
    starts.map(|start| {
        if at == 0 {
            iv()
        } else {
            block_at(run, start + at - B)
        }
    })
}

#[inline(always)]
fn block_at<const B: usize>(run: &[u8], at: usize) -> [u8; B] {
    let mut block = [0; B];
    block.copy_from_slice(&run[at..at + B]);
    block
}

#[inline(always)]
fn xor<const B: usize>(block: &mut [u8; B], other: [u8; B]) {
    for (a, b) in block.iter_mut().zip(other) {
        *a ^= b;
    }
}
