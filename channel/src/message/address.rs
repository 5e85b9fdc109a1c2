//! Socket addresses in messages: those of IPv6 keep their zone (RFC 4007 §11), which serde's own form of them leaves out.
//!
//! In JSON an address is text, and the zone of a link-local one may be said as a number or as the name of an interface:
//! `[fe80::1%2]:5004`, `[fe80::1%eth0]:5004`. What is written has the number.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How an address travels between the processes.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Wire {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16, u32),
}

impl From<SocketAddr> for Wire {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(*v4.ip(), v4.port()),
            SocketAddr::V6(v6) => Self::V6(*v6.ip(), v6.port(), v6.scope_id()),
        }
    }
}

impl From<Wire> for SocketAddr {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::V4(ip, port) => (ip, port).into(),
            Wire::V6(ip, port, zone) => SocketAddrV6::new(ip, port, 0, zone).into(),
        }
    }
}

pub(super) fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(address)
    } else {
        Wire::from(*address).serialize(serializer)
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    if deserializer.is_human_readable() {
        let text = String::deserialize(deserializer)?;
        parse_address(&text).map_err(serde::de::Error::custom)
    } else {
        Wire::deserialize(deserializer).map(SocketAddr::from)
    }
}

/// The same for what may be missing.
pub(super) mod optional {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Address(#[serde(with = "super")] SocketAddr);

    pub(in super::super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        address.map(Address).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let address = Option::<Address>::deserialize(deserializer)?;
        Ok(address.map(|address| address.0))
    }
}

/// An IP address, and the zone that a link-local one is in (RFC 4007 §6): the same address may be somebody else on another
/// network. Written `192.0.2.1`, `2001:db8::1`, `fe80::1%2` or `fe80::1%eth0`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Zoned<A = IpAddr> {
    /// The address.
    pub ip: A,
    /// The index of the network interface; 0: none was said.
    pub zone: u32,
}

impl<A: Copy + Into<IpAddr>> Zoned<A> {
    /// A port there.
    pub fn at(self, port: u16) -> SocketAddr {
        match self.ip.into() {
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.zone).into(),
        }
    }

    /// Whether nobody can be reached there, or be bound to it, because a zone is missing.
    pub fn lacks_zone(self) -> bool {
        matches!(self.ip.into(), IpAddr::V6(ip) if ip.is_unicast_link_local() && self.zone == 0)
    }
}

impl From<IpAddr> for Zoned {
    fn from(ip: IpAddr) -> Self {
        Self { ip, zone: 0 }
    }
}

impl From<Ipv6Addr> for Zoned<Ipv6Addr> {
    fn from(ip: Ipv6Addr) -> Self {
        Self { ip, zone: 0 }
    }
}

impl From<Ipv4Addr> for Zoned {
    fn from(ip: Ipv4Addr) -> Self {
        IpAddr::from(ip).into()
    }
}

impl From<[u8; 4]> for Zoned {
    fn from(ip: [u8; 4]) -> Self {
        IpAddr::from(ip).into()
    }
}

impl From<Zoned<Ipv6Addr>> for Zoned {
    fn from(address: Zoned<Ipv6Addr>) -> Self {
        Self {
            ip: address.ip.into(),
            zone: address.zone,
        }
    }
}

impl From<SocketAddr> for Zoned {
    fn from(address: SocketAddr) -> Self {
        let zone = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        Self { ip: address.ip(), zone }
    }
}

impl<A: fmt::Display> fmt::Display for Zoned<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone {
            0 => self.ip.fmt(f),
            zone => write!(f, "{}%{zone}", self.ip),
        }
    }
}

impl<A: FromStr + Copy + Into<IpAddr>> FromStr for Zoned<A> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
        let wrong = || format!("invalid IP address {text:?}");
        let ip: A = ip.parse().map_err(|_| wrong())?;
        let zone = match zone {
            Some(_) if ip.into().is_ipv4() => return Err(wrong()),
            Some(zone) => zone_of(zone)?,
            None => 0,
        };
        Ok(Self { ip, zone })
    }
}

impl<A: fmt::Display> Serialize for Zoned<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, A: FromStr + Copy + Into<IpAddr>> Deserialize<'de> for Zoned<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Reads `192.0.2.1:5004`, `[2001:db8::1]:5004`, `[fe80::1%2]:5004` or `[fe80::1%eth0]:5004`.
///
/// # Errors
/// What is wrong with it, e.g. that there is no such interface.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(address);
    }
    let wrong = || format!("invalid socket address {text:?}: write it like 192.0.2.1:5004 or [2001:db8::1]:5004");
    let (inner, port) = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
        .ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let (ip, zone) = inner.split_once('%').ok_or_else(wrong)?;
    let ip = ip.parse().map_err(|_| wrong())?;
    Ok(SocketAddrV6::new(ip, port, 0, zone_of(zone)?).into())
}

/// The number of a zone (RFC 4007 §11.2) that is said as one, or as the name of its interface.
fn zone_of(zone: &str) -> Result<u32, String> {
    // Longer names than an interface can have are not asked for.
    let number = zone.parse().ok();
    let found = number.or_else(|| nix::net::if_::if_nametoindex(zone.get(..zone.len().min(64))?).ok());
    found.ok_or_else(|| format!("there is no network interface {zone:?} for the zone of an address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4007_11_a_zone_is_a_number_or_an_interface() {
        let address = |text| parse_address(text).unwrap().to_string();
        assert_eq!(address("192.0.2.1:5004"), "192.0.2.1:5004");
        assert_eq!(address("[2001:db8::1]:5004"), "[2001:db8::1]:5004");
        assert_eq!(address("[fe80::1%7]:5004"), "[fe80::1%7]:5004");
        assert_eq!(
            address("[fe80::1%lo]:5004"),
            "[fe80::1%1]:5004",
            "the loopback is the first"
        );
        for wrong in [
            "",
            "fe80::1%2",
            "[fe80::1%]:5004",
            "[fe80::1%2]:",
            "[fe80::1%2]:70000",
            "[1.2.3.4%2]:5",
            "[fe80::1%\0]:1",
        ] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
        let ip = |text: &str| text.parse::<Zoned>();
        for text in ["192.0.2.1", "2001:db8::1", "fe80::1%7"] {
            assert_eq!(ip(text).unwrap().to_string(), text);
        }
        assert_eq!(ip("fe80::1%lo").unwrap().at(9).to_string(), "[fe80::1%1]:9");
        assert!(ip("fe80::1").unwrap().lacks_zone() && !ip("fe80::1%2").unwrap().lacks_zone());
        assert!(!ip("::1").unwrap().lacks_zone());
        for wrong in ["", "%2", "192.0.2.1%2", "fe80::1%", "fe80::1%nowhere0"] {
            assert!(ip(wrong).is_err(), "{wrong}");
        }
        assert!("192.0.2.1".parse::<Zoned<Ipv6Addr>>().is_err());
        let nowhere = parse_address("[fe80::1%nowhere0]:1").unwrap_err();
        assert!(nowhere.contains("no network interface \"nowhere0\""), "{nowhere}");
    }
}
