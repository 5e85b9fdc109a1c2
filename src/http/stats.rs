//! Counters as JSON: the channel's counters under camelCase names, with reasons as an object, and histograms as quantiles
//! and as the buckets that are not empty.

mod residence;
mod webrtc;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{self, CodecName, IceTuple, Profile, Remote};

use crate::{Consumer, Producer, RtcTuple, RtpParameters};

pub use residence::{Residence, ResidenceBucket};
pub use webrtc::WebRtcStats;

/// The counters of one worker since it started, or the sum of several workers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStats {
    /// Rooms that exist now.
    pub rooms: u64,
    /// Transports that exist now.
    pub transports: u64,
    /// Producers that exist now.
    pub producers: u64,
    /// Consumers that exist now.
    pub consumers: u64,
    /// RTP and RTCP packets received by all transports.
    pub packets_received: u64,
    /// The UDP payload bytes of these packets.
    pub bytes_received: u64,
    /// Packets given to the kernel.
    pub packets_sent: u64,
    /// The UDP payload bytes of these packets.
    pub bytes_sent: u64,
    /// Packets the kernel dropped because a socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Calls into the kernel to receive packets.
    pub receive_calls: u64,
    /// Calls into the kernel to send packets.
    pub send_calls: u64,
    /// Calls that waited for events (epoll).
    pub wait_calls: u64,
    /// Trains of packets that the kernel or the device refused to segment (GSO).
    pub gso_refusals: u64,
    /// Log lines that were dropped.
    pub log_lines_dropped: u64,
    /// Turns of the event loop.
    pub turns: u64,
    /// Turns of the event loop that waited for more packets (coalescing window).
    pub coalesced_turns: u64,
    /// User and system CPU time, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// The residence time of packets, from arrival at the socket to the call that sends them; absent if it is not
    /// measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residence_us: Option<Residence>,
    /// Packets and connections on a shared port (`webrtc_port`) that belong to no transport.
    #[serde(default)]
    pub unrouted: u64,
    /// Failures in ICE and DTLS of all WebRTC transports, by reason. Reasons with a count of 0 are left out.
    #[serde(default)]
    pub webrtc_failures: BTreeMap<String, u64>,
    /// Panics in parsers of network input. Each has cost one session or packet, and is a bug that should be reported.
    #[serde(default)]
    pub contained_panics: u64,
}

impl From<message::WorkerStats> for WorkerStats {
    fn from(stats: message::WorkerStats) -> Self {
        let message::WorkerStats {
            rooms,
            transports,
            producers,
            consumers,
            packets_received,
            bytes_received,
            packets_sent,
            bytes_sent,
            kernel_drops,
            receive_calls,
            send_calls,
            wait_calls,
            gso_refusals,
            log_lines_dropped,
            turns,
            coalesced_turns,
            cpu_ns,
            resident_bytes,
            residence,
            unrouted,
            webrtc_failures,
            contained_panics,
        } = stats;
        Self {
            rooms,
            transports,
            producers,
            consumers,
            packets_received,
            bytes_received,
            packets_sent,
            bytes_sent,
            kernel_drops,
            receive_calls,
            send_calls,
            wait_calls,
            gso_refusals,
            log_lines_dropped,
            turns,
            coalesced_turns,
            cpu_ns,
            resident_bytes,
            residence_us: residence.as_ref().and_then(Residence::of),
            unrouted,
            webrtc_failures: by_reason(&webrtc_failures),
            contained_panics,
        }
    }
}

impl WorkerStats {
    /// Adds another worker's counters.
    pub fn add(&mut self, other: &Self) {
        for (sum, value) in [
            (&mut self.rooms, other.rooms),
            (&mut self.transports, other.transports),
            (&mut self.producers, other.producers),
            (&mut self.consumers, other.consumers),
            (&mut self.packets_received, other.packets_received),
            (&mut self.bytes_received, other.bytes_received),
            (&mut self.packets_sent, other.packets_sent),
            (&mut self.bytes_sent, other.bytes_sent),
            (&mut self.kernel_drops, other.kernel_drops),
            (&mut self.receive_calls, other.receive_calls),
            (&mut self.send_calls, other.send_calls),
            (&mut self.wait_calls, other.wait_calls),
            (&mut self.gso_refusals, other.gso_refusals),
            (&mut self.log_lines_dropped, other.log_lines_dropped),
            (&mut self.turns, other.turns),
            (&mut self.coalesced_turns, other.coalesced_turns),
            (&mut self.cpu_ns, other.cpu_ns),
            (&mut self.resident_bytes, other.resident_bytes),
            (&mut self.unrouted, other.unrouted),
            (&mut self.contained_panics, other.contained_panics),
        ] {
            *sum = sum.saturating_add(value);
        }
        for (reason, count) in &other.webrtc_failures {
            let sum = self.webrtc_failures.entry(reason.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.residence_us = match (self.residence_us.take(), &other.residence_us) {
            (Some(own), Some(other)) => own.with(other),
            (own, other) => own.or_else(|| other.clone()),
        };
    }
}

/// The counters of a room.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RoomStats {
    /// The counters of each of its transports.
    pub transports: Vec<TransportStats>,
    /// The counters of each of its producers.
    pub producers: Vec<ProducerStats>,
    /// The counters of each of its consumers.
    pub consumers: Vec<ConsumerStats>,
}

/// Counters of one transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportStats {
    /// The transport.
    pub transport: TransportId,
    /// The remote address, once known.
    pub remote: Option<Remote>,
    /// RTP and RTCP packets received from the remote.
    pub packets_received: u64,
    /// The UDP payload bytes of these packets.
    pub bytes_received: u64,
    /// Packets given to the kernel.
    pub packets_sent: u64,
    /// The UDP payload bytes of these packets.
    pub bytes_sent: u64,
    /// RTCP packets received (compound packets count once).
    pub rtcp_received: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// Packets that belong to no producer, by reason. Reasons with a count of 0 are left out.
    pub unrouted: BTreeMap<String, u64>,
    /// Packets the kernel dropped because the socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Packets that wait for the socket to become writable.
    pub backlog_packets: u64,
    /// The limit for its senders together, in bits per second; `null` if there is none.
    pub max_bitrate_bps: Option<u64>,
    /// The bandwidth that the remote last said it can receive (REMB), in bits per second; `null` if it has said
    /// nothing.
    pub remote_bitrate_bps: Option<u64>,
    /// Copies of packets that were sent to the mirror's address.
    pub packets_mirrored: u64,
    /// Copies that could not be sent.
    pub mirror_failures: u64,
    /// The counters of a WebRTC transport; `null` for plain RTP.
    pub webrtc: Option<WebRtcStats>,
    /// How often the remote of a `comedia` transport has changed to another port of its IP.
    #[serde(default)]
    pub remotes_relearned: u64,
}

/// Counters of one producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProducerStats {
    /// The producer.
    pub producer: ProducerId,
    /// Whether it is paused.
    pub paused: bool,
    /// One object for each stream that has been seen.
    pub streams: Vec<StreamStats>,
}

/// Counters of one received stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStats {
    /// The stream's current SSRC.
    pub ssrc: u32,
    /// The codec of its last packet, e.g. `VP8`; a codec that Weir does not know has its declared name.
    pub codec: Option<String>,
    /// The stream's profile.
    pub profile: Profile,
    /// Whether packets have arrived recently.
    pub active: bool,
    /// Valid packets received.
    pub packets: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// The bitrate over the last second, in bits per second.
    pub bitrate: u64,
    /// Packets that never arrived, by their sequence numbers.
    pub packets_lost: u64,
    /// Packets whose sequence numbers were not valid.
    pub packets_discarded: u64,
    /// Packets received twice.
    pub packets_duplicated: u64,
    /// Key frames seen.
    pub key_frames: u64,
    /// Lost packets that arrived after they were requested again.
    pub packets_repaired: u64,
    /// Retransmissions (RFC 4588) that repaired nothing.
    pub rtx_useless: u64,
    /// The share of packets that were lost between the last two reports, in 1/256.
    pub fraction_lost: u8,
    /// Interarrival jitter (RFC 3550 §6.4.1), in units of the RTP clock.
    pub jitter: u32,
    /// The round-trip time to the sender, in microseconds; `null` until it is measured.
    pub round_trip_us: Option<u32>,
    /// RTCP packets with negative acknowledgements (NACK) sent.
    pub nack_count: u64,
    /// Packets that these NACKs requested; every request counts.
    pub packets_nacked: u64,
    /// Picture loss indications sent.
    pub pli_count: u64,
    /// Full intra requests sent.
    pub fir_count: u64,
    /// Packets that were not relayed because the producer was paused.
    pub packets_paused: u64,
    /// How often the sender changed its SSRC.
    #[serde(default)]
    pub ssrc_changes: u64,
    /// Packets longer than 16 KiB. They are relayed, but not kept for retransmission.
    #[serde(default)]
    pub packets_not_kept: u64,
}

/// Counters of one consumer. `packetsIn` is `packetsForwarded` and all of `dropped` together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStats {
    /// The consumer.
    pub consumer: ConsumerId,
    /// Whether the consumer itself is paused.
    pub paused: bool,
    /// Whether its producer is paused.
    pub source_paused: bool,
    /// The profile that it receives; `null` if none.
    pub effective_profile: Option<Profile>,
    /// The profile that it will receive after the next key frame.
    pub target_profile: Option<Profile>,
    /// Packets that its producer received while the consumer existed.
    pub packets_in: u64,
    /// Packets that were handed to its transport.
    pub packets_forwarded: u64,
    /// The bytes of these packets, with RTP headers.
    pub bytes_forwarded: u64,
    /// The bitrate over the last second, in bits per second.
    pub bitrate: u64,
    /// Packets that were not forwarded, by reason. Reasons with a count of 0 are left out.
    pub dropped: BTreeMap<String, u64>,
    /// How often the profile changed, with the change to the first one.
    pub switches: u64,
    /// The SSRC it is sent under.
    pub ssrc: u32,
    /// The codec of the packet sent last, e.g. `VP8`.
    pub codec: Option<String>,
    /// Packets that were retransmitted. `packetsForwarded` does not count them.
    pub packets_retransmitted: u64,
    /// The bytes of these packets, with RTP headers.
    pub bytes_retransmitted: u64,
    /// Packets that the receiver asked for again and did not get, by reason. Reasons with a count of 0 are left out.
    pub not_repaired: BTreeMap<String, u64>,
    /// RTCP packets with negative acknowledgements (NACK) received.
    pub nack_count: u64,
    /// Picture loss indications received.
    pub pli_count: u64,
    /// Full intra requests received.
    pub fir_count: u64,
    /// Packets lost on the way to the receiver, from its last report (RFC 3550 §6.4.1). Negative if there were more
    /// duplicates than losses.
    pub packets_lost: i32,
    /// The share of packets that the receiver lost between its last two reports, in 1/256.
    pub fraction_lost: u8,
    /// Interarrival jitter at the receiver, in units of the RTP clock.
    pub jitter: u32,
    /// The round-trip time to the receiver, in microseconds; `null` until it is measured.
    pub round_trip_us: Option<u32>,
    /// The last sequence number sent, extended to 64 bits.
    pub last_seq: Option<u64>,
}

impl RoomStats {
    /// `shown` gives a transport's selected tuple its announced address; `producer` and `consumer` find them, as long as
    /// they exist.
    pub(super) fn of(
        page: message::StatsPage,
        shown: impl Fn(TransportId, IceTuple) -> RtcTuple,
        producer: impl Fn(ProducerId) -> Option<Producer>,
        consumer: impl Fn(ConsumerId) -> Option<Consumer>,
    ) -> Self {
        let transports = page.transports.into_iter().map(|stats| {
            let transport = stats.transport;
            TransportStats::of(stats, |tuple| shown(transport, tuple))
        });
        Self {
            transports: transports.collect(),
            producers: page
                .producers
                .into_iter()
                .map(|stats| {
                    let producer = producer(stats.producer);
                    ProducerStats::of(stats, producer.as_ref().map(Producer::rtp_parameters))
                })
                .collect(),
            consumers: page
                .consumers
                .into_iter()
                .map(|stats| {
                    let consumer = consumer(stats.consumer);
                    ConsumerStats::of(stats, consumer.as_ref().map(Consumer::rtp_parameters))
                })
                .collect(),
        }
    }
}

impl TransportStats {
    /// `shown` gives the tuple that ICE has selected its announced address.
    pub(super) fn of(stats: message::TransportStats, shown: impl FnOnce(IceTuple) -> RtcTuple) -> Self {
        // Each by its name, so that a new one is not forgotten.
        let message::TransportStats {
            transport,
            remote,
            packets_received,
            bytes_received,
            packets_sent,
            bytes_sent,
            rtcp_received,
            rtcp_sent,
            unrouted,
            kernel_drops,
            backlog_packets,
            max_bitrate_bps,
            remote_bitrate_bps,
            packets_mirrored,
            mirror_failures,
            webrtc,
            remotes_relearned,
        } = stats;
        Self {
            transport,
            remote,
            packets_received,
            bytes_received,
            packets_sent,
            bytes_sent,
            rtcp_received,
            rtcp_sent,
            unrouted: by_reason(&unrouted),
            kernel_drops,
            backlog_packets,
            max_bitrate_bps,
            remote_bitrate_bps,
            packets_mirrored,
            mirror_failures,
            webrtc: webrtc.map(|webrtc| WebRtcStats::of(webrtc, shown)),
            remotes_relearned,
        }
    }
}

/// What a codec is called: as the worker knows it, or else as it was declared.
fn codec_name(
    codec: Option<CodecName>,
    payload_type: Option<u8>,
    parameters: Option<&RtpParameters>,
) -> Option<String> {
    let known = codec?.subtype();
    if !codec.is_some_and(|codec| CodecName::OPAQUE.contains(&codec)) {
        return Some(known.to_owned());
    }
    let declared = parameters.and_then(|parameters| {
        let mut codecs = parameters.codecs.iter();
        let codec = codecs.find(|codec| Some(codec.payload_type) == payload_type)?;
        codec.mime_type.split_once('/')
    });
    Some(declared.map_or(known, |(_, name)| name).to_owned())
}

impl ProducerStats {
    /// `parameters`: the producer's.
    pub(super) fn of(stats: message::ProducerStats, parameters: Option<&RtpParameters>) -> Self {
        // Each by its name, so that a new one is not forgotten.
        let message::ProducerStats {
            producer,
            paused,
            streams,
        } = stats;
        Self {
            producer,
            paused,
            streams: streams
                .into_iter()
                .map(|stats| StreamStats::of(stats, parameters))
                .collect(),
        }
    }
}

impl StreamStats {
    fn of(stats: message::StreamStats, parameters: Option<&RtpParameters>) -> Self {
        // Each by its name, so that a new one is not forgotten.
        let message::StreamStats {
            ssrc,
            codec,
            profile,
            active,
            packets,
            bytes,
            bitrate,
            packets_lost,
            packets_discarded,
            packets_duplicated,
            key_frames,
            packets_repaired,
            rtx_useless,
            fraction_lost,
            jitter,
            round_trip_us,
            nack_count,
            packets_nacked,
            pli_count,
            fir_count,
            packets_paused,
            payload_type,
            ssrc_changes,
            packets_not_kept,
        } = stats;
        Self {
            ssrc,
            codec: codec_name(codec, payload_type, parameters),
            profile,
            active,
            packets,
            bytes,
            bitrate,
            packets_lost,
            packets_discarded,
            packets_duplicated,
            key_frames,
            packets_repaired,
            rtx_useless,
            fraction_lost,
            jitter,
            round_trip_us,
            nack_count,
            packets_nacked,
            pli_count,
            fir_count,
            packets_paused,
            ssrc_changes,
            packets_not_kept,
        }
    }
}

impl ConsumerStats {
    /// `parameters`: the consumer's.
    pub(super) fn of(stats: message::ConsumerStats, parameters: Option<&RtpParameters>) -> Self {
        // Each by its name, so that a new one is not forgotten.
        let message::ConsumerStats {
            consumer,
            paused,
            source_paused,
            effective_profile,
            target_profile,
            packets_in,
            packets_forwarded,
            bytes_forwarded,
            bitrate,
            dropped,
            switches,
            ssrc,
            codec,
            packets_retransmitted,
            bytes_retransmitted,
            not_repaired,
            nack_count,
            pli_count,
            fir_count,
            packets_lost,
            fraction_lost,
            jitter,
            round_trip_us,
            last_seq,
            payload_type,
        } = stats;
        Self {
            consumer,
            paused,
            source_paused,
            effective_profile,
            target_profile,
            packets_in,
            packets_forwarded,
            bytes_forwarded,
            bitrate,
            dropped: by_reason(&dropped),
            switches,
            ssrc,
            codec: codec_name(codec, payload_type, parameters),
            packets_retransmitted,
            bytes_retransmitted,
            not_repaired: by_reason(&not_repaired),
            nack_count,
            pli_count,
            fir_count,
            packets_lost,
            fraction_lost,
            jitter,
            round_trip_us,
            last_seq,
        }
    }
}

/// `[(ConsumerPaused, 3)]` as `{"consumerPaused": 3}`, by the reasons' own JSON names.
fn by_reason<R: Serialize>(counts: &[(R, u64)]) -> BTreeMap<String, u64> {
    let counted = counts.iter().filter(|(_, count)| *count > 0);
    counted
        .filter_map(|(reason, count)| match serde_json::to_value(reason) {
            Ok(Value::String(name)) => Some((name, *count)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::{DropReason, Histogram, NotRepaired, UnroutedReason};

    #[test]
    fn a_codec_that_is_not_known_is_called_what_it_was_declared_as() {
        let mut parameters = RtpParameters {
            codecs: vec![crate::RtpCodec::new(CodecName::Opus, 97)],
            ..RtpParameters::default()
        };
        parameters.codecs[0].mime_type = "audio/mpeg4-generic".to_owned();
        let name = |codec, payload_type, parameters| codec_name(codec, payload_type, parameters);
        let other = Some(CodecName::OtherAudio);
        assert_eq!(name(None, Some(97), Some(&parameters)), None);
        assert_eq!(
            name(other, Some(97), Some(&parameters)).as_deref(),
            Some("mpeg4-generic")
        );
        assert_eq!(name(other, Some(98), Some(&parameters)).as_deref(), Some("other-audio"));
        assert_eq!(
            name(Some(CodecName::Opus), Some(97), Some(&parameters)).as_deref(),
            Some("opus")
        );
    }

    #[test]
    fn every_reason_has_a_name() {
        let drops: Vec<_> = DropReason::ALL.into_iter().map(|reason| (reason, 1)).collect();
        assert_eq!(by_reason(&drops).len(), DropReason::ALL.len());
        let unrouted: Vec<_> = UnroutedReason::ALL.into_iter().map(|reason| (reason, 1)).collect();
        assert_eq!(by_reason(&unrouted).len(), UnroutedReason::ALL.len());
        let asked: Vec<_> = NotRepaired::ALL.into_iter().map(|reason| (reason, 1)).collect();
        assert_eq!(by_reason(&asked).len(), NotRepaired::ALL.len());
        let counts = [(DropReason::ConsumerPaused, 3), (DropReason::Duplicate, 0)];
        assert_eq!(by_reason(&counts), BTreeMap::from([("consumerPaused".to_owned(), 3)]));
    }

    fn residence(counts: &[(u64, u64)]) -> Option<Residence> {
        let mut histogram = Histogram {
            counts: vec![0; Histogram::BUCKETS],
        };
        for (ns, count) in counts {
            histogram.counts[Histogram::index_of(*ns)] += count;
        }
        Residence::of(&histogram)
    }

    #[test]
    fn residence_is_told_in_microseconds_and_in_buckets() {
        let found = residence(&[(64_000, 99), (1_024_000, 1)]).unwrap();
        assert_eq!((found.p50, found.p99, found.p999), (63, 63, 1015));
        let buckets = [(63_488, 65_536, 99), (1_015_808, 1_048_576, 1)];
        let buckets = buckets.map(|(from_ns, below_ns, count)| ResidenceBucket {
            from_ns,
            below_ns,
            count,
        });
        assert_eq!(found.buckets, buckets);
        assert_eq!(residence(&[]), None);
        let longest = residence(&[(u64::MAX, 1)]).unwrap();
        assert_eq!(longest.buckets[0].below_ns, u64::MAX);
        // A worker that counts in buckets that there are not.
        let mut histogram = Histogram {
            counts: vec![0; Histogram::BUCKETS + 100],
        };
        histogram.counts[7] = u64::MAX;
        histogram.counts[8] = u64::MAX;
        histogram.counts[Histogram::BUCKETS + 99] = 1;
        assert_eq!(Residence::of(&histogram).map(|found| found.buckets.len()), Some(2));
    }

    #[test]
    fn sums_are_of_all_packets() {
        let stats = |residence_us| WorkerStats {
            packets_sent: 5,
            residence_us,
            ..WorkerStats::default()
        };
        let (fast, slow) = (residence(&[(64_000, 60)]), residence(&[(64_000, 30), (1_024_000, 10)]));
        let mut sum = WorkerStats::default();
        for residence in [None, fast.clone(), slow, None] {
            sum.add(&stats(residence));
        }
        assert_eq!(sum.packets_sent, 20);
        assert_eq!(sum.residence_us, residence(&[(64_000, 90), (1_024_000, 10)]));
        assert_ne!(sum.residence_us, fast);
    }
}
