//! A conversation that rests at any moment when it can, and goes on, as if nothing had been.

use fulmar_arq::{Config, DatagramSink, Flush, Kcp, Origin, Profile, Restful, Rules, StrategyKind};
use fulmar_wire::time::Instant;

#[derive(Default)]
struct Datagrams(Vec<Vec<u8>>, Vec<u8>);

impl DatagramSink for Datagrams {
    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        self.1.resize(max_len.max(self.1.len()), 0);
        &mut self.1
    }

    fn commit(&mut self, len: usize) {
        self.0.push(self.1[..len].to_vec());
    }
}

fn configs() -> Vec<Config> {
    let classic = Config {
        profile: Profile::FAST,
        ..Config::default()
    };
    let measuring = |config: Config| Config {
        strategy: StrategyKind::Auto,
        ..config
    };
    let messages = Config {
        max_fragments: 128,
        ..classic
    };
    let libev = Config {
        rules: Rules::LIBEV,
        ..classic
    };
    let all = [classic, messages, libev];
    all.into_iter().chain(all.map(measuring)).collect()
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
}

#[test]
fn whoever_rests_now_and_then_loses_nothing() {
    for config in configs() {
        for seed in 0..20 {
            let mut dice = Dice(seed);
            let mut ends = [Kcp::new(7, config), Kcp::new(7, config)];
            let mut sent = [Vec::new(), Vec::new()];
            let mut read = [Vec::new(), Vec::new()];
            let (mut rests, mut rests_in_flight) = (0, 0);
            for step in 0..4000u64 {
                let now = Instant::from_millis(1000 + step * 10);
                let quiet = step > 3500;
                for i in [0, 1] {
                    if !quiet && dice.below(20) == 0 {
                        let len = if dice.below(10) == 0 { 3000 } else { 8 };
                        let bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
                        ends[i].send(&bytes);
                        ends[i].end_message();
                        sent[i].extend(bytes);
                    }
                    let mut out = Datagrams::default();
                    let due = ends[i].poll_timeout().is_some_and(|at| at <= now);
                    if due || ends[i].flush_wanted().kind().is_some() {
                        ends[i].flush(now, Flush::Full, &mut out);
                    }
                    for datagram in out.0 {
                        if dice.below(4) > 0 {
                            let _ = ends[1 - i].handle_datagram(now, &datagram, Origin::Wire);
                        }
                    }
                    while ends[1 - i]
                        .recv(|bytes| read[1 - i].extend_from_slice(bytes))
                        .is_some()
                    {}
                }
                for end in &mut ends {
                    if end.restful(false) == Restful::Yes && dice.below(3) == 0 {
                        rests += 1;
                        rests_in_flight += u32::from(end.waiting() > 0);
                        let before = end.state();
                        let rest = end.rest();
                        assert!(size_of_val(&rest) <= 400, "{}", size_of_val(&rest));
                        *end = Kcp::new(7, config);
                        end.resume(&rest);
                        let after = end.state();
                        let numbers = |s: fulmar_arq::State| {
                            (s.snd_una, s.rcv_nxt, s.rmt_wnd, s.rx_rto, s.rx_srtt)
                        };
                        assert_eq!(numbers(before), numbers(after));
                        assert_eq!(
                            end.restful(false) == Restful::Yes,
                            after.snd_nxt == before.snd_nxt
                        );
                    }
                }
            }
            for i in [0, 1] {
                assert!(sent[i] == read[1 - i], "{config:?}, seed {seed}");
            }
            assert!(
                rests > 100 && rests_in_flight > 20,
                "{rests} {rests_in_flight}"
            );
        }
    }
}
