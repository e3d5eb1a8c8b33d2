//! Targets of `fulmar-codec`.

use fulmar_codec::snappy::{Decoder, Encoder, MAX_CHUNK};

use crate::input::Input;

/// The snappy decoder on a stream that arrives in pieces; the same stream in one piece must give the same.
///
/// Input: chunks, one per piece.
pub fn snappy_decoder(data: &[u8]) {
    let mut input = Input::new(data);
    let mut decoder = Decoder::new();
    let mut pieces = Vec::new();
    let mut result = Ok(());
    let mut whole = Vec::new();
    while let Some(piece) = input.chunk() {
        whole.extend_from_slice(piece);
        if result.is_ok() {
            result = decoder.decode(piece, &mut |out| {
                assert!(!out.is_empty() && out.len() <= MAX_CHUNK);
                pieces.extend_from_slice(out);
            });
        }
    }
    let mut at_once = Vec::new();
    let result_at_once = Decoder::new().decode(&whole, &mut |out| at_once.extend_from_slice(out));
    assert_eq!(result, result_at_once);
    assert_eq!(pieces, at_once);
}

/// The snappy encoder and decoder back to back on frames of any content.
///
/// Input: chunks, one per frame; a frame's first byte says where it is cut and how often it repeats.
pub fn snappy_roundtrip(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let (mut stream, mut got) = (Vec::new(), Vec::new());
    while let Some(chunk) = input.chunk() {
        let how = usize::from(chunk.first().copied().unwrap_or(0));
        let frame = chunk.repeat(1 + how % 8);
        let (head, body) = frame.split_at(how.min(frame.len()));
        stream.clear();
        got.clear();
        encoder.encode(&[head, body], |piece| stream.extend_from_slice(piece));
        assert!(stream.len() <= frame.len() + 8 * frame.len().div_ceil(MAX_CHUNK) + 10);
        let result = decoder.decode(&stream, &mut |out| got.extend_from_slice(out));
        assert_eq!(result, Ok(()));
        assert_eq!(got, frame);
        assert!(!decoder.is_mid_chunk());
        if how.is_multiple_of(5) {
            encoder.trim();
            decoder.trim();
        }
    }
}
