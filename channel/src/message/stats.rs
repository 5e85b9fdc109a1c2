//! Counters, as they travel: of workers, transports, producers and consumers.

use serde::{Deserialize, Serialize};

use crate::id::{ConsumerId, ProducerId, TransportId};

use super::create::Remote;
use super::media::{CodecName, Profile};
use super::webrtc::{WebRtcFailureReason, WebRtcStats};

/// Counters of one worker since it started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Numbers of living objects.
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
    /// Packets the kernel dropped because a socket's receive buffer was full (SO_RXQ_OVFL).
    pub kernel_drops: u64,
    /// Calls into the kernel to receive packets.
    pub receive_calls: u64,
    /// Calls into the kernel to send packets.
    pub send_calls: u64,
    /// Calls that waited for events (epoll).
    pub wait_calls: u64,
    /// Trains the kernel or the device refused to segment; sent as single packets instead.
    pub gso_refusals: u64,
    /// Log lines that were dropped.
    pub log_lines_dropped: u64,
    /// Turns of the event loop.
    pub turns: u64,
    /// Turns of the event loop that waited for more packets (coalescing window).
    pub coalesced_turns: u64,
    /// User and system CPU time of the worker, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Time from a packet's arrival at the socket to its hand-over to the kernel, if measured.
    pub residence: Option<Histogram>,
    /// Packets and connections that arrived at a shared port and were for no transport.
    pub unrouted: u64,
    /// How often what failed of all WebRTC transports' ICE and DTLS, of what has.
    pub webrtc_failures: Vec<(WebRtcFailureReason, u64)>,
    /// Parsers of network input that have panicked. Each took one session or packet with it, and is a bug.
    pub contained_panics: u64,
}

/// A histogram with a relative error of at most 1/16: bucket `i` counts values whose index, by
/// [`Histogram::index_of`], is `i`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// One count per bucket; trailing empty buckets are left out.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Enough for any `u64`.
    pub const BUCKETS: usize = 16 + 60 * 16;

    /// Values below 16 have a bucket each; above, each power of two has 16.
    pub fn index_of(value: u64) -> usize {
        if value < 16 {
            return value as usize;
        }
        let exponent = 63 - value.leading_zeros() as usize; // 4..=63
        let fraction = ((value >> (exponent - 4)) & 15) as usize;
        16 + (exponent - 4) * 16 + fraction
    }

    /// The smallest value of a bucket.
    pub fn floor_of(index: usize) -> u64 {
        if index < 16 {
            return index as u64;
        }
        let exponent = (index - 16) / 16 + 4;
        let fraction = ((index - 16) % 16) as u64;
        (16 + fraction) << (exponent - 4)
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value below which `quantile` (0.0..=1.0) of the counted values lie; `None` when nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Self::floor_of(index));
            }
        }
        None
    }
}

/// A page of counters.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StatsPage {
    /// Transports of this page.
    pub transports: Vec<TransportStats>,
    /// Producers of this page.
    pub producers: Vec<ProducerStats>,
    /// Consumers of this page.
    pub consumers: Vec<ConsumerStats>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<u64>,
}

/// Counters of one transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
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
    /// Packets received that no producer got, by reason.
    pub unrouted: Vec<(UnroutedReason, u64)>,
    /// Packets the kernel dropped because the socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Packets in the queue that waits for the socket to become writable.
    pub backlog_packets: u64,
    /// See [`Method::SetMaxBitrate`](super::Method::SetMaxBitrate).
    pub max_bitrate_bps: Option<u64>,
    /// What the remote said last that it can receive (REMB), in bits per second.
    pub remote_bitrate_bps: Option<u64>,
    /// Copies of packets sent elsewhere ([`Mirror`](super::Mirror)).
    pub packets_mirrored: u64,
    /// Copies that could not be sent.
    pub mirror_failures: u64,
    /// Of a WebRTC transport.
    pub webrtc: Option<WebRtcStats>,
    /// How often a `comedia` transport has gone over to another port of its remote's IP
    /// ([`ComediaPolicy::Relearn`](super::ComediaPolicy::Relearn)).
    pub remotes_relearned: u64,
}

/// Why a received packet reached no producer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum UnroutedReason {
    /// From another address than the transport's remote.
    ForeignSource,
    /// The transport has no remote yet and does not learn it.
    NoRemote,
    /// Neither RTP nor RTCP, or not well formed.
    Malformed,
    /// No producer of the transport has this SSRC, MID or RID.
    UnknownStream,
    /// A producer was found, but its payload type is none of the producer's codecs.
    UnknownPayloadType,
    /// Longer than the worker relays.
    TooLong,
    /// Before the peer has proven who it is, or after the end.
    NotConnected,
    /// SRTP that was not made with the peer's keys.
    NotAuthentic,
    /// SRTP that has been received before, or is too old to tell.
    Replayed,
    /// A connectivity check that was refused or that says nothing.
    BadCheck,
    /// STUN or DTLS beyond what may be spent on somebody unknown.
    Flood,
}

impl UnroutedReason {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::ForeignSource,
        Self::NoRemote,
        Self::Malformed,
        Self::UnknownStream,
        Self::UnknownPayloadType,
        Self::TooLong,
        Self::NotConnected,
        Self::NotAuthentic,
        Self::Replayed,
        Self::BadCheck,
        Self::Flood,
    ];
}

/// Counters of one producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProducerStats {
    /// The producer.
    pub producer: ProducerId,
    /// Whether it is paused.
    pub paused: bool,
    /// One object for each stream that has been seen.
    pub streams: Vec<StreamStats>,
}

/// Counters of one received stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamStats {
    /// The stream's current SSRC.
    pub ssrc: u32,
    /// The codec of its last packet.
    pub codec: Option<CodecName>,
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
    /// Retransmissions (RFC 4588) that repaired nothing: of packets that had come already, or that make no sense.
    pub rtx_useless: u64,
    /// Of the packets expected between the last two reports, how many were lost on the way, repaired or not, in 1/256.
    pub fraction_lost: u8,
    /// Interarrival jitter (RFC 3550 §6.4.1), in units of the RTP clock.
    pub jitter: u32,
    /// From here to the sender and back, in microseconds; `None` until it is known.
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
    /// The payload type of its last packet, which names the codec where `codec` cannot.
    pub payload_type: Option<u8>,
    /// How often the sender changed its SSRC.
    pub ssrc_changes: u64,
    /// Packets longer than 16 KiB. They are relayed, but not kept for retransmission.
    pub packets_not_kept: u64,
}

/// Counters of one consumer. `packets_in = packets_forwarded + Σ dropped`, at every moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConsumerStats {
    /// The consumer.
    pub consumer: ConsumerId,
    /// Whether the consumer itself is paused.
    pub paused: bool,
    /// Whether its producer is paused.
    pub source_paused: bool,
    /// What it is sent.
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
    pub dropped: Vec<(DropReason, u64)>,
    /// How often the profile changed, with the change to the first one.
    pub switches: u64,
    /// The SSRC it is sent under.
    pub ssrc: u32,
    /// The codec of the packet sent last.
    pub codec: Option<CodecName>,
    /// Packets sent again. They are not in `packets_forwarded`.
    pub packets_retransmitted: u64,
    /// The bytes of these packets, with RTP headers.
    pub bytes_retransmitted: u64,
    /// Packets that the receiver asked for again and did not get, by reason. Reasons with a count of 0 are left out.
    pub not_repaired: Vec<(NotRepaired, u64)>,
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
    /// From here to the receiver and back, in microseconds; `None` until a report tells.
    pub round_trip_us: Option<u32>,
    /// The last extended sequence number sent.
    pub last_seq: Option<u64>,
    /// The consumer's own payload type of the packet sent last, which names the codec where `codec` cannot.
    pub payload_type: Option<u8>,
}

/// Why a packet was not forwarded to a consumer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DropReason {
    /// The consumer is paused.
    ConsumerPaused,
    /// The producer is paused.
    ProducerPaused,
    /// The packet belongs to another profile than the one that flows.
    OtherProfile,
    /// Video starts, resumes and switches on a key frame only, and none has come.
    AwaitingKeyFrame,
    /// Late, from before the packet on which this consumer started or switched.
    BeforeSwitch,
    /// Seen already.
    Duplicate,
    /// So far from the stream's sequence that it was not believed (RFC 3550 appendix A.1).
    BadSequence,
    /// The consumer has no payload type for this codec.
    UnsupportedPayloadType,
    /// The transport has no remote yet.
    NoRemote,
    /// The socket did not take it and the backlog was full.
    BacklogFull,
    /// The kernel refused it.
    SendFailed,
    /// Nothing but padding: it has served its sender, and nobody else needs it.
    Padding,
}

impl DropReason {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 12] = [
        Self::ConsumerPaused,
        Self::ProducerPaused,
        Self::OtherProfile,
        Self::AwaitingKeyFrame,
        Self::BeforeSwitch,
        Self::Duplicate,
        Self::BadSequence,
        Self::UnsupportedPayloadType,
        Self::NoRemote,
        Self::BacklogFull,
        Self::SendFailed,
        Self::Padding,
    ];
}

/// Why a packet that a receiver asked for was not sent again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum NotRepaired {
    /// It was never sent to this consumer.
    NeverSent,
    /// It was never received either, or has not come yet.
    NotReceived,
    /// It is too old to be of use, or had to make room for newer ones.
    TooOld,
    /// It was sent again less than a round trip ago.
    TooSoon,
    /// Too much was sent again lately.
    OverBudget,
    /// The socket did not take it.
    SendFailed,
}

impl NotRepaired {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 6] = [
        Self::NeverSent,
        Self::NotReceived,
        Self::TooOld,
        Self::TooSoon,
        Self::OverBudget,
        Self::SendFailed,
    ];
}
