//! Sending: a run is one message of one call, several runs are several messages of one call.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use socket2::Socket;

use super::control::{Control, Writer};
use super::errqueue::may_be_of_earlier;
use super::name::Name;
use super::relied::in_one_piece;
use super::udp::Native;
use crate::counters::{Live, add};
use crate::run::{MAX_RUN_BYTES, MAX_RUN_SEGMENTS, Sent, Transmit, Trouble};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

/// Most messages of one call. The gain of a call for several messages over a call for each is small (about
/// a tenth) and has long been had at this number; the room for them is on the stack.
const BATCH: usize = 32;

/// How often a message is offered once more because of errors of earlier ones. Each offer clears one error, and there may be
/// as many as datagrams are under way, but they seldom arrive at that pace.
const MOST_AGAIN: u8 = 3;

/// What becomes one message: a stretch of one run.
#[derive(Copy, Clone)]
struct Piece {
    run: usize,
    start: usize,
    len: usize,
    /// Whether the kernel is to cut it; otherwise it is one datagram.
    segmented: bool,
    /// Whether the source address is left to the kernel although one was asked for.
    no_source: bool,
}

/// How to offer a stretch that the kernel has refused once.
#[derive(Copy, Clone, Default)]
struct Care {
    run: usize,
    start: usize,
    end: usize,
    /// One by one.
    single: bool,
    no_source: bool,
    /// Times that the same message was offered once more, because the error may have been of an earlier one.
    again: u8,
}

impl Care {
    fn covers(&self, run: usize, at: usize) -> bool {
        self.run == run && (self.start..self.end).contains(&at)
    }
}

impl Native {
    pub(crate) fn send(
        &self,
        socket: &Socket,
        transmits: &[Transmit<'_>],
        counters: &Live,
    ) -> io::Result<Sent> {
        let fd = socket.as_raw_fd();
        let mut sent = Sent::default();
        let mut care = Care::default();
        loop {
            let Some(first) = self.piece(transmits, sent.runs, sent.bytes, &care) else {
                sent.runs = transmits.len();
                sent.bytes = 0;
                return Ok(sent);
            };
            let last = first.run + 1 == transmits.len()
                && transmits
                    .get(first.run)
                    .is_some_and(|t| first.start + first.len == t.data.len());
            let probe = transmits.get(first.run).filter(|t| t.probe);
            let result = if let Some(transmit) = probe {
                in_one_piece(socket, is_v4(transmit.dst), || {
                    self.send_one(fd, transmits, first, &mut sent, counters)
                })
            } else if last {
                self.send_one(fd, transmits, first, &mut sent, counters)
            } else {
                self.send_batch(fd, transmits, first, &care, &mut sent, counters)
            };
            add(&counters.send_calls, 1);
            let Err(e) = result else {
                care.again = 0;
                continue;
            };
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => {
                    add(&counters.send_would_block, 1);
                    return if sent.datagrams + sent.lost == 0 {
                        Err(e)
                    } else {
                        Ok(sent)
                    };
                }
                _ if super::super::is_fatal(&e) => return Err(e),
                number => {
                    if let Some(transmit) = transmits.get(first.run)
                        && !self.adapt(&mut care, first, transmit, number.unwrap_or(0), counters)
                    {
                        let trouble = super::super::trouble(&e);
                        let datagrams = first.datagrams(transmit);
                        counters.lost(trouble, datagrams);
                        sent.lost += datagrams;
                        // That a probe is too long is what it was to find out.
                        if !(transmit.probe && trouble == Trouble::TooLong) {
                            sent.trouble = Some(trouble);
                        }
                        first.done(transmit, &mut sent);
                        care.again = 0;
                    }
                }
            }
        }
    }

    /// The next message at or after byte `at` of `run`.
    fn piece(
        &self,
        transmits: &[Transmit<'_>],
        mut run: usize,
        mut at: usize,
        care: &Care,
    ) -> Option<Piece> {
        loop {
            let transmit = transmits.get(run)?;
            let left = transmit.data.len().saturating_sub(at);
            if left == 0 {
                run += 1;
                at = 0;
                continue;
            }
            let stride = transmit.stride();
            let careful = care.covers(run, at);
            let most = (MAX_RUN_BYTES / stride).min(MAX_RUN_SEGMENTS) * stride;
            let segmented = !transmit.probe
                && left > stride
                && most > stride
                && !(careful && care.single)
                && self.gate.allows(transmit.dst.ip(), stride);
            return Some(Piece {
                run,
                start: at,
                len: left.min(if segmented { most } else { stride }),
                segmented,
                no_source: careful && care.no_source,
            });
        }
    }

    /// Decides how to offer a refused message again. Returns false if it is lost.
    fn adapt(
        &self,
        care: &mut Care,
        piece: Piece,
        transmit: &Transmit<'_>,
        number: i32,
        counters: &Live,
    ) -> bool {
        if !care.covers(piece.run, piece.start) {
            *care = Care {
                run: piece.run,
                start: piece.start,
                end: piece.start + piece.len,
                ..Care::default()
            };
        }
        // A socket that is connected, or watches, reports what became of an earlier datagram in place of sending this one.
        let may_be_old = may_be_of_earlier(number)
            && (self.connected.is_some()
                || self.watches_icmp.load(Relaxed)
                || number == libc::ECONNREFUSED);
        if may_be_old && care.again < MOST_AGAIN {
            care.again += 1;
            add(&counters.send_errors, 1);
            return true;
        }
        // Kernels differ in what they call a source address that is not theirs.
        let bad_source = transmit.src_ip.is_some()
            && !piece.no_source
            && matches!(
                number,
                libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENETUNREACH
            );
        if bad_source {
            care.no_source = true;
            return true;
        }
        if piece.segmented {
            let everyone = match number {
                libc::EIO | libc::ENOPROTOOPT | libc::EOPNOTSUPP => true,
                libc::EINVAL | libc::EMSGSIZE => false,
                _ => return false,
            };
            let (dst, stride) = if everyone {
                (None, 0)
            } else {
                (Some(transmit.dst.ip()), transmit.stride())
            };
            self.gate.refused(dst, stride);
            add(&counters.segmentation_refused, 1);
            counters.segmentation_off.store(true, Relaxed);
            care.single = true;
            // It was not the source address, or not alone.
            care.no_source = false;
            return true;
        }
        false
    }

    /// Counts a message that the kernel took.
    fn took(&self, transmits: &[Transmit<'_>], piece: Piece, sent: &mut Sent, counters: &Live) {
        let Some(transmit) = transmits.get(piece.run) else {
            return;
        };
        let datagrams = piece.datagrams(transmit);
        sent.datagrams += datagrams;
        piece.done(transmit, sent);
        add(&counters.sent_datagrams, datagrams);
        add(&counters.sent_bytes, piece.len);
        if piece.segmented {
            add(&counters.sent_segmented_runs, 1);
            if self.gate.restricted() {
                self.gate.accepted(transmit.dst.ip(), transmit.stride());
                counters
                    .segmentation_off
                    .store(self.gate.restricted(), Relaxed);
            }
        }
        if piece.no_source && transmit.src_ip.is_some() {
            add(&counters.source_refused, 1);
        }
    }

    fn send_one(
        &self,
        fd: RawFd,
        transmits: &[Transmit<'_>],
        piece: Piece,
        sent: &mut Sent,
        counters: &Live,
    ) -> io::Result<()> {
        let Some(transmit) = transmits.get(piece.run) else {
            return Ok(());
        };
        let mut slot = Slot::EMPTY;
        let mut header = MaybeUninit::<libc::msghdr>::zeroed();
        self.fill(&mut slot, header.as_mut_ptr(), transmit, piece);
        // SAFETY: `fill` completed the header; it points to `slot` and to the caller's data, both of which
        // outlive the call.
        let rc =
            unsafe { libc::sendmsg(fd, header.as_ptr(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        self.took(transmits, piece, sent, counters);
        Ok(())
    }

    /// Sends `first` and as many messages after it as one call takes.
    #[inline(never)]
    fn send_batch(
        &self,
        fd: RawFd,
        transmits: &[Transmit<'_>],
        first: Piece,
        care: &Care,
        sent: &mut Sent,
        counters: &Live,
    ) -> io::Result<()> {
        // Left uninitialised: zeroing what is not used would cost more than the call saves.
        let mut slots = [const { MaybeUninit::<Slot>::uninit() }; BATCH];
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        let mut pieces = [const { MaybeUninit::<Piece>::uninit() }; BATCH];
        let mut count: libc::c_uint = 0;
        let mut next = Some(first);
        for ((slot, header), place) in slots.iter_mut().zip(&mut headers).zip(&mut pieces) {
            let Some(piece) = next else { break };
            // A probe needs a call of its own.
            let Some(transmit) = transmits.get(piece.run).filter(|t| !t.probe) else {
                break;
            };
            *header = MaybeUninit::zeroed();
            let slot = slot.write(Slot::EMPTY);
            // SAFETY: the zeroed `mmsghdr` is valid, so the place of its `msg_hdr` can be computed and
            // written through.
            let msg_hdr = unsafe { &raw mut (*header.as_mut_ptr()).msg_hdr };
            self.fill(slot, msg_hdr, transmit, piece);
            place.write(piece);
            count += 1;
            next = self.piece(transmits, piece.run, piece.start + piece.len, care);
        }
        // The call itself rather than the C library's function of its name, which in musl is a loop of
        // single calls.
        //
        // SAFETY: the first `count` headers were completed by `fill`; they point to the first `count` slots
        // and to the caller's data, which all outlive the call.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                fd,
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        for place in pieces
            .iter()
            .take(usize::try_from(rc).unwrap_or(0).min(count as usize))
        {
            // SAFETY: the first `count` pieces were written above.
            self.took(transmits, unsafe { place.assume_init() }, sent, counters);
        }
        Ok(())
    }

    /// Makes `header` describe one message, with what it needs in `slot`.
    fn fill(
        &self,
        slot: &mut Slot,
        header: *mut libc::msghdr,
        transmit: &Transmit<'_>,
        piece: Piece,
    ) {
        let data = transmit
            .data
            .get(piece.start..piece.start + piece.len)
            .unwrap_or_default();
        slot.vector = libc::iovec {
            // The kernel only reads it.
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        let mut name_len = 0;
        if self.connected != Some(transmit.dst) {
            (slot.name, name_len) = Name::encode(transmit.dst, self.v6);
        }
        let mut control = Writer::new(&mut slot.control);
        if piece.segmented {
            // `piece` never leaves more than `MAX_RUN_BYTES` to the kernel, so a segment fits.
            control.segment(u16::try_from(transmit.stride()).unwrap_or(u16::MAX));
        }
        if let Some(ecn) = transmit.ecn {
            // A control message replaces the whole byte, so the code point goes into it again.
            if transmit.dst.is_ipv4() {
                control.tos_v4(self.tos_v4 | ecn.bits());
            } else {
                control.class_v6(self.class_v6 | ecn.bits());
            }
        }
        if let Some(ip) = transmit.src_ip
            && !piece.no_source
            && self.local_ip != Some(ip)
            && ip.is_ipv4() == is_v4(transmit.dst)
        {
            control.source(ip);
        }
        let control_len = control.len();
        // SAFETY: the caller gives a valid header to write to. The fields are set one by one because some
        // systems have padding fields between them.
        unsafe {
            (*header).msg_iov = &raw mut slot.vector;
            (*header).msg_iovlen = 1 as _;
            if name_len != 0 {
                (*header).msg_name = (&raw mut slot.name).cast();
                (*header).msg_namelen = name_len;
            }
            if control_len != 0 {
                (*header).msg_control = slot.control.as_mut_ptr();
                (*header).msg_controllen = control_len as _;
            }
        }
    }
}

impl Piece {
    /// Moves `sent` behind this piece.
    fn done(&self, transmit: &Transmit<'_>, sent: &mut Sent) {
        let end = self.start + self.len;
        (sent.runs, sent.bytes) = if end < transmit.data.len() {
            (self.run, end)
        } else {
            (self.run + 1, 0)
        };
    }

    fn datagrams(&self, transmit: &Transmit<'_>) -> usize {
        if self.segmented {
            self.len.div_ceil(transmit.stride())
        } else {
            1
        }
    }
}

/// What a message header points to.
struct Slot {
    name: Name,
    vector: libc::iovec,
    control: Control,
}

impl Slot {
    const EMPTY: Self = Self {
        name: Name::EMPTY,
        vector: libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        },
        control: Control::EMPTY,
    };
}

fn is_v4(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_ipv4()
}
