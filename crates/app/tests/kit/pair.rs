//! Both ends of a tunnel in any dialect, as whole processes.

use std::net::{SocketAddr, TcpStream, UdpSocket};

use tempfile::TempDir;

use super::{Program, connect, echo, file, fulmar};

/// A server with a status page, and a client, as whole processes.
pub(crate) struct Pair {
    pub(crate) server: Program,
    pub(crate) client: Program,
    /// How the client's log marks the address that it listens on.
    kind: &'static str,
    _dir: TempDir,
}

const LIBEV: &str = r#""method": "xchacha20poly1305_ietf", "password": "a rather long password""#;

impl Pair {
    /// `compat`: `libev`, or what stands behind `--compat`. `flag` and `levels` are for the server.
    pub(crate) fn start(
        compat: &str,
        target: SocketAddr,
        flag: Option<&str>,
        levels: Option<&str>,
    ) -> Self {
        let at = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr());
        let at = at.expect("a free port");
        let dir = TempDir::new().expect("dir");
        let [mut server, mut client] = [fulmar(), fulmar()];
        if compat == "libev" {
            let members = format!(
                r#""connect": "{target}", "kcp_bind": "{at}", "http_listen": "127.0.0.1:0", {LIBEV}"#
            );
            let path = file(dir.path(), "server.json", &members);
            server.args(["run", "-c"]).arg(path);
            let members = format!(r#""listen": "127.0.0.1:0", "kcp_connect": "{at}", {LIBEV}"#);
            client
                .args(["run", "-c"])
                .arg(file(dir.path(), "client.json", &members));
        } else {
            for command in [&mut server, &mut client] {
                command.env("KCPTUN_KEY", "k");
            }
            let at = at.to_string();
            server.args(["server", "-l", &at, "-t", &target.to_string()]);
            server.args(["--compat", compat, "--http-listen", "127.0.0.1:0"]);
            client.args(["client", "-l", "127.0.0.1:0", "-r", &at]);
            client.args(["--compat", compat]);
        }
        server.args(flag);
        let server = match levels {
            Some(levels) => Program::start_with_levels(server, levels),
            None => Program::start(server),
        };
        server.line("/udp");
        let client = Program::start(client);
        Self {
            server,
            client,
            kind: if compat == "libev" { "/tcp" } else { "" },
            _dir: dir,
        }
    }

    /// A connection to the client.
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.client.address(self.kind))
    }

    pub(crate) fn echo(&self) {
        echo(&mut self.connect(), "hello");
    }
}
