//! What a WebRTC transport is made of, and what becomes of it: ICE (RFC 8445, the lite side) and DTLS (RFC 5764).

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{address, any_case};
use crate::id::{RoomId, TransportId};

/// The most sockets that one WebRTC transport listens on: UDP and TCP, IPv4 and IPv6.
pub const LISTENERS_MAX: usize = 4;

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
/// the selected tuple, the unconnected one receives what everybody else sends), for TCP a listening one. The answer is [`Reply::WebRtcTransportCreated`](super::Reply::WebRtcTransportCreated).
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

/// A pair of addresses that packets travel between.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct IceTuple {
    /// How packets travel.
    pub protocol: IceProtocol,
    /// Our end, as the socket is bound.
    #[serde(with = "address")]
    pub local: SocketAddr,
    /// The peer's end, as we see it.
    #[serde(with = "address")]
    pub remote: SocketAddr,
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

/// Why WebRTC does not work, or no longer works, with a peer: DTLS first, then ICE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
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

impl WebRtcFailureReason {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 18] = [
        Self::Fingerprint,
        Self::NoCertificate,
        Self::CertificateTooLong,
        Self::UnsupportedCertificate,
        Self::Signature,
        Self::NoSrtpProfile,
        Self::NothingInCommon,
        Self::Version,
        Self::Timeout,
        Self::Alert,
        Self::Protocol,
        Self::Internal,
        Self::ConsentExpired,
        Self::ConnectionClosed,
        Self::CheckBadRequest,
        Self::CheckUnauthenticated,
        Self::CheckUnknownAttribute,
        Self::CheckRoleConflict,
    ];
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

/// What a worker knows of a transport's ICE and DTLS, and what strangers cost it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WebRtcStats {
    /// How far ICE got.
    pub ice_state: IceState,
    /// Where packets go.
    pub selected_tuple: Option<IceTuple>,
    /// How far DTLS got.
    pub dtls_state: DtlsState,
    /// How media is protected, as the IANA names it without its `SRTP_`, once agreed on.
    pub srtp_profile: Option<String>,
    /// Connectivity checks that counted.
    pub checks: u64,
    /// STUN requests that were refused.
    pub checks_refused: u64,
    /// DTLS datagrams that were looked at.
    pub dtls_datagrams: u64,
    /// Packets that were to be sent and could not be protected.
    pub protect_failures: u64,
    /// How often what failed, of what has.
    pub failures: Vec<(WebRtcFailureReason, u64)>,
}
