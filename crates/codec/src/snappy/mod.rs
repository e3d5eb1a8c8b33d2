//! The snappy framing format (docs/spec/kcptun.md, section 10): one stream per direction of a session.
//!
//! A stream is the [`IDENTIFIER`], then chunks: type, 24-bit little-endian length, and for data chunks the
//! masked CRC-32C of the uncompressed bytes followed by the body. The sender writes every mux frame as
//! chunks of its own, so that nothing of a frame stays behind in a buffer; the receiver takes the stream in
//! pieces of any size.

mod decode;
mod encode;

pub use decode::{DecodeError, Decoder};
pub use encode::Encoder;

/// What a stream begins with, once per direction. A receiver tells a compressed session from a plain one
/// by it: no mux frame begins with its first byte.
pub const IDENTIFIER: [u8; 10] = *b"\xff\x06\x00\x00sNaPpY";

/// The most uncompressed bytes of one chunk.
pub const MAX_CHUNK: usize = 65536;

/// The largest length field that a chunk of any type may carry: the checksum and the worst case of a
/// compressed body of [`MAX_CHUNK`] bytes.
pub const MAX_CHUNK_LEN: usize = 76494;

/// Type and length.
const CHUNK_HEADER_LEN: usize = 4;
/// The checksum that begins the body of a data chunk.
const CHECKSUM_LEN: usize = 4;

const COMPRESSED: u8 = 0x00;
const STORED: u8 = 0x01;
const STREAM_IDENTIFIER: u8 = 0xff;

/// The checksum of `data` as the format stores it: rotated and offset, so that a stream which itself holds
/// checksums keeps them useful.
const fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::{Value, bytes, load, to_hex, xs};
    use sha2::{Digest, Sha256};

    fn cases() -> Vec<Value> {
        load("kcptun/snappy_compstream.json")["cases"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// The plain bytes of a case: given in full, or described where they are many.
    fn plain(case: &Value) -> Vec<u8> {
        if case["plain_hex"].is_string() {
            return bytes(case, "plain_hex");
        }
        let plain = match case["input"].as_str().unwrap() {
            "65536 zero bytes" => vec![0; 65536],
            "131073 zero bytes" => vec![0; 131_073],
            "xs(8,65543)" => xs(8, 65543),
            other => panic!("unknown input {other}"),
        };
        assert_eq!(
            to_hex(&Sha256::digest(&plain)),
            case["plain_sha256"].as_str().unwrap()
        );
        plain
    }

    /// The writes of a case, as slices of `plain`.
    fn writes<'a>(case: &Value, mut plain: &'a [u8]) -> Vec<&'a [u8]> {
        let writes = case["writes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| {
                let len = usize::try_from(w["write_len"].as_u64().unwrap()).unwrap();
                plain.split_off(..len).unwrap()
            })
            .collect();
        assert!(plain.is_empty());
        writes
    }

    #[test]
    fn vectors_are_encoded_byte_for_byte() {
        for case in cases() {
            let name = case["name"].as_str().unwrap();
            let plain = plain(&case);
            // Once whole, once in three pieces per frame: where the pieces are cut must not show.
            for pieces in [false, true] {
                let mut encoder = Encoder::new();
                let mut stream = Vec::new();
                for (i, write) in writes(&case, &plain).into_iter().enumerate() {
                    let before = stream.len();
                    let (a, rest) = write.split_at(write.len().min(8));
                    let (b, c) = rest.split_at(rest.len() / 3);
                    if pieces {
                        encoder.encode(&[a, b, &[], c], |piece| stream.extend_from_slice(piece));
                    } else {
                        encoder.encode(&[write], |piece| stream.extend_from_slice(piece));
                    }
                    // As many bytes as the real program wrote for this frame.
                    let expect: u64 = case["writes"][i]["socket_writes"]
                        .as_array()
                        .map_or(0, |lens| lens.iter().map(|l| l.as_u64().unwrap()).sum());
                    assert_eq!((stream.len() - before) as u64, expect, "{name}");
                }
                if case["stream_hex"].is_string() {
                    assert_eq!(to_hex(&stream), case["stream_hex"], "{name}");
                } else {
                    assert_eq!(stream.len() as u64, case["stream_len"], "{name}");
                    assert_eq!(
                        to_hex(&Sha256::digest(&stream)),
                        case["stream_sha256"].as_str().unwrap(),
                        "{name}"
                    );
                }
            }
        }
    }

    #[test]
    fn vectors_are_decoded() {
        for case in cases() {
            let plain = plain(&case);
            let mut stream = Vec::new();
            if case["stream_hex"].is_string() {
                stream = bytes(&case, "stream_hex");
            } else {
                let mut encoder = Encoder::new();
                for write in writes(&case, &plain) {
                    encoder.encode(&[write], |piece| stream.extend_from_slice(piece));
                }
            }
            for piece in [1, 2, 3, 7, 1376, stream.len()] {
                let mut decoder = Decoder::new();
                let mut got = Vec::new();
                for part in stream.chunks(piece) {
                    decoder
                        .decode(part, &mut |data| got.extend_from_slice(data))
                        .unwrap();
                }
                assert_eq!(got, plain, "{} by {piece}", case["name"]);
                assert!(!decoder.is_mid_chunk());
            }
        }
    }
}
