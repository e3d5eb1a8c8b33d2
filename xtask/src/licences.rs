//! The licence of every package in the lock file, against the list in deny.toml.
//!
//! cargo-deny checks more, but has to be installed; this part works with cargo alone. Both read the same list.

use serde_json::Value;

/// The licences that deny.toml allows: the strings of `allow = [...]` under `[licenses]`.
pub(crate) fn allowed(deny_toml: &str) -> Vec<String> {
    let section = deny_toml.split("[licenses]").nth(1).unwrap_or_default();
    let list = section
        .split_once("allow = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    list.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split(','))
        .map(|item| item.trim().trim_matches('"').to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

/// Names, versions and licences of the packages that are not permitted, from `cargo metadata`.
///
/// # Errors
/// When the metadata cannot be read.
pub(crate) fn refused(metadata: &str, allowed: &[String]) -> Result<Vec<String>, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|e| e.to_string())?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("no packages in cargo metadata")?;
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    Ok(packages
        .iter()
        .filter(|package| !permits(&text(package, "license"), allowed))
        .map(|package| {
            let licence = text(package, "license");
            let licence = if licence.is_empty() {
                "no licence named".to_owned()
            } else {
                licence
            };
            format!(
                "{} {}: {licence}",
                text(package, "name"),
                text(package, "version")
            )
        })
        .collect())
}

/// True when an SPDX expression can be satisfied with allowed licences only.
pub(crate) fn permits(expression: &str, allowed: &[String]) -> bool {
    // The slash is the old way of writing OR.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_ascii_whitespace().collect();
    let mut at = 0;
    let ok = either(&words, &mut at, allowed);
    ok == Some(true) && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut ok = all(words, at, allowed)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        ok |= all(words, at, allowed)?;
    }
    Some(ok)
}

fn all(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut ok = one(words, at, allowed)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        ok &= one(words, at, allowed)?;
    }
    Some(ok)
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let ok = either(words, at, allowed)?;
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return closed.then_some(ok);
    }
    let mut name = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{word} WITH {}", words.get(*at + 1)?);
        *at += 2;
    }
    Some(allowed.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<String> {
        [
            "MIT",
            "Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn expressions() {
        for yes in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
            "(GPL-3.0 OR (MIT AND Apache-2.0))",
        ] {
            assert!(permits(yes, &list()), "{yes}");
        }
        for no in [
            "",
            "GPL-3.0",
            "LGPL-2.1-or-later",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND ISC",
            "MIT WITH some-exception",
            "(MIT",
            "MIT OR",
            "MIT)",
            "AND",
        ] {
            assert!(!permits(no, &list()), "{no}");
        }
    }

    #[test]
    fn the_list_is_read_from_the_file() {
        let toml = "[advisories]\nx = []\n[licenses]\n# comment\nallow = [\n  \"MIT\", # why\n  \"ISC\",\n]\n[bans]\n";
        assert_eq!(allowed(toml), ["MIT", "ISC"]);
        let real = allowed(include_str!("../../deny.toml"));
        assert!(real.contains(&"Apache-2.0".to_owned()) && real.len() > 5);
        assert!(real.iter().all(|l| !l.contains("GPL")));
    }

    #[test]
    fn packages_without_permission_are_named() {
        let metadata = r#"{"packages":[
            {"name":"a","version":"1.0.0","license":"MIT"},
            {"name":"b","version":"2.0.0","license":"GPL-3.0"},
            {"name":"c","version":"3.0.0","license":null}]}"#;
        assert_eq!(
            refused(metadata, &list()).unwrap(),
            ["b 2.0.0: GPL-3.0", "c 3.0.0: no licence named"]
        );
        assert!(refused("{}", &list()).is_err());
    }
}
