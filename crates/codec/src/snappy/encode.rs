//! The sending half: mux frames in, chunks out.

use super::{CHECKSUM_LEN, CHUNK_HEADER_LEN, COMPRESSED, IDENTIFIER, MAX_CHUNK, STORED, mask};

/// Writes one direction of a session as a snappy stream.
///
/// Scratch memory grows to what the largest frame so far needed, at most about 180 KB, and is kept: encoding does not
/// allocate in the steady state. [`trim`](Self::trim) returns it.
#[derive(Debug, Default)]
pub struct Encoder {
    identified: bool,
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

    /// Appends the chunks of one mux frame to `out`, header and body of each together; before the first
    /// chunk of the stream, the identifier. The frame is the concatenation of its pieces (a frame's header
    /// and its payload, say).
    ///
    /// A frame of up to [`MAX_CHUNK`] bytes makes one chunk, a longer one is cut there; an empty frame
    /// writes nothing. A chunk that would not shrink by more than an eighth is stored as it is. `out` grows
    /// by at most the frame's length, 8 bytes per chunk, and 10 bytes once.
    pub fn encode(&mut self, frame: &[&[u8]], out: &mut Vec<u8>) {
        // One piece that fits, the most frequent case after copying frames together, needs no copy here.
        if let [piece] = frame {
            for chunk in piece.chunks(MAX_CHUNK) {
                self.chunk(chunk, out);
            }
            return;
        }
        let mut plain = core::mem::take(&mut self.plain);
        plain.clear();
        for piece in frame {
            let mut piece = *piece;
            while !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(MAX_CHUNK - plain.len()));
                plain.extend_from_slice(now);
                piece = later;
                if plain.len() == MAX_CHUNK {
                    self.chunk(&plain, out);
                    plain.clear();
                }
            }
        }
        if !plain.is_empty() {
            self.chunk(&plain, out);
        }
        self.plain = plain;
    }

    /// Returns the scratch memory; the next frame takes what it needs again. For sessions gone idle.
    pub fn trim(&mut self) {
        self.compressor = None;
        self.plain = Vec::new();
        self.body = Vec::new();
    }

    /// Writes `data` (1 to [`MAX_CHUNK`] bytes) as one chunk.
    fn chunk(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if !self.identified {
            self.identified = true;
            out.extend_from_slice(&IDENTIFIER);
        }
        let room = snap::raw::max_compress_len(data.len());
        if self.body.len() < room {
            self.body.resize(room, 0);
        }
        // The compressor fails only for want of room; the chunk is then stored, which is always right.
        let compressed = self
            .compressor
            .get_or_insert_with(|| Box::new(snap::raw::Encoder::new()))
            .compress(data, &mut self.body)
            .unwrap_or(usize::MAX);
        let (kind, body) = if compressed < data.len() - data.len() / 8 {
            (COMPRESSED, &self.body[..compressed])
        } else {
            (STORED, data)
        };
        out.reserve(CHUNK_HEADER_LEN + CHECKSUM_LEN + body.len());
        // At most MAX_CHUNK + CHECKSUM_LEN, which fits 24 bits.
        #[allow(clippy::cast_possible_truncation)]
        let [len0, len1, len2, _] = ((CHECKSUM_LEN + body.len()) as u32).to_le_bytes();
        out.extend_from_slice(&[kind, len0, len1, len2]);
        out.extend_from_slice(&mask(crc32c::crc32c(data)).to_le_bytes());
        out.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;
    use fulmar_testkit::vectors::xs;

    #[test]
    fn stored_when_less_than_an_eighth_is_saved() {
        // Random bytes with ever more zeros behind: the kind flips exactly at the rule's edge.
        let mut kinds = [0; 2];
        for zeros in 0..60 {
            let mut data = xs(9, 200);
            data.resize(200 + zeros, 0);
            let compressed = snap::raw::Encoder::new().compress_vec(&data).unwrap().len();
            let mut out = Vec::new();
            Encoder::new().encode(&[&data], &mut out);
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
            encoder.encode(&[&frame[..len / 2], &frame[len / 2..]], &mut out);
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
        encoder.encode(&[&frame[..8], &frame[8..]], &mut out);
        let before = (encoder.plain.as_ptr(), encoder.body.as_ptr());
        for _ in 0..100 {
            out.clear();
            encoder.encode(&[&frame[..8], &frame[8..4000]], &mut out);
            encoder.encode(&[&frame[..8], &frame[8..]], &mut out);
        }
        assert_eq!(before, (encoder.plain.as_ptr(), encoder.body.as_ptr()));
    }
}
