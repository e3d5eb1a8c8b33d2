//! What all front ends write into: one raw value per option, the last writer wins, and everybody signs.

use core::fmt;
use std::ffi::OsString;

use fulmar_wire::kcptun2016::Variant;
use zeroize::Zeroize;

use crate::golang;
use crate::hint::nearest;
use crate::options::{self, Id, Kind, Opt, Preset, Side, TABLE, first};
use crate::origin::{Origin, Program};
use crate::problem::{Place, Problem};
use crate::text::quoted;

/// A value of the right type, its range not yet checked.
///
/// Its text may be the key: [`fmt::Debug`] does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Raw {
    Text(OsString),
    Int(i64),
    Bool(bool),
}

impl Raw {
    fn wipe(self) {
        if let Self::Text(text) = self {
            text.into_encoded_bytes().zeroize();
        }
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Int(n) => write!(f, "Int({n})"),
            Self::Bool(on) => write!(f, "Bool({on})"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) raw: Raw,
    pub(crate) origin: Origin,
}

/// The values of one side. Layers are applied in order of precedence, lowest first.
#[derive(Debug)]
pub(crate) struct Values {
    side: Side,
    slots: Vec<Given>,
    /// Addresses that a server listens on besides the one of its option.
    also: Vec<String>,
}

/// One of them is the key.
impl Drop for Values {
    fn drop(&mut self) {
        for given in self.slots.drain(..) {
            given.raw.wipe();
        }
    }
}

impl Values {
    /// The defaults of `side`. The shadowsocks plugins of kcptun speak smux 1 unless told otherwise.
    pub(crate) fn defaults(side: Side, plugin: bool) -> Self {
        let slots = TABLE
            .iter()
            .map(|opt| Given {
                raw: raw(opt.preset(side)),
                origin: Origin::Default(opt.program),
            })
            .collect();
        let mut values = Self {
            side,
            slots,
            also: Vec::new(),
        };
        if plugin {
            values.set(
                Id::SmuxVer,
                Raw::Int(1),
                Origin::Default(Program::KcptunPlugin),
            );
        }
        values
    }

    /// The variant that `--compat` asks for; `None`: today's kcptun, or an unknown name.
    pub(crate) fn compat(&self) -> Option<Variant> {
        match &self.given(Id::Compat).raw {
            Raw::Text(name) => first::variant(name.to_str()?),
            _ => None,
        }
    }

    /// With `--compat`, replaces the defaults that nobody has overridden by those of 2016.
    pub(crate) fn settle_defaults(&mut self) {
        if self.compat().is_none() {
            return;
        }
        for opt in &TABLE {
            let preset = first::preset(opt, self.side);
            if self.given(opt.id).origin.is_default() && preset != opt.preset(self.side) {
                let origin = Origin::Default(Program::KcptunFirst);
                self.set(opt.id, raw(preset), origin);
            }
        }
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    pub(crate) fn set(&mut self, id: Id, raw: Raw, origin: Origin) {
        let old = std::mem::replace(&mut self.slots[id as usize], Given { raw, origin });
        old.raw.wipe();
    }

    /// Further addresses to listen on, instead of those given before.
    pub(crate) fn listen_also(&mut self, addresses: Vec<String>) {
        self.also = addresses;
    }

    /// Addresses to listen on besides that of [`Id::Listen`].
    pub(crate) fn also(&self) -> &[String] {
        &self.also
    }

    pub(crate) fn given(&self, id: Id) -> &Given {
        &self.slots[id as usize]
    }

    /// Reads `text` as a value of `opt`, as a flag or a plugin option gives it, and sets it.
    pub(crate) fn set_text(
        &mut self,
        opt: &'static Opt,
        text: OsString,
        origin: Origin,
    ) -> Result<(), Problem> {
        let raw = match opt.kind {
            Kind::Text | Kind::Name { .. } | Kind::Path => Raw::Text(text),
            Kind::Int { .. } => match text.to_str().and_then(golang::parse_int) {
                Some(n) => Raw::Int(n),
                None => return Err(unreadable(opt, &text, origin, "not a whole number")),
            },
            Kind::Bool => match text.to_str().and_then(golang::parse_bool) {
                Some(on) => Raw::Bool(on),
                None => return Err(unreadable(opt, &text, origin, "neither true nor false")),
            },
        };
        self.set(opt.id, raw, origin);
        Ok(())
    }
}

fn raw(preset: Preset) -> Raw {
    match preset {
        Preset::Text(text) => Raw::Text(text.into()),
        Preset::Int(n) => Raw::Int(n),
        Preset::Off => Raw::Bool(false),
    }
}

fn unreadable(opt: &Opt, text: &OsString, origin: Origin, what: &str) -> Problem {
    Problem::error(Place::Value(origin), format!("{} is {what}", quoted(text))).hint(wanted(opt))
}

/// What may be written for `opt`, as the hint of an error.
pub(crate) fn wanted(opt: &Opt) -> String {
    match opt.kind {
        Kind::Text => "write a text".into(),
        Kind::Name { names, .. } => format!("write one of {}", names.join(", ")),
        Kind::Path => "write the path of a file".into(),
        Kind::Int { min, max, unit } => {
            format!("write {min} to {max} {unit}").trim_end().to_owned()
        }
        Kind::Bool => "write true or false".into(),
    }
}

/// The option of `side` that a misspelt `name` most likely means; flags and JSON keys both count.
pub(crate) fn meant(side: Side, name: &str) -> Option<&'static Opt> {
    let names: Vec<_> = options::of(side)
        .flat_map(|opt| opt.flags().chain(opt.key).map(move |name| (name, opt)))
        .collect();
    let find = |name| {
        names
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, opt)| *opt)
    };
    // Of names of one or two letters everything is near.
    let long = names
        .iter()
        .map(|(known, _)| *known)
        .filter(|known| known.len() > 2);
    find(name)
        .or_else(|| nearest(name, long.clone()).and_then(find))
        .or_else(|| beginning(name, long).and_then(find))
}

/// The only one of `names` that begins with `word`, as `remote` for `remoteaddr`.
fn beginning<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const SHORTEST: usize = 3;
    let mut fitting = names.filter(|name| word.len() >= SHORTEST && name.starts_with(word));
    let first = fitting.next()?;
    // A flag and its key are often the same.
    fitting.all(|name| name == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_defaults_to_smux_1() {
        let version = |plugin| {
            Values::defaults(Side::Client, plugin)
                .given(Id::SmuxVer)
                .raw
                .clone()
        };
        assert_eq!((version(false), version(true)), (Raw::Int(2), Raw::Int(1)));
    }

    #[test]
    fn misspelt_names() {
        let name = |side, word| meant(side, word).map(|opt| opt.flag);
        assert_eq!(name(Side::Client, "QPPCount"), Some("QPPCount"));
        assert_eq!(name(Side::Client, "ds"), Some("datashard"));
        assert_eq!(name(Side::Client, "local-addr"), Some("localaddr"));
        assert_eq!(name(Side::Server, "localaddr"), None);
        assert_eq!(name(Side::Server, "xyzzy"), None);
        assert_eq!(name(Side::Client, "remote"), Some("remoteaddr"));
        assert_eq!(name(Side::Client, "snmp"), None);
    }
}
