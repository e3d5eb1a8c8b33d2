//! The texts of the status interface (docs/spec/kcptun-libev.md, section 15), from plain data: of `/healthy`, of
//! `/stats`, which remembers the last POST for its rates, and of `/metrics` in Prometheus's format.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fulmar_config::{gotime, localtime};
use fulmar_session::Counters;
use fulmar_session::counters::Kind;

use super::{Listed, StatsQuery};

/// The answer of `/healthy`: status code and text.
///
/// `listen`: this end is a client, which needs its peer. `rendezvous_pending`: the peer is not known yet. `last_heard`:
/// how long ago a datagram that could be opened came from the peer (others do not count, section 17, number 13);
/// `None`: never. `limit`: silence that is tolerated.
#[must_use]
pub fn health(
    listen: bool,
    rendezvous_pending: bool,
    last_heard: Option<Duration>,
    limit: Duration,
) -> (u16, String) {
    match last_heard {
        _ if !listen => (200, "healthy".into()),
        _ if rendezvous_pending => (503, "rendezvous pending".into()),
        None => (503, "peer unreachable".into()),
        Some(ago) if ago > limit => (503, format!("peer not responding ({}s)", ago.as_secs())),
        Some(ago) => (200, format!("healthy (peer seen {}s ago)", ago.as_secs())),
    }
}

/// The time of now as `/stats` shows it: `2026-11-20T20:46:23+0000`, local time.
#[must_use]
pub fn server_time() -> String {
    gotime::format("2006-01-02T15:04:05-0700", &localtime::now())
}

/// What a session is about, as `/stats` shows it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// `>`: being opened.
    HalfOpen,
    /// `-`: carries data.
    Connected,
    /// `.`: one side has finished.
    Linger,
    /// `x`: over, but remembered.
    TimeWait,
}

impl SessionState {
    const fn sign(self) -> char {
        match self {
            Self::HalfOpen => '>',
            Self::Connected => '-',
            Self::Linger => '.',
            Self::TimeWait => 'x',
        }
    }
}

/// Two directions.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

impl Pair {
    fn since(self, before: Self) -> Self {
        Self {
            rx: self.rx.saturating_sub(before.rx),
            tx: self.tx.saturating_sub(before.tx),
        }
    }
}

/// One session in `/stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its conversation.
    pub conv: u32,
    /// What it is about.
    pub state: SessionState,
    /// Address of the peer.
    pub peer: String,
    /// Seconds since its last traffic.
    pub seen_secs: u64,
    /// Smoothed round trip in milliseconds; `None` when its KCP is gone, shown as -1.
    pub rtt_ms: Option<u32>,
    /// Retransmission timeout in milliseconds; the same.
    pub rto_ms: Option<u32>,
    /// Segments queued.
    pub waitsnd: u64,
    /// Bytes written to the local TCP connection.
    pub rx: u64,
    /// Bytes read from it.
    pub tx: u64,
}

/// Sessions by state.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`SessionState::HalfOpen`].
    pub halfopen: u64,
    /// [`SessionState::Connected`].
    pub connected: u64,
    /// [`SessionState::Linger`].
    pub linger: u64,
    /// [`SessionState::TimeWait`].
    pub time_wait: u64,
    /// Segments queued, of all.
    pub waitsnd: u64,
}

/// Bytes since the start.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// At the local application.
    pub tcp: Pair,
    /// Datagrams of KCP after they were opened, before they are sealed.
    pub kcp: Pair,
    /// Datagrams as they are on the wire; with obfuscation, their headers included.
    pub pkt: Pair,
}

/// What an obfuscation context has seen of its peer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ContextState {
    /// `>`: nothing captured.
    Opening,
    /// `?`: captured, nothing authenticated.
    Captured,
    /// `-`: authenticated.
    Authenticated,
}

/// One obfuscation context in `/stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextView {
    /// Address of the peer.
    pub peer: String,
    /// What it has seen.
    pub state: ContextState,
    /// Seconds since its last packet.
    pub seen_secs: u64,
    /// Bytes received and sent.
    pub bytes: Pair,
    /// Packets marked by congestion.
    pub ecn: u64,
    /// Packets that echo such marks.
    pub ece: u64,
}

/// Obfuscation in `/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObfsView {
    /// Its contexts.
    pub contexts: Vec<ContextView>,
    /// Packets dropped since the start.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

/// What `/stats` shows, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsView {
    /// Name and version.
    pub banner: String,
    /// [`server_time`].
    pub server_time: String,
    /// All sessions.
    pub sessions: Vec<SessionView>,
    /// How many there are.
    pub counts: Counts,
    /// Bytes since the start.
    pub traffic: Traffic,
    /// Time since the start.
    pub uptime: Duration,
    /// Processor time since the start; `None` where it is not known.
    pub cpu: Option<Duration>,
    /// Obfuscation, if it is in use.
    pub obfs: Option<ObfsView>,
}

/// What was at the last POST; at first, all 0.
#[derive(Copy, Clone, Debug, Default)]
struct Sample {
    traffic: Traffic,
    uptime: Duration,
    cpu: Option<Duration>,
    dropped: u64,
    dropped_bytes: u64,
}

/// Remembers the last POST, to say how much there was in a second since.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Sample>);

impl Rates {
    /// The text of `/stats` (section 15). With `post` it has the rates since the last such call, or since the start.
    #[must_use]
    pub fn text(&self, view: &StatsView, query: StatsQuery, post: bool) -> String {
        let before = post.then(|| {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (dropped, dropped_bytes) = view
                .obfs
                .as_ref()
                .map_or((0, 0), |o| (o.dropped, o.dropped_bytes));
            std::mem::replace(
                &mut *last,
                Sample {
                    traffic: view.traffic,
                    uptime: view.uptime,
                    cpu: view.cpu,
                    dropped,
                    dropped_bytes,
                },
            )
        });
        let mut out = String::with_capacity(512 + 96 * view.sessions.len());
        if !query.nobanner {
            let _ = writeln!(out, "{}", view.banner);
        }
        let _ = writeln!(out, "server time: {}\n", view.server_time);
        write_sessions(&mut out, view, query.sessions);
        write_traffic(&mut out, view, before.as_ref());
        if let Some(obfs) = &view.obfs {
            write_obfs(&mut out, obfs, view.uptime, before.as_ref());
        }
        out
    }
}

// Writing to a string does not fail, so the results of `write!` say nothing here.

fn write_sessions(out: &mut String, view: &StatsView, listed: Listed) {
    let shown = |state| match listed {
        Listed::None => false,
        Listed::Connected => state == SessionState::Connected,
        Listed::Active => state != SessionState::TimeWait,
        Listed::All => true,
    };
    let ms = |value: Option<u32>| value.map_or(-1, i64::from);
    for s in view.sessions.iter().filter(|s| shown(s.state)) {
        let _ = writeln!(
            out,
            "[{:08X}] {} peer={} seen={}s rtt={} rto={} waitsnd={} rx/tx={}/{}",
            s.conv,
            s.state.sign(),
            s.peer,
            s.seen_secs,
            ms(s.rtt_ms),
            ms(s.rto_ms),
            s.waitsnd,
            size(s.rx as f64),
            size(s.tx as f64),
        );
    }
    let c = &view.counts;
    let all = [c.halfopen, c.connected, c.linger, c.time_wait];
    let _ = writeln!(
        out,
        "  = {} sessions: {} halfopen, {} connected, {} linger, {} time_wait; waitsnd={}\n",
        all.iter().fold(0_u64, |sum, n| sum.saturating_add(*n)),
        c.halfopen,
        c.connected,
        c.linger,
        c.time_wait,
        c.waitsnd,
    );
}

fn write_traffic(out: &mut String, view: &StatsView, before: Option<&Sample>) {
    let Traffic { tcp, kcp, pkt } = view.traffic;
    let total = |p: Pair| format!("{}, {}", size(p.rx as f64), size(p.tx as f64));
    let totals = format!(
        "[total] tcp: {}; kcp: {}; pkt: {}",
        total(tcp),
        total(kcp),
        total(pkt)
    );
    let uptime = duration(view.uptime);
    let Some(before) = before else {
        let _ = writeln!(out, "{totals}\n  = uptime: {uptime}");
        return;
    };
    let elapsed = view.uptime.saturating_sub(before.uptime);
    let rate = |now: Pair, then: Pair| {
        let p = now.since(then);
        format!(
            "{}, {}",
            per_second(p.rx, elapsed),
            per_second(p.tx, elapsed)
        )
    };
    let (app, wire) = (tcp.since(before.traffic.tcp), kcp.since(before.traffic.kcp));
    // What KCP received is what the application is sent.
    let _ = writeln!(
        out,
        "[rx,tx] tcp: {}; kcp: {}; efficiency: {}, {}",
        rate(tcp, before.traffic.tcp),
        rate(kcp, before.traffic.kcp),
        percent(app.tx as f64, wire.rx as f64),
        percent(app.rx as f64, wire.tx as f64),
    );
    let load = match view.cpu {
        Some(cpu) if !elapsed.is_zero() => {
            let busy = cpu.saturating_sub(before.cpu.unwrap_or_default());
            percent(busy.as_secs_f64(), elapsed.as_secs_f64())
        }
        _ => "(unknown)".into(),
    };
    let _ = writeln!(
        out,
        "{totals}\n  = load: {load} (last {}); pkt: {}; uptime: {uptime}",
        duration(elapsed),
        rate(pkt, before.traffic.pkt),
    );
}

fn write_obfs(out: &mut String, obfs: &ObfsView, uptime: Duration, before: Option<&Sample>) {
    out.push('\n');
    let mut authenticated = 0;
    for c in &obfs.contexts {
        let sign = match c.state {
            ContextState::Opening => '>',
            ContextState::Captured => '?',
            ContextState::Authenticated => '-',
        };
        authenticated += usize::from(c.state == ContextState::Authenticated);
        let _ = writeln!(
            out,
            "[{}] {sign} seen={}s rx/tx={}/{} ecn/ece={}/{}",
            c.peer,
            c.seen_secs,
            size(c.bytes.rx as f64),
            size(c.bytes.tx as f64),
            c.ecn,
            c.ece,
        );
    }
    let others = obfs.contexts.len() - authenticated;
    let _ = write!(out, "  = {authenticated}(+{others}) contexts; drop ");
    if let Some(before) = before {
        let elapsed = uptime.saturating_sub(before.uptime);
        let packets = obfs.dropped.saturating_sub(before.dropped);
        let bytes = obfs.dropped_bytes.saturating_sub(before.dropped_bytes);
        let _ = write!(
            out,
            "{:.1}/s ({}), ",
            over(packets as f64, elapsed.as_secs_f64()),
            per_second(bytes, elapsed)
        );
    }
    let _ = writeln!(out, "{}", size(obfs.dropped_bytes as f64));
}

/// A quotient; 0 where there is nothing to divide by.
fn over(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

fn percent(part: f64, whole: f64) -> String {
    match whole > 0.0 {
        true => format!("{:.1}%", part / whole * 100.0),
        false => "(unknown)".into(),
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> String {
    format!("{}/s", size(over(bytes as f64, elapsed.as_secs_f64())))
}

/// A number of bytes: whole ones below 8192, then three digits or more of the unit in which it is 8 or more.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 8192.0 {
        return format!("{bytes:.0}B");
    }
    let (mut value, mut unit) = (bytes, "B");
    for next in UNITS {
        if value < 8192.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    match value {
        v if v < 9.995 => format!("{v:.2}{unit}"),
        v if v < 99.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// A length of time: milliseconds below ten seconds, then `12.3s`, from a minute on `1:02:03`, with days `4d 1:02:03`.
fn duration(d: Duration) -> String {
    let s = d.as_secs();
    let clock = format!("{}:{:02}:{:02}", s / 3600 % 24, s / 60 % 60, s % 60);
    match s {
        0..10 => format!("{}ms", d.as_millis()),
        10..60 => format!("{s}.{}s", d.subsec_millis() / 100),
        60..86400 => clock,
        _ => format!("{}d {clock}", s / 86400),
    }
}

/// The text of `/metrics`, in the text format of Prometheus: all [`Counters`], then `extra`, each with its name without
/// `fulmar_` and, of a [`Kind::Counter`], without `_total`; a sentence of help; its kind; its value.
#[must_use]
pub fn metrics_text(counters: &Counters, extra: &[(&str, &str, Kind, u64)]) -> String {
    let mut out = String::with_capacity(12 * 1024);
    for (about, value) in Counters::ABOUT.iter().zip(counters.values()) {
        write_metric(&mut out, about.name, about.help(), about.kind, value);
    }
    for (name, help, kind, value) in extra {
        write_metric(&mut out, name, help, *kind, *value);
    }
    out
}

fn write_metric(out: &mut String, name: &str, help: &str, kind: Kind, value: u64) {
    let (kind, end) = match kind {
        Kind::Counter => ("counter", "_total"),
        Kind::Gauge => ("gauge", ""),
    };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = write!(
        out,
        "# HELP fulmar_{name}{end} {help}\n# TYPE fulmar_{name}{end} {kind}\nfulmar_{name}{end} {value}\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::http_date;
    use std::collections::HashSet;

    /// The example of section 15.
    fn example() -> StatsView {
        StatsView {
            banner: "fulmar 1.2.3".into(),
            server_time: "2026-11-20T20:46:23+0000".into(),
            sessions: vec![SessionView {
                conv: 0x82E0_3659,
                state: SessionState::Connected,
                peer: "10.9.0.2:8080".into(),
                seen_secs: 1,
                rtt_ms: Some(0),
                rto_ms: Some(100),
                waitsnd: 0,
                rx: 17,
                tx: 22,
            }],
            counts: Counts {
                connected: 1,
                ..Counts::default()
            },
            traffic: Traffic {
                tcp: Pair { rx: 22, tx: 17 },
                kcp: Pair { rx: 172, tx: 158 },
                pkt: Pair { rx: 1088, tx: 702 },
            },
            uptime: Duration::from_millis(4617),
            cpu: None,
            obfs: Some(ObfsView {
                contexts: vec![ContextView {
                    peer: "10.9.0.2:8080".into(),
                    state: ContextState::Authenticated,
                    seen_secs: 1,
                    bytes: Pair { rx: 452, tx: 702 },
                    ecn: 0,
                    ece: 0,
                }],
                dropped: 8,
                dropped_bytes: 424,
            }),
        }
    }

    #[test]
    fn the_text_is_that_of_the_specification() {
        let text = Rates::default().text(&example(), StatsQuery::default(), true);
        let want = "\
server time: 2026-11-20T20:46:23+0000

[82E03659] - peer=10.9.0.2:8080 seen=1s rtt=0 rto=100 waitsnd=0 rx/tx=17B/22B
  = 1 sessions: 0 halfopen, 1 connected, 0 linger, 0 time_wait; waitsnd=0

[rx,tx] tcp: 5B/s, 4B/s; kcp: 37B/s, 34B/s; efficiency: 9.9%, 13.9%
[total] tcp: 22B, 17B; kcp: 172B, 158B; pkt: 1088B, 702B
  = load: (unknown) (last 4617ms); pkt: 236B/s, 152B/s; uptime: 4617ms

[10.9.0.2:8080] - seen=1s rx/tx=452B/702B ecn/ece=0/0
  = 1(+0) contexts; drop 1.7/s (92B/s), 424B
";
        assert_eq!(text, want);
    }

    #[test]
    fn only_a_post_has_rates_and_moves_their_start() {
        let rates = Rates::default();
        let (mut view, query) = (example(), StatsQuery::default());
        view.obfs = None;
        view.cpu = Some(Duration::from_secs(1));
        let get = rates.text(&view, query, false);
        assert!(
            get.ends_with("pkt: 1088B, 702B\n  = uptime: 4617ms\n"),
            "{get}"
        );
        assert!(!get.contains("[rx,tx]") && !get.contains("load"), "{get}");
        let _ = rates.text(&view, query, true);
        // Two seconds later.
        view.uptime += Duration::from_secs(2);
        view.traffic.tcp.rx += 684 << 20;
        view.cpu = Some(Duration::from_millis(1500));
        let post = rates.text(&view, query, true);
        assert!(
            post.contains("[rx,tx] tcp: 342MiB/s, 0B/s; kcp: 0B/s, 0B/s;"),
            "{post}"
        );
        assert!(post.contains("= load: 25.0% (last 2000ms)"), "{post}");
        // At once: nothing to divide by.
        let again = rates.text(&view, query, true);
        assert!(
            again.contains("load: (unknown) (last 0ms); pkt: 0B/s, 0B/s"),
            "{again}"
        );
    }

    #[test]
    fn which_sessions_are_listed() {
        let mut view = example();
        let states = [
            SessionState::HalfOpen,
            SessionState::Connected,
            SessionState::Linger,
            SessionState::TimeWait,
        ];
        let one = view.sessions[0].clone();
        view.sessions = states
            .map(|state| SessionView {
                state,
                rtt_ms: None,
                ..one.clone()
            })
            .into();
        let signs = |query: &str| -> String {
            let text = Rates::default().text(&view, StatsQuery::parse(query), false);
            text.lines()
                .filter(|line| line.starts_with("[82E03659]"))
                .map(|line| {
                    assert!(line.contains("rtt=-1 "), "{line}");
                    line.as_bytes()[11] as char
                })
                .collect()
        };
        for (query, want) in [
            ("", "-"),
            ("sessions=none", ""),
            ("sessions=0", ""),
            ("sessions=connected", "-"),
            ("x=y&sessions=2&nobanner", ">-."),
            ("sessions=active", ">-."),
            ("sessions=all", ">-.x"),
            ("sessions=3", ">-.x"),
            ("sessions=nonsense", "-"),
        ] {
            assert_eq!(signs(query), want, "{query}");
        }
        let banner = |query| {
            let text = Rates::default().text(&view, StatsQuery::parse(query), false);
            text.starts_with("fulmar 1.2.3\nserver time")
        };
        for query in ["nobanner=0", "nobanner=false", "nobanner=1&nobanner=no"] {
            assert!(banner(query), "{query}");
        }
        for query in [
            "",
            "nobanner",
            "nobanner=1",
            "nobanner=yes",
            "nobanner=on",
            "nobanner=t",
        ] {
            assert!(!banner(query), "{query}");
        }
    }

    #[test]
    fn sizes_and_times() {
        for (bytes, want) in [
            (0, "0B"),
            (8191, "8191B"),
            (8192, "8.00KiB"),
            (100_000, "97.7KiB"),
            (342 << 20, "342MiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(size(bytes as f64), want);
        }
        for (ms, want) in [
            (0, "0ms"),
            (9999, "9999ms"),
            (12_345, "12.3s"),
            (3_723_000, "1:02:03"),
            (2 * 86_400_000 + 61_000, "2d 0:01:01"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), want);
        }
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(seconds), want);
        }
    }

    #[test]
    fn health_in_words() {
        let s = Duration::from_secs;
        let limit = s(75);
        assert_eq!(health(false, true, None, limit), (200, "healthy".into()));
        assert_eq!(
            health(true, true, None, limit),
            (503, "rendezvous pending".into())
        );
        assert_eq!(
            health(true, false, None, limit),
            (503, "peer unreachable".into())
        );
        assert_eq!(
            health(true, false, Some(s(76)), limit),
            (503, "peer not responding (76s)".into())
        );
        assert_eq!(
            health(true, false, Some(s(75)), limit),
            (200, "healthy (peer seen 75s ago)".into())
        );
    }

    #[test]
    fn metrics_are_prometheus() {
        let counters = Counters {
            in_pkts: 7,
            curr_estab: 2,
            ..Counters::default()
        };
        let extra = [("uptime_seconds", "Time since\nthe start.", Kind::Gauge, 5)];
        let text = metrics_text(&counters, &extra);
        assert!(text.ends_with('\n'));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3 * (Counters::LEN + extra.len()));
        let (mut names, mut values) = (HashSet::new(), Vec::new());
        for triple in lines.chunks(3) {
            let [help, kind, value] = triple else {
                panic!("{triple:?}");
            };
            let (name, words) = help
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .expect("help");
            assert!(!words.is_empty());
            assert!(name.starts_with("fulmar_"), "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect("type");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(matches!(kind, "counter" | "gauge"));
            let value = value.strip_prefix(&format!("{name} ")).expect("value");
            values.push((name, value.parse::<u64>().expect("number")));
            assert!(names.insert(name), "{name} twice");
        }
        for expected in [
            ("fulmar_in_pkts_total", 7),
            ("fulmar_curr_estab", 2),
            ("fulmar_uptime_seconds", 5),
        ] {
            assert!(values.contains(&expected), "{expected:?}");
        }
    }
}
