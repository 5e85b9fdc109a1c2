//! What happens in a server, as one ordered stream.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::sync::broadcast;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{DtlsState, IceState, MediaKind, Profile, Remote, WebRtcFailure};

use crate::server::model::address::Tuple;
use crate::server::model::error::DeathCause;
use crate::server::model::rtc_stats::{RtcStats, RtcTuple};
use crate::server::model::side::Side;
use crate::server::model::transport::TransportKind;

/// How many events a subscriber may lag behind before it loses the oldest of them. A worker's death can close some
/// thousands of objects at once; with this a subscriber that is merely busy still sees each.
const LAG_MAX: usize = 16_384;

/// Something that happened. Serialises to one flat object: `{"seq":7,"at":"…Z","type":"producerPaused",…}`.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
pub struct Event {
    /// Counts the server's events from 1, without gaps.
    pub seq: u64,
    /// When the server applied it. RFC 3339 in JSON.
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
    /// A worker process is ready for work.
    WorkerStarted { worker: WorkerId, pid: u32 },
    /// A worker process is gone; its rooms were closed by the events right before this one. `restart_in_ms` is `None`
    /// when no successor will be started, because the server closes.
    WorkerDied {
        worker: WorkerId,
        pid: Option<u32>,
        cause: DeathCause,
        restart_in_ms: Option<u64>,
    },
    /// A room exists now.
    RoomOpened {
        room: RoomId,
        worker: WorkerId,
        app_data: Value,
    },
    /// A room is closed, with everything in it (told by the events that follow).
    RoomClosed {
        room: RoomId,
        originator: Originator,
        app_data: Value,
        cause: CloseCause,
    },
    /// A peer is in the room. Its consumers of what the others produce already are told by the events that follow.
    PeerJoined {
        peer: Arc<str>,
        room: RoomId,
        spy: bool,
        app_data: Arc<Value>,
    },
    /// A peer is gone, with everything that was its own (told by the events that follow).
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
        /// Whose it is, if it belongs to a peer.
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
    /// A `comedia` transport has learned its remote address: from the first valid packet, or, where its policy lets it, anew.
    RemoteLearned {
        transport: TransportId,
        room: RoomId,
        remote: Remote,
    },
    /// A WebRTC transport's client was found, has chosen where packets go, or is gone.
    IceStateChanged {
        transport: TransportId,
        room: RoomId,
        state: IceState,
        /// Why, when it is gone.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<WebRtcFailure>,
    },
    /// A WebRTC transport refuses somebody's connectivity checks: most likely its client's, who was told something wrong. Told every
    /// ten seconds while it goes on.
    ChecksRefused {
        transport: TransportId,
        room: RoomId,
        failure: WebRtcFailure,
    },
    /// A WebRTC transport's packets go elsewhere from now on; `null`: nowhere, until the client shows up again.
    IceSelectedTupleChanged {
        transport: TransportId,
        room: RoomId,
        tuple: Option<RtcTuple>,
    },
    /// A WebRTC transport's client has proven who it is, has failed to, or has ended it.
    DtlsStateChanged {
        transport: TransportId,
        room: RoomId,
        state: DtlsState,
        /// Why, when it has failed.
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
    /// A producer exists now. The other peers' consumers of it were told by the events right before this one
    /// (differences §1.5).
    ProducerOpened {
        producer: ProducerId,
        room: RoomId,
        /// Whose it is, if it belongs to a peer.
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
    /// A producer that had sent something has fallen silent on all its streams (`active` is false), or sends again. A second
    /// without a picture is silence, or two without a sound, or twice the longest pause of late, up to five seconds. Nothing
    /// follows from it: what it sends next is relayed as if it had never paused.
    ProducerActivityChanged {
        producer: ProducerId,
        room: RoomId,
        active: bool,
    },
    /// A producer on a plain transport is sent under another SSRC from now on, which was not declared: it had none before
    /// (`previous` is `None`), or its sender has gone over to this one.
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
    /// A consumer exists now. A peer's has no transport until its client enables it.
    ConsumerOpened {
        consumer: ConsumerId,
        room: RoomId,
        /// Who receives it, if that is a peer.
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
    /// A peer's consumer has been enabled: from now on it is sent on a transport.
    ConsumerHandled {
        consumer: ConsumerId,
        room: RoomId,
        transport: TransportId,
    },
    /// A peer's consumer has lost its transport, which was closed. It can be enabled again on another one.
    ConsumerUnhandled { consumer: ConsumerId, room: RoomId },
    /// A consumer is paused: by the application (`local`), by its client (`remote`) or because its producer is (`source`).
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
    /// A consumer is sent another profile; `None`: nothing until another profile's key frame comes.
    ConsumerEffectiveProfileChanged {
        consumer: ConsumerId,
        room: RoomId,
        profile: Option<Profile>,
    },
    /// A consumer is closed.
    ConsumerClosed {
        consumer: ConsumerId,
        room: RoomId,
        originator: Originator,
        app_data: Value,
        cause: CloseCause,
    },
    /// A producer is streamed to an address: by this consumer, on this transport, neither of which is a peer's.
    RtpStreamerOpened {
        transport: TransportId,
        consumer: ConsumerId,
        producer: ProducerId,
        room: RoomId,
    },
    /// A streamer is closed, because its transport, its consumer or its producer was.
    RtpStreamerClosed {
        transport: TransportId,
        consumer: ConsumerId,
        room: RoomId,
    },
    /// How loud the room was in the last 500 ms, the loudest first. Only while somebody listens
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
    /// This subscriber was too slow and lost this many events; the next one goes on after the gap. Other subscribers
    /// saw them. What was missed is found by listing the objects.
    Lagged { count: u64 },
    /// The server is closed. The last event of the stream.
    ServerClosed,
}

/// How loud a producer was in the last 500 ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioLevel {
    /// Which one.
    pub producer: ProducerId,
    /// In dBov (RFC 6464): -127, silence, to 0, the loudest there is.
    pub level_dbov: i8,
}

/// Who made it happen (differences §1.6, §3.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Originator {
    /// The application, through this library or its HTTP interface; also the server itself.
    Local,
    /// The remote client, through its signalling.
    Remote,
    /// The producer that a consumer consumes.
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
    /// The worker that served it died.
    WorkerDied {
        /// Which one.
        worker: WorkerId,
        /// Of what.
        cause: DeathCause,
    },
    /// The server was closed.
    ServerClosed,
}

/// Numbers the events and hands each to every subscriber. Used under the lock of the server's state, which gives the
/// events one order that agrees with the state.
#[derive(Debug)]
pub(crate) struct EventBus {
    sender: Option<broadcast::Sender<Arc<Event>>>,
    seq: u64,
}

impl EventBus {
    pub(crate) fn new() -> Self {
        Self {
            sender: Some(broadcast::Sender::new(LAG_MAX)),
            seq: 0,
        }
    }

    pub(crate) fn emit(&mut self, kind: EventKind) {
        self.seq += 1;
        if let Some(sender) = &self.sender
            && sender.receiver_count() > 0
        {
            // An error says that the last subscriber has just gone.
            let _ = sender.send(Arc::new(Event::now(self.seq, kind)));
        }
    }

    /// What follows, if anything can, and the number of the next event.
    pub(crate) fn subscribe(&self) -> (Option<broadcast::Receiver<Arc<Event>>>, u64) {
        let events = self.sender.as_ref().map(broadcast::Sender::subscribe);
        (events, self.seq + 1)
    }

    /// Emits the last event; every stream ends after it.
    pub(crate) fn close(&mut self) {
        if self.sender.is_some() {
            self.emit(EventKind::ServerClosed);
            self.sender = None;
        }
    }
}
