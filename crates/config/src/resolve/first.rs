//! The checks of `--compat 2016`: what the kcptun of spring 2016 lacks is refused or noted, and what its protection is worth
//! is said (docs/spec/kcptun2016.md, sections 2, 3, 4 and 11).

use core::time::Duration;

use fulmar_wire::kcptun2016::{Method, Variant};

use super::{Profile, Resolver};
use crate::hint::nearest;
use crate::model::{First, Mode, Smux};
use crate::options::{self, Id, Side, TABLE, first};
use crate::secret::Key;
use crate::text::printable;
use crate::values::{Raw, wanted};

/// What a stream of yamux may send before it has heard anything, in bytes (section 9).
const FIRST_CREDIT: u32 = 262_144;
/// The name of the only cipher.
const AES: &str = "aes";

impl Resolver<'_> {
    /// The settings of the first kcptun if it is asked for, and what it does not have.
    pub(super) fn first(&mut self) -> Option<First> {
        let Some(variant) = self.values.compat() else {
            self.without_first();
            return None;
        };
        for opt in TABLE.iter().filter(|opt| opt.is_for(self.values.side())) {
            self.not_there(opt.id);
        }
        self.explain(variant);
        Some(First {
            variant,
            tuncrypt: self.tuncrypt(variant),
            methods: &[Method::Sealed],
        })
    }

    fn without_first(&mut self) {
        let name = printable(self.text(Id::Compat));
        if !name.is_empty() {
            self.error(
                Id::Compat,
                format!("\"{name}\" is no kcptun that is known here"),
                format!(
                    "{}, or leave it out for today's kcptun",
                    wanted(options::get(Id::Compat))
                ),
            );
        } else if self.bool(Id::TunCrypt) {
            self.error(
                Id::TunCrypt,
                "only the kcptun of 2016 has this",
                "write compat 2016bt or 2016c, too, or remove it",
            );
        }
    }

    /// Refuses or notes option `id` if somebody gave it and the first kcptun does not have what it asks for.
    fn not_there(&mut self, id: Id) {
        if self.origin(id).is_default() {
            return;
        }
        if let Some(why) = first::idle(id) {
            let message = format!("has no effect with the kcptun of 2016: {why}");
            self.note(id, message, "remove it");
            return;
        }
        let Some(why) = first::lacking(id) else {
            return;
        };
        let (asks, hint) = match (id, self.given(id)) {
            (_, Raw::Bool(on)) => (*on, "remove it"),
            (Id::DataShard | Id::ParityShard, Raw::Int(n)) => (*n > 0, "write 0, or remove it"),
            (Id::Crypt, Raw::Text(name)) => (name != AES, "write aes, or remove it"),
            (_, Raw::Int(_) | Raw::Text(_)) => (true, "remove it"),
        };
        if asks {
            let message = format!("not with the kcptun of 2016: {why}");
            self.error(id, message, hint);
        }
    }

    fn tuncrypt(&mut self, variant: Variant) -> bool {
        let asked = self.bool(Id::TunCrypt);
        if !self.origin(Id::TunCrypt).is_default() {
            let note = match (self.values.side(), variant) {
                (Side::Server, _) => "has no effect: a server finds out whether a client does it",
                (Side::Client, variant) if variant.has_tuncrypt() => "",
                (Side::Client, _) => "has no effect: variants A and B always encrypt the stream",
            };
            if !note.is_empty() {
                self.note(Id::TunCrypt, note, "remove it");
            }
        }
        !variant.has_tuncrypt() || asked
    }

    /// What is good to know about the first kcptun, for a check.
    fn explain(&mut self, variant: Variant) {
        if self.values.side() == Side::Server {
            self.note(
                Id::Compat,
                "a server finds out which variant each client speaks",
                "any of the names will do",
            );
        } else {
            let message = format!(
                "a client cannot find out which variant the server speaks; this is variant {}",
                variant.name()
            );
            self.note(
                Id::Compat,
                message,
                "write 2016a, 2016b, 2016bt or 2016c if it is another",
            );
        }
        self.note(
            Id::Compat,
            "the kcptun of 2016 has no parity, no compression, no QPP and no look of TCP",
            "lost packets are sent again; --mode auto sends small messages more than once",
        );
        self.note(
            Id::Compat,
            "the kcptun of 2016 closes both directions of a connection when one ends",
            "with Fulmar at both ends each direction ends by itself",
        );
    }

    /// What the key and the protection are worth.
    pub(super) fn first_protection(&mut self, key: &Key, id: Id) {
        if key.is_empty() {
            self.warn(
                id,
                "the key is empty: anyone can read and forge packets",
                "give the same key to both ends (fulmar genpsk makes one)",
            );
        } else {
            self.warn(
                Id::Compat,
                "the kcptun of 2016 protects little: its key is one SHA-256 without salt, MD5 inside CFB is no authentication, \
                 old packets can be sent again, and who learns the key can read what was recorded",
                "use a long random key (fulmar genpsk makes one), and TLS or ssh inside the tunnel",
            );
        }
    }

    /// The mode and its numbers, which depend on the variant. An unknown mode ends that program.
    pub(super) fn first_mode(&mut self, first: First) -> (Mode, Profile) {
        let name = self.text(Id::Mode).to_string_lossy().into_owned();
        if name == Mode::Auto.name() {
            return (
                Mode::Auto,
                Profile {
                    nodelay: true,
                    interval: Duration::from_millis(10),
                    resend: 0,
                    congestion_control: false,
                },
            );
        }
        let modes = first::modes(first.variant);
        let known = modes.iter().find(|numbers| numbers.mode.name() == name);
        if known.is_none() {
            let names = || modes.iter().map(|numbers| numbers.mode.name());
            let all = names().chain([Mode::Auto.name()]).collect::<Vec<_>>();
            let late = first::modes(Variant::C);
            let hint = if late.iter().any(|numbers| numbers.mode.name() == name) {
                format!("write one of {}, or compat 2016c", all.join(", "))
            } else {
                match nearest(&name, all.iter().copied()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("write one of {}", all.join(", ")),
                }
            };
            let message = format!(
                "\"{}\" is no mode of the kcptun of 2016, variant {}",
                printable(&name),
                first.variant.name()
            );
            self.error(Id::Mode, message, hint);
        }
        let numbers = known.unwrap_or(&modes[0]);
        let profile = Profile {
            nodelay: numbers.nodelay,
            interval: Duration::from_millis(numbers.interval_ms),
            resend: numbers.resend,
            congestion_control: numbers.congestion_control,
        };
        (numbers.mode.clone(), profile)
    }

    /// The window of a stream, which cannot be smaller than what every stream begins with.
    pub(super) fn first_window(&mut self, smux: &Smux) {
        if smux.stream_buffer >= FIRST_CREDIT {
            return;
        }
        let given = !self.origin(Id::StreamBuf).is_default();
        let id = if given { Id::StreamBuf } else { Id::SmuxBuf };
        // Out of range was said already.
        if self.in_range(id) {
            self.error(
                id,
                format!(
                    "{} is too small: with the kcptun of 2016 a stream begins with {FIRST_CREDIT} bytes",
                    smux.stream_buffer
                ),
                format!("write {FIRST_CREDIT} or more"),
            );
        }
    }

    /// What protects packets. Without a key the variants differ, of C both exist, and a server finds out (section 4).
    pub(super) fn first_methods(&mut self, first: First, key: &Key) -> &'static [Method] {
        if !key.is_empty() {
            return &[Method::Sealed];
        }
        if self.values.side() == Side::Server {
            return &[Method::Sealed, Method::Plain];
        }
        // Nothing but "aes" is accepted.
        let asked = !self.origin(Id::Crypt).is_default();
        if first.variant == Variant::C && !asked {
            self.note(
                Id::Compat,
                "the key is empty, so packets travel in clear, as in variant C from 13 May 2016 on",
                "write crypt aes if the server is of 7 May (version 20160507), which encrypts them all the same",
            );
        }
        match first.variant.without_key() {
            Method::Plain if first.variant != Variant::C || !asked => &[Method::Plain],
            _ => &[Method::Sealed],
        }
    }

    /// The size of a UDP payload, which has to have room for the header of a sealed packet.
    pub(super) fn first_mtu(&mut self, methods: &[Method]) -> usize {
        let mtu: usize = self.int(Id::Mtu);
        let most = methods.iter().max_by_key(|method| method.front());
        let method = most.copied().unwrap_or(Method::Sealed);
        // Out of range was said already.
        if method.kcp_mtu(mtu).is_none() && self.in_range(Id::Mtu) {
            let smallest = (50..=1500).find(|&mtu| method.kcp_mtu(mtu).is_some());
            self.error(
                Id::Mtu,
                format!(
                    "{mtu} leaves no room beside the header of {}",
                    method.name()
                ),
                format!("write {} to 1500 bytes", smallest.unwrap_or(1500)),
            );
        }
        mtu
    }
}
