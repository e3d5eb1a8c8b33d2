//! How a client ends when it is told to: its streams are cut first, so that the services behind the server learn of it at
//! once. kcptun has no word for the end of a session, and a server that is told nothing keeps the connections until it has
//! waited for the client long enough, which between two Fulmar ends is two minutes.

use std::time::Duration;

use fulmar_session::session::{Reason, Session};
use fulmar_wire::time::Instant;

use super::{Driver, Side};

/// How long the server may take to acknowledge it.
const GRACE: Duration = Duration::from_millis(500);

impl Driver {
    /// Ends the driver: a server's now, a client's when its streams are known to be cut, or after [`GRACE`].
    pub(super) fn stop(&mut self) {
        let streams: Vec<_> = self.pumps.iter().map(|p| (p.session, p.stream)).collect();
        if matches!(self.side, Side::Server { .. }) || streams.is_empty() {
            self.ending = Some(Reason::Closed);
            return;
        }
        let now = self.clock.now();
        for (session, stream) in streams {
            self.endpoint.reset(now, session, stream);
        }
        let keys: Vec<_> = self.endpoint.sessions().collect();
        for key in keys {
            self.take_pumps(key, false);
        }
        self.stopping = Some(now + GRACE);
    }

    /// Whether [`Self::stop`] has done what it can.
    pub(super) fn has_stopped(&self, now: Instant) -> bool {
        let told = |s: &Session| s.kcp().waiting() == 0;
        self.stopping.is_some_and(|until| {
            let mut sessions = self.endpoint.sessions();
            let mut all = || sessions.all(|key| self.endpoint.session(key).is_none_or(told));
            now >= until || !self.endpoint.wants_flush() && all()
        })
    }
}
