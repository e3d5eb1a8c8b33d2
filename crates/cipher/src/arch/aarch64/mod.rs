//! Kernels for 64-bit ARM.

pub(crate) mod aes;

/// Proof of the AES instructions.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct Neon(());

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        let found = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("aes");
        found.then_some(Self(()))
    }
}
