//! What a WebRTC transport is made of, and what becomes of it: ICE (RFC 8445, the lite side) and DTLS (RFC 5764).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::counts::{Counts, reasons};
use super::{address, any_case};
use crate::id::{RoomId, TransportId};

/// The most sockets that one WebRTC transport listens on: UDP and TCP, IPv4 and IPv6.
pub const LISTENERS_MAX: usize = 4;

/// The most fingerprints of one certificate: one for each hash function.
pub const FINGERPRINTS_MAX: usize = 5;

/// The most sockets of a worker's shared port: UDP and TCP, IPv4 and IPv6.
pub const SHARED_SOCKETS_MAX: usize = LISTENERS_MAX;

/// The port that all WebRTC transports of a worker share which have no listeners of their own.
///
/// Descriptors come in the order of `sockets`: for UDP one socket that stays unconnected, for TCP a listening one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenSharedPort {
    /// What each of its sockets is, 1 to [`SHARED_SOCKETS_MAX`], no two of them bound to the same address.
    pub sockets: Vec<IceProtocol>,
    /// Whether to ask for a connected socket ([`Notification::SocketWanted`](super::Notification::SocketWanted)) when it
    /// is known who is on a tuple. It is of use where the kernel finds connected sockets of one port by both addresses.
    pub connected: bool,
}

/// A WebRTC transport: RTP and RTCP on one component, encrypted, to whoever proves to be the announced peer.
///
/// With `listeners` it has sockets of its own; without, it is reached through the worker's shared port ([`OpenSharedPort`]), by
/// those who name its username fragment. Descriptors come in the order of `listeners`: for UDP two sockets bound to the same
/// address, the unconnected one and the connected one (as of a plain transport: the connected one is connected to the selected
/// tuple, the other one sees everybody else), for TCP a listening one. The answer is [`Reply::WebRtcTransportCreated`](super::Reply::WebRtcTransportCreated).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateWebRtcTransport {
    /// The router it belongs to.
    pub room: RoomId,
    /// Its new id.
    pub transport: TransportId,
    /// What each of its sockets is, at most [`LISTENERS_MAX`]; none: it is reached through the worker's shared port.
    pub listeners: Vec<IceProtocol>,
    /// What the peer's connectivity checks must be made with.
    pub ice: IceCredentials,
}

/// How packets travel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum IceProtocol {
    /// One packet per datagram.
    Udp,
    /// Packets framed in a stream that the peer opened (RFC 4571, RFC 6544).
    Tcp,
}

impl fmt::Display for IceProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// The username fragment and the password of our side (RFC 8445 §5.3). Printed for debugging, they keep the password to
/// themselves.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceCredentials {
    /// 4 to 256 characters out of A-Z, a-z, 0-9, `+` and `/`; unique in the worker.
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
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct IceTuple {
    /// How packets travel.
    pub protocol: IceProtocol,
    /// Our end: in a worker's messages as the socket is bound, for everybody else the announced address.
    #[serde(with = "address")]
    pub local: SocketAddr,
    /// The peer's end, as we see it.
    #[serde(with = "address")]
    pub remote: SocketAddr,
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
    /// How packets travel.
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

/// How far ICE got (differences §9.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum IceState {
    /// No check has come.
    #[default]
    New,
    /// Checks have come, and the peer has not chosen yet.
    Connected,
    /// The peer has chosen a tuple.
    Completed,
    /// No check has come for so long that the peer must be taken for gone (RFC 7675), or its last TCP connection closed.
    Disconnected,
    /// The transport is closed.
    Closed,
}

/// How far DTLS got (differences §9.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DtlsState {
    /// It has not started.
    #[default]
    New,
    /// The handshake goes on.
    Connecting,
    /// The peer is who the signalling says, and media may flow.
    Connected,
    /// It never will: another certificate than the announced one, no protection in common, no answer.
    Failed,
    /// Either side has ended it.
    Closed,
}

reasons! {
    /// Why WebRTC does not work, or no longer works, with a peer: DTLS first, then ICE.
    pub enum WebRtcFailureReason {
        /// The certificate has not the announced fingerprint.
        Fingerprint,
        /// The peer showed no certificate.
        NoCertificate,
        /// The certificate is longer than is taken.
        CertificateTooLong,
        /// The certificate cannot be read, or its key is of a kind that is not known.
        UnsupportedCertificate,
        /// The peer has not proven that it has its certificate's key.
        Signature,
        /// No SRTP profile in common.
        NoSrtpProfile,
        /// No cipher suite, group or signature in common.
        NothingInCommon,
        /// No version in common.
        Version,
        /// The handshake took too long.
        Timeout,
        /// The peer refused, and said so.
        Alert,
        /// The peer broke the protocol.
        Protocol,
        /// The engine broke.
        Internal,
        /// No connectivity check has come for so long that the peer must be taken for gone (RFC 7675).
        ConsentExpired,
        /// The peer's last TCP connection is gone.
        ConnectionClosed,
        /// A check lacks what it must have (400).
        CheckBadRequest,
        /// A check was made with another password or user name (401).
        CheckUnauthenticated,
        /// A check has attributes that must be understood and are not (420).
        CheckUnknownAttribute,
        /// The peer believes to be controlled as well (487).
        CheckRoleConflict,
    }
}

/// A failure, for programs and for people.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebRtcFailure {
    /// Which.
    pub reason: WebRtcFailureReason,
    /// In a sentence, without a full stop.
    pub message: String,
}

/// Who begins the handshake, as announced by the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DtlsRole {
    /// Either.
    #[default]
    Auto,
    /// The side that sends the first message (`setup:active`).
    Client,
    /// The side that waits for it (`setup:passive`).
    Server,
}

/// A hash function that a fingerprint is made with (RFC 8122 §5), weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FingerprintAlgorithm {
    /// Announced for clients that know no other; not accepted alone.
    #[serde(rename = "sha-1")]
    Sha1,
    /// Announced; not accepted alone.
    #[serde(rename = "sha-224")]
    Sha224,
    /// What everybody uses.
    #[serde(rename = "sha-256")]
    Sha256,
    /// 384 bits.
    #[serde(rename = "sha-384")]
    Sha384,
    /// 512 bits.
    #[serde(rename = "sha-512")]
    Sha512,
}

/// The hash of a certificate.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// What it was made with; in JSON in any case (RFC 8122 §5).
    #[serde(deserialize_with = "any_case")]
    pub algorithm: FingerprintAlgorithm,
    /// Pairs of hexadecimal digits with colons between them; upper case when we say it, any case when we hear it.
    pub value: String,
}

/// What the signalling says of the peer's DTLS.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DtlsParameters {
    /// The peer's role.
    #[serde(default)]
    pub role: DtlsRole,
    /// Of its certificate, 1 to [`FINGERPRINTS_MAX`]; the strongest must match.
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
    /// How far ICE got.
    pub ice_state: IceState,
    /// Where packets go; `null`: nowhere.
    pub ice_selected_tuple: Option<IceTuple>,
    /// How far DTLS got.
    pub dtls_state: DtlsState,
    /// How media is protected, as the IANA names it without its `SRTP_`; `null` until it is agreed on.
    pub srtp_profile: Option<String>,
    /// Connectivity checks that counted.
    pub checks: u64,
    /// STUN requests that were refused.
    pub checks_refused: u64,
    /// DTLS datagrams that were looked at.
    pub dtls_datagrams: u64,
    /// Packets that were to be sent and could not be encrypted.
    pub protect_failures: u64,
    /// What failed in ICE and DTLS, by reason; reasons that never happened are left out.
    pub failures: Counts<WebRtcFailureReason>,
}
