//! What all sessions of a process may hold together, for sending and of what has arrived.
//!
//! Every session has limits of its own: windows, and the buffers of its streams. They are chosen for one session that uses its path to the full;
//! thousands whose peers read nothing, or whose targets do not, would take all memory there is. So a session may hold no more than
//! some times what is *left* of a limit that all share (Choudhury and Hahne's dynamic thresholds): while there is plenty that is no limit at all,
//! a single session can have nearly everything, and many greedy ones end up with equal parts, without anybody counting them. Nothing
//! is dropped: a stream that gets no room is not read from its socket, and what has arrived and is not read closes KCP's window.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that all sessions of a process hold for sending, about: what streams have written, and KCP's segments until they are acknowledged.
/// One session alone gets eight ninths of it, 46 MiB: all that KCP's largest window takes, so that nobody who is alone meets this limit.
pub const SEND_LIMIT: usize = 52 << 20;
/// Bytes of what has arrived and has not been read by local sockets, in all sessions of a process, about. One session alone gets 64 MiB: the
/// windows of mode auto.
pub const RECEIVE_LIMIT: usize = 72 << 20;
/// How many times what is left one session may hold.
const SESSION_SHARE: usize = 8;

/// Bytes that the streams of one session hold for sending, before KCP takes them. Much more than leaves between two visits of its driver.
pub const SESSION_SEND_LIMIT: usize = 8 << 20;
/// Which part of what is left of that one stream may hold.
const STREAM_SHARE: usize = 8;
/// Bytes that any stream's own buffer for sending has at most.
const MOST_OF_A_STREAM: usize = 256 * 1024;
/// Bytes that a stream may hold for sending in any case, so that none waits for others.
pub const STREAM_FLOOR: usize = 512;
/// Segments that a session's KCP may hold for sending in any case.
pub(crate) const SEGMENTS_FLOOR: usize = 4;
/// Segments of receive window that a session has in any case, so that it goes on at the pace of its readers.
pub(crate) const WINDOW_FLOOR: u32 = 8;

/// Bytes that are held.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// For sending.
    pub sending: usize,
    /// Of what has arrived.
    pub receiving: usize,
}

/// What all sessions of a process hold. One for all its endpoints: see [`crate::Endpoint::share_memory`].
#[derive(Default, Debug)]
pub struct Memory {
    sending: AtomicUsize,
    receiving: AtomicUsize,
}

impl Memory {
    /// What is held now, about.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            sending: self.sending.load(Relaxed),
            receiving: self.receiving.load(Relaxed),
        }
    }
}

/// The part of an endpoint. It ends with it.
#[derive(Default, Debug)]
pub(crate) struct Share {
    all: Arc<Memory>,
    own: Held,
}

impl Share {
    pub(crate) const fn new(all: Arc<Memory>) -> Self {
        Self {
            all,
            own: Held {
                sending: 0,
                receiving: 0,
            },
        }
    }

    /// What the endpoint holds.
    pub(crate) const fn own(&self) -> Held {
        self.own
    }

    /// What one session may hold now. What it holds itself counts among what is taken.
    pub(crate) fn allowance(&self) -> Held {
        let held = self.all.held();
        Held {
            sending: SESSION_SHARE * SEND_LIMIT.saturating_sub(held.sending),
            receiving: SESSION_SHARE * RECEIVE_LIMIT.saturating_sub(held.receiving),
        }
    }

    /// A session holds so many bytes more for sending.
    pub(crate) fn add_sending(&mut self, bytes: usize) {
        self.all.sending.fetch_add(bytes, Relaxed);
        self.own.sending += bytes;
    }

    /// A session that held `before` holds `now`.
    pub(crate) fn change(&mut self, before: Held, now: Held) {
        if before != now {
            adjust(
                &self.all.sending,
                &mut self.own.sending,
                before.sending,
                now.sending,
            );
            adjust(
                &self.all.receiving,
                &mut self.own.receiving,
                before.receiving,
                now.receiving,
            );
        }
    }
}

fn adjust(all: &AtomicUsize, own: &mut usize, before: usize, now: usize) {
    if now > before {
        all.fetch_add(now - before, Relaxed);
        *own += now - before;
    } else if before > now {
        all.fetch_sub(before - now, Relaxed);
        *own -= before - now;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.change(self.own, Held::default());
    }
}

/// Whether so much is held that nobody should keep what it does not need. `allowance`: of a session.
pub(crate) fn is_scarce(allowance: Held) -> bool {
    allowance.sending < SESSION_SHARE * SEND_LIMIT / 2
        || allowance.receiving < SESSION_SHARE * RECEIVE_LIMIT / 2
}

/// Whether no stream of a session is limited: each may hold more than any asks for. `allowance`: of the session; `held`: by it.
#[inline]
pub(crate) const fn is_plenty(allowance: usize, held: usize) -> bool {
    held + STREAM_SHARE * MOST_OF_A_STREAM <= SESSION_SEND_LIMIT
        && held + STREAM_SHARE * MOST_OF_A_STREAM <= allowance
}

/// Bytes that a stream of a session may hold for sending. `allowance`: of the session; `held`: of all its streams.
pub(crate) fn stream_allowance(allowance: usize, held: usize) -> usize {
    let left = allowance.min(SESSION_SEND_LIMIT).saturating_sub(held);
    (left / STREAM_SHARE).max(STREAM_FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many take what they may, and in whatever order, the limit holds and nobody gets much more than another.
    #[test]
    fn greedy_sessions_get_equal_parts_of_the_limit() {
        let all = Arc::new(Memory::default());
        for n in [1, 2, 10, 1000] {
            let mut shares: Vec<_> = (0..4).map(|_| Share::new(all.clone())).collect();
            let mut sessions = vec![Held::default(); n];
            for _ in 0..2000 {
                for (i, session) in sessions.iter_mut().enumerate() {
                    let share = &mut shares[i % 4];
                    // A step towards what it may have, as acknowledgements come.
                    let wanted = share.allowance().sending;
                    let step = wanted.abs_diff(session.sending).min(SEND_LIMIT / n / 16);
                    let sending = if wanted > session.sending {
                        session.sending + step
                    } else {
                        session.sending - step
                    };
                    let now = Held {
                        sending,
                        receiving: 0,
                    };
                    share.change(*session, now);
                    *session = now;
                }
            }
            let total: usize = sessions.iter().map(|s| s.sending).sum();
            assert_eq!(total, all.held().sending);
            let parts = SEND_LIMIT * 8 / 9 - (1 << 20)..=SEND_LIMIT;
            assert!(parts.contains(&total), "{total} for {n}");
            let least = sessions.iter().map(|s| s.sending).min().unwrap_or(0);
            assert!(least >= total / n / 2, "{least} of {total} for {n}");
            drop(shares);
            assert_eq!(all.held(), Held::default());
        }
    }
}
