//! Method `salsa20`: the first eight bytes stay in clear and are the nonce (docs/spec/kcptun.md, section 4.4).
//!
//! The blocks of key stream of all packets of a run are independent of each other, so kernels make as many of them
//! at once as their vectors are wide, whatever packets they belong to.

use fulmar_wire::kcptun::Method;
use zeroize::Zeroizing;

use crate::framed::{CrcFramed, Transform};
use crate::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::Tier;
use crate::run::stride;
use crate::{NonceSource, PacketCipher};

const NONCE: usize = 8;
const BLOCK: usize = 64;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646E, 0x7962_2D32, 0x6B20_6574];

/// The packet cipher of method `salsa20`.
pub(crate) fn salsa20(
    key: &[u8; 32],
    nonces: NonceSource,
    kernel: Kernel,
) -> Box<dyn PacketCipher> {
    let method = Method::Salsa20;
    match kernel.0 {
        #[cfg(target_arch = "x86_64")]
        Tier::Aesni(token) => CrcFramed::boxed(kernel, method, Salsa::new(token, key), nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(token) => CrcFramed::boxed(kernel, method, Salsa::new(token, key), nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(token) => CrcFramed::boxed(kernel, method, Salsa::new(token, key), nonces),
        _ => CrcFramed::boxed(kernel, method, Salsa::new(Portable, key), nonces),
    }
}

/// The kernel without vectors: block after block.
#[derive(Copy, Clone)]
struct Portable;

impl Blocks for Portable {
    const BLOCKS: usize = 1;

    fn stream(self, state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
        let mut input = *state;
        input[6] = blocks.nonces[0][0];
        input[7] = blocks.nonces[1][0];
        input[8] = blocks.counters[0];
        let mut x = input;
        let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
            x[b] ^= x[a].wrapping_add(x[d]).rotate_left(7);
            x[c] ^= x[b].wrapping_add(x[a]).rotate_left(9);
            x[d] ^= x[c].wrapping_add(x[b]).rotate_left(13);
            x[a] ^= x[d].wrapping_add(x[c]).rotate_left(18);
        };
        for _ in 0..10 {
            quarter(0, 4, 8, 12);
            quarter(5, 9, 13, 1);
            quarter(10, 14, 2, 6);
            quarter(15, 3, 7, 11);
            quarter(0, 1, 2, 3);
            quarter(5, 6, 7, 4);
            quarter(10, 11, 8, 9);
            quarter(15, 12, 13, 14);
        }
        for (i, (word, input)) in x.iter().zip(input).enumerate() {
            out.0[i / 4][0][0][i % 4 * 4..][..4]
                .copy_from_slice(&word.wrapping_add(input).to_le_bytes());
        }
    }
}

/// Most blocks that a kernel makes at once.
pub(crate) const MAX_BLOCKS: usize = 16;

/// Which blocks of key stream are wanted.
#[derive(Default)]
pub(crate) struct Stream {
    /// The two words of the nonces.
    pub(crate) nonces: [[u32; MAX_BLOCKS]; 2],
    /// The numbers of the blocks within their packets.
    pub(crate) counters: [u32; MAX_BLOCKS],
}

/// Key stream in the order in which vectors have it: quarter `q` of block `4 * k + j` is `[q][j][k]`.
#[repr(align(64))]
pub(crate) struct KeyStream(pub(crate) [[[[u8; 16]; MAX_BLOCKS / 4]; 4]; 4]);

/// A kernel.
pub(crate) trait Blocks: Copy + Send {
    /// Blocks made at once.
    const BLOCKS: usize;

    /// Makes the first `BLOCKS` blocks of `blocks` from the input matrix `state`, in which nonce and counter are
    /// zero.
    fn stream(self, state: &[u32; 16], blocks: &Stream, out: &mut KeyStream);
}

/// Salsa20 with a kernel.
struct Salsa<K> {
    kernel: K,
    state: Zeroizing<[u32; 16]>,
}

impl<K: Blocks> Salsa<K> {
    fn new(kernel: K, key: &[u8; 32]) -> Self {
        let mut state = Zeroizing::new([0; 16]);
        for (i, word) in CONSTANTS.iter().enumerate() {
            state[5 * i] = *word;
        }
        for (i, bytes) in key.as_chunks().0.iter().enumerate() {
            // Two halves of four words around the nonce and the counter.
            state[if i < 4 { 1 + i } else { 7 + i }] = u32::from_le_bytes(*bytes);
        }
        Self { kernel, state }
    }

    fn apply(&self, run: &mut [u8], segment: usize) {
        let stride = stride(run.len(), segment);
        let mut blocks = Stream::default();
        let mut out = KeyStream([[[[0; 16]; MAX_BLOCKS / 4]; 4]; 4]);
        let mut places = [(0, 0); MAX_BLOCKS];
        let mut waiting = 0;
        for start in (0..run.len()).step_by(stride) {
            let end = run.len().min(start.saturating_add(stride));
            let Some(&nonce) = run[start..end].first_chunk::<NONCE>() else {
                continue;
            };
            let [n0, n1, n2, n3, n4, n5, n6, n7] = nonce;
            let nonce = [
                u32::from_le_bytes([n0, n1, n2, n3]),
                u32::from_le_bytes([n4, n5, n6, n7]),
            ];
            for (counter, at) in (0u32..).zip((start + NONCE..end).step_by(BLOCK)) {
                blocks.nonces[0][waiting] = nonce[0];
                blocks.nonces[1][waiting] = nonce[1];
                blocks.counters[waiting] = counter;
                places[waiting] = (at, end.min(at + BLOCK));
                waiting += 1;
                if waiting == K::BLOCKS {
                    self.add_stream(&blocks, &mut out, &places[..waiting], run);
                    waiting = 0;
                }
            }
        }
        if waiting > 0 {
            self.add_stream(&blocks, &mut out, &places[..waiting], run);
        }
    }

    /// Adds the key stream of `blocks`, made in `out`, to the bytes at their places in the run.
    fn add_stream(
        &self,
        blocks: &Stream,
        out: &mut KeyStream,
        places: &[(usize, usize)],
        run: &mut [u8],
    ) {
        self.kernel.stream(&self.state, blocks, out);
        for (i, &(from, to)) in places.iter().enumerate() {
            let mut key = [0; BLOCK];
            for (to, quarter) in key.as_chunks_mut::<16>().0.iter_mut().zip(&out.0) {
                *to = quarter[i % 4][i / 4];
            }
            let text = &mut run[from..to];
            // With the length known, the compiler makes this a few vector operations.
            if let Some(whole) = text.first_chunk_mut::<BLOCK>() {
                for (t, k) in whole.iter_mut().zip(key) {
                    *t ^= k;
                }
            } else {
                for (t, k) in text.iter_mut().zip(key) {
                    *t ^= k;
                }
            }
        }
    }
}

impl<K: Blocks> Transform for Salsa<K> {
    fn encrypt(&mut self, run: &mut [u8], segment: usize, _: usize) {
        // The nonce is in clear, and what follows it looks as random encrypted as not.
        self.apply(run, segment);
    }

    fn decrypt(&mut self, run: &mut [u8], segment: usize) {
        self.apply(run, segment);
    }
}
