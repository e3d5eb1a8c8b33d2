//! What a process does to itself, seen from outside: the program of this test starts itself in several roles. It has
//! no harness, whose output and threads would be in the way.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "standard output and error are what is tested"
)]

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() {
    unix::main();
}

// The program's own files: a program has no library that a test could use.
#[cfg(unix)]
#[path = "../src/process/daemon.rs"]
#[allow(unused_imports, reason = "its own tests run with the program's")]
mod daemon;
#[cfg(unix)]
#[path = "../src/process/user.rs"]
#[allow(unused_imports, reason = "its own tests run with the program's")]
#[expect(dead_code, reason = "only what changes the process is tested here")]
mod user;

#[cfg(unix)]
mod unix {
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, ExitCode, Output, Stdio, exit};
    use std::time::{Duration, Instant};

    use crate::daemon::{self, Stage};
    use crate::user;

    /// Which role a process has; without it, it runs the tests.
    const ROLE: &str = "FULMAR_TEST_ROLE";
    /// The socket at which a daemon reports.
    const SOCKET: &str = "FULMAR_TEST_SOCKET";
    const LIMIT: Duration = Duration::from_secs(20);

    pub(crate) fn main() {
        if let Ok(role) = std::env::var(ROLE) {
            let _: ExitCode = play(&role);
        }
        // What the ordinary harness takes as well.
        if std::env::args().any(|arg| arg == "--list") {
            return;
        }
        let tests: [(&str, fn()); 6] = [
            ("a_daemon_that_is_ready", a_daemon_that_is_ready),
            ("a_daemon_that_fails", a_daemon_that_fails),
            ("a_daemon_that_dies", a_daemon_that_dies),
            ("the_foreground", the_foreground),
            ("privileges_are_gone", privileges_are_gone),
            ("nobody_else_is_a_daemon", nobody_else_is_a_daemon),
        ];
        for (name, test) in tests {
            println!("test {name} ...");
            test();
        }
        println!("test result: ok. {} passed", tests.len());
    }

    /// Does what `role` says, and ends.
    fn play(role: &str) -> ExitCode {
        match role {
            "drop" => drop_to_nobody(),
            "foreground" => match daemon::start(false) {
                Ok(Stage::Foreground) => exit(0),
                other => panic!("{other:?}"),
            },
            _ => match daemon::start(true) {
                Ok(Stage::Parent) => exit(0),
                Ok(Stage::Child(readiness)) => match role {
                    "ready" => {
                        readiness.ready().expect("the parent listens");
                        report();
                        exit(0)
                    }
                    "failed" => {
                        readiness.failed("no port\nis free");
                        exit(3)
                    }
                    "dies" => {
                        eprintln!("oh dear");
                        exit(4)
                    }
                    _ => panic!("no role {role}"),
                },
                Err(e) => {
                    eprintln!("error: {e}");
                    exit(1)
                }
                other => panic!("{other:?}"),
            },
        }
    }

    /// Tells the test what the daemon's process is like. Its standard output goes nowhere now.
    fn report() {
        println!("nobody reads this");
        eprintln!("nor this");
        let args: Vec<_> = std::env::args().collect();
        let fd = |n: u8| {
            std::fs::read_link(format!("/proc/self/fd/{n}"))
                .map(|path| path.display().to_string())
                .unwrap_or_default()
        };
        let session = nix::unistd::getsid(None).expect("session");
        let mask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let text = format!(
            "{} {session} {} {} {} {} {} {}",
            std::process::id(),
            name.trim_end(),
            mask.bits(),
            fd(0),
            fd(1),
            fd(2),
            args.join(" ")
        );
        let path = std::env::var_os(SOCKET).expect("socket");
        let mut stream = std::os::unix::net::UnixStream::connect(path).expect("connect");
        std::io::Write::write_all(&mut stream, text.as_bytes()).expect("write");
    }

    fn command(role: &str) -> Command {
        command_of(&std::env::current_exe().expect("our own file"), role)
    }

    fn command_of(file: &std::path::Path, role: &str) -> Command {
        let mut command = Command::new(file);
        command.arg0("a-persona").arg("an argument").env(ROLE, role);
        command
    }

    /// Runs `command` to its end, which must come in time.
    fn run(command: &mut Command) -> Output {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let (id, began) = (child.id(), Instant::now());
        let waiting = std::thread::spawn(move || child.wait_with_output().expect("wait"));
        while !waiting.is_finished() {
            assert!(began.elapsed() < LIMIT, "process {id} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        waiting.join().expect("output")
    }

    fn a_daemon_that_is_ready() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("socket");
        // Started by a symbolic link, as one that takes another program's place.
        let link = dir.path().join("a-persona");
        std::os::unix::fs::symlink(std::env::current_exe().expect("file"), &link).expect("link");
        let listener = UnixListener::bind(&path).expect("bind");
        listener.set_nonblocking(true).expect("mode");
        // Its end of the pipes is closed too: otherwise this would wait for the daemon.
        let out = run(command_of(&link, "ready").env(SOCKET, &path));
        assert!(out.status.success(), "{out:?}");
        assert_eq!(String::from_utf8_lossy(&out.stderr), "");
        let pid = String::from_utf8_lossy(&out.stdout).trim_end().to_owned();
        let began = Instant::now();
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) => assert!(began.elapsed() < LIMIT, "no daemon reports: {e}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_nonblocking(false).expect("mode");
        stream.set_read_timeout(Some(LIMIT)).expect("limit");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("report");
        let silent = match cfg!(target_os = "linux") {
            true => "a-persona 0 /dev/null /dev/null /dev/null",
            false => " 0   ",
        };
        let want = format!("{pid} {pid} {silent} a-persona an argument");
        assert_eq!(text, want);
    }

    fn a_daemon_that_fails() {
        let out = run(&mut command("failed"));
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "");
        assert_eq!(
            String::from_utf8_lossy(&out.stderr),
            "error: no port\nis free\n"
        );
    }

    fn a_daemon_that_dies() {
        let out = run(&mut command("dies"));
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(text.starts_with("oh dear\nerror: "), "{text}");
        assert!(text.contains("status: 4"), "{text}");
    }

    fn the_foreground() {
        let out = run(&mut command("foreground"));
        assert!(out.status.success(), "{out:?}");
    }

    /// A mark that is not our parent's makes no child: there is a daemon as ever.
    fn nobody_else_is_a_daemon() {
        let out = run(command("failed").env("FULMAR_DAEMON_PARENT", "1"));
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(text, "error: no port\nis free\n");
    }

    fn privileges_are_gone() {
        if !nix::unistd::Uid::effective().is_root() {
            println!("SKIPPED: privileges_are_gone needs root");
            return;
        }
        let out = run(&mut command("drop"));
        assert!(out.status.success(), "{out:?}");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(text, "gone\n", "{out:?}");
    }

    /// Becomes nobody, and tries to be root again; also on a thread that was there before.
    fn drop_to_nobody() -> ! {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            wait.recv().expect("go");
            nix::unistd::Uid::effective()
        });
        user::drop_privileges("nobody:").expect("root may");
        go.send(()).expect("thread");
        let nobody = nix::unistd::User::from_name("nobody")
            .expect("users")
            .expect("nobody");
        assert_eq!(other.join().expect("thread"), nobody.uid);
        assert_eq!(nix::unistd::Uid::current(), nobody.uid);
        assert_eq!(nix::unistd::Gid::effective(), nobody.gid);
        #[cfg(not(target_vendor = "apple"))]
        assert_eq!(nix::unistd::getgroups().expect("groups"), []);
        assert!(nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_err());
        assert!(user::drop_privileges("root").is_err());
        println!("gone");
        exit(0)
    }
}
