//! Counters as JSON: the channel's counters under camelCase names, with reasons as an object and histograms as
//! quantiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{self, Histogram, Profile, Remote};

/// Counters of one worker since it started, or of several together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStats {
    /// Living rooms.
    pub rooms: u64,
    /// Living transports.
    pub transports: u64,
    /// Living producers.
    pub producers: u64,
    /// Living consumers.
    pub consumers: u64,
    /// RTP and RTCP packets received by all transports.
    pub packets_received: u64,
    /// Their UDP payload bytes.
    pub bytes_received: u64,
    /// Packets given to the kernel.
    pub packets_sent: u64,
    /// Their UDP payload bytes.
    pub bytes_sent: u64,
    /// Packets the kernel dropped because a socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Calls into the kernel that received.
    pub receive_calls: u64,
    /// Calls into the kernel that sent.
    pub send_calls: u64,
    /// Calls that waited for something to do.
    pub wait_calls: u64,
    /// Trains the kernel or the device refused to segment.
    pub gso_refusals: u64,
    /// Log lines dropped.
    pub log_lines_dropped: u64,
    /// Turns of the event loop.
    pub turns: u64,
    /// Turns that waited in the coalescing window.
    pub coalesced_turns: u64,
    /// User and system CPU time, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// From a packet's arrival at the socket to its hand-over to the kernel; absent when it is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residence_us: Option<Residence>,
}

/// Quantiles of the residence time, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Residence {
    /// The median.
    pub p50: u64,
    /// All but one of a hundred packets were faster.
    pub p99: u64,
    /// All but one of a thousand packets were faster.
    pub p999: u64,
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
        }
    }
}

impl Residence {
    /// The quantiles of a histogram of nanoseconds; `None` when nothing was counted.
    fn of(histogram: &Histogram) -> Option<Self> {
        let us = |quantile| histogram.quantile(quantile).map(|ns| ns / 1_000);
        Some(Self {
            p50: us(0.5)?,
            p99: us(0.99)?,
            p999: us(0.999)?,
        })
    }
}

impl WorkerStats {
    /// Adds another worker's counters. Quantiles cannot be added; they are left out of sums.
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
        ] {
            *sum = sum.saturating_add(value);
        }
        self.residence_us = None;
    }
}

/// The counters of a room.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RoomStats {
    /// Of each of its transports.
    pub transports: Vec<TransportStats>,
    /// Of each of its producers.
    pub producers: Vec<ProducerStats>,
    /// Of each of its consumers.
    pub consumers: Vec<ConsumerStats>,
}

/// Counters of one transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportStats {
    /// Whose.
    pub transport: TransportId,
    /// The remote address, once known.
    pub remote: Option<Remote>,
    /// RTP and RTCP packets received from the remote.
    pub packets_received: u64,
    /// Their UDP payload bytes.
    pub bytes_received: u64,
    /// Packets given to the kernel.
    pub packets_sent: u64,
    /// Their UDP payload bytes.
    pub bytes_sent: u64,
    /// RTCP packets received (compound packets count once).
    pub rtcp_received: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// Packets received that no producer got, by reason; reasons that never happened are left out.
    pub unrouted: BTreeMap<String, u64>,
    /// Packets the kernel dropped because the socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Packets that wait for the socket to become writable.
    pub backlog_packets: u64,
}

/// Counters of one producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProducerStats {
    /// Whose.
    pub producer: ProducerId,
    /// Paused or not.
    pub paused: bool,
    /// One for each stream seen.
    pub streams: Vec<StreamStats>,
}

/// Counters of one received stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamStats {
    /// Its SSRC at the moment.
    pub ssrc: u32,
    /// Which profile it is.
    pub profile: Profile,
    /// Whether packets have come lately.
    pub active: bool,
    /// Packets received and valid.
    pub packets: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// Bits per second over the last second.
    pub bitrate: u64,
    /// Expected by sequence number but never seen.
    pub packets_lost: u64,
    /// Received but not valid in sequence.
    pub packets_discarded: u64,
    /// Received twice.
    pub packets_duplicated: u64,
    /// Key frames seen.
    pub key_frames: u64,
    /// Key frame requests sent to the producer.
    pub key_frame_requests: u64,
    /// Received while the producer was paused, and so not relayed.
    pub packets_paused: u64,
}

/// Counters of one consumer. `packetsIn` is `packetsForwarded` and all of `dropped` together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStats {
    /// Whose.
    pub consumer: ConsumerId,
    /// Paused by itself.
    pub paused: bool,
    /// Its producer is paused.
    pub source_paused: bool,
    /// What it is sent; `null`: nothing.
    pub effective_profile: Option<Profile>,
    /// What it should be sent, and waits for a key frame of.
    pub target_profile: Option<Profile>,
    /// Packets its producer received while the consumer existed.
    pub packets_in: u64,
    /// Packets given to its transport.
    pub packets_forwarded: u64,
    /// Their bytes, RTP headers included.
    pub bytes_forwarded: u64,
    /// Bits per second over the last second.
    pub bitrate: u64,
    /// Packets not forwarded, by reason; reasons that never happened are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Switches from one profile to another (or to the first one).
    pub switches: u64,
    /// Key frame requests received from the receiver (PLI and FIR).
    pub key_frame_requests: u64,
    /// The last sequence number sent, extended to 64 bits.
    pub last_seq: Option<u64>,
}

impl From<message::StatsPage> for RoomStats {
    fn from(page: message::StatsPage) -> Self {
        Self {
            transports: page.transports.into_iter().map(Into::into).collect(),
            producers: page.producers.into_iter().map(Into::into).collect(),
            consumers: page.consumers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<message::TransportStats> for TransportStats {
    fn from(stats: message::TransportStats) -> Self {
        Self {
            transport: stats.transport,
            remote: stats.remote,
            packets_received: stats.packets_received,
            bytes_received: stats.bytes_received,
            packets_sent: stats.packets_sent,
            bytes_sent: stats.bytes_sent,
            rtcp_received: stats.rtcp_received,
            rtcp_sent: stats.rtcp_sent,
            unrouted: by_reason(&stats.unrouted),
            kernel_drops: stats.kernel_drops,
            backlog_packets: stats.backlog_packets,
        }
    }
}

impl From<message::ProducerStats> for ProducerStats {
    fn from(stats: message::ProducerStats) -> Self {
        Self {
            producer: stats.producer,
            paused: stats.paused,
            streams: stats.streams.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<message::StreamStats> for StreamStats {
    fn from(stats: message::StreamStats) -> Self {
        Self {
            ssrc: stats.ssrc,
            profile: stats.profile,
            active: stats.active,
            packets: stats.packets,
            bytes: stats.bytes,
            bitrate: stats.bitrate,
            packets_lost: stats.packets_lost,
            packets_discarded: stats.packets_discarded,
            packets_duplicated: stats.packets_duplicated,
            key_frames: stats.key_frames,
            key_frame_requests: stats.pli_count + stats.fir_count,
            packets_paused: stats.packets_paused,
        }
    }
}

impl From<message::ConsumerStats> for ConsumerStats {
    fn from(stats: message::ConsumerStats) -> Self {
        Self {
            consumer: stats.consumer,
            paused: stats.paused,
            source_paused: stats.source_paused,
            effective_profile: stats.effective_profile,
            target_profile: stats.target_profile,
            packets_in: stats.packets_in,
            packets_forwarded: stats.packets_forwarded,
            bytes_forwarded: stats.bytes_forwarded,
            bitrate: stats.bitrate,
            dropped: by_reason(&stats.dropped),
            switches: stats.switches,
            key_frame_requests: stats.pli_count + stats.fir_count,
            last_seq: stats.last_seq,
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
    use message::{DropReason, UnroutedReason};

    #[test]
    fn every_reason_has_a_name() {
        let drops: Vec<_> = DropReason::ALL.into_iter().map(|reason| (reason, 1)).collect();
        assert_eq!(by_reason(&drops).len(), DropReason::ALL.len());
        let unrouted: Vec<_> = UnroutedReason::ALL.into_iter().map(|reason| (reason, 1)).collect();
        assert_eq!(by_reason(&unrouted).len(), UnroutedReason::ALL.len());
        let counts = [(DropReason::ConsumerPaused, 3), (DropReason::Duplicate, 0)];
        assert_eq!(by_reason(&counts), BTreeMap::from([("consumerPaused".to_owned(), 3)]));
    }

    #[test]
    fn residence_is_told_in_microseconds() {
        let mut histogram = Histogram {
            counts: vec![0; Histogram::BUCKETS],
        };
        histogram.counts[Histogram::index_of(64_000)] = 99;
        histogram.counts[Histogram::index_of(1_024_000)] = 1;
        let residence = Residence::of(&histogram).unwrap();
        assert_eq!(
            residence,
            Residence {
                p50: 63,
                p99: 63,
                p999: 1015
            }
        );
        assert_eq!(Residence::of(&Histogram::default()), None);
    }

    #[test]
    fn sums_leave_out_quantiles() {
        let residence = Residence {
            p50: 1,
            p99: 2,
            p999: 3,
        };
        let one = WorkerStats {
            packets_sent: 5,
            residence_us: Some(residence),
            ..WorkerStats::default()
        };
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!((sum.packets_sent, sum.residence_us), (10, None));
    }
}
