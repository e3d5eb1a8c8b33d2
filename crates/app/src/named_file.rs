//! Configuration files by a name without its end: a service has the name of an instance, and not of a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::exit::Exit;

/// What may be added to a name.
const ENDS: [&str; 2] = [".json", ".toml"];

/// The file that `path` means: itself, or else the one that has the same name with `.json` or `.toml`. A path that means none is
/// given back; who opens it says what is wrong.
///
/// # Errors
/// When there are two.
pub(crate) fn find(path: &Path) -> Result<PathBuf, Exit> {
    if path.symlink_metadata().is_ok() {
        return Ok(path.to_owned());
    }
    let with = |end: &str| {
        let mut name = OsString::from(path);
        name.push(end);
        PathBuf::from(name)
    };
    let there: Vec<_> = ENDS.map(with).into_iter().filter(|p| p.exists()).collect();
    match &there[..] {
        [] => Ok(path.to_owned()),
        [file] => Ok(file.clone()),
        _ => Err(Exit::usage(format!(
            "{} and {} are both there; name one of them",
            fulmar_config::text::path(&there[0]),
            fulmar_config::text::path(&there[1])
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_file() {
        let dir = tempfile::tempdir().expect("dir");
        let at = |name: &str| dir.path().join(name);
        assert_eq!(find(&at("office")).expect("itself"), at("office"));
        std::fs::write(at("office.toml"), "").expect("written");
        assert_eq!(find(&at("office")).expect("toml"), at("office.toml"));
        assert_eq!(find(&at("office.toml")).expect("itself"), at("office.toml"));
        std::fs::write(at("office.json"), "").expect("written");
        assert!(find(&at("office")).is_err());
        std::fs::write(at("office"), "").expect("written");
        assert_eq!(find(&at("office")).expect("itself"), at("office"));
    }
}
