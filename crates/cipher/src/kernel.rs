//! Which instructions the ciphers use.

use core::fmt;

#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64;

/// A set of CPU instructions that ciphers may use; exists only when this CPU has them.
///
/// Every kernel gives the same bytes. [`Kernel::best`] is right except in tests and measurements.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Kernel(pub(crate) Tier);

/// The kernels, with the proof that the CPU can run them. Each includes the ones before it.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Tier {
    /// No instructions beyond the target's baseline in this crate; its dependencies find out for themselves.
    Portable,
    /// AES-NI, PCLMULQDQ and SSE4.1.
    #[cfg(target_arch = "x86_64")]
    Aesni(x86_64::Aesni),
    /// The former and AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86_64::Avx2),
    /// AVX-512 with the vector forms of AES and PCLMULQDQ, and GFNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86_64::Avx512),
    /// The AES instructions of 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon(aarch64::Neon),
}

impl Kernel {
    /// The fastest kernel of this CPU.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::PORTABLE)
    }

    /// What runs on every CPU.
    pub const PORTABLE: Self = Self(Tier::Portable);

    /// All kernels of this CPU, the slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let found = [
            Some(Tier::Portable),
            #[cfg(target_arch = "x86_64")]
            x86_64::Aesni::detect().map(Tier::Aesni),
            #[cfg(target_arch = "x86_64")]
            x86_64::Avx2::detect().map(Tier::Avx2),
            #[cfg(target_arch = "x86_64")]
            x86_64::Avx512::detect().map(Tier::Avx512),
            #[cfg(target_arch = "aarch64")]
            aarch64::Neon::detect().map(Tier::Neon),
        ];
        found.into_iter().flatten().map(Self)
    }

    /// The kernel of that [name](Self::name), if this CPU can run it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::available().find(|kernel| kernel.name() == name)
    }

    /// `portable`, `aesni`, `avx2`, `avx512` or `neon`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Tier::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Tier::Aesni(_) => "aesni",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Tier::Neon(_) => "neon",
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_kernels() {
        for kernel in Kernel::available() {
            assert_eq!(Kernel::from_name(kernel.name()), Some(kernel));
        }
        assert_eq!(Kernel::available().next(), Some(Kernel::PORTABLE));
        assert_eq!(Kernel::available().last(), Some(Kernel::best()));
        assert_eq!(Kernel::from_name("mmx"), None);
    }
}
