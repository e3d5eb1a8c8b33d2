//! The sender-control seam with another strategy than KCP's: one that paces and finds losses by time.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::link::{CALM, End, Pair, Weather};
use fulmar_arq::control::{Acked, Cause, Delivered, Evidence, Limits, Lost, SenderControl, Sent};
use fulmar_arq::{Config, Kcp, Profile};
use fulmar_testkit::vectors::xs;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;

const GAP: Duration = Duration::from_micros(700);
const RTT_MS: u64 = 40;

/// One segment every [`GAP`]; lost is what left a round trip and a quarter before the latest arrival was noticed.
#[derive(Default)]
struct Paced {
    next: Instant,
    sends: Vec<(Instant, Sent)>,
    in_flight: HashMap<u32, usize>,
    delivered: usize,
    acked_segments: u32,
    acked_bytes: u64,
    samples: Vec<u32>,
    overdue: u32,
    timeouts: u32,
}

impl SenderControl for Paced {
    fn window(&self, _now: Instant, limits: Limits) -> u32 {
        limits.snd_wnd.min(limits.rmt_wnd)
    }

    fn next_send_time(&self, _now: Instant) -> Option<Instant> {
        Some(self.next)
    }

    fn skip_threshold(&self) -> Option<u32> {
        Some(255)
    }

    fn lost_before(&self, now: Instant) -> Option<Instant> {
        let back = 1000 * (RTT_MS + RTT_MS / 4);
        now.as_micros().checked_sub(back).map(Instant::from_micros)
    }

    fn resend(&self, e: &Evidence) -> Option<Cause> {
        if e.overdue && e.skipped > 0 {
            Some(Cause::Overdue)
        } else if e.expired {
            Some(Cause::Timeout)
        } else {
            None
        }
    }

    fn timeout(&self, _cause: Cause, _waited: u32, rto: u32) -> u32 {
        2 * rto
    }

    fn on_sent(&mut self, now: Instant, sent: &Sent) {
        assert!(now >= self.next);
        self.next = now + GAP;
        self.sends.push((now, *sent));
        self.in_flight.insert(sent.sn.0, sent.len);
        assert_eq!(self.in_flight.len(), sent.in_flight as usize);
    }

    fn on_delivered(&mut self, _now: Instant, d: &Delivered) {
        // Each once, with what was said when it left.
        assert_eq!(self.in_flight.remove(&d.sn.0), Some(d.len));
        let mut times = self.sends.iter().filter(|(_, s)| s.sn == d.sn);
        assert_eq!(times.clone().count(), d.transmissions as usize);
        let (last, _) = times.next_back().expect("sent");
        assert_eq!(last.wire_millis(), d.sent);
        self.delivered += d.len;
    }

    fn on_acked(&mut self, _now: Instant, acked: &Acked) {
        self.acked_segments += acked.segments;
        self.acked_bytes += acked.bytes;
        self.samples.extend(acked.rtt_ms);
        assert_eq!(acked.in_flight as usize, self.in_flight.len());
    }

    fn on_lost(&mut self, _now: Instant, lost: &Lost) {
        self.overdue += lost.segments;
    }

    fn on_timeout(&mut self, _now: Instant, lost: &Lost) {
        self.timeouts += lost.segments;
    }
}

fn run(loss: u64) -> Pair<Paced> {
    let config = Config {
        mtu: 224,
        profile: Profile::FAST3,
        snd_wnd: 512,
        rcv_wnd: 512,
        ..Config::default()
    };
    let end = |bytes| End::new(Kcp::with_control(1, config, Paced::default()), bytes);
    let mut pair = Pair::new(
        end(xs(1, 200_000)),
        end(Vec::new()),
        Weather { loss, ..CALM },
        loss,
        1000,
    );
    pair.run(Duration::from_secs(600));
    for i in [0, 1] {
        assert!(pair.ends[1 - i].received == pair.ends[i].to_send);
        assert!(pair.ends[i].kcp.is_idle());
        assert_eq!(pair.ends[i].kcp.poll_timeout(), None);
    }
    pair
}

#[test]
fn pacing_holds_and_nothing_is_sent_twice_on_a_calm_link() {
    let pair = run(0);
    let paced = pair.ends[0].kcp.control();
    assert_eq!(paced.sends.len(), 1000);
    assert!(paced.sends.windows(2).all(|w| w[1].0 - w[0].0 >= GAP));
    // The timer does not oversleep: the pace is the strategy's, not the interval's.
    let took = paced.sends[999].0 - paced.sends[0].0;
    assert!(took < GAP * 1050, "{took:?}");
    assert_eq!(
        (paced.delivered, paced.acked_bytes, paced.acked_segments),
        (200_000, 200_000, 1000)
    );
    assert!(paced.samples.iter().all(|ms| (40..60).contains(ms)));
    assert!(pair.ends[0].kcp.window_limited(pair.now).local > Duration::ZERO);
}

#[test]
fn losses_are_found_by_time() {
    let pair = run(10);
    let kcp = &pair.ends[0].kcp;
    let paced = kcp.control();
    assert_eq!(paced.delivered, 200_000);
    assert!(paced.in_flight.is_empty());
    assert!(paced.overdue > 50, "{}", paced.overdue);
    // Only a loss at the very end, or of a repetition that nothing follows, needs a timeout.
    assert!(
        paced.timeouts * 5 < paced.overdue,
        "{} of {}",
        paced.timeouts,
        paced.overdue
    );
    let c = kcp.counters();
    assert_eq!(c.retrans_segs, u64::from(paced.overdue + paced.timeouts));
    assert_eq!(c.lost_segs, u64::from(paced.timeouts));
    assert_eq!((c.fast_retrans_segs, c.early_retrans_segs), (0, 0));
    let again = paced
        .sends
        .iter()
        .filter(|(_, s)| s.cause == Cause::Overdue);
    assert_eq!(again.count(), paced.overdue as usize);
    assert!(!kcp.peer_restarted());
    assert_eq!(kcp.snd_una(), Seq(1000));
}
