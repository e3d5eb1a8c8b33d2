//! What the log says of the other end, in the words of the configuration in use.
//!
//! The core reports what it has found as data ([`Suspicion`], [`WindowSmall`]); here it is worded, with the flags of kcptun
//! or the keys of kcptun-libev's files, whichever the operator has. What happens again and again is told once
//! ([`LogLimit`]), for all sessions of the process together.

use std::mem::discriminant;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulmar_cipher::Scheme;
use fulmar_config::libev::LibevConfig;
use fulmar_config::{Config, Crypt};
use fulmar_netio::{IcmpError, IcmpKind};
use fulmar_session::diagnosis::Suspicion;
use fulmar_session::session::WindowSmall;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::log_kind;
use crate::log_limit::LogLimit;

/// Names of options that have to be equal at both ends, or that limit a session.
struct Options {
    /// The secret.
    key: &'static str,
    /// The secret or the cipher.
    key_or_cipher: &'static str,
    /// What makes the ciphers equal.
    cipher: &'static str,
    /// What makes the dialects equal.
    dialect: &'static str,
    /// Why a server may drop sessions that it can open.
    refused: &'static str,
    /// Our send window, and the other end's receive window.
    windows: [&'static str; 2],
}

const KCPTUN: Options = Options {
    key: "--key",
    key_or_cipher: "--key or --crypt",
    cipher: "--crypt",
    dialect: "--compat",
    refused: "most likely --nocomp or --smuxver differs (releases before November 2025 default to --smuxver 1)",
    windows: ["--sndwnd", "--rcvwnd"],
};

const KCPTUN_2016: Options = Options {
    key: "--key",
    key_or_cipher: "--key",
    cipher: "--compat",
    dialect: "--compat",
    refused: "most likely the variant of --compat or --tuncrypt differs",
    windows: ["--sndwnd", "--rcvwnd"],
};

const LIBEV: Options = Options {
    key: "password or psk",
    key_or_cipher: "password, psk or method",
    cipher: "method",
    dialect: "method",
    refused: "it was restarted a moment ago, or it is no kcptun-libev server",
    windows: ["kcp.sndwnd", "kcp.rcvwnd"],
};

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct Advice {
    options: &'static Options,
    /// Whether what opens was made by somebody who has the key.
    keyed: bool,
    /// What the other end speaks above KCP once it has said something valid, if there is a choice.
    speaks: Option<Arc<str>>,
    limit: Arc<Mutex<LogLimit>>,
}

impl Advice {
    /// In the words of kcptun, today's or of spring 2016.
    pub(crate) fn kcptun(config: &Config) -> Self {
        let t = &config.tunnel;
        let first = t.compat.first().is_some();
        let keyed = match t.crypt {
            _ if first => !t.key.is_empty(),
            Crypt::Method(method) => Scheme::Kcptun(method).proves_key(),
            Crypt::Auto => true,
        };
        Self {
            options: if first { &KCPTUN_2016 } else { &KCPTUN },
            keyed,
            speaks: Some(t.spoken().into()),
            limit: Arc::default(),
        }
    }

    /// In the words of kcptun-libev's files.
    pub(crate) fn libev(config: &LibevConfig) -> Self {
        Self {
            options: &LIBEV,
            keyed: Scheme::Libev(config.crypto.method()).proves_key(),
            speaks: None,
            limit: Arc::default(),
        }
    }

    /// The likely cause, found at a client for its server or at a server for a stranger.
    pub(crate) fn suspicion(&self, suspicion: &Suspicion) -> String {
        let Options {
            key,
            key_or_cipher,
            cipher,
            dialect,
            refused,
            ..
        } = self.options;
        match suspicion {
            Suspicion::Silence if self.keyed => format!(
                "no answer at all: the server is not running, or UDP to that port is blocked, or {key_or_cipher} differs \
                 from the server's (a server is silent to what it cannot open)"
            ),
            Suspicion::Silence => {
                "no answer at all: the server is not running, or UDP to that port is blocked, or it is another program"
                    .into()
            }
            Suspicion::NothingOpens => format!(
                "they arrive but none opens: most likely {key} differs from the other end's (no cipher that we know opens \
                 them with this key)"
            ),
            Suspicion::OtherCipher { theirs, ours } => {
                let one_dialect = discriminant(theirs) == discriminant(ours);
                let option = if one_dialect { cipher } else { dialect };
                let (theirs, ours) = (theirs.name(), ours.name());
                format!(
                    "the other end uses {theirs} and we use {ours}: the key is the same, make {option} equal"
                )
            }
            Suspicion::StreamsRefused => {
                format!("the server opens our datagrams but drops the session: {refused}")
            }
        }
    }

    /// What an ICMP error about our datagrams to the server means, if it tells why nothing comes back.
    pub(crate) fn icmp(error: &IcmpError) -> Option<String> {
        let IcmpError {
            remote,
            kind,
            reporter,
        } = error;
        let meaning = match kind {
            IcmpKind::PortUnreachable => {
                format!(
                    "nothing listens on {remote}: is the server running, and is the port right?"
                )
            }
            IcmpKind::HostUnreachable | IcmpKind::NetworkUnreachable => {
                format!("no route to {remote}")
            }
            IcmpKind::Prohibited => format!("a firewall refuses datagrams to {remote}"),
            _ => return None,
        };
        let from = reporter.map_or_else(String::new, |ip| format!(" from {ip}"));
        Some(format!("{meaning} (ICMP{from}: {kind})"))
    }

    /// A window limits a session.
    pub(crate) fn window(&self, w: &WindowSmall) -> String {
        let [ours, theirs] = self.options.windows;
        let (whose, set) = if w.ours {
            ("send", format!("{ours} here (and {theirs} there)"))
        } else {
            ("other end's receive", format!("{theirs} there"))
        };
        format!(
            "the {whose} window of {} segments limits this session to {:.1} Mbit/s at a round trip of {} ms: set {set} to {} \
             or more",
            w.segments,
            w.ceiling as f64 / 1e6,
            w.rtt.as_millis(),
            w.suggested,
        )
    }

    /// The server has answered for the first time, after so long.
    pub(crate) fn answers(&self, server: SocketAddr, after: Duration) -> String {
        let ms = after.as_secs_f64() * 1e3;
        let ms = if ms < 10.0 {
            format!("{ms:.1}")
        } else {
            format!("{ms:.0}")
        };
        if self.keyed {
            format!("{server} answers, key fits, {ms} ms")
        } else {
            format!("{server} answers, {ms} ms (without encryption nothing shows who it is)")
        }
    }

    /// A valid frame of the server has arrived.
    pub(crate) fn speaks(&self, server: SocketAddr) -> Option<String> {
        let speaks = self.speaks.as_ref()?;
        Some(format!("{server} speaks {speaks}"))
    }

    /// Logs a warning, unless it was told a short while ago.
    pub(crate) fn warn(&self, text: &str) {
        if let Some(line) = self.limit().line(Instant::now(), text) {
            warn!(name: log_kind::ADVICE, "{line}");
        }
    }

    /// Logs what is worth a line, unless it was told a short while ago.
    pub(crate) fn info(&self, text: &str) {
        if let Some(line) = self.limit().line(Instant::now(), text) {
            info!(name: log_kind::ADVICE, "{line}");
        }
    }

    /// The server answers: what goes wrong from now on is news.
    pub(crate) fn fresh(&self) {
        let _ = self.limit().over();
    }

    fn limit(&self) -> MutexGuard<'_, LogLimit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_wire::kcptun::Method;

    fn advice(options: &'static Options) -> Advice {
        Advice {
            options,
            keyed: true,
            speaks: None,
            limit: Arc::default(),
        }
    }

    /// Nobody has an option of another program.
    #[test]
    fn an_advice_names_only_options_of_its_dialect() {
        let found = [
            Suspicion::Silence,
            Suspicion::NothingOpens,
            Suspicion::OtherCipher {
                theirs: Scheme::Kcptun(Method::Sm4),
                ours: Scheme::Kcptun(Method::Aes),
            },
            Suspicion::StreamsRefused,
        ];
        let window = |ours| WindowSmall {
            ours,
            segments: 128,
            rtt: Duration::from_millis(100),
            ceiling: 13_000_000,
            suggested: 512,
        };
        let all = |options| {
            let advice = advice(options);
            let mut text: Vec<_> = found.iter().map(|s| advice.suspicion(s)).collect();
            text.extend([true, false].map(|ours| advice.window(&window(ours))));
            text.join("\n")
        };
        let libev = all(&LIBEV);
        assert!(!libev.contains("--"), "{libev}");
        assert!(
            libev.contains("kcp.sndwnd") && libev.contains("method"),
            "{libev}"
        );
        for (text, others) in [
            (all(&KCPTUN), ["psk", "password", "kcp.", "--tuncrypt"]),
            (all(&KCPTUN_2016), ["psk", "kcp.", "--crypt", "--smuxver"]),
        ] {
            for other in others {
                assert!(!text.contains(other), "{other} in {text}");
            }
        }
    }
}
