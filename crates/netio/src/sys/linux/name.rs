//! Socket addresses in the kernel's form.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::addr::mapped;

/// An address that the kernel reads or has written.
#[derive(Copy, Clone)]
#[repr(C)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    link: libc::sockaddr_ll,
}

impl Name {
    /// Bytes of the longest address.
    pub(super) const LEN: libc::socklen_t = size_of::<Self>() as libc::socklen_t;

    /// Room for an address; decodes to nothing.
    pub(super) const EMPTY: Self = Self {
        v6: libc::sockaddr_in6 {
            sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// `addr` for a socket of IPv6 (`v6`) or IPv4, and its length in bytes.
    ///
    /// An IPv6 address for an IPv4 socket stays one; the kernel refuses it.
    pub(super) fn encode(addr: SocketAddr, v6: bool) -> (Self, libc::socklen_t) {
        match addr {
            SocketAddr::V4(a) if !v6 => {
                // All of the union is initialised, so that no byte of it is ever undefined.
                let mut name = Self::EMPTY;
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: a.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*a.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                };
                (name, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            addr => {
                let a = mapped(addr);
                let name = Self {
                    v6: libc::sockaddr_in6 {
                        sin6_family: libc::AF_INET6 as libc::sa_family_t,
                        sin6_port: a.port().to_be(),
                        sin6_flowinfo: a.flowinfo(),
                        sin6_addr: libc::in6_addr {
                            s6_addr: a.ip().octets(),
                        },
                        sin6_scope_id: a.scope_id(),
                    },
                };
                (name, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    /// An address that the kernel wrote at the beginning of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Option<SocketAddr> {
        let mut name = Self::EMPTY;
        let len = bytes.len().min(size_of::<Self>());
        // SAFETY: both have at least `len` bytes, and any bytes are a valid union.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut name).cast(), len) };
        name.decode(len as libc::socklen_t)
    }

    /// What the kernel wrote, `len` bytes of it.
    pub(super) fn decode(&self, len: libc::socklen_t) -> Option<SocketAddr> {
        // SAFETY: every constructor initialises all bytes of the union, and any bytes are a valid family.
        let family = libc::c_int::from(unsafe { self.family });
        match family {
            libc::AF_INET if len as usize >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: as above; any bytes are a valid `sockaddr_in`.
                let a = unsafe { self.v4 };
                Some(SocketAddr::V4(SocketAddrV4::new(
                    Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)),
                    u16::from_be(a.sin_port),
                )))
            }
            libc::AF_INET6 if len as usize >= size_of::<libc::sockaddr_in6>() => {
                // SAFETY: as above; any bytes are a valid `sockaddr_in6`.
                let a = unsafe { self.v6 };
                Some(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(a.sin6_addr.s6_addr),
                    u16::from_be(a.sin6_port),
                    a.sin6_flowinfo,
                    a.sin6_scope_id,
                )))
            }
            _ => None,
        }
    }
}

impl Name {
    /// A packet socket's: packets of that protocol (in the host's byte order) on that device, 0 for all. With its length
    /// in bytes.
    pub(super) fn link(protocol: u16, device: u32) -> (Self, libc::socklen_t) {
        // All of the union is initialised, so that no byte of it is ever undefined.
        let mut name = Self::EMPTY;
        name.link = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: i32::try_from(device).unwrap_or(0),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        (name, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }

    /// The number of the device that a packet socket's packet came by, `len` bytes of name; 0: not known.
    pub(super) fn device(&self, len: libc::socklen_t) -> u32 {
        // SAFETY: every constructor initialises all bytes of the union, and any bytes are a valid family.
        let family = libc::c_int::from(unsafe { self.family });
        // The kernel leaves out those bytes of a hardware address that the device does not have.
        if family != libc::AF_PACKET
            || (len as usize) < std::mem::offset_of!(libc::sockaddr_ll, sll_addr)
        {
            return 0;
        }
        // SAFETY: as above; any bytes are a valid `sockaddr_ll`.
        let link = unsafe { self.link };
        u32::try_from(link.sll_ifindex).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::unmapped;

    #[test]
    fn devices_round_trip() {
        let (name, len) = Name::link(0x86dd, 7);
        assert_eq!((name.device(len), name.device(4)), (7, 0));
        assert_eq!(name.decode(len), None);
        assert_eq!(Name::EMPTY.device(Name::LEN), 0);
    }

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.1:4000", "[2001:db8::7]:65535", "[fe80::1%3]:7"] {
            let addr: SocketAddr = text.parse().expect("address");
            let (name, len) = Name::encode(addr, addr.is_ipv6());
            assert_eq!(name.decode(len), Some(addr), "{text}");
            assert_eq!(name.decode(len - 1), None, "{text}");
            // SAFETY: every constructor initialises all bytes of the union, and it has at least `len` of them.
            let bytes =
                unsafe { std::slice::from_raw_parts((&raw const name).cast(), len as usize) };
            assert_eq!(Name::read(bytes), Some(addr), "{text}");
            assert_eq!(Name::read(&bytes[..1]), None, "{text}");
        }
        let v4: SocketAddr = "192.0.2.1:4000".parse().expect("address");
        let (name, len) = Name::encode(v4, true);
        assert_eq!(name.decode(len).map(unmapped), Some(v4));
        assert_eq!(Name::EMPTY.decode(Name::LEN), None);
    }
}
