//! When a run may be left to the kernel to cut.
//!
//! The kernel refuses for two kinds of reason. A route refuses a segment that is longer than its MTU, which
//! would have to leave as IP fragments; a device refuses any run when it cannot compute checksums. Both end
//! when the route changes, so a refusal is remembered for a number of datagrams and then tried again, and it
//! concerns the destination where the reason does.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Datagrams that leave by themselves after the first refusal; doubled by each further one.
const FIRST_WAIT: u32 = 256;
/// Most of them: at full speed, a few seconds.
const LONGEST_WAIT: u32 = 65_536;
/// Refusals remembered. A server with more peers on narrow paths asks the kernel in vain now and then, which
/// costs one failed call.
const MAX_REFUSALS: usize = 16;

/// What the kernel has refused lately.
#[derive(Debug)]
pub(super) struct Gate {
    enabled: bool,
    /// Whether `refusals` has any: keeps the lock out of the ordinary case.
    any: AtomicBool,
    refusals: Mutex<Vec<Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    /// Whose; `None`: everyone's.
    dst: Option<IpAddr>,
    /// Segments of that many bytes and more.
    stride: usize,
    /// Datagrams left until the next try.
    wait: u32,
    next_wait: u32,
}

impl Refusal {
    fn concerns(&self, dst: IpAddr, stride: usize) -> bool {
        self.dst.is_none_or(|d| d == dst) && stride >= self.stride
    }
}

impl Gate {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            any: AtomicBool::new(false),
            refusals: Mutex::new(Vec::new()),
        }
    }

    /// Whether the kernel may cut runs at all.
    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Whether some runs leave datagram by datagram at present.
    pub(super) fn restricted(&self) -> bool {
        !self.enabled || self.any.load(Relaxed)
    }

    /// Whether to leave the next datagrams of this kind to the kernel as a run. To be asked before each datagram
    /// that is not: it counts.
    pub(super) fn allows(&self, dst: IpAddr, stride: usize) -> bool {
        if !self.restricted() {
            return true;
        }
        if !self.enabled {
            return false;
        }
        let mut allowed = true;
        for refusal in self.lock().iter_mut().filter(|r| r.concerns(dst, stride)) {
            if refusal.wait > 0 {
                refusal.wait -= 1;
                allowed = false;
            }
        }
        allowed
    }

    /// The kernel took a run.
    pub(super) fn accepted(&self, dst: IpAddr, stride: usize) {
        if self.any.load(Relaxed) {
            let mut refusals = self.lock();
            refusals.retain(|r| !r.concerns(dst, stride));
            self.any.store(!refusals.is_empty(), Relaxed);
        }
    }

    /// The kernel refused a run to `dst`, or of any destination.
    pub(super) fn refused(&self, dst: Option<IpAddr>, stride: usize) {
        let mut refusals = self.lock();
        if let Some(known) = refusals.iter_mut().find(|r| r.dst == dst) {
            known.stride = known.stride.min(stride);
            known.wait = known.next_wait;
            known.next_wait = (known.next_wait * 2).min(LONGEST_WAIT);
        } else {
            if refusals.len() >= MAX_REFUSALS {
                refusals.remove(0);
            }
            refusals.push(Refusal {
                dst,
                stride,
                wait: FIRST_WAIT,
                next_wait: FIRST_WAIT * 2,
            });
        }
        self.any.store(true, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Refusal>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn asked_until_allowed(gate: &Gate, dst: IpAddr, stride: usize) -> u32 {
        (0..).find(|_| gate.allows(dst, stride)).expect("some day")
    }

    #[test]
    fn a_refusal_concerns_its_destination_and_size_and_ends() {
        let gate = Gate::new(true);
        assert!(!gate.restricted());
        gate.refused(Some(A), 1400);
        assert!(gate.restricted());
        assert!(gate.allows(B, 1400));
        assert!(gate.allows(A, 1399));
        assert_eq!(asked_until_allowed(&gate, A, 1400), FIRST_WAIT);
        // Refused again: it takes twice as long, and ever longer, up to the limit.
        gate.refused(Some(A), 1450);
        assert_eq!(asked_until_allowed(&gate, A, 1400), FIRST_WAIT * 2);
        for _ in 0..20 {
            gate.refused(Some(A), 1450);
        }
        assert_eq!(asked_until_allowed(&gate, A, 1450), LONGEST_WAIT);
        gate.accepted(A, 1450);
        assert!(!gate.restricted());
    }

    #[test]
    fn a_device_refuses_everyone() {
        let gate = Gate::new(true);
        gate.refused(None, 0);
        assert!(!gate.allows(A, 100));
        assert!(!gate.allows(B, 1400));
    }

    #[test]
    fn memory_is_bounded() {
        let gate = Gate::new(true);
        for i in 0..1000_u32 {
            gate.refused(Some(IpAddr::V4(i.into())), 1400);
        }
        assert_eq!(gate.lock().len(), MAX_REFUSALS);
    }

    #[test]
    fn switched_off_stays_off() {
        let gate = Gate::new(false);
        assert!(gate.restricted());
        for _ in 0..FIRST_WAIT * 4 {
            assert!(!gate.allows(A, 100));
        }
    }
}
