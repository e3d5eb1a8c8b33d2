//! Entry points: a file becomes a checked configuration, of kcptun-libev or of whichever program it is.

use std::path::Path;

use crate::json::{self, Top, Value};
use crate::kcptun_file;
use crate::libev::file::LibevFile;
use crate::libev::model::LibevRole;
use crate::libev::resolve::{LibevLoaded, resolve};
use crate::load::{self, Environment};
use crate::options::Side;
use crate::problem::{Failure, Place, Problem};
use crate::resolve::Loaded;
use crate::services;

/// Reads kcptun-libev's configuration file at `path`.
///
/// # Errors
/// Every mistake of the file and its values, found before anything is opened but files.
pub fn libev_from_file(path: &Path) -> Result<LibevLoaded, Failure> {
    libev_from_bytes(path, &kcptun_file::read(path)?)
}

/// As [`libev_from_file`], for a file whose content has been read already; `path` is what messages call it.
///
/// Names of services are looked up on this machine.
///
/// # Errors
/// Every mistake of the file and its values.
pub fn libev_from_bytes(path: &Path, content: &[u8]) -> Result<LibevLoaded, Failure> {
    resolve(LibevFile::parse(path, content)?, &services::system)
}

/// Whose file it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// kcptun's.
    Kcptun,
    /// kcptun-libev's.
    Libev,
}

/// Whose file `content` is, by its keys. Kcptun's if it does not tell, also when it is no JSON.
#[must_use]
pub fn recognise(content: &[u8]) -> Dialect {
    /// Nobody but kcptun-libev has these.
    const LIBEV: [&str; 5] = [
        "kcp_bind",
        "kcp_connect",
        "udp_bind",
        "udp_connect",
        "rendezvous_server",
    ];
    /// Nobody but kcptun has these.
    const KCPTUN: [&str; 6] = [
        "localaddr",
        "remoteaddr",
        "target",
        "crypt",
        "key",
        "compat",
    ];
    /// Neither has kcptun these, but they do not make a configuration.
    const LIBEV_BESIDES: [&str; 10] = [
        "connect",
        "http_listen",
        "service_id",
        "method",
        "password",
        "psk",
        "obfs",
        "time_wait",
        "loglevel",
        "netdev",
    ];
    let (content, _) = json::without_mark(content);
    let Ok(document) = json::read(content) else {
        return Dialect::Kcptun;
    };
    let Top::Object(members) = document.top else {
        return Dialect::Kcptun;
    };
    let has = |keys: &[&str]| members.iter().any(|m| keys.contains(&m.key.as_str()));
    // Kcptun's keys count without case.
    let kcptun = members
        .iter()
        .any(|m| KCPTUN.iter().any(|key| m.key.eq_ignore_ascii_case(key)));
    let objects = members.iter().any(|m| {
        matches!(m.value, Value::Object(_))
            && matches!(m.key.as_str(), "kcp" | "tcp" | "udp" | "fulmar")
    });
    if has(&LIBEV) || (!kcptun && (objects || has(&LIBEV_BESIDES))) {
        Dialect::Libev
    } else {
        Dialect::Kcptun
    }
}

/// A configuration of either program.
#[derive(Clone, PartialEq, Debug)]
pub enum AnyLoaded {
    /// kcptun's.
    Kcptun(Box<Loaded>),
    /// kcptun-libev's.
    Libev(Box<LibevLoaded>),
}

/// Reads the configuration file at `path`, whosever it is; without `side` its content also tells which end it is for.
///
/// # Errors
/// Every mistake of the file and its values, found before anything is opened but files; and a file of kcptun-libev that is
/// not for `side`.
pub fn any_from_file(
    path: &Path,
    side: Option<Side>,
    environment: &Environment,
) -> Result<AnyLoaded, Failure> {
    any_from_bytes(path, &kcptun_file::read(path)?, side, environment)
}

/// As [`any_from_file`], for a file whose content has been read already; `path` is what messages call it.
///
/// # Errors
/// As [`any_from_file`].
pub fn any_from_bytes(
    path: &Path,
    content: &[u8],
    side: Option<Side>,
    environment: &Environment,
) -> Result<AnyLoaded, Failure> {
    if recognise(content) == Dialect::Kcptun {
        let loaded = load::from_bytes(path, content, side, environment)?;
        return Ok(AnyLoaded::Kcptun(Box::new(loaded)));
    }
    let mut loaded = libev_from_bytes(path, content)?;
    let fits = match (&loaded.config.role, side) {
        (_, None)
        | (LibevRole::Client { .. }, Some(Side::Client))
        | (LibevRole::Server { .. }, Some(Side::Server)) => true,
        (_, Some(_)) => false,
    };
    if !fits {
        let place = Place::File {
            path: path.into(),
            at: None,
        };
        let what = format!(
            "the file is a kcptun-libev {}'s, and another role was asked for",
            loaded.config.role.name()
        );
        loaded
            .problems
            .push(Problem::error(place, what).hint("leave out --role"));
        return Err(Failure {
            problems: loaded.problems,
        });
    }
    Ok(AnyLoaded::Libev(Box::new(loaded)))
}
