//! ICE as a client is told it (differences §9.1): what its connectivity checks must be made with, and where it may send
//! them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_channel::message::{IceCredentials, IceProtocol};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::{Credentials, Listener, Preferences, host_candidates};

use crate::server::model::address::{IpFamily, ListenAddress, family_of};
use crate::server::model::settings::Settings;

/// The credentials for a client's connectivity checks (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IceParameters {
    /// 16 lowercase letters and digits.
    pub username_fragment: String,
    /// 32 lowercase letters and digits.
    pub password: String,
    /// Always true: the server answers checks and makes none (RFC 8445 §2.5).
    pub ice_lite: bool,
}

impl IceParameters {
    pub(crate) fn of(credentials: &IceCredentials) -> Self {
        Self {
            username_fragment: credentials.username_fragment.clone(),
            password: credentials.password.clone(),
            ice_lite: true,
        }
    }
}

impl std::fmt::Debug for IceParameters {
    /// Keeps the password to itself.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceParameters")
            .field("username_fragment", &self.username_fragment)
            .field("ice_lite", &self.ice_lite)
            .finish_non_exhaustive()
    }
}

/// An address to which a client may send: a host candidate of component 1 (RFC 8445 §5.1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidate {
    /// A number; the same for candidates of one address and protocol (RFC 8445 §5.1.1.3).
    pub foundation: String,
    /// The candidate's priority: higher is tried first. Each candidate of a transport has a different one.
    pub priority: u32,
    /// The address family.
    pub family: IpFamily,
    /// The announced address, if there is one for the family, else the one the socket is bound to.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// UDP or TCP.
    pub protocol: IceProtocol,
    /// Always `host`.
    #[serde(rename = "type")]
    pub kind: IceCandidateType,
    /// For TCP always `passive`: the client connects (RFC 6544 §4.5). Absent for UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_type: Option<IceTcpType>,
}

/// The type of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IceCandidateType {
    /// An address of the server itself.
    Host,
}

/// The side that opens a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IceTcpType {
    /// The client opens it.
    Passive,
}

/// Credentials that nobody can guess.
pub(crate) fn new_credentials() -> IceCredentials {
    let credentials = Credentials::generate(&mut SystemEntropy::new());
    IceCredentials {
        username_fragment: credentials.username_fragment().to_owned(),
        password: credentials.password().to_owned(),
    }
}

/// The candidates for these sockets, in their order.
pub(super) fn candidates(
    settings: &Settings,
    addresses: impl Iterator<Item = ListenAddress>,
    preferences: Preferences,
) -> Vec<IceCandidate> {
    let listeners: Vec<Listener> = addresses
        .map(|ListenAddress { protocol, address }| Listener {
            protocol,
            ip: address.ip(),
            port: address.port(),
            announced_ip: Some(settings.announced(address.ip())),
        })
        .collect();
    host_candidates(&listeners, preferences)
        .into_iter()
        .map(|candidate| {
            let is_tcp = candidate.protocol == IceProtocol::Tcp;
            IceCandidate {
                foundation: candidate.foundation.to_string(),
                priority: candidate.priority,
                family: family_of(candidate.ip),
                ip: candidate.ip,
                port: candidate.port,
                protocol: candidate.protocol,
                kind: IceCandidateType::Host,
                tcp_type: is_tcp.then_some(IceTcpType::Passive),
            }
        })
        .collect()
}
