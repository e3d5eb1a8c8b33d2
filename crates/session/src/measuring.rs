//! What goes with a sender that measures the path (`--mode auto`): parity and copies within a budget, and the size of datagrams.
//!
//! The strategy in `arq` decides when segments leave. Here, once for each round trip or so, follows from what it has found out: whether
//! parity pays and in which shape, how many copies sparse flows get, and which size is tried next. docs/design/sender.md has the reasons.

use core::time::Duration;

use fulmar_arq::{Kcp, SenderControl};
use fulmar_fec as fec;
use fulmar_wire::fec::HEADER_LEN as FEC_HEADER_LEN;
use fulmar_wire::time::Instant;

use crate::counters::Counters;
use crate::mtu::{self, MtuSearch};
use crate::redundancy::{PathView, Redundancy, Sent};
use crate::transmit::Written;

/// Shortest time between two looks at the path.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Time for which a path has to have room to spare before parity is sent.
const SPARE: Duration = Duration::from_secs(2);

/// What is chosen when a session with such a sender is built.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Most parity, percent of what it protects, 0 to 100; 0: no copies either.
    pub redundancy: u8,
    /// Whether parity follows the path.
    pub parity: bool,
    /// Largest UDP payload, bytes.
    pub mtu: usize,
    /// UDP payload that the path is known to carry, bytes; 0 when nothing is known.
    pub known: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Measuring {
    redundancy: Redundancy,
    /// Whether parity follows the path; else the encoder stays what it is.
    parity: bool,
    mtu: MtuSearch,
    /// Bytes of UDP payload around KCP's datagrams, with room for a FEC header where there may be one.
    headers: usize,
    next_look: Instant,
    /// Until then the path is taken for full: there was more to send than it takes, or nothing is known yet.
    limited_until: Instant,
    last_look: Instant,
    /// Datagrams of our own since the last look.
    datagrams: u64,
    copied_bytes: u64,
    /// The shape of parity, once there was any.
    shape: Option<fec::Shape>,
    /// The number that the next FEC packet has, while there is no encoder.
    seqid: u32,
    counted: Reported,
}

/// What has been added to the endpoint's counters.
#[derive(Copy, Clone, Default, Debug)]
struct Reported {
    own: u64,
    parity: u64,
    copies: u64,
    probes: u64,
    holes: u64,
}

impl Measuring {
    /// `kcp` is told the size that its datagrams have at first.
    pub(crate) fn new(settings: Settings, kcp: &mut Kcp) -> Self {
        let mtu = MtuSearch::from_known(settings.mtu, settings.known);
        let headers = settings.mtu.saturating_sub(kcp.config().mtu);
        let redundancy = Redundancy::new(settings.redundancy, settings.parity);
        kcp.set_datagram_size(mtu.size().saturating_sub(headers));
        kcp.keep_to_size(mtu.is_narrow());
        kcp.control_mut().set_copies(redundancy.copies());
        Self {
            redundancy,
            parity: settings.parity,
            mtu,
            headers,
            next_look: Instant::ZERO,
            limited_until: Instant::ZERO,
            last_look: Instant::ZERO,
            datagrams: 0,
            copied_bytes: 0,
            shape: None,
            seqid: 0,
            counted: Reported::default(),
        }
    }

    /// The shape of parity's groups and the number that its packets go on with, if there was some.
    pub(crate) fn groups(&self) -> Option<(fec::Shape, u32)> {
        Some((self.shape?, self.seqid))
    }

    /// Parity goes on like that, when there is some.
    pub(crate) const fn set_groups(&mut self, shape: fec::Shape, seqid: u32) {
        self.shape = Some(shape);
        self.seqid = seqid;
    }

    /// UDP payload that datagrams may have now, bytes.
    pub(crate) const fn size(&self) -> usize {
        self.mtu.size()
    }

    /// The same for KCP, without what is around its datagrams.
    pub(crate) const fn datagram_size(&self) -> usize {
        self.mtu.size().saturating_sub(self.headers)
    }

    /// Whether sparse flows are worth frames of their own now.
    pub(crate) fn has_copies(&self) -> bool {
        self.redundancy.copies() > 0
    }

    /// Whether so many bytes of parity may leave.
    pub(crate) fn allows(&self, bytes: usize) -> bool {
        !self.parity || self.redundancy.allows(bytes)
    }

    /// Before a flush: what follows from the path, and a probe of its size if one is due. Parity that comes and goes is for peers of ours:
    /// decoders of others that were told another shape take what they rebuild wrongly for data.
    pub(crate) fn before_flush(
        &mut self,
        now: Instant,
        kcp: &mut Kcp,
        encoder: &mut Option<Box<fec::Encoder>>,
        peer_is_fulmar: bool,
    ) {
        self.look_at_sizes(now, kcp);
        // A question that arrives before what opens the conversation is a stranger's, and in one dialect it is answered with a reset.
        if kcp.in_flight() > 0 && kcp.last_heard().is_some() {
            self.mtu.active(now);
        }
        if kcp.size_answer_is_doubtful() {
            self.mtu.doubt_answer();
        }
        let probe = self.mtu.poll_probe(now, kcp.rto());
        kcp.keep_to_size(self.mtu.is_narrow());
        if let Some(size) = probe {
            // `headers` has room for a FEC header where parity may come, which a question then does without.
            let header = match encoder {
                None if self.parity => FEC_HEADER_LEN,
                _ => 0,
            };
            kcp.probe_size(now, (size + header).saturating_sub(self.headers));
        }
        if now >= self.next_look
            && let Some(path) = kcp.path()
        {
            if path.network_limited || self.last_look == Instant::ZERO {
                self.limited_until = now + SPARE;
            }
            let since = now.since(self.last_look).max(Duration::from_millis(1));
            let view = PathView {
                loss: path.loss,
                burst: path.burst.max(1.0),
                packets_per_second: self.datagrams as f32 / since.as_secs_f32(),
                rtt: path.srtt,
                network_limited: now < self.limited_until,
                samples: path.loss_samples,
            };
            self.redundancy.update(now, &view);
            self.datagrams = 0;
            self.last_look = now;
            self.next_look = now + path.srtt.max(LOOK_EVERY);
            kcp.control_mut().set_copies(self.redundancy.copies());
            if self.parity {
                self.follow_shape(encoder, peer_is_fulmar);
            }
        }
    }

    /// Begins or ends parity. Its first shape stays for the session: a receiver that knows one rebuilds by it, and from packets of another it
    /// would rebuild nonsense until it has noticed. Numbers go on, so that receivers take none for late.
    fn follow_shape(&mut self, encoder: &mut Option<Box<fec::Encoder>>, suitable: bool) {
        let wanted = self.redundancy.parity().filter(|_| suitable);
        let shape = wanted.and_then(|(data, parity)| {
            let first = fec::Shape::new(data, parity).ok();
            self.shape = self.shape.or(first);
            self.shape
        });
        if encoder.as_ref().map(|e| e.shape()) == shape {
            return;
        }
        if let Some(old) = encoder.take() {
            self.seqid = old.next_seqid().0;
        }
        *encoder = shape.map(|shape| {
            let step = u32::try_from(shape.total()).unwrap_or(1);
            Box::new(fec::Encoder::new(shape).starting_at(self.seqid.div_ceil(step) + 1))
        });
    }

    /// After a flush that wrote `written`, of which `parity` bytes are parity.
    pub(crate) fn after_flush(&mut self, kcp: &Kcp, written: Written, parity: u64) {
        let copied = kcp.counters().copied_bytes;
        let copies = std::mem::replace(&mut self.copied_bytes, copied);
        let copies = copied - copies;
        let own = written.bytes.saturating_sub(parity + copies);
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        self.redundancy.on_sent(bytes(own), Sent::Own);
        self.redundancy.on_sent(bytes(parity), Sent::Parity);
        self.redundancy.on_sent(bytes(copies), Sent::Copy);
        self.datagrams += written.datagrams;
    }

    /// After datagrams of the peer were taken in.
    pub(crate) fn heard(&mut self, now: Instant, kcp: &mut Kcp) {
        if kcp.take_size_answer() && self.mtu.is_asking() && !kcp.size_answer_is_doubtful() {
            let least = kcp.path().map_or(Duration::ZERO, |p| p.min_rtt);
            let size = self.mtu.on_answer(now, least);
            self.resize(size, kcp);
        }
        self.look_at_sizes(now, kcp);
    }

    /// Tells the search what became of large and of small datagrams.
    fn look_at_sizes(&mut self, now: Instant, kcp: &mut Kcp) {
        let small = mtu::FLOOR.min(self.mtu.size());
        let large = self.mtu.size();
        let news = kcp.control_mut().take_sizes();
        if news.small_delivered {
            let size = self.mtu.on_delivered(now, small);
            self.resize(size, kcp);
        }
        if news.large_delivered {
            let size = self.mtu.on_delivered(now, large);
            self.resize(size, kcp);
        } else {
            for _ in 0..news.large_lost.min(64) {
                let size = self.mtu.on_lost(now, large);
                self.resize(size, kcp);
                if size.is_some() {
                    break;
                }
            }
        }
    }

    fn resize(&mut self, size: Option<usize>, kcp: &mut Kcp) {
        if let Some(size) = size {
            kcp.set_datagram_size(size.saturating_sub(self.headers));
        }
    }

    /// When [`Measuring::before_flush`] has something to do by itself.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.mtu.poll_timeout()
    }

    /// Adds what has been counted since the last time.
    pub(crate) fn count(&mut self, kcp: &Kcp, to: &mut Counters) {
        let now = Reported {
            own: self.redundancy.own_bytes(),
            parity: self.redundancy.parity_bytes(),
            copies: self.redundancy.copy_bytes(),
            probes: self.mtu.probes(),
            holes: self.mtu.black_holes(),
        };
        let before = std::mem::replace(&mut self.counted, now);
        to.auto_own_bytes += now.own - before.own;
        to.auto_parity_bytes += now.parity - before.parity;
        to.auto_copy_bytes += now.copies - before.copies;
        to.size_probes += now.probes - before.probes;
        to.black_holes += now.holes - before.holes;
        to.path_datagram_size = self.mtu.size() as u64;
        if let Some(path) = kcp.path() {
            to.path_bandwidth = path.bandwidth;
            to.path_pacing_rate = path.pacing_rate;
            to.path_min_rtt_us = u64::try_from(path.min_rtt.as_micros()).unwrap_or(u64::MAX);
            to.path_srtt_us = u64::try_from(path.srtt.as_micros()).unwrap_or(u64::MAX);
            to.path_flight_limit = path.flight_limit.into();
            to.path_loss_ppm = (f64::from(path.loss) * 1e6) as u64;
            to.path_network_limited = path.network_limited.into();
        }
        let (data, parity) = self.redundancy.parity().unwrap_or((0, 0));
        to.auto_parity_shape = (data * 1000 + parity) as u64;
        to.auto_copies = self.redundancy.copies().into();
    }
}
