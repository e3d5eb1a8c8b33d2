//! Erasure codes: which linear combinations of data shards the parity shards are, and which combinations of the
//! shards that arrived give the lost ones back.
//!
//! A code of this crate reads the bytes at one offset of all data shards as the values of a polynomial at the
//! *points* of these shards; the byte of a parity shard is the polynomial's value at its own point. With the
//! points 0, 1, 2, ... that is the systematic Vandermonde matrix of docs/spec/kcptun.md, section 6.2 (Vandermonde rows
//! times the inverse of their top square); a dialect with other rows brings other points, see [`Code::with_points`].
//!
//! Seen that way no matrix is ever inverted: Lagrange's formula gives each coefficient of the parity rows, and of
//! the rows that rebuild a lost shard, as a quotient of products. The products over the data points are kept, so
//! that rebuilding `m` of `d` shards takes in the order of `m * d` table look-ups, and any distinct points can be
//! solved for: there is no singular case.

use core::fmt;

use crate::arch::Kernel;
use crate::field::{ORDER, exp, log};
use crate::plan::{Plan, Rows, RowsMut};

/// Most shards, data and parity together, that a code over this field can have.
pub const MAX_SHARDS: usize = 256;

/// Why there is no such code, or no such way to rebuild.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum CodeError {
    /// No data shards, no parity shards, or more than [`MAX_SHARDS`] in all.
    Shards {
        /// Data shards asked for.
        data: usize,
        /// Parity shards asked for.
        parity: usize,
    },
    /// Two shards share a point.
    RepeatedPoint(u8),
    /// The positions to rebuild from are not as many as there are data shards, are not distinct, or are out of range.
    Positions,
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shards { data, parity } => write!(
                f,
                "{data} data and {parity} parity shards: each must be at least 1, together at most {MAX_SHARDS}"
            ),
            Self::RepeatedPoint(point) => write!(f, "point {point} belongs to two shards"),
            Self::Positions => f.write_str("not a set of distinct shards as large as the data"),
        }
    }
}

impl core::error::Error for CodeError {}

/// A systematic code: `data` shards as they are, then parity shards. Positions count from 0 through both.
#[derive(Clone, Debug)]
pub struct Code {
    data: usize,
    /// The point of each position.
    points: Vec<u8>,
    /// Logarithm of the product of the differences between a position's point and those of all (other) data shards.
    weights: Vec<u8>,
}

impl Code {
    /// The code of kcptun and klauspost's default: points 0, 1, 2, ... (section 6.2).
    ///
    /// # Errors
    /// [`CodeError::Shards`].
    pub fn vandermonde(data: usize, parity: usize) -> Result<Self, CodeError> {
        check_shards(data, parity)?;
        let points: Vec<u8> = (0..=u8::MAX).take(data + parity).collect();
        Self::with_points(data, &points)
    }

    /// The code whose position `i` has the point `points[i]`; the first `data` positions are data.
    ///
    /// The parity rows are the Vandermonde matrix of `points` with `data` columns, made systematic.
    ///
    /// # Errors
    /// [`CodeError::Shards`], [`CodeError::RepeatedPoint`].
    pub fn with_points(data: usize, points: &[u8]) -> Result<Self, CodeError> {
        check_shards(data, points.len().saturating_sub(data))?;
        let mut seen = Positions::default();
        if let Some(&twice) = points.iter().find(|&&p| !seen.insert(p)) {
            return Err(CodeError::RepeatedPoint(twice));
        }
        let weights = points
            .iter()
            .map(|&p| reduce(points[..data].iter().map(|&t| log(p ^ t)).sum()))
            .collect();
        Ok(Self {
            data,
            points: points.to_vec(),
            weights,
        })
    }

    /// Data shards.
    #[must_use]
    pub fn data(&self) -> usize {
        self.data
    }

    /// Parity shards.
    #[must_use]
    pub fn parity(&self) -> usize {
        self.points.len() - self.data
    }

    /// Data and parity shards.
    #[must_use]
    pub fn total(&self) -> usize {
        self.points.len()
    }

    /// The factor of data shard `column` in parity shard `row`.
    ///
    /// # Panics
    /// When there is no such row or column.
    #[must_use]
    pub fn coefficient(&self, row: usize, column: usize) -> u8 {
        assert!(column < self.data, "no data shard {column}");
        let (p, c) = (self.points[self.data + row], self.points[column]);
        let divisor = log(p ^ c) + u32::from(self.weights[column]);
        exp(u32::from(self.weights[self.data + row]) + 2 * ORDER - divisor)
    }

    /// The plan that computes all parity shards from all data shards, to be kept.
    #[must_use]
    pub fn encoding(&self, kernel: Kernel) -> Plan {
        let mut plan = Plan::new(kernel);
        plan.fill(self.parity(), self.data, |row, column| {
            self.coefficient(row, column)
        });
        plan
    }
}

/// A recipe that rebuilds lost data shards; kept and refilled, it allocates nothing.
#[derive(Clone, Debug)]
pub struct Rebuild {
    plan: Plan,
    missing: Vec<u8>,
    /// The points of the parity shards in use.
    added: Vec<u8>,
    /// What [`Code::weights`] is, over the points of the shards in use: theirs, then those of the missing.
    weights: Vec<u8>,
}

impl Rebuild {
    /// A recipe for nothing yet.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self {
            plan: Plan::new(kernel),
            missing: Vec::new(),
            added: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Prepares to rebuild every data shard of `code` that is not at one of the positions `have`.
    ///
    /// # Errors
    /// [`CodeError::Positions`] unless `have` are as many distinct positions as the code has data shards.
    pub fn prepare(&mut self, code: &Code, have: &[u8]) -> Result<(), CodeError> {
        let mut present = Positions::default();
        let valid = have.len() == code.data
            && have
                .iter()
                .all(|&p| usize::from(p) < code.total() && present.insert(p));
        if !valid {
            return Err(CodeError::Positions);
        }
        self.missing.clear();
        self.missing.extend(
            (0..=u8::MAX)
                .take(code.data)
                .filter(|&p| !present.contains(p)),
        );
        let points = &code.points[..];
        let point = |p: u8| points[usize::from(p)];
        self.added.clear();
        let parity = have.iter().filter(|&&p| usize::from(p) >= code.data);
        self.added.extend(parity.map(|&p| point(p)));
        let Self {
            plan,
            missing,
            added,
            weights,
        } = self;

        // The points at hand are those of the data, less the missing, plus those of the parity in use: the
        // products over them follow from the kept ones by as many factors as are missing. The factor between a
        // point and itself does not count, and log(0) adds nothing.
        weights.clear();
        weights.extend(have.iter().chain(&*missing).map(|&p| {
            let here = point(p);
            let more: u32 = added.iter().map(|&t| log(here ^ t)).sum();
            let less: u32 = missing.iter().map(|&t| ORDER - log(here ^ point(t))).sum();
            reduce(u32::from(code.weights[usize::from(p)]) + more + less)
        }));
        let (divisors, dividends) = weights.split_at(have.len());
        plan.fill(missing.len(), have.len(), |row, column| {
            let difference = log(point(missing[row]) ^ point(have[column]));
            let divisor = difference + u32::from(divisors[column]);
            exp(u32::from(dividends[row]) + 2 * ORDER - divisor)
        });
        Ok(())
    }

    /// The data positions that [`Self::apply`] computes, ascending.
    #[must_use]
    pub fn missing(&self) -> &[u8] {
        &self.missing
    }

    /// Computes the first `len` bytes of each missing shard, in the order of [`Self::missing`], from those of the
    /// shards that were named, in the order in which they were named.
    ///
    /// # Panics
    /// As [`Plan::apply`].
    pub fn apply(&self, sources: Rows<'_>, sinks: RowsMut<'_>, len: usize) {
        self.plan.apply(sources, sinks, len);
    }
}

fn check_shards(data: usize, parity: usize) -> Result<(), CodeError> {
    if data == 0 || parity == 0 || data.saturating_add(parity) > MAX_SHARDS {
        return Err(CodeError::Shards { data, parity });
    }
    Ok(())
}

/// A sum of logarithms as one logarithm.
fn reduce(sum: u32) -> u8 {
    // Below 255, hence within a byte.
    #[allow(clippy::cast_possible_truncation)]
    {
        (sum % ORDER) as u8
    }
}

/// A set of bytes.
#[derive(Default)]
struct Positions([u64; 4]);

impl Positions {
    /// Adds `p`; false when it was there.
    fn insert(&mut self, p: u8) -> bool {
        let added = !self.contains(p);
        self.0[usize::from(p >> 6)] |= 1 << (p & 63);
        added
    }

    fn contains(&self, p: u8) -> bool {
        self.0[usize::from(p >> 6)] >> (p & 63) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use fulmar_testkit::vectors;

    use super::*;
    use crate::field::{inverse, mul};

    /// The recipe in the words of the specification: Vandermonde rows times the inverse of their top square.
    fn by_inversion(data: usize, points: &[u8]) -> Vec<Vec<u8>> {
        let power = |p: u8, e: usize| (0..e).fold(1, |product, _| mul(product, p));
        let rows: Vec<Vec<u8>> = points
            .iter()
            .map(|&p| (0..data).map(|c| power(p, c)).collect())
            .collect();
        // Column operations that turn the top square into the identity multiply by its inverse from the right.
        let mut rows = rows;
        for i in 0..data {
            let pivot = (i..data).find(|&c| rows[i][c] != 0).expect("regular");
            let factor = inverse(rows[i][pivot]).expect("not zero");
            for row in &mut rows {
                row.swap(i, pivot);
                row[i] = mul(row[i], factor);
            }
            for c in (0..data).filter(|&c| c != i) {
                let factor = rows[i][c];
                for row in &mut rows {
                    row[c] ^= mul(row[i], factor);
                }
            }
        }
        rows.split_off(data)
    }

    fn parity_rows(code: &Code) -> Vec<Vec<u8>> {
        (0..code.parity())
            .map(|r| (0..code.data()).map(|c| code.coefficient(r, c)).collect())
            .collect()
    }

    #[test]
    fn parity_rows_are_those_of_the_vectors() {
        let file = vectors::load("kcptun/fec_encode.json");
        let matrices = file["matrices"].as_array().expect("matrices");
        assert!(!matrices.is_empty());
        for m in matrices {
            let shards =
                |key: &str| usize::try_from(m[key].as_u64().expect("count")).expect("usize");
            let code = Code::vandermonde(shards("datashard"), shards("parityshard")).expect("code");
            let rows = m["parity_rows_hex"].as_array().expect("rows");
            let rows: Vec<Vec<u8>> = rows
                .iter()
                .map(|r| vectors::hex(r.as_str().expect("hex")))
                .collect();
            assert_eq!(parity_rows(&code), rows);
        }
    }

    #[test]
    fn parity_rows_are_the_systematic_vandermonde_matrix() {
        for (data, parity) in [
            (1, 1),
            (2, 3),
            (10, 3),
            (17, 40),
            (128, 128),
            (255, 1),
            (1, 255),
        ] {
            let code = Code::vandermonde(data, parity).expect("code");
            assert_eq!(parity_rows(&code), by_inversion(data, &code.points));
        }
        // Points 0, 2, 4, 8, ...: the rows of another program over the same field.
        let points: Vec<u8> = core::iter::once(0).chain((1..13).map(exp)).collect();
        let code = Code::with_points(10, &points).expect("code");
        assert_eq!(parity_rows(&code), by_inversion(10, &points));
    }

    #[test]
    fn impossible_codes_are_refused() {
        for (data, parity) in [(0, 1), (1, 0), (0, 0), (129, 128), (usize::MAX, usize::MAX)] {
            assert_eq!(
                Code::vandermonde(data, parity).err(),
                Some(CodeError::Shards { data, parity })
            );
        }
        assert_eq!(
            Code::with_points(2, &[0, 5, 9, 5]).err(),
            Some(CodeError::RepeatedPoint(5))
        );
        assert!(Code::with_points(3, &[0, 1]).is_err());
    }

    #[test]
    fn positions_to_rebuild_from_are_checked() {
        let code = Code::vandermonde(3, 2).expect("code");
        let mut rebuild = Rebuild::new(Kernel::scalar());
        for have in [&[0, 1][..], &[0, 1, 1], &[0, 1, 5], &[0, 1, 2, 3], &[]] {
            assert_eq!(rebuild.prepare(&code, have), Err(CodeError::Positions));
        }
        assert_eq!(rebuild.prepare(&code, &[4, 1, 3]), Ok(()));
        assert_eq!(rebuild.missing(), [0, 2]);
        assert_eq!(rebuild.prepare(&code, &[2, 0, 1]), Ok(()));
        assert!(rebuild.missing().is_empty());
    }
}
