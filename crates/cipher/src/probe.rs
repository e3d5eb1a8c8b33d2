//! Which method a stranger uses: tries a datagram against several methods with one key (docs/spec/kcptun.md, section 4.2).

use fulmar_wire::kcptun::{MAX_DATAGRAM, Method};

use crate::{MasterKey, NonceSource, PacketCipher, Verdict, kcptun};

/// Ciphers of one key, ready to try. Keep it: building one costs more than many probes.
pub struct Prober {
    ciphers: Vec<(Method, Box<dyn PacketCipher>)>,
    scratch: Vec<u8>,
    verdicts: Vec<Verdict>,
}

impl Prober {
    /// A prober of `candidates`, tried in this order. [`Method::Null`] is tried last whatever its place, as it has no
    /// check of its own.
    #[must_use]
    pub fn new(key: &MasterKey, candidates: &[Method]) -> Self {
        let mut ciphers: Vec<_> = candidates
            .iter()
            .map(|&method| (method, kcptun(method, key, NonceSource::fixed(Vec::new()))))
            .collect();
        ciphers.sort_by_key(|&(method, _)| method == Method::Null);
        Self {
            ciphers,
            scratch: Vec::new(),
            verdicts: Vec::with_capacity(1),
        }
    }

    /// The first method under which `datagram` opens, or `None`; longer than [`MAX_DATAGRAM`] is always `None`.
    ///
    /// The datagram stays as it is. Only a candidate under which the first bytes of the body look like KCP or FEC
    /// gets to decrypt all of it, so noise costs one to three microseconds with all methods. Callers still limit
    /// how often strangers can make them pay.
    #[must_use]
    pub fn probe(&mut self, datagram: &[u8]) -> Option<Method> {
        if datagram.len() > MAX_DATAGRAM {
            return None;
        }
        for i in 0..self.ciphers.len() {
            let method = self.ciphers[i].0;
            let overhead = self.ciphers[i].1.overhead();
            let Some(body_len) = datagram.len().checked_sub(overhead.total()) else {
                continue;
            };
            let hit = if method.is_authenticated() {
                self.open(i, datagram)
            } else {
                // The start of a packet decrypts without its end; only the checksum needs all.
                let start = &datagram[..datagram.len().min(overhead.front + TELLING)];
                self.open(i, start);
                starts_like_kcp(&self.scratch[overhead.front..])
                    && self.open(i, datagram)
                    && (method != Method::Null || looks_like_kcp(&self.scratch[..body_len]))
            };
            if hit {
                return Some(method);
            }
        }
        None
    }

    /// Opens a copy of `bytes` in `scratch` with cipher `i`.
    fn open(&mut self, i: usize, bytes: &[u8]) -> bool {
        self.scratch.clear();
        self.scratch.extend_from_slice(bytes);
        self.ciphers[i]
            .1
            .open(&mut self.scratch, 0, &mut self.verdicts);
        self.verdicts.first() == Some(&Verdict::Ok)
    }
}

/// The first of `candidates` under which `datagram` opens with `key`; see [`Prober`], which costs less on repeated
/// use.
#[must_use]
pub fn probe(key: &MasterKey, candidates: &[Method], datagram: &[u8]) -> Option<Method> {
    Prober::new(key, candidates).probe(datagram)
}

/// Bytes at the start of a body that tell KCP and FEC from noise (section 5.1).
const TELLING: usize = 6;

/// Whether the first bytes of a body are those of a FEC packet or of a KCP segment.
fn starts_like_kcp(body: &[u8]) -> bool {
    matches!(
        body,
        [_, _, _, _, 0xF1..=0xF3, 0, ..] | [_, _, _, _, 0x51..=0x54, _, ..]
    )
}

/// Whether clear bytes are a FEC packet or whole KCP segments (section 5.1): method `null` has nothing else to tell
/// it by.
fn looks_like_kcp(body: &[u8]) -> bool {
    const SEGMENT: usize = 24;
    let fec = |rest: &[u8]| match rest {
        [_, _, _, _, kind @ 0xF1..=0xF3, 0, a, b, tail @ ..] => {
            // The size of a parity packet is parity itself.
            *kind == 0xF2 || usize::from(u16::from_le_bytes([*a, *b])) == tail.len() + 2
        }
        _ => false,
    };
    if fec(body) {
        return true;
    }
    let mut rest = body;
    while let Some((header, tail)) = rest.split_first_chunk::<SEGMENT>() {
        let [.., a, b, c, d] = *header;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if !(0x51..=0x54).contains(&header[4]) || len > tail.len() {
            return false;
        }
        rest = &tail[len..];
    }
    body.len() >= SEGMENT
}
