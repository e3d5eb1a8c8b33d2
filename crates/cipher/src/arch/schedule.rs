//! The AES key schedule, around an instruction that substitutes bytes in constant time.

use zeroize::Zeroizing;

/// Round keys of AES-256; smaller keys have fewer.
pub(crate) const MAX_KEYS: usize = 15;

/// The `R + 1` round keys of an AES key of `4 * (R - 6)` bytes, zeros behind them. `R` is 10, 12 or 14;
/// `sub_word` puts each byte of a word through the S-box.
pub(crate) fn expand<const R: usize>(
    key: &[u8],
    sub_word: impl Fn(u32) -> u32,
) -> Zeroizing<[[u8; 16]; MAX_KEYS]> {
    const { assert!(R == 10 || R == 12 || R == 14) };
    let key_words = R - 6;
    let mut words = Zeroizing::new([0u32; 4 * MAX_KEYS]);
    for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut round_constant = 1u32;
    for i in key_words..4 * (R + 1) {
        let mut word = words[i - 1];
        if i % key_words == 0 {
            word = sub_word(word.rotate_right(8)) ^ round_constant;
            // Doubling in the field of AES.
            round_constant = (round_constant << 1) ^ ((round_constant >> 7) * 0x11B);
        } else if key_words == 8 && i % key_words == 4 {
            word = sub_word(word);
        }
        words[i] = words[i - key_words] ^ word;
    }
    let mut keys = Zeroizing::new([[0; 16]; MAX_KEYS]);
    for (bytes, word) in keys
        .as_flattened_mut()
        .as_chunks_mut()
        .0
        .iter_mut()
        .zip(words.iter())
    {
        *bytes = word.to_le_bytes();
    }
    keys
}
