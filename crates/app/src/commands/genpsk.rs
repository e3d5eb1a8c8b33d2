//! `fulmar genpsk`: a random pre-shared key.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use fulmar_config::hint::nearest;
use fulmar_config::text;
use fulmar_wire::kcptun::Method;
use fulmar_wire::libev;

use crate::exit::{Exit, print};

/// Random bytes in an ordinary key: as many as the longest cipher key has.
const ORDINARY: usize = 32;
/// Random bytes in a key for QPP, which wants 211 characters.
const LONG: usize = 159;

/// Makes a key of printable characters for `method`; into a new file, or with a line end to standard output.
pub(crate) fn genpsk(method: Option<&str>, out: Option<&PathBuf>) -> Result<(), Exit> {
    // kcptun-libev wants base64 as it is in its "psk".
    if method.and_then(libev::Method::from_name).is_some() {
        return give(&super::libev::random_psk()?, out);
    }
    let random = match method {
        Some("qpp" | "QPP") => LONG,
        Some(name) if name != "auto" && Method::from_name(name).is_none() => {
            let names = Method::ALL
                .into_iter()
                .map(Method::name)
                .chain(["qpp"])
                .chain(libev::Method::SEALED.map(libev::Method::name));
            let hint = match nearest(name, names.clone()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("write one of {}", names.collect::<Vec<_>>().join(", ")),
            };
            return Err(Exit::usage(format!(
                "genpsk: {} is no cipher; {hint}",
                text::quoted(name)
            )));
        }
        _ => ORDINARY,
    };
    let mut bytes = vec![0; random];
    getrandom::fill(&mut bytes)
        .map_err(|e| Exit::failed(format!("the system gives no randomness: {e}")))?;
    give(&printable(&bytes), out)
}

/// Into a new file, or with a line end to standard output.
fn give(key: &str, out: Option<&PathBuf>) -> Result<(), Exit> {
    match out {
        None => print(&format!("{key}\n")),
        // Without a line end: every byte of a key file is part of the key.
        Some(path) => write_new(path, key)
            .map_err(|e| Exit::failed(format!("{} cannot be written: {e}", text::path(path)))),
    }
}

fn write_new(path: &PathBuf, key: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)?.write_all(key.as_bytes())
}

/// Base 64 for file names and shells: six bits per character, no padding.
fn printable(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let word = chunk
                .iter()
                .chain([&0, &0])
                .take(3)
                .fold(0, |word, byte| word << 8 | usize::from(*byte));
            (0..=chunk.len()).map(move |i| char::from(ALPHABET[word >> (18 - 6 * i) & 63]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xff\xbf", "-_-_"),
        ] {
            assert_eq!(printable(bytes), text);
        }
        assert_eq!(printable(&[0; ORDINARY]).len(), 43);
        assert!(printable(&[0; LONG]).len() >= 211);
    }
}
