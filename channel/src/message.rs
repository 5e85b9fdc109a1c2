//! Every message that crosses the channel, in the order of a conversation: [`Hello`], [`Request`], [`Response`],
//! [`Notification`].
//!
//! A worker's desired state is the list of the [`Method`]s that made it: the supervisor keeps those very values and can
//! replay them into a fresh worker. Wire types hold no recursion and no collection of zero-sized elements (bincode
//! 2.0.1 defends against neither), and every collection is bounded by the frame limit.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::id::{ConsumerId, ProducerId, RequestId, RoomId, TransportId, WorkerId};

/// The protocol's version. Both ends must name the same one in their [`Hello`].
pub const PROTOCOL_VERSION: u32 = 1;

/// What travels in one frame.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// The first frame each way.
    Hello(Hello),
    /// Supervisor to worker.
    Request(Request),
    /// Worker to supervisor, exactly one for each request.
    Response(Response),
    /// Worker to supervisor, unasked.
    Notification(Notification),
}

/// Who is speaking; the first frame each way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol: u32,
    /// The sender's build, e.g. `0.1.0`; shown in errors and logs, never compared.
    pub build: String,
    /// The worker this channel belongs to.
    pub worker: WorkerId,
    /// The sender's process id.
    pub pid: u32,
}

/// A moment on the machine's monotonic clock, in nanoseconds; the same for both processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Deadline(pub u64);

impl Deadline {
    /// The moment `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        Self(monotonic_ns().saturating_add(timeout_ns))
    }

    /// Whether the moment has passed.
    pub fn has_passed(self) -> bool {
        monotonic_ns() >= self.0
    }
}

/// CLOCK_MONOTONIC in nanoseconds. The worker's batches read the same clock, so one number serves both.
fn monotonic_ns() -> u64 {
    // The call cannot fail for this clock on Linux; a zero would only make deadlines generous.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A command from the supervisor. The worker answers it with one [`Response`] of the same id.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Unique on this channel.
    pub id: RequestId,
    /// A worker that reads the request later than this answers [`WorkerError::DeadlinePassed`] and does nothing.
    pub deadline: Deadline,
    /// What to do.
    pub method: Method,
}

/// What the supervisor can ask of a worker.
///
/// Descriptors that a method needs travel in the same frame, in the order its documentation names.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "fields are the ids and values that the variant's own line names"
)]
pub enum Method {
    /// Are you alive? Answered from the worker's event loop, so that a hung worker does not answer.
    Ping,
    /// Changes how much the worker logs.
    SetLogFilter(LogFilter),
    /// Changes how the worker trades delay for fewer calls into the kernel.
    SetCoalescing(Coalescing),
    /// Makes the router of a room.
    CreateRouter { room: RoomId },
    /// Closes a router with everything in it.
    CloseRouter { room: RoomId },
    /// Makes a plain RTP transport. Descriptors: the RTP port's two sockets ("door", then "path"; see
    /// [`CreatePlainTransport`]), then, without `rtcp_mux`, the RTCP port's two.
    CreatePlainTransport(CreatePlainTransport),
    /// Gives a plain transport its remote address, or another one.
    SetRemote { transport: TransportId, remote: Remote },
    /// Closes a transport with its producers (and their consumers) and its own consumers.
    CloseTransport { transport: TransportId },
    /// Makes a producer on a transport.
    CreateProducer(CreateProducer),
    /// Stops relaying a producer; its packets are still received and counted.
    PauseProducer { producer: ProducerId },
    /// Relays a producer again.
    ResumeProducer { producer: ProducerId },
    /// Sets the profile its consumers follow where they have no preference of their own.
    SetProducerPreferredProfile { producer: ProducerId, profile: Profile },
    /// Closes a producer and its consumers.
    CloseProducer { producer: ProducerId },
    /// Makes a consumer of a producer, sending on a transport of the same room.
    CreateConsumer(CreateConsumer),
    /// Stops sending to a consumer.
    PauseConsumer { consumer: ConsumerId },
    /// Sends to a consumer again; video from its next key frame.
    ResumeConsumer { consumer: ConsumerId },
    /// Caps the profile a consumer gets; [`Profile::Default`] removes the cap.
    SetConsumerPreferredProfile { consumer: ConsumerId, profile: Profile },
    /// Asks the consumer's producer for a key frame.
    RequestKeyFrame { consumer: ConsumerId },
    /// Closes a consumer.
    CloseConsumer { consumer: ConsumerId },
    /// The counters of the whole worker.
    WorkerStats,
    /// One page of a room's counters. Pages are asked for until one comes back without `next`.
    RoomStats { room: RoomId, page: Page },
    /// The counters of one transport, as a page with one entry.
    TransportStats { transport: TransportId },
    /// The counters of one producer, as a page with one entry.
    ProducerStats { producer: ProducerId },
    /// The counters of one consumer, as a page with one entry.
    ConsumerStats { consumer: ConsumerId },
    /// One page of everything the worker knows of a room, for humans.
    RoomDump { room: RoomId, page: Page },
    /// Answer, send what is queued, and exit with success.
    Shutdown,
}

/// Where a paged answer starts: the cursor of the page before, or the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// `None` for the first page, then the `next` of the page before.
    pub cursor: Option<u64>,
}

/// How much a worker logs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogFilter {
    /// A `tracing_subscriber` filter directive list, such as `warn,weir_worker::relay=debug`; at most 1,000 bytes.
    pub directives: String,
}

/// How long packets may wait for others of their train under load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coalescing {
    /// The longest wait in microseconds, at most 1,000; 0 switches coalescing off.
    pub window_us_max: u32,
    /// Whether to stamp arrivals and keep the residence-time histogram. Costs a clock read per packet sent.
    pub measure_residence: bool,
}

/// A plain RTP transport: RTP and RTCP over UDP, unencrypted.
///
/// Each port is two sockets bound to the same address. The *path* is connected to the remote and carries the media; the
/// *door* stays unconnected and sees what strangers send, so that it can be counted and, with `comedia`, learned from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreatePlainTransport {
    /// The router it belongs to.
    pub room: RoomId,
    /// Its new id.
    pub transport: TransportId,
    /// Where to send, if known already.
    pub remote: Option<Remote>,
    /// Learn the remote from the first valid packet and lock on to it. Not together with `remote`.
    pub comedia: bool,
    /// RTP and RTCP share one port (RFC 5761).
    pub rtcp_mux: bool,
}

/// The other end of a plain transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)] // in JSON, where a typo must not pass for "no RTCP address"
pub struct Remote {
    /// Where RTP goes (and RTCP, if muxed).
    pub rtp: SocketAddr,
    /// Where RTCP goes when the transport has a port of its own for it.
    pub rtcp: Option<SocketAddr>,
}

/// Audio or video.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Audio => "audio",
            Self::Video => "video",
        })
    }
}

/// One quality of a producer, or a wish for one (spec §4). Ordered from the lowest up.
///
/// As a quality on offer, `Default` is the only stream of a producer without simulcast. As a wish, `Default` is "the
/// highest available", and the others are caps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The only stream; as a wish, the highest.
    #[default]
    Default,
    /// The lowest of the simulcast layers.
    Low,
    /// The middle one.
    Medium,
    /// The highest.
    High,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

/// The codecs a worker relays. Names are the media subtypes of their RTP payload formats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum CodecName {
    /// RFC 7587.
    Opus,
    /// RFC 3551 §4.5.14.
    Pcmu,
    /// RFC 3551 §4.5.14.
    Pcma,
    /// RFC 3551 §4.5.2; its RTP clock runs at 8,000 Hz although it samples at 16,000.
    G722,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// The AV1 RTP payload specification of the Alliance for Open Media.
    Av1,
}

impl CodecName {
    /// Which kind of media it carries.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Opus | Self::Pcmu | Self::Pcma | Self::G722 => MediaKind::Audio,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 | Self::Av1 => MediaKind::Video,
        }
    }

    /// The media subtype as it is written in `a=rtpmap`, e.g. `VP8`.
    pub fn subtype(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Av1 => "AV1",
        }
    }

    /// The codec with this subtype, whatever its case.
    pub fn from_subtype(subtype: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.subtype().eq_ignore_ascii_case(subtype))
    }

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Opus,
        Self::Pcmu,
        Self::Pcma,
        Self::G722,
        Self::Vp8,
        Self::Vp9,
        Self::H264,
        Self::H265,
        Self::Av1,
    ];
}

/// A codec of a producer, under the producer's own payload type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Codec {
    /// 0..=127, except 64..=95 (RFC 5761 §4: those collide with RTCP).
    pub payload_type: u8,
    /// Which codec.
    pub name: CodecName,
    /// RTP clock, in Hz.
    pub clock_rate: u32,
    /// The sender answers picture loss indications (RFC 4585 §6.3.1).
    pub pli: bool,
    /// The sender answers full intra requests (RFC 5104 §4.3.1).
    pub fir: bool,
}

/// One stream of a producer, and how to recognise it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Encoding {
    /// Known in advance, or learned through `mid` or `rid`.
    pub ssrc: Option<u32>,
    /// The RTP stream id (RFC 8852), at most 32 bytes.
    pub rid: Option<String>,
    /// Which profile the stream is.
    pub profile: Profile,
}

/// The RTP header extensions the worker knows (RFC 8285); others are never relayed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ExtensionUri {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`; read for routing, never relayed.
    Mid,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`; read for routing, never relayed.
    RtpStreamId,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`; never relayed.
    RepairedRtpStreamId,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    AudioLevel,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    AbsSendTime,
    /// `urn:ietf:params:rtp-hdrext:toffset` (RFC 5450).
    TransmissionOffset,
    /// `urn:3gpp:video-orientation`
    VideoOrientation,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`; hop by hop, never relayed.
    TransportWideCc,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`
    AbsCaptureTime,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`
    PlayoutDelay,
    /// The AV1 dependency descriptor.
    DependencyDescriptor,
}

impl ExtensionUri {
    /// All of them, in the order of the enum, so that `uri as usize` indexes tables.
    pub const ALL: [Self; 11] = [
        Self::Mid,
        Self::RtpStreamId,
        Self::RepairedRtpStreamId,
        Self::AudioLevel,
        Self::AbsSendTime,
        Self::TransmissionOffset,
        Self::VideoOrientation,
        Self::TransportWideCc,
        Self::AbsCaptureTime,
        Self::PlayoutDelay,
        Self::DependencyDescriptor,
    ];

    /// The URI as it is written in `a=extmap`.
    pub fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::RtpStreamId => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRtpStreamId => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::TransportWideCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
        }
    }

    /// The extension with this URI.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }

    /// Whether its value means anything beyond the hop it arrived on.
    pub fn is_relayed(self) -> bool {
        !matches!(
            self,
            Self::Mid | Self::RtpStreamId | Self::RepairedRtpStreamId | Self::TransportWideCc
        )
    }
}

/// A header extension under a local identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeaderExtension {
    /// 1..=14 (the one-byte form of RFC 8285 §4.2 has no more; it is what every sender of today uses).
    pub id: u8,
    /// What it means.
    pub uri: ExtensionUri,
}

/// A producer: one track that somebody sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateProducer {
    /// The router it belongs to.
    pub room: RoomId,
    /// The transport it arrives on.
    pub transport: TransportId,
    /// Its new id.
    pub producer: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// The media id it may be recognised by (RFC 8843 §15), at most 32 bytes.
    pub mid: Option<String>,
    /// The codecs it may send, 1 to 16.
    pub codecs: Vec<Codec>,
    /// Its streams, 1 to 3: one with [`Profile::Default`], or simulcast layers with distinct other profiles.
    pub encodings: Vec<Encoding>,
    /// Under the producer's own ids.
    pub header_extensions: Vec<HeaderExtension>,
    /// See [`Method::SetProducerPreferredProfile`].
    pub preferred_profile: Profile,
    /// Start paused.
    pub paused: bool,
}

/// A consumer: one producer as somebody receives it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateConsumer {
    /// The router it belongs to.
    pub room: RoomId,
    /// The transport it leaves on.
    pub transport: TransportId,
    /// What it consumes.
    pub producer: ProducerId,
    /// Its new id.
    pub consumer: ConsumerId,
    /// The one SSRC it is sent under, whichever profile flows; unique on its transport.
    pub ssrc: u32,
    /// (producer's payload type, consumer's payload type); packets of other payload types are dropped and counted.
    pub payload_types: Vec<(u8, u8)>,
    /// Under the consumer's ids; what is not listed is not readable for the receiver.
    pub header_extensions: Vec<HeaderExtension>,
    /// See [`Method::SetConsumerPreferredProfile`].
    pub preferred_profile: Profile,
    /// Start paused.
    pub paused: bool,
}

/// The one answer to a [`Request`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Response {
    /// Of the request.
    pub id: RequestId,
    /// What came of it.
    pub result: Result<Reply, WorkerError>,
}

/// What a worker answers when it did as asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done (also when there was nothing to do: pausing what is paused).
    Done,
    /// A consumer exists now.
    ConsumerCreated {
        /// Its producer is paused at the moment.
        source_paused: bool,
    },
    /// To [`Method::WorkerStats`].
    WorkerStats(WorkerStats),
    /// To the other methods that ask for counters.
    Stats(StatsPage),
    /// To [`Method::RoomDump`].
    Dump(DumpPage),
}

/// Why a worker refused. It changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant says it")] // each variant says it in its message
pub enum WorkerError {
    #[error("no such {0}")]
    UnknownRoom(RoomId),
    #[error("no such {0}")]
    UnknownTransport(TransportId),
    #[error("no such {0}")]
    UnknownProducer(ProducerId),
    #[error("no such {0}")]
    UnknownConsumer(ConsumerId),
    #[error("{0} exists already")]
    DuplicateRoom(RoomId),
    #[error("{0} exists already")]
    DuplicateTransport(TransportId),
    #[error("{0} exists already")]
    DuplicateProducer(ProducerId),
    #[error("{0} exists already")]
    DuplicateConsumer(ConsumerId),
    #[error("{entity} belongs to another room than {room}")]
    OtherRoom { entity: String, room: RoomId },
    #[error("SSRC {ssrc} is in use by {owner} on {transport}; choose another")]
    SsrcInUse {
        ssrc: u32,
        owner: String,
        transport: TransportId,
    },
    #[error("mid {mid:?} is in use by {owner} on {transport}; choose another")]
    MidInUse {
        mid: String,
        owner: ProducerId,
        transport: TransportId,
    },
    #[error("{0}")]
    InvalidParameters(String),
    #[error("the deadline passed before the worker read the request")]
    DeadlinePassed,
    #[error("the request needs {expected} descriptors, {received} came with it")]
    Descriptors { expected: u8, received: u8 },
    #[error("the worker is at its limit of {limit} {noun}")]
    TooMany { noun: String, limit: u32 },
    #[error("{call}: {reason}")]
    Os { call: String, reason: String },
}

/// What a worker says unasked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "fields are the ids and values that the variant's own line names"
)]
pub enum Notification {
    /// A `comedia` transport has learned its remote and is locked on to it.
    RemoteLearned { transport: TransportId, remote: Remote },
    /// What a consumer is sent has changed; `None`: nothing, until another profile's key frame comes.
    EffectiveProfileChanged {
        consumer: ConsumerId,
        profile: Option<Profile>,
    },
    /// A line of the worker's log.
    Log(LogLine),
    /// This many log lines found no room in the queue since the last time.
    LogLinesDropped { count: u64 },
}

/// A line of a worker's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// How bad.
    pub level: LogLevel,
    /// The module that wrote it.
    pub target: String,
    /// What it wrote, with its fields; at most 4,096 bytes.
    pub text: String,
}

/// Levels of a log line, as in `tracing`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each variant says it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Counters of one worker since it started.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Numbers of living objects.
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
    /// Packets the kernel dropped because a socket's receive buffer was full (SO_RXQ_OVFL).
    pub kernel_drops: u64,
    /// Calls into the kernel that received.
    pub receive_calls: u64,
    /// Calls into the kernel that sent.
    pub send_calls: u64,
    /// Calls that waited for something to do.
    pub wait_calls: u64,
    /// Trains the kernel or the device refused to segment; sent as single packets instead.
    pub gso_refusals: u64,
    /// Log lines dropped.
    pub log_lines_dropped: u64,
    /// Turns of the event loop.
    pub turns: u64,
    /// Turns that waited in the coalescing window.
    pub coalesced_turns: u64,
    /// User and system CPU time of the worker, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Time from a packet's arrival at the socket to its hand-over to the kernel, if measured.
    pub residence: Option<Histogram>,
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
    /// Packets received that no producer got, by reason.
    pub unrouted: Vec<(UnroutedReason, u64)>,
    /// Packets the kernel dropped because the socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Packets in the queue that waits for the socket to become writable.
    pub backlog_packets: u64,
}

/// Why a received packet reached no producer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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
}

impl UnroutedReason {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 6] = [
        Self::ForeignSource,
        Self::NoRemote,
        Self::Malformed,
        Self::UnknownStream,
        Self::UnknownPayloadType,
        Self::TooLong,
    ];
}

/// Counters of one producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProducerStats {
    /// Whose.
    pub producer: ProducerId,
    /// Paused or not.
    pub paused: bool,
    /// One for each stream seen.
    pub streams: Vec<StreamStats>,
}

/// Counters of one received stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamStats {
    /// Its SSRC at the moment.
    pub ssrc: u32,
    /// Which profile it is.
    pub profile: Profile,
    /// Whether packets have come lately (spec §2.8).
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

/// Counters of one consumer. `packets_in = packets_forwarded + Σ dropped`, at every moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConsumerStats {
    /// Whose.
    pub consumer: ConsumerId,
    /// Paused by itself.
    pub paused: bool,
    /// Its producer is paused.
    pub source_paused: bool,
    /// What it is sent.
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
    pub dropped: Vec<(DropReason, u64)>,
    /// Switches from one profile to another (or to the first one).
    pub switches: u64,
    /// Key frame requests received from the receiver (PLI and FIR).
    pub key_frame_requests: u64,
    /// The last extended sequence number sent.
    pub last_seq: Option<u64>,
}

/// Why a packet was not forwarded to a consumer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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
}

impl DropReason {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 11] = [
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
    ];
}

/// A page of a dump.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DumpPage {
    /// Transports with what is on them.
    pub transports: Vec<TransportDump>,
    /// Producers with their streams.
    pub producers: Vec<ProducerDump>,
    /// Consumers with their rewriting state.
    pub consumers: Vec<ConsumerDump>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<u64>,
}

/// What a worker knows of a transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TransportDump {
    /// Whose.
    pub transport: TransportId,
    /// The remote address, once known.
    pub remote: Option<Remote>,
    /// Learns its remote from packets.
    pub comedia: bool,
    /// RTP and RTCP share one port.
    pub rtcp_mux: bool,
    /// SSRC → producer.
    pub ssrcs: Vec<(u32, ProducerId)>,
    /// MID → producer.
    pub mids: Vec<(String, ProducerId)>,
    /// RID → producer.
    pub rids: Vec<(String, ProducerId)>,
}

/// What a worker knows of a producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProducerDump {
    /// Whose.
    pub producer: ProducerId,
    /// The transport it arrives on.
    pub transport: TransportId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Paused or not.
    pub paused: bool,
    /// Its wish for consumers that have none.
    pub preferred_profile: Profile,
    /// Profiles on offer now, lowest first.
    pub available_profiles: Vec<Profile>,
    /// Its consumers; at most the first 1,000.
    pub consumers: Vec<ConsumerId>,
}

/// What a worker knows of a consumer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConsumerDump {
    /// Whose.
    pub consumer: ConsumerId,
    /// What it consumes.
    pub producer: ProducerId,
    /// The transport it leaves on.
    pub transport: TransportId,
    /// The SSRC it is sent under.
    pub ssrc: u32,
    /// Its own wish.
    pub preferred_profile: Profile,
    /// What it is sent.
    pub effective_profile: Option<Profile>,
    /// What it should be sent.
    pub target_profile: Option<Profile>,
    /// Paused by itself.
    pub paused: bool,
    /// Its producer is paused.
    pub source_paused: bool,
    /// Starts at the next key frame (video) or packet (audio).
    pub sync_required: bool,
}
