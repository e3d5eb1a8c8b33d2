//! Asking whether the server lives, for somebody who looks at the status page of a client.
//!
//! A client that is not used hears nothing, so what it knows grows old. Who wants to know asks for a question; whoever keeps
//! the sessions decides whether one leaves ([`fulmar_session::reachability`]).

use std::time::Duration;

use fulmar_session::reachability::FRESH;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::stats::Hub;

/// A wish to ask the server. Answered with whether it is being asked.
pub(crate) type Question = oneshot::Sender<bool>;

/// Questions on their way; more are not needed.
const QUESTIONS: usize = 16;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// See the module's documentation.
pub(crate) struct Inquiry {
    hub: Hub,
    clock: Clock,
    questions: mpsc::Sender<Question>,
}

impl Inquiry {
    /// One, and where its questions come out.
    pub(crate) fn new(hub: Hub, clock: Clock) -> (Self, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(QUESTIONS);
        let inquiry = Self {
            hub,
            clock,
            questions,
        };
        (inquiry, receiver)
    }

    /// How long ago something of the server opened; `None`: it never has.
    pub(crate) fn heard(&self) -> Option<Duration> {
        self.hub.last_heard().map(|at| self.clock.now() - at)
    }

    /// Has the server asked if that is long ago, and waits a moment for the answer.
    pub(crate) async fn ask(&self) {
        let stale = || self.heard().is_none_or(|ago| ago >= FRESH);
        let Some(told) = self.ask_if(stale()) else {
            return;
        };
        if !told.await.unwrap_or(false) {
            return;
        }
        let end = Instant::now() + PATIENCE;
        while stale() && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The same without waiting.
    pub(crate) fn ask_for_later(&self) {
        let _ = self.ask_if(self.heard().is_none_or(|ago| ago >= FRESH));
    }

    fn ask_if(&self, stale: bool) -> Option<oneshot::Receiver<bool>> {
        let (to, told) = oneshot::channel();
        // When too many wait, one of them is as good as this one.
        (stale && self.questions.try_send(to).is_ok()).then_some(told)
    }
}
