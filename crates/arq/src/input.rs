//! Taking a datagram in (docs/spec/kcptun.md, section 7.4).

use std::time::Duration;

use fulmar_wire::kcp::{Command, HEADER_LEN, Header};
use fulmar_wire::time::{Instant, Millis};

use crate::config::MAX_WINDOW;
use crate::control::{Acked, Delivered, SenderControl, Source};
use crate::echo::QUESTIONS_BEFORE;
use crate::kcp::{FlushWanted, InputError, Kcp, Origin};
use crate::ranges;
use crate::receive::Arrival;
use crate::send::Done;

/// Acknowledgements that are remembered between flushes, at least; else two receive windows. Callers flush after each run of
/// datagrams, so this is met only by one who does not, or under attack; what is not acknowledged is sent again.
const MIN_ACKS_KEPT: usize = 4096;

impl<C: SenderControl> Kcp<C> {
    /// Takes in one datagram. Nothing is written: the answer says what kind of flush upstream would do at once, and the
    /// caller does the strongest one of a received run after its last datagram. It is also remembered in [`Self::flush_wanted`].
    ///
    /// # Errors
    /// [`InputError`], after the segments before the offending one have been taken in. The datagram is to be dropped and the
    /// conversation goes on.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        origin: Origin,
    ) -> Result<FlushWanted, InputError> {
        self.tick(now);
        let result = self.take_in(now, datagram, origin);
        match result {
            Ok(wanted) => self.wanted = self.wanted.max(wanted),
            Err(_) => self.counters.kcp_in_errors += 1,
        }
        self.next_timeout = self.tx.next_timeout();
        result
    }

    fn take_in(
        &mut self,
        now: Instant,
        datagram: &[u8],
        origin: Origin,
    ) -> Result<FlushWanted, InputError> {
        let una_before = self.tx.una();
        let mut slid = false;
        let mut echo = None;
        let mut restarted = false;
        let mut tally = Tally::default();
        self.tx.refill_budget();
        let mut rest = datagram;
        // The first must be whole; a tail that is too short for a header is padding.
        loop {
            let view = self.config.rules.format.view(rest)?;
            if view.conv() != self.conv {
                return Err(InputError::OtherConversation(view.conv()));
            }
            let (mut header, data, behind) = view.parse()?;
            if data.len() > self.config.max_payload {
                return Err(InputError::TooLarge { len: data.len() });
            }
            rest = behind;
            self.counters.in_segs += 1;
            self.last_heard = Some(now);
            if origin == Origin::Wire {
                self.rmt_wnd = u32::from(header.wnd);
            }
            slid |= self.acknowledged_before(now, &header, &mut tally);
            match header.command {
                Command::Ack => {
                    header.ts = self.off_wire(header.ts);
                    if origin == Origin::Wire && (self.home.is_some() || self.away.is_some()) {
                        self.watch_echo(header.ts);
                    }
                    if self.restart.remembers(header.una) {
                        self.last_answer = Some(now);
                    }
                    if data.len() >= ranges::LEN {
                        self.acknowledged_ranges(now, &header, data, &mut tally);
                    }
                    if now.wire_millis().diff(header.ts) >= QUESTIONS_BEFORE / 2 {
                        self.answered_question(now, &header, &mut tally);
                    } else {
                        slid |= self.acknowledged(now, &header, &mut tally);
                        echo = Some(header.ts);
                        restarted |=
                            self.restart
                                .proves(header.una, header.ts, self.tx.unsent(), now);
                    }
                }
                Command::Push => self.data(now, &header, data, origin),
                Command::WindowAsk => {
                    self.tell = true;
                    self.acks_since_now(now);
                }
                Command::WindowTell => {
                    match self.plain_asks.checked_sub(1) {
                        Some(left) => self.plain_asks = left,
                        None => self.size_answer = true,
                    }
                    if self.restart.remembers(header.una) {
                        self.last_answer = Some(now);
                    } else {
                        self.restart.doubt();
                    }
                }
            }
            if rest.len() < HEADER_LEN {
                break;
            }
        }
        if restarted {
            self.restart.record();
        }
        let measured = self.config.measure_repairs || tally.segments > 0;
        let rtt_ms = match echo {
            Some(ts) if origin == Origin::Wire && measured => {
                let rtt = u32::try_from(now.wire_millis().diff(ts)).ok();
                rtt.filter(|_| measures(self.measured_from, now, ts))
            }
            _ => None,
        };
        if let Some(rtt) = rtt_ms {
            let rules = &self.config.rules;
            let min_rto = if self.config.profile.nodelay == 0 {
                rules.min_rto_ms
            } else {
                rules.min_rto_nodelay_ms
            };
            self.rtt.sample(
                rtt,
                self.config.profile.interval_ms,
                min_rto,
                rules.max_rto_ms,
            );
        }
        let advanced = self.tx.una() != una_before;
        if tally.segments > 0 || advanced || rtt_ms.is_some() {
            self.control.on_acked(
                now,
                &Acked {
                    segments: tally.segments,
                    bytes: tally.bytes,
                    advanced,
                    rtt_ms,
                    in_flight: self.tx.in_flight(),
                    rmt_wnd: self.rmt_wnd,
                },
            );
        }
        // Where losses are found by time, any acknowledgement may have shown some.
        slid |= tally.segments > 0 && self.control.skip_threshold().is_none();
        Ok(if slid {
            FlushWanted::Full
        } else if self.acks.len() >= self.config.mtu / HEADER_LEN
            || self.config.ack_no_delay && !self.acks.is_empty()
        {
            FlushWanted::AckOnly
        } else {
            FlushWanted::None
        })
    }

    /// Everything before the segment's `una` has arrived. Whether that was news.
    #[inline]
    fn acknowledged_before(&mut self, now: Instant, header: &Header, tally: &mut Tally) -> bool {
        let (control, from) = (&mut self.control, self.measured_from);
        let news = self.tx.acknowledge_before(header.una, |done| {
            tally.add(&done);
            control.on_delivered(now, &delivered(done, Source::Una, from, now));
        });
        match news {
            Some(true) => {
                self.progress = now;
                self.restart.advanced(self.tx.una(), now);
                true
            }
            Some(false) => false,
            None => {
                self.counters.invalid_acks += 1;
                false
            }
        }
    }

    /// One segment has arrived. Whether others have now been skipped often enough.
    #[inline]
    fn acknowledged(&mut self, now: Instant, header: &Header, tally: &mut Tally) -> bool {
        let (control, from) = (&mut self.control, self.measured_from);
        let before = tally.segments;
        let known = self.tx.acknowledge(header.sn, |done| {
            tally.add(&done);
            control.on_delivered(now, &delivered(done, Source::Echo(header.ts), from, now));
        });
        if known {
            if measures(from, now, header.ts) {
                control.on_echo(now, header.sn, header.ts);
            }
        } else {
            self.counters.invalid_acks += 1;
        }
        if tally.segments != before {
            self.progress = now;
        }
        self.tx.skip(header.sn, header.ts)
    }

    /// An acknowledgement echoes a time that may show where the other side is.
    #[cold]
    fn watch_echo(&mut self, ts: Millis) {
        if let Some(home) = &mut self.home {
            home.heard(ts);
        }
        if let Some(away) = &mut self.away {
            away.heard(ts);
        }
    }

    /// A question to another address has arrived somewhere, lately or long ago. Its time measures nothing. It may have been asked with a segment
    /// in flight.
    #[cold]
    fn answered_question(&mut self, now: Instant, header: &Header, tally: &mut Tally) {
        let (control, from) = (&mut self.control, self.measured_from);
        self.tx.acknowledge(header.sn, |done| {
            tally.add(&done);
            control.on_delivered(now, &delivered(done, Source::Una, from, now));
        });
    }

    /// Ranges of segments have arrived (see [`crate::ranges`]).
    fn acknowledged_ranges(
        &mut self,
        now: Instant,
        header: &Header,
        data: &[u8],
        tally: &mut Tally,
    ) {
        let before = tally.segments;
        let mut left = ranges::MOST_NAMED;
        for (lowest, count) in ranges::parse(self.config.rules.format, header.una, data) {
            if count > left || !lowest.plus(count - 1).before(self.tx.unsent()) {
                self.counters.invalid_acks += 1;
                break;
            }
            left -= count;
            let (control, from) = (&mut self.control, self.measured_from);
            for i in 0..count {
                self.tx.acknowledge(lowest.plus(i), |done| {
                    tally.add(&done);
                    control.on_delivered(now, &delivered(done, Source::Range, from, now));
                });
            }
        }
        if tally.segments != before {
            self.progress = now;
        }
    }

    #[inline]
    fn data(&mut self, now: Instant, header: &Header, data: &[u8], origin: Origin) {
        if self.newest_heard.is_none_or(|t| header.ts.diff(t) > 0) {
            self.newest_heard = Some(header.ts);
        }
        let arrival = self.rx.insert(header.sn, header.frg, data);
        match arrival {
            Arrival::Outside => {
                self.counters.outside_segs += 1;
                return;
            }
            Arrival::Repeated if origin == Origin::Wire => self.counters.repeat_segs += 1,
            Arrival::New | Arrival::Repeated => {}
        }
        if origin == Origin::Wire {
            self.arrivals = match self.arrivals {
                (since, n, _) if now.since(since) >= RATE_SPAN => {
                    let fresh = now.since(since) < 2 * RATE_SPAN;
                    (now, 1, if fresh { n } else { 0 })
                }
                (since, n, before) => (since, n.saturating_add(1), before),
            };
        }
        // Beyond the largest window it could be so old that the clock has wrapped since.
        let recent = self.rx.nxt().0.wrapping_sub(header.sn.0) <= MAX_WINDOW
            || !header.sn.before(self.rx.nxt());
        if recent && self.newest_push.is_none_or(|t| header.ts.diff(t) > 0) {
            self.newest_push = Some(header.ts);
        }
        let mut ts = header.ts;
        if origin == Origin::Recovered && !self.config.measure_repairs {
            if arrival == Arrival::Repeated {
                return;
            }
            ts = match self.newest_push {
                Some(newest) if newest.diff(ts) > 0 => newest,
                _ => ts,
            };
        }
        let kept = MIN_ACKS_KEPT.max(2 * self.config.rcv_wnd as usize);
        if self.acks.len() < kept {
            self.acks_since_now(now);
            self.acks.push((header.sn, ts));
        }
    }

    /// The wait for company begins with the first thing that is owed.
    #[inline]
    pub(crate) fn acks_since_now(&mut self, now: Instant) {
        if self.acks.is_empty() {
            self.acks_since = now;
        }
    }
}

/// Time over which arrivals are counted, to know whether an acknowledgement will soon have company.
const RATE_SPAN: Duration = Duration::from_millis(10);

/// What one datagram acknowledged.
#[derive(Default)]
struct Tally {
    segments: u32,
    bytes: u64,
}

impl Tally {
    #[inline]
    fn add(&mut self, done: &Done) {
        self.segments += 1;
        self.bytes += done.len as u64;
    }
}

/// Whether what left at `sent` measures the path, where only what left at `from` or later does ([`Kcp::measure_from`]).
#[inline]
fn measures(from: Instant, now: Instant, sent: Millis) -> bool {
    // The time of the wire wraps: unfold it backwards from now.
    let age = u64::from(now.wire_millis().0.wrapping_sub(sent.0));
    from == Instant::ZERO || now.as_millis() >= from.as_millis().saturating_add(age)
}

#[inline]
fn delivered(done: Done, source: Source, from: Instant, now: Instant) -> Delivered {
    let measures = measures(from, now, done.sent);
    Delivered {
        // One of several transmissions, nobody knows which: that measures nothing.
        source: if measures { source } else { Source::Una },
        sn: done.sn,
        len: done.len,
        sent: done.sent,
        transmissions: if measures {
            done.transmissions
        } else {
            done.transmissions.max(2)
        },
    }
}
