//! How much the path loses, and in what bursts.
//!
//! Two shares are kept. The one of everything says what receivers miss, which is what redundancy is for. The other counts only what
//! was sent while nothing was amiss: slower than the path delivers, and so without filling a queue or the bucket of
//! a policer. What is lost then is lost by chance, and sending so much more makes up for it; what is lost beyond that is our own doing.

use fulmar_wire::seq::Seq;

/// Outcomes that a share remembers, about: from here on old ones fade.
const MEMORY: f32 = 2_000.0;

/// A share of outcomes that forgets.
#[derive(Copy, Clone, Debug, Default)]
struct Share {
    hits: f32,
    of: f32,
}

impl Share {
    fn add(&mut self, hits: f32, of: f32) {
        self.hits = (self.hits + hits).max(0.0);
        self.of = (self.of + of).max(0.0);
        if self.of > MEMORY {
            self.hits /= 2.0;
            self.of /= 2.0;
        }
    }

    /// The share, if it rests on `enough`.
    fn of_at_least(&self, enough: f32) -> Option<f32> {
        (self.of >= enough).then(|| (self.hits / self.of).clamp(0.0, 1.0))
    }
}

#[derive(Debug, Default)]
pub(super) struct Loss {
    all: Share,
    /// The same since a beginning that lost much.
    since: Share,
    calm: Share,
    /// Losses, and rows of them.
    rows: Share,
    last: Option<Seq>,
}

impl Loss {
    /// Transmissions that arrived.
    #[inline]
    pub(super) fn arrived(&mut self, calm: bool) {
        self.all.add(0.0, 1.0);
        self.since.add(0.0, 1.0);
        if calm {
            self.calm.add(0.0, 1.0);
        }
    }

    /// A transmission of `sn` that got lost.
    pub(super) fn lost(&mut self, sn: Seq, calm: bool) {
        self.all.add(1.0, 1.0);
        self.since.add(1.0, 1.0);
        if calm {
            self.calm.add(1.0, 1.0);
        }
        let in_a_row = self.last.is_some_and(|last| last.next() == sn);
        self.rows.add(if in_a_row { 0.0 } else { 1.0 }, 1.0);
        self.last = Some(sn);
    }

    /// One that had been taken for lost has arrived.
    pub(super) fn not_lost(&mut self, calm: bool) {
        self.all.add(-1.0, 0.0);
        self.since.add(-1.0, 0.0);
        if calm {
            self.calm.add(-1.0, 0.0);
        }
    }

    /// Share of all that was lost, and how many outcomes it rests on.
    pub(super) fn total(&self) -> (f32, u32) {
        (self.all.of_at_least(1.0).unwrap_or(0.0), self.all.of as u32)
    }

    /// Share that is lost whatever is sent. At most half: beyond that sending more helps nobody.
    pub(super) fn by_chance(&self) -> f32 {
        let all = self.since.of_at_least(50.0).unwrap_or(0.0);
        // Until something was sent calmly, some of what is lost is taken for chance.
        let calm = self.calm.of_at_least(100.0).unwrap_or(0.25);
        calm.min(all).min(0.5)
    }

    /// What was lost until now, was lost by sending too fast.
    pub(super) fn forget(&mut self) {
        self.since = Share::default();
    }

    /// Mean length of a row of losses, at least 1.
    pub(super) fn burst(&self) -> f32 {
        let rows = self.rows.of_at_least(8.0).unwrap_or(1.0);
        (1.0 / rows.max(0.01)).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calm_losses_are_chance() {
        let mut l = Loss::default();
        for i in 0..4000u32 {
            match (i % 4, i % 20) {
                // Three in four while we push, of which a third is lost; of the rest a fifth of that.
                (0, 0) => l.lost(Seq(i), true),
                (0, _) => l.arrived(true),
                (1, _) => l.lost(Seq(i), false),
                _ => l.arrived(false),
            }
        }
        assert!((0.18..0.22).contains(&l.by_chance()), "{}", l.by_chance());
        assert!((0.28..0.32).contains(&l.total().0), "{:?}", l.total());
    }

    #[test]
    fn rows_are_counted() {
        let mut l = Loss::default();
        for i in 0..100u32 {
            (0..4).for_each(|k| l.lost(Seq(i * 50 + k), true));
            (0..46).for_each(|_| l.arrived(true));
        }
        assert!((3.9..4.1).contains(&l.burst()), "{}", l.burst());
        l.not_lost(true);
        assert!(l.total().0 < 0.081);
    }
}
