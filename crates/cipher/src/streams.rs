//! The methods of kcptun-libev that are a stream cipher and Poly1305, for many packets at once.
//!
//! A run is cut into batches of packets of equal length. For every batch the keys of the packets come first, one packet
//! per lane of the vectors; then the first blocks of their key streams, which hold the keys of Poly1305; then, in the
//! order that the direction asks for, key stream for the bodies and tags.

use fulmar_wire::libev::{ASSOCIATED_DATA, Method, TAG_LEN};
use zeroize::{Zeroize, Zeroizing};

use crate::Verdict;
use crate::aead::equal;
use crate::libev::Bodies;
use crate::poly::Poly;

/// Most packets of a batch: as many as the widest vectors have lanes.
pub(crate) const BATCH: usize = 16;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646E, 0x7962_2D32, 0x6B20_6574];

/// Input matrices of blocks, word by word: block `i` is column `i`. Rows are long enough for a vector at any column.
#[repr(align(64))]
pub(crate) struct Input(pub(crate) [[u32; 2 * BATCH]; 16]);

impl Input {
    pub(crate) const ZERO: Self = Self([[0; 2 * BATCH]; 16]);
}

/// Blocks of key stream.
#[repr(align(64))]
pub(crate) struct KeyStream(pub(crate) [[u8; 64]; BATCH]);

impl KeyStream {
    pub(crate) const ZERO: Self = Self([[0; 64]; BATCH]);
}

/// What distinguishes the methods.
pub(crate) trait Cipher: Send + 'static {
    /// ChaCha20; otherwise Salsa20.
    const CHACHA: bool;
    /// Bytes of nonce.
    const NONCE: usize;
    /// Bytes of key stream in front of the body's.
    const SKIP: usize;
    /// Which word of the matrix counts the blocks.
    const COUNTER: usize = if Self::CHACHA { 12 } else { 8 };
    /// What is authenticated besides the body, and whether as in RFC 8439; otherwise only the body, as in NaCl.
    const DATA: Option<&'static [u8; 13]>;

    /// The matrix that makes the key of a packet out of `key` and the first 16 bytes of its nonce.
    fn outer(key: &[u32; 8], nonce: &[u32; 4]) -> [u32; 16] {
        if Self::CHACHA {
            chacha_matrix(key, nonce)
        } else {
            salsa_matrix(key, nonce)
        }
    }
}

/// `xchacha20poly1305_ietf`.
struct XChaCha;
impl Cipher for XChaCha {
    const CHACHA: bool = true;
    const NONCE: usize = 24;
    const SKIP: usize = 64;
    const DATA: Option<&'static [u8; 13]> = Some(ASSOCIATED_DATA);
}

/// `chacha20poly1305_ietf`.
struct ChaCha;
impl Cipher for ChaCha {
    const CHACHA: bool = true;
    const NONCE: usize = 12;
    const SKIP: usize = 64;
    const DATA: Option<&'static [u8; 13]> = Some(ASSOCIATED_DATA);
}

/// `xsalsa20poly1305`.
struct XSalsa;
impl Cipher for XSalsa {
    const CHACHA: bool = false;
    const NONCE: usize = 24;
    const SKIP: usize = 32;
    const DATA: Option<&'static [u8; 13]> = None;
}

fn chacha_matrix(key: &[u32; 8], last: &[u32; 4]) -> [u32; 16] {
    let mut matrix = [0; 16];
    matrix[..4].copy_from_slice(&CONSTANTS);
    matrix[4..12].copy_from_slice(key);
    matrix[12..].copy_from_slice(last);
    matrix
}

fn salsa_matrix(key: &[u32; 8], middle: &[u32; 4]) -> [u32; 16] {
    let mut matrix = [0; 16];
    for (i, word) in CONSTANTS.into_iter().enumerate() {
        matrix[5 * i] = word;
    }
    matrix[1..5].copy_from_slice(&key[..4]);
    matrix[6..10].copy_from_slice(middle);
    matrix[11..15].copy_from_slice(&key[4..]);
    matrix
}

/// Packets of equal length, all with a body.
pub(crate) struct Batch {
    pub(crate) packets: [Packet; BATCH],
    /// How many of them there are.
    pub(crate) count: usize,
    /// Bytes of each body.
    pub(crate) len: usize,
}

/// A packet of a batch.
#[derive(Copy, Clone)]
pub(crate) struct Packet {
    /// Where in the run it begins, and its body.
    pub(crate) start: usize,
    /// Its place among the datagrams of the run.
    index: usize,
    /// The input of its block 0.
    pub(crate) matrix: [u32; 16],
    /// Its block 0, whose first 32 bytes are the key of Poly1305.
    first: [u8; 64],
}

impl Packet {
    const NONE: Self = Self {
        start: 0,
        index: 0,
        matrix: [0; 16],
        first: [0; 64],
    };

    /// What Poly1305 multiplies with, before some bits are cleared.
    pub(crate) fn r(&self) -> &[u8; 16] {
        &self.first.as_chunks().0[0]
    }

    /// What Poly1305 adds in the end.
    pub(crate) fn s(&self) -> &[u8; 16] {
        &self.first.as_chunks().0[1]
    }
}

/// A kernel.
pub(crate) trait Lanes: Copy + Send + 'static {
    /// Blocks made at once.
    const LEN: usize;

    /// Makes the first `LEN` blocks.
    fn blocks<C: Cipher>(self, input: &Input, out: &mut KeyStream);

    /// Adds key stream to the bodies of a batch, from block 1 on.
    fn stream<C: Cipher>(self, batch: &Batch, run: &mut [u8]);

    /// The tags of a batch, or `false` if it is better to make them packet by packet.
    fn tags<C: Cipher>(self, batch: &Batch, run: &[u8], tags: &mut [[u8; 16]; BATCH]) -> bool;
}

/// A method with a kernel; `None` for methods that are of another kind.
pub(crate) fn bodies<L: Lanes>(
    kernel: L,
    method: Method,
    key: &[u8; 32],
) -> Option<Box<dyn Bodies>> {
    match method {
        Method::XChaCha20Poly1305 => Some(Streams::<XChaCha, L>::boxed(kernel, key)),
        Method::XSalsa20Poly1305 => Some(Streams::<XSalsa, L>::boxed(kernel, key)),
        Method::ChaCha20Poly1305 => Some(Streams::<ChaCha, L>::boxed(kernel, key)),
        Method::Aes256Gcm | Method::Plain => None,
    }
}

struct Streams<C, L> {
    kernel: L,
    key: Zeroizing<[u32; 8]>,
    input: Box<Input>,
    out: Box<KeyStream>,
    batch: Box<Batch>,
    cipher: core::marker::PhantomData<C>,
}

impl<C: Cipher, L: Lanes> Streams<C, L> {
    fn boxed(kernel: L, key: &[u8; 32]) -> Box<dyn Bodies> {
        Box::new(Self {
            kernel,
            key: Zeroizing::new(words(key)),
            input: Box::new(Input::ZERO),
            out: Box::new(KeyStream::ZERO),
            batch: Box::new(Batch {
                packets: [Packet::NONE; BATCH],
                count: 0,
                len: 0,
            }),
            cipher: core::marker::PhantomData,
        })
    }

    /// Calls `flush` with one batch after the other of the datagrams that `wanted` picks and that have a body.
    fn batches(
        &mut self,
        run: &mut [u8],
        stride: usize,
        mut wanted: impl FnMut(usize) -> bool,
        mut flush: impl FnMut(&mut Self, &mut [u8]),
    ) {
        let overhead = TAG_LEN + C::NONCE;
        let mut start = 0;
        let mut index = 0;
        self.batch.count = 0;
        while start < run.len() {
            let datagram = stride.min(run.len() - start);
            if datagram > overhead && wanted(index) {
                let len = datagram - overhead;
                if self.batch.count == BATCH || (self.batch.count > 0 && self.batch.len != len) {
                    flush(self, run);
                    self.batch.count = 0;
                }
                let packet = &mut self.batch.packets[self.batch.count];
                (packet.start, packet.index) = (start, index);
                self.batch.len = len;
                self.batch.count += 1;
            }
            start += datagram;
            index += 1;
        }
        if self.batch.count > 0 {
            flush(self, run);
        }
        self.batch.count = 0;
    }

    /// Finds matrices and first blocks of all packets of the batch.
    fn prepare(&mut self, run: &[u8]) {
        let Batch {
            packets,
            count,
            len,
        } = &mut *self.batch;
        for packet in &mut packets[..*count] {
            let nonce = &run[packet.start + *len + TAG_LEN..][..C::NONCE];
            packet.matrix = if C::NONCE == 12 {
                let [a, b, c] = words(nonce);
                chacha_matrix(&self.key, &[0, a, b, c])
            } else {
                C::outer(&self.key, &words(nonce))
            };
        }
        if C::NONCE == 24 {
            self.first_blocks();
            for packet in &mut self.batch.packets[..self.batch.count] {
                // The rounds alone, without the input added to them.
                let block: [u32; 16] = words(&packet.first);
                let x: [u32; 16] =
                    core::array::from_fn(|i| block[i].wrapping_sub(packet.matrix[i]));
                let [a, b] = words(&run[packet.start + self.batch.len + TAG_LEN + 16..][..8]);
                packet.matrix = if C::CHACHA {
                    let key = [x[0], x[1], x[2], x[3], x[12], x[13], x[14], x[15]];
                    chacha_matrix(&key, &[0, 0, a, b])
                } else {
                    let key = [x[0], x[5], x[10], x[15], x[6], x[7], x[8], x[9]];
                    salsa_matrix(&key, &[a, b, 0, 0])
                };
            }
        }
        self.first_blocks();
    }

    /// Makes the blocks of the matrices as they are.
    fn first_blocks(&mut self) {
        let count = self.batch.count;
        for packets in self.batch.packets[..count].chunks_mut(L::LEN) {
            for (i, packet) in packets.iter().enumerate() {
                for (row, word) in self.input.0.iter_mut().zip(packet.matrix) {
                    row[i] = word;
                }
            }
            self.kernel.blocks::<C>(&self.input, &mut self.out);
            for (packet, block) in packets.iter_mut().zip(&self.out.0) {
                packet.first = *block;
            }
        }
    }

    /// Adds key stream to all bodies of the batch.
    fn stream(&self, run: &mut [u8]) {
        if C::SKIP < 64 {
            // What the key of Poly1305 leaves of block 0.
            for packet in &self.batch.packets[..self.batch.count] {
                let body = &mut run[packet.start..packet.start + self.batch.len];
                for (text, key) in body.iter_mut().zip(&packet.first[C::SKIP..]) {
                    *text ^= key;
                }
            }
        }
        self.kernel.stream::<C>(&self.batch, run);
    }

    /// The tags of the batch's bodies, which are encrypted.
    fn tags(&self, run: &[u8]) -> [[u8; TAG_LEN]; BATCH] {
        let mut tags = [[0; TAG_LEN]; BATCH];
        if self.kernel.tags::<C>(&self.batch, run, &mut tags) {
            return tags;
        }
        for (tag, packet) in tags.iter_mut().zip(&self.batch.packets[..self.batch.count]) {
            let mut poly = Poly::new(packet.r());
            let body = &run[packet.start..packet.start + self.batch.len];
            if let Some(data) = C::DATA {
                let lengths = u128::from(body.len() as u64) << 64 | data.len() as u128;
                poly.padded(data);
                poly.padded(body);
                poly.padded(&lengths.to_le_bytes());
            } else {
                poly.unpadded(body);
            }
            *tag = poly.finish(packet.s());
        }
        tags
    }
}

impl<C: Cipher, L: Lanes> Bodies for Streams<C, L> {
    fn seal(&mut self, run: &mut [u8], stride: usize) {
        self.batches(
            run,
            stride,
            |_| true,
            |this, run| {
                this.prepare(run);
                this.stream(run);
                let tags = this.tags(run);
                for (packet, tag) in this.batch.packets[..this.batch.count].iter().zip(tags) {
                    run[packet.start + this.batch.len..][..TAG_LEN].copy_from_slice(&tag);
                }
            },
        );
    }

    fn open(&mut self, run: &mut [u8], stride: usize, verdicts: &mut [Verdict]) {
        let verdicts = core::cell::Cell::from_mut(verdicts).as_slice_of_cells();
        let wanted = |index: usize| verdicts.get(index).is_some_and(|v| v.get() == Verdict::Ok);
        self.batches(run, stride, wanted, |this, run| {
            this.prepare(run);
            let tags = this.tags(run);
            let mut good = 0;
            for (i, tag) in tags.iter().enumerate().take(this.batch.count) {
                let packet = this.batch.packets[i];
                let place = &run[packet.start + this.batch.len..];
                if place.first_chunk().is_some_and(|there| equal(there, tag)) {
                    // Those that are refused need no decryption.
                    if good != i {
                        this.batch.packets[good] = packet;
                    }
                    good += 1;
                } else {
                    verdicts[packet.index].set(Verdict::Forged);
                }
            }
            this.batch.count = good;
            this.stream(run);
        });
    }
}

impl<C, L> Drop for Streams<C, L> {
    fn drop(&mut self) {
        for packet in &mut self.batch.packets {
            packet.matrix.zeroize();
            packet.first.zeroize();
        }
        self.input.0.zeroize();
        self.out.0.zeroize();
    }
}

/// The first words of `bytes`, which has enough of them.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}
