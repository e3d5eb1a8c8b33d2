//! Method `null`: the body is the datagram (docs/spec/kcptun.md, section 4.2). So it is without a password in 2016.

use fulmar_wire::kcptun::Method;

use crate::run::datagrams;
use crate::{Overhead, PacketCipher, Scheme, Verdict};

/// No header, no encryption, no check.
pub(crate) struct Null(pub(crate) Scheme);

impl PacketCipher for Null {
    fn overhead(&self) -> Overhead {
        Overhead::of(Method::Null)
    }

    fn scheme(&self) -> Scheme {
        self.0
    }

    fn seal(&mut self, _: &mut [u8], _: usize) {}

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        verdicts.extend(datagrams(run, segment).map(|_| Verdict::Ok));
    }
}
