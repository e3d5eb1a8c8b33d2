//! A package of the release build: what it is compiled with, what it consists of, and what must not be in it.
//!
//! Two things do not belong into a program that others install: symbols, and paths of the machine that built it. The
//! first is a matter of the profile in Cargo.toml, the second of `--remap-path-prefix`. Both are looked for in the
//! finished file, since neither fails when it has no effect.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Builds, checks and packs. Everything is made in `dist`; the result is the path of the archive.
pub(crate) fn package(root: &Path, dist: &Path, mut cargo: Command) -> Result<PathBuf, String> {
    let build = dist.join("build");
    let places = places(root)?;
    cargo
        .args(["build", "--release", "--locked", "--package", "fulmar"])
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&places));
    run(&mut cargo)?;
    let program = build
        .join("release")
        .join(format!("fulmar{}", env::consts::EXE_SUFFIX));
    let bytes = fs::read(&program).map_err(|e| format!("{}: {e}", program.display()))?;
    let faults = faults(&bytes, &places);
    if !faults.is_empty() {
        return Err(faults.join("; "));
    }
    println!("{}: {} bytes", program.display(), bytes.len());

    let name = format!("fulmar-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let folder = dist.join(&name);
    fill(root, &folder, &program)?;
    let archive = dist.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&archive).arg("-C").arg(dist).arg(&name);
    run(&mut tar)?;
    Ok(archive)
}

/// Puts everything that is installed into `folder`.
fn fill(root: &Path, folder: &Path, program: &Path) -> Result<(), String> {
    let said = |e: std::io::Error| format!("{}: {e}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(said)?;
    }
    for sub in ["man", "completions", "systemd"] {
        fs::create_dir_all(folder.join(sub)).map_err(said)?;
    }
    let file = program.file_name().unwrap_or(OsStr::new("fulmar"));
    fs::copy(program, folder.join(file)).map_err(said)?;
    for (from, to) in [
        ("README.md", "README.md"),
        ("CHANGELOG.md", "CHANGELOG.md"),
        ("LICENSE-MIT", "LICENSE-MIT"),
        ("LICENSE-APACHE", "LICENSE-APACHE"),
        ("contrib/fulmar@.service", "systemd/fulmar@.service"),
    ] {
        fs::copy(root.join(from), folder.join(to)).map_err(|e| format!("{from}: {e}"))?;
    }
    run(Command::new(program)
        .args(["man", "--dir"])
        .arg(folder.join("man")))?;
    for (shell, to) in [
        ("bash", "fulmar.bash"),
        ("zsh", "_fulmar"),
        ("fish", "fulmar.fish"),
    ] {
        let output = Command::new(program).args(["completions", shell]).output();
        let script = output.map_err(|e| format!("{}: {e}", program.display()))?;
        if !script.status.success() {
            return Err(format!("completions {shell}: {}", script.status));
        }
        fs::write(folder.join("completions").join(to), script.stdout).map_err(said)?;
    }
    Ok(())
}

/// Paths of this machine, and what the program says in their place. The most particular one comes last: rustc goes by
/// the last that fits.
fn places(root: &Path) -> Result<Vec<(PathBuf, &'static str)>, String> {
    let mut places = Vec::new();
    let home = env::var_os("HOME")
        .or_else(|| env::var_os("USERPROFILE"))
        .map(PathBuf::from);
    if let Some(home) = home.clone().filter(|home| home.components().count() > 1) {
        places.push((home, "/home"));
    }
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(cargo) = cargo_home.or_else(|| Some(home?.join(".cargo"))) {
        places.push((cargo, "/cargo"));
    }
    let sysroot = output("rustc", &["--print", "sysroot"])?;
    places.push((PathBuf::from(sysroot.trim()), "/rust"));
    places.push((root.to_path_buf(), "/fulmar"));
    Ok(places)
}

/// Flags for rustc, in the form of `CARGO_ENCODED_RUSTFLAGS`: those of the environment, then ours.
fn flags(places: &[(PathBuf, &'static str)]) -> OsString {
    let mut flags: Vec<OsString> = match (
        env::var_os("CARGO_ENCODED_RUSTFLAGS"),
        env::var_os("RUSTFLAGS"),
    ) {
        (Some(encoded), _) => vec![encoded],
        (None, Some(plain)) => {
            let plain = plain.to_string_lossy().into_owned();
            plain.split_ascii_whitespace().map(Into::into).collect()
        }
        (None, None) => Vec::new(),
    };
    flags.retain(|flag| !flag.is_empty());
    for (path, to) in places {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(path);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    flags.join(OsStr::new("\u{1f}"))
}

/// What is in a finished program that does not belong there.
fn faults(program: &[u8], places: &[(PathBuf, &'static str)]) -> Vec<String> {
    let mut faults = Vec::new();
    // The name is in the table of section names, which lists a section only if there is one.
    if program.starts_with(b"\x7fELF") && contains(program, b"\0.symtab\0") {
        faults.push("it has symbols: `strip` in Cargo.toml does not reach it".to_owned());
    }
    for (path, _) in places {
        let mut path = path.as_os_str().as_encoded_bytes().to_vec();
        path.push(b'/');
        if contains(program, &path) {
            faults.push(format!("it has {} in it", String::from_utf8_lossy(&path)));
        }
    }
    faults
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The target that rustc compiles for when it is told none.
fn host() -> Result<String, String> {
    let text = output("rustc", &["-vV"])?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc -vV names no host")?.to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    String::from_utf8(output.stdout).map_err(|e| format!("{program}: {e}"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{program}: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package's own entry in a profile does not inherit `strip`, and Cargo says nothing about it.
    #[test]
    fn strip_reaches_the_program_through_its_own_entry() {
        fn strip(text: &str) -> Option<&str> {
            let (_, value) = text.split_once("strip = ")?;
            value.split([',', ' ', '\n', '}']).next()
        }
        let manifest = include_str!("../../Cargo.toml");
        let section = |name: &str| {
            let (_, rest) = manifest.split_once(&format!("\n[{name}]\n"))?;
            Some(rest.split("\n[").next().unwrap_or(rest))
        };
        let mut entries = 0;
        for profile in ["dev", "release", "bench", "test"] {
            let packages = section(&format!("profile.{profile}.package")).unwrap_or_default();
            if let Some(own) = packages.lines().find(|line| line.starts_with("fulmar = ")) {
                let whole = section(&format!("profile.{profile}")).and_then(strip);
                assert_eq!(strip(own), whole, "profile {profile}");
                entries += 1;
            }
        }
        assert!(entries > 0, "nothing compared");
        assert_eq!(section("profile.release").and_then(strip), Some("true"));
    }

    #[test]
    fn symbols_and_paths_of_the_machine_are_found() {
        let places = [(PathBuf::from("/home/somebody"), "/home")];
        let mut program = b"\x7fELF... /home/somebodyelse/x \0.text\0.shstrtab\0".to_vec();
        assert_eq!(faults(&program, &places), Vec::<String>::new());
        program.extend(b".symtab\0");
        program.extend(b"/home/somebody/fulmar/src/main.rs");
        assert_eq!(faults(&program, &places).len(), 2);
    }

    /// This very test program is built without stripping and without other names for paths.
    #[test]
    fn a_program_that_is_not_made_for_a_package_is_refused() {
        let here = fs::read(env::current_exe().expect("name")).expect("program");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("root");
        let faults = faults(&here, &[(root.to_path_buf(), "/fulmar")]);
        assert!(
            faults.iter().any(|fault| fault.contains("in it")),
            "{faults:?}"
        );
        if cfg!(target_os = "linux") {
            assert!(
                faults.iter().any(|fault| fault.contains("symbols")),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn flags_of_the_environment_stay() {
        let flags = flags(&[(PathBuf::from("/a b"), "/x"), (PathBuf::from("/c"), "/y")]);
        let flags = flags.into_string().expect("text");
        assert!(
            flags.ends_with("--remap-path-prefix=/a b=/x\u{1f}--remap-path-prefix=/c=/y"),
            "{flags:?}"
        );
    }
}
