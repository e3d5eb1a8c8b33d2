//! 32-bit sequence numbers whose comparison is wrapping by definition (docs/spec/kcptun.md, section 2).
//!
//! There is deliberately no `Ord`: `a < b` on a number that wraps is the bug that this type prevents.

use core::fmt;

/// A sequence number modulo 2^32.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// The wrapped difference `self - other`.
    #[must_use]
    pub const fn diff(self, other: Self) -> i32 {
        #[allow(clippy::cast_possible_wrap)]
        {
            self.0.wrapping_sub(other.0) as i32
        }
    }

    /// Whether `self` comes before `other`.
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.diff(other) < 0
    }

    /// Whether `self` is `other` or comes after it.
    #[must_use]
    pub const fn at_or_after(self, other: Self) -> bool {
        self.diff(other) >= 0
    }

    /// The number `n` steps later.
    #[must_use]
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// The next number.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Seq;

    #[test]
    fn order_across_the_wrap() {
        let last = Seq(u32::MAX);
        assert!(last.before(last.next()));
        assert!(last.next().at_or_after(last));
        assert_eq!(last.plus(5).diff(last), 5);
        assert_eq!(last.diff(last.plus(5)), -5);
    }
}
