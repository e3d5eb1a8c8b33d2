//! Round-trip estimate and retransmission timeout (docs/spec/kcptun.md, section 7.5).

/// Times are milliseconds, as everything KCP measures.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Rtt {
    srtt: u32,
    rttvar: u32,
    rto: u32,
    min: Option<u32>,
}

impl Rtt {
    pub(crate) const fn new(initial_rto: u32) -> Self {
        Self {
            srtt: 0,
            rttvar: 0,
            rto: initial_rto,
            min: None,
        }
    }

    /// One measurement. A sample of 0 leaves the estimate "not measured yet", as upstream.
    pub(crate) fn sample(&mut self, rtt: u32, interval: u32, min_rto: u32, max_rto: u32) {
        self.min = Some(self.min.map_or(rtt, |m| m.min(rtt)));
        if self.srtt == 0 {
            self.srtt = rtt;
            self.rttvar = rtt >> 1;
        } else {
            let (rtt, srtt, var) = (i64::from(rtt), i64::from(self.srtt), i64::from(self.rttvar));
            let delta = rtt - srtt;
            let srtt = srtt + (delta >> 3);
            let delta = delta.abs();
            // Far below the usual means that the path got better: that must not raise the timeout much.
            let shift = if rtt < srtt - var { 5 } else { 2 };
            let var = var + ((delta - var) >> shift);
            self.srtt = u32::try_from(srtt).unwrap_or(0);
            self.rttvar = u32::try_from(var).unwrap_or(0);
        }
        let rto = u64::from(self.srtt) + u64::from(interval).max(4 * u64::from(self.rttvar));
        self.rto = u32::try_from(rto)
            .unwrap_or(u32::MAX)
            .clamp(min_rto, max_rto.max(min_rto));
    }

    pub(crate) const fn srtt(&self) -> u32 {
        self.srtt
    }

    pub(crate) const fn rttvar(&self) -> u32 {
        self.rttvar
    }

    pub(crate) const fn rto(&self) -> u32 {
        self.rto
    }

    pub(crate) const fn min(&self) -> Option<u32> {
        self.min
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_samples_stay_in_bounds() {
        let mut r = Rtt::new(200);
        for s in [0, u32::MAX >> 1, 0, 1, u32::MAX >> 1, 5, 5, 0, 0] {
            r.sample(s, 30, 100, 60_000);
            assert!((100..=60_000).contains(&r.rto()), "{r:?}");
        }
        assert_eq!(r.min(), Some(0));
    }

    #[test]
    fn settles_on_a_steady_path() {
        let mut r = Rtt::new(200);
        for _ in 0..100 {
            r.sample(50, 10, 30, 60_000);
        }
        assert_eq!((r.srtt(), r.rto()), (50, 60));
    }
}
