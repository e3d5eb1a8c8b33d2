//! What the status page says of sessions, in every dialect: all drivers of the process are asked, and their answers put together.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::http::{Counts, SessionState, SessionView};
use crate::stats::Hub;

/// How long drivers may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that wait for one driver; with more, it is left out.
pub(crate) const LINE: usize = 4;

/// A driver's end of the line: who asks, and waits for the answer.
pub(crate) type Questions = mpsc::Receiver<oneshot::Sender<Description>>;

/// What a driver says of itself.
#[derive(Clone, Default, Debug)]
pub(crate) struct Description {
    pub(crate) sessions: Vec<SessionInfo>,
    /// What stands behind datagrams in the clothes of TCP, if they wear any.
    pub(crate) obfs: Option<Vec<fulmar_netio::ObfsContext>>,
}

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct SessionInfo {
    /// Its conversation.
    pub(crate) conv: u32,
    /// Where its peer is.
    pub(crate) peer: SocketAddr,
    /// Whether something of the peer has arrived, and how long ago the latest has.
    pub(crate) seen: Option<Duration>,
    /// Whether it carries nothing any more.
    pub(crate) lingers: bool,
    /// Smoothed round-trip time, if measured.
    pub(crate) rtt: Option<Duration>,
    /// Retransmission timeout.
    pub(crate) rto: Duration,
    /// Segments that wait or are in flight.
    pub(crate) waiting: usize,
    /// Bytes received from the peer and given to it, of the application's.
    pub(crate) bytes: (u64, u64),
}

impl Hub {
    /// Asks all drivers that run now. One that does not answer in time is left out.
    pub(crate) async fn describe(&self) -> Description {
        self.describe_within(PATIENCE).await
    }

    async fn describe_within(&self, patience: Duration) -> Description {
        let mut answers = Vec::new();
        for driver in self.lines() {
            let (to, told) = oneshot::channel();
            if driver.try_send(to).is_ok() {
                answers.push(told);
            }
        }
        let mut all = Description::default();
        let deadline = tokio::time::Instant::now() + patience;
        for told in answers {
            if let Ok(Ok(one)) = tokio::time::timeout_at(deadline, told).await {
                all.sessions.extend(one.sessions);
                if let Some(obfs) = one.obfs {
                    all.obfs.get_or_insert_default().extend(obfs);
                }
            }
        }
        all
    }
}

/// The rows of `/stats`, and how many sessions there are in each state.
pub(crate) fn views(sessions: &[SessionInfo]) -> (Vec<SessionView>, Counts) {
    let mut counts = Counts::default();
    let views = sessions.iter().map(|session| {
        let view = view(session);
        match view.state {
            SessionState::HalfOpen => counts.halfopen += 1,
            SessionState::Connected => counts.connected += 1,
            SessionState::Linger => counts.linger += 1,
            SessionState::TimeWait => counts.time_wait += 1,
        }
        counts.waitsnd += view.waitsnd;
        view
    });
    (views.collect(), counts)
}

fn view(s: &SessionInfo) -> SessionView {
    let millis = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
    SessionView {
        conv: s.conv,
        state: match s.seen {
            None => SessionState::HalfOpen,
            Some(_) if s.lingers => SessionState::Linger,
            Some(_) => SessionState::Connected,
        },
        peer: s.peer.to_string(),
        seen_secs: s.seen.unwrap_or_default().as_secs(),
        rtt_ms: Some(s.rtt.map_or(0, millis)),
        rto_ms: Some(millis(s.rto)),
        waitsnd: s.waiting as u64,
        rx: s.bytes.0,
        tx: s.bytes.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(conv: u32, seen: Option<u64>, lingers: bool) -> SessionInfo {
        SessionInfo {
            conv,
            peer: ([203, 0, 113, 9], 4711).into(),
            seen: seen.map(Duration::from_secs),
            lingers,
            rtt: Some(Duration::from_millis(41)),
            rto: Duration::from_millis(100),
            waiting: 3,
            bytes: (5, 6),
        }
    }

    #[test]
    fn sessions_are_counted_by_state() {
        let all = [
            session(1, None, false),
            session(2, Some(9), false),
            session(3, Some(1), true),
        ];
        let (views, counts) = views(&all);
        assert_eq!(
            (
                counts.halfopen,
                counts.connected,
                counts.linger,
                counts.time_wait
            ),
            (1, 1, 1, 0)
        );
        assert_eq!(counts.waitsnd, 9);
        let shown = &views[1];
        assert_eq!((shown.conv, shown.peer.as_str()), (2, "203.0.113.9:4711"));
        assert_eq!((shown.rtt_ms, shown.rto_ms), (Some(41), Some(100)));
        assert_eq!((shown.rx, shown.tx, shown.seen_secs), (5, 6, 9));
    }

    #[tokio::test]
    async fn all_drivers_are_asked_and_one_that_hangs_holds_nobody_up() {
        let hub = Hub::default();
        let mut drivers = Vec::new();
        for conv in [7, 8] {
            let (published, mut questions) = hub.register();
            drivers.push(published);
            tokio::spawn(async move {
                while let Some(to) = questions.recv().await {
                    let sessions = vec![session(conv, Some(1), false)];
                    let _ = to.send(Description {
                        sessions,
                        obfs: None,
                    });
                }
            });
        }
        let hangs = hub.register();
        for _ in 0..2 * LINE {
            let all = hub.describe_within(Duration::from_millis(20)).await;
            let convs: Vec<_> = all.sessions.iter().map(|s| s.conv).collect();
            assert_eq!(convs, [7, 8]);
            assert!(all.obfs.is_none());
        }
        // One that has ended is not asked.
        hub.retire(&hangs.0);
        hub.retire(&drivers[0]);
        assert_eq!(hub.lines().len(), 1);
        assert_eq!(hub.describe().await.sessions.len(), 1);
    }
}
