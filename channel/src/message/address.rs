//! Socket addresses in messages: those of IPv6 keep their zone (RFC 4007 §11), which serde's own form of them leaves out.
//!
//! In JSON an address is text, and the zone of a link-local one may be said as a number or as the name of an interface:
//! `[fe80::1%2]:5004`, `[fe80::1%eth0]:5004`. What is written has the number.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
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

/// Reads `192.0.2.1:5004`, `[2001:db8::1]:5004`, `[fe80::1%2]:5004` or `[fe80::1%eth0]:5004`.
///
/// # Errors
/// What is wrong with it, e.g. that there is no such interface.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(address);
    }
    let wrong = || format!("{text:?} is no address with a port, e.g. 192.0.2.1:5004 or [2001:db8::1]:5004");
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
///
/// # Errors
/// That there is no such interface.
pub fn zone_of(zone: &str) -> Result<u32, String> {
    // Longer names than an interface can have are not asked for.
    let number = zone.parse().ok();
    let found = number.or_else(|| nix::net::if_::if_nametoindex(zone.get(..zone.len().min(64))?).ok());
    found.ok_or_else(|| format!("there is no network interface {zone:?} for the zone of an address"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]
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
        let nowhere = parse_address("[fe80::1%nowhere0]:1").unwrap_err();
        assert!(nowhere.contains("no network interface \"nowhere0\""), "{nowhere}");
    }
}
