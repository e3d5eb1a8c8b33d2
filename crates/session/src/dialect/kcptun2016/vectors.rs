//! What a client's first message means: which variant is spoken, and how the stream is encrypted (spec/kcptun-2016.md, sections 7 and 9).

use fulmar_cipher::{MasterKey, StreamCfb};
use fulmar_wire::kcptun2016::{FIXED_IV, IV_LEN, Variant};
use fulmar_wire::yamux::HEADER_LEN;

/// Bytes of the longest first message.
const LONGEST: usize = 2 * IV_LEN;

/// How a client that we are begins a session.
#[derive(Clone, Debug)]
pub struct Vectors {
    variant: Variant,
    encrypted: bool,
    bytes: [u8; LONGEST],
}

impl Vectors {
    /// `encrypted`: in variant C, whether the stream is; the others always encrypt it. `random` is used for one session.
    #[must_use]
    pub const fn new(variant: Variant, encrypted: bool, random: [u8; LONGEST]) -> Self {
        Self {
            variant,
            encrypted: encrypted || !matches!(variant, Variant::C),
            bytes: random,
        }
    }

    /// In words.
    pub(super) const fn describe(&self) -> &'static str {
        match (self.variant, self.encrypted) {
            (Variant::A, _) => "A (April 2016)",
            (Variant::B, _) => "B (the README's of spring 2016)",
            (Variant::C, false) => "C (May 2016), without --tuncrypt",
            (Variant::C, true) => "C (May 2016), with --tuncrypt",
        }
    }

    /// The message, empty in variant A.
    pub(super) fn message(&self) -> &[u8] {
        &self.bytes[..self.variant.message_len()]
    }

    /// How this end encrypts and decrypts; `None` if the stream travels in clear below the packets' protection.
    pub(super) fn ciphers(&self, key: &MasterKey, server: bool) -> Option<Ciphers> {
        if !self.encrypted {
            return None;
        }
        let half = |second: bool| {
            let mut iv = [0; IV_LEN];
            let from = if second { IV_LEN } else { 0 };
            iv.copy_from_slice(&self.bytes[from..from + IV_LEN]);
            iv
        };
        // To the server, and back.
        let (up, down) = match self.variant {
            Variant::A => (FIXED_IV, FIXED_IV),
            Variant::B => (half(false), half(false)),
            Variant::C => (half(false), half(true)),
        };
        let (seal, open) = if server { (down, up) } else { (up, down) };
        Some(Ciphers {
            seal: StreamCfb::new(key, seal),
            open: StreamCfb::new(key, open),
        })
    }
}

/// Both directions of a stream's second encryption.
pub(super) struct Ciphers {
    pub(super) seal: StreamCfb,
    pub(super) open: StreamCfb,
}

/// A server that does not know yet who speaks.
#[derive(Debug, Default)]
pub(super) struct Recogniser {
    /// What has come of the first message, or behind it.
    bytes: Vec<u8>,
    /// Variant C, whose first frame tells the rest.
    third: Option<[u8; LONGEST]>,
}

/// What a server found out.
pub(super) struct Recognised {
    pub(super) vectors: Vectors,
    /// What belongs to the stream already, as it came.
    pub(super) rest: Vec<u8>,
}

/// The first message, or what follows, is nothing that any variant begins with.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Strange {
    #[error("the first message has {0} bytes: not the 12, 16 or 32 of any kcptun of spring 2016")]
    Length(usize),
    #[error("the first frame is none, neither in clear nor decrypted: most likely the keys differ")]
    Frame,
}

impl Recogniser {
    /// Takes bytes of the client; `last`: they end a message. All variants send the first one by itself.
    ///
    /// # Errors
    /// When it speaks none of them.
    pub(super) fn take(
        &mut self,
        key: &MasterKey,
        bytes: &[u8],
        last: bool,
    ) -> Result<Option<Recognised>, Strange> {
        self.bytes.extend_from_slice(bytes);
        let len = self.bytes.len();
        if let Some(random) = self.third {
            if len < HEADER_LEN {
                return Ok(None);
            }
            let encrypted = self.third_encrypts(key, random)?;
            return Ok(Some(Recognised {
                vectors: Vectors::new(Variant::C, encrypted, random),
                rest: std::mem::take(&mut self.bytes),
            }));
        }
        if len > LONGEST {
            return Err(Strange::Length(len));
        }
        if !last {
            return Ok(None);
        }
        let variant = Variant::of_first_message(len).ok_or(Strange::Length(len))?;
        let bytes = std::mem::take(&mut self.bytes);
        let (mut random, mut rest) = ([0; LONGEST], Vec::new());
        match variant {
            Variant::A => rest = bytes,
            Variant::B | Variant::C => random[..len].copy_from_slice(&bytes),
        }
        if variant == Variant::C {
            self.third = Some(random);
            return Ok(None);
        }
        Ok(Some(Recognised {
            vectors: Vectors::new(variant, true, random),
            rest,
        }))
    }

    /// Whether the message that names a variant has arrived.
    pub(super) const fn is_begun(&self) -> bool {
        self.third.is_some()
    }

    /// The first frame of variant C opens a stream or is a ping, in clear or encrypted.
    fn third_encrypts(&self, key: &MasterKey, random: [u8; LONGEST]) -> Result<bool, Strange> {
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(&self.bytes[..HEADER_LEN]);
        if begins(&head) {
            return Ok(false);
        }
        let vectors = Vectors::new(Variant::C, true, random);
        let ciphers = vectors.ciphers(key, true);
        if let Some(mut ciphers) = ciphers {
            ciphers.open.decrypt(&mut head);
        }
        if begins(&head) {
            Ok(true)
        } else {
            Err(Strange::Frame)
        }
    }
}

/// Whether a client's first frame looks like this: the first stream opens, or a ping asks.
fn begins(head: &[u8; HEADER_LEN]) -> bool {
    matches!(
        head,
        [0, 1, 0, 1, 0, 0, 0, 1, ..] | [0, 2, 0, 1, 0, 0, 0, 0, ..]
    )
}
