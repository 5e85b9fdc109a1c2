//! Rooms, transports, producers, consumers and workers as JSON. References to other objects have the same names as in
//! events: `room`, `transport`, `producer`, `worker`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{MediaKind, Profile};

use crate::{RtpParameters, Tuple};

/// A part of a list, in the order of ids.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Listing<T> {
    /// The things.
    pub items: Vec<T>,
    /// The next part starts after this id (`?after=`); `null`: there is no more.
    pub next: Option<u64>,
}

/// A room.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomView {
    /// Its id.
    pub id: RoomId,
    /// The worker that serves it.
    pub worker: WorkerId,
    /// How many transports it has.
    pub transports: usize,
    /// How many producers it has.
    pub producers: usize,
    /// How many consumers it has.
    pub consumers: usize,
    /// What its creator attached.
    pub app_data: Value,
}

/// A transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportView {
    /// Its id.
    pub id: TransportId,
    /// The room it belongs to.
    pub room: RoomId,
    /// The addresses of RTP, and of RTCP too if it is muxed.
    pub tuple: Tuple,
    /// The addresses of RTCP; `null` if it is muxed.
    pub rtcp_tuple: Option<Tuple>,
    /// Learns its remote from the first valid packet.
    pub comedia: bool,
    /// RTP and RTCP share one port.
    pub rtcp_mux: bool,
    /// What its creator attached.
    pub app_data: Value,
}

/// A producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
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
    /// Whether it is relayed at the moment.
    pub paused: bool,
    /// What its consumers follow that have no preference of their own.
    pub preferred_profile: Profile,
    /// How it is sent; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_parameters: Option<RtpParameters>,
    /// What its creator attached.
    pub app_data: Value,
}

/// A consumer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
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
    /// Paused by itself.
    pub paused: bool,
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
