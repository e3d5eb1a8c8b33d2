//! ChaCha20 and Salsa20 with the key stream of many packets at once: the word of one place of 4, 8 or 16 blocks per
//! vector, whatever packets the blocks belong to.

use core::arch::x86_64::*;

use super::words::{Words, transpose};
use super::{Aesni, Avx2, Avx512, poly1305, salsa20};
use crate::streams::{BATCH, Batch, Cipher, Input, KeyStream, Lanes};

/// The vector operation that [`Words`] has not.
///
/// # Safety
/// As for [`Words`].
trait Wide: Words {
    /// Stores quarters `q` of blocks `4 * k + j`, which are the `k`th 128 bits of vector `q`, for a given `j`.
    unsafe fn store_blocks(quarters: [Self; 4], j: usize, out: &mut KeyStream);
}

impl Wide for __m128i {
    #[inline(always)]
    unsafe fn store_blocks(quarters: [Self; 4], j: usize, out: &mut KeyStream) {
        for (quarter, to) in quarters.iter().zip(out.0[j].as_chunks_mut::<16>().0) {
            // SAFETY: see the trait; `to` is as long as a vector.
            unsafe { quarter.store(to.as_mut_ptr()) };
        }
    }
}

impl Wide for __m256i {
    #[inline(always)]
    unsafe fn store_blocks([a, b, c, d]: [Self; 4], j: usize, out: &mut KeyStream) {
        // SAFETY: see the trait; halves of blocks are as long as a vector.
        unsafe {
            for (k, halves) in [
                (
                    0,
                    [
                        _mm256_permute2x128_si256::<0x20>(a, b),
                        _mm256_permute2x128_si256::<0x20>(c, d),
                    ],
                ),
                (
                    1,
                    [
                        _mm256_permute2x128_si256::<0x31>(a, b),
                        _mm256_permute2x128_si256::<0x31>(c, d),
                    ],
                ),
            ] {
                for (half, to) in halves.iter().zip(out.0[4 * k + j].as_chunks_mut::<32>().0) {
                    half.store(to.as_mut_ptr());
                }
            }
        }
    }
}

impl Wide for __m512i {
    #[inline(always)]
    unsafe fn store_blocks([a, b, c, d]: [Self; 4], j: usize, out: &mut KeyStream) {
        // SAFETY: see the trait; blocks are as long as a vector.
        unsafe {
            let ab = [
                _mm512_shuffle_i32x4::<0x44>(a, b),
                _mm512_shuffle_i32x4::<0xEE>(a, b),
            ];
            let cd = [
                _mm512_shuffle_i32x4::<0x44>(c, d),
                _mm512_shuffle_i32x4::<0xEE>(c, d),
            ];
            for k in 0..2 {
                let even = _mm512_shuffle_i32x4::<0x88>(ab[k], cd[k]);
                let odd = _mm512_shuffle_i32x4::<0xDD>(ab[k], cd[k]);
                even.store(out.0[8 * k + j].as_mut_ptr());
                odd.store(out.0[8 * k + 4 + j].as_mut_ptr());
            }
        }
    }
}

/// Implements [`Lanes`] with vectors of a width, compiled with the instructions that the token proves.
macro_rules! lanes {
    ($token:ty, $vector:ty, $features:literal) => {
        impl Lanes for $token {
            const LEN: usize = <$vector as Words>::LEN;

            fn blocks<C: Cipher>(self, input: &Input, out: &mut KeyStream) {
                #[target_feature(enable = $features)]
                unsafe fn inner<C: Cipher>(input: &Input, out: &mut KeyStream) {
                    // SAFETY: this function is compiled with the instructions.
                    unsafe { blocks::<C, $vector>(input, out) }
                }
                // SAFETY: `self` proves that the instructions exist.
                unsafe { inner::<C>(input, out) }
            }

            fn stream<C: Cipher>(self, batch: &Batch, run: &mut [u8]) {
                #[target_feature(enable = $features)]
                unsafe fn inner<C: Cipher>(batch: &Batch, run: &mut [u8]) {
                    // SAFETY: this function is compiled with the instructions.
                    unsafe { stream::<C, $vector>(batch, run) }
                }
                // SAFETY: `self` proves that the instructions exist.
                unsafe { inner::<C>(batch, run) }
            }

            fn tags<C: Cipher>(
                self,
                batch: &Batch,
                run: &[u8],
                tags: &mut [[u8; 16]; BATCH],
            ) -> bool {
                poly1305::tags::<C>(self.ifma(), batch, run, tags)
            }
        }
    };
}
lanes!(Aesni, __m128i, "ssse3");
lanes!(Avx2, __m256i, "avx2");
lanes!(Avx512, __m512i, "avx512f,avx512bw,avx512dq,avx512vl");

/// The key stream of `V::LEN` blocks.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn blocks<C: Cipher, V: Wide>(input: &Input, out: &mut KeyStream) {
    // SAFETY: the caller vouches for the instructions; the rows of `input` are longer than a vector.
    unsafe {
        let mut x = [V::splat(0); 16];
        for (word, row) in x.iter_mut().zip(&input.0) {
            *word = V::load(row.as_ptr().cast());
        }
        x = if C::CHACHA {
            chacha_rounds(x)
        } else {
            salsa20::rounds(x)
        };
        for (word, row) in x.iter_mut().zip(&input.0) {
            *word = word.add(V::load(row.as_ptr().cast()));
        }
        let mut quarters = [[V::splat(0); 4]; 4];
        for (quarter, rows) in quarters.iter_mut().zip(x.as_chunks::<4>().0) {
            *quarter = transpose(*rows);
        }
        let [a, b, c, d] = quarters;
        for j in 0..4 {
            V::store_blocks([a[j], b[j], c[j], d[j]], j, out);
        }
    }
}

/// Twenty rounds of ChaCha.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn chacha_rounds<V: Words>(x: [V; 16]) -> [V; 16] {
    let [mut a, mut b, mut c, mut d] = [0, 4, 8, 12].map(|i| [x[i], x[i + 1], x[i + 2], x[i + 3]]);
    for _ in 0..10 {
        // SAFETY: the same conditions.
        unsafe {
            [a, b, c, d] = quarter_rounds(a, b, c, d);
            b = salsa20::turn::<V, 1>(b);
            c = salsa20::turn::<V, 2>(c);
            d = salsa20::turn::<V, 3>(d);
            [a, b, c, d] = quarter_rounds(a, b, c, d);
            b = salsa20::turn::<V, 3>(b);
            c = salsa20::turn::<V, 2>(c);
            d = salsa20::turn::<V, 1>(d);
        }
    }
    let mut out = x;
    for (out, row) in out.as_chunks_mut::<4>().0.iter_mut().zip([a, b, c, d]) {
        *out = row;
    }
    out
}

/// Four quarter rounds, one per place in the arrays.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn quarter_rounds<V: Words>(
    mut a: [V; 4],
    mut b: [V; 4],
    mut c: [V; 4],
    mut d: [V; 4],
) -> [[V; 4]; 4] {
    // Step by step for all four: the CPU finds work while it waits for one.
    // SAFETY: the same conditions.
    unsafe {
        for [first, second] in [[16, 12], [8, 7]] {
            for i in 0..4 {
                a[i] = a[i].add(b[i]);
                d[i] = d[i].xor(a[i]).rotate(first);
            }
            for i in 0..4 {
                c[i] = c[i].add(d[i]);
                b[i] = b[i].xor(c[i]).rotate(second);
            }
        }
    }
    [a, b, c, d]
}

/// Consecutive blocks of one packet within the vectors: where their stream is, and the text that it belongs to.
#[derive(Copy, Clone, Default)]
struct Piece {
    lane: usize,
    from: usize,
    to: usize,
}

/// Adds the key stream, from block 1 on, to the bodies of a batch.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn stream<C: Cipher, V: Wide>(batch: &Batch, run: &mut [u8]) {
    const COUNT: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let blocks_each = (batch.len + C::SKIP).div_ceil(64).saturating_sub(1);
    let mut input = Input::ZERO;
    let mut out = KeyStream::ZERO;
    let mut pieces = [Piece::default(); 16];
    let (mut used, mut lane) = (0, 0);
    for packet in &batch.packets[..batch.count] {
        let mut done = 0;
        while done < blocks_each {
            let count = (blocks_each - done).min(V::LEN - lane);
            for (row, word) in input.0.iter_mut().zip(packet.matrix) {
                // What goes beyond the piece is overwritten by the next or not looked at.
                // SAFETY: the caller vouches for the instructions; a row has room for a vector at any lane.
                unsafe { V::splat(word).store(row[lane..lane + V::LEN].as_mut_ptr().cast()) };
            }
            let counters = input.0[C::COUNTER][lane..lane + V::LEN].as_mut_ptr();
            // SAFETY: as above; COUNT is as long as the longest vector.
            unsafe {
                let first = V::splat(done as u32 + 1);
                V::load(COUNT.as_ptr().cast())
                    .add(first)
                    .store(counters.cast());
            }
            let from = packet.start + 64 * (done + 1) - C::SKIP;
            pieces[used] = Piece {
                lane,
                from,
                to: (from + 64 * count).min(packet.start + batch.len),
            };
            used += 1;
            lane += count;
            done += count;
            if lane == V::LEN {
                // SAFETY: the same conditions.
                unsafe { blocks::<C, V>(&input, &mut out) };
                add(&out, &pieces[..used], run);
                (used, lane) = (0, 0);
            }
        }
    }
    if lane > 0 {
        // SAFETY: the same conditions.
        unsafe { blocks::<C, V>(&input, &mut out) };
        add(&out, &pieces[..used], run);
    }
}

#[inline(always)]
fn add(stream: &KeyStream, pieces: &[Piece], run: &mut [u8]) {
    for piece in pieces {
        let text = &mut run[piece.from..piece.to];
        let stream = &stream.0.as_flattened()[64 * piece.lane..];
        for (text, key) in text.iter_mut().zip(stream) {
            *text ^= key;
        }
    }
}
