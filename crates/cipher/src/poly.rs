//! Poly1305 of one packet, with 64-bit multiplications: quicker than the `poly1305` crate on packets, each of which has a
//! key of its own. Numbers have three limbs of 44, 44 and 42 bits.

const LOW: u64 = (1 << 44) - 1;
const HIGH: u64 = (1 << 42) - 1;
/// What stands above the 128 bits of a whole block, in the last limb.
const WHOLE: u64 = 1 << 40;

/// An authenticator.
pub(crate) struct Poly {
    h: [u64; 3],
    r: [u64; 3],
}

impl Poly {
    /// With what it multiplies with, before some bits are cleared.
    pub(crate) fn new(r: &[u8; 16]) -> Self {
        let r = u128::from_le_bytes(*r) & 0x0FFF_FFFC_0FFF_FFFC_0FFF_FFFC_0FFF_FFFF;
        let r = [r as u64 & LOW, (r >> 44) as u64 & LOW, (r >> 88) as u64];
        Self { h: [0; 3], r }
    }

    /// Takes in `bytes`; zeros fill an incomplete block.
    pub(crate) fn padded(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks();
        for block in blocks {
            self.absorb(block, WHOLE);
        }
        if !rest.is_empty() {
            let mut block = [0; 16];
            block[..rest.len()].copy_from_slice(rest);
            self.absorb(&block, WHOLE);
        }
    }

    /// Takes in the last `bytes`; an incomplete block ends in a bit.
    pub(crate) fn unpadded(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<16>();
        self.padded(blocks.as_flattened());
        if !rest.is_empty() {
            let mut block = [0; 16];
            block[..rest.len()].copy_from_slice(rest);
            block[rest.len()] = 1;
            self.absorb(&block, 0);
        }
    }

    #[inline(always)]
    fn absorb(&mut self, block: &[u8; 16], above: u64) {
        let text = u128::from_le_bytes(*block);
        let h0 = self.h[0] + (text as u64 & LOW);
        let h1 = self.h[1] + ((text >> 44) as u64 & LOW);
        let h2 = self.h[2] + ((text >> 88) as u64 | above);
        let [r0, r1, r2] = self.r;
        let (f1, f2) = (20 * r1, 20 * r2);
        let times = |a: u64, b: u64| u128::from(a) * u128::from(b);
        // No sum has more than 97 bits.
        let d0 = times(h2, f1) + times(h1, f2) + times(h0, r0);
        let d1 = times(h2, f2) + times(h1, r0) + times(h0, r1) + (d0 >> 44);
        let d2 = times(h2, r0) + times(h1, r1) + times(h0, r2) + (d1 >> 44);
        let h0 = (d0 as u64 & LOW) + 5 * (d2 >> 42) as u64;
        self.h = [h0 & LOW, (d1 as u64 & LOW) + (h0 >> 44), d2 as u64 & HIGH];
    }

    /// The tag.
    pub(crate) fn finish(&self, s: &[u8; 16]) -> [u8; 16] {
        finish(self.h, s)
    }
}

/// The tag: the number modulo 2^130 - 5, plus `s`.
pub(crate) fn finish([h0, h1, h2]: [u64; 3], s: &[u8; 16]) -> [u8; 16] {
    // What the second time carries around is 1 at most, and then the limbs are nearly zero: the third settles it.
    let (mut h0, mut h1, mut h2) = (h0, h1, h2);
    for _ in 0..3 {
        h1 += h0 >> 44;
        h0 &= LOW;
        h2 += h1 >> 44;
        h1 &= LOW;
        h0 += 5 * (h2 >> 42);
        h2 &= HIGH;
    }
    // Once more less 2^130 - 5, if that is not negative.
    let g0 = h0 + 5;
    let g1 = h1 + (g0 >> 44);
    let g2 = h2 + (g1 >> 44);
    let reduce = (g2 >> 42).wrapping_neg();
    let pick = |h: u64, g: u64| h & !reduce | g & reduce;
    let low = |x: u64| u128::from(x & LOW);
    let (h0, h1, h2) = (pick(h0, g0), pick(h1, g1), pick(h2, g2));
    let sum = low(h0) | low(h1) << 44 | u128::from(h2) << 88;
    sum.wrapping_add(u128::from_le_bytes(*s)).to_le_bytes()
}
