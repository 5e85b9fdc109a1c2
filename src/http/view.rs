//! Rooms, transports, producers, consumers and workers as JSON. References to other objects have the same names as in
//! events: `room`, `transport`, `producer`, `worker`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    ComediaPolicy, DtlsParameters, DtlsState, IceState, IceTuple, MediaKind, Profile, WebRtcFailure,
};

use crate::{Direction, IceCandidate, IceParameters, Mirroring, RtpCapabilities, RtpParameters, TransportKind, Tuple};

/// A part of a list, ordered by id.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "Listing{T}")]
pub struct Listing<T> {
    /// The objects.
    pub items: Vec<T>,
    /// The id after which the next part starts (`?after=`); `null` if this is the last part.
    pub next: Option<u64>,
}

/// A room.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomView {
    /// Its id.
    pub id: RoomId,
    /// The worker that serves it.
    pub worker: WorkerId,
    /// The number of its peers.
    pub peers: usize,
    /// The number of its transports.
    pub transports: usize,
    /// The number of its producers.
    pub producers: usize,
    /// The number of its consumers.
    pub consumers: usize,
    /// The data that its creator attached.
    pub app_data: Value,
}

/// A peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Its name, unique in its room.
    pub name: String,
    /// The room it is in.
    pub room: RoomId,
    /// Whether it is a spy: it receives, it may not send, and the other peers do not know of it.
    pub spy: bool,
    /// The number of its transports.
    pub transports: usize,
    /// The number of its producers.
    pub producers: usize,
    /// The number of its consumers, enabled or not.
    pub consumers: usize,
    /// The RTP capabilities that it can receive; lists leave them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_capabilities: Option<RtpCapabilities>,
    /// The app data that is kept with it.
    pub app_data: Value,
}

/// A producer that is sent to an address, until its transport is closed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamerView {
    /// The room it belongs to.
    pub room: RoomId,
    /// The producer that is sent.
    pub producer: ProducerId,
    /// The transport that it is sent on.
    pub transport: TransportId,
    /// The consumer that is sent.
    pub consumer: ConsumerId,
    /// The RTP parameters that the receiver needs.
    pub rtp_parameters: RtpParameters,
}

/// A transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportView {
    /// Its id.
    pub id: TransportId,
    /// The room it belongs to.
    pub room: RoomId,
    /// The kind of transport.
    pub kind: TransportKind,
    /// The addresses for RTP, and for RTCP if it shares RTP's port. For a WebRTC transport these are the addresses that
    /// ICE has selected, `null` if there are none yet.
    pub tuple: Option<Tuple>,
    /// The addresses for RTCP; `null` if it shares RTP's port.
    pub rtcp_tuple: Option<Tuple>,
    /// Whether it learns the remote address from the first valid packet.
    pub comedia: bool,
    /// The policy for learning another address; `null` without `comedia`.
    #[serde(default)]
    pub comedia_policy: Option<ComediaPolicy>,
    /// The only IP at which it learns the remote address; `null` if that is any, or without `comedia`.
    #[serde(default)]
    pub comedia_from: Option<IpAddr>,
    /// Whether RTP and RTCP share one port.
    pub rtcp_mux: bool,
    /// The peer that owns it; `null` if no peer does.
    pub peer: Option<String>,
    /// The direction in which the peer's client uses it.
    pub direction: Option<Direction>,
    /// The bitrate limit that its senders are told, in bits per second; `null` if there is none.
    pub max_bitrate_bps: Option<u64>,
    /// The address to which copies of its packets go.
    pub mirroring: Option<Mirroring>,
    /// The part that only a WebRTC transport has; `null` for plain RTP.
    pub webrtc: Option<WebRtcView>,
    /// The data that its creator attached.
    pub app_data: Value,
}

/// The part that only a WebRTC transport has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebRtcView {
    /// The server's role in ICE.
    pub ice_role: IceRole,
    /// The addresses to which the client may send.
    pub ice_candidates: Vec<IceCandidate>,
    /// The state of ICE.
    pub ice_state: IceState,
    /// The addresses that are used; `null` if the client has not been found or is gone.
    pub ice_selected_tuple: Option<IceTuple>,
    /// The state of DTLS.
    pub dtls_state: DtlsState,
    /// The last failure in ICE or DTLS; `null` if there was none.
    pub failure: Option<WebRtcFailure>,
    /// What its client needs to be told, and what the client has shown; left out of lists.
    #[serde(flatten)]
    pub introduction: Option<Introduction>,
}

/// The server's role in ICE (RFC 8445 §6.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IceRole {
    /// The client selects the pair of addresses. This is always so, because the server is an ICE-lite agent.
    Controlled,
}

/// How a WebRTC transport and its client know each other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Introduction {
    /// The credentials for the client's connectivity checks.
    pub ice_parameters: IceParameters,
    /// The server's DTLS role (`auto` until the client's role is known) and the fingerprints of its certificate.
    pub dtls_local_parameters: DtlsParameters,
    /// The client's certificate, in PEM; `null` until the client has proven that it has one.
    pub dtls_remote_cert: Option<String>,
    /// What mediasoup-client 3 takes in `createSendTransport` and `createRecvTransport`, as it is.
    pub client_options: ClientOptions,
}

/// The options with which a client of mediasoup 3 makes its side of a transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientOptions {
    /// The transport's id, as text.
    pub id: String,
    /// The credentials for the client's connectivity checks.
    pub ice_parameters: IceParameters,
    /// The addresses to which the client may send.
    pub ice_candidates: Vec<ClientCandidate>,
    /// The server's DTLS role and the fingerprints of its certificate.
    pub dtls_parameters: DtlsParameters,
}

/// An address to which a client of mediasoup 3 may send.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCandidate {
    /// The IP address, which mediasoup 2 calls `ip`.
    pub address: IpAddr,
    /// The candidate under the names of mediasoup 2.
    #[serde(flatten)]
    pub candidate: IceCandidate,
}

/// A producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProducerView {
    /// Its id.
    pub id: ProducerId,
    /// The room it belongs to.
    pub room: RoomId,
    /// The transport it arrives on.
    pub transport: TransportId,
    /// Audio or video.
    pub kind: MediaKind,
    /// The peer that owns it; `null` if no peer does.
    pub peer: Option<String>,
    /// Whether any side has paused it.
    pub paused: bool,
    /// Whether the application has paused it.
    pub locally_paused: bool,
    /// Whether its peer's client has paused it.
    pub remotely_paused: bool,
    /// The profile for consumers that have no preference of their own.
    pub preferred_profile: Profile,
    /// The RTP parameters that it is sent with; lists leave them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_parameters: Option<RtpParameters>,
    /// The data that its creator attached.
    pub app_data: Value,
}

/// A consumer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerView {
    /// Its id.
    pub id: ConsumerId,
    /// The room it belongs to.
    pub room: RoomId,
    /// The transport that it is sent on; `null` while a peer's consumer is not enabled.
    pub transport: Option<TransportId>,
    /// The producer that it consumes.
    pub producer: ProducerId,
    /// Whether this producer is closed, and the consumer waits for another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Audio or video.
    pub kind: MediaKind,
    /// The peer that owns the producer; `null` if no peer does.
    pub peer: Option<String>,
    /// The peer that receives it; `null` if no peer does.
    pub receiver: Option<String>,
    /// Whether it is sent on a transport.
    pub enabled: bool,
    /// Whether the consumer itself is paused.
    pub paused: bool,
    /// Whether the application has paused it.
    pub locally_paused: bool,
    /// Whether its receiver's client has paused it.
    pub remotely_paused: bool,
    /// Whether its producer is paused.
    pub source_paused: bool,
    /// The highest profile that it should receive.
    pub preferred_profile: Profile,
    /// The profile that it receives; `null` if none.
    pub effective_profile: Option<Profile>,
    /// The RTP parameters that it is sent with; lists leave them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_parameters: Option<RtpParameters>,
    /// The data that its creator attached.
    pub app_data: Value,
}
