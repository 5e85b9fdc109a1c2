//! Counters, as they travel: of workers, transports, producers and consumers.

use serde::{Deserialize, Serialize};

use crate::id::{ConsumerId, ProducerId, TransportId};

use super::counts::{Counts, Histogram, Sum, reasons};
use super::create::Remote;
use super::media::Profile;
use super::webrtc::{WebRtcFailureReason, WebRtcStats};

/// What kind of number a counter is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CounterKind {
    /// How many there are at the moment.
    Gauge,
    /// How many there have been since the worker started.
    Counter,
    /// The same of what should not happen.
    Fault,
}

/// A counter of [`WorkerStats`], for those that show all of them alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    /// Its name, with underscores.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// What kind of number it is.
    pub kind: CounterKind,
}

/// Declares the counters of a worker: what travels, what is shown, and what is added up, are all made from this list.
macro_rules! worker_stats {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident,)+ and
     $($(#[$other_meta:meta])+ $other:ident: $type:ty,)+) => {
        /// Counters of one worker since it started, or of several together.
        #[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub struct WorkerStats {
            $($(#[doc = $help])+ pub $name: u64,)+
            $($(#[$other_meta])+ pub $other: $type,)+
        }

        impl WorkerStats {
            /// Adds another worker's counters.
            pub fn add(&mut self, other: &Self) {
                $(self.$name.add_up(&other.$name);)+
                $(self.$other.add_up(&other.$other);)+
            }

            /// The counters that are one number, each with what is to be said of it.
            pub fn counters(&self) -> impl Iterator<Item = (Counter, u64)> {
                [$((
                    Counter {
                        name: stringify!($name),
                        help: concat!($($help),+).trim_ascii(),
                        kind: CounterKind::$kind,
                    },
                    self.$name,
                )),+].into_iter()
            }
        }
    };
}

worker_stats! {
    /// Living rooms.
    Gauge rooms,
    /// Living transports.
    Gauge transports,
    /// Living producers.
    Gauge producers,
    /// Living consumers.
    Gauge consumers,
    /// RTP and RTCP packets received by all transports.
    Counter packets_received,
    /// Their UDP payload bytes.
    Counter bytes_received,
    /// Packets given to the kernel.
    Counter packets_sent,
    /// Their UDP payload bytes.
    Counter bytes_sent,
    /// Packets the kernel dropped because a socket's receive buffer was full (SO_RXQ_OVFL).
    Fault kernel_drops,
    /// Calls into the kernel that received.
    Counter receive_calls,
    /// Calls into the kernel that sent.
    Counter send_calls,
    /// Calls that waited for something to do.
    Counter wait_calls,
    /// Trains the kernel or the device refused to segment; sent as single packets instead.
    Counter gso_refusals,
    /// Log lines dropped.
    Fault log_lines_dropped,
    /// Turns of the event loop.
    Counter turns,
    /// Turns that waited in the coalescing window.
    Counter coalesced_turns,
    /// User and system CPU time, in nanoseconds.
    Counter cpu_ns,
    /// Resident memory, in bytes.
    Gauge resident_bytes,
    /// Packets and connections that came by a shared port (`webrtc_port`) and were for no transport.
    Counter unrouted,
    /// Parsers of network input that have panicked. Each took one session or packet with it, and is a bug that should be reported.
    Fault contained_panics,
    and
    /// Time from a packet's arrival at the socket to its hand-over to the kernel; `null` when it is not measured.
    #[serde(rename = "residenceUs")]
    residence: Option<Histogram>,
    /// What failed in ICE and DTLS of all WebRTC transports, by reason; reasons that never happened are left out.
    webrtc_failures: Counts<WebRtcFailureReason>,
}

/// A page of counters.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatsPage {
    /// Transports of this page.
    pub transports: Vec<TransportStats>,
    /// Producers of this page.
    pub producers: Vec<ProducerStats>,
    /// Consumers of this page.
    pub consumers: Vec<ConsumerStats>,
    /// Where the next page starts; `null` on the last one.
    pub next: Option<u64>,
}

/// Counters of one transport.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    pub unrouted: Counts<UnroutedReason>,
    /// Packets the kernel dropped because the socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Packets that wait for the socket to become writable.
    pub backlog_packets: u64,
    /// What its senders may send in all, in bits per second; `null`: as much as they like.
    pub max_bitrate_bps: Option<u64>,
    /// What the remote said last that it can receive (REMB), in bits per second; `null`: it has said nothing.
    pub remote_bitrate_bps: Option<u64>,
    /// Copies of packets that were sent elsewhere.
    pub packets_mirrored: u64,
    /// Copies that could not be sent.
    pub mirror_failures: u64,
    /// Of a WebRTC transport; `null` for plain RTP.
    pub webrtc: Option<WebRtcStats>,
    /// How often a `comedia` transport has gone over to another port of its remote's IP.
    pub remotes_relearned: u64,
}

reasons! {
    /// Why a received packet reached no producer.
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
}

/// Counters of one producer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StreamStats {
    /// Its SSRC at the moment; 0 as long as none is known.
    pub ssrc: u32,
    /// The codec of its last packet, e.g. `VP8`: as the worker knows it, or else, once the server has named it, as it was declared.
    pub codec: Option<String>,
    /// Which profile it is.
    pub profile: Profile,
    /// Whether packets have come lately (differences §2.8).
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
    /// Lost at first, then received after all because they were asked for.
    pub packets_repaired: u64,
    /// Retransmissions (RFC 4588) that repaired nothing: of packets that had come already, or that make no sense.
    pub rtx_useless: u64,
    /// Of the packets expected between the last two reports, how many were lost on the way, repaired or not, in 1/256.
    pub fraction_lost: u8,
    /// Interarrival jitter (RFC 3550 §6.4.1), in units of the RTP clock.
    pub jitter: u32,
    /// From here to the sender and back, in microseconds; `null` until it is known.
    pub round_trip_us: Option<u32>,
    /// Packets of negative acknowledgements sent.
    pub nack_count: u64,
    /// Packets that were asked for in them, each time counted.
    pub packets_nacked: u64,
    /// Picture loss indications sent.
    pub pli_count: u64,
    /// Full intra requests sent.
    pub fir_count: u64,
    /// Received while the producer was paused, and so not relayed.
    pub packets_paused: u64,
    /// The payload type of its last packet.
    pub payload_type: Option<u8>,
    /// How often its sender went over to another SSRC.
    pub ssrc_changes: u64,
    /// Longer than 16 KiB: relayed, but not kept, and so never sent again to a receiver that asks.
    pub packets_not_kept: u64,
}

/// Counters of one consumer. `packetsIn` is `packetsForwarded` and all of `dropped` together, at every moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    pub dropped: Counts<DropReason>,
    /// Switches from one profile to another (or to the first one).
    pub switches: u64,
    /// The SSRC it is sent under.
    pub ssrc: u32,
    /// The codec of the packet sent last, e.g. `VP8`, named as a stream's.
    pub codec: Option<String>,
    /// Packets sent again. They are not in `packetsForwarded`.
    pub packets_retransmitted: u64,
    /// Their bytes, RTP headers included.
    pub bytes_retransmitted: u64,
    /// Packets that the receiver asked for and did not get again, by reason; reasons that never happened are left out.
    pub not_repaired: Counts<NotRepaired>,
    /// Packets of negative acknowledgements received.
    pub nack_count: u64,
    /// Picture loss indications received.
    pub pli_count: u64,
    /// Full intra requests received.
    pub fir_count: u64,
    /// Lost on the way to the receiver, as it said last (RFC 3550 §6.4.1); negative when duplicates outnumber losses.
    pub packets_lost: i32,
    /// Of the packets between its last two reports, how many it lost, in 1/256.
    pub fraction_lost: u8,
    /// Interarrival jitter at the receiver, in units of the RTP clock.
    pub jitter: u32,
    /// From here to the receiver and back, in microseconds; `null` until a report tells.
    pub round_trip_us: Option<u32>,
    /// The last sequence number sent, extended to 64 bits.
    pub last_seq: Option<u64>,
    /// The consumer's own payload type of the packet sent last.
    pub payload_type: Option<u8>,
}

reasons! {
    /// Why a packet was not forwarded to a consumer.
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
}

reasons! {
    /// Why a packet that a receiver asked for was not sent again.
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
}
