//! Rows about where the bytes go: port ranges, Unix sockets, IPv6, several addresses, TCP-looking packets.

use std::net::{IpAddr, Ipv6Addr};

use super::transfer::{CLOSE_LIMIT, Freight, fulmar_only, row, settled};
use super::{Context, OK, Observed, Row};
use crate::load;
use crate::pattern::Kind;
use crate::program::Pair;
use crate::tunnel::{Behind, Setup};

const GROUP: &str = "Transport";
const FREIGHT: Freight = Freight::one(2_000_000);
const QUICK: &str = "--mode fast3 --sndwnd 512 --rcvwnd 512";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        fulmar_only(
            row(
                GROUP,
                "10 server ports, 4 sessions",
                Freight {
                    streams: 16,
                    at_once: 8,
                    ..Freight::one(100_000)
                },
                |pair| {
                    let mut setup = Setup::new(pair, 2).both(QUICK).client("--conn 4");
                    setup.port_range = true;
                    setup
                },
            ),
            "20210922 has no port range",
        ),
        row(GROUP, "service on a Unix socket", FREIGHT, |pair| {
            Setup::new(pair, 2).both(QUICK).behind(Behind::Unix)
        })
        .everywhere(OK),
        Row::new(GROUP, "client on a Unix socket", unix_entry)
            .expect(Pair::FULMAR_KCPTUN, OK)
            .no(Pair::KCPTUN_FULMAR, "20210922 listens on TCP only")
            .expect(Pair::FULMAR, OK),
        row(GROUP, "IPv6", FREIGHT, |pair| {
            let mut setup = Setup::new(pair, 2).both(QUICK);
            setup.place = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
            setup
        })
        .own_network()
        .everywhere(OK),
        // The client dials an address of the server that the routing table would not choose for the answer.
        row(
            GROUP,
            "server on all addresses, several of its own",
            FREIGHT,
            wildcard,
        )
        .own_network()
        .no(Pair::FULMAR_KCPTUN, "")
        .expect(Pair::KCPTUN_FULMAR, OK)
        .expect(Pair::FULMAR, OK),
    ];
    for (title, flags) in [
        ("--tcp", ""),
        (
            "--tcp, no parity, aes-128",
            "--datashard 0 --parityshard 0 --crypt aes-128",
        ),
        ("--tcp, dscp 46, mtu 1200", "--dscp 46 --mtu 1200"),
    ] {
        rows.push(
            row(GROUP, title, Freight::one(1_000_000), move |pair| {
                Setup::new(pair, 2).both(QUICK).both("--tcp").both(flags)
            })
            .own_network()
            .everywhere(OK),
        );
    }
    rows.push(
        row(
            GROUP,
            "--tcp at the server, client without",
            Freight::one(1_000_000),
            |pair| Setup::new(pair, 2).both(QUICK).server("--tcp"),
        )
        .own_network()
        .everywhere(OK),
    );
    rows.push(
        Row::new(
            "Firewall rules of --tcp",
            "both ends stopped, then killed and started again",
            firewall,
        )
        .own_network()
        .expect(Pair::FULMAR, "removed at the end, or at the next start")
        .expect(Pair::KCPTUN, "stay"),
    );
    rows
}

/// Whether the rules that `--tcp` needs outlive the programs: after a stop, and after a crash and the next stop.
async fn firewall(context: Context) -> Observed {
    let setup = || Setup::new(context.pair, 2).both(QUICK).both("--tcp");
    let mut seen = Vec::new();
    for kill in [false, true, false] {
        let mut tunnel = context.tunnel(setup()).await?;
        load::exchange(tunnel.entry(), Kind::Noise, 1, 10_000, 10_000)
            .await
            .map_err(|fault| format!("{fault}; {}", tunnel.last_words()))?;
        if rules()? == 0 {
            return Err("the programs work without any rule: this row tests nothing".to_owned());
        }
        for process in [&mut tunnel.client, &mut tunnel.server] {
            if kill {
                process.kill();
            } else {
                process.signal("TERM").map_err(|e| e.to_string())?;
                process
                    .wait(CLOSE_LIMIT)
                    .await
                    .ok_or("SIGTERM does not end it")?;
            }
        }
        seen.push(rules()?);
    }
    match seen[..] {
        [0, _, 0] => Ok("removed at the end, or at the next start".to_owned()),
        [0, _, left] => Err(format!("{left} rules are left of the crash")),
        _ => Ok("stay".to_owned()),
    }
}

/// Rules that drop something in this network namespace, whichever tool made them.
fn rules() -> Result<usize, String> {
    let mut count = 0;
    let mut asked = false;
    for (program, arguments) in [
        ("nft", &["list", "ruleset"][..]),
        ("iptables-save", &[]),
        ("ip6tables-save", &[]),
    ] {
        if let Ok(output) = std::process::Command::new(program).args(arguments).output() {
            asked |= output.status.success();
            let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
            count += text
                .lines()
                .filter(|l| l.contains("drop") && !l.contains("policy"))
                .count();
        }
    }
    if asked {
        Ok(count)
    } else {
        Err("neither nft nor iptables-save works here".to_owned())
    }
}

fn wildcard(pair: Pair) -> Setup {
    let mut setup = Setup::new(pair, 2).both(QUICK);
    setup.wildcard = true;
    setup
}

async fn unix_entry(context: Context) -> Observed {
    let mut setup = Setup::new(context.pair, 2).both(QUICK);
    setup.unix_entry = true;
    let mut tunnel = context.tunnel(setup).await?;
    load::exchange_unix(&tunnel.unix_entry(), Kind::Noise, 1, 2_000_000, 2_000_000)
        .await
        .map_err(|fault| format!("{fault}; {}", tunnel.last_words()))?;
    settled(&mut tunnel, 1).await?;
    Ok(OK.to_owned())
}
