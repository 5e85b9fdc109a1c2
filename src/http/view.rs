//! Rooms, transports, producers, consumers and workers as JSON. References to other objects have the same names as in
//! events: `room`, `transport`, `producer`, `worker`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    ComediaPolicy, DtlsParameters, DtlsState, IceState, IceTuple, MediaKind, Profile, WebRtcFailure,
};

use crate::{Direction, IceCandidate, IceParameters, Mirroring, RtpCapabilities, RtpParameters, TransportKind, Tuple};

/// A part of a list, in the order of ids.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "Listing{T}")]
pub struct Listing<T> {
    /// The things.
    pub items: Vec<T>,
    /// The next part starts after this id (`?after=`); `null`: there is no more.
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
    /// How many peers it has.
    pub peers: usize,
    /// How many transports it has.
    pub transports: usize,
    /// How many producers it has.
    pub producers: usize,
    /// How many consumers it has.
    pub consumers: usize,
    /// What its creator attached.
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
    /// It receives, but the others do not hear of it and it may not send.
    pub spy: bool,
    /// How many transports it has.
    pub transports: usize,
    /// How many producers it has.
    pub producers: usize,
    /// How many consumers it has, enabled or not.
    pub consumers: usize,
    /// What it can receive; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_capabilities: Option<RtpCapabilities>,
    /// What is kept with it.
    pub app_data: Value,
}

/// A producer on its way to an address. It ends when its transport is closed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamerView {
    /// The room it belongs to.
    pub room: RoomId,
    /// What is sent.
    pub producer: ProducerId,
    /// What it is sent on.
    pub transport: TransportId,
    /// The consumer that is sent.
    pub consumer: ConsumerId,
    /// What the receiver must expect.
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
    /// What it speaks.
    pub kind: TransportKind,
    /// The addresses of RTP, and of RTCP too if it is muxed. Of a WebRTC transport those that ICE has selected; `null`: none
    /// yet.
    pub tuple: Option<Tuple>,
    /// The addresses of RTCP; `null` if it is muxed.
    pub rtcp_tuple: Option<Tuple>,
    /// Learns its remote from the first valid packet.
    pub comedia: bool,
    /// If it does: whether it may learn another one; else `null`.
    #[serde(default)]
    pub comedia_policy: Option<ComediaPolicy>,
    /// RTP and RTCP share one port.
    pub rtcp_mux: bool,
    /// The peer whose it is; `null`: nobody's.
    pub peer: Option<String>,
    /// What the peer's client wants it for.
    pub direction: Option<Direction>,
    /// The limit its senders are told, in bits per second; `null`: none.
    pub max_bitrate_bps: Option<u64>,
    /// Where copies of its packets go.
    pub mirroring: Option<Mirroring>,
    /// What only a transport for WebRTC has; `null` for plain RTP.
    pub webrtc: Option<WebRtcView>,
    /// What its creator attached.
    pub app_data: Value,
}

/// What only a transport for WebRTC has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebRtcView {
    /// The server's role in ICE.
    pub ice_role: IceRole,
    /// Where the client may send.
    pub ice_candidates: Vec<IceCandidate>,
    /// How far ICE got.
    pub ice_state: IceState,
    /// Where packets go; `null`: nowhere, because the client has not been found, or is gone.
    pub ice_selected_tuple: Option<IceTuple>,
    /// How far DTLS got.
    pub dtls_state: DtlsState,
    /// What failed last in ICE or DTLS; `null`: nothing has.
    pub failure: Option<WebRtcFailure>,
    /// What its client needs to be told, and what the client has shown; left out of lists.
    #[serde(flatten)]
    pub introduction: Option<Introduction>,
}

/// The server's role in ICE (RFC 8445 §6.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IceRole {
    /// The client decides where packets go: always so, because the server is an ICE-lite agent.
    Controlled,
}

/// How a WebRTC transport and its client know each other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Introduction {
    /// What the client's connectivity checks must be made with.
    pub ice_parameters: IceParameters,
    /// The server's role in DTLS, `auto` until the client's is known, and what its certificate is recognised by.
    pub dtls_local_parameters: DtlsParameters,
    /// The client's certificate, in PEM; `null`: it has not proven yet to have one.
    pub dtls_remote_cert: Option<String>,
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
    /// The peer whose it is; `null`: nobody's.
    pub peer: Option<String>,
    /// Whether anybody holds it paused.
    pub paused: bool,
    /// Whether the application does.
    pub locally_paused: bool,
    /// Whether its peer's client does.
    pub remotely_paused: bool,
    /// What its consumers follow that have no preference of their own.
    pub preferred_profile: Profile,
    /// How it is sent; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_parameters: Option<RtpParameters>,
    /// What its creator attached.
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
    /// The transport it leaves on; none while a peer's consumer is not enabled.
    pub transport: Option<TransportId>,
    /// What it consumes.
    pub producer: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// The peer whose producer it consumes; `null`: nobody's.
    pub peer: Option<String>,
    /// The peer that receives it; `null`: nobody.
    pub receiver: Option<String>,
    /// Whether it has a transport to be sent on.
    pub enabled: bool,
    /// Paused by itself.
    pub paused: bool,
    /// Whether the application holds it paused.
    pub locally_paused: bool,
    /// Whether its receiver's client does.
    pub remotely_paused: bool,
    /// Its producer is paused.
    pub source_paused: bool,
    /// The highest profile it wants.
    pub preferred_profile: Profile,
    /// What it is sent; `null`: nothing.
    pub effective_profile: Option<Profile>,
    /// How it is sent; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_parameters: Option<RtpParameters>,
    /// What its creator attached.
    pub app_data: Value,
}
