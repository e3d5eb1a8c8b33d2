//! Rows about what happens: half-closed connections, dead and slow services, mismatches, restarts, dark paths.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use fulmar_netem::Path;
use tokio::io::AsyncWriteExt;

use super::transfer::{CLOSE_LIMIT, settled};
use super::{Context, Observed, Row};
use crate::load::{self, Fault};
use crate::pattern::Kind;
use crate::process::Process;
use crate::program::{Pair, Program};
use crate::target::{End, Op, Request};
use crate::tunnel::{Behind, Setup, Tunnel};

const QUICK: &str = "--mode fast3 --sndwnd 512 --rcvwnd 512";
/// Within this time a program of ours names a mismatch or recovers.
const SECONDS: Duration = Duration::from_secs(15);

const NAMED: &str = "Fulmar's log names it";
const ADAPTS: &str = "works; Fulmar's server adapts and says so once";
const SILENT: &str = "nothing works, nothing is said";
const WHOLE: &str = "answer arrives whole";
const LOST: &str = "answer is lost";
const REQUEST_WHOLE: &str = "the rest arrives whole";
const REQUEST_LOST: &str = "the rest is lost";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = half_close();
    rows.extend(services());
    rows.extend(mismatches());
    rows.extend(disturbances());
    rows
}

fn half_close() -> Vec<Row> {
    const GROUP: &str = "Half-close";
    let mut rows = Vec::new();
    for smux in 1..=2 {
        for (title, op, think, with_kcptun) in [
            ("answers at once", Op::AnswerRequest, 0, WHOLE),
            ("answers after one second", Op::AnswerRequest, 1000, WHOLE),
            // kcptun's server cannot be told of the end without ending the answer as well.
            ("answers when it sees that end", Op::AnswerAfterEof, 0, LOST),
        ] {
            let title = format!("application ends its side, service {title}, smux {smux}");
            let made = Row::new(GROUP, title, move |context| {
                application_ends(context, smux, op, think)
            });
            rows.push(
                made.waits()
                    .expect(Pair::FULMAR_KCPTUN, with_kcptun)
                    .expect(Pair::KCPTUN_FULMAR, LOST)
                    .expect(Pair::FULMAR, WHOLE)
                    .expect(Pair::KCPTUN, LOST),
            );
        }
        let made = Row::new(
            GROUP,
            format!("service ends its side, application goes on, smux {smux}"),
            move |context: Context| service_ends(context, smux),
        );
        rows.push(
            made.expect(Pair::FULMAR_KCPTUN, REQUEST_LOST)
                .expect(Pair::KCPTUN_FULMAR, REQUEST_LOST)
                .expect(Pair::FULMAR, REQUEST_WHOLE)
                .expect(Pair::KCPTUN, REQUEST_LOST),
        );
    }
    rows.push(
        Row::new(
            GROUP,
            "application closes, service waits for it",
            application_closes,
        )
        .waits()
        .expect(Pair::FULMAR_KCPTUN, "service sees the end within a minute")
        .expect(Pair::KCPTUN_FULMAR, "service sees the end at once")
        .expect(Pair::FULMAR, "service sees the end at once")
        .expect(Pair::KCPTUN, "service sees the end at once"),
    );
    rows
}

/// The application closes a connection on which nothing is asked or answered any more.
async fn application_closes(context: Context) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, 2).patient().both(QUICK))
        .await?;
    drop(begin_echo(&tunnel).await?);
    let target = tunnel.target.as_ref().ok_or("no service")?;
    let observed = if target.wait_idle(Duration::from_secs(5)).await {
        "service sees the end at once"
    } else if target.wait_idle(Duration::from_secs(55)).await {
        "service sees the end within a minute"
    } else {
        return Err("the service never sees the end".to_owned());
    };
    settled(&mut tunnel, 1).await?;
    Ok(observed.to_owned())
}

/// The application sends, ends its side, and waits for the answer.
async fn application_ends(context: Context, smux: u8, op: Op, think_ms: u32) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, smux).patient().both(QUICK))
        .await?;
    let outcome = load::ask_and_end(tunnel.entry(), op, 1, 500_000, 700_000, think_ms).await;
    let target = tunnel.target.as_ref().ok_or("no service")?;
    if !target
        .wait(CLOSE_LIMIT, |b| b.records.get(&1).is_some_and(|r| r.closed))
        .await
    {
        return Err(format!(
            "the service never saw the end; {}",
            tunnel.last_words()
        ));
    }
    let record = target.book().records[&1];
    if record.received != 500_000 || record.wrong_at.is_some() {
        return Err(format!(
            "the service got {} of 500000 bytes",
            record.received
        ));
    }
    settled(&mut tunnel, 1).await?;
    match outcome {
        Ok(()) => Ok(WHOLE.to_owned()),
        Err(Fault::Short { .. } | Fault::Cut { .. }) => Ok(LOST.to_owned()),
        Err(fault) => Err(format!("{fault}; {}", tunnel.last_words())),
    }
}

/// The service sends, ends its side, and waits for the rest of the request.
async fn service_ends(context: Context, smux: u8) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, smux).patient().both(QUICK))
        .await?;
    let outcome = load::listen_then_talk(tunnel.entry(), 1, 5_000_000, 500_000).await;
    if let Err(fault @ (Fault::Wrong { .. } | Fault::Short { .. } | Fault::Late)) = outcome {
        return Err(format!(
            "what the service sent did not arrive: {fault}; {}",
            tunnel.last_words()
        ));
    }
    let target = tunnel.target.as_ref().ok_or("no service")?;
    if !target
        .wait(CLOSE_LIMIT, |b| b.records.get(&1).is_some_and(|r| r.closed))
        .await
    {
        return Err(format!(
            "the service never saw the end; {}",
            tunnel.last_words()
        ));
    }
    let record = target.book().records[&1];
    settled(&mut tunnel, 1).await?;
    Ok(if record.received == 5_000_000 {
        REQUEST_WHOLE
    } else {
        REQUEST_LOST
    }
    .to_owned())
}

fn services() -> Vec<Row> {
    const GROUP: &str = "Services and applications";
    const CLOSED: &str = "connection is closed at once";
    const FREE: &str = "all arrives, other streams are not held up";
    vec![
        Row::new(GROUP, "service refuses connections", refused).everywhere(CLOSED),
        Row::new(GROUP, "service takes 512 KiB/s, smux 2", slow_service).everywhere(FREE),
        Row::new(GROUP, "application cuts its connection", application_cuts)
            .everywhere("service sees the end, other streams go on"),
        Row::new(GROUP, "service cuts its connection", service_cuts)
            .expect(Pair::FULMAR_KCPTUN, "application sees an end")
            .expect(Pair::KCPTUN_FULMAR, "application sees an end")
            .expect(Pair::FULMAR, "application sees a reset")
            .expect(Pair::KCPTUN, "application sees an end"),
    ]
}

async fn refused(context: Context) -> Observed {
    let tunnel = context
        .tunnel(
            Setup::new(context.pair, 2)
                .both(QUICK)
                .behind(Behind::Nothing),
        )
        .await?;
    let before = Instant::now();
    match load::exchange(tunnel.entry(), Kind::Noise, 1, 1000, 1000).await {
        Err(
            Fault::Connect(ErrorKind::ConnectionReset)
            | Fault::Short { got: 0, .. }
            | Fault::Cut { .. }
            | Fault::Send { .. },
        ) if before.elapsed() < SECONDS => Ok("connection is closed at once".to_owned()),
        other => Err(format!("{other:?}; {}", tunnel.last_words())),
    }
}

async fn slow_service(context: Context) -> Observed {
    // A stream window well below the session's buffer: the slow stream cannot fill it.
    let setup = Setup::new(context.pair, 2)
        .both(QUICK)
        .both("--streambuf 262144");
    let mut tunnel = context.tunnel(setup).await?;
    let entry = tunnel.entry();
    let slow = tokio::spawn(load::slow_exchange(entry, 1, 1_500_000, 1000, 512));
    let target = tunnel.target.as_ref().ok_or("no service")?;
    if !target
        .wait(SECONDS, |b| {
            b.records.get(&1).is_some_and(|r| r.received > 0)
        })
        .await
    {
        return Err(format!(
            "the slow stream does not begin; {}",
            tunnel.last_words()
        ));
    }
    let crowd = load::crowd(entry, Kind::Noise, 10, 20, 4, 50_000, 50_000).await;
    crowd.map_err(|(stream, fault)| {
        format!("neighbour {stream}: {fault}; {}", tunnel.last_words())
    })?;
    // Order tells what a stopwatch would tell less reliably: the neighbours are done, the slow one is not.
    let unhindered = !slow.is_finished();
    slow.await
        .unwrap_or(Err(Fault::Late))
        .map_err(|fault| format!("slow stream: {fault}; {}", tunnel.last_words()))?;
    settled(&mut tunnel, 21).await?;
    Ok(if unhindered {
        "all arrives, other streams are not held up"
    } else {
        "all arrives, other streams wait"
    }
    .to_owned())
}

async fn application_cuts(context: Context) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, 2).both(QUICK))
        .await?;
    let request = Request {
        op: Op::Exchange,
        kind: Kind::Noise,
        stream: 1,
        up: 1 << 40,
        down: 1 << 40,
        option: 0,
    };
    let mut connection = load::begin(tunnel.entry(), &request)
        .await
        .map_err(|f| f.to_string())?;
    // A neighbour that is open while the other is cut, and still works afterwards.
    let neighbour = Request {
        op: Op::Echo,
        stream: 2,
        ..request
    };
    let mut quiet = load::begin(tunnel.entry(), &neighbour)
        .await
        .map_err(|f| f.to_string())?;
    load::echo_once(&mut quiet, neighbour.up_pattern(), 0, 1000)
        .await
        .map_err(|f| format!("neighbour: {f}"))?;
    let target = tunnel.target.as_ref().ok_or("no service")?;
    let proof = load::prove(&mut connection, &request).await;
    proof.map_err(|f| format!("{f}; {}", tunnel.last_words()))?;
    cut(connection).map_err(|e| e.to_string())?;
    if !target
        .wait(CLOSE_LIMIT, |b| b.records.get(&1).is_some_and(|r| r.closed))
        .await
    {
        return Err(format!(
            "the service's connection stays; {}",
            tunnel.last_words()
        ));
    }
    load::echo_once(&mut quiet, neighbour.up_pattern(), 1000, 100_000)
        .await
        .map_err(|f| format!("neighbour: {f}; {}", tunnel.last_words()))?;
    let _ = quiet.shutdown().await;
    drop(quiet);
    settled(&mut tunnel, 2).await?;
    Ok("service sees the end, other streams go on".to_owned())
}

/// Closes with a reset.
fn cut(connection: tokio::net::TcpStream) -> std::io::Result<()> {
    socket2::Socket::from(connection.into_std()?).set_linger(Some(Duration::ZERO))
}

async fn service_cuts(context: Context) -> Observed {
    let tunnel = context
        .tunnel(Setup::new(context.pair, 2).both(QUICK))
        .await?;
    let request = Request {
        op: Op::Reset,
        kind: Kind::Noise,
        stream: 1,
        up: 0,
        down: 1000,
        option: 0,
    };
    let mut connection = load::begin(tunnel.entry(), &request)
        .await
        .map_err(|f| f.to_string())?;
    let (mut rx, _tx) = connection.split();
    let outcome = async {
        load::receive(request.down_pattern(), 1000, &mut rx).await?;
        load::at_end(&mut rx, 1000).await
    };
    match outcome.await {
        Ok(()) => Ok("application sees an end".to_owned()),
        // A reset discards what lies in buffers on its way, so that part may be missing.
        Err(Fault::Cut { .. }) => Ok("application sees a reset".to_owned()),
        Err(Fault::Short { .. }) => Ok("application sees an end".to_owned()),
        Err(fault) => Err(format!("{fault}; {}", tunnel.last_words())),
    }
}

/// One setting that differs between the ends.
#[derive(Clone, Copy, Debug)]
struct Difference {
    title: &'static str,
    client: &'static str,
    server: &'static str,
    /// The flag that a warning names.
    flag: &'static str,
    /// What a server of ours says when it adapts; none where it cannot.
    adapts: Option<&'static str>,
}

const DIFFERENCES: [Difference; 6] = [
    Difference {
        title: "key",
        client: "--key one",
        server: "--key two",
        flag: "--key",
        adapts: None,
    },
    Difference {
        title: "cipher",
        client: "--crypt aes",
        server: "--crypt salsa20",
        flag: "--crypt",
        adapts: None,
    },
    Difference {
        title: "smux: client 1, server 2",
        client: "--smuxver 1",
        server: "--smuxver 2",
        flag: "--smuxver",
        adapts: Some("smux version"),
    },
    Difference {
        title: "smux: client 2, server 1",
        client: "--smuxver 2",
        server: "--smuxver 1",
        flag: "--smuxver",
        adapts: Some("smux version"),
    },
    Difference {
        title: "compression at the client only",
        client: "",
        server: "--nocomp",
        flag: "--nocomp",
        adapts: Some("compression"),
    },
    Difference {
        title: "compression at the server only",
        client: "--nocomp",
        server: "",
        flag: "--nocomp",
        adapts: Some("compression"),
    },
];

fn mismatches() -> Vec<Row> {
    DIFFERENCES
        .into_iter()
        .map(|difference| {
            let with_our_server = if difference.adapts.is_some() {
                ADAPTS
            } else {
                NAMED
            };
            Row::new("Settings that differ", difference.title, move |context| {
                mismatch(context, difference)
            })
            .waits()
            .expect(Pair::FULMAR_KCPTUN, NAMED)
            .expect(Pair::KCPTUN_FULMAR, with_our_server)
            .expect(Pair::FULMAR, with_our_server)
            .expect(Pair::KCPTUN, SILENT)
        })
        .collect()
}

/// Settings that do not fit: either the bytes arrive nevertheless, or a Fulmar end says what is wrong.
async fn mismatch(context: Context, difference: Difference) -> Observed {
    let Difference {
        client,
        server,
        flag,
        adapts,
        ..
    } = difference;
    let mut setup = Setup::new(context.pair, 2);
    if flag == "--smuxver" {
        // The row gives the version itself, and a flag may stand only once.
        setup.both.clear();
    }
    let mut tunnel = context
        .tunnel(setup.both(QUICK).client(client).server(server))
        .await?;
    let work = tokio::spawn(load::exchange(
        tunnel.entry(),
        Kind::Noise,
        1,
        20_000,
        20_000,
    ));
    let observed = match adapts {
        Some(phrase) if context.pair.server == Program::Fulmar => {
            let done = work.await.unwrap_or(Err(Fault::Late));
            done.map_err(|fault| format!("{fault}; {}", tunnel.last_words()))?;
            let said = warnings(&tunnel.server, phrase);
            if said.len() != 1 {
                return Err(format!("the server says it {} times: {said:?}", said.len()));
            }
            ADAPTS
        }
        _ if context.pair.has(Program::Fulmar) => {
            let until = Instant::now() + SECONDS;
            while !named(&tunnel, context.pair, flag) {
                if Instant::now() > until {
                    return Err(format!("no log names it; {}", tunnel.last_words()));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            NAMED
        }
        _ => match tokio::time::timeout(SECONDS, work).await {
            Ok(Ok(Ok(()))) => return Err("it works although nothing fits".to_owned()),
            _ => SILENT,
        },
    };
    tunnel.healthy()?;
    Ok(observed.to_owned())
}

/// True when the log of a Fulmar end has a warning that this flag differs. The settings that are printed at the start
/// are no warnings.
fn named(tunnel: &Tunnel, pair: Pair, flag: &str) -> bool {
    [(pair.client, &tunnel.client), (pair.server, &tunnel.server)]
        .into_iter()
        .filter(|(program, _)| *program == Program::Fulmar)
        .any(|(_, process)| {
            warnings(process, flag)
                .iter()
                .any(|line| line.contains("differ") || line.contains(&format!("make {flag}")))
        })
}

/// The warnings in a log of ours that contain this text.
fn warnings(process: &Process, text: &str) -> Vec<String> {
    let log = process.log();
    log.lines()
        .filter(|l| l.contains(" WARN ") && l.contains(text))
        .map(str::to_owned)
        .collect()
}

fn disturbances() -> Vec<Row> {
    const GROUP: &str = "Disturbances";
    const AGAIN: &str = "new connections work within seconds";
    const LATER: &str = "new connections fail for longer";
    const CUT: &str = "open connections end at once, new ones work";
    vec![
        Row::new(
            GROUP,
            "server starts after the first connection",
            late_server,
        )
        .everywhere("works once it is there"),
        Row::new(GROUP, "server restarts", server_restarts)
            .waits()
            .expect(Pair::FULMAR_KCPTUN, AGAIN)
            .expect(Pair::KCPTUN_FULMAR, LATER)
            .expect(Pair::FULMAR, AGAIN)
            .expect(Pair::KCPTUN, LATER),
        Row::new(GROUP, "client's address changes", address_changes)
            .waits()
            .expect(Pair::FULMAR_KCPTUN, AGAIN)
            .expect(Pair::KCPTUN_FULMAR, "open connections go on")
            .expect(Pair::FULMAR, "open connections go on")
            .expect(Pair::KCPTUN, LATER),
        Row::new(GROUP, "path is dark for 5 s", dark_path)
            .waits()
            .everywhere("nothing is lost"),
        Row::new(GROUP, "client sleeps for 75 s", client_sleeps)
            .waits()
            .expect(Pair::FULMAR_KCPTUN, CUT)
            .expect(Pair::KCPTUN_FULMAR, "open connections hang for longer")
            .expect(Pair::FULMAR, "open connections go on")
            .expect(Pair::KCPTUN, "open connections hang for longer"),
        Row::new(GROUP, "client is killed", client_killed)
            .waits()
            .everywhere("service sees the end within two minutes"),
    ]
}

async fn late_server(context: Context) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, 2).both(QUICK))
        .await?;
    tunnel.restart_client_alone().await?;
    let work = tokio::spawn(load::exchange(
        tunnel.entry(),
        Kind::Noise,
        1,
        500_000,
        500_000,
    ));
    // Until the client has opened its session.
    let seen = tunnel
        .client
        .logged(SECONDS, |l| {
            l.contains("contacting") || l.contains("smux version")
        })
        .await;
    tunnel.restart_server().await?;
    work.await.unwrap_or(Err(Fault::Late)).map_err(|fault| {
        format!(
            "{fault} (log line seen: {}); {}",
            seen.is_some(),
            tunnel.last_words()
        )
    })?;
    settled(&mut tunnel, 1).await?;
    Ok("works once it is there".to_owned())
}

async fn server_restarts(context: Context) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, 2).both(QUICK))
        .await?;
    let open = begin_echo(&tunnel).await?;
    tunnel.restart_server().await?;
    let observed = works_again(&tunnel).await;
    drop(open);
    tunnel.healthy()?;
    Ok(observed)
}

async fn address_changes(context: Context) -> Observed {
    let setup = Setup::new(context.pair, 2)
        .both(QUICK)
        .link(Path::default());
    let mut tunnel = context.tunnel(setup).await?;
    let mut open = begin_echo(&tunnel).await?;
    tunnel.relay.as_ref().ok_or("no relay")?.change_address();
    let goes_on = load::echo_once(&mut open, ECHO.up_pattern(), 100_000, 100_000);
    let (goes_on, again) =
        tokio::join!(tokio::time::timeout(SECONDS, goes_on), works_again(&tunnel));
    let observed = if matches!(goes_on, Ok(Ok(()))) {
        "open connections go on".to_owned()
    } else {
        again
    };
    drop(open);
    tunnel.healthy()?;
    Ok(observed)
}

/// What [`begin_echo`] asks for.
const ECHO: Request = Request {
    op: Op::Echo,
    kind: Kind::Noise,
    stream: 1,
    up: 0,
    down: 0,
    option: 0,
};

/// A connection that has proved to work and stays open.
async fn begin_echo(tunnel: &Tunnel) -> Result<tokio::net::TcpStream, String> {
    let mut open = load::begin(tunnel.entry(), &ECHO)
        .await
        .map_err(|f| f.to_string())?;
    load::echo_once(&mut open, ECHO.up_pattern(), 0, 100_000)
        .await
        .map_err(|f| format!("before the disturbance: {f}; {}", tunnel.last_words()))?;
    Ok(open)
}

/// Tries new connections, three seconds each, until one works.
async fn works_again(tunnel: &Tunnel) -> String {
    let until = Instant::now() + SECONDS;
    let mut stream = 100;
    while Instant::now() < until {
        stream += 1;
        let attempt = load::exchange(tunnel.entry(), Kind::Noise, stream, 20_000, 20_000);
        match tokio::time::timeout(Duration::from_secs(3), attempt).await {
            Ok(Ok(())) => return "new connections work within seconds".to_owned(),
            // Closed at once: do not spin.
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(_) => {}
        }
    }
    "new connections fail for longer".to_owned()
}

async fn dark_path(context: Context) -> Observed {
    let mut tunnel = context
        .tunnel(
            Setup::new(context.pair, 2)
                .both(QUICK)
                .link(Path::default()),
        )
        .await?;
    let work = tokio::spawn(load::slow_exchange(
        tunnel.entry(),
        1,
        1_000_000,
        1_000_000,
        400,
    ));
    let target = tunnel.target.as_ref().ok_or("no service")?;
    if !target
        .wait(SECONDS, |b| {
            b.records.get(&1).is_some_and(|r| r.received > 100_000)
        })
        .await
    {
        return Err(format!("nothing arrives; {}", tunnel.last_words()));
    }
    let relay = tunnel.relay.as_ref().ok_or("no relay")?;
    relay.set_dark(true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    relay.set_dark(false);
    work.await
        .unwrap_or(Err(Fault::Late))
        .map_err(|fault| format!("{fault}; {}", tunnel.last_words()))?;
    settled(&mut tunnel, 1).await?;
    Ok("nothing is lost".to_owned())
}

/// A process that does not run for longer than silence is borne: what becomes of a connection that was open, within ten seconds
/// of its waking.
async fn client_sleeps(context: Context) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, 2).both(QUICK))
        .await?;
    let mut open = begin_echo(&tunnel).await?;
    tunnel.client.signal("STOP").map_err(|e| e.to_string())?;
    tokio::time::sleep(Duration::from_secs(75)).await;
    tunnel.client.signal("CONT").map_err(|e| e.to_string())?;
    let goes_on = load::echo_once(&mut open, ECHO.up_pattern(), 100_000, 100_000);
    let observed = match tokio::time::timeout(Duration::from_secs(10), goes_on).await {
        Ok(Ok(())) => "open connections go on".to_owned(),
        Ok(Err(_)) => match works_again(&tunnel).await.as_str() {
            "new connections work within seconds" => {
                "open connections end at once, new ones work".to_owned()
            }
            other => other.to_owned(),
        },
        Err(_) => "open connections hang for longer".to_owned(),
    };
    drop(open);
    tunnel.healthy()?;
    Ok(observed)
}

async fn client_killed(context: Context) -> Observed {
    let mut tunnel = context
        .tunnel(Setup::new(context.pair, 2).both(QUICK))
        .await?;
    let open = begin_echo(&tunnel).await?;
    tunnel.client.kill();
    let target = tunnel.target.as_ref().ok_or("no service")?;
    // Two Fulmar ends wait for 120 s, from the last frame on.
    let limit = Duration::from_secs(125);
    let seen = target.wait(limit, |b| b.open == 0).await;
    let end = target.book().records[&1].end;
    drop(open);
    match (seen, end) {
        (true, Some(End::Clean | End::Cut)) => {
            Ok("service sees the end within two minutes".to_owned())
        }
        _ => Err(format!(
            "the service's connection stays open; server: {}",
            tunnel.server.tail(2)
        )),
    }
}
