//! Kernels for x86-64.

pub(crate) mod aesni;
pub(crate) mod crc;
pub(crate) mod gcm;
mod ghash;
mod md5;
mod poly1305;
mod salsa20;
pub(crate) mod sm4;
mod streams;
pub(crate) mod tea;
pub(crate) mod vaes;
mod words;

/// Proof of AES-NI, PCLMULQDQ, SSSE3 and SSE4.1.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct Aesni(());

impl Aesni {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        found.then_some(Self(()))
    }

    fn ifma(self) -> Option<Ifma> {
        None
    }
}

/// Proof of AVX2 and of what [`Aesni`] proves.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        Aesni::detect()?;
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    pub(crate) fn aesni(self) -> Aesni {
        Aesni(())
    }

    fn ifma(self) -> Option<Ifma> {
        None
    }
}

/// Proof of AVX-512 F, BW, DQ and VL, VAES, VPCLMULQDQ, GFNI and of what [`Avx2`] proves.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect()?;
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("gfni");
        found.then_some(Self(()))
    }

    pub(crate) fn aesni(self) -> Aesni {
        Aesni(())
    }

    fn ifma(self) -> Option<Ifma> {
        is_x86_feature_detected!("avx512ifma").then_some(Ifma(()))
    }
}

/// Proof of AVX-512 IFMA and of what [`Avx512`] proves.
#[derive(Copy, Clone)]
struct Ifma(());
