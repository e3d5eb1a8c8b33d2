//! The table of everything that is attacked: each dialect with each of its ciphers. Nothing else of the kit names a dialect, so
//! another one needs another line here.

use std::ops::Range;

use fulmar_cipher::PacketCipher;
use fulmar_netem::Rng;
use fulmar_wire::kcp::Format;
use fulmar_wire::kcptun::Method;
use fulmar_wire::kcptun2016::Variant;
use fulmar_wire::libev;

use super::frames;
use crate::setup::{Options, Wire, libev_cipher};
use crate::storm::pick;

/// What an outsider can do to the packets of a cipher.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Nothing: packets are authenticated.
    Authenticated,
    /// Packets have a checksum under a cipher, which a change of any bit breaks, and one that is computed with care does not.
    Checked,
    /// Anybody can make packets that open.
    Open,
}

/// Which bytes of a datagram are its nonce.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Nonce {
    Front(usize),
    Back(usize),
    None,
}

impl Nonce {
    /// Where it is in a datagram of this length.
    pub(crate) fn range(self, len: usize) -> Range<usize> {
        match self {
            Self::Front(n) => 0..n.min(len),
            Self::Back(n) => len - n.min(len)..len,
            Self::None => 0..0,
        }
    }
}

/// Which flipped bits of ciphertext flip the same bits of the clear text, and no others.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Flips {
    /// None that could go unnoticed: there is a tag, or a digest that no flip can be made up for.
    None,
    /// CFB with blocks of so many bytes: those of the last one, which may be short. A CRC of what is behind byte 20 is in the bytes
    /// before.
    LastBlock(usize),
    /// A stream of key bytes from byte 8 on: all of them, the CRC too.
    Stream,
}

/// One line of the table.
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) class: Class,
    pub(crate) nonce: Nonce,
    pub(crate) flips: Flips,
    pub(crate) format: Format,
    /// Frames that break its rules.
    pub(crate) frames: fn() -> Vec<Vec<u8>>,
    /// Whether a conversation number belongs to an address, and one server has all of them. Else numbers are drawn for each session, and
    /// a service may have several ports.
    pub(crate) by_address: bool,
    /// Both ends with the sender of the peers that are replaced, and in mode auto. Without parity and compression, so that nothing but
    /// the cipher stands in the way.
    ends: [(Options, Options); 2],
    /// Settings that an operator may choose, drawn for a history.
    vary: fn(&mut Rng, &mut Options, &mut Options),
}

impl Setup {
    /// Both ends, in mode auto or not.
    pub(crate) fn ends(&self, measuring: bool) -> (Options, Options) {
        self.ends[usize::from(measuring)].clone()
    }

    /// Both ends with settings and a sender that are drawn.
    pub(crate) fn varied(&self, rng: &mut Rng) -> (Options, Options) {
        let (mut client, mut server) = self.ends(rng.chance(0.5));
        (self.vary)(rng, &mut client, &mut server);
        (client, server)
    }

    /// The cipher of a member.
    pub(crate) fn cipher(&self, seed: u64) -> Box<dyn PacketCipher> {
        let end = &self.ends[0].0;
        match end.wire {
            Wire::Libev(method) => libev_cipher(method, seed),
            Wire::Kcptun | Wire::First(..) => end.cipher(end.method, seed),
        }
    }
}

fn kcptun(method: Method) -> Setup {
    let ends = [false, true].map(|measuring| {
        let set = |end: Options| Options {
            method,
            fec: None,
            ..end
        };
        let (client, server) = Options::ends(measuring);
        (set(client), set(server))
    });
    Setup {
        name: format!("kcptun {}", method.name()),
        class: match method {
            Method::Aes128Gcm => Class::Authenticated,
            Method::Null | Method::None | Method::Xor => Class::Open,
            _ => Class::Checked,
        },
        nonce: match method {
            Method::Null => Nonce::None,
            Method::Aes128Gcm => Nonce::Front(12),
            _ => Nonce::Front(16),
        },
        flips: match method {
            Method::Aes | Method::Aes128 | Method::Aes192 | Method::Twofish | Method::Sm4 => {
                Flips::LastBlock(16)
            }
            Method::Blowfish | Method::Cast5 | Method::TripleDes | Method::Tea | Method::Xtea => {
                Flips::LastBlock(8)
            }
            Method::Salsa20 | Method::Xor | Method::None => Flips::Stream,
            Method::Aes128Gcm | Method::Null => Flips::None,
        },
        format: Format::LittleEndian,
        frames: frames::smux,
        by_address: false,
        ends,
        vary: |rng, client, server| {
            let shape = pick(rng, &[None, None, Some((10, 3)), Some((2, 1))]);
            let (smux, compression) = (pick(rng, &[1, 2]), rng.chance(0.2));
            let (qpp, auto) = (rng.chance(0.1), rng.chance(0.3));
            for end in [&mut *client, &mut *server] {
                if end.sender.is_none() {
                    end.fec = shape;
                }
                (end.smux, end.compression, end.qpp) = (smux, compression, qpp);
            }
            // It takes no cipher without a key.
            server.auto = auto && !server.method.is_plaintext();
        },
    }
}

/// Of spring 2016, with a key or without.
fn first(i: usize, keyed: bool) -> Setup {
    let ends = [false, true].map(|measuring| {
        let mut all = Options::first(measuring);
        let (mut client, mut server) = all.swap_remove(i);
        if !keyed {
            (client.key, server.key) = ("", "");
        }
        (client, server)
    });
    let name = ends[0].0.dialect();
    Setup {
        name: format!("{name} {}", if keyed { "keyed" } else { "bare" }),
        class: if keyed { Class::Checked } else { Class::Open },
        nonce: if keyed { Nonce::Front(16) } else { Nonce::None },
        flips: Flips::None,
        format: Format::LittleEndian,
        frames: frames::yamux,
        by_address: false,
        ends,
        vary: |_, _, _| {},
    }
}

fn kcptun_libev(method: libev::Method) -> Setup {
    let sealed = method != libev::Method::Plain;
    Setup {
        name: format!("kcptun-libev {}", method.name()),
        class: if sealed {
            Class::Authenticated
        } else {
            Class::Open
        },
        nonce: if sealed {
            Nonce::Back(method.nonce_len())
        } else {
            Nonce::None
        },
        flips: Flips::None,
        format: Format::BigEndian,
        frames: frames::messages,
        by_address: true,
        ends: [false, true].map(|measuring| Options::libev(method, measuring)),
        vary: |_, _, _| {},
    }
}

/// Everything.
pub(crate) fn setups() -> Vec<Setup> {
    let mut all: Vec<_> = Method::ALL.into_iter().map(kcptun).collect();
    for (i, (client, _)) in Options::first(false).into_iter().enumerate() {
        all.push(first(i, true));
        // Without a key the others are sealed with one that everybody knows.
        if let Wire::First(Variant::A | Variant::C, _) = client.wire {
            all.push(first(i, false));
        }
    }
    let methods = libev::Method::SEALED.into_iter();
    all.extend(methods.chain([libev::Method::Plain]).map(kcptun_libev));
    all
}

/// Those of a class.
pub(crate) fn of_class(class: Class) -> Vec<Setup> {
    let mut all = setups();
    all.retain(|s| s.class == class);
    all
}
