//! Takes keys out of the command line that other users of the machine see in the list of processes.
//!
//! Linux shows a process's arguments from the memory in which it got them, and lets the process write there through
//! `/proc/self/mem`. Nothing in the program refers to that memory: the standard library copies arguments when it is asked for
//! them, and [`main`](crate) has done so before. Until this has run, for some milliseconds, a key can be seen; `KCPTUN_KEY` and
//! `--key-file` show it at no time.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The flags whose values are hidden, without hyphens.
const SECRET: [&[u8]; 1] = [b"key"];
/// What stands in the place of each byte.
const HIDDEN: u8 = b'x';
/// Number of the field `arg_start` among those behind the name in `/proc/self/stat`.
const ARG_START: usize = 45;

/// Overwrites the values of flags that are keys, also where they are ignored.
///
/// # Errors
/// When the system does not let the process do so; then they stay.
pub(crate) fn hide_keys() -> io::Result<()> {
    let line = std::fs::read("/proc/self/cmdline")?;
    let values = values(&line);
    if values.is_empty() {
        return Ok(());
    }
    let unexpected = || io::Error::from(io::ErrorKind::InvalidData);
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name may have blanks and parentheses in it.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(unexpected)?;
    let start = fields.split_ascii_whitespace().nth(ARG_START);
    let start: u64 = start
        .and_then(|text| text.parse().ok())
        .filter(|start| *start != 0)
        .ok_or_else(unexpected)?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")?;
    if !is_at(&memory, start, &line)? {
        return Err(unexpected());
    }
    for value in values {
        memory.write_all_at(&vec![HIDDEN; value.len()], start + value.start as u64)?;
    }
    Ok(())
}

fn is_at(memory: &File, start: u64, line: &[u8]) -> io::Result<bool> {
    let mut there = vec![0; line.len()];
    memory.read_exact_at(&mut there, start)?;
    Ok(there == line)
}

/// Where in `line`, arguments that end in NUL, the values of secret flags are.
fn values(line: &[u8]) -> Vec<Range<usize>> {
    let mut values = Vec::new();
    let mut at = 0;
    let mut follows = false;
    for arg in line.split(|b| *b == 0) {
        let hyphens = arg.iter().take_while(|b| **b == b'-').count();
        let body = &arg[hyphens..];
        let name_len = body.iter().position(|b| *b == b'=');
        let is_secret = hyphens > 0 && SECRET.contains(&&body[..name_len.unwrap_or(body.len())]);
        match name_len {
            _ if follows => {
                values.push(at..at + arg.len());
                follows = false;
            }
            Some(len) if is_secret => values.push(at + hyphens + len + 1..at + arg.len()),
            _ => follows = is_secret,
        }
        at += arg.len() + 1;
    }
    values.retain(|value| !value.is_empty());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_bytes_are_hidden() {
        for (args, hidden) in [
            (&["x", "--key", "abc", "--mtu", "9"][..], &["abc"][..]),
            (&["x", "-key=a=b", "--key", "--key", "z"], &["a=b", "--key"]),
            (&["x", "oops", "--key", "abc"], &["abc"]),
            (&["x", "--key-file", "f", "key", "k"], &[]),
            (&["x", "--key="], &[]),
            (&["x", "--key"], &[]),
        ] {
            let line: Vec<u8> = args.iter().flat_map(|arg| arg.bytes().chain([0])).collect();
            let found: Vec<_> = values(&line)
                .into_iter()
                .map(|value| std::str::from_utf8(&line[value]).expect("text"))
                .collect();
            assert_eq!(found, hidden, "{args:?}");
        }
    }
}
