//! The firewall rules that keep our own kernel quiet.
//!
//! Behind every raw TCP flow is a connection of the kernel, which would answer the raw segments that it does
//! not understand. It is told to send with a TTL of 1, and a rule of this host drops what leaves with that
//! TTL from the flow's port; raw segments have a normal TTL and pass.
//!
//! Where no connection of the kernel stands behind the segments ([`crate::Obfs`]), it is kept from seeing those
//! that arrive.
//!
//! With nftables the rule lives in a table of its own, with iptables it carries a comment. Both bear a name
//! that says which process made it: process namespace, number and start time. A rule whose process is gone,
//! by a crash or `kill -9`, is removed by whoever sets the next one. No file is needed, and a rule of a
//! process in another container, which cannot be seen from here, is left alone.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What every name begins with.
const PREFIX: &str = "fulmar";

/// Where administrators' programs are when `PATH` of a service does not say.
const PLACES: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// Which packets are dropped.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    /// Those of our kernel, known by a TTL or hop limit of 1, before they leave.
    Leaving,
    /// Those that arrive, before our kernel sees them. Packet sockets have seen them by then.
    Arriving,
}

impl Hook {
    const ALL: [Self; 2] = [Self::Leaving, Self::Arriving];

    /// The name of the chain of iptables.
    const fn chain(self) -> &'static str {
        match self {
            Self::Leaving => "OUTPUT",
            Self::Arriving => "INPUT",
        }
    }
}

/// Which TCP packets are dropped, of this flow or port.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    pub(crate) hook: Hook,
    /// Our side; the address counts unless it is a wildcard, the port unless it is 0.
    pub(crate) local: SocketAddr,
    /// The peer, of a client.
    pub(crate) remote: Option<SocketAddr>,
}

/// Why there is no rule.
#[derive(Debug)]
#[non_exhaustive]
pub enum FirewallError {
    /// Neither `nft` nor `iptables` (for IPv6: `ip6tables`) is installed.
    NoProgram,
    /// The program did not accept the rule; needs `CAP_NET_ADMIN` and a kernel with the filter built in.
    Refused {
        /// Which program was asked last.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

impl fmt::Display for FirewallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram => f.write_str("neither nft nor iptables is installed"),
            Self::Refused { program, message } => {
                write!(f, "{program} refused the rule: {message}")
            }
        }
    }
}

impl std::error::Error for FirewallError {}

/// A rule in force; removed when dropped.
#[derive(Debug)]
pub(crate) struct Firewall {
    backend: Backend,
    name: String,
}

#[derive(Debug)]
enum Backend {
    Nft,
    Iptables {
        program: &'static str,
        hook: Hook,
        rule: Vec<String>,
    },
    Removed,
}

impl Firewall {
    /// Puts `rule` in force, by nftables or else by iptables.
    pub(crate) fn install(rule: &Rule) -> Result<Self, FirewallError> {
        remove_stale();
        let name = Owner::this().rule_name();

        let mut error = match run("nft", &["-f", "-"], Some(&nft_script(&name, rule))) {
            Ok(_) => {
                return Ok(Self {
                    backend: Backend::Nft,
                    name,
                });
            }
            Err(Failure::Missing) => FirewallError::NoProgram,
            Err(Failure::Refused(message)) => FirewallError::Refused {
                program: "nft",
                message,
            },
        };

        let program = iptables(rule.local.is_ipv6());
        let words = iptables_rule(&name, rule);
        match run(program, &with_command("-I", rule.hook, &words), None) {
            Ok(_) => {
                return Ok(Self {
                    backend: Backend::Iptables {
                        program,
                        hook: rule.hook,
                        rule: words,
                    },
                    name,
                });
            }
            Err(Failure::Missing) => {}
            Err(Failure::Refused(message)) => error = FirewallError::Refused { program, message },
        }
        Err(error)
    }

    /// Which program put the rule in force, and the rule's name there.
    pub(crate) fn describe(&self) -> String {
        match &self.backend {
            Backend::Nft => format!("nft table {}", self.name),
            Backend::Iptables { program, .. } => format!("{program} rule {}", self.name),
            Backend::Removed => "none".to_owned(),
        }
    }

    /// Takes the rule out of force. That it is gone already is no error.
    pub(crate) fn remove(&mut self) {
        match std::mem::replace(&mut self.backend, Backend::Removed) {
            Backend::Nft => {
                let _ = delete_table(&self.name);
            }
            Backend::Iptables {
                program,
                hook,
                rule,
            } => {
                let _ = run(program, &with_command("-D", hook, &rule), None);
            }
            Backend::Removed => {}
        }
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes every rule that this process has made and returns how many; for the end of a program.
///
/// It asks the firewall programs what there is, so it needs nothing but time (some 20 ms) and may be called
/// from wherever a program handles its signals, though not from a signal handler in the narrow sense. Dropping
/// a [`crate::RawTcp`] removes its rule as well.
pub fn cleanup() -> usize {
    let this = Owner::this();
    remove_if(|owner| *owner == this)
}

/// Removes the rules of processes that are gone and returns how many. Done before every new rule.
pub fn remove_stale() -> usize {
    let this = Owner::this();
    if this.namespace == 0 {
        // Without /proc nobody can be told dead.
        return 0;
    }
    remove_if(|owner| owner.namespace == this.namespace && !owner.is_alive())
}

fn remove_if(is_ours: impl Fn(&Owner) -> bool) -> usize {
    let mut removed = 0;
    if let Ok(tables) = run("nft", &["list", "tables"], None) {
        for name in tables.lines().filter_map(table_name) {
            if Owner::of_rule(name).is_some_and(|owner| is_ours(&owner))
                && delete_table(name).is_ok()
            {
                removed += 1;
            }
        }
    }
    for program in ["iptables", "ip6tables"] {
        for hook in Hook::ALL {
            let Ok(rules) = run(program, &["-w", "5", "-S", hook.chain()], None) else {
                continue;
            };
            for words in rules.lines().filter_map(|line| listed_rule(hook, line)) {
                let ours = words
                    .iter()
                    .any(|word| Owner::of_rule(word).is_some_and(|owner| is_ours(&owner)));
                if ours && run(program, &with_command("-D", hook, &words), None).is_ok() {
                    removed += 1;
                }
            }
        }
    }
    removed
}

/// Who made a rule.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Owner {
    /// The number of the process namespace; 0: unknown.
    namespace: u64,
    process: u32,
    /// When the process started, in ticks since the system did: numbers of processes are used again.
    started: u64,
}

impl Owner {
    fn this() -> Self {
        let process = std::process::id();
        Self {
            namespace: std::fs::read_link("/proc/self/ns/pid")
                .ok()
                .and_then(|link| {
                    let text = link.to_string_lossy().into_owned();
                    text.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
                })
                .unwrap_or(0),
            process,
            started: start_time(process).unwrap_or(0),
        }
    }

    /// A name for a new rule of this owner.
    fn rule_name(&self) -> String {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        format!(
            "{PREFIX}_{}_{}_{}_{}",
            self.namespace,
            self.process,
            self.started,
            SERIAL.fetch_add(1, Relaxed)
        )
    }

    /// The owner of the rule of that name, if it is one of ours.
    fn of_rule(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('_')?.split('_');
        let owner = Self {
            namespace: parts.next()?.parse().ok()?,
            process: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        let _serial: u32 = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(owner)
    }

    fn is_alive(&self) -> bool {
        start_time(self.process).is_some_and(|started| started == self.started)
    }
}

/// When a process started, if there is such a process.
fn start_time(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may contain anything; the start time is
    // the twenty-second.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

impl Rule {
    /// Whose words are whose: the sides that a packet of this rule comes from and goes to.
    fn ends(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        match self.hook {
            Hook::Leaving => (Some(self.local), self.remote),
            Hook::Arriving => (self.remote, Some(self.local)),
        }
    }

    /// The rule in the words of nftables, for whoever has to set it by hand.
    pub(crate) fn words(&self) -> String {
        let family = if self.local.is_ipv6() { "ip6" } else { "ip" };
        let mut words = Vec::new();
        if self.hook == Hook::Leaving {
            words.push(if self.local.is_ipv6() {
                "ip6 hoplimit 1".to_owned()
            } else {
                "ip ttl 1".to_owned()
            });
        } else if self.local.is_ipv6() {
            words.push("meta nfproto ipv6".to_owned());
        } else {
            words.push("meta nfproto ipv4".to_owned());
        }
        let (from, to) = self.ends();
        // Our side first.
        let mut ends = [(from, "s"), (to, "d")];
        if self.hook == Hook::Arriving {
            ends.reverse();
        }
        for (end, letter) in ends {
            let Some(end) = end else { continue };
            let port = (end.port() != 0).then(|| format!("tcp {letter}port {}", end.port()));
            let ip =
                (!end.ip().is_unspecified()).then(|| format!("{family} {letter}addr {}", end.ip()));
            if Some(end) == self.remote {
                words.extend(ip.into_iter().chain(port));
            } else {
                words.extend(port.into_iter().chain(ip));
            }
        }
        words.push("drop".to_owned());
        words.join(" ")
    }
}

fn nft_script(name: &str, rule: &Rule) -> String {
    let hook = match rule.hook {
        Hook::Leaving => "output",
        Hook::Arriving => "input",
    };
    format!(
        "table inet {name} {{\n chain {hook} {{\n  type filter hook {hook} priority 0; policy accept;\n  {}\n }}\n}}\n",
        rule.words()
    )
}

fn iptables_rule(name: &str, rule: &Rule) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
    let host = |ip: IpAddr| format!("{ip}/{}", if ip.is_ipv6() { 128 } else { 32 });
    let (from, to) = rule.ends();
    for (end, flag) in [(from, "-s"), (to, "-d")] {
        if let Some(end) = end.filter(|end| !end.ip().is_unspecified()) {
            add(flag, host(end.ip()));
        }
    }
    add("-p", "tcp".to_owned());
    add("-m", "tcp".to_owned());
    for (end, flag) in [(from, "--sport"), (to, "--dport")] {
        if let Some(end) = end.filter(|end| end.port() != 0) {
            add(flag, end.port().to_string());
        }
    }
    if rule.hook == Hook::Leaving {
        if rule.local.is_ipv6() {
            add("-m", "hl".to_owned());
            add("--hl-eq", "1".to_owned());
        } else {
            add("-m", "ttl".to_owned());
            add("--ttl-eq", "1".to_owned());
        }
    }
    add("-m", "comment".to_owned());
    add("--comment", name.to_owned());
    add("-j", "DROP".to_owned());
    words
}

fn iptables(v6: bool) -> &'static str {
    if v6 { "ip6tables" } else { "iptables" }
}

/// The arguments that insert (`-I`) or delete (`-D`) a rule, waiting for others that change rules.
fn with_command<'a>(command: &'a str, hook: Hook, rule: &'a [String]) -> Vec<&'a str> {
    let mut arguments = vec!["-w", "5", command, hook.chain()];
    arguments.extend(rule.iter().map(String::as_str));
    arguments
}

/// The name in a line of `nft list tables`, if the table is of the family that ours are.
fn table_name(line: &str) -> Option<&str> {
    line.trim().strip_prefix("table inet ")
}

/// The rule in a line of `iptables -S` with a chain. Our rules have no quoted words with spaces; other people's
/// are never deleted, so it does not matter how theirs are split.
fn listed_rule(hook: Hook, line: &str) -> Option<Vec<String>> {
    let rule = line
        .trim()
        .strip_prefix("-A ")?
        .strip_prefix(hook.chain())?
        .strip_prefix(' ')?;
    Some(
        rule.split_whitespace()
            .map(|word| word.trim_matches('"').to_owned())
            .collect(),
    )
}

fn delete_table(name: &str) -> Result<String, Failure> {
    run("nft", &["delete", "table", "inet", name], None)
}

#[derive(Debug)]
enum Failure {
    Missing,
    Refused(String),
}

/// Runs a firewall program and returns what it printed.
fn run(program: &'static str, arguments: &[&str], input: Option<&str>) -> Result<String, Failure> {
    match output(program, arguments, input) {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("no reason given");
            Err(Failure::Refused(line.trim().to_owned()))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Failure::Missing),
        Err(e) => Err(Failure::Refused(e.to_string())),
    }
}

fn output(program: &str, arguments: &[&str], input: Option<&str>) -> io::Result<Output> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(OsString::from(PLACES));
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that does not read its input says why when it ends.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(local: &str, remote: &str) -> Rule {
        Rule {
            hook: Hook::Leaving,
            local: local.parse().expect("address"),
            remote: Some(remote.parse().expect("address")),
        }
    }

    fn server(local: &str) -> Rule {
        Rule {
            hook: Hook::Leaving,
            local: local.parse().expect("address"),
            remote: None,
        }
    }

    #[test]
    fn names_tell_their_owner() {
        let owner = Owner {
            namespace: 4_026_531_836,
            process: 77,
            started: 123_456,
        };
        let (one, two) = (owner.rule_name(), owner.rule_name());
        assert_ne!(one, two);
        assert_eq!(Owner::of_rule(&one), Some(owner));
        for other in [
            "fulmar",
            "fulmar_1_2_3",
            "fulmar_1_2_3_4_5",
            "fulmar_1_2_x_4",
            "filter",
            "notfulmar_1_2_3_4",
        ] {
            assert_eq!(Owner::of_rule(other), None, "{other}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_lives_and_its_predecessor_does_not() {
        let this = Owner::this();
        assert!(this.namespace != 0 && this.started != 0);
        assert!(this.is_alive());
        // The same number, but it started at another time.
        let earlier = Owner {
            started: this.started - 1,
            ..this
        };
        assert!(!earlier.is_alive());
    }

    #[test]
    fn scripts() {
        let script = nft_script("n", &client("192.0.2.1:5", "192.0.2.2:6"));
        assert!(
            script.contains(
                "ip ttl 1 tcp sport 5 ip saddr 192.0.2.1 ip daddr 192.0.2.2 tcp dport 6 drop"
            ),
            "{script}"
        );
        let script = nft_script("n", &server("[::]:7"));
        assert!(
            script.contains("  ip6 hoplimit 1 tcp sport 7 drop"),
            "{script}"
        );
    }

    #[test]
    fn iptables_lists_a_rule_as_it_was_given() {
        let rule = iptables_rule("fulmar_1_2_3_4", &client("192.0.2.1:5", "192.0.2.2:6"));
        // As `iptables -S` of release 1.8.9 prints it.
        let line = "-A OUTPUT -s 192.0.2.1/32 -d 192.0.2.2/32 -p tcp -m tcp --sport 5 --dport 6 -m ttl --ttl-eq 1 \
                    -m comment --comment fulmar_1_2_3_4 -j DROP";
        assert_eq!(listed_rule(Hook::Leaving, line).expect("rule"), rule);
        assert_eq!(listed_rule(Hook::Leaving, "-P OUTPUT ACCEPT"), None);
        let rule = iptables_rule("n", &server("[2001:db8::1]:7"));
        assert_eq!(
            rule.join(" "),
            "-s 2001:db8::1/128 -p tcp -m tcp --sport 7 -m hl --hl-eq 1 -m comment --comment n -j DROP"
        );
    }

    #[test]
    fn rules_for_what_arrives() {
        let arriving = |rule: Rule| Rule {
            hook: Hook::Arriving,
            ..rule
        };
        let rule = arriving(server("0.0.0.0:7"));
        assert_eq!(rule.words(), "meta nfproto ipv4 tcp dport 7 drop");
        assert!(nft_script("n", &rule).contains("chain input {\n  type filter hook input "));
        assert_eq!(
            iptables_rule("n", &rule).join(" "),
            "-p tcp -m tcp --dport 7 -m comment --comment n -j DROP"
        );
        let rule = arriving(client("[2001:db8::1]:0", "[2001:db8::2]:7"));
        assert_eq!(
            rule.words(),
            "meta nfproto ipv6 ip6 daddr 2001:db8::1 ip6 saddr 2001:db8::2 tcp sport 7 drop"
        );
        let words = iptables_rule("fulmar_1_2_3_4", &rule);
        assert_eq!(
            words.join(" "),
            "-s 2001:db8::2/128 -d 2001:db8::1/128 -p tcp -m tcp --sport 7 -m comment --comment fulmar_1_2_3_4 -j DROP"
        );
        let line = format!("-A INPUT {}", words.join(" "));
        assert_eq!(listed_rule(Hook::Arriving, &line), Some(words));
        assert_eq!(listed_rule(Hook::Leaving, &line), None);
    }

    #[test]
    fn tables_of_other_families_are_not_ours() {
        assert_eq!(
            table_name("table inet fulmar_1_2_3_4"),
            Some("fulmar_1_2_3_4")
        );
        assert_eq!(table_name("table ip fulmar_1_2_3_4"), None);
    }

    #[test]
    fn a_missing_program_is_told_from_a_refusal() {
        assert!(matches!(
            run("no-such-program-of-fulmar", &[], None),
            Err(Failure::Missing)
        ));
        #[cfg(unix)]
        assert!(matches!(run("false", &[], None), Err(Failure::Refused(_))));
        #[cfg(unix)]
        assert_eq!(run("cat", &[], Some("input")).expect("output"), "input");
    }
}
