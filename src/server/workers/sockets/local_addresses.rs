//! The addresses of this machine that media comes to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use weir_channel::message::Zoned;

use crate::server::model::error::StartError;
use crate::server::model::settings::{Family, Settings};

/// The local addresses for media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LocalAddresses {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

impl LocalAddresses {
    /// Finds the addresses that the settings leave to be found, and checks that those they name can be bound.
    pub(crate) fn find(settings: &Settings) -> Result<Self, StartError> {
        let ipv4 = match settings.rtc_ipv4 {
            Family::Off => None,
            Family::Address(ip) => {
                check_bindable("rtc_ipv4", ip.into())?;
                Some(ip)
            }
            Family::Auto => interface_addresses()?.find_map(|ip| match ip {
                IpAddr::V4(ip) if !ip.is_link_local() => can_bind(ip.into()).then_some(ip),
                _ => None,
            }),
        };
        let ipv6 = match settings.rtc_ipv6 {
            Family::Off => None,
            Family::Address(zoned) => {
                check_bindable("rtc_ipv6", zoned.into())?;
                Some(zoned.ip)
            }
            Family::Auto => interface_addresses()?.find_map(|ip| match ip {
                IpAddr::V6(ip) if !ip.is_unicast_link_local() => can_bind(ip.into()).then_some(ip),
                _ => None,
            }),
        };
        if ipv4.is_none() && ipv6.is_none() {
            return Err(StartError::Settings(
                "no network interface has an address for media; name one, e.g. rtc_ipv4 = \"127.0.0.1\"".to_owned(),
            ));
        }
        Ok(Self { ipv4, ipv6 })
    }

    /// All of them, IPv4 first.
    pub(crate) fn ips(self) -> impl Iterator<Item = IpAddr> + Clone {
        let ipv4 = self.ipv4.map(IpAddr::from).into_iter();
        ipv4.chain(self.ipv6.map(IpAddr::from))
    }
}

fn interface_addresses() -> Result<impl Iterator<Item = IpAddr>, StartError> {
    let interfaces = getifaddrs().map_err(StartError::io("listing the network interfaces"))?;
    Ok(interfaces
        .filter(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_UP) && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
        .filter_map(|interface| {
            let address = interface.address?;
            let ipv4 = address.as_sockaddr_in().map(|address| address.ip().into());
            ipv4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
        }))
}

fn check_bindable(setting: &str, ip: Zoned) -> Result<(), StartError> {
    probe(ip).map_err(|error| {
        StartError::Settings(format!(
            "{setting} = {ip} cannot be bound ({error}); name an address of this machine, or auto"
        ))
    })
}

fn can_bind(ip: IpAddr) -> bool {
    probe(ip.into()).is_ok()
}

#[expect(clippy::disallowed_methods, reason = "this belongs to the sockets module")]
fn probe(ip: Zoned) -> io::Result<()> {
    UdpSocket::bind(ip.at(0)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_checked_at_the_start() {
        let settings = |ipv4| Settings {
            rtc_ipv4: ipv4,
            rtc_ipv6: Family::Off,
            ..Settings::default()
        };
        let found = LocalAddresses::find(&settings(Family::Address(Ipv4Addr::LOCALHOST))).unwrap();
        assert_eq!((found.ipv4, found.ipv6), (Some(Ipv4Addr::LOCALHOST), None));
        let error = LocalAddresses::find(&settings(Family::Address(Ipv4Addr::new(192, 0, 2, 1)))).unwrap_err();
        assert!(
            error.to_string().contains("rtc_ipv4 = 192.0.2.1 cannot be bound"),
            "{error}"
        );
        // Whether this machine has a network or not, `auto` never means loopback.
        if let Ok(found) = LocalAddresses::find(&settings(Family::Auto)) {
            assert!(found.ipv4.is_some_and(|ip| !ip.is_loopback()));
        }
    }
}
