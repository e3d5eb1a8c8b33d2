//! The sending half: mux frames in, chunks out.

use super::{CHECKSUM_LEN, CHUNK_HEADER_LEN, COMPRESSED, IDENTIFIER, MAX_CHUNK, STORED, mask};

/// After so many chunks in a row that did not shrink, only every [`TRY_EVERY`]th is tried: what comes through a tunnel
/// is mostly encrypted or compressed already, and finding that out anew costs more than everything else here.
const HOPELESS: u32 = 16;
/// See [`HOPELESS`].
const TRY_EVERY: u32 = 16;
/// Chunks shorter than this are always tried: it costs little, and they say nothing of others.
const SHORT: usize = 1024;

/// Writes one direction of a session as a snappy stream.
///
/// Scratch memory grows to what the largest frame so far needed, at most about 180 KB, and is kept: encoding does not
/// allocate in the steady state. [`trim`](Self::trim) returns it.
#[derive(Debug, Default)]
pub struct Encoder {
    identified: bool,
    /// Chunks in a row that did not shrink.
    stored: u32,
    /// Hash tables of the compressor; 2 KB, and 32 KB more once a frame exceeds 1 KB.
    compressor: Option<Box<snap::raw::Encoder>>,
    /// The chunk's input in one piece, where the frame comes in several.
    plain: Vec<u8>,
    /// The compressed body. Only ever grows, so that its bytes are initialised once.
    body: Vec<u8>,
}

impl Encoder {
    /// A stream at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream that goes on after its identifier, which has been written if `identified`: nothing else has to be known between frames.
    #[must_use]
    pub fn resumed(identified: bool) -> Self {
        Self {
            identified,
            ..Self::default()
        }
    }

    /// Whether the identifier has been written.
    #[must_use]
    pub const fn is_identified(&self) -> bool {
        self.identified
    }

    /// Gives the chunks of one mux frame to `sink`, in pieces; before the first chunk of the stream, the
    /// identifier. The frame is the concatenation of its pieces (a frame's header and its payload, say).
    ///
    /// A frame of up to [`MAX_CHUNK`] bytes makes one chunk, a longer one is cut there; an empty frame
    /// writes nothing. A chunk that would not shrink by more than an eighth is stored as it is, and so is one that is
    /// not tried because many before it would not. What comes out is at most the frame's length, 8 bytes per chunk, and
    /// 10 bytes once.
    pub fn encode(&mut self, frame: &[&[u8]], mut sink: impl FnMut(&[u8])) {
        let len: usize = frame.iter().map(|piece| piece.len()).sum();
        if len == 0 {
            return;
        }
        if len <= MAX_CHUNK {
            return self.chunk(frame, len, &mut sink);
        }
        let mut chunk = Vec::with_capacity(MAX_CHUNK);
        for piece in frame {
            let mut piece = *piece;
            while !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(MAX_CHUNK - chunk.len()));
                chunk.extend_from_slice(now);
                piece = later;
                if chunk.len() == MAX_CHUNK {
                    self.chunk(&[&chunk], MAX_CHUNK, &mut sink);
                    chunk.clear();
                }
            }
        }
        if !chunk.is_empty() {
            self.chunk(&[&chunk], chunk.len(), &mut sink);
        }
    }

    /// Returns the scratch memory; the next frame takes what it needs again. For sessions gone idle.
    pub fn trim(&mut self) {
        self.compressor = None;
        self.plain = Vec::new();
        self.body = Vec::new();
    }

    /// Writes `pieces`, together `len` (1 to [`MAX_CHUNK`]) bytes, as one chunk.
    fn chunk(&mut self, pieces: &[&[u8]], len: usize, sink: &mut impl FnMut(&[u8])) {
        let compressed = self.compress(pieces, len);
        let sum = pieces
            .iter()
            .fold(0, |sum, piece| crc32c::crc32c_append(sum, piece));
        let (kind, body_len) = match compressed {
            Some(n) => (COMPRESSED, n),
            None => (STORED, len),
        };
        let mut head = [0; IDENTIFIER.len() + CHUNK_HEADER_LEN + CHECKSUM_LEN];
        let (identifier, rest) = head.split_at_mut(IDENTIFIER.len());
        identifier.copy_from_slice(&IDENTIFIER);
        // At most MAX_CHUNK + CHECKSUM_LEN, which fits 24 bits.
        #[allow(clippy::cast_possible_truncation)]
        let [len0, len1, len2, _] = ((CHECKSUM_LEN + body_len) as u32).to_le_bytes();
        rest[..CHUNK_HEADER_LEN].copy_from_slice(&[kind, len0, len1, len2]);
        rest[CHUNK_HEADER_LEN..].copy_from_slice(&mask(sum).to_le_bytes());
        let known = std::mem::replace(&mut self.identified, true);
        sink(if known {
            &head[IDENTIFIER.len()..]
        } else {
            &head
        });
        match compressed {
            Some(n) => sink(&self.body[..n]),
            None => pieces
                .iter()
                .filter(|piece| !piece.is_empty())
                .for_each(|piece| sink(piece)),
        }
    }

    /// Compresses into `body`: the length, if that is worth it.
    fn compress(&mut self, pieces: &[&[u8]], len: usize) -> Option<usize> {
        if len >= SHORT && self.stored >= HOPELESS && !self.stored.is_multiple_of(TRY_EVERY) {
            self.stored = self.stored.wrapping_add(1).max(HOPELESS);
            return None;
        }
        let room = snap::raw::max_compress_len(len);
        if self.body.len() < room {
            self.body.resize(room, 0);
        }
        let plain = match pieces {
            [piece] => piece,
            pieces => {
                self.plain.clear();
                pieces
                    .iter()
                    .for_each(|piece| self.plain.extend_from_slice(piece));
                &self.plain[..]
            }
        };
        // The compressor fails only for want of room; the chunk is then stored, which is always right.
        let compressed = self
            .compressor
            .get_or_insert_with(|| Box::new(snap::raw::Encoder::new()))
            .compress(plain, &mut self.body)
            .ok()
            .filter(|n| *n < len - len / 8);
        if len >= SHORT {
            self.stored = match compressed {
                Some(_) => 0,
                None => self.stored.wrapping_add(1),
            };
        }
        compressed
    }
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;
    use fulmar_testkit::vectors::xs;

    impl Encoder {
        fn encode_to(&mut self, frame: &[&[u8]], out: &mut Vec<u8>) {
            self.encode(frame, |piece| out.extend_from_slice(piece));
        }
    }

    #[test]
    fn stored_when_less_than_an_eighth_is_saved() {
        // Random bytes with ever more zeros behind: the kind flips exactly at the rule's edge.
        let mut kinds = [0; 2];
        for zeros in 0..60 {
            let mut data = xs(9, 200);
            data.resize(200 + zeros, 0);
            let compressed = snap::raw::Encoder::new().compress_vec(&data).unwrap().len();
            let mut out = Vec::new();
            Encoder::new().encode_to(&[&data], &mut out);
            let kind = out[IDENTIFIER.len()];
            let expect = if compressed >= data.len() - data.len() / 8 {
                STORED
            } else {
                COMPRESSED
            };
            assert_eq!(kind, expect, "{zeros} zeros");
            kinds[usize::from(kind)] += 1;
        }
        assert!(kinds[0] > 10 && kinds[1] > 10, "{kinds:?}");
    }

    #[test]
    fn output_stays_within_its_bound_and_trim_keeps_the_stream() {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new();
        let mut got = Vec::new();
        let mut sent = Vec::new();
        for len in [1, 8, 1000, 65535, 65536, 65537, 200_000, 3] {
            let frame = xs(len as u32, len);
            let mut out = Vec::new();
            encoder.encode_to(&[&frame[..len / 2], &frame[len / 2..]], &mut out);
            assert!(out.len() <= len + 8 * len.div_ceil(MAX_CHUNK) + 10);
            decoder
                .decode(&out, &mut |d| got.extend_from_slice(d))
                .unwrap();
            sent.extend_from_slice(&frame);
            encoder.trim();
            decoder.trim();
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn steady_state_keeps_its_scratch() {
        let mut encoder = Encoder::new();
        let mut out = Vec::new();
        let frame = xs(3, 8200);
        encoder.encode_to(&[&frame[..8], &frame[8..]], &mut out);
        let before = (encoder.plain.as_ptr(), encoder.body.as_ptr());
        for _ in 0..100 {
            out.clear();
            encoder.encode_to(&[&frame[..8], &frame[8..4000]], &mut out);
            encoder.encode_to(&[&frame[..8], &frame[8..]], &mut out);
        }
        assert_eq!(before, (encoder.plain.as_ptr(), encoder.body.as_ptr()));
    }

    #[test]
    fn what_never_shrinks_is_rarely_tried_and_what_shrinks_again_is_noticed() {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new();
        let mut kind_of = |frame: &[u8]| {
            let mut out = Vec::new();
            encoder.encode_to(&[&frame[..8], &frame[8..]], &mut out);
            let mut got = Vec::new();
            decoder
                .decode(&out, &mut |d| got.extend_from_slice(d))
                .unwrap();
            assert_eq!(got, frame);
            out[out.len().min(10) * usize::from(out[0] == 0xff)]
        };
        let (random, text) = (xs(7, 4000), vec![b'a'; 4000]);
        for _ in 0..100 {
            assert_eq!(kind_of(&random), STORED);
        }
        // Small frames are not held up by large ones.
        assert_eq!(kind_of(&text[..500]), COMPRESSED);
        let late = (0..).take_while(|_| kind_of(&text) == STORED).count();
        assert!(late > 0 && late < TRY_EVERY as usize, "{late}");
        for _ in 0..20 {
            assert_eq!(kind_of(&text), COMPRESSED);
        }
    }
}
