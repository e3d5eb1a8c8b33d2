//! Clients whose server is not there, or not where they look first: what they say, what becomes of connections, and that
//! names which do not resolve end nobody.
#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "some of it is for other tests")]
mod kit;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kit::namespaces::{isolated, shell};
use kit::{Program, SOON, Service, connect, echo, file, fulmar, http, run, service, wait_for};
use tempfile::TempDir;

const KEY: &str = r#""method": "chacha20poly1305_ietf", "password": "a rather long password""#;
/// A server is down after 6 s, and a connection waits for 5 s more; machines that run tests are slow.
const GIVEN_UP: Duration = Duration::from_secs(6 + 5 + 9);

/// A port of UDP that nobody has at the moment.
fn free_port(ip: &str) -> u16 {
    let socket = UdpSocket::bind((ip, 0)).expect("bound");
    socket.local_addr().expect("address").port()
}

/// Both kinds of tunnels that a client can have.
#[derive(Copy, Clone, Debug)]
enum Kind {
    Kcptun,
    Libev,
    /// The second one in the clothes of TCP: its socket cannot be opened without an address.
    Obfs,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Kcptun, Self::Libev];

    /// What a file of kcptun-libev's has at both ends.
    const fn both(self) -> &'static str {
        match self {
            Self::Obfs => concat!(
                r#""obfs": "dpi/tcp-wnd", "#,
                r#""method": "chacha20poly1305_ietf", "password": "a rather long password""#
            ),
            _ => KEY,
        }
    }

    fn client(self, dir: &Path, server: &str) -> Program {
        match self {
            Self::Kcptun => {
                let mut command = fulmar();
                command.args([
                    "client",
                    "-l",
                    "127.0.0.1:0",
                    "-r",
                    server,
                    "--key",
                    "Xq7Lw2Rt9Kp4Vz1N",
                ]);
                command.args(["--http-listen", "127.0.0.1:0"]);
                Program::start(command)
            }
            Self::Libev | Self::Obfs => run(&file(
                dir,
                "client.json",
                &format!(
                    r#""listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", "kcp_connect": "{server}", {both}"#,
                    both = self.both()
                ),
            )),
        }
    }

    fn server(self, dir: &Path, listen: &str, target: &str) -> Program {
        match self {
            Self::Kcptun => {
                let mut command = fulmar();
                command.args([
                    "server",
                    "-l",
                    listen,
                    "-t",
                    target,
                    "--key",
                    "Xq7Lw2Rt9Kp4Vz1N",
                ]);
                Program::start(command)
            }
            Self::Libev | Self::Obfs => run(&file(
                dir,
                "server.json",
                &format!(
                    r#""kcp_bind": "{listen}", "connect": "{target}", {both}"#,
                    both = self.both()
                ),
            )),
        }
    }

    /// Where applications connect, and the status page.
    fn addresses(self, client: &Program) -> (SocketAddr, SocketAddr) {
        match self {
            Self::Libev | Self::Obfs => (client.address("/tcp"), client.address("http://")),
            Self::Kcptun => {
                let page = client.line("listening on http://");
                let page = page
                    .split("http://")
                    .nth(1)
                    .and_then(|t| t.split(' ').next());
                let listens = |line: &str| line.contains("listening on 1");
                let line = wait_for("it listens", SOON, || client.find(listens));
                let app = line.rsplit(' ').next().expect("an address");
                let parse = |text: &str| text.parse().expect("an address");
                (parse(app), parse(page.expect("an address")))
            }
        }
    }
}

/// Sends a request, and says how and after how long it failed.
fn fate(app: SocketAddr) -> (ErrorKind, Duration) {
    let began = Instant::now();
    let mut conn = connect(app);
    conn.set_read_timeout(Some(GIVEN_UP)).expect("limit");
    conn.write_all(b"anybody?").expect("sent");
    let kind = match conn.read(&mut [0; 8]) {
        Ok(_) => ErrorKind::UnexpectedEof,
        Err(e) => e.kind(),
    };
    (kind, began.elapsed())
}

#[test]
fn with_nothing_on_the_port_it_is_contacting_and_then_down() {
    for kind in Kind::ALL {
        let dir = TempDir::new().expect("dir");
        let server = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let client = kind.client(dir.path(), &server);
        let (app, page) = kind.addresses(&client);
        let (how, after) = fate(app);
        assert_eq!(how, ErrorKind::ConnectionReset, "{kind:?} after {after:?}");
        assert!(after > Duration::from_secs(5), "{kind:?}: {after:?}");
        // Another one does not wait for as long.
        let (how, after) = fate(app);
        assert_eq!(how, ErrorKind::ConnectionReset, "{kind:?} after {after:?}");
        assert!(after > Duration::from_secs(4), "{kind:?}: {after:?}");
        client.line(&format!("contacting {server}"));
        // The system says so, and then nobody has to guess.
        client.line(&format!("nothing listens on {server}"));
        assert_eq!(client.count("no answer at all"), 0, "{kind:?}");
        client.line(&format!("{server} is down"));
        for lie in ["opened", "answers,", "speaks"] {
            assert_eq!(client.count(lie), 0, "{kind:?}: {lie}");
        }
        for other in match kind {
            Kind::Kcptun => ["psk", "kcp."],
            Kind::Libev | Kind::Obfs => ["--key", "--crypt"],
        } {
            assert_eq!(client.count(other), 0, "{kind:?}: {other}");
        }
        let (status, text) = http(page, "GET", "/healthy");
        assert_eq!((status, text.trim()), (503, "peer unreachable"));

        // It comes.
        let _server = kind.server(dir.path(), &server, &service(Service::Echo).to_string());
        wait_for("it works", SOON, || {
            let mut conn = TcpStream::connect(app).expect("connected");
            conn.set_read_timeout(Some(Duration::from_secs(8)))
                .expect("limit");
            kit::try_echo(&mut conn, "hello").ok()
        });
        client.line(&format!("{server} answers, key fits, "));
        client.line("stream opened");
        let (status, text) = http(page, "GET", "/healthy");
        assert_eq!(status, 200, "{kind:?}: {text}");
    }
}

#[test]
fn a_client_that_is_not_used_knows_that_its_server_lives() {
    for kind in Kind::ALL {
        let dir = TempDir::new().expect("dir");
        let listen = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let server = kind.server(dir.path(), &listen, &service(Service::Echo).to_string());
        server.line("listening on");
        let client = kind.client(dir.path(), &listen);
        let (_, page) = kind.addresses(&client);
        client.line(&format!("{listen} answers, key fits, "));
        let (status, text) = http(page, "GET", "/healthy");
        assert_eq!(status, 200, "{kind:?}: {text}");
        assert!(text.starts_with("healthy (peer seen "), "{kind:?}: {text}");
        assert_eq!(client.count("stream opened"), 0, "{kind:?}");
        if let Kind::Kcptun = kind {
            client.line(&format!("{listen} speaks smux version 2"));
        }
    }
}

/// A Go server logs every session, and keep-alives for nobody are traffic for nothing.
#[test]
fn a_session_that_is_not_used_ends_and_then_nothing_is_sent() {
    let dir = TempDir::new().expect("dir");
    let listen = format!("127.0.0.1:{}", free_port("127.0.0.1"));
    let target = service(Service::Echo).to_string();
    let server = Kind::Kcptun.server(dir.path(), &listen, &target);
    server.line("listening on");
    let client = Kind::Kcptun.client(dir.path(), &listen);
    let (app, page) = Kind::Kcptun.addresses(&client);
    client.line("answers, key fits");
    let metric = |name: &str| {
        let (_, text) = http(page, "GET", "/metrics");
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{name} in {text}"))
    };
    assert_eq!(metric("fulmar_curr_estab "), 1);
    wait_for("the session ends", Duration::from_secs(60), || {
        (metric("fulmar_curr_estab ") == 0).then_some(())
    });
    let (before, began) = (metric("fulmar_out_pkts_total "), Instant::now());
    wait_for("the server is asked", Duration::from_secs(60), || {
        let (status, text) = http(page, "GET", "/healthy");
        assert_eq!(status, 200, "{text}");
        (metric("fulmar_out_pkts_total ") > before).then_some(())
    });
    // Not before the last proof was old: longer than from one keep-alive to the next.
    assert!(began.elapsed() > Duration::from_secs(11));
    echo(&mut connect(app), "hello");
    // One that is used stays.
    assert_eq!(metric("fulmar_curr_estab "), 1);
}

/// Names have no addresses but those in a file that the test owns.
fn hosts(dir: &Path, lines: &str) {
    // The same file, not another one in its place: that is what is mounted.
    std::fs::write(dir.join("hosts"), format!("127.0.0.1 localhost\n{lines}\n")).expect("written");
}

fn own_names(dir: &Path) {
    hosts(dir, "");
    let text = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
    std::fs::write(dir.join("resolv.conf"), text).expect("written");
    let dir = dir.display();
    shell(&format!(
        "mount --bind {dir}/hosts /etc/hosts; mount --bind {dir}/resolv.conf /etc/resolv.conf"
    ));
}

#[test]
fn a_name_that_does_not_resolve_at_the_start_ends_nobody() {
    isolated(
        "a_name_that_does_not_resolve_at_the_start_ends_nobody",
        || {
            for kind in [Kind::Kcptun, Kind::Libev, Kind::Obfs] {
                let dir = TempDir::new().expect("dir");
                own_names(dir.path());
                // A resolver that swallows questions.
                let _dead = UdpSocket::bind("127.0.0.1:53").expect("bound");
                let target = service(Service::Echo);
                let listen = format!("127.0.0.1:{}", free_port("127.0.0.1"));
                let port = listen.rsplit(':').next().expect("a port");
                let target = format!("target.example:{}", target.port());
                let mut server = kind.server(dir.path(), &listen, &target);
                let mut client = kind.client(dir.path(), &format!("server.example:{port}"));
                let (app, _) = kind.addresses(&client);
                server.line("target.example does not resolve yet");
                client.line("server.example does not resolve yet");
                // A connection that comes meanwhile is carried as soon as there is an address.
                let mut early = connect(app);
                assert!(server.runs() && client.runs());
                // The target's first: a stream that comes before it is reset.
                hosts(dir.path(), "127.0.0.1 target.example");
                server.line("target.example resolves: 127.0.0.1");
                hosts(dir.path(), "127.0.0.1 server.example target.example");
                client.line("server.example resolves: 127.0.0.1");
                echo(&mut early, "hello");
                for program in [&server, &client] {
                    assert_eq!(program.count("does not resolve yet"), 1, "{kind:?}");
                }
                // Now nothing resolves any more. The server is where it was, and a client that has to begin anew finds it.
                hosts(dir.path(), "");
                echo(&mut connect(app), "again");
                server.end("KILL");
                let target = service(Service::Echo).to_string();
                let _server = kind.server(dir.path(), &listen, &target);
                wait_for("it works again", SOON, || {
                    let mut conn = connect(app);
                    conn.set_read_timeout(Some(Duration::from_secs(8)))
                        .expect("limit");
                    kit::try_echo(&mut conn, "once more").ok()
                });
                if let Kind::Kcptun = kind {
                    client.line("server.example does not resolve any more");
                }
                // A look-up that hangs does not hold up the end.
                let began = Instant::now();
                client.end("TERM");
                assert!(began.elapsed() < Duration::from_secs(8), "{kind:?}");
                shell("umount /etc/hosts /etc/resolv.conf");
            }
        },
    );
}

#[test]
fn a_server_behind_a_dead_first_address_is_reached() {
    isolated("a_server_behind_a_dead_first_address_is_reached", || {
        for (kind, ip) in Kind::ALL
            .into_iter()
            .flat_map(|k| [(k, "127.0.0.3"), (k, "::1")])
        {
            let dir = TempDir::new().expect("dir");
            own_names(dir.path());
            // The first address swallows what comes, the second is the server's; of the target's the first refuses.
            let lines = format!("127.0.0.2 server.example\n{ip} server.example");
            let target_lines = "127.0.0.4 target.example\n127.0.0.1 target.example";
            hosts(dir.path(), &format!("{lines}\n{target_lines}"));
            let silent = UdpSocket::bind("127.0.0.2:0").expect("bound");
            let port = silent.local_addr().expect("address").port();
            let at = SocketAddr::new(ip.parse().expect("a number"), port);
            let target = service(Service::Echo).port();
            let target = format!("target.example:{target}");
            let server = kind.server(dir.path(), &at.to_string(), &target);
            server.line("listening on");
            let client = kind.client(dir.path(), &format!("server.example:{port}"));
            let (app, _) = kind.addresses(&client);
            echo(&mut connect(app), "hello");
            client.line(&format!("{at} answers, key fits, "));
            // From then on nobody waits.
            for _ in 0..3 {
                echo(&mut connect(app), "again");
            }
            shell("umount /etc/hosts /etc/resolv.conf");
        }
    });
}

#[test]
fn a_server_with_two_dead_addresses_is_not_tried_for_ever() {
    isolated(
        "a_server_with_two_dead_addresses_is_not_tried_for_ever",
        || {
            let dir = TempDir::new().expect("dir");
            own_names(dir.path());
            hosts(
                dir.path(),
                "127.0.0.2 server.example\n127.0.0.3 server.example",
            );
            let silent = UdpSocket::bind("127.0.0.2:0").expect("bound");
            let port = silent.local_addr().expect("address").port();
            let _other = UdpSocket::bind(("127.0.0.3", port)).expect("bound");
            let client = Kind::Kcptun.client(dir.path(), &format!("server.example:{port}"));
            let (app, _) = Kind::Kcptun.addresses(&client);
            let (how, after) = fate(app);
            assert_eq!(how, ErrorKind::ConnectionReset, "after {after:?}");
            // Not sooner than with one address, and both have been tried.
            assert!(after > Duration::from_secs(9), "{after:?}");
            for ip in ["127.0.0.2", "127.0.0.3"] {
                client.line(&format!("contacting {ip}:{port}"));
            }
        },
    );
}

#[test]
fn connections_that_cannot_be_accepted_are_a_line_and_not_hundreds() {
    let listen = format!("127.0.0.1:{}", free_port("127.0.0.1"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""]);
    command.arg(fulmar().get_program());
    command.args([
        "client",
        "-l",
        "127.0.0.1:0",
        "-r",
        &listen,
        "--key",
        "Xq7Lw2Rt9Kp4Vz1N",
    ]);
    let client = Program::start(command);
    let line = client.line("listening on ");
    let app: SocketAddr = line
        .rsplit(' ')
        .next()
        .expect("an address")
        .parse()
        .expect("an address");
    let crowd: Vec<_> = (0..60).map(|_| connect(app)).collect();
    client.line("cannot accept a connection, trying again");
    let began = Instant::now();
    // As many attempts as would have made dozens of lines.
    wait_for("seconds of it", SOON, || {
        (began.elapsed() > Duration::from_secs(3)).then_some(())
    });
    assert_eq!(client.count("cannot accept a connection"), 1);
    drop(crowd);
}
