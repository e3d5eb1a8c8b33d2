//! A tunnel between two real programs, with a service behind it: set up, looked at, disturbed, taken down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fulmar_netem::Path;
use tempfile::TempDir;

use crate::place::{
    ENTRY_PORT, Listener, Place, RELAY_PORT, SERVER_PORT, SERVER_PORTS, TARGET_PORT,
};
use crate::process::Process;
use crate::program::{Pair, Program, Programs};
use crate::relay::Relay;
use crate::target::Target;

/// How long a program may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What stands behind the tunnel's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The service on TCP.
    Tcp,
    /// The service on a Unix socket.
    Unix,
    /// Nothing: connections are refused.
    Nothing,
}

/// A tunnel to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The programs at the two ends.
    pub pair: Pair,
    /// Flags of both ends.
    pub both: Vec<String>,
    /// Flags of the client.
    pub client: Vec<String>,
    /// Flags of the server.
    pub server: Vec<String>,
    /// Flags for whichever end is Fulmar.
    pub fulmar: Vec<String>,
    /// A relay between the two, with this path each way.
    pub link: Option<Path>,
    /// What the service is.
    pub behind: Behind,
    /// The server listens on a range of ports, and the client knows the range.
    pub port_range: bool,
    /// The server listens on all addresses instead of the tunnel's own. Only where nothing else runs.
    pub wildcard: bool,
    /// The client accepts connections on a Unix socket instead of TCP.
    pub unix_entry: bool,
    /// Everything that can be said in a JSON file is said there, and the command line is `-c FILE`.
    pub json: bool,
    /// Use this address instead of claiming one.
    pub place: Option<std::net::IpAddr>,
}

impl Setup {
    /// A tunnel with default settings, except that both ends are told the same smux version, and that a Fulmar client
    /// in front of kcptun does not hold the end of a stream back (see [`patient`](Self::patient)).
    #[must_use]
    pub fn new(pair: Pair, smux: u8) -> Self {
        Self {
            pair,
            both: flags(&format!("--smuxver {smux}")),
            client: flags(if pair == Pair::FULMAR_KCPTUN {
                "--closewait 0"
            } else {
                ""
            }),
            server: Vec::new(),
            fulmar: Vec::new(),
            link: None,
            behind: Behind::Tcp,
            port_range: false,
            wildcard: false,
            unix_entry: false,
            json: false,
            place: None,
        }
    }

    /// Leaves the waiting time at the end of a stream at its default. kcptun drops a stream when it hears of the end of
    /// one direction, so our client lets the answer go quiet first, which takes as long as that time.
    #[must_use]
    pub fn patient(mut self) -> Self {
        if self.pair == Pair::FULMAR_KCPTUN {
            self.client.clear();
        }
        self
    }

    /// Adds flags to both ends.
    #[must_use]
    pub fn both(mut self, more: &str) -> Self {
        self.both.extend(flags(more));
        self
    }

    /// Adds flags to the client.
    #[must_use]
    pub fn client(mut self, more: &str) -> Self {
        self.client.extend(flags(more));
        self
    }

    /// Adds flags to the server.
    #[must_use]
    pub fn server(mut self, more: &str) -> Self {
        self.server.extend(flags(more));
        self
    }

    /// Adds flags to each end that is Fulmar.
    #[must_use]
    pub fn fulmar(mut self, more: &str) -> Self {
        self.fulmar.extend(flags(more));
        self
    }

    /// Puts a relay in between.
    #[must_use]
    pub fn link(mut self, path: Path) -> Self {
        self.link = Some(path);
        self
    }

    /// Chooses the service.
    #[must_use]
    pub fn behind(mut self, behind: Behind) -> Self {
        self.behind = behind;
        self
    }
}

/// Splits at blanks: flags in this crate contain no quoted text.
#[must_use]
pub fn flags(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// A running tunnel. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    /// The client process.
    pub client: Process,
    /// The server process.
    pub server: Process,
    /// The service, unless there is none.
    pub target: Option<Target>,
    /// The relay, if there is one.
    pub relay: Option<Relay>,
    /// Its address.
    pub place: Place,
    setup: Setup,
    programs: Programs,
    dir: TempDir,
}

impl Tunnel {
    /// Starts the service, the relay, the server and the client, in this order, each waited for.
    ///
    /// # Errors
    /// A sentence that says what did not start and what its log says.
    pub async fn start(programs: &Programs, setup: Setup) -> Result<Self, String> {
        let place = match setup.place {
            Some(ip) => Place::fixed(ip),
            None => Place::claim(),
        };
        let place = place.map_err(|e| format!("no address for a tunnel: {e}"))?;
        let dir = tempfile::Builder::new()
            .prefix("fulmar-interop-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let target = match setup.behind {
            Behind::Tcp => Some(Target::tcp(place.at(TARGET_PORT))),
            Behind::Unix => Some(Target::unix(&dir.path().join("service"))),
            Behind::Nothing => None,
        };
        let target = target
            .transpose()
            .map_err(|e| format!("the service cannot listen: {e}"))?;
        let relay = match &setup.link {
            Some(path) => {
                let front = place.at(RELAY_PORT);
                let relay = Relay::start(front, place.at(SERVER_PORT), path, 7);
                Some(relay.map_err(|e| format!("the relay cannot listen: {e}"))?)
            }
            None => None,
        };
        let parts = Parts {
            programs,
            setup: &setup,
            place: &place,
            dir: &dir,
        };
        let server = parts.start_server().await?;
        let client = parts.start_client().await?;
        Ok(Self {
            client,
            server,
            target,
            relay,
            place,
            setup,
            programs: programs.clone(),
            dir,
        })
    }

    /// Where applications connect.
    #[must_use]
    pub fn entry(&self) -> SocketAddr {
        self.place.at(ENTRY_PORT)
    }

    /// Where applications connect when the client listens on a Unix socket.
    #[must_use]
    pub fn unix_entry(&self) -> PathBuf {
        self.dir.path().join("entry")
    }

    /// A folder for files of this tunnel.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Kills the server as a crash would and starts it again with the same command line.
    ///
    /// # Errors
    /// When it does not start again.
    pub async fn restart_server(&mut self) -> Result<(), String> {
        self.server.kill();
        self.server = self.parts().start_server().await?;
        Ok(())
    }

    /// Ends both programs and starts the client alone.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_client_alone(&mut self) -> Result<(), String> {
        self.server.kill();
        self.client.kill();
        self.client = self.parts().start_client().await?;
        Ok(())
    }

    /// Both logs in a few words, for a report about a failure.
    #[must_use]
    pub fn last_words(&self) -> String {
        format!(
            "client: {}; server: {}",
            self.client.tail(2),
            self.server.tail(2)
        )
    }

    /// An error when one of the programs has ended or printed the message of a crash.
    ///
    /// # Errors
    /// What it was.
    pub fn healthy(&mut self) -> Result<(), String> {
        for (name, process) in [("client", &mut self.client), ("server", &mut self.server)] {
            if let Some(crash) = process.crashed() {
                return Err(format!("the {name} crashed: {crash}"));
            }
            if let Some(status) = process.ended() {
                return Err(format!("the {name} ended ({status}): {}", process.tail(3)));
            }
        }
        Ok(())
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            programs: &self.programs,
            setup: &self.setup,
            place: &self.place,
            dir: &self.dir,
        }
    }
}

/// What the command lines are made of.
struct Parts<'a> {
    programs: &'a Programs,
    setup: &'a Setup,
    place: &'a Place,
    dir: &'a TempDir,
}

impl Parts<'_> {
    fn server_ports(&self) -> String {
        if self.setup.port_range {
            format!("{SERVER_PORT}-{}", SERVER_PORT + SERVER_PORTS - 1)
        } else {
            SERVER_PORT.to_string()
        }
    }

    fn host(&self) -> String {
        match self.place.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }

    fn extra(&self, program: Program) -> &[String] {
        if program == Program::Fulmar {
            &self.setup.fulmar
        } else {
            &[]
        }
    }

    /// The flags as they are, or `-c FILE` with the same settings in the file.
    fn spoken(&self, end: &str, flags: Vec<String>) -> Result<Vec<String>, String> {
        if !self.setup.json {
            return Ok(flags);
        }
        let path = self.dir.path().join(format!("{end}.json"));
        std::fs::write(&path, json(&flags))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(vec!["-c".into(), path.display().to_string()])
    }

    async fn start_server(&self) -> Result<Process, String> {
        let setup = self.setup;
        let host = if setup.wildcard {
            String::new()
        } else {
            self.host()
        };
        let target = match setup.behind {
            Behind::Unix => self.dir.path().join("service").display().to_string(),
            Behind::Tcp | Behind::Nothing => self.place.at(TARGET_PORT).to_string(),
        };
        let mut flags = vec![
            "--listen".into(),
            format!("{host}:{}", self.server_ports()),
            "--target".into(),
            target,
        ];
        flags.extend(
            setup
                .both
                .iter()
                .chain(&setup.server)
                .chain(self.extra(setup.pair.server))
                .cloned(),
        );
        let mut command = self.programs.command(setup.pair.server, true)?;
        command.args(self.spoken("server", flags)?);
        let mut process =
            Process::start("server", &mut command, &self.dir.path().join("server.log"))
                .map_err(|e| format!("the server does not start: {e}"))?;
        let last = if setup.port_range {
            SERVER_PORT + SERVER_PORTS - 1
        } else {
            SERVER_PORT
        };
        let listeners: Vec<_> = (SERVER_PORT..=last)
            .map(|p| Listener::Udp(self.place.at(p)))
            .collect();
        process.ready(&listeners, START_LIMIT).await?;
        Ok(process)
    }

    async fn start_client(&self) -> Result<Process, String> {
        let setup = self.setup;
        let remote = match &setup.link {
            Some(_) => self.place.at(RELAY_PORT).to_string(),
            None => format!("{}:{}", self.host(), self.server_ports()),
        };
        let unix = self.dir.path().join("entry");
        let (entry, listener) = if setup.unix_entry {
            (unix.display().to_string(), Listener::Unix(unix))
        } else {
            (
                self.place.at(ENTRY_PORT).to_string(),
                Listener::Tcp(self.place.at(ENTRY_PORT)),
            )
        };
        let mut flags = vec!["--localaddr".into(), entry, "--remoteaddr".into(), remote];
        flags.extend(
            setup
                .both
                .iter()
                .chain(&setup.client)
                .chain(self.extra(setup.pair.client))
                .cloned(),
        );
        let mut command = self.programs.command(setup.pair.client, false)?;
        command.args(self.spoken("client", flags)?);
        let mut process =
            Process::start("client", &mut command, &self.dir.path().join("client.log"))
                .map_err(|e| format!("the client does not start: {e}"))?;
        process.ready(&[listener], START_LIMIT).await?;
        Ok(process)
    }
}

/// Long flags as a kcptun configuration file. Values that read as numbers are numbers; a flag without a value is true.
fn json(flags: &[String]) -> String {
    let mut entries = Vec::new();
    let mut rest = flags.iter().peekable();
    while let Some(flag) = rest.next() {
        let key = flag.trim_start_matches('-');
        let value = match rest.next_if(|next| !next.starts_with("--")) {
            None => "true".to_owned(),
            Some(value) if value.parse::<i64>().is_ok() => value.clone(),
            // Debug quoting of text without control characters is JSON quoting.
            Some(value) => format!("{value:?}"),
        };
        entries.push(format!("{key:?}: {value}"));
    }
    format!("{{\n  {}\n}}\n", entries.join(",\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_a_file() {
        let text = json(&flags("--listen 127.0.0.1:1 --nocomp --mtu 1300"));
        assert_eq!(
            text,
            "{\n  \"listen\": \"127.0.0.1:1\",\n  \"nocomp\": true,\n  \"mtu\": 1300\n}\n"
        );
    }
}
