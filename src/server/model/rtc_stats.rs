//! Counters in the shape of the RTC statistics of mediasoup v2 (differences §7): one flat object for each stream and
//! transport.
//!
//! Pure: it is given what a worker counted and what the supervisor knows beside it, and the time. Where v2 was vague or
//! wrong, these are exact: times are wall-clock times, jitter is in the units of the RTP clock as RFC 3550 defines it (and
//! in milliseconds too), and what is not known yet is `null` instead of 0. Members that v2 did not have come after those it
//! had, and have names that it never used.

use serde::{Deserialize, Serialize};
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{
    CodecName, ConsumerStats, Counts, DropReason, DtlsState, IceProtocol, IceState, IceTuple, MediaKind, NotRepaired,
    ProducerStats, Profile, StreamStats, TransportStats, UnroutedReason, WebRtcFailureReason,
};

use crate::server::model::address::Tuple;
use crate::server::model::rtp_parameters::{RtpCodec, RtpParameters, Subtype};

/// One object of statistics. In JSON its `type` says which one it is: `inbound-rtp`, `outbound-rtp` or `transport`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RtcStats {
    /// A stream that the server receives.
    InboundRtp(InboundRtpStats),
    /// A stream that the server sends.
    OutboundRtp(OutboundRtpStats),
    /// A transport.
    Transport(RtcTransportStats),
}

/// The statistics that streams of both directions have.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RtpStreamRtcStats {
    /// 16 lowercase letters and digits, unique in the server. A stream keeps its id as long as it exists.
    pub id: String,
    /// When the counters were read, in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp: u64,
    /// The current SSRC.
    pub ssrc: u32,
    /// Audio or video.
    pub kind: MediaKind,
    /// The same as `kind`, under its older name.
    pub media_type: MediaKind,
    /// The codec of the last packet, e.g. `video/VP8`; before the first packet, the first codec negotiated.
    pub mime_type: String,
    /// RTP packets, without retransmissions.
    pub packet_count: u64,
    /// The bytes of these packets, with RTP headers and extensions.
    pub byte_count: u64,
    /// The bitrate over the last second, in bits per second.
    pub bitrate: u64,
    /// Packets lost on the way. Inbound: counted by the server. Outbound: from the receiver's last report (RFC 3550
    /// §6.4.1), negative if there were more duplicates than losses.
    pub packets_lost: i64,
    /// The share of packets that were lost between the last two reports, in 1/256.
    pub fraction_lost: u8,
    /// Inbound: packets whose sequence numbers were not valid. Outbound: packets that the transport could not send
    /// (`noRemote`, `backlogFull` and `sendFailed` in `dropped`).
    pub packets_discarded: u64,
    /// Inbound: lost packets that arrived after they were requested again. Outbound: packets that were retransmitted.
    pub packets_repaired: u64,
    /// Full intra requests (RFC 5104 §4.3.1): sent for inbound, received for outbound streams.
    pub fir_count: u64,
    /// Picture loss indications (RFC 4585 §6.3.1): sent for inbound, received for outbound streams.
    pub pli_count: u64,
    /// RTCP packets with negative acknowledgements (RFC 4585 §6.2.1): sent for inbound streams, received for outbound
    /// streams.
    pub nack_count: u64,
    /// Slice loss indications; always 0, because they are obsolete.
    pub sli_count: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1) in units of the RTP clock: at the server for inbound, at the receiver, as it
    /// last reported, for outbound streams.
    pub jitter: u32,
    /// The same in milliseconds.
    pub jitter_ms: f64,
    /// The round-trip time between the server and the other end, in milliseconds; `null` until it is measured.
    pub round_trip_time: Option<f64>,
}

/// A stream that the server receives.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InboundRtpStats {
    /// The statistics that both directions have.
    #[serde(flatten)]
    pub stream: RtpStreamRtcStats,
    /// The transport that it arrives on; absent if this object describes a consumer's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_id: Option<TransportId>,
    /// The profile of the stream.
    pub profile: Profile,
    /// Whether packets have arrived recently.
    pub active: bool,
    /// Key frames seen.
    pub key_frames: u64,
    /// Packets received twice.
    pub packets_duplicated: u64,
    /// Packets that were not relayed because the producer was paused.
    pub packets_paused: u64,
    /// Packets longer than 16 KiB. They are relayed, but not kept for retransmission.
    #[serde(default)]
    pub packets_not_kept: u64,
    /// Packets that were requested again; every request counts.
    pub packets_nacked: u64,
    /// Retransmissions that repaired nothing.
    pub retransmissions_useless: u64,
}

/// A stream that the server sends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboundRtpStats {
    /// The statistics that both directions have.
    #[serde(flatten)]
    pub stream: RtpStreamRtcStats,
    /// The transport that it is sent on.
    pub transport_id: TransportId,
    /// The `id` of the inbound stream that is being relayed; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_rtp_id: Option<String>,
    /// The profile that is being sent; `null` if none.
    pub profile: Option<Profile>,
    /// The profile that will be sent after its next key frame; `null` if none.
    pub target_profile: Option<Profile>,
    /// How often the profile changed, with the change to the first one.
    pub switches: u64,
    /// Packets that the producer received while the consumer existed: the sum of `packetCount` and `dropped`.
    pub packets_in: u64,
    /// Packets that were not sent, by reason. Reasons with a count of 0 are left out.
    pub dropped: Counts<DropReason>,
    /// The bytes of retransmitted packets, with headers.
    pub bytes_retransmitted: u64,
    /// Packets that the receiver asked for again and did not get, by reason. Reasons with a count of 0 are left out.
    pub not_repaired: Counts<NotRepaired>,
}

/// A transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RtcTransportStats {
    /// The transport.
    pub id: TransportId,
    /// When the counters were read, in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp: u64,
    /// Payload bytes of the packets received from the remote.
    pub bytes_received: u64,
    /// Payload bytes of the packets given to the kernel.
    pub bytes_sent: u64,
    /// The addresses of a plain transport, once the remote is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuple: Option<IceTuple>,
    /// The state of a WebRTC transport's ICE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ice_connection_state: Option<IceState>,
    /// The addresses of a WebRTC transport, once the client is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ice_selected_tuple: Option<IceTuple>,
    /// The state of a WebRTC transport's DTLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtls_state: Option<DtlsState>,
    /// The SRTP profile of a WebRTC transport, with its IANA name without the prefix `SRTP_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtp_profile: Option<String>,
    /// Failures in a WebRTC transport's ICE and DTLS, by reason. Reasons with a count of 0 are left out.
    #[serde(default, skip_serializing_if = "counts_nothing")]
    pub failures: Counts<WebRtcFailureReason>,
    /// The bandwidth that the remote may use.
    pub local_available_send_bw: LocalBandwidth,
    /// The bandwidth that the remote can receive.
    pub remote_available_send_bw: RemoteBandwidth,
    /// RTP and RTCP packets received from the remote.
    pub packets_received: u64,
    /// RTP and RTCP packets given to the kernel.
    pub packets_sent: u64,
    /// RTCP packets received; compound packets count once.
    pub rtcp_received: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// Packets that belong to no producer, by reason. Reasons with a count of 0 are left out.
    pub unrouted: Counts<UnroutedReason>,
    /// Packets the kernel dropped because the socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Copies of packets that were sent to the mirror's address.
    pub packets_mirrored: u64,
    /// Copies that could not be sent.
    pub mirror_failures: u64,
    /// How often the remote of a `comedia` transport has changed to another port of its IP.
    #[serde(default)]
    pub remotes_relearned: u64,
}

/// The bandwidth limit that the server sends to the remote (REMB).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalBandwidth {
    /// Bits per second for everything that the remote sends; `null` if there is no limit.
    pub max_bitrate: Option<u64>,
}

/// The bandwidth that the remote says it can receive (REMB).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteBandwidth {
    /// Bits per second; `null` if the remote has not said.
    pub bitrate: Option<u64>,
}

/// What a producer's counters do not say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerFacts<'a> {
    pub(crate) producer: ProducerId,
    pub(crate) kind: MediaKind,
    pub(crate) rtp_parameters: &'a RtpParameters,
}

/// What a consumer's counters do not say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsumerFacts<'a> {
    pub(crate) consumer: ConsumerId,
    pub(crate) transport: TransportId,
    pub(crate) rtp_parameters: &'a RtpParameters,
    pub(crate) source: ProducerFacts<'a>,
}

/// The streams of a producer, each as it is received.
pub(crate) fn of_producer(
    stats: &ProducerStats,
    facts: ProducerFacts<'_>,
    transport: TransportId,
    timestamp_ms: u64,
) -> Vec<RtcStats> {
    let streams = stats.streams.iter();
    streams
        .map(|stream| RtcStats::InboundRtp(inbound(stream, facts, Some(transport), timestamp_ms)))
        .collect()
}

/// The stream that a consumer is sent, after the stream that is its source at the moment, if there is one.
pub(crate) fn of_consumer(
    stats: &ConsumerStats,
    source: Option<&ProducerStats>,
    facts: ConsumerFacts<'_>,
    timestamp_ms: u64,
) -> Vec<RtcStats> {
    let flows = |stream: &&StreamStats| Some(stream.profile) == stats.effective_profile;
    let source = source
        .and_then(|source| source.streams.iter().find(flows))
        .map(|stream| inbound(stream, facts.source, None, timestamp_ms));
    let inbound_rtp_id = source.as_ref().map(|source| source.stream.id.clone());
    let outbound = outbound(stats, facts, inbound_rtp_id, timestamp_ms);
    let source = source.map(RtcStats::InboundRtp);
    source.into_iter().chain([RtcStats::OutboundRtp(outbound)]).collect()
}

/// A transport with its RTP addresses.
pub(crate) fn of_transport(stats: &TransportStats, tuple: &Tuple, timestamp_ms: u64) -> RtcStats {
    let webrtc = stats.webrtc.as_ref();
    // The worker's word on the remote is newer than what came with the tuple.
    let remote = stats.remote.map(|remote| remote.rtp).or(tuple.remote);
    let remote = remote.filter(|_| webrtc.is_none());
    RtcStats::Transport(RtcTransportStats {
        id: stats.transport,
        timestamp: timestamp_ms,
        bytes_received: stats.bytes_received,
        bytes_sent: stats.bytes_sent,
        tuple: remote.map(|remote| IceTuple {
            protocol: IceProtocol::Udp,
            local: (tuple.local_ip, tuple.local_port).into(),
            remote,
        }),
        ice_connection_state: webrtc.map(|webrtc| webrtc.ice_state),
        ice_selected_tuple: webrtc.and_then(|webrtc| webrtc.ice_selected_tuple),
        dtls_state: webrtc.map(|webrtc| webrtc.dtls_state),
        srtp_profile: webrtc.and_then(|webrtc| webrtc.srtp_profile.clone()),
        failures: webrtc.map(|webrtc| webrtc.failures.clone()).unwrap_or_default(),
        local_available_send_bw: LocalBandwidth {
            max_bitrate: stats.max_bitrate_bps,
        },
        remote_available_send_bw: RemoteBandwidth {
            bitrate: stats.remote_bitrate_bps,
        },
        packets_received: stats.packets_received,
        packets_sent: stats.packets_sent,
        rtcp_received: stats.rtcp_received,
        rtcp_sent: stats.rtcp_sent,
        unrouted: stats.unrouted.clone(),
        kernel_drops: stats.kernel_drops,
        packets_mirrored: stats.packets_mirrored,
        mirror_failures: stats.mirror_failures,
        remotes_relearned: stats.remotes_relearned,
    })
}

fn inbound(
    stats: &StreamStats,
    facts: ProducerFacts<'_>,
    transport_id: Option<TransportId>,
    timestamp: u64,
) -> InboundRtpStats {
    let codec = CodecFacts::of(
        stats.codec.as_deref(),
        stats.payload_type,
        facts.rtp_parameters,
        facts.kind,
    );
    InboundRtpStats {
        stream: RtpStreamRtcStats {
            id: producer_stream_id(facts.producer, stats.profile),
            timestamp,
            ssrc: stats.ssrc,
            kind: facts.kind,
            media_type: facts.kind,
            mime_type: codec.mime_type,
            packet_count: stats.packets,
            byte_count: stats.bytes,
            bitrate: stats.bitrate,
            packets_lost: i64::try_from(stats.packets_lost).unwrap_or(i64::MAX),
            fraction_lost: stats.fraction_lost,
            packets_discarded: stats.packets_discarded,
            packets_repaired: stats.packets_repaired,
            fir_count: stats.fir_count,
            pli_count: stats.pli_count,
            nack_count: stats.nack_count,
            sli_count: 0,
            jitter: stats.jitter,
            jitter_ms: ticks_in_ms(stats.jitter, codec.clock_rate),
            round_trip_time: stats.round_trip_us.map(us_in_ms),
        },
        transport_id,
        profile: stats.profile,
        active: stats.active,
        key_frames: stats.key_frames,
        packets_duplicated: stats.packets_duplicated,
        packets_paused: stats.packets_paused,
        packets_not_kept: stats.packets_not_kept,
        packets_nacked: stats.packets_nacked,
        retransmissions_useless: stats.rtx_useless,
    }
}

fn outbound(
    stats: &ConsumerStats,
    facts: ConsumerFacts<'_>,
    inbound_rtp_id: Option<String>,
    timestamp: u64,
) -> OutboundRtpStats {
    let kind = facts.source.kind;
    let codec = CodecFacts::of(stats.codec.as_deref(), stats.payload_type, facts.rtp_parameters, kind);
    let refused = [DropReason::NoRemote, DropReason::BacklogFull, DropReason::SendFailed];
    OutboundRtpStats {
        stream: RtpStreamRtcStats {
            id: consumer_stream_id(facts.consumer),
            timestamp,
            ssrc: stats.ssrc,
            kind,
            media_type: kind,
            mime_type: codec.mime_type,
            packet_count: stats.packets_forwarded,
            byte_count: stats.bytes_forwarded,
            bitrate: stats.bitrate,
            packets_lost: stats.packets_lost.into(),
            fraction_lost: stats.fraction_lost,
            packets_discarded: refused.map(|reason| stats.dropped.of(reason)).iter().sum(),
            packets_repaired: stats.packets_retransmitted,
            fir_count: stats.fir_count,
            pli_count: stats.pli_count,
            nack_count: stats.nack_count,
            sli_count: 0,
            jitter: stats.jitter,
            jitter_ms: ticks_in_ms(stats.jitter, codec.clock_rate),
            round_trip_time: stats.round_trip_us.map(us_in_ms),
        },
        transport_id: facts.transport,
        inbound_rtp_id,
        profile: stats.effective_profile,
        target_profile: stats.target_profile,
        switches: stats.switches,
        packets_in: stats.packets_in,
        dropped: stats.dropped.clone(),
        bytes_retransmitted: stats.bytes_retransmitted,
        not_repaired: stats.not_repaired.clone(),
    }
}

/// What the statistics need to know of a codec.
struct CodecFacts {
    mime_type: String,
    clock_rate: u32,
}

impl CodecFacts {
    /// The codec that flows, or else the first one negotiated.
    fn of(flowing: Option<&str>, payload_type: Option<u8>, parameters: &RtpParameters, kind: MediaKind) -> Self {
        let named = |codec: &RtpCodec| match Subtype::parse(&codec.mime_type) {
            Ok(Subtype::Media(name)) => Some(name),
            _ => None,
        };
        let media = || {
            let codecs = parameters.codecs.iter();
            codecs.filter_map(|codec| Some((named(codec)?, codec)))
        };
        let found = match flowing {
            Some(name) => media()
                .find(|(_, codec)| Some(codec.payload_type) == payload_type)
                .or_else(|| media().find(|(candidate, _)| candidate.subtype() == name)),
            None => media()
                .find(|(name, _)| !name.is_companion())
                .or_else(|| media().next()),
        };
        let mime_type = match (found, flowing) {
            // As it was declared, if there is nobody else who could say how it is written.
            (Some((name, codec)), _) if CodecName::OPAQUE.contains(&name) => codec.mime_type.clone(),
            (Some((name, _)), _) => format!("{}/{}", name.kind(), name.subtype()),
            (None, Some(name)) => format!("{kind}/{name}"),
            // A consumer with nothing in common with its producer has no codec, and sends nothing.
            (None, None) => kind.to_string(),
        };
        Self {
            mime_type,
            clock_rate: found.map_or(0, |(_, codec)| codec.clock_rate),
        }
    }
}

fn counts_nothing<R>(counts: &Counts<R>) -> bool {
    counts.is_empty()
}

fn ticks_in_ms(ticks: u32, clock_rate: u32) -> f64 {
    match clock_rate {
        0 => 0.0,
        rate => f64::from(ticks) * 1_000.0 / f64::from(rate),
    }
}

fn us_in_ms(us: u32) -> f64 {
    f64::from(us) / 1_000.0
}

/// A producer has one stream of each profile, so the two name it; nothing has to be drawn or remembered.
fn producer_stream_id(producer: ProducerId, profile: Profile) -> String {
    let profile = match profile {
        Profile::Default => 'd',
        Profile::Low => 'l',
        Profile::Medium => 'm',
        Profile::High => 'h',
    };
    format!("p{}{profile}", base36(producer.0))
}

/// A consumer is sent one stream, whatever its source.
fn consumer_stream_id(consumer: ConsumerId) -> String {
    format!("c{}s", base36(consumer.0))
}

/// 14 digits, of which 13 are enough for any `u64`.
fn base36(mut number: u64) -> String {
    let mut digits = [b'0'; 14];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use weir_channel::message::{Remote, WebRtcStats};

    use super::*;

    /// The members that mediasoup 2.6.19 gives the statistics of a stream, in either direction.
    const V2_STREAM: [&str; 19] = [
        "bitrate",
        "byteCount",
        "firCount",
        "fractionLost",
        "id",
        "kind",
        "mediaType",
        "mimeType",
        "nackCount",
        "packetCount",
        "packetsDiscarded",
        "packetsLost",
        "packetsRepaired",
        "pliCount",
        "sliCount",
        "ssrc",
        "timestamp",
        "type",
        "jitter",
    ];

    fn stream(profile: Profile, ssrc: u32) -> StreamStats {
        StreamStats {
            ssrc,
            codec: Some("VP8".to_owned()),
            profile,
            active: true,
            packets: 128,
            bytes: 111_264,
            bitrate: 151_096,
            packets_lost: 3,
            packets_discarded: 2,
            packets_duplicated: 1,
            key_frames: 4,
            packets_repaired: 5,
            rtx_useless: 6,
            fraction_lost: 7,
            jitter: 450,
            round_trip_us: Some(1_250),
            nack_count: 8,
            packets_nacked: 9,
            pli_count: 10,
            fir_count: 11,
            packets_paused: 12,
            payload_type: Some(96),
            ssrc_changes: 0,
            packets_not_kept: 13,
        }
    }

    fn consumer() -> ConsumerStats {
        ConsumerStats {
            consumer: ConsumerId(7),
            paused: false,
            source_paused: false,
            effective_profile: Some(Profile::Low),
            target_profile: Some(Profile::High),
            packets_in: 150,
            packets_forwarded: 130,
            bytes_forwarded: 112_588,
            bitrate: 155_456,
            dropped: Counts::from([
                (DropReason::OtherProfile, 12),
                (DropReason::BacklogFull, 5),
                (DropReason::SendFailed, 3),
                (DropReason::Duplicate, 0),
            ]),
            switches: 1,
            ssrc: 23_229_757,
            codec: None,
            packets_retransmitted: 4,
            bytes_retransmitted: 4_000,
            not_repaired: Counts::from([(NotRepaired::TooOld, 2)]),
            nack_count: 3,
            pli_count: 2,
            fir_count: 1,
            packets_lost: -1,
            fraction_lost: 20,
            jitter: 90,
            round_trip_us: None,
            last_seq: Some(9),
            payload_type: None,
        }
    }

    fn parameters() -> RtpParameters {
        RtpParameters {
            codecs: vec![RtpCodec::new(CodecName::Vp8, 96)],
            ..RtpParameters::default()
        }
    }

    fn source(rtp_parameters: &RtpParameters) -> ProducerFacts<'_> {
        ProducerFacts {
            producer: ProducerId(1),
            kind: MediaKind::Video,
            rtp_parameters,
        }
    }

    fn consumer_stats(stats: &ConsumerStats, producer: Option<&ProducerStats>) -> Vec<Value> {
        let rtp_parameters = parameters();
        let facts = ConsumerFacts {
            consumer: stats.consumer,
            transport: TransportId(9),
            rtp_parameters: &rtp_parameters,
            source: source(&rtp_parameters),
        };
        shown(&of_consumer(stats, producer, facts, 1_000))
    }

    fn producer(streams: Vec<StreamStats>) -> ProducerStats {
        ProducerStats {
            producer: ProducerId(1),
            paused: false,
            streams,
        }
    }

    fn shown(stats: &[RtcStats]) -> Vec<Value> {
        let values: Vec<Value> = stats.iter().map(|each| serde_json::to_value(each).unwrap()).collect();
        for (value, stats) in values.iter().zip(stats) {
            assert_eq!(&serde_json::from_value::<RtcStats>(value.clone()).unwrap(), stats);
        }
        values
    }

    fn has_members<'a>(value: &Value, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            assert!(value.get(name).is_some(), "{name} is not in {value}");
        }
    }

    #[test]
    fn a_producer_has_one_object_for_each_stream() {
        let stats = producer(vec![stream(Profile::Low, 1_111), stream(Profile::High, 3_333)]);
        let parameters = parameters();
        let all = shown(&of_producer(
            &stats,
            source(&parameters),
            TransportId(5),
            1_700_000_000_123,
        ));
        assert_eq!(all.len(), 2);
        for each in &all {
            has_members(each, V2_STREAM.into_iter().chain(["transportId"]));
            assert_eq!((&each["type"], &each["kind"]), (&json!("inbound-rtp"), &json!("video")));
        }
        assert_ne!(all[0]["id"], all[1]["id"]);
        let first = &all[0];
        assert_eq!(first["timestamp"], 1_700_000_000_123_u64);
        assert_eq!(
            (&first["ssrc"], &first["mimeType"]),
            (&json!(1_111), &json!("video/VP8"))
        );
        // 450 ticks of a clock of 90 kHz.
        assert_eq!((&first["jitter"], &first["jitterMs"]), (&json!(450), &json!(5.0)));
        assert_eq!(first["roundTripTime"], 1.25);
        assert_eq!(first["transportId"], 5);
    }

    #[test]
    fn a_consumer_names_the_stream_that_flows_to_it() {
        let stats = consumer();
        let producer = producer(vec![stream(Profile::Low, 1_111), stream(Profile::High, 3_333)]);
        let all = consumer_stats(&stats, Some(&producer));
        let [inbound, outbound] = &all[..] else {
            panic!("{all:?}");
        };
        has_members(inbound, V2_STREAM);
        assert!(inbound.get("transportId").is_none(), "{inbound}");
        assert_eq!(inbound["ssrc"], 1_111);
        let v2 = V2_STREAM
            .into_iter()
            .chain(["transportId", "inboundRtpId", "roundTripTime"]);
        has_members(outbound, v2);
        assert_eq!(outbound["inboundRtpId"], inbound["id"]);
        assert_eq!(
            outbound["dropped"],
            json!({"otherProfile": 12, "backlogFull": 5, "sendFailed": 3})
        );
        assert_eq!(outbound["notRepaired"], json!({"tooOld": 2}));
        assert_eq!(
            (&outbound["packetsDiscarded"], &outbound["packetsRepaired"]),
            (&json!(8), &json!(4))
        );
        assert_eq!(
            (&outbound["packetsLost"], &outbound["roundTripTime"]),
            (&json!(-1), &Value::Null)
        );
        // Nothing was sent yet, so it is the codec that was negotiated.
        assert_eq!(outbound["mimeType"], "video/VP8");
    }

    #[test]
    fn a_consumer_to_which_nothing_flows_has_no_source() {
        let stats = ConsumerStats {
            effective_profile: None,
            ..consumer()
        };
        let producer = producer(vec![stream(Profile::Low, 1_111)]);
        for source in [Some(&producer), None] {
            let all = consumer_stats(&stats, source);
            assert_eq!(all.len(), 1);
            assert_eq!(all[0]["type"], "outbound-rtp");
            assert!(all[0].get("inboundRtpId").is_none());
        }
    }

    #[test]
    fn a_transport_tells_bandwidths_and_where_it_is() {
        let stats = TransportStats {
            transport: TransportId(5),
            remote: Some(Remote {
                rtp: ([192, 0, 2, 2], 45_669).into(),
                rtcp: None,
            }),
            packets_received: 1,
            bytes_received: 152_322,
            packets_sent: 2,
            bytes_sent: 2_713,
            rtcp_received: 3,
            rtcp_sent: 4,
            unrouted: Counts::from([(UnroutedReason::ForeignSource, 5), (UnroutedReason::TooLong, 0)]),
            kernel_drops: 6,
            backlog_packets: 7,
            max_bitrate_bps: Some(500_000),
            remote_bitrate_bps: None,
            packets_mirrored: 8,
            mirror_failures: 9,
            webrtc: None,
            remotes_relearned: 10,
        };
        let tuple = Tuple {
            local_ip: [127, 0, 0, 1].into(),
            bound_ip: [127, 0, 0, 1].into(),
            local_port: 40_432,
            remote: None,
            zone: None,
        };
        let value = shown(&[of_transport(&stats, &tuple, 1_000)]).remove(0);
        has_members(
            &value,
            [
                "bytesReceived",
                "bytesSent",
                "id",
                "localAvailableSendBw",
                "remoteAvailableSendBw",
                "timestamp",
                "type",
            ],
        );
        let v2_tuple = json!({"localIP": "127.0.0.1", "localPort": 40432, "protocol": "udp",
            "remoteIP": "192.0.2.2", "remotePort": 45669});
        assert_eq!(value["tuple"], v2_tuple);
        assert_eq!(value["localAvailableSendBw"], json!({"maxBitrate": 500_000}));
        assert_eq!(value["remoteAvailableSendBw"], json!({"bitrate": null}));
        assert_eq!(value["unrouted"], json!({"foreignSource": 5}));

        // For WebRTC under v2's names; there is nothing to tell before ICE has found the client.
        let mut webrtc = WebRtcStats {
            ice_state: IceState::Completed,
            dtls_state: DtlsState::Connected,
            srtp_profile: Some("AEAD_AES_128_GCM".to_owned()),
            ..WebRtcStats::default()
        };
        let of = |webrtc: &WebRtcStats| {
            let stats = TransportStats {
                remote: None,
                webrtc: Some(webrtc.clone()),
                ..stats.clone()
            };
            shown(&[of_transport(&stats, &tuple, 1_000)]).remove(0)
        };
        assert!(of(&webrtc).get("iceSelectedTuple").is_none());
        webrtc.ice_selected_tuple = Some(IceTuple {
            protocol: IceProtocol::Udp,
            local: ([127, 0, 0, 1], 40_432).into(),
            remote: ([192, 0, 2, 2], 45_669).into(),
        });
        let value = of(&webrtc);
        has_members(
            &value,
            [
                "bytesReceived",
                "bytesSent",
                "dtlsState",
                "iceConnectionState",
                "iceSelectedTuple",
                "id",
                "localAvailableSendBw",
                "remoteAvailableSendBw",
                "timestamp",
                "type",
            ],
        );
        assert_eq!(value["iceSelectedTuple"], v2_tuple);
        assert_eq!(
            (&value["iceConnectionState"], &value["dtlsState"]),
            (&json!("completed"), &json!("connected"))
        );
        assert!(value.get("tuple").is_none());
    }

    #[test]
    fn ids_of_streams_are_16_lowercase_alphanumerics_and_all_different() {
        let profiles = [Profile::Default, Profile::Low, Profile::Medium, Profile::High];
        let numbers = [1, 2, 35, 36, 37, 1_000_000, u64::MAX - 1, u64::MAX];
        let producers = numbers
            .iter()
            .flat_map(|id| profiles.map(|profile| producer_stream_id(ProducerId(*id), profile)));
        let consumers = numbers.iter().map(|id| consumer_stream_id(ConsumerId(*id)));
        let ids: Vec<String> = producers.chain(consumers).collect();
        for id in &ids {
            let fits = id.len() == 16 && id.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            assert!(fits, "{id}");
        }
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }

    #[test]
    fn a_codec_that_nobody_knows_is_no_reason_to_fail() {
        let strange = RtpParameters::default();
        let codec = CodecFacts::of(None, None, &strange, MediaKind::Audio);
        assert_eq!(
            (codec.mime_type.as_str(), ticks_in_ms(7, codec.clock_rate)),
            ("audio", 0.0)
        );
        let codec = CodecFacts::of(Some("opus"), Some(111), &strange, MediaKind::Audio);
        assert_eq!(codec.mime_type, "audio/opus");
    }

    #[test]
    fn a_codec_is_called_what_it_was_declared_as() {
        let codec = |mime_type: &str, payload_type, clock_rate| RtpCodec {
            mime_type: mime_type.to_owned(),
            payload_type,
            clock_rate,
            ..RtpCodec::new(CodecName::Opus, payload_type)
        };
        let parameters = RtpParameters {
            codecs: vec![
                codec("audio/CN", 13, 8_000),
                codec("audio/G729", 18, 8_000),
                codec("audio/mpeg4-generic", 97, 44_100),
            ],
            ..RtpParameters::default()
        };
        let facts = |flowing, payload_type| {
            let facts = CodecFacts::of(flowing, payload_type, &parameters, MediaKind::Audio);
            (facts.mime_type, facts.clock_rate)
        };
        let other = Some("other-audio");
        assert_eq!(facts(None, None), ("audio/G729".to_owned(), 8_000));
        assert_eq!(facts(other, Some(97)), ("audio/mpeg4-generic".to_owned(), 44_100));
        assert_eq!(facts(Some("audio-companion"), Some(13)), ("audio/CN".to_owned(), 8_000));
    }
}
