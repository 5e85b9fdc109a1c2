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
    /// How many there have been since the worker's first process started.
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
        /// The counters of one worker since its first process started, or the sum of several workers. What processes counted that have
        /// died since is in them, but for what the last of them counted in its last second.
        #[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub struct WorkerStats {
            $($(#[doc = $help])+ pub $name: u64,)+
            $($(#[$other_meta])+ pub $other: $type,)+
        }

        impl WorkerStats {
            /// How many of the counters are one number.
            const NUMBERS: usize = [$(stringify!($name)),+].len();

            fn numbers_mut(&mut self) -> [(CounterKind, &mut u64); Self::NUMBERS] {
                [$((CounterKind::$kind, &mut self.$name)),+]
            }

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
    /// Rooms that exist now.
    Gauge rooms,
    /// Transports that exist now.
    Gauge transports,
    /// Producers that exist now.
    Gauge producers,
    /// Consumers that exist now.
    Gauge consumers,
    /// RTP and RTCP packets received by all transports.
    Counter packets_received,
    /// The UDP payload bytes of these packets.
    Counter bytes_received,
    /// Packets given to the kernel.
    Counter packets_sent,
    /// The UDP payload bytes of these packets.
    Counter bytes_sent,
    /// Packets the kernel dropped because a socket's receive buffer was full.
    Fault kernel_drops,
    /// Calls into the kernel to receive packets.
    Counter receive_calls,
    /// Calls into the kernel to send packets.
    Counter send_calls,
    /// Calls that waited for events (epoll).
    Counter wait_calls,
    /// Trains of packets that the kernel or the device refused to segment (GSO).
    Counter gso_refusals,
    /// Packets that were padded to be as long as others of their train (`equalize_packets`).
    Counter packets_padded,
    /// The bytes that were added to these packets.
    Counter padding_bytes,
    /// Log lines that were dropped.
    Fault log_lines_dropped,
    /// Turns of the event loop.
    Counter turns,
    /// Turns of the event loop that began later than they could have, so that more packets came (coalescing window).
    Counter coalesced_turns,
    /// CPU time spent looking for packets instead of sleeping (`spinUsMax`), in nanoseconds; part of `cpuNs`.
    Counter spun_ns,
    /// User and system CPU time, in nanoseconds.
    Counter cpu_ns,
    /// Resident memory in bytes.
    Gauge resident_bytes,
    /// Packets and connections on a shared port (`webrtc_port`) that belong to no transport.
    Counter unrouted,
    /// Panics in parsers of network input. Each has cost one session or packet, and is a bug that should be reported.
    Fault contained_panics,
    /// Packets of producers, counted once for each consumer: `packetsForwarded` and all of `dropped` together. Like all that
    /// follows, it is what was true about a second ago.
    Counter packets_offered,
    /// Those of them that were handed to the consumers' transports.
    Counter packets_forwarded,
    /// Packets that receivers asked for again and were sent again.
    Counter packets_retransmitted,
    /// Packets that senders were asked for again. Every request counts.
    Counter packets_requested,
    /// Lost packets that arrived after they were requested again.
    Counter packets_repaired,
    /// RTCP packets with negative acknowledgements (NACK) received.
    Counter nacks_received,
    /// RTCP packets with negative acknowledgements (NACK) sent.
    Counter nacks_sent,
    /// Picture loss indications received.
    Counter plis_received,
    /// Picture loss indications sent.
    Counter plis_sent,
    /// Full intra requests received.
    Counter firs_received,
    /// Full intra requests sent.
    Counter firs_sent,
    /// Key frames received.
    Counter key_frames_received,
    and
    /// The residence time of packets, from arrival at the socket to the call that sends them; `null` if it is not
    /// measured.
    #[serde(rename = "residenceUs")]
    residence: Option<Histogram>,
    /// Failures in ICE and DTLS of all WebRTC transports, by reason. Reasons with a count of 0 are left out.
    webrtc_failures: Counts<WebRtcFailureReason>,
    /// What `unrouted` counts, by reason. Reasons with a count of 0 are left out.
    unrouted_reasons: Counts<UnroutedReason>,
    /// Packets that were not forwarded to consumers, by reason. Reasons with a count of 0 are left out.
    dropped: Counts<DropReason>,
    /// Packets that receivers asked for again and did not get, by reason. Reasons with a count of 0 are left out.
    not_repaired: Counts<NotRepaired>,
    /// Packets on transports that belong to no producer, by reason. Reasons with a count of 0 are left out.
    transports_unrouted: Counts<UnroutedReason>,
}

impl WorkerStats {
    /// How many words [`WorkerStats::to_words`] makes.
    pub const WORDS: usize = Self::NUMBERS
        + WebRtcFailureReason::ALL.len()
        + 2 * UnroutedReason::ALL.len()
        + DropReason::ALL.len()
        + NotRepaired::ALL.len();

    /// What was counted: what a worker leaves to be added to what its successor counts. Gauges are 0, and the residence time is left out.
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let numbers = self.counters().map(|(counter, number)| match counter.kind {
            CounterKind::Gauge => 0,
            CounterKind::Counter | CounterKind::Fault => number,
        });
        let by_reason = WebRtcFailureReason::ALL
            .map(|reason| self.webrtc_failures.of(reason))
            .into_iter()
            .chain(UnroutedReason::ALL.map(|reason| self.unrouted_reasons.of(reason)))
            .chain(DropReason::ALL.map(|reason| self.dropped.of(reason)))
            .chain(NotRepaired::ALL.map(|reason| self.not_repaired.of(reason)))
            .chain(UnroutedReason::ALL.map(|reason| self.transports_unrouted.of(reason)));
        let mut words = [0; Self::WORDS];
        for (word, count) in words.iter_mut().zip(numbers.chain(by_reason)) {
            *word = count;
        }
        words
    }

    /// From what [`WorkerStats::to_words`] has made.
    pub fn from_words(words: &[u64; Self::WORDS]) -> Self {
        let mut stats = Self::default();
        let mut words = words.iter().copied();
        for ((kind, number), word) in stats.numbers_mut().into_iter().zip(&mut words) {
            *number = if kind == CounterKind::Gauge { 0 } else { word };
        }
        stats.webrtc_failures = WebRtcFailureReason::ALL.into_iter().zip(&mut words).collect();
        stats.unrouted_reasons = UnroutedReason::ALL.into_iter().zip(&mut words).collect();
        stats.dropped = DropReason::ALL.into_iter().zip(&mut words).collect();
        stats.not_repaired = NotRepaired::ALL.into_iter().zip(&mut words).collect();
        stats.transports_unrouted = UnroutedReason::ALL.into_iter().zip(&mut words).collect();
        stats
    }
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
    /// The start of the next page; `null` on the last one, and always over HTTP, which has no pages.
    pub next: Option<u64>,
}

/// Counters of one transport.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Packets that belong to no producer, and connections that belong to no client, by reason. Reasons with a count of 0 are
    /// left out.
    pub unrouted: Counts<UnroutedReason>,
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
        /// Longer than the worker relays, or than a connectivity check can be.
        TooLong,
        /// Before the peer has proven who it is, or after the end.
        NotConnected,
        /// SRTP that was not made with the peer's keys.
        NotAuthentic,
        /// SRTP that has been received before, or is too old to tell; or a connectivity check that came from another address before.
        Replayed,
        /// A connectivity check that was refused or that says nothing.
        BadCheck,
        /// STUN or DTLS beyond what may be spent on them.
        Flood,
        /// From where `comedia` may learn a remote, and before the sender has shown enough for that. Packets that are relayed once
        /// it has are not counted here any more.
        Unproven,
        /// A TCP connection without a valid connectivity check that was closed to make room for another one.
        ConnectionEvicted,
        /// A TCP connection by which no valid connectivity check came in time.
        ConnectionSilent,
        /// From a source that is in quarantine, because worker processes died of its packets.
        Quarantined,
        /// It had waited in the socket for seconds, because there was no worker process to read it.
        Stale,
    }
}

/// Counters of one producer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// The payload type of its last packet.
    pub payload_type: Option<u8>,
    /// How often the sender changed its SSRC.
    pub ssrc_changes: u64,
    /// Packets longer than 16 KiB. They are relayed, but not kept for retransmission.
    pub packets_not_kept: u64,
}

/// Counters of one consumer. `packetsIn` is `packetsForwarded` and all of `dropped` together, at every moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    pub dropped: Counts<DropReason>,
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
    pub not_repaired: Counts<NotRepaired>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn residence(counts: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for (value, count) in counts {
            let index = Histogram::index_of(*value);
            histogram.counts.resize(histogram.counts.len().max(index + 1), 0);
            histogram.counts[index] += count;
        }
        histogram
    }

    #[test]
    fn sums_are_of_all_packets() {
        let stats = |residence| WorkerStats {
            packets_sent: 5,
            webrtc_failures: Counts::from([(WebRtcFailureReason::CertificateTooLong, 1)]),
            residence,
            ..WorkerStats::default()
        };
        let (fast, slow) = (residence(&[(64_000, 60)]), residence(&[(64_000, 30), (1_024_000, 10)]));
        let mut sum = WorkerStats::default();
        for residence in [None, Some(fast.clone()), Some(slow), None] {
            sum.add(&stats(residence));
        }
        assert_eq!(sum.packets_sent, 20);
        assert_eq!(sum.webrtc_failures.of(WebRtcFailureReason::CertificateTooLong), 4);
        assert_eq!(sum.residence, Some(residence(&[(64_000, 90), (1_024_000, 10)])));
        assert_ne!(sum.residence, Some(fast));
    }

    #[test]
    fn words_hold_what_was_counted() {
        let mut stats = WorkerStats::from_words(&std::array::from_fn(|place| place as u64 + 1));
        assert_eq!((stats.rooms, stats.resident_bytes), (0, 0), "gauges");
        assert!(stats.packets_sent > 0 && stats.webrtc_failures.len() == WebRtcFailureReason::ALL.len());
        assert_eq!(
            stats.transports_unrouted.last().map(|(_, count)| *count),
            Some(WorkerStats::WORDS as u64)
        );
        let words = stats.to_words();
        assert_eq!(WorkerStats::from_words(&words), stats);
        let gauges = stats
            .counters()
            .filter(|(counter, _)| counter.kind == CounterKind::Gauge);
        assert_eq!(words.iter().filter(|word| **word == 0).count(), gauges.count());
        stats.rooms = 5;
        assert_eq!(stats.to_words(), words);
    }

    #[test]
    fn every_reason_has_a_name() {
        fn names<R: Copy + Ord + Serialize>(all: &[R]) -> usize {
            let counts: Counts<R> = all.iter().map(|reason| (*reason, 1)).collect();
            let json = serde_json::to_value(counts).expect("it can be written");
            json.as_object().expect("an object").len()
        }
        assert_eq!(names(&DropReason::ALL), DropReason::ALL.len());
        assert_eq!(names(&UnroutedReason::ALL), UnroutedReason::ALL.len());
        assert_eq!(names(&NotRepaired::ALL), NotRepaired::ALL.len());
    }

    #[test]
    fn each_counter_has_a_name_a_help_and_its_number() {
        let stats = WorkerStats {
            rooms: 3,
            kernel_drops: 7,
            ..WorkerStats::default()
        };
        let counters: Vec<_> = stats.counters().collect();
        let of = |name| {
            counters
                .iter()
                .find(|(counter, _)| counter.name == name)
                .map(|(counter, count)| (counter.kind, *count))
        };
        assert_eq!(of("rooms"), Some((CounterKind::Gauge, 3)));
        assert_eq!(of("kernel_drops"), Some((CounterKind::Fault, 7)));
        assert!(
            counters
                .iter()
                .all(|(counter, _)| counter.help.ends_with(['.', '`', ')'])),
            "{counters:?}"
        );
    }

    #[test]
    fn counts_are_the_same_after_json_and_back() {
        let stats = WorkerStats {
            webrtc_failures: Counts::from([(WebRtcFailureReason::CertificateTooLong, 2)]),
            ..WorkerStats::default()
        };
        let json = serde_json::to_value(&stats).expect("it can be written");
        assert_eq!(json["webrtcFailures"], serde_json::json!({ "certificateTooLong": 2 }));
        let counts: Counts<WebRtcFailureReason> =
            serde_json::from_value(json["webrtcFailures"].clone()).expect("it can be read");
        assert_eq!(counts, stats.webrtc_failures);
    }
}
