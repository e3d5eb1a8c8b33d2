//! Which method a stranger uses: tries a datagram against several methods with one key (spec/kcptun.md, section 3.2).

use fulmar_wire::kcptun::{MAX_DATAGRAM, Method};

use crate::{MasterKey, NonceSource, PacketCipher, Verdict, kcptun};

/// Ciphers of one key, ready to try. Keep it: building one costs more than many probes.
pub struct Prober {
    ciphers: Vec<Box<dyn PacketCipher>>,
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
            .map(|&method| kcptun(method, key, NonceSource::fixed(Vec::new())))
            .collect();
        ciphers.sort_by_key(|cipher| cipher.method() == Method::Null);
        Self {
            ciphers,
            scratch: Vec::new(),
            verdicts: Vec::with_capacity(1),
        }
    }

    /// The first method under which `datagram` opens, or `None`; longer than [`MAX_DATAGRAM`] is always `None`.
    ///
    /// The datagram stays as it is. The cost is that of decrypting it once per candidate, some tens of microseconds for
    /// all of them: callers limit how often strangers can make them pay it.
    #[must_use]
    pub fn probe(&mut self, datagram: &[u8]) -> Option<Method> {
        if datagram.len() > MAX_DATAGRAM {
            return None;
        }
        for cipher in &mut self.ciphers {
            let overhead = cipher.overhead();
            if datagram.len() < overhead.total() {
                continue;
            }
            self.scratch.clear();
            self.scratch.extend_from_slice(datagram);
            cipher.open(&mut self.scratch, 0, &mut self.verdicts);
            if self.verdicts.first() != Some(&Verdict::Ok) {
                continue;
            }
            let body = &self.scratch[overhead.front..datagram.len() - overhead.back];
            if cipher.method() != Method::Null || looks_like_kcp(body) {
                return Some(cipher.method());
            }
        }
        None
    }
}

/// The first of `candidates` under which `datagram` opens with `key`; see [`Prober`], which costs less on repeated use.
#[must_use]
pub fn probe(key: &MasterKey, candidates: &[Method], datagram: &[u8]) -> Option<Method> {
    Prober::new(key, candidates).probe(datagram)
}

/// Whether clear bytes are a FEC packet or whole KCP segments (section 4.1): method `null` has nothing else to tell it by.
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
        let len = u32::from_le_bytes([header[20], header[21], header[22], header[23]]) as usize;
        if !(0x51..=0x54).contains(&header[4]) || len > tail.len() {
            return false;
        }
        rest = &tail[len..];
    }
    body.len() >= SEGMENT
}
