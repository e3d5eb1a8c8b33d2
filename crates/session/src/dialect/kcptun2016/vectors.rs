//! What a client's first message means: which variant is spoken, and how the stream is encrypted (docs/spec/kcptun2016.md, sections 7 and 8).

use fulmar_cipher::{MasterKey, Position, StreamCfb};
use fulmar_wire::kcptun2016::{FIXED_IV, FirstMessage, IV_LEN, Variant};
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
    /// `encrypted`: where the variant leaves the choice, whether the stream is. `random` is used for one session.
    #[must_use]
    pub const fn new(variant: Variant, encrypted: bool, random: [u8; LONGEST]) -> Self {
        Self {
            variant,
            encrypted: encrypted || !variant.has_tuncrypt(),
            bytes: random,
        }
    }

    /// In words.
    pub(super) const fn describe(&self) -> &'static str {
        match (self.variant, self.encrypted) {
            (Variant::A, _) => "A (April 2016)",
            (Variant::B, _) => "B (April 2016), or BT with --tuncrypt",
            (Variant::Bt, false) => "BT (May 2016), without --tuncrypt",
            (Variant::Bt, true) => "BT (May 2016), with --tuncrypt",
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
            Variant::B | Variant::Bt => (half(false), half(false)),
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

impl Ciphers {
    /// How far both have come.
    pub(super) fn positions(&self) -> [Position; 2] {
        [self.seal.position(), self.open.position()]
    }

    /// They go on there.
    pub(super) fn resumed(key: &MasterKey, positions: &[Position; 2]) -> Self {
        let [seal, open] = positions;
        Self {
            seal: StreamCfb::resumed(key, seal),
            open: StreamCfb::resumed(key, open),
        }
    }
}

/// A server that does not know yet who speaks.
#[derive(Debug, Default)]
pub(super) struct Recogniser {
    /// What has come of the first message, or behind it.
    bytes: Vec<u8>,
    /// The vectors, and who speaks if the first frame is in clear and if it is encrypted.
    begun: Option<[Vectors; 2]>,
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
        if let Some([clear, encrypted]) = &self.begun {
            let Some(head) = self.bytes.first_chunk() else {
                return Ok(None);
            };
            let vectors = if is_encrypted(key, encrypted, *head)? {
                encrypted
            } else {
                clear
            };
            return Ok(Some(Recognised {
                vectors: vectors.clone(),
                rest: std::mem::take(&mut self.bytes),
            }));
        }
        if len > LONGEST {
            return Err(Strange::Length(len));
        }
        if !last {
            return Ok(None);
        }
        let first = FirstMessage::of(len).ok_or(Strange::Length(len))?;
        let bytes = std::mem::take(&mut self.bytes);
        Ok(match first {
            FirstMessage::Frame => Some(Recognised {
                vectors: Vectors::new(Variant::A, true, [0; LONGEST]),
                rest: bytes,
            }),
            FirstMessage::Vectors { clear, encrypted } => {
                let mut random = [0; LONGEST];
                random[..len].copy_from_slice(&bytes);
                let vectors = [(clear, false), (encrypted, true)];
                self.begun = Some(vectors.map(|(v, encrypted)| Vectors::new(v, encrypted, random)));
                None
            }
        })
    }

    /// Whether the message that names a variant has arrived.
    pub(super) const fn is_begun(&self) -> bool {
        self.begun.is_some()
    }
}

/// Whether the header of a client's first frame is encrypted as `vectors` say.
fn is_encrypted(
    key: &MasterKey,
    vectors: &Vectors,
    mut head: [u8; HEADER_LEN],
) -> Result<bool, Strange> {
    if begins(&head) {
        return Ok(false);
    }
    if let Some(mut ciphers) = vectors.ciphers(key, true) {
        ciphers.open.decrypt(&mut head);
    }
    if begins(&head) {
        Ok(true)
    } else {
        Err(Strange::Frame)
    }
}

/// Whether a client's first frame looks like this: the first stream opens, a ping asks, or the client ends what it never used.
fn begins(head: &[u8; HEADER_LEN]) -> bool {
    matches!(
        head,
        [0, 1, 0, 1, 0, 0, 0, 1, ..] | [0, 2, 0, 1, 0, 0, 0, 0, ..] | [0, 3, 0, 0, 0, 0, 0, 0, ..]
    )
}
