//! Writing datagrams (docs/spec/kcptun.md, section 7.6).

use std::time::Duration;

use fulmar_wire::kcp::{Command, Format, HEADER_LEN, Header};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

use crate::control::{Cause, Evidence, Limits, Lost, SenderControl, Sent};
use crate::echo::{Away, Echoes, QUESTIONS_BEFORE};
use crate::kcp::{DatagramSink, Flush, FlushWanted, Kcp, LARGEST_PROBE, LimitedBy};
use crate::ranges;
use crate::send::State;

/// Segments that are looked out for each datagram the sink has room for; most datagrams hold one.
const RESENDS_PER_DATAGRAM: usize = 4;

/// Segments that the ranges of one acknowledgement reach back, at least: what arrived in a few datagrams' time.
const RANGE_SPAN: u32 = 1_024;

impl<C: SenderControl> Kcp<C> {
    /// Writes what is due: acknowledgements, window messages, and if `kind` is [`Flush::Full`] new data and data
    /// that has to go again. Datagrams are at most [`crate::Config::mtu`] bytes, in this order, filled up to the size that
    /// [`Self::set_datagram_size`] has set; new data behind other segments, to what [`Self::keep_to_size`] says.
    pub fn flush<S: DatagramSink + ?Sized>(&mut self, now: Instant, kind: Flush, out: &mut S) {
        self.tick(now);
        self.last_flush = now;
        self.control.on_flush(now);
        let mut packer = Packer::new(out, self.config.mtu);
        // Acknowledgements can always be parted.
        packer.fill = self.tx.mss() + HEADER_LEN;
        let mut header = self.plain_header();
        let mut blocked = !self.write_acks(&mut packer, &mut header);
        self.watch_closed_window(now);
        if !blocked {
            blocked = !self.write_window_messages(now, &mut packer, header);
        }
        let limits = Limits {
            snd_wnd: self.config.snd_wnd,
            rmt_wnd: self.rmt_wnd,
        };
        let window = self.control.window(now, limits);
        // Where the window is full of what waits, nothing can be added to the last one.
        let fills_up = self.more_follows && self.tx.waiting() < self.config.snd_wnd;
        let new_data = self.tx.number(window, fills_up);
        if kind == Flush::Full && !blocked {
            header.command = Command::Push;
            header.ts = now.wire_millis();
            blocked = !self.write_data(now, &mut packer, header, window, new_data);
        }
        self.control.on_flushed(now);
        if std::mem::take(&mut self.pad_due) {
            self.write_padding(&mut packer, header);
        }
        packer.finish();
        self.counters.out_datagrams += packer.datagrams;
        self.counters.flushes += u64::from(packer.datagrams > 0);
        self.blocked = blocked;
        self.wanted = match (blocked, kind) {
            (true, Flush::Full) => FlushWanted::Full,
            (true, Flush::AckOnly) => self.wanted.max(FlushWanted::AckOnly),
            (false, Flush::AckOnly) if self.wanted == FlushWanted::Full => FlushWanted::Full,
            (false, _) => FlushWanted::None,
        };
        self.next_timeout = self.tx.next_timeout();
        self.watch_limits(now, window, limits);
    }

    /// Writes the oldest segment in flight again, alone, if it is [due](Self::oldest_due), or the first that waits if none is in flight. Whether it
    /// was written.
    pub fn repeat_oldest<S: DatagramSink + ?Sized>(&mut self, now: Instant, out: &mut S) -> bool {
        self.tick(now);
        if self.oldest_due().is_none_or(|at| at > now) {
            return false;
        }
        self.control.on_flush(now);
        let mut packer = Packer::new(out, self.config.mtu);
        let header = Header {
            command: Command::Push,
            ts: now.wire_millis(),
            sn: if self.tx.in_flight() == 0 {
                self.tx.unsent()
            } else {
                self.tx.una()
            },
            ..self.plain_header()
        };
        let cause = match self.control.skip_threshold() {
            _ if self.tx.in_flight() == 0 => Cause::First,
            Some(_) => Cause::Timeout,
            None => Cause::Probe,
        };
        let written = self.write_segment(now, &mut packer, header, header.sn, cause);
        packer.finish();
        self.counters.out_datagrams += packer.datagrams;
        if written && cause != Cause::First {
            self.counters.retrans_segs += 1;
            match cause {
                Cause::Timeout => self.counters.lost_segs += 1,
                _ => self.counters.probed_segs += 1,
            }
        }
        self.tx.settle();
        self.control.on_flushed(now);
        self.next_timeout = self.tx.next_timeout();
        written
    }

    /// Bytes up to which a datagram is filled with data that leave for the first time.
    fn fill(&self) -> usize {
        if self.keeps_to_size {
            self.tx.mss() + HEADER_LEN
        } else {
            self.config.mtu
        }
    }

    /// A full flush, and the time until the next one by upstream's clock: the interval, or less when a timeout comes before.
    /// Only a caller that imitates upstream's periodic flush needs it; [`Self::poll_timeout`] fires less often.
    pub fn update<S: DatagramSink + ?Sized>(&mut self, now: Instant, out: &mut S) -> Duration {
        self.flush(now, Flush::Full, out);
        let interval = u64::from(self.config.profile.interval_ms);
        let next = match self.next_timeout {
            Some(at) if at > now.as_millis() => interval.min(at - now.as_millis()),
            _ => interval,
        };
        Duration::from_millis(next)
    }

    /// Acknowledgements that `una` does not cover, and the last one in any case: it brings the echo of time.
    /// Whether there was room for all. `header` keeps the last one's number and time, which window messages repeat.
    fn write_acks<S: DatagramSink + ?Sized>(
        &mut self,
        packer: &mut Packer<'_, S>,
        header: &mut Header,
    ) -> bool {
        let format = self.config.rules.format;
        let last = self.acks.len().wrapping_sub(1);
        // What ranges say need not be said one by one; from here on they say it.
        let mut ranges = [0; ranges::MOST * ranges::LEN];
        let (ranges, ranged_from) = if self.ack_ranges && !self.acks.is_empty() {
            let span = RANGE_SPAN.max(4 * u32::try_from(self.acks.len()).unwrap_or(u32::MAX));
            // A datagram holds the header and them.
            let fit = (self.config.mtu - HEADER_LEN) / ranges::LEN * ranges::LEN;
            let room = fit.min(ranges.len());
            self.rx.ranges(format, span, &mut ranges[..room])
        } else {
            (&[][..], None)
        };
        // What came again, far behind the ranges, is said twice as well.
        for &(sn, ts) in &self.said {
            if sn.at_or_after(header.una) && ranged_from.is_some_and(|from| sn.before(from)) {
                let again = Header { sn, ts, ..*header };
                if !packer.push(format.emit(&again), &[]) {
                    return false;
                }
                self.counters.out_segs += 1;
            }
        }
        self.said.clear();
        let mut written = 0;
        for (i, &(sn, ts)) in self.acks.iter().enumerate() {
            let is_ranged = ranged_from.is_some_and(|from| sn.at_or_after(from));
            if i == last || sn.at_or_after(header.una) && !is_ranged {
                let data = if i == last { ranges } else { &[] };
                let next = Header {
                    sn,
                    ts,
                    len: u32::try_from(data.len()).unwrap_or(0),
                    ..*header
                };
                if !packer.push(format.emit(&next), data) {
                    break;
                }
                *header = Header { len: 0, ..next };
                if self.ack_ranges && !is_ranged {
                    self.said.push((sn, ts));
                }
                self.counters.out_segs += 1;
                self.counters.out_ranges += (data.len() / ranges::LEN) as u64;
            }
            written = i + 1;
        }
        if written == self.acks.len() {
            self.acks.clear();
            true
        } else {
            self.acks.drain(..written);
            false
        }
    }

    /// Asks about a window that is closed, ever less often.
    fn watch_closed_window(&mut self, now: Instant) {
        let rules = &self.config.rules;
        let now_ms = now.as_millis();
        if self.rmt_wnd != 0 {
            self.probe_wait = 0;
            self.probe_at = 0;
        } else if self.probe_wait == 0 {
            self.probe_wait = rules.first_probe_ms;
            self.probe_at = now_ms + u64::from(self.probe_wait);
        } else if now_ms >= self.probe_at {
            let wait = self.probe_wait.max(rules.first_probe_ms);
            self.probe_wait = (wait + wait / 2).min(rules.max_probe_ms);
            self.probe_at = now_ms + u64::from(self.probe_wait);
            self.ask = true;
        }
    }

    /// Questions and answers about windows, and the question whether the other side remembers us.
    fn write_window_messages<S: DatagramSink + ?Sized>(
        &mut self,
        now: Instant,
        packer: &mut Packer<'_, S>,
        mut header: Header,
    ) -> bool {
        let format = self.config.rules.format;
        if let Some(bytes) = self.size_probe.take() {
            const PADDING: [u8; LARGEST_PROBE - HEADER_LEN] = [0; LARGEST_PROBE - HEADER_LEN];
            let len = bytes - HEADER_LEN;
            let probe = Header {
                command: Command::WindowAsk,
                len: u32::try_from(len).unwrap_or(0),
                ..header
            };
            packer.finish();
            let mtu = std::mem::replace(&mut packer.mtu, bytes);
            let written = packer.push(format.emit(&probe), &PADDING[..len]);
            packer.finish_probe();
            packer.mtu = mtu;
            if !written {
                self.size_probe = Some(bytes);
                return false;
            }
            self.counters.out_segs += 1;
        }
        for (command, due) in [
            (Command::WindowAsk, &mut self.ask),
            (Command::WindowTell, &mut self.tell),
        ] {
            if *due {
                header.command = command;
                if !packer.push(format.emit(&header), &[]) {
                    return false;
                }
                *due = false;
                if command == Command::WindowAsk {
                    // Fewer than the tries of a size: questions that get lost hide no answer for long.
                    self.plain_asks = (self.plain_asks + 1).min(2);
                }
                self.counters.out_segs += 1;
            }
        }
        if std::mem::take(&mut self.challenge)
            && let Some(sn) = self.restart.old_segment(self.tx.una())
        {
            header.command = Command::Push;
            header.ts = self.on_wire(now.wire_millis());
            header.sn = sn;
            header.len = 1;
            if !packer.push(format.emit(&header), &[0]) {
                self.challenge = true;
                return false;
            }
            self.counters.out_segs += 1;
        }
        if std::mem::take(&mut self.ask_home) {
            let ts = now.wire_millis();
            if !self.write_question(packer, header, ts) {
                self.ask_home = true;
                return false;
            }
            if let Some(home) = &mut self.home {
                home.sent(ts);
            }
        }
        true
    }

    /// A segment whose acknowledgement shows who gets it: one that has been acknowledged, with one byte, which receivers acknowledge again and
    /// do not look at; or the oldest one in flight. Whether there was room, or nothing to ask with.
    fn write_question<S: DatagramSink + ?Sized>(
        &mut self,
        packer: &mut Packer<'_, S>,
        header: Header,
        ts: Millis,
    ) -> bool {
        let una = self.tx.una();
        let (sn, payload) = match self.restart.question(una) {
            Some(sn) => (sn, &[0][..]),
            None if self.tx.is_in_flight(una) => (una, self.tx.payload(una)),
            None => return true,
        };
        let frg = if sn == una { self.tx.get(una).frg } else { 0 };
        let question = Header {
            command: Command::Push,
            frg,
            ts: self.on_wire(ts),
            sn,
            len: u32::try_from(payload.len()).unwrap_or(0),
            ..header
        };
        let written = packer.push(self.config.rules.format.emit(&question), payload);
        self.counters.out_segs += u64::from(written);
        written
    }

    /// Whether there is something to ask with, see [`Self::ask_away`].
    #[must_use]
    pub fn has_question(&self) -> bool {
        let una = self.tx.una();
        self.restart.question(una).is_some() || self.tx.is_in_flight(una)
    }

    /// Writes the question whether the other side is where `out` leads, which is not where everything else goes: a segment with a time that
    /// nothing else has. The next flush asks the same where everything else goes. [`Self::take_answers`] tells who answers. Whether it was written.
    pub fn ask_away<S: DatagramSink + ?Sized>(&mut self, now: Instant, out: &mut S) -> bool {
        self.tick(now);
        let ts = Millis(
            now.wire_millis()
                .0
                .wrapping_sub(QUESTIONS_BEFORE.cast_unsigned()),
        );
        let mut packer = Packer::new(out, self.config.mtu);
        let header = self.plain_header();
        if !self.write_question(&mut packer, header, ts) {
            return false;
        }
        packer.finish();
        self.counters.out_datagrams += packer.datagrams;
        if packer.datagrams == 0 {
            return false;
        }
        let away = self.away.get_or_insert_with(|| {
            Box::new(Away {
                asked: Echoes::new(),
                since: now.wire_millis(),
                elsewhere: false,
            })
        });
        away.asked.sent(ts);
        self.ask_home = true;
        self.wanted = self.wanted.max(FlushWanted::AckOnly);
        true
    }

    /// Writes the acknowledgements that are owed, and nothing else.
    pub fn acknowledge<S: DatagramSink + ?Sized>(&mut self, now: Instant, out: &mut S) {
        self.tick(now);
        let mut packer = Packer::new(out, self.config.mtu);
        let mut header = self.plain_header();
        self.write_acks(&mut packer, &mut header);
        packer.finish();
        self.counters.out_datagrams += packer.datagrams;
    }

    fn plain_header(&self) -> Header {
        Header {
            conv: self.conv,
            command: Command::Ack,
            frg: 0,
            wnd: self.rx.free(),
            ts: Millis(0),
            sn: Seq(0),
            una: self.rx.nxt(),
            len: 0,
        }
    }

    /// Fills the datagram up, see [`Self::pad_until_heard`].
    #[cold]
    fn write_padding<S: DatagramSink + ?Sized>(
        &mut self,
        packer: &mut Packer<'_, S>,
        header: Header,
    ) {
        const PADDING: [u8; LARGEST_PROBE] = [0; LARGEST_PROBE];
        if self.last_heard.is_some() {
            self.pad = 0;
        }
        let size = self.pad.min(self.tx.mss() + HEADER_LEN).min(LARGEST_PROBE);
        if packer.used == 0 || packer.used + HEADER_LEN > size {
            return;
        }
        let len = size - packer.used - HEADER_LEN;
        let tell = Header {
            command: Command::WindowTell,
            frg: 0,
            ts: Millis(0),
            sn: Seq(0),
            len: u32::try_from(len).unwrap_or(0),
            ..header
        };
        packer.fill = packer.mtu;
        if packer.push(self.config.rules.format.emit(&tell), &PADDING[..len]) {
            self.counters.out_segs += 1;
        }
    }

    /// Data segments: first those that go again, then new ones, which is the order of their numbers. Whether there was room.
    fn write_data<S: DatagramSink + ?Sized>(
        &mut self,
        now: Instant,
        packer: &mut Packer<'_, S>,
        header: Header,
        window: u32,
        new_data: bool,
    ) -> bool {
        let now_ms = now.as_millis();
        let horizon = self.horizon(now);
        let mut work = std::mem::take(&mut self.work);
        // With little room, do not dig up what will have to be put back.
        let limit = packer.out.room().saturating_mul(RESENDS_PER_DATAGRAM);
        self.tx.collect(now_ms, new_data, horizon, limit, &mut work);
        let (mut by_acks, mut by_timeout) = (0, 0);
        let mut go_on = Go::On;
        // What was lost may have been too large together, and must not be so again and again.
        packer.fill = self.tx.mss() + HEADER_LEN;
        for (i, &sn) in work.iter().enumerate() {
            let segment = self.tx.get(sn);
            let evidence = Evidence {
                skipped: self.tx.skips_of(sn),
                expired: now_ms >= segment.due,
                overdue: horizon.is_some_and(|h| segment.sent.diff(h) <= 0),
                new_data,
            };
            let Some(cause) = self.control.resend(&evidence) else {
                if evidence.expired {
                    let later = now_ms + u64::from(self.config.profile.interval_ms);
                    self.tx.postpone(sn, later);
                }
                continue;
            };
            go_on = self.transmit(now, packer, header, sn, cause);
            if go_on != Go::On {
                self.tx.put_back(&work[i..]);
                break;
            }
            match cause {
                Cause::Timeout => by_timeout += 1,
                _ => by_acks += 1,
            }
            self.counters.retrans_segs += 1;
            match cause {
                Cause::Timeout => self.counters.lost_segs += 1,
                Cause::Fast => self.counters.fast_retrans_segs += 1,
                Cause::Early => self.counters.early_retrans_segs += 1,
                Cause::Overdue => self.counters.overdue_segs += 1,
                Cause::First | Cause::Probe => {}
            }
        }
        self.work = work;
        if go_on != Go::NoRoom {
            let (probes, room) = self.write_probes(now, packer, header);
            by_timeout += probes;
            if !room {
                go_on = Go::NoRoom;
            }
        }
        packer.fill = self.fill();
        if go_on != Go::NoRoom && !self.write_earlier(now, packer, header) {
            go_on = Go::NoRoom;
        }
        while go_on == Go::On
            && self.tx.unsent() != self.tx.nxt()
            && self.tx.in_flight() < self.control.flight_limit()
        {
            go_on = self.transmit(now, packer, header, self.tx.unsent(), Cause::First);
        }
        if go_on != Go::NoRoom && !self.write_copies(now, packer, header) {
            go_on = Go::NoRoom;
        }
        self.tx.settle();
        let lost = |segments| Lost {
            segments,
            outstanding: self.tx.outstanding(),
            window,
        };
        if by_acks > 0 {
            self.control.on_lost(now, &lost(by_acks));
        }
        if by_timeout > 0 {
            self.control.on_timeout(now, &lost(by_timeout));
        }
        match go_on {
            // Something may be left beyond the limit.
            Go::On => self.tx.next_timeout().is_none_or(|at| at > now_ms),
            Go::Later => true,
            Go::NoRoom => false,
        }
    }

    /// What was last sent then or before is lost.
    fn horizon(&mut self, now: Instant) -> Option<Millis> {
        let horizon = self.control.lost_before(now).map(Instant::wire_millis);
        let Some(until) = self.lost_until else {
            return horizon;
        };
        if self.tx.oldest_sent().is_none_or(|t| t.diff(until) > 0) {
            self.lost_until = None;
            return horizon;
        }
        Some(match horizon {
            Some(h) if h.diff(until) > 0 => h,
            _ => until,
        })
    }

    /// Sends the oldest and the newest segment in flight again when nothing has been heard for too long (a tail loss probe, RFC 8985,
    /// section 7): the acknowledgement of either tells what became of all the others. Not paced, as it is rare.
    fn write_probes<S: DatagramSink + ?Sized>(
        &mut self,
        now: Instant,
        packer: &mut Packer<'_, S>,
        header: Header,
    ) -> (u32, bool) {
        if self.tx.in_flight() == 0 || self.control.probe_at().is_none_or(|at| at > now) {
            return (0, true);
        }
        // A peer may acknowledge the oldest segment and never say that all before the next one has arrived.
        let oldest = Some(self.tx.una()).filter(|sn| self.tx.is_in_flight(*sn));
        let newest = self.tx.newest_in_flight();
        let (mut written, mut room) = (0, true);
        for sn in [oldest, newest.filter(|sn| Some(*sn) != oldest)]
            .into_iter()
            .flatten()
        {
            let left = self.write_segment(now, packer, header, sn, Cause::Probe);
            written += u32::from(left);
            room &= left;
        }
        self.counters.retrans_segs += u64::from(written);
        self.counters.probed_segs += u64::from(written);
        // With one of them, there will be an answer.
        (written, room || written > 0)
    }

    /// Further copies of earlier segments: in front of a new one that they fit beside, or by themselves when they have waited for too long.
    /// In front, so that what is acknowledged last tells whether the new one arrived. Whether there was room for those that had waited.
    fn write_earlier<S: DatagramSink + ?Sized>(
        &mut self,
        now: Instant,
        packer: &mut Packer<'_, S>,
        header: Header,
    ) -> bool {
        if !self.copies.has_later() {
            return true;
        }
        let next = self.tx.unsent();
        let company = (next != self.tx.nxt()
            && self.tx.get(next).sparse
            && self.control.next_send_time(now).is_none_or(|t| t <= now))
        .then(|| HEADER_LEN + self.tx.payload(next).len());
        let again = now + self.control.copy_delay();
        let ts = self.on_wire(header.ts);
        let mut room = true;
        let Self {
            tx,
            copies,
            control,
            counters,
            config,
            ..
        } = self;
        copies.offer(
            now,
            company.is_some(),
            again,
            |sn| tx.is_in_flight(sn),
            |sn, due| {
                let len = HEADER_LEN + tx.payload(sn).len();
                let fits = company.is_some_and(|next| packer.used + len + next <= packer.fill);
                let header = Header {
                    frg: tx.get(sn).frg,
                    ts,
                    ..header
                };
                let written =
                    (due || fits) && packer.copy(config.rules.format, &header, sn, tx.payload(sn));
                if written {
                    counters.copied(len - HEADER_LEN);
                    control.on_copied(now, len - HEADER_LEN);
                }
                room &= written || !due;
                written
            },
        );
        room
    }

    /// The first copies of segments that have just been sent. Whether there was room.
    fn write_copies<S: DatagramSink + ?Sized>(
        &mut self,
        now: Instant,
        packer: &mut Packer<'_, S>,
        mut header: Header,
    ) -> bool {
        let list = self.copies.take_now();
        if list.is_empty() {
            return true;
        }
        // In datagrams of their own, with a time of their own, so that their acknowledgements tell them from the first.
        header.ts = self.on_wire(Millis(header.ts.0.wrapping_sub(1)));
        packer.finish();
        let mut room = true;
        for &sn in &list {
            if !self.tx.is_in_flight(sn) {
                continue;
            }
            let payload = self.tx.payload(sn);
            let len = payload.len();
            header.frg = self.tx.get(sn).frg;
            room = packer.copy(self.config.rules.format, &header, sn, payload);
            if !room {
                break;
            }
            self.counters.copied(len);
            self.control.on_copied(now, len);
        }
        packer.finish();
        self.copies.recycle(list);
        room
    }

    /// Writes one data segment, unless it has to wait.
    #[inline]
    fn transmit<S: DatagramSink + ?Sized>(
        &mut self,
        now: Instant,
        packer: &mut Packer<'_, S>,
        header: Header,
        sn: Seq,
        cause: Cause,
    ) -> Go {
        if self.control.next_send_time(now).is_some_and(|t| t > now) {
            return Go::Later;
        }
        if self.write_segment(now, packer, header, sn, cause) {
            Go::On
        } else {
            Go::NoRoom
        }
    }

    /// Writes one data segment. Whether there was room.
    #[inline]
    fn write_segment<S: DatagramSink + ?Sized>(
        &mut self,
        now: Instant,
        packer: &mut Packer<'_, S>,
        header: Header,
        sn: Seq,
        cause: Cause,
    ) -> bool {
        let payload = self.tx.payload(sn);
        let len = payload.len();
        let segment = Header {
            frg: self.tx.get(sn).frg,
            sn,
            ts: self.on_wire(header.ts),
            len: u32::try_from(len).unwrap_or(0),
            ..header
        };
        if !packer.push(self.config.rules.format.emit(&segment), payload) {
            return false;
        }
        if let Some(home) = &mut self.home {
            home.sent(header.ts);
        }
        self.pad_due |= self.pad > 0 && self.restart.is_first(sn);
        let segment = self.tx.get(sn);
        let (sparse, transmissions) = (segment.sparse, segment.transmissions.saturating_add(1));
        let (state, waits) = if self.control.skip_threshold().is_some() {
            let waits = self.control.timeout(cause, segment.waits, self.rtt.rto());
            let state = match cause {
                Cause::First => State::Fresh,
                Cause::Fast | Cause::Early => State::Settled,
                Cause::Overdue | Cause::Timeout | Cause::Probe => State::Again,
            };
            (state, waits)
        } else if cause == Cause::First {
            (State::Fresh, 0)
        } else {
            (State::Resent, 0)
        };
        if self.tx.in_flight() == 0 {
            self.progress = now;
        }
        let due = now.as_millis() + u64::from(waits);
        self.tx.sent(sn, state, header.ts, due, waits);
        self.counters.out_segs += 1;
        let sent = Sent {
            sn,
            len,
            cause,
            in_flight: self.tx.in_flight(),
            outstanding: sn.0.wrapping_sub(self.tx.una().0).wrapping_add(1),
            transmissions,
            sparse,
        };
        self.control.on_sent(now, &sent);
        let copies = self.control.copies(&sent);
        if copies > 0 && self.home.is_none() {
            let due = now + self.control.copy_delay();
            self.copies.add(now, sn, copies, due);
        }
        true
    }

    /// Measures for how long which window is full.
    fn watch_limits(&mut self, now: Instant, window: u32, limits: Limits) {
        self.window_met |= self.meets_window();
        if let Some((by, since)) = self.limited {
            *self.limited_for.part(by) += now.since(since);
        }
        let by_flight = self.tx.in_flight() >= self.control.flight_limit();
        let full = (self.tx.outstanding() >= window || by_flight)
            && (self.tx.not_sent() > 0 || !self.has_room());
        self.limited = full.then_some((
            if by_flight || window < limits.snd_wnd.min(limits.rmt_wnd) {
                LimitedBy::Control
            } else if limits.snd_wnd <= limits.rmt_wnd {
                LimitedBy::Local
            } else {
                LimitedBy::Remote
            },
            now,
        ));
    }
}

/// Whether the next data segment may follow.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Go {
    On,
    /// The strategy holds it back.
    Later,
    /// The sink is full.
    NoRoom,
}

/// Fills datagrams with segments.
struct Packer<'a, S: ?Sized> {
    out: &'a mut S,
    mtu: usize,
    /// No segment is added beyond so many bytes. One that was cut when that was more leaves alone.
    fill: usize,
    /// Bytes of the datagram that is being filled.
    used: usize,
    datagrams: u64,
}

impl<'a, S: DatagramSink + ?Sized> Packer<'a, S> {
    /// Datagrams of up to `mtu` bytes.
    #[inline]
    const fn new(out: &'a mut S, mtu: usize) -> Self {
        Self {
            out,
            mtu,
            fill: mtu,
            used: 0,
            datagrams: 0,
        }
    }

    /// Appends a segment, in the same datagram if it fits. `false` if there is no room, and then nothing has happened
    /// to it.
    #[inline]
    fn push(&mut self, header: [u8; HEADER_LEN], payload: &[u8]) -> bool {
        let len = HEADER_LEN + payload.len();
        if self.used + len > self.fill {
            self.finish();
        }
        if self.used == 0 && self.out.room() == 0 {
            return false;
        }
        let room = self.out.reserve(self.mtu);
        let Some(place) = room.get_mut(self.used..self.used + len) else {
            return false;
        };
        let (head, body) = place.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&header);
        body.copy_from_slice(payload);
        self.used += len;
        true
    }

    /// Appends a copy of the segment `sn`.
    fn copy(&mut self, format: Format, header: &Header, sn: Seq, payload: &[u8]) -> bool {
        let header = Header {
            sn,
            len: u32::try_from(payload.len()).unwrap_or(0),
            ..*header
        };
        self.push(format.emit(&header), payload)
    }

    /// Ends the datagram.
    #[inline]
    fn finish(&mut self) {
        if self.used > 0 {
            self.out.commit(self.used);
            self.used = 0;
            self.datagrams += 1;
        }
    }

    /// Ends a datagram that is a probe of its size.
    fn finish_probe(&mut self) {
        if self.used > 0 {
            self.out.commit_probe(self.used);
            self.used = 0;
            self.datagrams += 1;
        }
    }
}
