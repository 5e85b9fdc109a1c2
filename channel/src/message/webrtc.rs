//! What a WebRTC transport is made of, and what becomes of it: ICE (RFC 8445, the lite side) and DTLS (RFC 5764).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::counts::{Counts, reasons};
use super::{address, any_case};
use crate::id::{RoomId, TransportId};
use crate::words;

/// The most sockets that one WebRTC transport listens on: UDP and TCP, IPv4 and IPv6.
pub const LISTENERS_MAX: usize = 4;

/// The most sockets connected to its peer that a WebRTC transport leaves to a worker's successor: more than it has tuples.
pub const CONNECTED_MAX: usize = 16;

/// The most fingerprints of one certificate: one for each hash function.
pub const FINGERPRINTS_MAX: usize = 5;

/// The most shared ports of one worker: UDP and TCP, IPv4 and IPv6.
pub const SHARED_PORTS_MAX: usize = LISTENERS_MAX;

/// Ports that all WebRTC transports of a worker without listeners of their own share.
///
/// Descriptors come in the order of `protocols`: for UDP one socket that stays unconnected, for TCP a listening one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenSharedPorts {
    /// What each of them is, 1 to [`SHARED_PORTS_MAX`], no two of them bound to the same address.
    pub protocols: Vec<IceProtocol>,
    /// Whether to ask for a connected socket ([`Notification::SocketWanted`](super::Notification::SocketWanted)) when it
    /// is known who is on a tuple. It is of use where the kernel finds connected sockets of one port by both addresses.
    pub connected: bool,
}

/// A WebRTC transport: RTP and RTCP on one component, encrypted, to whoever proves to be the announced peer.
///
/// With `listeners` it has sockets of its own; without, it is reached through the worker's shared ports
/// ([`OpenSharedPorts`]), by those who name its username fragment. Descriptors come in the order of `listeners`: for UDP an
/// unconnected and a connected socket bound to the same address (as of a plain transport: the connected one is connected to
/// the selected tuple, the unconnected one receives what everybody else sends), for TCP a listening one. Then those that are `connected`. The answer is [`Reply::WebRtcTransportCreated`](super::Reply::WebRtcTransportCreated).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateWebRtcTransport {
    /// The router it belongs to.
    pub room: RoomId,
    /// Its new id.
    pub transport: TransportId,
    /// What each of its sockets is, at most [`LISTENERS_MAX`]; none: it is reached through the worker's shared ports.
    pub listeners: Vec<IceProtocol>,
    /// What the peer's connectivity checks must be made with.
    pub ice: IceCredentials,
    /// What a worker before this one has left connected to the peer, at most [`CONNECTED_MAX`]: TCP connections, and on shared ports
    /// one UDP socket. What is not continued is closed, which [`SocketClosed`](super::Notification::SocketClosed) says.
    pub connected: Vec<IceTuple>,
}

/// UDP or TCP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum IceProtocol {
    /// One packet per datagram.
    Udp,
    /// Packets in a TCP stream that the peer opened (RFC 4571, RFC 6544).
    Tcp,
}

words!(IceProtocol { Udp = "udp", Tcp = "tcp" });

/// The username fragment and the password of one side (RFC 8445 §5.3). Printed for debugging, they keep the password to
/// themselves.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// 4 to 256 characters out of A-Z, a-z, 0-9, `+` and `/`; ours are unique in the worker.
    pub username_fragment: String,
    /// 22 to 256 characters out of the same.
    pub password: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("IceCredentials")
            .field("username_fragment", &self.username_fragment)
            .finish_non_exhaustive()
    }
}

/// A pair of addresses that packets travel between. In JSON it has the members that mediasoup gives it: `localIP`,
/// `localPort`, `remoteIP`, `remotePort` and `protocol`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct IceTuple {
    /// UDP or TCP.
    pub protocol: IceProtocol,
    /// Our end: as the socket is bound, and in what the supervisor shows, the announced address.
    #[serde(with = "address")]
    pub local: SocketAddr,
    /// The peer's end, as we see it.
    #[serde(with = "address")]
    pub remote: SocketAddr,
}

impl fmt::Display for IceTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} <-> {}", self.protocol, self.local, self.remote)
    }
}

/// An [`IceTuple`] in JSON.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "IceTuple"))]
#[serde(rename_all = "camelCase")]
struct ShownTuple {
    /// The address that the remote sends to: the announced one if there is one.
    #[serde(rename = "localIP")]
    local_ip: IpAddr,
    /// Its port.
    local_port: u16,
    /// The remote's address.
    #[serde(rename = "remoteIP")]
    remote_ip: IpAddr,
    /// Its port.
    remote_port: u16,
    /// UDP or TCP.
    protocol: IceProtocol,
}

impl Serialize for IceTuple {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        let shown = ShownTuple {
            local_ip: self.local.ip(),
            local_port: self.local.port(),
            remote_ip: self.remote.ip(),
            remote_port: self.remote.port(),
            protocol: self.protocol,
        };
        shown.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IceTuple {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Self::deserialize(deserializer);
        }
        let shown = ShownTuple::deserialize(deserializer)?;
        Ok(Self {
            protocol: shown.protocol,
            local: (shown.local_ip, shown.local_port).into(),
            remote: (shown.remote_ip, shown.remote_port).into(),
        })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for IceTuple {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        ShownTuple::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ShownTuple::json_schema(generator)
    }
}

/// The state of ICE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum IceState {
    /// No connectivity check has arrived.
    #[default]
    New,
    /// Connectivity checks have arrived, and the peer has not nominated a pair yet.
    Connected,
    /// The peer has nominated a pair.
    Completed,
    /// The peer counts as gone: no check has arrived for a long time (RFC 7675), or its last TCP connection is closed.
    Disconnected,
    /// The transport is closed.
    Closed,
}

/// The state of DTLS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DtlsState {
    /// It has not started.
    #[default]
    New,
    /// The handshake is in progress.
    Connecting,
    /// The peer has proven that it has the announced certificate; media can flow.
    Connected,
    /// The handshake failed, e.g. because the certificate is not the announced one, no SRTP profile is common, or the
    /// peer does not answer.
    Failed,
    /// One of the two sides has closed it.
    Closed,
}

reasons! {
    /// Why WebRTC with a peer does not work or has stopped working: first the reasons of DTLS, then those of ICE, and at
    /// last the death of a worker.
    pub enum WebRtcFailureReason {
        /// The certificate does not have the announced fingerprint.
        Fingerprint,
        /// The peer showed no certificate.
        NoCertificate,
        /// The certificate is too long.
        CertificateTooLong,
        /// The certificate cannot be read, or its type of key is not supported.
        UnsupportedCertificate,
        /// The peer did not prove that it has its certificate's private key.
        Signature,
        /// The two sides have no SRTP profile in common.
        NoSrtpProfile,
        /// The two sides have no cipher suite, group or signature algorithm in common.
        NothingInCommon,
        /// The two sides have no DTLS version in common.
        Version,
        /// The handshake took too long.
        Timeout,
        /// The peer refused the handshake with an alert.
        Alert,
        /// The peer broke the protocol.
        Protocol,
        /// The DTLS engine failed: a bug.
        Internal,
        /// The peer counts as gone: no connectivity check has arrived for a long time (RFC 7675).
        ConsentExpired,
        /// The peer's last TCP connection is closed.
        ConnectionClosed,
        /// A check lacks a required attribute (400).
        CheckBadRequest,
        /// A check has another password or user name (401).
        CheckUnauthenticated,
        /// A check has an unknown attribute that must be understood (420).
        CheckUnknownAttribute,
        /// The peer also takes the controlled role (487).
        CheckRoleConflict,
        /// The handshake had begun when the worker died that it was with: its successor cannot end it.
        WorkerDied,
    }
}

/// A failure, for programs and for people.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebRtcFailure {
    /// The reason.
    pub reason: WebRtcFailureReason,
    /// A sentence without a full stop.
    pub message: String,
}

/// The peer's part in the DTLS handshake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DtlsRole {
    /// The peer takes either role.
    #[default]
    Auto,
    /// The peer starts the handshake (`setup:active`).
    Client,
    /// The peer waits for the handshake (`setup:passive`).
    Server,
}

words!(DtlsRole { Auto = "auto", Client = "client", Server = "server" });

/// A hash algorithm for fingerprints (RFC 8122 §5), weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FingerprintAlgorithm {
    /// SHA-1: announced for clients that know no other; not accepted as the only fingerprint.
    #[serde(rename = "sha-1")]
    Sha1,
    /// SHA-224: announced; not accepted as the only fingerprint.
    #[serde(rename = "sha-224")]
    Sha224,
    /// SHA-256, the usual one.
    #[serde(rename = "sha-256")]
    Sha256,
    /// SHA-384.
    #[serde(rename = "sha-384")]
    Sha384,
    /// SHA-512.
    #[serde(rename = "sha-512")]
    Sha512,
}

words!(FingerprintAlgorithm {
    Sha1 = "sha-1",
    Sha224 = "sha-224",
    Sha256 = "sha-256",
    Sha384 = "sha-384",
    Sha512 = "sha-512",
});

impl FingerprintAlgorithm {
    /// All of them, weakest first, which is the order in which clients know them.
    pub const ALL: [Self; FINGERPRINTS_MAX] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Whether a certificate may be recognised by it alone.
    pub const fn is_strong(self) -> bool {
        matches!(self, Self::Sha256 | Self::Sha384 | Self::Sha512)
    }
}

/// The hash of a certificate.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The hash algorithm; upper and lower case are the same (RFC 8122 §5).
    #[serde(deserialize_with = "any_case")]
    pub algorithm: FingerprintAlgorithm,
    /// Pairs of hexadecimal digits, separated by colons. The server writes upper case and accepts both.
    pub value: String,
}

/// The peer's DTLS parameters, as its signalling announces them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DtlsParameters {
    /// The peer's role.
    #[serde(default)]
    pub role: DtlsRole,
    /// The fingerprints of its certificate, 1 to [`FINGERPRINTS_MAX`]. Those with the strongest algorithm must match.
    pub fingerprints: Vec<Fingerprint>,
}

/// The certificate that a worker shows, with its private key, both in PEM. Printed for debugging, it keeps the key to itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtlsCertificate {
    /// One X.509 certificate.
    pub certificate_pem: String,
    /// Its key (PKCS #8): ECDSA over P-256 or P-384.
    pub private_key_pem: String,
}

impl fmt::Debug for DtlsCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DtlsCertificate")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// ICE, DTLS and SRTP of a WebRTC transport, as far as its worker knows them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WebRtcStats {
    /// The state of ICE.
    pub ice_state: IceState,
    /// The addresses that are used; `null` if there are none.
    pub ice_selected_tuple: Option<IceTuple>,
    /// The state of DTLS.
    pub dtls_state: DtlsState,
    /// The SRTP profile, with its IANA name without the prefix `SRTP_`; `null` until it is negotiated.
    pub srtp_profile: Option<String>,
    /// Valid connectivity checks.
    pub checks: u64,
    /// STUN requests that were refused.
    pub checks_refused: u64,
    /// DTLS datagrams that were processed.
    pub dtls_datagrams: u64,
    /// Packets that could not be encrypted, and were not sent.
    pub protect_failures: u64,
    /// Failures in ICE and DTLS, by reason. Reasons with a count of 0 are left out.
    pub failures: Counts<WebRtcFailureReason>,
}
