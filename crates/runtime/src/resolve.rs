//! Names to addresses, for the other end and for targets, in every dialect.
//!
//! A [`Resolver`] belongs to a process. Whoever needs the addresses of a name asks it each time: a fresh answer is waited
//! for, so that a name that moves (dynamic DNS) is followed. The last good answer stays in use while look-ups fail or take
//! too long. A name has one look-up at a time, however many wait for it, and pauses after failures. Addresses from
//! which nothing came are tried after the others. What changes is logged once.
//!
//! Addresses that this machine listens on are looked up once, by [`local`].

mod name;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::log_kind;
use crate::notify::{self, Missing};
use name::{Change, Name, Plan};

/// How long a look-up is waited for when addresses of an earlier one are known, and when none are. It goes on afterwards.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// Least pause before somebody who has got no address asks again.
const SOON: Duration = Duration::from_millis(500);

/// The result of a look-up.
pub(crate) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// How names are looked up.
pub(crate) type Lookup = dyn Fn(String) -> Found + Send + Sync;

/// What the process knows of names.
pub(crate) struct Resolver {
    lookup: Arc<Lookup>,
    /// By host as it was given. All names come from the configuration, so they are few.
    names: Mutex<HashMap<String, Arc<Entry>>>,
}

struct Entry {
    host: String,
    name: Mutex<Name>,
    /// Look-ups that have ended.
    ended: watch::Sender<u64>,
    /// Tells the service manager that there is no address yet.
    missing: Mutex<Option<Missing>>,
}

impl Resolver {
    /// One that asks the system.
    pub(crate) fn system() -> Arc<Self> {
        Self::new(Arc::new(|host| Box::pin(system(host))))
    }

    /// One that asks `lookup`.
    pub(crate) fn new(lookup: Arc<Lookup>) -> Arc<Self> {
        let names = Mutex::default();
        Arc::new(Self { lookup, names })
    }

    /// One that finds the same addresses for every name.
    #[cfg(test)]
    pub(crate) fn fixed(addrs: &[&str]) -> Arc<Self> {
        let ip = |text: &&str| (text.parse::<IpAddr>().expect("an address"), 0).into();
        let all: Vec<SocketAddr> = addrs.iter().map(ip).collect();
        Self::new(Arc::new(move |_| {
            Box::pin(std::future::ready(Ok(all.clone())))
        }))
    }

    /// The addresses of `host`, best first; not empty. Numbers are not looked up.
    ///
    /// # Errors
    /// When the name does not resolve and never has.
    pub(crate) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Some(ip) = number(host) {
            return Ok(vec![(ip, port).into()]);
        }
        let entry = self.entry(host);
        let mut ended = entry.ended.subscribe();
        let now = Instant::now();
        let (plan, known) = {
            let mut name = entry.lock();
            (name.plan(now), !name.addresses(now).is_empty())
        };
        if plan == Plan::Start {
            let (entry, found) = (Arc::clone(&entry), (self.lookup)(bare(host).to_owned()));
            // Not with a limit of ours: the thread that the system's look-up takes cannot be stopped, and there should be one.
            tokio::spawn(async move { entry.answered(found.await) });
        }
        let until = match plan {
            Plan::Later(_) => now,
            // One that has taken too long already is not waited for by everybody who comes.
            Plan::Wait(since) if known => since + PATIENCE.0,
            Plan::Start if known => now + PATIENCE.0,
            Plan::Start | Plan::Wait(_) => now + PATIENCE.1,
        };
        // Whether it came in time shows below.
        let _ = tokio::time::timeout_at(until, ended.changed()).await;
        let name = entry.lock();
        let all = name.addresses(Instant::now());
        if all.is_empty() {
            let why = name.error().unwrap_or("no answer yet");
            let text = format!("cannot look up {}: {why}", bare(host));
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(with_port(all, port))
    }

    /// Ends when `host` resolves. What is wrong with it is logged meanwhile.
    pub(crate) async fn until_found(self: Arc<Self>, host: String) {
        while self.addresses(&host, 0).await.is_err() {
            self.pause(&host).await;
        }
    }

    /// Ends when `host` may be looked up again after a failure.
    pub(crate) async fn pause(&self, host: &str) {
        let soon = Instant::now() + SOON;
        tokio::time::sleep_until(self.retry_at(host).unwrap_or(soon).max(soon)).await;
    }

    /// When `host` may be looked up again, if that is not now.
    pub(crate) fn retry_at(&self, host: &str) -> Option<Instant> {
        let entry = self.known(host)?;
        let at = entry.lock().retry_at();
        at.filter(|at| *at > Instant::now())
    }

    /// Nothing came from that address of `host`. Whether there is another one to be tried.
    pub(crate) fn silent(&self, host: &str, ip: IpAddr) -> bool {
        self.known(host)
            .is_some_and(|entry| entry.lock().silent(Instant::now(), ip))
    }

    /// Something came from that address of `host`.
    pub(crate) fn works(&self, host: &str, ip: IpAddr) {
        if let Some(entry) = self.known(host) {
            entry.lock().works(ip);
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, host: &str) -> Option<Arc<Entry>> {
        self.names().get(host).cloned()
    }

    fn entry(&self, host: &str) -> Arc<Entry> {
        let mut names = self.names();
        if let Some(entry) = names.get(host) {
            return Arc::clone(entry);
        }
        let entry = Arc::new(Entry {
            host: bare(host).to_owned(),
            name: Mutex::default(),
            ended: watch::Sender::new(0),
            missing: Mutex::default(),
        });
        names.insert(host.to_owned(), Arc::clone(&entry));
        entry
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Name> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn miss(&self, missing: bool) {
        let missing = missing.then(|| notify::missing(format!("{} does not resolve", self.host)));
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }

    /// A look-up has ended.
    fn answered(&self, found: io::Result<Vec<SocketAddr>>) {
        let result = found.map_err(|e| e.to_string());
        let (change, all, error) = {
            let mut name = self.lock();
            let now = Instant::now();
            let change = name.answered(now, result);
            let error = name.error().unwrap_or_default().to_owned();
            (change, name.addresses(now), error)
        };
        let all: Vec<_> = all.iter().map(|addr| addr.ip().to_string()).collect();
        let (host, all) = (&self.host, all.join(", "));
        match change {
            None if error.is_empty() => {}
            None => debug!(name: log_kind::NAMES, "{host} still does not resolve: {error}"),
            Some(Change::Found) => debug!(name: log_kind::NAMES, "{host} is {all}"),
            Some(Change::Moved) => info!(name: log_kind::NAMES, "{host} is now {all}"),
            Some(Change::Back) => {
                self.miss(false);
                info!(name: log_kind::NAMES, "{host} resolves: {all}");
            }
            Some(Change::Lost { known: true }) => {
                warn!(
                    name: log_kind::NAMES, "{host} does not resolve any more, its last addresses ({all}) stay in use: {error}"
                );
            }
            Some(Change::Lost { known: false }) => {
                self.miss(true);
                warn!(name: log_kind::NAMES, "{host} does not resolve yet, trying again: {error}");
            }
        }
        self.ended.send_modify(|n| *n += 1);
    }
}

/// The addresses of `host` that this machine is to listen on, IPv4 first (docs/spec/kcptun.md, section 3.4).
///
/// # Errors
/// When the name does not resolve in time.
pub(crate) async fn local(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(ip) = number(host) {
        return Ok(vec![(ip, port).into()]);
    }
    let bare = bare(host);
    let failed = |why: String| io::Error::other(format!("cannot look up {bare}: {why}"));
    let mut all = tokio::time::timeout(PATIENCE.1, system(bare.to_owned()))
        .await
        .map_err(|_| failed("no answer".into()))?
        .map_err(|e| failed(e.to_string()))?;
    all.sort_by_key(SocketAddr::is_ipv6);
    if all.is_empty() {
        return Err(failed("it has no address".into()));
    }
    Ok(with_port(all, port))
}

fn with_port(mut all: Vec<SocketAddr>, port: u16) -> Vec<SocketAddr> {
    for addr in &mut all {
        addr.set_port(port);
    }
    all
}

/// The system's look-up.
async fn system(host: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.collect())
}

/// The address that `host` is, when it is one already. An empty host is this machine.
pub(crate) fn number(host: &str) -> Option<IpAddr> {
    match bare(host) {
        "" => Some([127, 0, 0, 1].into()),
        bare => bare.parse().ok(),
    }
}

/// A host without the brackets around an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// What the look-ups of a test find, and how many there were.
    #[derive(Default)]
    struct Net {
        count: AtomicUsize,
        answer: Mutex<Option<&'static str>>,
        /// Look-ups do not end before this is told.
        slow: tokio::sync::Notify,
        is_slow: std::sync::atomic::AtomicBool,
    }

    impl Net {
        fn resolver(self: &Arc<Self>) -> Arc<Resolver> {
            let net = Arc::clone(self);
            Resolver::new(Arc::new(move |host| {
                let net = Arc::clone(&net);
                assert_eq!(host, "server.example");
                Box::pin(async move {
                    net.count.fetch_add(1, Relaxed);
                    if net.is_slow.load(Relaxed) {
                        net.slow.notified().await;
                    }
                    let answer = *net.answer.lock().expect("answer");
                    match answer {
                        Some(text) => Ok(vec![format!("{text}:0").parse().expect("an address")]),
                        None => Err(io::Error::other("the net is down")),
                    }
                })
            }))
        }

        fn answer(&self, text: Option<&'static str>) {
            *self.answer.lock().expect("answer") = text;
        }

        fn count(&self) -> usize {
            self.count.load(Relaxed)
        }
    }

    async fn ask(resolver: &Resolver) -> Result<String, String> {
        let found = resolver.addresses("server.example", 9).await;
        found
            .map(|all| all[0].to_string())
            .map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_dead_resolver_does_not_keep_a_known_server_away() {
        let net = Arc::new(Net::default());
        let resolver = net.resolver();
        let error = ask(&resolver).await.expect_err("nothing is known");
        assert_eq!(error, "cannot look up server.example: the net is down");
        // Not at once again.
        ask(&resolver).await.expect_err("nothing is known");
        assert_eq!(net.count(), 1);
        let retry = resolver.retry_at("server.example").expect("a pause");
        tokio::time::sleep_until(retry).await;
        net.answer(Some("192.0.2.1"));
        assert_eq!(ask(&resolver).await.expect("known"), "192.0.2.1:9");
        assert_eq!(resolver.retry_at("server.example"), None);
        net.answer(None);
        assert_eq!(ask(&resolver).await.expect("known"), "192.0.2.1:9");
        // It is asked again later, and a fresh answer wins.
        let retry = resolver.retry_at("server.example").expect("a pause");
        tokio::time::sleep_until(retry).await;
        net.answer(Some("192.0.2.2"));
        assert_eq!(ask(&resolver).await.expect("known"), "192.0.2.2:9");
        // One that does not answer at all.
        net.is_slow.store(true, Relaxed);
        let before = Instant::now();
        assert_eq!(ask(&resolver).await.expect("known"), "192.0.2.2:9");
        assert!(before.elapsed() >= PATIENCE.0);
    }

    #[tokio::test]
    async fn a_crowd_makes_one_look_up() {
        let net = Arc::new(Net::default());
        net.answer(Some("192.0.2.1"));
        net.is_slow.store(true, Relaxed);
        let resolver = net.resolver();
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let resolver = Arc::clone(&resolver);
                tokio::spawn(async move { ask(&resolver).await })
            })
            .collect();
        // Each of them asks in its first turn.
        tokio::task::yield_now().await;
        net.slow.notify_one();
        for one in crowd {
            assert_eq!(one.await.expect("no panic").expect("known"), "192.0.2.1:9");
        }
        assert_eq!(net.count(), 1);
        // Who comes when it has taken too long does not start another one either.
        let late = tokio::join!(ask(&resolver), ask(&resolver));
        assert!(late.0.is_ok() && late.1.is_ok(), "{late:?}");
        // Not even by waiting again for the one that hangs.
        let before = Instant::now();
        ask(&resolver).await.expect("known");
        assert!(before.elapsed() < PATIENCE.0);
        assert_eq!(net.count(), 2);
    }

    #[tokio::test]
    async fn numbers_are_not_looked_up() {
        let resolver = Resolver::new(Arc::new(|host| panic!("{host} was looked up")));
        for (host, want) in [
            ("192.0.2.1", "192.0.2.1:9"),
            ("[2001:db8::1]", "[2001:db8::1]:9"),
            ("", "127.0.0.1:9"),
        ] {
            let found = resolver.addresses(host, 9).await.expect("a number");
            assert_eq!(found, [want.parse().expect("an address")]);
            assert!(!resolver.silent(host, found[0].ip()));
        }
    }
}
