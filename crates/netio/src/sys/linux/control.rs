//! Control messages: what travels beside the bytes of a datagram.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::errqueue::Report;
use super::name::Name;

/// Room for the control messages of one call, aligned for their headers.
///
/// The most that is sent is a segment size, two traffic classes and a source address (88 bytes on 64-bit
/// systems); the most that is received is a segment size, two traffic classes, a destination address of
/// each family and a drop counter (168 bytes); from the error queue, an error with an address, traffic classes and
/// destination addresses (176 bytes).
#[repr(C)]
pub(super) union Control {
    bytes: [u8; Self::LEN],
    _align: [libc::cmsghdr; 0],
}

impl Control {
    pub(super) const LEN: usize = 192;
    pub(super) const EMPTY: Self = Self {
        bytes: [0; Self::LEN],
    };

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        (&raw mut self.bytes).cast()
    }
}

/// Writes control messages.
pub(super) struct Writer<'a> {
    control: &'a mut Control,
    len: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(control: &'a mut Control) -> Self {
        Self { control, len: 0 }
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends one message.
    fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        let size = size_of::<T>() as libc::c_uint;
        // SAFETY: both only compute with a size.
        let (space, cmsg_len) = unsafe {
            (
                libc::CMSG_SPACE(size) as usize,
                libc::CMSG_LEN(size) as usize,
            )
        };
        debug_assert!(self.len + space <= Control::LEN, "see the sum at `Control`");
        if self.len + space > Control::LEN {
            return;
        }
        // SAFETY: `len` is a sum of `CMSG_SPACE`s, so the header is aligned, and the message ends at or
        // before the end of the buffer, as just checked. The value may be unaligned in it.
        unsafe {
            let header = self
                .control
                .as_mut_ptr()
                .byte_add(self.len)
                .cast::<libc::cmsghdr>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = cmsg_len as _;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        self.len += space;
    }

    /// The bytes of each datagram of a run.
    pub(super) fn segment(&mut self, segment: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }

    /// The whole TOS byte of IPv4.
    pub(super) fn tos_v4(&mut self, tos: u8) {
        self.push(libc::IPPROTO_IP, libc::IP_TOS, libc::c_int::from(tos));
    }

    /// The whole traffic class of IPv6.
    pub(super) fn class_v6(&mut self, class: u8) {
        self.push(
            libc::IPPROTO_IPV6,
            libc::IPV6_TCLASS,
            libc::c_int::from(class),
        );
    }

    /// The address to send from.
    pub(super) fn source(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.push(
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from(ip).to_be(),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                },
            ),
            IpAddr::V6(ip) => self.push(
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: 0,
                },
            ),
        }
    }
}

/// What the control messages of an arrived datagram say.
#[derive(Copy, Clone, Default)]
pub(super) struct Received {
    /// Bytes of each datagram of the run, if it is one.
    pub(super) segment: usize,
    pub(super) dst_ip: Option<IpAddr>,
    /// TOS byte or traffic class.
    pub(super) class: Option<u8>,
    /// How many datagrams the socket has dropped so far, modulo 2^32.
    pub(super) drops: Option<u32>,
    /// The packet's checksum has not been filled in yet, because a device would do that.
    pub(super) unsummed: bool,
    /// What the error queue says.
    pub(super) error: Option<Report>,
}

/// A packet socket tells of its packets.
pub(super) const PACKET_AUXDATA: libc::c_int = 8;
/// The bit of the first word of that.
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;

/// Reads the control messages of a message that the kernel has filled in.
///
/// # Safety
///
/// `header` must be as the kernel left it, and the control buffer that it points to still be there.
pub(super) unsafe fn read(header: &libc::msghdr) -> Received {
    let mut out = Received::default();
    // SAFETY: the caller vouches for the header; the iteration stays within its control buffer.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: what `CMSG_FIRSTHDR` and `CMSG_NXTHDR` return is null or a complete message in the buffer.
    while let Some(message) = unsafe { next.as_ref() } {
        // SAFETY: only computes the place of the data.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: only computes with a size.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        // The type of the length differs between C libraries.
        #[allow(clippy::unnecessary_cast)]
        let len = (message.cmsg_len as usize).saturating_sub(head);
        /// A value at the beginning of the data, if the data is long enough.
        macro_rules! value {
            ($type:ty) => {
                if len >= size_of::<$type>() {
                    // SAFETY: the data has at least as many bytes as the type, as just checked; all the
                    // types are plain integers, for which any bytes are valid; unaligned reads are meant.
                    Some(unsafe { data.cast::<$type>().read_unaligned() })
                } else {
                    None
                }
            };
        }
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                out.segment = value!(libc::c_int)
                    .and_then(|s| usize::try_from(s).ok())
                    .unwrap_or(0);
            }
            // The kernel writes one byte here, and an int for the option of the same name when sending.
            (libc::IPPROTO_IP, libc::IP_TOS) => out.class = value!(u8),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                out.class = value!(libc::c_int).and_then(|c| u8::try_from(c).ok());
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                out.dst_ip = value!(libc::in_pktinfo)
                    .map(|info| IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                out.dst_ip = value!(libc::in6_pktinfo)
                    .map(|info| Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
            }
            (libc::SOL_PACKET, PACKET_AUXDATA) => {
                out.unsummed = value!(u32).is_some_and(|s| s & TP_STATUS_CSUMNOTREADY != 0);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => out.drops = value!(u32),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                out.error = value!(libc::sock_extended_err).map(|error| {
                    let at = size_of::<libc::sock_extended_err>();
                    // SAFETY: the data has `len` bytes, and at least `at` of them, as just checked.
                    let rest = unsafe { std::slice::from_raw_parts(data.add(at), len - at) };
                    Report {
                        origin: error.ee_origin,
                        r#type: error.ee_type,
                        code: error.ee_code,
                        info: error.ee_info,
                        reporter: Name::read(rest),
                    }
                });
            }
            _ => {}
        }
        // SAFETY: as for `CMSG_FIRSTHDR`.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`read`] makes of `len` bytes of `control`.
    fn reread(control: &mut Control, len: usize) -> Received {
        // SAFETY: all-zero bytes are a valid `msghdr`.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = control.as_mut_ptr();
        header.msg_controllen = len as _;
        // SAFETY: the header describes a buffer that is still there.
        unsafe { read(&header) }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut control = Control::EMPTY;
        let mut writer = Writer::new(&mut control);
        writer.class_v6(0xb9);
        writer.source("2001:db8::9".parse().expect("address"));
        let len = writer.len();
        let got = reread(&mut control, len);
        assert_eq!(got.class, Some(0xb9));
        assert_eq!(got.dst_ip, Some("2001:db8::9".parse().expect("address")));
        assert_eq!(reread(&mut control, 0).class, None);
    }

    #[test]
    fn everything_that_is_sent_fits() {
        let mut control = Control::EMPTY;
        let mut writer = Writer::new(&mut control);
        writer.segment(1350);
        writer.tos_v4(1);
        writer.class_v6(1);
        writer.source("::1".parse().expect("address"));
        assert!(writer.len() <= Control::LEN);
    }
}
