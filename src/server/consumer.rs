//! A consumer: one producer as one remote receives it.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ConsumerId, TransportId, WorkerId};
use weir_channel::message::{ConsumerStats, CreateConsumer, MediaKind, Method, Profile, Reply};

use super::error::Error;
use super::peer::{Peer, PeerNode};
use super::peer_notification::ConsumerInfo;
use super::periodic_stats::Reports;
use super::producer::{Producer, ProducerNode};
use super::room::{Room, RoomNode};
use super::rtp_parameters::{ConsumerSeat, ConsumerSsrcs, RtpParameters};
use super::state::{Command, State};
use super::steering::{Side, Steering};
use super::transport::{Transport, TransportNode};
use super::{Shared, lock};

/// How a peer's consumer is enabled, as its client asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EnableOptions {
    /// Whether it starts paused by the client. `false` leaves that as it is.
    pub paused: bool,
    /// The highest profile the client wants; `None` leaves it as it is.
    pub preferred_profile: Option<Profile>,
}

/// A handle on a consumer. Cheap to clone; dropping it closes nothing.
#[derive(Clone)]
pub struct Consumer {
    pub(super) shared: Arc<Shared>,
    pub(super) node: Arc<ConsumerNode>,
}

#[derive(Debug)]
pub(crate) struct ConsumerNode {
    pub(crate) id: ConsumerId,
    pub(crate) room: Arc<RoomNode>,
    pub(crate) producer: Arc<ProducerNode>,
    /// The peer it belongs to. Without one it closes with its transport.
    pub(crate) receiver: Option<Arc<PeerNode>>,
    pub(crate) rtp_parameters: Arc<RtpParameters>,
    /// Those that were drawn for it from the room's, if it is a peer's.
    pub(crate) ssrcs: Option<ConsumerSsrcs>,
    pub(crate) app_data: Arc<Value>,
    pub(crate) state: Mutex<ConsumerState>,
}

#[derive(Debug)]
pub(crate) struct ConsumerState {
    pub(crate) closed: bool,
    /// The transport it leaves on; the worker knows the consumer while there is one.
    pub(crate) transport: Option<Arc<TransportNode>>,
    /// The worker was asked to take it up, and has not answered.
    pub(crate) enabling: bool,
    pub(crate) steering: Steering,
    pub(crate) source_paused: bool,
    pub(crate) effective_profile: Option<Profile>,
    pub(crate) reports: Reports,
}

impl ConsumerState {
    /// Whether the worker knows the consumer, or will when all that is under way is accepted.
    pub(crate) fn is_known_to_worker(&self) -> bool {
        self.transport.is_some() || self.enabling
    }
}

impl ConsumerNode {
    /// A consumer of nobody's, on a transport for life.
    pub(crate) fn on_transport(
        seat: ConsumerSeat,
        transport: Arc<TransportNode>,
        producer: Arc<ProducerNode>,
        rtp_parameters: RtpParameters,
        app_data: Value,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: seat.consumer,
            room: Arc::clone(&transport.room),
            producer,
            receiver: None,
            rtp_parameters: Arc::new(rtp_parameters),
            ssrcs: None,
            app_data: Arc::new(app_data),
            state: Mutex::new(ConsumerState {
                closed: false,
                transport: Some(transport),
                enabling: false,
                steering: Steering::new(seat.paused, false, seat.preferred_profile),
                source_paused: false,
                effective_profile: None,
                reports: Reports::default(),
            }),
        })
    }

    /// A peer's consumer that waits to be enabled.
    pub(crate) fn waiting(
        id: ConsumerId,
        producer: Arc<ProducerNode>,
        receiver: Arc<PeerNode>,
        (rtp_parameters, ssrcs): (RtpParameters, ConsumerSsrcs),
        source_paused: bool,
        app_data: Arc<Value>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            room: Arc::clone(&receiver.room),
            producer,
            receiver: Some(receiver),
            rtp_parameters: Arc::new(rtp_parameters),
            ssrcs: Some(ssrcs),
            app_data,
            state: Mutex::new(ConsumerState {
                closed: false,
                transport: None,
                enabling: false,
                steering: Steering::new(false, false, Profile::Default),
                source_paused,
                effective_profile: None,
                reports: Reports::default(),
            }),
        })
    }

    /// Whose client is told about it, and the name of the peer it receives from.
    pub(crate) fn client(&self) -> Option<(&PeerNode, Arc<str>)> {
        let source = self.producer.peer()?;
        Some((self.receiver.as_deref()?, Arc::clone(&source.name)))
    }

    /// What its client gets to know of it.
    pub(crate) fn info(&self) -> ConsumerInfo {
        let state = lock(&self.state);
        ConsumerInfo {
            id: self.id,
            kind: self.producer.kind,
            rtp_parameters: Arc::clone(&self.rtp_parameters),
            paused: state.steering.paused() || state.source_paused,
            preferred_profile: state.steering.preferred_profile(),
            effective_profile: state.effective_profile,
            app_data: Arc::clone(&self.app_data),
            peer_name: match self.producer.peer() {
                Some(source) => Arc::clone(&source.name),
                None => Arc::from(""),
            },
        }
    }

    /// The worker's request for a peer's consumer, neither paused nor with a preference.
    pub(crate) fn request(&self, transport: TransportId) -> Result<CreateConsumer, Error> {
        let seat = ConsumerSeat {
            room: self.room.id,
            transport,
            producer: self.producer.id,
            consumer: self.id,
            preferred_profile: Profile::Default,
            paused: false,
            cname_is_made_up: self.producer.cname_is_made_up,
        };
        let payload_types = match &self.producer.consumable {
            Some(consumable) => consumable.mapping.payload_types(),
            None => &[],
        };
        self.rtp_parameters
            .consumer_request(seat, payload_types)
            .map_err(Error::InvalidParameters)
    }
}

impl Consumer {
    pub(crate) fn new(shared: Arc<Shared>, node: Arc<ConsumerNode>) -> Self {
        Self { shared, node }
    }

    /// Its id.
    pub fn id(&self) -> ConsumerId {
        self.node.id
    }

    /// Audio or video, as its producer.
    pub fn kind(&self) -> MediaKind {
        self.node.producer.kind
    }

    /// The room it belongs to.
    pub fn room(&self) -> Room {
        Room::new(Arc::clone(&self.shared), Arc::clone(&self.node.room))
    }

    /// The transport it leaves on; `None` while it is not enabled.
    pub fn transport(&self) -> Option<Transport> {
        let node = lock(&self.node.state).transport.clone()?;
        Some(Transport::new(Arc::clone(&self.shared), node))
    }

    /// Whether it is sent on a transport. A consumer that belongs to no peer always is, until it closes.
    pub fn enabled(&self) -> bool {
        lock(&self.node.state).transport.is_some()
    }

    /// The peer it receives from: whose producer it consumes. `None` if the producer, or the consumer, is nobody's.
    pub fn peer(&self) -> Option<Peer> {
        self.node.receiver.as_ref()?;
        self.producer().peer()
    }

    /// The peer it belongs to: who receives it.
    pub fn receiver(&self) -> Option<Peer> {
        let node = Arc::clone(self.node.receiver.as_ref()?);
        Some(Peer::new(Arc::clone(&self.shared), node))
    }

    /// What it consumes: the same as [`Consumer::producer`].
    pub fn source(&self) -> Producer {
        self.producer()
    }

    /// The producer that it consumes.
    pub fn producer(&self) -> Producer {
        Producer::new(Arc::clone(&self.shared), Arc::clone(&self.node.producer))
    }

    /// What its receiver must expect: the payload types, the header extension ids, the one SSRC, the CNAME.
    pub fn rtp_parameters(&self) -> &RtpParameters {
        &self.node.rtp_parameters
    }

    /// What it was created with.
    pub fn app_data(&self) -> &Value {
        &self.node.app_data
    }

    /// Whether it is closed.
    pub fn closed(&self) -> bool {
        lock(&self.node.state).closed
    }

    /// Whether the application or its client holds it paused, as far as the worker has confirmed. It is sent when neither
    /// does and its [source is not paused](Consumer::source_paused).
    pub fn paused(&self) -> bool {
        lock(&self.node.state).steering.paused()
    }

    /// Whether the application has paused it.
    pub fn locally_paused(&self) -> bool {
        lock(&self.node.state).steering.is_paused_by(Side::Local)
    }

    /// Whether its client holds it paused.
    pub fn remotely_paused(&self) -> bool {
        lock(&self.node.state).steering.is_paused_by(Side::Remote)
    }

    /// Whether its producer is paused.
    pub fn source_paused(&self) -> bool {
        lock(&self.node.state).source_paused
    }

    /// The highest profile that it should receive.
    pub fn preferred_profile(&self) -> Profile {
        lock(&self.node.state).steering.preferred_profile()
    }

    /// The profile it is sent; `None` before its first packet and while none is available.
    pub fn effective_profile(&self) -> Option<Profile> {
        lock(&self.node.state).effective_profile
    }

    /// Sends it on a transport of the peer it belongs to, from the next key frame if it is video.
    ///
    /// # Errors
    /// [`Error::AlreadyEnabled`], [`Error::InvalidState`] when it or the transport is closed, [`Error::InvalidParameters`]
    /// when the transport is not its peer's or the peer can receive none of the producer's codecs.
    pub async fn enable(&self, transport: &Transport, options: EnableOptions) -> Result<(), Error> {
        let EnableOptions {
            paused,
            preferred_profile,
        } = options;
        let enabled = self.shared.call(self.worker(), |state| {
            state.plan_enabling(self.node.id, transport.node(), paused, preferred_profile)
        });
        enabled.await.map(drop)
    }

    /// Stops sending to it, for the application. Pausing what is paused does nothing. Calls take effect in the order in
    /// which they are made.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn pause(&self, app_data: Value) -> Result<(), Error> {
        self.pause_by(Side::Local, app_data).await
    }

    /// Takes the application's pause back; video goes on from the next key frame, which is asked for. Resuming what is not
    /// paused does nothing. While its client holds it paused, too, it stays so.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn resume(&self, app_data: Value) -> Result<(), Error> {
        self.resume_by(Side::Local, app_data).await
    }

    /// [`Consumer::pause`] for one of the two who may.
    pub async fn pause_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
        self.set_paused(side, true, app_data).await
    }

    /// [`Consumer::resume`] for one of the two who may.
    pub async fn resume_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
        self.set_paused(side, false, app_data).await
    }

    async fn set_paused(&self, side: Side, paused: bool, app_data: Value) -> Result<(), Error> {
        let changed = self.shared.call(self.worker(), |state| {
            state.plan_consumer_pause(self.node.id, side, paused, app_data)
        });
        changed.await.map(drop)
    }

    /// Caps the profile it gets; [`Profile::Default`] removes the cap. Its client is told.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn set_preferred_profile(&self, profile: Profile) -> Result<(), Error> {
        self.set_preferred_profile_by(Side::Local, profile).await
    }

    /// [`Consumer::set_preferred_profile`]; a client is not told of its own wish.
    pub async fn set_preferred_profile_by(&self, side: Side, profile: Profile) -> Result<(), Error> {
        let changed = self.shared.call(self.worker(), |state| {
            state.plan_consumer_preference(self.node.id, side, profile)
        });
        changed.await.map(drop)
    }

    /// Asks its producer for a key frame. Does nothing for audio, and while it or its producer is paused.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, [`Error::NotEnabled`].
    pub async fn request_key_frame(&self) -> Result<(), Error> {
        let consumer = self.node.id;
        let plan = self.plan(Method::RequestKeyFrame { consumer });
        self.shared.call(self.worker(), plan).await.map(drop)
    }

    /// Its counters.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, [`Error::NotEnabled`].
    pub async fn stats(&self) -> Result<ConsumerStats, Error> {
        let consumer = self.node.id;
        let worker = self.worker();
        let plan = self.plan(Method::ConsumerStats { consumer });
        match self.shared.ask(worker, plan).await? {
            Reply::Stats(mut page) if page.consumers.len() == 1 => Ok(page.consumers.remove(0)),
            other => Err(self.shared.unexpected(worker, "ConsumerStats", &other)),
        }
    }

    /// Closes it. Has no effect if it is closed already.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        self.close_by(Side::Local, app_data).await
    }

    /// [`Consumer::close`] for one of the two who may.
    pub async fn close_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
        let consumer = self.node.id;
        let closed = self.shared.call(self.worker(), |state| {
            let known = {
                let own = lock(&self.node.state);
                if own.closed {
                    return Ok(None);
                }
                own.is_known_to_worker()
            };
            if !known {
                state.close_waiting_consumer(consumer, side, app_data);
                return Ok(None);
            }
            Ok(Some(Command::by(side, Method::CloseConsumer { consumer }, app_data)))
        });
        match closed.await {
            Err(Error::WorkerDied { .. }) if self.closed() => Ok(()),
            other => other.map(drop),
        }
    }

    fn worker(&self) -> WorkerId {
        self.node.room.worker
    }

    /// For what only the worker can do.
    pub(super) fn plan(&self, method: Method) -> impl FnOnce(&mut State) -> Result<Option<Command>, Error> + '_ {
        move |_| {
            let state = lock(&self.node.state);
            if state.closed {
                return Err(Error::closed(self.node.id));
            }
            if !state.is_known_to_worker() {
                return Err(Error::NotEnabled { consumer: self.node.id });
            }
            Ok(Some(Command::new(method)))
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}
