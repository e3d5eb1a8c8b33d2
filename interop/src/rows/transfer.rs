//! Rows where everything has to arrive: ciphers, parity, compression, streams, frames, windows, profiles, links.

use std::time::Duration;

use fulmar_netem::{Bursts, Path, Reordering};

use super::{Context, OK, Observed, Row};
use crate::load;
use crate::pattern::Kind;
use crate::process::Process;
use crate::program::Pair;
use crate::tunnel::{Setup, Tunnel};

/// How long connections may stay open at the service after the applications closed theirs.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(20);

const CIPHERS: [&str; 13] = [
    "aes", "aes-128", "aes-192", "salsa20", "blowfish", "twofish", "cast5", "3des", "tea", "xtea",
    "xor", "sm4", "none",
];

/// Data of a row: what travels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freight {
    pub(super) kind: Kind,
    pub(super) streams: u32,
    pub(super) at_once: usize,
    pub(super) up: u64,
    pub(super) down: u64,
}

impl Freight {
    /// One stream, so many bytes each way.
    pub(super) const fn one(bytes: u64) -> Self {
        Self {
            kind: Kind::Noise,
            streams: 1,
            at_once: 1,
            up: bytes,
            down: bytes,
        }
    }

    const fn many(streams: u32, bytes: u64) -> Self {
        Self {
            kind: Kind::Noise,
            streams,
            at_once: streams as usize,
            up: bytes,
            down: bytes,
        }
    }

    const fn text(mut self) -> Self {
        self.kind = Kind::Text;
        self
    }
}

/// `--key` with a value of about 200 bytes.
const LONG_KEY: &str = concat!(
    "--key 0123456789abcdefghijklmnopqrstuvwxyzABCD_50_456789abcdefghijklmnopqrstuvwxyzABCD100",
    "0123456789abcdefghijklmnopqrstuvwxyzABCD_50_456789abcdefghijklmnopqrstuvwxyzABCD100_",
    "0123456789abcdefghijklmnopqrst"
);

const MB: u64 = 1_000_000;
/// What most rows carry, each way.
const FREIGHT: Freight = Freight::one(3 * MB);
/// Settings with which a row does not spend its time waiting for acknowledgements.
const QUICK: &str = "--mode fast3 --sndwnd 512 --rcvwnd 512";

/// A row of this file: all pairs, or those without kcptun where it lacks something.
pub(super) fn row(
    group: &'static str,
    title: impl Into<String>,
    freight: Freight,
    setup: impl Fn(Pair) -> Setup + Send + Sync + 'static,
) -> Row {
    let setup = std::sync::Arc::new(setup);
    Row::new(group, title, move |context: Context| {
        let setup = std::sync::Arc::clone(&setup);
        async move {
            let mut tunnel = context.tunnel(setup(context.pair)).await?;
            carry(&mut tunnel, freight).await
        }
    })
}

/// Carries the freight, then a conversation of small and large messages, then looks for connections left behind.
pub(super) async fn carry(tunnel: &mut Tunnel, freight: Freight) -> Observed {
    let Freight {
        kind,
        streams,
        at_once,
        up,
        down,
    } = freight;
    let crowd = load::crowd(tunnel.entry(), kind, 1, streams, at_once, up, down).await;
    if let Err((stream, fault)) = crowd {
        return Err(format!("stream {stream}: {fault}; {}", tunnel.last_words()));
    }
    load::ping_pong(
        tunnel.entry(),
        1_000_000,
        &[1, 7, 100, 1350, 5000, 70_000, 1],
    )
    .await
    .map_err(|fault| format!("small messages: {fault}; {}", tunnel.last_words()))?;
    settled(tunnel, u64::from(streams) + 1).await?;
    if let Some(relay) = &tunnel.relay {
        relay.did_its_part()?;
    }
    Ok(OK.to_owned())
}

/// Checks that the service saw exactly these connections, whole, and that none is left.
pub(super) async fn settled(tunnel: &mut Tunnel, connections: u64) -> Result<(), String> {
    let target = tunnel.target.as_ref().ok_or("no service")?;
    let idle = target.wait_idle(CLOSE_LIMIT).await;
    let book = target.book();
    tunnel.healthy()?;
    if !idle {
        return Err(format!(
            "{} connections left open at the service",
            book.open
        ));
    }
    if book.accepted != connections || book.nonsense != 0 {
        return Err(format!(
            "the service saw {} connections ({} without a request) instead of {connections}",
            book.accepted, book.nonsense
        ));
    }
    if let Some((stream, record)) = book.records.iter().find(|(_, r)| r.wrong_at.is_some()) {
        return Err(format!(
            "stream {stream}: the service got a wrong byte at {:?}",
            record.wrong_at
        ));
    }
    Ok(())
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(ciphers());
    rows.extend(parity());
    rows.extend(compression());
    rows.extend(streams());
    rows.extend(frames_and_windows());
    rows.extend(profiles());
    rows.extend(other_settings());
    rows.extend(links());
    rows
}

fn ciphers() -> Vec<Row> {
    let mut rows = Vec::new();
    for name in CIPHERS {
        for smux in 1..=2 {
            let made = row(
                "Ciphers",
                format!("{name}, smux {smux}"),
                FREIGHT,
                move |pair| {
                    Setup::new(pair, smux)
                        .both(QUICK)
                        .both(&format!("--crypt {name}"))
                },
            );
            rows.push(made.everywhere(OK));
        }
    }
    for name in ["aes-128-gcm", "null"] {
        let made = row("Ciphers", format!("{name}, smux 2"), FREIGHT, move |pair| {
            Setup::new(pair, 2)
                .both(QUICK)
                .both(&format!("--crypt {name}"))
        });
        rows.push(fulmar_only(made, "not in 20210922"));
    }
    rows
}

/// A row for what Debian's release does not have.
pub(super) fn fulmar_only(row: Row, reason: &str) -> Row {
    row.no(Pair::FULMAR_KCPTUN, reason)
        .no(Pair::KCPTUN_FULMAR, reason)
        .expect(Pair::FULMAR, OK)
}

fn parity() -> Vec<Row> {
    const SHAPES: [(&str, &str); 10] = [
        ("10/3", "10/3"),
        ("0/0", "0/0"),
        ("10/3", "0/0"),
        ("0/0", "10/3"),
        ("5/2", "10/3"),
        ("3/1", "20/5"),
        ("70/30", "70/30"),
        // As a receiver, 20210922 rebuilds wrong bytes from groups of another shape until it has found the
        // shape out, which takes longest here, and its sessions die of them. Ours must not.
        ("70/30", "2/2"),
        ("1/1", "1/0"),
        ("128/127", "10/3"),
    ];
    let flags = |shape: &str| {
        let (data, parity) = shape.split_once('/').unwrap_or((shape, "0"));
        format!("--datashard {data} --parityshard {parity}")
    };
    let mut rows = Vec::new();
    for (client, server) in SHAPES {
        for loss in [0.0, 4.0] {
            let title = if loss > 0.0 {
                format!("client {client}, server {server}, {loss} % loss")
            } else {
                format!("client {client}, server {server}")
            };
            let freight = if loss > 0.0 {
                Freight::one(MB)
            } else {
                FREIGHT
            };
            let setup = move |pair| {
                let setup = Setup::new(pair, 2)
                    .both(QUICK)
                    .client(&flags(client))
                    .server(&flags(server));
                if loss > 0.0 {
                    setup.link(Path {
                        loss: loss / 100.0,
                        ..Path::default()
                    })
                } else {
                    setup
                }
            };
            let lossy = loss > 0.0;
            let made = Row::new("Parity", title, move |context: Context| async move {
                let mut tunnel = context.tunnel(setup(context.pair)).await?;
                carry(&mut tunnel, freight).await?;
                if lossy {
                    repaired("server", &tunnel.server, repairs(client, server)).await?;
                    repaired("client", &tunnel.client, repairs(server, client)).await?;
                }
                Ok(OK.to_owned())
            });
            let poisons_kcptun = (client, server) == ("70/30", "2/2");
            rows.push(if poisons_kcptun {
                fulmar_only(made, "20210922 rebuilds wrong bytes")
            } else {
                made.everywhere(OK)
            });
        }
    }
    rows
}

/// Whether parity of the shape `sent` repairs something in a transfer of this length, at an end that was told
/// `expected`: with no data or no parity shards the layer is off. `None` where that is open: groups so large that KCP
/// resends before they are complete, or that the receiver cannot find their shape out between losses.
fn repairs(sent: &str, expected: &str) -> Option<bool> {
    let counts: Vec<u16> = sent.split('/').filter_map(|n| n.parse().ok()).collect();
    let group: u16 = counts.iter().sum();
    let limit = if sent == expected { 100 } else { 30 };
    (group <= limit).then(|| counts.iter().all(|n| *n > 0))
}

/// Checks that an end rebuilt lost packets when its peer sends parity.
async fn repaired(
    name: &str,
    end: &Process,
    peer_sends_parity: Option<bool>,
) -> Result<(), String> {
    let counters = end
        .counters(CLOSE_LIMIT)
        .await
        .ok_or("no counters on SIGUSR1")?;
    let recovered = counters.get("FECRecovered").copied().unwrap_or_default();
    let counted = || {
        let fec: Vec<String> = counters
            .iter()
            .filter(|(n, _)| n.starts_with("FEC"))
            .map(|(n, count)| format!("{n} {count}"))
            .collect();
        fec.join(", ")
    };
    match (peer_sends_parity, recovered) {
        (Some(true), 0) => Err(format!(
            "packets were lost and the {name} rebuilt none ({})",
            counted()
        )),
        (Some(false), 1..) => Err(format!(
            "the {name} rebuilt packets from parity never sent ({})",
            counted()
        )),
        _ => Ok(()),
    }
}

fn compression() -> Vec<Row> {
    let mut rows = Vec::new();
    for (title, freight, flags) in [
        ("on, text", FREIGHT.text(), ""),
        ("on, random bytes", FREIGHT, ""),
        ("off, text", FREIGHT.text(), "--nocomp"),
        ("off, random bytes", FREIGHT, "--nocomp"),
    ] {
        for smux in 1..=2 {
            let made = row(
                "Compression",
                format!("{title}, smux {smux}"),
                freight,
                move |pair| Setup::new(pair, smux).both(QUICK).both(flags),
            );
            rows.push(made.everywhere(OK));
        }
    }
    rows
}

fn streams() -> Vec<Row> {
    let mut rows = Vec::new();
    for smux in 1..=2 {
        for (title, freight, flags) in [
            ("64 at once", Freight::many(64, 100_000), QUICK),
            (
                "64 at once over 4 sessions",
                Freight::many(64, 100_000),
                "--mode fast3 --nocomp",
            ),
            (
                "300 one after the other",
                Freight {
                    at_once: 1,
                    ..Freight::many(300, 2_000)
                },
                "--mode fast3",
            ),
            ("1000 at once", Freight::many(1000, 2000), QUICK),
            ("500 at once, without payload", Freight::many(500, 0), QUICK),
        ] {
            let conns = if title.contains("sessions") {
                "--conn 4"
            } else {
                ""
            };
            let made = row(
                "Streams",
                format!("{title}, smux {smux}"),
                freight,
                move |pair| Setup::new(pair, smux).both(flags).client(conns),
            );
            rows.push(made.everywhere(OK));
        }
    }
    rows
}

fn frames_and_windows() -> Vec<Row> {
    let mut rows = Vec::new();
    for size in [1, 512, 4096, 32_768, 65_535] {
        for smux in 1..=2 {
            // One byte per frame is nine on the wire: less freight.
            let freight = if size < 100 {
                Freight::one(20_000)
            } else {
                FREIGHT
            };
            let made = row(
                "Frame size",
                format!("{size} at Fulmar, smux {smux}"),
                freight,
                move |pair| {
                    Setup::new(pair, smux)
                        .both(QUICK)
                        .fulmar(&format!("--framesize {size}"))
                },
            );
            rows.push(
                made.expect(Pair::FULMAR_KCPTUN, OK)
                    .expect(Pair::KCPTUN_FULMAR, OK)
                    .expect(Pair::FULMAR, OK),
            );
        }
    }
    for (title, client, server) in [
        (
            "client 16/16, server 16/16",
            "--sndwnd 16 --rcvwnd 16",
            "--sndwnd 16 --rcvwnd 16",
        ),
        (
            "client 32/1024, server 1024/32",
            "--sndwnd 32 --rcvwnd 1024",
            "--sndwnd 1024 --rcvwnd 32",
        ),
        (
            "client 1024/32, server 32/1024",
            "--sndwnd 1024 --rcvwnd 32",
            "--sndwnd 32 --rcvwnd 1024",
        ),
        (
            "client 2048/64, server 2048/64",
            "--sndwnd 2048 --rcvwnd 64",
            "--sndwnd 2048 --rcvwnd 64",
        ),
        (
            "client 4096/4096, server 4096/4096",
            "--sndwnd 4096 --rcvwnd 4096",
            "--sndwnd 4096 --rcvwnd 4096",
        ),
        (
            "client 32768/32768, server 32768/32768",
            "--sndwnd 32768 --rcvwnd 32768",
            "--sndwnd 32768 --rcvwnd 32768",
        ),
    ] {
        let made = row(
            "Windows (sndwnd/rcvwnd)",
            title,
            Freight::one(2 * MB),
            move |pair| {
                Setup::new(pair, 2)
                    .both("--mode fast3")
                    .client(client)
                    .server(server)
            },
        );
        rows.push(made.everywhere(OK));
    }
    for (title, flags) in [
        (
            "smuxbuf 32768, streambuf 32768",
            "--smuxbuf 32768 --streambuf 32768",
        ),
        (
            "smuxbuf 4194304, streambuf 65536",
            "--smuxbuf 4194304 --streambuf 65536",
        ),
        (
            "smuxbuf 33554432, streambuf 16777216",
            "--smuxbuf 33554432 --streambuf 16777216",
        ),
    ] {
        let made = row("Buffers", title, Freight::many(8, 400_000), move |pair| {
            Setup::new(pair, 2).both(QUICK).both(flags)
        });
        rows.push(made.everywhere(OK));
    }
    rows
}

fn profiles() -> Vec<Row> {
    [
        ("normal", "--mode normal"),
        ("fast", "--mode fast"),
        ("fast2", "--mode fast2"),
        ("fast3", "--mode fast3"),
        ("fast3, acknodelay", "--mode fast3 --acknodelay"),
        (
            "manual, congestion window",
            "--mode manual --nodelay 0 --interval 40 --resend 0 --nc 0",
        ),
        (
            "manual, congestion window, resend 2",
            "--mode manual --nodelay 1 --interval 20 --resend 2 --nc 0",
        ),
        (
            "manual, interval 10",
            "--mode manual --nodelay 1 --interval 10 --resend 1 --nc 1",
        ),
        // kcptun takes the name for manual.
        ("auto", "--mode auto"),
        ("client fast3, server normal", ""),
    ]
    .into_iter()
    .map(|(title, flags)| {
        let made = row("Profiles", title, Freight::one(2 * MB), move |pair| {
            let setup = Setup::new(pair, 2)
                .both("--sndwnd 512 --rcvwnd 512")
                .both(flags);
            if flags.is_empty() {
                setup.client("--mode fast3").server("--mode normal")
            } else {
                setup
            }
        });
        made.everywhere(OK)
    })
    .collect()
}

fn other_settings() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("mtu 200", "--mtu 200", ""),
        ("mtu 576", "--mtu 576", ""),
        ("mtu 1500", "--mtu 1500", ""),
        ("mtu: client 600, server 1400", "--mtu 600", "--mtu 1400"),
        ("dscp 46", "--dscp 46", ""),
        ("sockbuf 65536", "--sockbuf 65536", ""),
        ("keepalive 1", "--keepalive 1", ""),
        ("a long key", LONG_KEY, ""),
        ("a key beyond ASCII", "--key чайка-鷗", ""),
        (
            "quiet, snmplog",
            "--quiet --snmplog /dev/null --snmpperiod 1",
            "",
        ),
    ]
    .into_iter()
    .map(|(title, client, server)| {
        let server = if server.is_empty() { client } else { server };
        let made = row("Settings", title, Freight::one(2 * MB), move |pair| {
            Setup::new(pair, 2)
                .both(QUICK)
                .client(client)
                .server(server)
        });
        made.everywhere(OK)
    })
    .collect();
    rows.push(
        row(
            "Settings",
            "all settings from a JSON file",
            Freight::one(2 * MB),
            |pair| {
                let mut setup = Setup::new(pair, 2)
                    .both(QUICK)
                    .both("--crypt aes-128 --nocomp --mtu 1300 --key from-json");
                setup.json = true;
                setup
            },
        )
        .everywhere(OK),
    );
    let kcptun_lacks = "not in 20210922";
    for (title, flags) in [
        ("QPP", "--QPP"),
        ("QPP, 11 pads", "--QPP --QPPCount 11"),
        ("ratelimit 4000000", "--ratelimit 4000000"),
    ] {
        let made = row("Settings", title, Freight::one(2 * MB), move |pair| {
            Setup::new(pair, 2).both(QUICK).both(flags)
        });
        rows.push(fulmar_only(made, kcptun_lacks));
    }
    rows
}

fn links() -> Vec<Row> {
    let ms = Duration::from_millis;
    let clean = Path::default();
    let mixed = Path {
        reordering: Some(Reordering {
            probability: 0.1,
            by: ms(8),
        }),
        duplication: 0.05,
        ..clean.clone()
    };
    let storm = Path {
        loss: 0.05,
        corruption: 0.02,
        delay: ms(10),
        jitter: ms(5),
        ..mixed.clone()
    };
    // Bursts of five on average, 5 % of the time.
    let bursts = Bursts {
        enter: 0.0105,
        leave: 0.2,
        loss_good: 0.0,
        loss_bad: 1.0,
    };
    let no_parity = "--datashard 0 --parityshard 0";
    [
        (
            "20 ms delay",
            Path {
                delay: ms(20),
                ..clean.clone()
            },
            "",
        ),
        (
            "5 % loss",
            Path {
                loss: 0.05,
                ..clean.clone()
            },
            "",
        ),
        (
            "5 % loss, no parity",
            Path {
                loss: 0.05,
                ..clean.clone()
            },
            no_parity,
        ),
        (
            "5 % loss, 10 ms delay, mode auto",
            Path {
                loss: 0.05,
                delay: ms(10),
                ..clean.clone()
            },
            "--mode auto",
        ),
        (
            "20 % loss, 10 ms delay",
            Path {
                loss: 0.2,
                delay: ms(10),
                ..clean.clone()
            },
            "",
        ),
        (
            "5 % loss in bursts, 10 ms delay",
            Path {
                bursts: Some(bursts),
                delay: ms(10),
                ..clean.clone()
            },
            "",
        ),
        ("10 % out of order, 5 % doubled", mixed.clone(), ""),
        (
            "10 % out of order, 5 % doubled, no parity",
            mixed,
            no_parity,
        ),
        (
            "3 % corrupted, aes",
            Path {
                corruption: 0.03,
                ..clean.clone()
            },
            "",
        ),
        (
            "3 % corrupted, none",
            Path {
                corruption: 0.03,
                ..clean.clone()
            },
            "--crypt none",
        ),
        (
            "3 % cut short",
            Path {
                truncation: 0.03,
                ..clean
            },
            "",
        ),
        (
            "5 % loss, 5 % doubled, 10 % out of order, 2 % corrupted, 10 to 15 ms delay",
            storm,
            "",
        ),
    ]
    .into_iter()
    .map(|(title, path, flags)| {
        let made = row("Links", title, Freight::one(MB), move |pair| {
            Setup::new(pair, 2)
                .both(QUICK)
                .both(flags)
                .link(path.clone())
        });
        made.everywhere(OK)
    })
    .collect()
}
