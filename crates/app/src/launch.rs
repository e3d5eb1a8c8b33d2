//! The way into the runtime: the only file that knows it.

use std::ffi::OsString;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fulmar_config::libev::LibevConfig;
use fulmar_config::{Config, Environment, Failure, Invocation, Side, from_args};
use fulmar_runtime::libev::Libev;
use fulmar_runtime::reload::{Change, Effect, Reload};
use fulmar_runtime::{Hub, Tunnel, demo as demonstration, notify};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::exit::print;
use crate::process::daemon::Readiness;
use crate::{logging, process, signals};

/// Why a tunnel or the demonstration ended in failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The thread pool of the program cannot be had.
    #[error("the system gives no threads or timers: {0}")]
    Threads(#[from] std::io::Error),
    /// Signals cannot be had.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    /// The privileges could not be dropped.
    #[error("user: {0}")]
    User(String),
    /// The tunnel could not run.
    #[error(transparent)]
    Tunnel(#[from] fulmar_runtime::Error),
}

/// What `fulmar demo` is asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Demo {
    /// Megabytes to carry.
    pub(crate) megabytes: u32,
    /// Packets that the link loses, in percent.
    pub(crate) loss_percent: u8,
    /// Round-trip time of the link in milliseconds.
    pub(crate) rtt_ms: u32,
    /// Rate of the link in Mbit/s.
    pub(crate) rate_mbit: u32,
    /// What the losses are drawn from.
    pub(crate) seed: u64,
}

/// Runs the tunnel that `config` describes until it is told to stop. `listening` begins the line that says where, `reload` reads the
/// configuration again.
pub(crate) fn tunnel(
    config: Config,
    listening: &str,
    reload: impl Fn() -> Result<Config, String> + Send + 'static,
) -> Result<(), LaunchError> {
    block_on(
        fulmar_runtime::threads(&config),
        run(config, listening, reload),
    )
}

async fn run(
    config: Config,
    listening: &str,
    reload: impl Fn() -> Result<Config, String> + Send + 'static,
) -> Result<(), LaunchError> {
    if let Some(files) = fulmar_runtime::permit_open_files() {
        debug!("up to {files} open files: each stream is one");
    }
    let shutdown = signals::shutdown(config.sip003).map_err(LaunchError::Signals)?;
    let tunnel = Tunnel::new(config);
    reload_on_hangup(reload, tunnel.reloads())?;
    counters_on_signal(Arc::new(tunnel.hub().into()))?;
    let ready = |addresses: &str| started(format!("{listening} {addresses}"));
    tunnel.run(ready, alive_until(shutdown)).await?;
    Ok(())
}

/// Opens the log file again, if there is one, so that it can be rotated.
async fn reopen_log() {
    /// How often the writer is asked how far it is.
    const ASK: Duration = Duration::from_millis(20);
    /// Somebody is asking, and on a disk that hangs may do so for long.
    static ASKING: AtomicBool = AtomicBool::new(false);
    if !logging::reopen() || ASKING.swap(true, Ordering::Relaxed) {
        return;
    }
    let done = loop {
        match logging::reopened() {
            Some(done) => break done,
            None => tokio::time::sleep(ASK).await,
        }
    };
    ASKING.store(false, Ordering::Relaxed);
    match done {
        Ok(()) => info!("opened the log file anew"),
        Err(e) => error!("the log file cannot be opened anew, so the old one stays: {e}"),
    }
}

/// The local addresses are open.
fn started(text: String) {
    info!("{text}");
    notify::ready(text);
}

/// `shutdown`; until then the service manager is shown that the program is alive, and then that it ends.
async fn alive_until(shutdown: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown => {}
        () = notify::watchdog() => {}
    }
    notify::stopping();
}

/// Runs what a file of kcptun-libev describes until it is told to stop. `user` is whom to become once everything is open, `readiness`
/// tells a parent how it went, `reload` reads the file again.
pub(crate) fn libev(
    config: LibevConfig,
    user: Option<String>,
    readiness: Option<Readiness>,
    reload: impl Fn() -> Result<LibevConfig, String> + Send + 'static,
) -> Result<(), LaunchError> {
    // One driver does the work; looking up names starts threads of its own.
    block_on(1, async move {
        let (reloads, inbox) = mpsc::channel(1);
        let hub = Arc::new(OnceLock::new());
        let opened = async {
            // What is opened may take long, and the signals must not end the process meanwhile.
            reload_on_hangup(reload, reloads)?;
            counters_on_signal(Arc::clone(&hub))?;
            let process = open_libev(config, user).await?;
            let _ = hub.set(process.hub());
            Ok::<_, LaunchError>(process)
        };
        match opened.await {
            Ok::<_, LaunchError>(process) => {
                if let Some(readiness) = readiness {
                    readiness.ready().map_err(LaunchError::Threads)?;
                }
                run_libev(process, inbox).await
            }
            Err(e) => {
                if let Some(readiness) = readiness {
                    readiness.failed(&e.to_string());
                }
                Err(e)
            }
        }
    })
}

async fn open_libev(config: LibevConfig, user: Option<String>) -> Result<Libev, LaunchError> {
    if let Some(files) = fulmar_runtime::permit_open_files() {
        debug!("up to {files} open files: each stream is one");
    }
    let process = Libev::open(config, user.is_some()).await?;
    if let Some(user) = user {
        process::user::drop_privileges(&user).map_err(LaunchError::User)?;
        // It was understood before.
        let _ = process::dumpable::forbid();
        info!(
            "running as {} from here on",
            fulmar_config::text::quoted(&user)
        );
    }
    Ok(process)
}

async fn run_libev(
    process: Libev,
    reloads: mpsc::Receiver<Reload<LibevConfig>>,
) -> Result<(), LaunchError> {
    let shutdown = signals::shutdown(false).map_err(LaunchError::Signals)?;
    started(format!("listening on {}", process.describe()));
    process.run(reloads, alive_until(shutdown)).await?;
    Ok(())
}

/// Writes all counters into the log on every SIGUSR1, once there are any.
fn counters_on_signal(hub: Arc<OnceLock<Hub>>) -> Result<(), LaunchError> {
    let dump = move || {
        if let Some(hub) = hub.get() {
            let totals = hub.totals();
            info!("{}", fulmar_runtime::dump(&totals));
            info!("{}", fulmar_runtime::dump_own(&totals));
        }
    };
    tokio::spawn(signals::on_user_signal(dump).map_err(LaunchError::Signals)?);
    Ok(())
}

/// On every SIGHUP opens the log file again, and gives `reloads` what `read` reads.
fn reload_on_hangup<C: Send + 'static>(
    read: impl Fn() -> Result<C, String> + Send + 'static,
    reloads: mpsc::Sender<Reload<C>>,
) -> Result<(), LaunchError> {
    let hangup = signals::on_hangup(move || {
        notify::reloading();
        // A disk that hangs holds up the file, not the rest.
        tokio::spawn(reopen_log());
        let config = read();
        let reloads = reloads.clone();
        async move {
            match again(config, &reloads).await {
                Ok(changes) => tell_changes(&changes),
                Err(e) => error!("the configuration stays as it is: {e}"),
            }
            notify::reloaded();
        }
    });
    tokio::spawn(hangup.map_err(LaunchError::Signals)?);
    Ok(())
}

/// Gives the process a configuration that was read again, and waits for what becomes of it.
async fn again<C>(
    config: Result<C, String>,
    reloads: &mpsc::Sender<Reload<C>>,
) -> Result<Vec<Change>, String> {
    let (told, done) = oneshot::channel();
    let gone = |_| "the process is stopping".to_owned();
    reloads.send((config?, told)).await.map_err(|_| gone(()))?;
    done.await.map_err(|_| gone(()))?
}

/// What a reload has changed, and what it has not.
fn tell_changes(changes: &[Change]) {
    if changes.is_empty() {
        return info!("the configuration was read again: nothing has changed");
    }
    info!("the configuration was read again");
    for change in changes {
        match change.effect {
            Effect::NextStart => warn!("{change}"),
            Effect::Now | Effect::NewConnections | Effect::NextSocket => info!("{change}"),
        }
    }
}

/// Runs the demonstration, and prints its progress and result.
pub(crate) fn demo(demo: Demo) -> Result<(), LaunchError> {
    block_on(fulmar_runtime::cores(), demonstrate(demo))
}

async fn demonstrate(demo: Demo) -> Result<(), LaunchError> {
    let options = demonstration::Options {
        bytes: u64::from(demo.megabytes) * 1_000_000,
        bits_per_second: u64::from(demo.rate_mbit) * 1_000_000,
        delay: Duration::from_millis(demo.rtt_ms.into()) / 2,
        loss: f64::from(demo.loss_percent) / 100.0,
        seed: demo.seed,
        ..demonstration::Options::default()
    };
    let flags = ["--mode", "auto", "--key", "demo", "--quiet"].map(OsString::from);
    let make = |side, ends: [String; 4]| {
        let args: Vec<_> = ends
            .into_iter()
            .map(OsString::from)
            .chain(flags.clone())
            .collect();
        match from_args(side, &args, &Environment::default()) {
            Ok(Invocation::Run(loaded)) => Ok(loaded.config),
            Ok(_) => Err("the demonstration asked for help".to_owned()),
            Err(Failure { problems }) => Err(problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")),
        }
    };
    let configure = |a: demonstration::Addresses| {
        let server = make(
            Side::Server,
            [
                "-l".into(),
                a.server.to_string(),
                "-t".into(),
                a.target.to_string(),
            ],
        )?;
        let client = make(
            Side::Client,
            [
                "-l".into(),
                a.client.to_string(),
                "-r".into(),
                a.link.to_string(),
            ],
        )?;
        Ok::<_, String>((server, client))
    };
    say(&format!(
        "A server, a target, a client, and between them a link of {} Mbit/s, {} ms there and back, {} % loss.\n\
         {} MB are downloaded through it; every byte is checked.\n",
        demo.rate_mbit, demo.rtt_ms, demo.loss_percent, demo.megabytes
    ));
    let report = demonstration::run(options, configure, |p| progress(&demo, p)).await?;
    say(&table(&demo, &report));
    Ok(())
}

fn progress(demo: &Demo, progress: demonstration::Progress) {
    match progress {
        demonstration::Progress::Echoes(n) if n % 10 == 0 => say(&format!("  echoes      {n}\n")),
        demonstration::Progress::Echoes(_) => {}
        demonstration::Progress::Bytes(bytes, after) => {
            let megabytes = bytes as f64 / 1e6;
            let percent = megabytes / f64::from(demo.megabytes.max(1)) * 100.0;
            let rate = megabytes * 8.0 / after.as_secs_f64().max(1e-3);
            say(&format!(
                "  download {percent:5.1} %  {megabytes:7.1} MB  {rate:6.1} Mbit/s\n"
            ));
        }
    }
}

fn table(demo: &Demo, r: &demonstration::Report) -> String {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let (sent, lost) = r.datagrams;
    format!(
        "\n\
         downloaded                  {:>10.1} MB in {:.1} s, every byte right\n\
         goodput                     {:>10.1} Mbit/s\n\
         the link could have carried {:>10.1} Mbit/s ({:.0} % of it used)\n\
         bytes on the wire           {:>10.2} per useful byte, both ways\n\
         datagrams                   {sent:>10}, lost on the link {lost} ({:.1} %)\n\
         segments sent again         {:>10}\n\
         packets rebuilt from parity {:>10}\n\
         echo time, half within      {:>10.1} ms (the path alone takes {} ms)\n\
         echo time, 99 % within      {:>10.1} ms\n",
        r.bytes as f64 / 1e6,
        r.took.as_secs_f64(),
        r.goodput / 1e6,
        r.possible / 1e6,
        r.goodput / r.possible * 100.0,
        r.wire_bytes as f64 / r.bytes.max(1) as f64,
        lost as f64 / sent.max(1) as f64 * 100.0,
        r.resent,
        r.rebuilt,
        ms(r.echo(0.5)),
        demo.rtt_ms,
        ms(r.echo(0.99)),
    )
}

/// Progress goes where results go; a reader that has gone away is no reason to stop.
fn say(text: &str) {
    let _ = print(text);
}

/// Runs `future` on `threads` threads. One is the calling thread itself: no other is started, and no queue between threads is
/// touched. Looking up names and writing files may start more for a while in either case.
fn block_on<T>(
    threads: usize,
    future: impl Future<Output = Result<T, LaunchError>>,
) -> Result<T, LaunchError> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    // A driver that is busy does many packets in one turn, so the system has to be asked after each one who else is ready: after
    // 61 turns, as is usual, streams that have little to carry would wait for long.
    builder.event_interval(1);
    let runtime = builder.enable_all().build()?;
    let done = runtime.block_on(async {
        tokio::spawn(logging::tell_left_out());
        future.await
    });
    // A look-up that the system has begun cannot be stopped, and may take half a minute where nothing answers.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}
