//! Addresses of transports, and which of them media can be sent to and from.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use weir_channel::message::{IceProtocol, Remote, Zoned};

use crate::server::model::error::Error;
use crate::server::model::settings::needs_zone;

/// The IP family of a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum IpFamily {
    Ipv4,
    Ipv6,
}

/// A pair of addresses, for remotes and operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tuple {
    /// The address to send to: the announced one if there is one, else the bound one.
    pub local_ip: IpAddr,
    /// The address the socket is bound to.
    pub bound_ip: IpAddr,
    /// The port.
    pub local_port: u16,
    /// The remote address, once known.
    pub remote: Option<SocketAddr>,
    /// The index of the interface to which a link-local `bound_ip` belongs (RFC 4007 §6); absent for other addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<u32>,
}

impl Tuple {
    /// The zone of the address that a socket is bound to.
    pub(crate) fn zone_of(bound: SocketAddr) -> Option<u32> {
        Some(Zoned::from(bound).zone).filter(|zone| *zone != 0)
    }
}

/// Where a transport waits for its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListenAddress {
    pub(crate) protocol: IceProtocol,
    pub(crate) address: SocketAddr,
}

pub(crate) fn family_of(ip: IpAddr) -> IpFamily {
    match ip {
        IpAddr::V4(_) => IpFamily::Ipv4,
        IpAddr::V6(_) => IpFamily::Ipv6,
    }
}

/// Checks a remote against a transport, and adds the RTCP address where it goes without saying.
pub(crate) fn complete_remote(mut remote: Remote, rtcp_mux: bool, local_ip: IpAddr) -> Result<Remote, Error> {
    let invalid = |text: String| Err(Error::InvalidParameters(text));
    match (rtcp_mux, remote.rtcp) {
        (true, Some(_)) => {
            return invalid("the transport muxes RTCP with RTP; leave out the remote's rtcp address".to_owned());
        }
        (true, None) | (false, Some(_)) => {}
        (false, None) => {
            let Some(port) = remote.rtp.port().checked_add(1) else {
                return invalid("there is no port above 65535 for RTCP; give the remote's rtcp address".to_owned());
            };
            let mut rtcp = remote.rtp;
            rtcp.set_port(port);
            remote.rtcp = Some(rtcp);
        }
    }
    for address in [Some(remote.rtp), remote.rtcp].into_iter().flatten() {
        check_sendable(address, local_ip)?;
    }
    Ok(remote)
}

/// Checks that media can be sent from `local_ip` to `address`.
pub(crate) fn check_sendable(address: SocketAddr, local_ip: IpAddr) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::InvalidParameters(text));
    if family_of(address.ip()) != family_of(local_ip) {
        return invalid(format!(
            "{address} cannot be reached from {local_ip}: the IP families differ"
        ));
    }
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return invalid(format!("{address} is not an address that media can be sent to"));
    }
    if Zoned::from(address).lacks_zone() {
        return invalid(needs_zone(address));
    }
    Ok(())
}

/// Checks a local address that was named.
pub(crate) fn check_local(local: Zoned) -> Result<(), Error> {
    if local.ip.is_unspecified() {
        return Err(Error::InvalidParameters(
            "localIp must name one address, not the wildcard".to_owned(),
        ));
    }
    if local.lacks_zone() {
        return Err(Error::InvalidParameters(format!("localIp: {}", needs_zone(local))));
    }
    Ok(())
}
