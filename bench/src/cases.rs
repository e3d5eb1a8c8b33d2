//! What is measured: tunnels by name, cases by name.

use std::time::Duration;

use fulmar_interop::program::Pair;
use fulmar_netem::{Bursts, Path, Rate};

/// Flags of a `-tuned` tunnel: what an operator sets who wants throughput.
const TUNED: &str =
    "--mode fast3 --nocomp --sndwnd 4096 --rcvwnd 4096 --smuxbuf 33554432 --streambuf 16777216";

/// A tunnel that can be measured.
#[derive(Clone, Debug)]
pub(crate) struct TunnelKind {
    pub(crate) name: String,
    pub(crate) pair: Pair,
    pub(crate) flags: &'static str,
}

impl TunnelKind {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let (base, flags) = name
            .strip_suffix("-tuned")
            .map_or((name, ""), |base| (base, TUNED));
        let pair = match base {
            "fulmar" => Pair::FULMAR,
            "kcptun" => Pair::KCPTUN,
            "fulmar-kcptun" => Pair::FULMAR_KCPTUN,
            "kcptun-fulmar" => Pair::KCPTUN_FULMAR,
            _ => return Err(format!("there is no tunnel {name}")),
        };
        Ok(Self {
            name: name.to_owned(),
            pair,
            flags,
        })
    }
}

/// TCP load on a tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Downloads for so long over so many connections.
    Get { seconds: u64, connections: u32 },
    /// Uploads.
    Put { seconds: u64, connections: u32 },
    /// Messages sent at a steady pace, whatever comes back, on one connection that returns them.
    Ping {
        count: u32,
        every: Duration,
        size: usize,
    },
    /// A new connection for each message.
    Requests {
        count: u32,
        every: Duration,
        size: usize,
    },
    /// Connections that return one message each and then stay idle.
    Hold { connections: u32, seconds: u64 },
}

/// A load over a path.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// None: plain loopback.
    pub(crate) path: Option<Path>,
    pub(crate) load: Load,
}

impl Case {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        all()
            .into_iter()
            .find(|case| case.name == name)
            .ok_or(format!("there is no case {name}; --list shows them"))
    }

    /// The case in words.
    pub(crate) fn describe(&self) -> String {
        let path = match &self.path {
            None => "loopback".to_owned(),
            Some(path) => {
                let mut words = vec![format!("{} ms each way", path.delay.as_millis())];
                if !path.jitter.is_zero() {
                    words.push(format!("up to {} ms jitter", path.jitter.as_millis()));
                }
                if path.loss > 0.0 {
                    words.push(format!("{} % loss", path.loss * 100.0));
                }
                if path.bursts.is_some() {
                    words.push("loss in bursts".to_owned());
                }
                if let Some(rate) = path.rate {
                    words.push(format!("{} Mbit/s", rate.bits_per_second / 1_000_000));
                }
                words.join(", ")
            }
        };
        let load = match self.load {
            Load::Get {
                seconds,
                connections,
            } => format!("download for {seconds} s on {connections} connection(s)"),
            Load::Put {
                seconds,
                connections,
            } => format!("upload for {seconds} s on {connections} connection(s)"),
            Load::Ping { count, every, size } => {
                format!(
                    "{count} messages of {size} bytes, one every {} ms",
                    every.as_millis()
                )
            }
            Load::Requests { count, every, size } => {
                format!(
                    "{count} connections with {size} bytes each way, one every {} ms",
                    every.as_millis()
                )
            }
            Load::Hold {
                connections,
                seconds,
            } => format!("{connections} idle connections for {seconds} s"),
        };
        format!("{path}; {load}")
    }

    /// Goodput that the path could carry at most, Mbit/s: the rate less loss and headers (IPv4, UDP and 60 bytes of
    /// tunnel in 1378).
    pub(crate) fn capacity(&self) -> Option<f64> {
        let path = self.path.as_ref()?;
        let rate = path.rate?;
        Some(rate.bits_per_second as f64 / 1e6 * (1.0 - path.loss) * (1290.0 / 1378.0))
    }
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    let ms = Duration::from_millis;
    let get = Load::Get {
        seconds: 12,
        connections: 1,
    };
    let game = Load::Ping {
        count: 600,
        every: ms(20),
        size: 120,
    };
    let link = |delay: u64, loss: f64, mbit: u64, queue: usize| Path {
        delay: ms(delay),
        loss,
        rate: Some(Rate {
            bits_per_second: mbit * 1_000_000,
            queue_bytes: queue * 1400,
        }),
        ..Path::default()
    };
    let far = |loss: f64, jitter: u64| Path {
        delay: ms(40),
        loss,
        jitter: ms(jitter),
        ..Path::default()
    };
    let bursts = Bursts {
        enter: 0.0132,
        leave: 0.25,
        loss_good: 0.0,
        loss_bad: 1.0,
    };
    let case = |name, path, load| Case { name, path, load };
    vec![
        case(
            "loop-get",
            None,
            Load::Get {
                seconds: 6,
                connections: 1,
            },
        ),
        case(
            "loop-put",
            None,
            Load::Put {
                seconds: 6,
                connections: 1,
            },
        ),
        case(
            "loop-get8",
            None,
            Load::Get {
                seconds: 6,
                connections: 8,
            },
        ),
        case(
            "loop-ping",
            None,
            Load::Ping {
                count: 400,
                every: ms(5),
                size: 100,
            },
        ),
        case("clean-100", Some(link(50, 0.0, 200, 2000)), get),
        case("loss1-100", Some(link(50, 0.01, 200, 2000)), get),
        case("loss5-100", Some(link(50, 0.05, 200, 2000)), get),
        case("loss10-100", Some(link(50, 0.10, 200, 2000)), get),
        case("loss20-200", Some(link(100, 0.20, 100, 2000)), get),
        case(
            "burst5-100",
            Some(Path {
                bursts: Some(bursts),
                ..link(50, 0.0, 200, 2000)
            }),
            get,
        ),
        case("thin-60", Some(link(30, 0.01, 10, 60)), get),
        case("game-0", Some(far(0.0, 0)), game),
        case("game-5", Some(far(0.05, 0)), game),
        case("game-10", Some(far(0.10, 5)), game),
        case("game-20", Some(far(0.20, 5)), game),
        case(
            "web-5",
            Some(far(0.05, 0)),
            Load::Requests {
                count: 200,
                every: ms(50),
                size: 2000,
            },
        ),
        case(
            "hold-1000",
            None,
            Load::Hold {
                connections: 1000,
                seconds: 3,
            },
        ),
        case(
            "hold-5000",
            None,
            Load::Hold {
                connections: 5000,
                seconds: 3,
            },
        ),
        case(
            "idle",
            None,
            Load::Hold {
                connections: 1,
                seconds: 10,
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_found() {
        let names: std::collections::BTreeSet<_> = all().iter().map(|c| c.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(
            names
                .iter()
                .all(|name| Case::named(name).is_ok_and(|c| !c.describe().is_empty()))
        );
        assert!(Case::named("nothing").is_err());
        for name in [
            "fulmar",
            "kcptun-tuned",
            "fulmar-kcptun",
            "kcptun-fulmar-tuned",
        ] {
            assert_eq!(TunnelKind::named(name).unwrap().name, name);
        }
        assert!(TunnelKind::named("x").is_err());
    }
}
