//! One stream joined to one local connection.
//!
//! A pump moves bytes both ways between a stream of a session and a local socket, without a task or channel of its
//! own: the driver polls it when its socket is ready or its stream has something. Reads go straight into the stream's
//! send buffer, writes come straight out of its receive buffer.
//!
//! ```text
//!            local end of input            peer's end, all delivered
//!   both ──────────────────▶ down only ─────────────────────────────▶ over
//!     │  peer's end, all delivered                local end of input     ▲
//!     └─────────────────────▶ up only ───────────────────────────────────┘
//! ```
//! Each direction ends by itself (a half-close is passed on as one). A reset of either side, or a session that dies,
//! resets the other. Once one direction has ended, the other may not stand still for ever: when bytes wait and none
//! moves for [`STALLED`], both are reset.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fulmar_session::layer::{Readable, StreamId, Writable};
use fulmar_session::{Endpoint, SessionKey};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;

use crate::conn::Conn;
use crate::dial::Dial;
use crate::driver::STREAM_LOG;

/// Bytes that a pump moves in one turn and direction, so that no stream keeps the driver from the others.
const TURN_BYTES: usize = 256 * 1024;
/// Most pieces of one write: up to 512 KiB of a stream at full speed.
const WRITE_PIECES: usize = 8;
/// Most bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// Sessions that may die under a connection before it is reset.
const MAX_CARRIED: u8 = 3;
/// Bytes that are kept until the session has proven to be alive; with more, a stream cannot be moved any more.
const EARLY_BYTES: usize = 64 * 1024;
/// How long bytes may wait in one direction when the other has ended.
const STALLED: Duration = Duration::from_secs(60);
/// How long a connection to a target may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a local connection may go on sending after its peer takes nothing more.
const DISCARD: Duration = Duration::from_secs(2);

enum Local {
    Dialing(Dial),
    Open(Conn),
    Gone,
}

/// What a turn left.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing to do until something wakes it.
    Idle,
    /// More to do at once.
    Again,
    /// It is over; the pump can be dropped.
    Over(Ended),
}

/// How a pump ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both directions ended in order.
    Clean,
    /// The target could not be reached.
    DialFailed(io::Error),
    /// The local side failed or reset.
    LocalError(io::Error),
    /// The peer reset the stream.
    PeerReset,
    /// The peer closed the whole stream and the local side went on sending.
    PeerStopped,
    /// One direction had ended and the other stood still.
    Stalled,
    /// The server does not answer, and it has waited for that long enough.
    ServerDown,
}

/// See the module's documentation. There may be thousands: what all have in common is not kept here.
pub(crate) struct Pump {
    pub(crate) session: SessionKey,
    pub(crate) stream: StreamId,
    local: Local,
    waker: Waker,
    /// Who is at the local side, for the log; `None` if that is the target of all, or nobody reads it.
    pub(crate) name: Option<Box<str>>,
    /// The local side has ended its sending.
    up_done: bool,
    /// The peer has, and everything of it was written.
    down_done: bool,
    /// The peer takes nothing more.
    stopped: bool,
    discarded: bool,
    /// Bytes wait to be written to the local side.
    down_blocked: bool,
    /// The local side is not read, because the stream takes nothing now.
    up_blocked: bool,
    /// When its connection got this session.
    pub(crate) began: Instant,
    /// When bytes last moved.
    moved: Instant,
    /// No segment that was sent before the stream was opened has this number or a later one.
    first_sn: Seq,
    /// What was sent while it is not known whether the session is alive.
    early: Option<Vec<u8>>,
    /// How many sessions its connection has had before.
    carried: u8,
    /// Whether the driver has it on its list of work.
    pub(crate) queued: bool,
}

/// A connection whose session died before it took anything: it can be carried by another one.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) conn: Conn,
    pub(crate) early: Vec<u8>,
    pub(crate) finished: bool,
    /// How many sessions it has had.
    pub(crate) carried: u8,
}

impl Orphan {
    /// A connection that was accepted just now.
    pub(crate) const fn new(conn: Conn) -> Self {
        Self {
            conn,
            early: Vec::new(),
            finished: false,
            carried: 0,
        }
    }
}

impl Pump {
    /// Joins a stream that we opened to a connection that was accepted.
    pub(crate) fn carry(
        session: SessionKey,
        stream: StreamId,
        orphan: Orphan,
        first_sn: Seq,
        waker: Waker,
        now: Instant,
    ) -> Self {
        let told = tracing::enabled!(target: STREAM_LOG, tracing::Level::INFO);
        let name = told.then(|| orphan.conn.peer_name().into());
        let local = Local::Open(orphan.conn);
        let mut pump = Self::new(session, stream, local, name, waker, now);
        pump.up_done = orphan.finished;
        pump.early = Some(orphan.early);
        pump.carried = orphan.carried;
        pump.first_sn = first_sn;
        pump
    }

    /// Joins a stream that the peer opened to a connection that is being made.
    pub(crate) fn dial(
        session: SessionKey,
        stream: StreamId,
        dial: Dial,
        waker: Waker,
        now: Instant,
    ) -> Self {
        Self::new(session, stream, Local::Dialing(dial), None, waker, now)
    }

    fn new(
        session: SessionKey,
        stream: StreamId,
        local: Local,
        name: Option<Box<str>>,
        waker: Waker,
        now: Instant,
    ) -> Self {
        Self {
            session,
            stream,
            local,
            waker,
            name,
            up_done: false,
            down_done: false,
            stopped: false,
            discarded: false,
            down_blocked: false,
            up_blocked: false,
            began: now,
            moved: now,
            first_sn: Seq(0),
            early: None,
            carried: 0,
            queued: false,
        }
    }

    /// Moves what can be moved.
    pub(crate) fn drive(&mut self, endpoint: &mut Endpoint, now: Instant) -> Turn {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        if let Local::Dialing(dial) = &mut self.local {
            match dial.poll(&mut cx) {
                Poll::Pending => {
                    // A stream that ended before its target was reached needs no target.
                    return match endpoint.read(self.session, self.stream) {
                        Readable::Reset => self.over(Ended::PeerReset),
                        _ => Turn::Idle,
                    };
                }
                Poll::Ready(Err(e)) => {
                    endpoint.reset(now, self.session, self.stream);
                    return self.over(Ended::DialFailed(e));
                }
                Poll::Ready(Ok(conn)) => {
                    self.local = Local::Open(conn);
                    self.moved = now;
                }
            }
        }
        let down = match self.down(endpoint, now, &mut cx) {
            Ok(again) => again,
            Err(ended) => return self.cut(endpoint, now, ended),
        };
        let up = match self.up(endpoint, now, &mut cx) {
            Ok(again) => again,
            Err(ended) => return self.cut(endpoint, now, ended),
        };
        if self.up_done && self.down_done {
            endpoint.close(now, self.session, self.stream);
            return if self.discarded {
                self.cut(endpoint, now, Ended::PeerStopped)
            } else {
                self.over(Ended::Clean)
            };
        }
        if down || up { Turn::Again } else { Turn::Idle }
    }

    /// Looks whether it has stood still for too long; called about once a second. `close_wait` is how long a local side
    /// that is quiet may take to end by itself once the peer takes nothing more.
    pub(crate) fn tick(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        close_wait: Duration,
    ) -> Turn {
        let still = now - self.moved;
        if let Local::Dialing(_) = self.local {
            if still > CONNECT {
                let e = io::Error::new(io::ErrorKind::TimedOut, "no answer");
                return self.cut(endpoint, now, Ended::DialFailed(e));
            }
            return Turn::Idle;
        }
        // Who does not read does not hear of a reset.
        if self.up_blocked
            && let Local::Open(conn) = &self.local
            && let Some(e) = conn.take_error()
        {
            return self.cut(endpoint, now, Ended::LocalError(e));
        }
        if self.stopped && self.down_done {
            // What the local side still sends reaches nobody; one that is quiet may end by itself.
            let patience = if self.discarded {
                DISCARD
            } else {
                close_wait.max(DISCARD)
            };
            if still > patience {
                let ended = if self.discarded {
                    Ended::PeerStopped
                } else {
                    Ended::Clean
                };
                return self.cut(endpoint, now, ended);
            }
        }
        let unsent = endpoint
            .progress(self.session, self.stream)
            .is_some_and(|p| p.unsent);
        let waiting = (self.down_done && unsent) || (self.up_done && self.down_blocked);
        if waiting && still > STALLED {
            return self.cut(endpoint, now, Ended::Stalled);
        }
        Turn::Idle
    }

    /// Whether a connection is being made, one direction has ended and the other has not, or the local side is not read:
    /// such pumps are looked at by [`Pump::tick`].
    pub(crate) const fn is_watched(&self) -> bool {
        self.up_done != self.down_done
            || self.stopped
            || self.up_blocked
            || matches!(self.local, Local::Dialing(_))
    }

    /// Resets both sides: the server is down.
    pub(crate) fn give_up(&mut self, endpoint: &mut Endpoint, now: Instant) -> Turn {
        self.cut(endpoint, now, Ended::ServerDown)
    }

    /// The session is gone: the connection, if it can be carried by another session; else it is reset.
    pub(crate) fn orphan(mut self, carry: bool) -> Option<Orphan> {
        let Local::Open(conn) = std::mem::replace(&mut self.local, Local::Gone) else {
            return None;
        };
        match self.early.take() {
            Some(early) if carry && self.carried < MAX_CARRIED => Some(Orphan {
                conn,
                early,
                finished: self.up_done,
                carried: self.carried + 1,
            }),
            _ => {
                conn.abort();
                None
            }
        }
    }

    /// Stream to local.
    fn down(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<bool, Ended> {
        let Local::Open(conn) = &self.local else {
            return Ok(false);
        };
        self.down_blocked = false;
        let mut moved = 0;
        while !self.down_done {
            match endpoint.read(self.session, self.stream) {
                Readable::Pending => break,
                Readable::Reset => return Err(Ended::PeerReset),
                Readable::Finished => {
                    self.down_done = true;
                    self.moved = now;
                    conn.shutdown().map_err(Ended::LocalError)?;
                }
                Readable::Bytes(_) => {
                    if moved >= TURN_BYTES {
                        return Ok(true);
                    }
                    let mut pieces = [&[][..]; WRITE_PIECES];
                    let n = endpoint.pieces(self.session, self.stream, &mut pieces);
                    let pieces = pieces.map(IoSlice::new);
                    match conn.poll_write(cx, &pieces[..n]) {
                        Poll::Pending => {
                            self.down_blocked = true;
                            break;
                        }
                        Poll::Ready(Err(e)) => return Err(Ended::LocalError(e)),
                        Poll::Ready(Ok(n)) => {
                            endpoint.consume(now, self.session, self.stream, n);
                            moved += n;
                            self.moved = now;
                            self.early = None;
                        }
                    }
                }
            }
        }
        Ok(false)
    }

    /// Local to stream.
    fn up(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Result<bool, Ended> {
        let Local::Open(conn) = &self.local else {
            return Ok(false);
        };
        if self.early.is_some()
            && endpoint
                .session(self.session)
                .is_some_and(|s| s.kcp().snd_una().diff(self.first_sn) > 0)
        {
            self.early = None;
        }
        let mut moved = 0;
        self.up_blocked = false;
        while !self.up_done {
            if moved >= TURN_BYTES {
                return Ok(true);
            }
            let n = match endpoint.write(self.session, self.stream, READ_BYTES) {
                Writable::Full => {
                    self.up_blocked = true;
                    break;
                }
                Writable::Stopped => {
                    self.stopped = true;
                    let mut scratch = [0; 4096];
                    match conn.poll_read(cx, &mut scratch) {
                        Poll::Pending => break,
                        Poll::Ready(Err(e)) => return Err(Ended::LocalError(e)),
                        Poll::Ready(Ok(n)) => {
                            self.discarded |= n > 0;
                            moved += n;
                            self.up_done = n == 0;
                            continue;
                        }
                    }
                }
                Writable::Room(room) => match conn.poll_read(cx, room) {
                    Poll::Pending => {
                        // Gives the room back: an idle stream keeps no buffer.
                        endpoint.commit(self.session, self.stream, 0);
                        break;
                    }
                    Poll::Ready(Err(e)) => return Err(Ended::LocalError(e)),
                    Poll::Ready(Ok(n)) => {
                        match &mut self.early {
                            Some(early) if early.len() + n <= EARLY_BYTES => {
                                early.extend_from_slice(&room[..n]);
                            }
                            early => *early = None,
                        }
                        n
                    }
                },
            };
            self.moved = now;
            if n == 0 {
                self.up_done = true;
                endpoint.commit(self.session, self.stream, 0);
                endpoint.finish(now, self.session, self.stream);
            } else {
                endpoint.commit(self.session, self.stream, n);
                moved += n;
            }
        }
        Ok(false)
    }

    /// Resets both sides.
    fn cut(&mut self, endpoint: &mut Endpoint, now: Instant, ended: Ended) -> Turn {
        match ended {
            Ended::Clean => endpoint.close(now, self.session, self.stream),
            Ended::PeerReset => {}
            _ => endpoint.reset(now, self.session, self.stream),
        }
        if !matches!(ended, Ended::Clean)
            && let Local::Open(conn) = std::mem::replace(&mut self.local, Local::Gone)
        {
            conn.abort();
        }
        self.over(ended)
    }

    fn over(&mut self, ended: Ended) -> Turn {
        self.local = Local::Gone;
        Turn::Over(ended)
    }
}

/// Writes the bytes that an orphan brings along into its new stream.
///
/// They fit: a stream's send buffer takes [`EARLY_BYTES`].
pub(crate) fn replay(
    endpoint: &mut Endpoint,
    now: Instant,
    session: SessionKey,
    stream: StreamId,
    orphan: &Orphan,
) -> bool {
    let mut rest = &orphan.early[..];
    while !rest.is_empty() {
        match endpoint.rewrite(session, stream, rest.len()) {
            Writable::Room(room) => {
                let n = room.len().min(rest.len());
                room[..n].copy_from_slice(&rest[..n]);
                endpoint.commit(session, stream, n);
                rest = &rest[n..];
            }
            Writable::Full | Writable::Stopped => return false,
        }
    }
    if orphan.finished {
        endpoint.finish(now, session, stream);
    }
    true
}

#[cfg(test)]
mod tests {
    /// One for each stream; next to it the system's readiness of the socket (256 bytes of tokio's) and a waker (32).
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_pump_is_small() {
        assert!(size_of::<super::Pump>() <= 160);
        assert!(size_of::<super::Orphan>() <= 80);
    }
}
