//! KCP written down as docs/spec/kcptun.md, section 7 reads: lists, scans, plain code. Slow on purpose; it is what the
//! machine is compared with. It flushes by itself, as upstream does.

use std::collections::{BTreeMap, VecDeque};

use fulmar_wire::kcp::{Command, Format, HEADER_LEN, Header};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Millis;

/// "Does not count any more".
const SENTINEL: u32 = u32::MAX;

#[derive(Copy, Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mtu: usize,
    pub(crate) nodelay: bool,
    pub(crate) interval: u32,
    pub(crate) resend: u32,
    pub(crate) cc: bool,
    pub(crate) snd_wnd: u32,
    pub(crate) rcv_wnd: u32,
    pub(crate) ack_no_delay: bool,
}

struct Entry {
    sn: Seq,
    data: Vec<u8>,
    acked: bool,
    fastack: u32,
    transmissions: u32,
    ts: Millis,
    rto: u32,
    resend_at: Millis,
}

pub(crate) struct Model {
    conv: u32,
    set: Settings,
    mss: usize,
    pub(crate) una: Seq,
    pub(crate) nxt: Seq,
    pub(crate) rcv_nxt: Seq,
    pub(crate) rto: u32,
    pub(crate) srtt: i64,
    pub(crate) rttvar: i64,
    pub(crate) rmt_wnd: u32,
    pub(crate) cwnd: u32,
    pub(crate) ssthresh: u32,
    pub(crate) incr: u32,
    pub(crate) probe: u8,
    pub(crate) probe_wait: u32,
    probe_at: Millis,
    snd_queue: VecDeque<Vec<u8>>,
    snd_buf: VecDeque<Entry>,
    rcv_buf: BTreeMap<u32, Vec<u8>>,
    rcv_queue: VecDeque<Vec<u8>>,
    acklist: Vec<(Seq, Millis)>,
    datagram: Vec<u8>,
    pub(crate) out: Vec<Vec<u8>>,
}

impl Model {
    pub(crate) fn new(conv: u32, set: Settings, snd: Seq, rcv: Seq) -> Self {
        Self {
            conv,
            set,
            mss: set.mtu - HEADER_LEN,
            una: snd,
            nxt: snd,
            rcv_nxt: rcv,
            rto: 200,
            srtt: 0,
            rttvar: 0,
            rmt_wnd: 32,
            cwnd: 0,
            ssthresh: 2,
            incr: 0,
            probe: 0,
            probe_wait: 0,
            probe_at: Millis(0),
            snd_queue: VecDeque::new(),
            snd_buf: VecDeque::new(),
            rcv_buf: BTreeMap::new(),
            rcv_queue: VecDeque::new(),
            acklist: Vec::new(),
            datagram: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Lengths of snd_queue, snd_buf, rcv_queue, rcv_buf, acklist.
    pub(crate) fn lengths(&self) -> [usize; 5] {
        [
            self.snd_queue.len(),
            self.snd_buf.len(),
            self.rcv_queue.len(),
            self.rcv_buf.len(),
            self.acklist.len(),
        ]
    }

    pub(crate) fn send(&mut self, mut data: &[u8]) {
        if let Some(last) = self.snd_queue.back_mut() {
            let n = data.len().min(self.mss - last.len());
            last.extend_from_slice(&data[..n]);
            data = &data[n..];
        }
        for piece in data.chunks(self.mss) {
            self.snd_queue.push_back(piece.to_vec());
        }
    }

    pub(crate) fn recv(&mut self) -> Option<Vec<u8>> {
        let wnd = self.set.rcv_wnd as usize;
        let was_full = self.rcv_queue.len() >= wnd;
        let data = self.rcv_queue.pop_front()?;
        self.move_in_order();
        if was_full && self.rcv_queue.len() < wnd {
            self.probe |= 2;
        }
        Some(data)
    }

    fn move_in_order(&mut self) {
        while self.rcv_queue.len() < self.set.rcv_wnd as usize {
            let Some(data) = self.rcv_buf.remove(&self.rcv_nxt.0) else {
                break;
            };
            self.rcv_queue.push_back(data);
            self.rcv_nxt = self.rcv_nxt.next();
        }
    }

    /// Only sound datagrams.
    pub(crate) fn input(&mut self, now: Millis, mut bytes: &[u8], regular: bool) {
        let una_before = self.una;
        let mut slid = false;
        let mut echo = None;
        while bytes.len() >= HEADER_LEN {
            let (h, data, rest) = Format::LittleEndian
                .view(bytes)
                .and_then(|v| v.parse())
                .expect("sound");
            bytes = rest;
            if regular {
                self.rmt_wnd = u32::from(h.wnd);
            }
            while self.snd_buf.front().is_some_and(|e| e.sn.before(h.una)) {
                self.snd_buf.pop_front();
                slid = true;
            }
            self.una = self.snd_buf.front().map_or(self.nxt, |e| e.sn);
            match h.command {
                Command::Ack => {
                    if h.sn.at_or_after(self.una) && h.sn.before(self.nxt) {
                        for e in &mut self.snd_buf {
                            if e.sn == h.sn {
                                e.acked = true;
                            } else if e.sn.before(h.sn)
                                && e.ts.diff(h.ts) <= 0
                                && e.fastack != SENTINEL
                            {
                                e.fastack += 1;
                                slid |= e.fastack >= self.set.resend;
                            }
                        }
                    }
                    echo = Some(h.ts);
                }
                Command::Push => {
                    if h.sn.before(self.rcv_nxt.plus(self.set.rcv_wnd)) {
                        self.acklist.push((h.sn, h.ts));
                        if h.sn.at_or_after(self.rcv_nxt) {
                            self.rcv_buf.entry(h.sn.0).or_insert_with(|| data.to_vec());
                        }
                        self.move_in_order();
                    }
                }
                Command::WindowAsk => self.probe |= 2,
                Command::WindowTell => {}
            }
        }
        if let Some(ts) = echo.filter(|ts| regular && now.diff(*ts) >= 0) {
            self.sample(i64::from(now.diff(ts)));
        }
        if self.set.cc && self.una != una_before {
            self.grow();
        }
        if slid {
            self.flush(now, true);
        } else if self.acklist.len() >= self.set.mtu / HEADER_LEN
            || self.set.ack_no_delay && !self.acklist.is_empty()
        {
            self.flush(now, false);
        }
    }

    fn sample(&mut self, rtt: i64) {
        if self.srtt == 0 {
            self.srtt = rtt;
            self.rttvar = rtt >> 1;
        } else {
            let d = rtt - self.srtt;
            self.srtt += d >> 3;
            let d = d.abs();
            let shift = if rtt < self.srtt - self.rttvar { 5 } else { 2 };
            self.rttvar += (d - self.rttvar) >> shift;
        }
        let rto = self.srtt + i64::from(self.set.interval).max(4 * self.rttvar);
        let min = if self.set.nodelay { 30 } else { 100 };
        self.rto = u32::try_from(rto.clamp(min, 60_000)).expect("clamped");
    }

    fn grow(&mut self) {
        let mss = u32::try_from(self.mss).expect("small");
        if self.cwnd >= self.rmt_wnd {
            return;
        }
        if self.cwnd < self.ssthresh {
            self.cwnd += 1;
            self.incr += mss;
        } else {
            self.incr = self.incr.max(mss);
            self.incr += mss * mss / self.incr + mss / 16;
            if (self.cwnd + 1) * mss <= self.incr {
                self.cwnd = self.incr.div_ceil(mss);
            }
        }
        if self.cwnd > self.rmt_wnd {
            self.cwnd = self.rmt_wnd;
            self.incr = self.rmt_wnd * mss;
        }
    }

    fn append(&mut self, h: &Header, data: &[u8]) {
        if self.datagram.len() + HEADER_LEN + data.len() > self.set.mtu {
            self.out.push(std::mem::take(&mut self.datagram));
        }
        self.datagram.extend(Format::LittleEndian.emit(h));
        self.datagram.extend(data);
    }

    /// The delay until the next periodic flush, in milliseconds.
    pub(crate) fn flush(&mut self, now: Millis, full: bool) -> u32 {
        let free = (self.set.rcv_wnd as usize).saturating_sub(self.rcv_queue.len());
        let mut h = Header {
            conv: self.conv,
            command: Command::Ack,
            frg: 0,
            wnd: u16::try_from(free).expect("clamped"),
            ts: Millis(0),
            sn: Seq(0),
            una: self.rcv_nxt,
            len: 0,
        };
        let acks = std::mem::take(&mut self.acklist);
        for (i, &(sn, ts)) in acks.iter().enumerate() {
            if sn.at_or_after(self.rcv_nxt) || i + 1 == acks.len() {
                (h.sn, h.ts) = (sn, ts);
                self.append(&h, &[]);
            }
        }
        if self.rmt_wnd != 0 {
            self.probe_wait = 0;
        } else if self.probe_wait == 0 {
            self.probe_wait = 500;
            self.probe_at = now.plus(500);
        } else if now.diff(self.probe_at) >= 0 {
            let wait = self.probe_wait.max(500);
            self.probe_wait = (wait + wait / 2).min(120_000);
            self.probe_at = now.plus(self.probe_wait);
            self.probe |= 1;
        }
        for (bit, command) in [(1, Command::WindowAsk), (2, Command::WindowTell)] {
            if self.probe & bit != 0 {
                h.command = command;
                self.append(&h, &[]);
            }
        }
        self.probe = 0;
        let mut window = self.set.snd_wnd.min(self.rmt_wnd);
        if self.set.cc {
            window = window.min(self.cwnd);
        }
        let mut moved = false;
        while self.nxt.before(self.una.plus(window)) {
            let Some(data) = self.snd_queue.pop_front() else {
                break;
            };
            self.snd_buf.push_back(Entry {
                sn: self.nxt,
                data,
                acked: false,
                fastack: 0,
                transmissions: 0,
                ts: Millis(0),
                rto: 0,
                resend_at: Millis(0),
            });
            self.nxt = self.nxt.next();
            moved = true;
        }
        let mut next = i64::from(self.set.interval);
        let (mut by_acks, mut by_timeout) = (false, false);
        if full {
            let mut buf = std::mem::take(&mut self.snd_buf);
            for e in buf.iter_mut().filter(|e| !e.acked) {
                let resend = self.set.resend;
                let counted = if e.fastack == SENTINEL { 0 } else { e.fastack };
                if e.transmissions == 0 {
                    e.rto = self.rto;
                } else if resend > 0 && counted >= resend || counted > 0 && !moved {
                    e.fastack = SENTINEL;
                    e.rto = self.rto;
                    by_acks = true;
                } else if now.diff(e.resend_at) >= 0 {
                    e.fastack = 0;
                    e.rto += if self.set.nodelay {
                        self.rto / 2
                    } else {
                        self.rto
                    };
                    by_timeout = true;
                } else {
                    next = next.min(i64::from(e.resend_at.diff(now)));
                    continue;
                }
                e.resend_at = now.plus(e.rto);
                e.transmissions += 1;
                e.ts = now;
                next = next.min(i64::from(e.rto));
                h.command = Command::Push;
                (h.sn, h.ts) = (e.sn, now);
                h.len = u32::try_from(e.data.len()).expect("small");
                self.append(&h, &e.data);
            }
            self.snd_buf = buf;
        }
        if !self.datagram.is_empty() {
            self.out.push(std::mem::take(&mut self.datagram));
        }
        if self.set.cc {
            let mss = u32::try_from(self.mss).expect("small");
            if by_acks {
                self.ssthresh = (self.nxt.0.wrapping_sub(self.una.0) / 2).max(2);
                let resend = if self.set.resend == 0 {
                    u32::MAX
                } else {
                    self.set.resend
                };
                self.cwnd = self.ssthresh.wrapping_add(resend);
                self.incr = self.cwnd * mss;
            }
            if by_timeout {
                self.ssthresh = (window / 2).max(2);
                self.cwnd = 1;
                self.incr = mss;
            }
            if self.cwnd < 1 {
                self.cwnd = 1;
                self.incr = mss;
            }
        }
        u32::try_from(next).expect("positive")
    }
}
