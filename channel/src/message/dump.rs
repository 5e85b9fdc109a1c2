//! Everything a worker knows of its objects, for humans.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{ConsumerId, ProducerId, TransportId};

use super::address;
use super::create::Remote;
use super::media::{MediaKind, Profile};

/// A page of a dump.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DumpPage {
    /// Transports with what is on them.
    pub transports: Vec<TransportDump>,
    /// Producers with their streams.
    pub producers: Vec<ProducerDump>,
    /// Consumers with their rewriting state.
    pub consumers: Vec<ConsumerDump>,
    /// The start of the next page; `null` on the last one, and always over HTTP, which has no pages.
    pub next: Option<u64>,
}

/// Everything that a worker knows about a transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TransportDump {
    /// The transport.
    pub transport: TransportId,
    /// The remote address, once known.
    pub remote: Option<Remote>,
    /// Learns its remote from packets.
    pub comedia: bool,
    /// Whether RTP and RTCP share one port.
    pub rtcp_mux: bool,
    /// The address to which copies of its packets go.
    #[serde(default, with = "address::optional")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<SocketAddr>"))]
    pub mirror: Option<SocketAddr>,
    /// SSRC → producer.
    pub ssrcs: Vec<(u32, ProducerId)>,
    /// MID → producer.
    pub mids: Vec<(String, ProducerId)>,
    /// RID → producer.
    pub rids: Vec<(String, ProducerId)>,
}

/// Everything that a worker knows about a producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProducerDump {
    /// The producer.
    pub producer: ProducerId,
    /// The transport it arrives on.
    pub transport: TransportId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Whether it is paused.
    pub paused: bool,
    /// The profile for consumers that have no preference of their own.
    pub preferred_profile: Profile,
    /// Profiles on offer now, lowest first.
    pub available_profiles: Vec<Profile>,
    /// Its consumers; at most the first 1,000.
    pub consumers: Vec<ConsumerId>,
}

/// Everything that a worker knows about a consumer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConsumerDump {
    /// The consumer.
    pub consumer: ConsumerId,
    /// The producer that it consumes.
    pub producer: ProducerId,
    /// The transport that it is sent on.
    pub transport: TransportId,
    /// The SSRC it is sent under.
    pub ssrc: u32,
    /// The SSRC of its retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// The highest profile that it should receive.
    pub preferred_profile: Profile,
    /// The profile that it receives.
    pub effective_profile: Option<Profile>,
    /// The profile that it should receive.
    pub target_profile: Option<Profile>,
    /// Whether the consumer itself is paused.
    pub paused: bool,
    /// Whether its producer is paused.
    pub source_paused: bool,
    /// Starts at the next key frame (video) or packet (audio).
    pub sync_required: bool,
}
