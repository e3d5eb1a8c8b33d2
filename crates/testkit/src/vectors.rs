//! Loads the golden vectors: bytes that the replaced programs produced.
//!
//! They lie under `vectors/` of this crate, one folder per dialect; each file is one JSON object with a
//! `description`. Byte strings are lower-case hex.

use std::path::PathBuf;

pub use serde_json::Value;

/// The file `name` (for instance `kcptun/mtu.json`).
///
/// # Panics
/// When the file is missing or is not JSON: a test without its vectors has to fail.
#[must_use]
pub fn load(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The bytes of a hex string.
///
/// # Panics
/// On anything that is not hex.
#[must_use]
pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hex");
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex digit"))
        .collect()
}

/// The bytes of the hex string in field `key` of `v`.
///
/// # Panics
/// When the field is missing or is not hex.
#[must_use]
pub fn bytes(v: &Value, key: &str) -> Vec<u8> {
    hex(v[key]
        .as_str()
        .unwrap_or_else(|| panic!("no string {key} in {v}")))
}

/// Lower-case hex of `bytes`.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// `n` test bytes from `seed`: the 32-bit xorshift that the vectors name `xs(seed,n)`.
#[must_use]
pub fn xs(seed: u32, n: usize) -> Vec<u8> {
    let mut x = if seed == 0 { 1 } else { seed };
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x.to_le_bytes()[0]
        })
        .collect()
}
