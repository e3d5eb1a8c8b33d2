//! The receiving half: pieces of a stream in, uncompressed bytes out.

use super::{
    CHECKSUM_LEN, CHUNK_HEADER_LEN, COMPRESSED, IDENTIFIER, MAX_CHUNK, MAX_CHUNK_LEN, STORED,
    STREAM_IDENTIFIER, mask,
};

/// Why a snappy stream cannot be read on. Always the peer's doing: the transport below is reliable, so
/// this means another protocol, another key, or an attack.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The stream does not begin with a stream identifier; most likely the peer does not compress.
    #[error("stream begins with chunk type {0:#04x} instead of a snappy stream identifier")]
    MissingIdentifier(u8),
    /// A stream identifier chunk has another length or another text than the format's.
    #[error("snappy stream identifier is malformed")]
    BadIdentifier,
    /// A chunk of a type that must not be skipped and whose meaning is not known (0x02 to 0x7f).
    #[error("snappy chunk type {0:#04x} is unknown and must not be skipped")]
    UnknownChunk(u8),
    /// A chunk announces more than [`MAX_CHUNK_LEN`] bytes.
    #[error("snappy chunk of {0} bytes exceeds the limit of {MAX_CHUNK_LEN}")]
    ChunkTooLong(usize),
    /// A data chunk announces fewer bytes than its checksum takes.
    #[error("snappy chunk of {0} bytes has no room for its checksum")]
    ChunkTooShort(usize),
    /// A chunk holds or announces more than [`MAX_CHUNK`] uncompressed bytes.
    #[error("snappy chunk of {0} uncompressed bytes exceeds the limit of {MAX_CHUNK}")]
    DataTooLong(usize),
    /// The body of a compressed chunk is not a snappy block.
    #[error("snappy chunk has a malformed body")]
    BadBody,
    /// The uncompressed bytes do not have the checksum that the chunk carries.
    #[error("snappy chunk has checksum {computed:#010x}, its header says {carried:#010x}")]
    BadChecksum {
        /// In the chunk.
        carried: u32,
        /// Of the bytes.
        computed: u32,
    },
}

/// Reads one direction of a session.
///
/// Input may end anywhere, also inside a chunk header; a chunk's data comes out once the chunk is whole and
/// its checksum holds. A chunk that lies whole in the input is read where it lies. Memory: at most one partial chunk
/// (76 KB) and one uncompressed chunk (64 KB), grown as bytes arrive and kept; [`trim`](Self::trim) returns what is
/// not in use.
#[derive(Debug, Default)]
pub struct Decoder {
    identified: bool,
    failed: Option<DecodeError>,
    /// A chunk whose end has not arrived, from its header on; empty between chunks.
    partial: Vec<u8>,
    /// Bytes of a skipped chunk that have yet to arrive.
    skip: usize,
    decompressed: Decompressed,
}

impl Decoder {
    /// A stream at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream that goes on between chunks, after its identifier if `identified`: see [`is_mid_chunk`](Self::is_mid_chunk).
    #[must_use]
    pub fn resumed(identified: bool) -> Self {
        Self {
            identified,
            ..Self::default()
        }
    }

    /// Whether the identifier has been read, and no fault since.
    #[must_use]
    pub const fn is_identified(&self) -> bool {
        self.identified && self.failed.is_none()
    }

    /// Takes all of `input`, the next bytes of the stream, and hands the uncompressed bytes of every chunk
    /// that it completes to `out`, in order; at most [`MAX_CHUNK`] bytes per call of `out`, never none.
    ///
    /// # Errors
    /// A [`DecodeError`] when the stream is malformed; what came before the fault has been handed out. The
    /// stream is then over: every further call returns the same error.
    pub fn decode(&mut self, input: &[u8], out: &mut impl FnMut(&[u8])) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.read(input, out);
        if let Err(error) = result {
            self.failed = Some(error);
            self.trim();
        }
        result
    }

    /// Whether the stream stopped inside a chunk: a stream that ends so was cut.
    #[must_use]
    pub fn is_mid_chunk(&self) -> bool {
        !self.partial.is_empty() || self.skip > 0
    }

    /// Returns scratch memory that holds nothing. For sessions gone idle.
    pub fn trim(&mut self) {
        if self.failed.is_some() {
            self.partial.clear();
        }
        self.partial.shrink_to_fit();
        self.decompressed.0 = Vec::new();
    }

    fn read(&mut self, mut input: &[u8], out: &mut impl FnMut(&[u8])) -> Result<(), DecodeError> {
        loop {
            let skipped = self.skip.min(input.len());
            self.skip -= skipped;
            input = &input[skipped..];
            if input.is_empty() {
                return Ok(());
            }

            if self.partial.is_empty()
                && let Some(header) = input.first_chunk()
            {
                let chunk = self.begin(*header)?;
                input = &input[CHUNK_HEADER_LEN..];
                match chunk {
                    Chunk::Skip(len) => self.skip = len,
                    Chunk::Whole { kind, len } => {
                        if let Some((body, rest)) = input.split_at_checked(len) {
                            self.decompressed.finish(kind, body, out)?;
                            input = rest;
                        } else {
                            self.partial.extend_from_slice(header);
                        }
                    }
                }
                continue;
            }

            // A chunk that began in earlier input, or whose header is not yet whole: collect.
            let have = self.partial.len();
            let Some(header) = self.partial.first_chunk::<CHUNK_HEADER_LEN>().copied() else {
                let (now, rest) = input.split_at(input.len().min(CHUNK_HEADER_LEN - have));
                self.partial.extend_from_slice(now);
                input = rest;
                if let Some(header) = self.partial.first_chunk::<CHUNK_HEADER_LEN>().copied()
                    && let Chunk::Skip(len) = self.begin(header)?
                {
                    self.partial.clear();
                    self.skip = len;
                }
                self.finish_partial(out)?;
                continue;
            };
            let total = CHUNK_HEADER_LEN + length(header);
            let (now, rest) = input.split_at(input.len().min(total - have));
            grow(&mut self.partial, now.len(), total);
            self.partial.extend_from_slice(now);
            input = rest;
            self.finish_partial(out)?;
        }
    }

    /// What to do about a chunk with this header, or why its stream is over.
    fn begin(&mut self, header: [u8; CHUNK_HEADER_LEN]) -> Result<Chunk, DecodeError> {
        let kind = header[0];
        let len = length(header);
        if !self.identified {
            if kind != STREAM_IDENTIFIER {
                return Err(DecodeError::MissingIdentifier(kind));
            }
            self.identified = true;
        }
        if len > MAX_CHUNK_LEN {
            return Err(DecodeError::ChunkTooLong(len));
        }
        match kind {
            STREAM_IDENTIFIER if len != IDENTIFIER.len() - CHUNK_HEADER_LEN => {
                Err(DecodeError::BadIdentifier)
            }
            COMPRESSED | STORED if len < CHECKSUM_LEN => Err(DecodeError::ChunkTooShort(len)),
            STORED if len - CHECKSUM_LEN > MAX_CHUNK => {
                Err(DecodeError::DataTooLong(len - CHECKSUM_LEN))
            }
            COMPRESSED | STORED | STREAM_IDENTIFIER => Ok(Chunk::Whole { kind, len }),
            0x02..=0x7f => Err(DecodeError::UnknownChunk(kind)),
            0x80..=0xfe => Ok(Chunk::Skip(len)),
        }
    }

    /// Hands out the collected chunk if it is whole.
    fn finish_partial(&mut self, out: &mut impl FnMut(&[u8])) -> Result<(), DecodeError> {
        if let Some((header, body)) = self.partial.split_first_chunk::<CHUNK_HEADER_LEN>()
            && body.len() == length(*header)
        {
            self.decompressed.finish(header[0], body, out)?;
            self.partial.clear();
        }
        Ok(())
    }
}

/// What a chunk header asks for.
enum Chunk {
    /// Pass over this many bytes.
    Skip(usize),
    /// Collect the body and act on it.
    Whole { kind: u8, len: usize },
}

/// The buffer for uncompressed bytes. Only ever grows, so that its bytes are initialised once.
#[derive(Default)]
struct Decompressed(Vec<u8>);

impl core::fmt::Debug for Decompressed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Decompressed {
    /// Acts on a whole chunk whose header has been found good.
    fn finish(
        &mut self,
        kind: u8,
        body: &[u8],
        out: &mut impl FnMut(&[u8]),
    ) -> Result<(), DecodeError> {
        if kind == STREAM_IDENTIFIER {
            return if *body == IDENTIFIER[CHUNK_HEADER_LEN..] {
                Ok(())
            } else {
                Err(DecodeError::BadIdentifier)
            };
        }
        let Some((carried, body)) = body.split_first_chunk::<CHECKSUM_LEN>() else {
            return Err(DecodeError::ChunkTooShort(body.len()));
        };
        let data = if kind == STORED {
            body
        } else {
            let len = snap::raw::decompress_len(body).map_err(|_| DecodeError::BadBody)?;
            if len > MAX_CHUNK {
                return Err(DecodeError::DataTooLong(len));
            }
            if self.0.len() < len {
                self.0.resize(len, 0);
            }
            let written = snap::raw::Decoder::new()
                .decompress(body, &mut self.0[..len])
                .map_err(|_| DecodeError::BadBody)?;
            &self.0[..written]
        };
        let carried = u32::from_le_bytes(*carried);
        let computed = mask(crc32c::crc32c(data));
        if carried != computed {
            return Err(DecodeError::BadChecksum { carried, computed });
        }
        if !data.is_empty() {
            out(data);
        }
        Ok(())
    }
}

/// The length field of a chunk header.
fn length(header: [u8; CHUNK_HEADER_LEN]) -> usize {
    let [_, a, b, c] = header;
    usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
}

/// Makes room for `more` bytes in a buffer that will hold `total` in the end: by doubling, so that what is
/// announced but never sent costs nothing, and never beyond `total`.
fn grow(buffer: &mut Vec<u8>, more: usize, total: usize) {
    let need = buffer.len() + more;
    if buffer.capacity() < need {
        let target = (2 * buffer.capacity()).clamp(need, total.max(need));
        buffer.reserve_exact(target - buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Encoder;
    use super::*;
    use fulmar_testkit::vectors::xs;
    use proptest::prelude::*;

    fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&(body.len() as u32).to_le_bytes()[..3]);
        out.extend_from_slice(body);
        out
    }

    fn stored(data: &[u8]) -> Vec<u8> {
        let mut body = mask(crc32c::crc32c(data)).to_le_bytes().to_vec();
        body.extend_from_slice(data);
        chunk(STORED, &body)
    }

    fn compressed(block: &[u8], data: &[u8]) -> Vec<u8> {
        let mut body = mask(crc32c::crc32c(data)).to_le_bytes().to_vec();
        body.extend_from_slice(block);
        chunk(COMPRESSED, &body)
    }

    fn stream(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut out = IDENTIFIER.to_vec();
        out.extend(chunks.concat());
        out
    }

    /// Decodes `input` in the given pieces; what came out, and how it ended.
    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Result<(), DecodeError>) {
        let mut decoder = Decoder::new();
        let mut got = Vec::new();
        for piece in pieces {
            let result = decoder.decode(piece, &mut |d| {
                assert!(!d.is_empty() && d.len() <= MAX_CHUNK);
                got.extend_from_slice(d);
            });
            assert!(decoder.partial.capacity() <= CHUNK_HEADER_LEN + MAX_CHUNK_LEN);
            assert!(decoder.decompressed.0.len() <= MAX_CHUNK);
            if result.is_err() {
                assert_eq!(decoder.decode(b"more", &mut |_| panic!()), result);
                return (got, result);
            }
        }
        (got, Ok(()))
    }

    /// All kinds of chunks, a few hundred bytes.
    fn mixed() -> (Vec<u8>, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut plain = Vec::new();
        let mut encoder = Encoder::new();
        for frame in [xs(1, 8), vec![7; 300], xs(2, 60)] {
            encoder.encode(&[&frame], |piece| bytes.extend_from_slice(piece));
            plain.extend_from_slice(&frame);
        }
        bytes.extend(chunk(0xfe, &[0; 20]));
        bytes.extend(chunk(0x80, &[]));
        bytes.extend(IDENTIFIER);
        bytes.extend(stored(b""));
        bytes.extend(stored(b"after"));
        bytes.extend(chunk(0xfd, b"x"));
        plain.extend_from_slice(b"after");
        (bytes, plain)
    }

    #[test]
    fn any_split_point_gives_the_same() {
        let (bytes, plain) = mixed();
        for at in 0..=bytes.len() {
            for second in [0, 1, 3, 4, 5] {
                let end = (at + second).min(bytes.len());
                let (got, result) = run([&bytes[..at], &bytes[at..end], &bytes[end..]]);
                assert_eq!((got.as_slice(), result), (&plain[..], Ok(())), "at {at}");
            }
        }
    }

    #[test]
    fn a_cut_stream_is_known_as_cut() {
        let (bytes, _) = mixed();
        let mut ends = 0;
        for at in 0..=bytes.len() {
            let mut decoder = Decoder::new();
            decoder.decode(&bytes[..at], &mut |_| ()).unwrap();
            ends += usize::from(!decoder.is_mid_chunk());
        }
        // The beginning, and behind each of the ten chunks.
        assert_eq!(ends, 11);
    }

    #[test]
    fn faults_are_named() {
        let long = vec![0; MAX_CHUNK + 1];
        let (mask_a, mask_b) = (mask(crc32c::crc32c(b"a")), mask(crc32c::crc32c(b"b")));
        let mut bad_checksum = stored(b"a");
        bad_checksum[8] = b'b';
        let block = |data: &[u8]| snap::raw::Encoder::new().compress_vec(data).unwrap();
        for (bytes, expect) in [
            (stored(b"a"), DecodeError::MissingIdentifier(STORED)),
            (chunk(0xfe, b"a"), DecodeError::MissingIdentifier(0xfe)),
            (vec![1, 0, 0, 0, 3], DecodeError::MissingIdentifier(1)),
            (
                b"\xff\x06\x00\x00sNaPpy".to_vec(),
                DecodeError::BadIdentifier,
            ),
            (b"\xff\x07\x00\x00".to_vec(), DecodeError::BadIdentifier),
            (
                stream(&[b"\xff\x05\x00\x00sNaPp".to_vec()]),
                DecodeError::BadIdentifier,
            ),
            (stream(&[chunk(2, b"a")]), DecodeError::UnknownChunk(2)),
            (stream(&[chunk(0x7f, b"")]), DecodeError::UnknownChunk(0x7f)),
            (
                stream(&[b"\x00\xcf\x2a\x01".to_vec()]),
                DecodeError::ChunkTooLong(76495),
            ),
            (
                stream(&[b"\xfe\xff\xff\xff".to_vec()]),
                DecodeError::ChunkTooLong(0xff_ffff),
            ),
            (stream(&[chunk(0, b"abc")]), DecodeError::ChunkTooShort(3)),
            (stream(&[chunk(1, b"")]), DecodeError::ChunkTooShort(0)),
            (stream(&[stored(&long)]), DecodeError::DataTooLong(65537)),
            (
                stream(&[compressed(&block(&long), &long)]),
                DecodeError::DataTooLong(65537),
            ),
            (stream(&[compressed(b"", b"")]), DecodeError::BadBody),
            (stream(&[compressed(b"\x05", b"")]), DecodeError::BadBody),
            (
                stream(&[compressed(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"")]),
                DecodeError::BadBody,
            ),
            (
                stream(&[bad_checksum]),
                DecodeError::BadChecksum {
                    carried: mask_a,
                    computed: mask_b,
                },
            ),
            (
                stream(&[compressed(&block(b"b"), b"a")]),
                DecodeError::BadChecksum {
                    carried: mask_a,
                    computed: mask_b,
                },
            ),
        ] {
            assert_eq!(run([bytes.as_slice()]).1, Err(expect));
            assert_eq!(run(bytes.chunks(1)).1, Err(expect));
            // Whatever came before is handed out first.
            if bytes.starts_with(&IDENTIFIER) {
                let (head, tail) = bytes.split_at(IDENTIFIER.len());
                let whole = [head, &stored(b"before"), tail].concat();
                assert_eq!(run([&whole[..]]), (b"before".to_vec(), Err(expect)));
            }
        }
    }

    #[test]
    fn largest_chunks_pass() {
        let data = xs(4, MAX_CHUNK);
        let bytes = stream(&[
            stored(&data),
            chunk(0x99, &vec![1; MAX_CHUNK_LEN]),
            compressed(
                &snap::raw::Encoder::new().compress_vec(&data).unwrap(),
                &data,
            ),
        ]);
        let (got, result) = run(bytes.chunks(1376));
        assert_eq!(result, Ok(()));
        assert_eq!(got, [&data[..], &data[..]].concat());
    }

    #[test]
    fn announced_bytes_cost_nothing() {
        let mut decoder = Decoder::new();
        let mut bytes = IDENTIFIER.to_vec();
        bytes.extend_from_slice(b"\x01\x04\x00\x01abcd");
        decoder.decode(&bytes, &mut |_| ()).unwrap();
        assert!(decoder.is_mid_chunk());
        assert!(decoder.partial.capacity() < 100);
    }

    #[test]
    fn every_single_bit_error_is_harmless() {
        let (bytes, plain) = mixed();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (got, result) = run([&bad[..]]);
            // No wrong byte comes out: only whole chunks do, and those whose checksum holds. (A chunk
            // can turn into a skipped one, which loses its data; then what follows moves up.)
            if result.is_err() {
                assert!(got.len() <= plain.len());
            }
            let mut rest = plain.as_slice();
            for byte in &got {
                let at = rest.iter().position(|b| b == byte);
                rest = &rest[at.expect("a byte that was not sent") + 1..];
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec((0usize..5000, any::<u32>(), any::<bool>()), 1..8),
            cuts in prop::collection::vec(1usize..3000, 1..20),
        ) {
            let mut encoder = Encoder::new();
            let (mut bytes, mut plain) = (Vec::new(), Vec::new());
            for (len, seed, dull) in frames {
                let frame = if dull { vec![seed as u8; len] } else { xs(seed, len) };
                encoder.encode(&[&frame], |piece| bytes.extend_from_slice(piece));
                plain.extend(frame);
            }
            let mut rest = bytes.as_slice();
            let mut pieces = Vec::new();
            for cut in cuts.into_iter().cycle() {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(now);
                rest = later;
                if rest.is_empty() { break; }
            }
            let (got, result) = run(pieces);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(got, plain);
        }

        #[test]
        fn arbitrary_bytes_never_panic_or_grow(
            begin in any::<bool>(),
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        ) {
            let mut all: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            if begin { all.insert(0, &IDENTIFIER); }
            let whole = all.concat();
            prop_assert_eq!(run(all), run([&whole[..]]));
        }
    }
}
