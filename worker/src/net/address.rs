//! Socket addresses as the kernel reads and writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;

/// Room for the source address of one datagram: an IPv4 or an IPv6 one, whichever the kernel writes. A quarter of a
/// `sockaddr_storage`, because a batch touches one for each datagram.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// What [`Name::address`] yields for anything but an IP address.
pub(super) const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Name {
    pub(super) const LEN: libc::socklen_t = size_of::<Self>() as libc::socklen_t;

    /// No address.
    pub(super) const fn empty() -> Self {
        // SAFETY: all variants are plain integers, for which zero is a value.
        unsafe { std::mem::zeroed() }
    }

    /// An address, and the bytes of it that count, for a socket that is of IPv6 or not. A socket for both protocols names
    /// IPv4 addresses in their IPv6-mapped form.
    pub(super) fn of(address: SocketAddr, is_v6: bool) -> (Self, libc::socklen_t) {
        let mut name = Self::empty();
        let v6 = match address {
            SocketAddr::V4(v4) if !is_v6 => {
                // SAFETY: plain integers, for which zero is a value.
                let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = v4.ip().to_bits().to_be();
                name.v4 = raw;
                return (name, size_of::<libc::sockaddr_in>() as libc::socklen_t);
            }
            SocketAddr::V4(v4) => std::net::SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
            SocketAddr::V6(v6) => v6,
        };
        // SAFETY: plain integers, for which zero is a value.
        let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        raw.sin6_port = v6.port().to_be();
        raw.sin6_addr.s6_addr = v6.ip().octets();
        raw.sin6_scope_id = v6.scope_id();
        name.v6 = raw;
        (name, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
    }

    /// The address of which the kernel wrote `len` bytes, IPv4-mapped ones as IPv4.
    pub(super) fn address(&self, len: libc::socklen_t) -> SocketAddr {
        // SAFETY: every bit pattern of every variant is valid, and the union was zeroed when it was made.
        let family = libc::c_int::from(unsafe { self.family });
        if family == libc::AF_INET && len as usize >= size_of::<libc::sockaddr_in>() {
            // SAFETY: as above, and the kernel wrote this variant.
            let v4 = unsafe { self.v4 };
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            SocketAddr::from((ip, u16::from_be(v4.sin_port)))
        } else if family == libc::AF_INET6 && len as usize >= size_of::<libc::sockaddr_in6>() {
            // SAFETY: as above, and the kernel wrote this variant.
            let v6 = unsafe { self.v6 };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddr::from((ip, port)),
                None => std::net::SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into(),
            }
        } else {
            UNSPECIFIED
        }
    }
}
