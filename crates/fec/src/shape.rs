//! How many data and parity packets make a group, and the numbers that follow from it.

use fulmar_gf256::{Code, MAX_SHARDS};

/// A group: `data` packets, then `parity` packets; each at least 1, together at most 256.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    data: u8,
    parity: u8,
}

/// The shape asked for does not exist.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{data} data and {parity} parity packets: each must be at least 1, together at most {MAX_SHARDS}"
)]
pub struct ShapeError {
    /// Data packets asked for.
    pub data: usize,
    /// Parity packets asked for.
    pub parity: usize,
}

impl Shape {
    /// What a receiver that was not told assumes until it knows better (docs/spec/kcptun.md, section 6.5).
    pub(crate) const UNKNOWN: Self = Self { data: 1, parity: 1 };

    /// Groups of `data` and `parity` packets.
    ///
    /// # Errors
    /// [`ShapeError`] when either is 0 or their sum exceeds 256: what kcptun accepts there is no working code
    /// (section 6.2).
    pub fn new(data: usize, parity: usize) -> Result<Self, ShapeError> {
        let error = ShapeError { data, parity };
        if data == 0 || parity == 0 || data.saturating_add(parity) > MAX_SHARDS {
            return Err(error);
        }
        Ok(Self {
            data: u8::try_from(data).map_err(|_| error)?,
            parity: u8::try_from(parity).map_err(|_| error)?,
        })
    }

    /// Data packets of a group, 1 to 255.
    #[must_use]
    pub const fn data(self) -> usize {
        self.data as usize
    }

    /// Parity packets of a group, 1 to 255.
    #[must_use]
    pub const fn parity(self) -> usize {
        self.parity as usize
    }

    /// All packets of a group, 2 to 256.
    #[must_use]
    pub const fn total(self) -> usize {
        self.data() + self.parity()
    }

    /// [`Self::total`] as sequence numbers count.
    pub(crate) const fn step(self) -> u32 {
        self.data as u32 + self.parity as u32
    }

    /// Where sequence numbers start again: the greatest multiple of the group's size that fits 32 bits, so that a
    /// wrap is at the edge of a group ("paws" in section 6.3).
    #[must_use]
    pub const fn wrap(self) -> u32 {
        u32::MAX / self.step() * self.step()
    }

    /// The code of a group.
    pub(crate) fn code(self) -> Code {
        Code::vandermonde(self.data(), self.parity())
            .unwrap_or_else(|_| unreachable!("the limits of a shape are those of the code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        for (data, parity) in [
            (0, 3),
            (10, 0),
            (0, 0),
            (129, 128),
            (256, 1),
            (usize::MAX, 1),
        ] {
            assert_eq!(Shape::new(data, parity), Err(ShapeError { data, parity }));
        }
        for (data, parity) in [(1, 1), (128, 128), (255, 1), (1, 255)] {
            let shape = Shape::new(data, parity).expect("a shape");
            assert_eq!((shape.data(), shape.parity()), (data, parity));
            assert_eq!(shape.total(), data + parity);
            assert_eq!(shape.code().total(), data + parity);
        }
    }

    #[test]
    fn the_wrap_is_a_group_edge() {
        let shape = Shape::new(10, 3).expect("a shape");
        assert_eq!(shape.wrap(), 4_294_967_287);
        assert_eq!(Shape::new(2, 1).map(Shape::wrap), Ok(u32::MAX));
    }
}
