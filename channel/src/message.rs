//! Every message that crosses the channel, in the order of a conversation: [`Hello`], [`Request`], [`Response`],
//! [`Notification`].
//!
//! A worker's desired state is the list of the [`Method`]s that made it: the supervisor keeps those very values and can
//! replay them into a fresh worker. Wire types hold no recursion and no collection of zero-sized elements (bincode
//! 2.0.1 defends against neither), and every collection is bounded by the frame limit.

mod address;
mod counts;
mod create;
mod dump;
mod media;
mod quarantine;
mod sandbox;
mod stats;
mod webrtc;
mod word;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::id::{ConsumerId, ProducerId, RequestId, RoomId, TransportId, WorkerId};
use crate::words;

pub use self::address::{Zoned, parse_address};
pub use self::counts::{Counts, Histogram, Residence, ResidenceBucket};
pub use self::create::{
    ComediaPolicy, ConsumerRtx, CreateConsumer, CreatePlainTransport, CreateProducer, Mirror, Remote,
};
pub use self::dump::{ConsumerDump, DumpPage, ProducerDump, TransportDump};
pub use self::media::{Codec, CodecName, Encoding, ExtensionUri, HeaderExtension, MediaKind, Profile};
pub use self::quarantine::{QUARANTINED_MAX, QuarantinedSource};
pub use self::sandbox::{Sandbox, SandboxLack, SandboxLayer, SandboxMode};
pub use self::stats::{
    ConsumerStats, Counter, CounterKind, DropReason, NotRepaired, ProducerStats, StatsPage, StreamStats,
    TransportStats, UnroutedReason, WorkerStats,
};
pub use self::webrtc::{
    CONNECTED_MAX, CreateWebRtcTransport, DtlsCertificate, DtlsParameters, DtlsRole, DtlsState, FINGERPRINTS_MAX,
    Fingerprint, FingerprintAlgorithm, IceCredentials, IceProtocol, IceState, IceTuple, LISTENERS_MAX, OpenSharedPorts,
    SHARED_PORTS_MAX, WebRtcFailure, WebRtcFailureReason, WebRtcStats,
};
pub use self::word::{any_case, any_case_if_any};

/// The protocol's version. Both ends must name the same one in their [`Hello`].
pub const PROTOCOL_VERSION: u32 = 13;

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
    /// Supervisor to worker: several requests, which are served, and answered, as if each had come in a frame of its own. A frame with
    /// descriptors costs a system call at each end; what a whole worker has had comes in some tens of them.
    Requests(Vec<Enclosed>),
}

/// One of several requests in a frame.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Enclosed {
    /// The request.
    pub request: Request,
    /// How many of the frame's descriptors are its own: the next ones, after those of the requests before it.
    pub descriptors: u8,
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
    /// Whether to send [`Notification::AudioLevels`] for a room, every 500 ms.
    SetAudioLevels { room: RoomId, enabled: bool },
    /// Makes a plain RTP transport. Descriptors: the RTP port's two sockets (the unconnected one first; see
    /// [`CreatePlainTransport`]), then, without `rtcp_mux`, the RTCP port's two.
    CreatePlainTransport(CreatePlainTransport),
    /// Gives a plain transport its remote address, or another one.
    SetRemote { transport: TransportId, remote: Remote },
    /// Shows this certificate in handshakes that begin from now on: the same for all workers of a server. Without it a worker
    /// makes its own.
    UseDtlsCertificate(DtlsCertificate),
    /// Makes a WebRTC transport. Descriptors: see [`CreateWebRtcTransport`].
    CreateWebRtcTransport(CreateWebRtcTransport),
    /// Gives a WebRTC transport new ICE credentials. Media goes on as before until the peer uses them.
    RestartIce {
        transport: TransportId,
        ice: IceCredentials,
    },
    /// What a WebRTC transport's peer expects of checks that are sent to it. It counts until ICE is restarted.
    SetRemoteIce {
        transport: TransportId,
        ice: IceCredentials,
    },
    /// Says who a WebRTC transport's peer is; once. Answered by [`Reply::DtlsRole`].
    SetDtlsParameters {
        transport: TransportId,
        parameters: DtlsParameters,
    },
    /// Tells the transport's senders to send no more than this in all (REMB), in bits per second; `None`: as much as they
    /// like.
    SetMaxBitrate {
        transport: TransportId,
        bitrate_bps: Option<u64>,
    },
    /// Sends copies of a transport's packets elsewhere too. Descriptors: one UDP socket, connected to where they go.
    StartMirroring { transport: TransportId, mirror: Mirror },
    /// Ends that.
    StopMirroring { transport: TransportId },
    /// Closes a transport with its producers (and their consumers) and its own consumers.
    CloseTransport { transport: TransportId },
    /// Makes a producer on a transport.
    CreateProducer(CreateProducer),
    /// Stops relaying a producer, whose packets are still received and counted, or relays it again.
    SetProducerPaused { producer: ProducerId, paused: bool },
    /// Sets the profile its consumers follow where they have no preference of their own.
    SetProducerPreferredProfile { producer: ProducerId, profile: Profile },
    /// Closes a producer and its consumers.
    CloseProducer { producer: ProducerId },
    /// Makes a consumer of a producer, sending on a transport of the same room.
    CreateConsumer(CreateConsumer),
    /// Stops sending to a consumer, or sends to it again; video from its next key frame.
    SetConsumerPaused { consumer: ConsumerId, paused: bool },
    /// Caps the profile a consumer gets; [`Profile::Default`] removes the cap.
    SetConsumerPreferredProfile { consumer: ConsumerId, profile: Profile },
    /// Asks the consumer's producer for a key frame.
    RequestKeyFrame { consumer: ConsumerId },
    /// Closes a consumer.
    CloseConsumer { consumer: ConsumerId },
    /// The counters of the whole worker.
    WorkerStats,
    /// The counters of what is in the scope.
    Stats(Scope),
    /// What the worker knows of what is in the scope, for people.
    Dump(Scope),
    /// Answer, send what is queued, and exit with success.
    Shutdown,
    /// Opens the ports that WebRTC transports share; once. Descriptors: see [`OpenSharedPorts`].
    OpenSharedPorts(OpenSharedPorts),
    /// Gives a WebRTC transport on a shared port a socket of its own for a tuple, as asked for by
    /// [`Notification::SocketWanted`]. If the tuple is not the selected one any more, the socket is closed, which
    /// [`Notification::SocketClosed`] says. Descriptors: one UDP socket, bound to the tuple's local end and connected to its remote
    /// end.
    UseConnectedSocket { transport: TransportId, tuple: IceTuple },
    /// Two epoll instances (two descriptors) to wait with from now on, the second for sockets at which anybody is heard. Comes before
    /// anything that has a socket. Whoever else holds them spares the worker's death the time to take every socket out of them.
    UsePollers,
    /// A room comes that another worker has served, which is dead: what is made in it until [`Method::AdoptionEnded`] continues
    /// what the other's page says of the object with the same id; what no page knows is made anew. What a page knows and cannot
    /// be true is refused. Comes before the room's router is made. Descriptors: so many [pages](crate::page), the latest one
    /// first. There are several if a worker has died in the middle of adopting the room: what it had adopted already stands
    /// in its own page, the rest only in that of its predecessor. An older page counts for what no later one knows.
    Adopt { room: RoomId, pages: u8 },
    /// Everything has been made that the other worker had of the room; its page is not read for the room any more. Requests
    /// that the other has not answered come before this, since it may have carried them out.
    AdoptionEnded { room: RoomId },
    /// Drops what comes from these sources, from now on, and from no others any more. At most [`QUARANTINED_MAX`].
    SetQuarantine(Vec<QuarantinedSource>),
    /// Nobody has read the sockets of a room that is being adopted for so long that what waits in them is of no use any more: it is
    /// dropped.
    DropWaiting { room: RoomId },
    /// A consumer that outlives its producers is sent another producer of its room from now on: under its SSRCs, whose numbers go on,
    /// from the next key frame if it is video. What is new stands in a request as for a new consumer; its pause and its preferred
    /// profile do not count. Answered as [`Method::CreateConsumer`].
    SetConsumerSource(CreateConsumer),
    /// A process that is to take another one's place when that dies begins to make what the other has: nothing is received, sent, told or
    /// kept. Takes the methods that are [rehearsed](Method::is_rehearsed). Descriptors come with those that make transports, but for
    /// sockets that are connected to a peer; with none, it is closed already.
    Rehearse,
    /// The process's time has come. Its rooms follow, each from [`Method::Adopt`] on: WebRTC transports of which sockets are connected to a peer
    /// are asked for again, with those; all else is [taken up](Method::TakeUp).
    RehearsalEnded,
    /// All other transports, and all producers and consumers, that a room is to have which was rehearsed: each continues what the pages say of it. What was rehearsed and stands neither here nor was asked for is closed. Answered by
    /// [`Reply::TakenUp`].
    TakeUp {
        room: RoomId,
        transports: Vec<TransportId>,
        producers: Vec<ProducerId>,
        consumers: Vec<ConsumerId>,
    },
}

impl Method {
    /// Whether a process that [rehearses](Method::Rehearse) does it, too: what makes, changes and closes rooms and what is in them. Of what concerns
    /// sockets and peers it only takes note.
    pub fn is_rehearsed(&self) -> bool {
        match self {
            Self::CreateRouter { .. }
            | Self::CloseRouter { .. }
            | Self::SetAudioLevels { .. }
            | Self::CreatePlainTransport(_)
            | Self::CreateWebRtcTransport(_)
            | Self::SetRemote { .. }
            | Self::RestartIce { .. }
            | Self::SetRemoteIce { .. }
            | Self::SetDtlsParameters { .. }
            | Self::SetMaxBitrate { .. }
            | Self::CloseTransport { .. }
            | Self::CreateProducer(_)
            | Self::SetProducerPaused { .. }
            | Self::SetProducerPreferredProfile { .. }
            | Self::CloseProducer { .. }
            | Self::CreateConsumer(_)
            | Self::SetConsumerPaused { .. }
            | Self::SetConsumerPreferredProfile { .. }
            | Self::SetConsumerSource(_)
            | Self::CloseConsumer { .. } => true,
            Self::Ping
            | Self::SetLogFilter(_)
            | Self::SetCoalescing(_)
            | Self::UseDtlsCertificate(_)
            | Self::StartMirroring { .. }
            | Self::StopMirroring { .. }
            | Self::RequestKeyFrame { .. }
            | Self::WorkerStats
            | Self::Stats(_)
            | Self::Dump(_)
            | Self::Shutdown
            | Self::OpenSharedPorts(_)
            | Self::UseConnectedSocket { .. }
            | Self::UsePollers
            | Self::Adopt { .. }
            | Self::AdoptionEnded { .. }
            | Self::SetQuarantine(_)
            | Self::DropWaiting { .. }
            | Self::Rehearse
            | Self::RehearsalEnded
            | Self::TakeUp { .. } => false,
        }
    }

    /// The room in which it makes a transport, a producer or a consumer, if it does.
    pub fn creates_in(&self) -> Option<RoomId> {
        match self {
            Self::CreatePlainTransport(request) => Some(request.room),
            Self::CreateWebRtcTransport(request) => Some(request.room),
            Self::CreateProducer(request) => Some(request.room),
            Self::CreateConsumer(request) => Some(request.room),
            _ => None,
        }
    }
}

/// What counters or a dump are asked of. The answer is a page with one entry; of a room there can be several pages, which are
/// asked for until one comes back without `next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant says it")]
pub enum Scope {
    Room { room: RoomId, page: Page },
    Transport(TransportId),
    Producer(ProducerId),
    Consumer(ConsumerId),
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

/// How workers trade delay for CPU time, and CPU time for delay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coalescing {
    /// How long packets may wait for others under load, in microseconds, at most [`Coalescing::WINDOW_US_MAX`]; 0 switches
    /// coalescing off.
    pub window_us_max: u32,
    /// How long to look for packets before going to sleep, in microseconds, at most [`Coalescing::SPIN_US_MAX`]; 0 sleeps at once.
    pub spin_us_max: u32,
    /// Whether to stamp arrivals and keep the residence-time histogram. Costs a clock read per packet sent.
    pub measure_residence: bool,
}

impl Coalescing {
    /// The longest window that can be set, in microseconds: more is a delay that people hear.
    pub const WINDOW_US_MAX: u32 = 1_000;

    /// The longest time to spin that can be set, in microseconds: who waits longer for packets has little use for a whole CPU.
    pub const SPIN_US_MAX: u32 = 1_000;
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
    /// A WebRTC transport exists now.
    WebRtcTransportCreated {
        /// Of the certificate that this worker shows, one for each hash function.
        fingerprints: Vec<Fingerprint>,
    },
    /// The role of our side is decided: client or server.
    DtlsRole(DtlsRole),
    /// To [`Method::WorkerStats`].
    WorkerStats(Box<WorkerStats>),
    /// To [`Method::Stats`].
    Stats(StatsPage),
    /// To [`Method::Dump`].
    Dump(DumpPage),
    /// To [`Method::TakeUp`].
    TakenUp(NotTakenUp),
}

/// What a worker could not take up of a room, and has not got any more, each with the reason.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NotTakenUp {
    /// Plain transports.
    pub transports: Vec<(TransportId, WorkerError)>,
    /// Producers; also those of these transports.
    pub producers: Vec<(ProducerId, WorkerError)>,
    /// Consumers; also those of these transports and producers.
    pub consumers: Vec<(ConsumerId, WorkerError)>,
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
    #[error("{0} is mirrored already; stop that first")]
    Mirrored(TransportId),
    #[error("{0} is not a WebRTC transport")]
    NotWebRtc(TransportId),
    #[error("{0} is not a plain RTP transport")]
    NotPlain(TransportId),
    #[error("{0} has its DTLS parameters already")]
    DtlsParametersSet(TransportId),
    #[error("{0}")]
    InvalidParameters(String),
    #[error("the deadline passed before the worker read the request")]
    DeadlinePassed,
    #[error("the request needs {expected} descriptors, but came with {received}")]
    Descriptors { expected: u8, received: u8 },
    #[error("the worker is at its limit of {limit} {noun}")]
    TooMany { noun: String, limit: u32 },
    #[error("{call}: {reason}")]
    Os { call: String, reason: String },
}

impl WorkerError {
    /// What a request says cannot be; the sentence says why.
    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self::InvalidParameters(sentence.into())
    }

    /// A request came with more or fewer descriptors than it needs.
    pub fn descriptors(expected: usize, received: usize) -> Self {
        let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        Self::Descriptors {
            expected: count(expected),
            received: count(received),
        }
    }
}

/// The most producers that one [`Notification::AudioLevels`] names.
pub const AUDIO_LEVELS_MAX: usize = 500;

/// What a worker says unasked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "fields are the ids and values that the variant's own line names"
)]
pub enum Notification {
    /// A `comedia` transport has learned its remote: from now on it hears nobody else, but for what its policy lets it learn
    /// anew ([`ComediaPolicy`]).
    RemoteLearned { transport: TransportId, remote: Remote },
    /// The state of a WebRTC transport's ICE.
    IceStateChanged {
        transport: TransportId,
        state: IceState,
        /// Why, when the state is [`IceState::Disconnected`].
        failure: Option<WebRtcFailure>,
    },
    /// A WebRTC transport's packets go elsewhere from now on; `None`: nowhere, until a connectivity check comes.
    IceSelectedTupleChanged {
        transport: TransportId,
        tuple: Option<IceTuple>,
    },
    /// The state of a WebRTC transport's DTLS.
    DtlsStateChanged {
        transport: TransportId,
        state: DtlsState,
        /// The peer's, in PEM, when the state is [`DtlsState::Connected`].
        remote_certificate_pem: Option<String>,
        /// Why, when the state is [`DtlsState::Failed`].
        failure: Option<WebRtcFailure>,
    },
    /// What a consumer is sent has changed; `None`: nothing, until another profile's key frame comes.
    EffectiveProfileChanged {
        consumer: ConsumerId,
        profile: Option<Profile>,
    },
    /// How loud a room's producers were in the last 500 ms, in dBov (-127 to 0), the loudest first; at most the
    /// [`AUDIO_LEVELS_MAX`] loudest, and nobody who was paused or sent no level.
    AudioLevels {
        room: RoomId,
        levels: Vec<(ProducerId, i8)>,
    },
    /// A line of the worker's log.
    Log(LogLine),
    /// This many log lines found no room in the queue since the last time.
    LogLinesDropped { count: u64 },
    /// A WebRTC transport on a shared port would rather send and receive on a socket of its own that is connected to its peer. It
    /// may be answered by [`Method::UseConnectedSocket`], or not at all.
    SocketWanted { transport: TransportId, tuple: IceTuple },
    /// A WebRTC transport refuses somebody's connectivity checks. Told now and then while it goes on.
    ChecksRefused {
        transport: TransportId,
        failure: WebRtcFailure,
    },
    /// A producer that had sent something sends nothing any more, on any of its streams, or sends again.
    ProducerActivityChanged { producer: ProducerId, active: bool },
    /// A producer on a plain transport is sent under another SSRC from now on, which its payload type alone vouches for;
    /// `previous` is `None` where it had none before. At most twice a second.
    SsrcChanged {
        producer: ProducerId,
        ssrc: u32,
        previous: Option<u32>,
    },
    /// What confines the worker; once, before anything else, unless its server wants no sandbox.
    Sandboxed(Sandbox),
    /// A valid check has come by a TCP connection of a WebRTC transport. It outlives the worker if the supervisor keeps the copy that
    /// comes with this. Descriptors: the connection.
    ConnectionProven { transport: TransportId, tuple: IceTuple },
    /// A WebRTC transport has closed a socket that is connected to its peer: a connection of which the supervisor was given a
    /// copy, or a socket that it has given ([`Method::UseConnectedSocket`], [`CreateWebRtcTransport::connected`]). A copy that
    /// is kept of it would be of no use to anybody.
    SocketClosed { transport: TransportId, tuple: IceTuple },
}

impl Notification {
    /// How many descriptors come with it.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::ConnectionProven { .. } => 1,
            _ => 0,
        }
    }
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each variant says it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

words!(LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" });
