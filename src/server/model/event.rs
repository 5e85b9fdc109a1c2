//! What happens in a server, as one ordered stream.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{DtlsState, IceState, IceTuple, MediaKind, Profile, Remote, WebRtcFailure};

use crate::server::model::address::Tuple;
use crate::server::model::error::DeathCause;
use crate::server::model::rtc_stats::RtcStats;
use crate::server::model::side::Side;
use crate::server::model::transport::TransportKind;

/// Something that happened. Serialises to one flat object: `{"seq":7,"at":"…Z","type":"producerPaused",…}`.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
pub struct Event {
    /// The number of the event: the server counts its events from 1, without gaps.
    pub seq: u64,
    /// The time at which the server applied the change, in JSON as in RFC 3339.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(with = "String")]
    pub at: SystemTime,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    #[expect(
        clippy::disallowed_methods,
        reason = "events carry the wall clock for humans; nothing is decided by it"
    )]
    pub(crate) fn now(seq: u64, kind: EventKind) -> Self {
        let at = SystemTime::now();
        Self { seq, at, kind }
    }
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

/// What happened. Ids name what it happened to; `room` is always given, so that streams can be filtered by room.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "fields are the ids and values that the variant's own line names"
)]
#[non_exhaustive]
pub enum EventKind {
    /// A worker process has started and is ready.
    WorkerStarted { worker: WorkerId, pid: u32 },
    /// A worker process has died. Its rooms are kept, and a successor continues them, which `workerRestored` tells; the
    /// events just before this one closed what cannot be continued: all of its rooms, if no successor lives for long enough
    /// to continue them. `restart_in_ms` is the time until the successor is started, `null` if none will be, because the
    /// server closes.
    WorkerDied {
        worker: WorkerId,
        pid: Option<u32>,
        cause: DeathCause,
        restart_in_ms: Option<u64>,
    },
    /// A worker process has taken up everything that its predecessor had left: so many rooms, without so many things that
    /// could not be continued (`lost`), which earlier events have closed. `gap_ms` is the time since the predecessor's death was noticed.
    WorkerRestored {
        worker: WorkerId,
        pid: u32,
        gap_ms: u64,
        rooms: u64,
        lost: u64,
    },
    /// A source is in quarantine at a worker for so many seconds, because processes died of what looks like its packets: they are
    /// dropped, and counted as `quarantined`. `transport` and `room` are those that they came to, `port` is the source's; they are `null` if the packets
    /// came to a port that is shared. Then it is all that comes to such ports from the address.
    SourceQuarantined {
        worker: WorkerId,
        ip: IpAddr,
        port: Option<u16>,
        transport: Option<TransportId>,
        room: Option<RoomId>,
        for_s: u64,
    },
    /// The packets of a source that was in quarantine are relayed again.
    SourceReleased {
        worker: WorkerId,
        ip: IpAddr,
        port: Option<u16>,
    },
    /// A room exists now.
    RoomOpened {
        room: RoomId,
        worker: WorkerId,
        app_data: Value,
    },
    /// A room is closed, with everything in it; the next events tell of that.
    RoomClosed {
        room: RoomId,
        originator: Originator,
        app_data: Value,
        cause: CloseCause,
    },
    /// A peer has joined the room. The next events tell of its consumers for the producers that exist already.
    PeerJoined {
        peer: Arc<str>,
        room: RoomId,
        spy: bool,
        app_data: Arc<Value>,
    },
    /// A peer has gone, with everything that belonged to it; the next events tell of that.
    PeerClosed {
        peer: Arc<str>,
        room: RoomId,
        originator: Originator,
        app_data: Value,
        cause: CloseCause,
    },
    /// A transport exists now.
    TransportOpened {
        transport: TransportId,
        room: RoomId,
        /// The peer that owns it, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<Arc<str>>,
        kind: TransportKind,
        tuple: Tuple,
        app_data: Value,
    },
    /// A transport was given its remote address.
    RemoteSet {
        transport: TransportId,
        room: RoomId,
        remote: Remote,
    },
    /// A `comedia` transport has learned its remote address, or a new one if its policy allows that.
    RemoteLearned {
        transport: TransportId,
        room: RoomId,
        remote: Remote,
    },
    /// The ICE state of a WebRTC transport has changed.
    IceStateChanged {
        transport: TransportId,
        room: RoomId,
        state: IceState,
        /// The reason, if the client is gone.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<WebRtcFailure>,
    },
    /// A WebRTC transport refuses connectivity checks, most likely because its client has the wrong credentials. This
    /// event is repeated every ten seconds while checks are refused.
    ChecksRefused {
        transport: TransportId,
        room: RoomId,
        failure: WebRtcFailure,
    },
    /// A WebRTC transport uses another pair of addresses from now on; `null` if it has none until the client comes
    /// back.
    IceSelectedTupleChanged {
        transport: TransportId,
        room: RoomId,
        tuple: Option<IceTuple>,
    },
    /// The DTLS state of a WebRTC transport has changed.
    DtlsStateChanged {
        transport: TransportId,
        room: RoomId,
        state: DtlsState,
        /// The reason, if it has failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<WebRtcFailure>,
    },
    /// A transport is closed.
    TransportClosed {
        transport: TransportId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
        cause: CloseCause,
    },
    /// A producer exists now. The events just before this one told of the other peers' consumers for it.
    ProducerOpened {
        producer: ProducerId,
        room: RoomId,
        /// The peer that owns it, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<Arc<str>>,
        transport: TransportId,
        media: MediaKind,
        paused: bool,
        app_data: Arc<Value>,
    },
    /// A producer is paused.
    ProducerPaused {
        producer: ProducerId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
    },
    /// A producer is relayed again.
    ProducerResumed {
        producer: ProducerId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
    },
    /// A producer has another preferred profile.
    ProducerPreferredProfileSet {
        producer: ProducerId,
        room: RoomId,
        profile: Profile,
    },
    /// A producer has become silent on all its streams (`active` is false), or sends again. It counts as silent after
    /// one second without video or two seconds without audio, or after twice its longest recent pause, at most five
    /// seconds. This has no other effect: what it sends next is relayed as usual.
    ProducerActivityChanged {
        producer: ProducerId,
        room: RoomId,
        active: bool,
    },
    /// A producer on a plain transport has another SSRC from now on, one that was not declared: either it had none
    /// before (`previous` is `null`), or its sender has changed it.
    ProducerSsrcChanged {
        producer: ProducerId,
        room: RoomId,
        ssrc: u32,
        previous: Option<u32>,
    },
    /// A producer is closed.
    ProducerClosed {
        producer: ProducerId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
        cause: CloseCause,
    },
    /// A consumer exists now. A peer's consumer has no transport until its client enables it.
    ConsumerOpened {
        consumer: ConsumerId,
        room: RoomId,
        /// The peer that receives it, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<Arc<str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        transport: Option<TransportId>,
        producer: ProducerId,
        media: MediaKind,
        paused: bool,
        source_paused: bool,
        app_data: Arc<Value>,
    },
    /// A peer's consumer is enabled: from now on it is sent on a transport.
    ConsumerHandled {
        consumer: ConsumerId,
        room: RoomId,
        transport: TransportId,
    },
    /// A peer's consumer has lost its transport, which was closed. It can be enabled again on another one.
    ConsumerUnhandled { consumer: ConsumerId, room: RoomId },
    /// A consumer is paused: by the application (`local`), by its client (`remote`), or because its producer is paused
    /// (`source`).
    ConsumerPaused {
        consumer: ConsumerId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
    },
    /// A consumer, or its producer, is resumed. The consumer receives again when neither is paused.
    ConsumerResumed {
        consumer: ConsumerId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
    },
    /// A consumer has another preferred profile.
    ConsumerPreferredProfileSet {
        consumer: ConsumerId,
        room: RoomId,
        profile: Profile,
    },
    /// A consumer receives another profile; `null`: it receives nothing until a key frame of another profile arrives.
    ConsumerEffectiveProfileChanged {
        consumer: ConsumerId,
        room: RoomId,
        profile: Option<Profile>,
    },
    /// A consumer that outlives its producers is sent another one; `null`: its producer is closed, and it waits for another one.
    ConsumerSourceChanged {
        consumer: ConsumerId,
        room: RoomId,
        producer: Option<ProducerId>,
    },
    /// A consumer is closed.
    ConsumerClosed {
        consumer: ConsumerId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
        cause: CloseCause,
    },
    /// A producer is sent to an address, with this consumer and this transport, which belong to no peer.
    RtpStreamerOpened {
        transport: TransportId,
        consumer: ConsumerId,
        producer: ProducerId,
        room: RoomId,
    },
    /// A streamer is closed, because its transport, its consumer or its producer is closed.
    RtpStreamerClosed {
        transport: TransportId,
        consumer: ConsumerId,
        room: RoomId,
    },
    /// The audio levels in the room in the last 500 ms, the loudest first. Only while somebody listens
    /// ([`Room::audio_levels`](crate::Room::audio_levels)).
    AudioLevels { room: RoomId, levels: Vec<AudioLevel> },
    /// A transport's statistics, which the application has enabled
    /// ([`Transport::enable_stats`](crate::Transport::enable_stats)).
    TransportStats {
        transport: TransportId,
        room: RoomId,
        stats: Vec<RtcStats>,
    },
    /// A producer's statistics, which the application has enabled
    /// ([`Producer::enable_stats`](crate::Producer::enable_stats)).
    ProducerStats {
        producer: ProducerId,
        room: RoomId,
        stats: Vec<RtcStats>,
    },
    /// A consumer's statistics, which the application has enabled
    /// ([`Consumer::enable_stats`](crate::Consumer::enable_stats)).
    ConsumerStats {
        consumer: ConsumerId,
        room: RoomId,
        stats: Vec<RtcStats>,
    },
    /// This subscriber was too slow and has lost this many events. List the objects to find out what changed. Other
    /// subscribers are not affected.
    Lagged { count: u64 },
    /// The server is closed. This is the last event of the stream.
    ServerClosed,
}

impl EventKind {
    /// The room that it happened in; `None` for what concerns workers or the whole server.
    pub fn room(&self) -> Option<RoomId> {
        match self {
            Self::WorkerStarted { .. }
            | Self::WorkerDied { .. }
            | Self::WorkerRestored { .. }
            | Self::SourceReleased { .. }
            | Self::Lagged { .. }
            | Self::ServerClosed => None,
            Self::SourceQuarantined { room, .. } => *room,
            Self::RoomOpened { room, .. }
            | Self::RoomClosed { room, .. }
            | Self::PeerJoined { room, .. }
            | Self::PeerClosed { room, .. }
            | Self::TransportOpened { room, .. }
            | Self::RemoteSet { room, .. }
            | Self::RemoteLearned { room, .. }
            | Self::IceStateChanged { room, .. }
            | Self::ChecksRefused { room, .. }
            | Self::IceSelectedTupleChanged { room, .. }
            | Self::DtlsStateChanged { room, .. }
            | Self::TransportClosed { room, .. }
            | Self::ProducerOpened { room, .. }
            | Self::ProducerPaused { room, .. }
            | Self::ProducerResumed { room, .. }
            | Self::ProducerPreferredProfileSet { room, .. }
            | Self::ProducerActivityChanged { room, .. }
            | Self::ProducerSsrcChanged { room, .. }
            | Self::ProducerClosed { room, .. }
            | Self::ConsumerOpened { room, .. }
            | Self::ConsumerHandled { room, .. }
            | Self::ConsumerUnhandled { room, .. }
            | Self::ConsumerPaused { room, .. }
            | Self::ConsumerResumed { room, .. }
            | Self::ConsumerPreferredProfileSet { room, .. }
            | Self::ConsumerEffectiveProfileChanged { room, .. }
            | Self::ConsumerSourceChanged { room, .. }
            | Self::ConsumerClosed { room, .. }
            | Self::RtpStreamerOpened { room, .. }
            | Self::RtpStreamerClosed { room, .. }
            | Self::AudioLevels { room, .. }
            | Self::TransportStats { room, .. }
            | Self::ProducerStats { room, .. }
            | Self::ConsumerStats { room, .. } => Some(*room),
        }
    }
}

/// The audio level of a producer in the last 500 ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioLevel {
    /// The producer.
    pub producer: ProducerId,
    /// The level in dBov (RFC 6464), from -127 (silence) to 0 (the loudest possible).
    pub level_dbov: i8,
}

/// The side that caused an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Originator {
    /// The application, through this library or its HTTP interface; also the server itself.
    Local,
    /// The remote client, through its signalling.
    Remote,
    /// The producer of a consumer.
    Source,
}

impl From<Side> for Originator {
    fn from(side: Side) -> Self {
        match side {
            Side::Local => Self::Local,
            Side::Remote => Self::Remote,
        }
    }
}

/// Why an object is closed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CloseCause {
    /// Its own `close` was called.
    Closed,
    /// Its room was closed.
    RoomClosed,
    /// The peer it belonged to was closed.
    PeerClosed,
    /// Its transport was closed.
    TransportClosed,
    /// The producer it consumes was closed.
    ProducerClosed,
    /// The worker that served it died, and no successor could take it up.
    WorkerDied {
        /// The worker.
        worker: WorkerId,
        /// The cause of the worker's death.
        cause: DeathCause,
    },
    /// The worker that served it died, and the worker's successor refused to continue it, or was not asked to, because processes
    /// had died of it again and again.
    NotRestored {
        /// The worker.
        worker: WorkerId,
        /// The reason, in words.
        reason: String,
    },
    /// The server was closed.
    ServerClosed,
}
