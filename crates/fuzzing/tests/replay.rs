//! Replays the committed corpora of all fuzz targets, and inputs that are like them.
//!
//! A crash that fuzzing finds is committed as a file of the corpus, and stays fixed because of this test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fulmar_fuzzing::{TARGETS, Target};
use fulmar_netem::Rng;
use fulmar_testkit::vectors::to_hex;

/// Inputs per target besides the corpus: as many as take a fraction of a second.
const MUTATED: usize = 5000;
const RANDOM: usize = 1000;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The corpus of a target, in the order of file names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = fuzz_dir().join("corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|f| fs::read(f).unwrap()).collect()
}

/// Runs a target on an input; what made it fail is in the message.
fn run(target: Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        panic!("{} fails on input {}", target.name, to_hex(input));
    }
}

fn replay(name: &str) {
    let target = *TARGETS.iter().find(|t| t.name == name).unwrap();
    let corpus = corpus(name);
    assert!(corpus.len() >= 5, "{name} has too few seeds");
    for input in &corpus {
        run(target, input);
    }
    // The name makes the seed, so that targets do not all see the same.
    let seed = name
        .bytes()
        .fold(0, |s: u64, b| s.wrapping_mul(31) + u64::from(b));
    let mut rng = Rng::new(seed);
    for _ in 0..MUTATED {
        run(target, &mutated(&mut rng, &corpus));
    }
    for _ in 0..RANDOM {
        let mut input = vec![0; below(&mut rng, 300)];
        rng.fill(&mut input);
        run(target, &input);
    }
}

fn below(rng: &mut Rng, n: usize) -> usize {
    usize::try_from(rng.below(n as u64)).unwrap()
}

/// An input of the corpus with one to eight things changed.
fn mutated(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[below(rng, corpus.len())].clone();
    for _ in 0..=below(rng, 8) {
        let at = below(rng, input.len() + 1);
        let end = (at + below(rng, 32)).min(input.len());
        match rng.below(7) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
            2 => {
                // A number at the edge of its range, one, two or four bytes wide.
                let value = [0, 1, 0x7f, 0x80, 0xff][below(rng, 5)];
                let width = 1 << rng.below(3);
                for byte in input.iter_mut().skip(at).take(width) {
                    *byte = value;
                }
            }
            3 => input.truncate(at),
            4 => drop(input.drain(at..end)),
            5 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            _ => {
                let other = &corpus[below(rng, corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[below(rng, other.len() + 1)..]);
            }
        }
    }
    input
}

macro_rules! replay_each {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*
    };
}
fulmar_fuzzing::for_each_target!(replay_each);

#[test]
fn every_corpus_has_a_target_and_is_small() {
    for entry in fs::read_dir(fuzz_dir().join("corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|t| t.name == name), "corpus of {name}");
        for input in corpus(&name) {
            assert!(input.len() <= 64 * 1024, "{name} has a huge input");
        }
    }
}

/// The fuzz workspace is not built with the others. Its stubs are so short that comparing is as good.
#[test]
fn stubs_match_the_targets() {
    let dir = fuzz_dir();
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        let stub = fs::read_to_string(dir.join(format!("fuzz_targets/{name}.rs")))
            .unwrap_or_else(|e| panic!("stub of {name}: {e}"));
        assert_eq!(
            stub,
            format!(
                "#![no_main]\nlibfuzzer_sys::fuzz_target!(|data: &[u8]| fulmar_fuzzing::{name}(data));\n"
            )
        );
        let entry = format!(
            "[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\ntest = false\ndoc = false\nbench = false\n"
        );
        assert!(manifest.contains(&entry), "fuzz/Cargo.toml lacks\n{entry}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    assert_eq!(
        fs::read_dir(dir.join("fuzz_targets")).unwrap().count(),
        TARGETS.len()
    );
}
