//! Arithmetic of the field: polynomial x^8+x^4+x^3+x^2+1 (0x11D), generator 2.
//!
//! Addition and subtraction are exclusive or. Products go through logarithms or, in kernels, through tables
//! per coefficient; every table is computed by the compiler.

/// The field polynomial without its leading term.
const POLYNOMIAL: u8 = 0x1d;
/// Size of the multiplicative group: logarithms are modulo this.
pub(crate) const ORDER: u32 = 255;

/// `EXP[i]` is 2^i, for `i` below [`ORDER`] and, so that a sum of two logarithms needs no reduction, up to twice that.
static EXP: [u8; 512] = powers();
/// `LOG[a]` is the logarithm of `a` to base 2; `LOG[0]` is meaningless.
static LOG: [u8; 256] = logarithms();

/// `PRODUCTS[a][b]` is `a * b`.
pub(crate) static PRODUCTS: [[u8; 256]; 256] = products();

/// `a * b`.
#[must_use]
pub fn mul(a: u8, b: u8) -> u8 {
    PRODUCTS[usize::from(a)][usize::from(b)]
}

/// The multiplicative inverse of `a`, `None` for zero.
#[must_use]
pub fn inverse(a: u8) -> Option<u8> {
    (a != 0).then(|| exp(ORDER - log(a)))
}

/// 2 to the power `e`.
#[must_use]
pub fn exp(e: u32) -> u8 {
    EXP[(e % ORDER) as usize]
}

/// The logarithm of `a`, which must not be zero (zero gives zero).
pub(crate) fn log(a: u8) -> u32 {
    u32::from(LOG[usize::from(a)])
}

/// `a * b` without tables, for building them.
pub(crate) const fn mul_slow(a: u8, b: u8) -> u8 {
    let mut product = 0;
    let mut power = a;
    let mut rest = b;
    while rest != 0 {
        if rest & 1 != 0 {
            product ^= power;
        }
        power = double(power);
        rest >>= 1;
    }
    product
}

const fn double(a: u8) -> u8 {
    (a << 1) ^ if a & 0x80 != 0 { POLYNOMIAL } else { 0 }
}

const fn powers() -> [u8; 512] {
    let mut table = [0; 512];
    let mut power = 1;
    let mut i = 0;
    while i < 512 {
        table[i] = power;
        power = double(power);
        i += 1;
    }
    table
}

const fn logarithms() -> [u8; 256] {
    let exp = powers();
    let mut table = [0; 256];
    let mut i = 0u8;
    while i < 255 {
        table[exp[i as usize] as usize] = i;
        i += 1;
    }
    table
}

const fn products() -> [[u8; 256]; 256] {
    // Row a is filled from the products of single bits: a*(b without its lowest bit) + a*(lowest bit).
    let mut table = [[0; 256]; 256];
    let mut a = 0;
    while a < 256 {
        let mut bit = 1;
        let mut power = a as u8;
        while bit < 256 {
            let mut low = 0;
            while low < bit {
                table[a][bit + low] = table[a][low] ^ power;
                low += 1;
            }
            power = double(power);
            bit <<= 1;
        }
        a += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_agree_with_long_multiplication() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(mul(a, b), mul_slow(a, b), "{a} * {b}");
                if a != 0 && b != 0 {
                    assert_eq!(exp(log(a) + log(b)), mul(a, b));
                }
            }
        }
    }

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        assert_eq!(inverse(0), None);
        for a in 1..=255 {
            let inv = inverse(a).expect("not zero");
            assert_eq!(mul(a, inv), 1, "{a}");
        }
    }

    #[test]
    fn two_generates_the_field() {
        let mut seen = [false; 256];
        for e in 0..ORDER {
            assert!(!core::mem::replace(&mut seen[usize::from(exp(e))], true));
        }
        assert!(!seen[0]);
        assert_eq!(exp(8), POLYNOMIAL);
    }
}
