//! What becomes of a configuration that is read again: which settings have changed, and when each takes effect.
//!
//! The lists take the models apart field by field, so that a new setting does not compile before somebody has said what a reload does
//! with it.

mod kcptun;
mod libev;

use std::fmt;

use fulmar_config::{Origin, Provenance};
use tokio::sync::oneshot;

pub(crate) use kcptun::changes as kcptun_changes;
pub(crate) use libev::changes as libev_changes;

/// A configuration that was read again, and where to tell what became of it: what has changed, or why nothing is taken over.
pub type Reload<C> = (C, oneshot::Sender<Result<Vec<Change>, String>>);

/// A setting that has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its key, as spelled in the file or on the command line, without dashes.
    pub key: String,
    /// When it takes effect.
    pub effect: Effect,
}

/// When a changed setting takes effect.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It has.
    Now,
    /// New connections have it; open ones go on as they are.
    NewConnections,
    /// When the socket of the tunnel is opened the next time.
    NextSocket,
    /// It was not taken over.
    NextStart,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match self.effect {
            Effect::Now => "in effect",
            Effect::NewConnections => "in effect for new connections",
            Effect::NextSocket => "takes effect with the next UDP socket",
            Effect::NextStart => "takes effect at the next start",
        };
        write!(f, "{} changed: {effect}", self.key)
    }
}

/// Collects changes.
struct Changes<'a> {
    old: &'a Provenance,
    new: &'a Provenance,
    found: Vec<Change>,
}

impl<'a> Changes<'a> {
    fn new(old: &'a Provenance, new: &'a Provenance) -> Self {
        let found = Vec::new();
        Self { old, new, found }
    }

    /// Notes the setting `name` if its value has changed.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "references and small values alike"
    )]
    fn note<T: PartialEq>(&mut self, name: &str, old: T, new: T, effect: Effect) {
        if old != new {
            let key = self.spelled(name);
            self.found.push(Change { key, effect });
        }
    }

    /// As [`note`](Self::note), for a value that may follow from another setting: only where somebody has given it.
    fn note_given<T: PartialEq>(&mut self, name: &str, old: T, new: T, effect: Effect) {
        if self.old.is_explicit(name) || self.new.is_explicit(name) {
            self.note(name, old, new, effect);
        }
    }

    /// The name as somebody has spelled it.
    fn spelled(&self, name: &str) -> String {
        let given = [self.new.of(name), self.old.of(name)];
        let key = given.into_iter().flatten().find_map(|origin| match origin {
            Origin::Json { key, .. } => Some(key.clone()),
            _ => None,
        });
        key.unwrap_or_else(|| name.to_owned())
    }
}
