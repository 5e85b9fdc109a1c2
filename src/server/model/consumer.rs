//! What is known of a consumer.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CreateConsumer, MediaKind, Profile};

use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::pause_state::PauseState;
use crate::server::model::peer::PeerNode;
use crate::server::model::peer_notification::ConsumerInfo;
use crate::server::model::producer::ProducerNode;
use crate::server::model::reports::Reports;
use crate::server::model::reservation::ConsumerReservation;
use crate::server::model::room::RoomNode;
use crate::server::model::rtp_parameters::{ConsumerPlacement, ConsumerSsrcs, RtpParameters};
use crate::server::model::transport::TransportNode;

#[derive(Debug)]
pub(crate) struct ConsumerNode {
    pub(crate) id: ConsumerId,
    pub(crate) room: Arc<RoomNode>,
    pub(crate) kind: MediaKind,
    producer: Mutex<Arc<ProducerNode>>,
    /// It outlives its producers, and is sent all of them under what was reserved for it.
    pub(crate) reservation: Option<ConsumerReservation>,
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
    pub(crate) pause_state: PauseState,
    pub(crate) source_paused: bool,
    pub(crate) effective_profile: Option<Profile>,
    /// Until it is closed.
    pub(crate) reports: Option<Reports>,
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
        placement: ConsumerPlacement,
        transport: Arc<TransportNode>,
        producer: Arc<ProducerNode>,
        (rtp_parameters, reservation): (RtpParameters, Option<ConsumerReservation>),
        app_data: Value,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: placement.consumer,
            room: Arc::clone(&transport.room),
            kind: producer.kind,
            producer: Mutex::new(producer),
            reservation,
            receiver: None,
            rtp_parameters: Arc::new(rtp_parameters),
            ssrcs: None,
            app_data: Arc::new(app_data),
            state: Mutex::new(ConsumerState {
                closed: false,
                transport: Some(transport),
                enabling: false,
                pause_state: PauseState::new(placement.paused, false, placement.preferred_profile),
                source_paused: false,
                effective_profile: None,
                reports: Some(Reports::default()),
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
            kind: producer.kind,
            producer: Mutex::new(producer),
            reservation: None,
            receiver: Some(receiver),
            rtp_parameters: Arc::new(rtp_parameters),
            ssrcs: Some(ssrcs),
            app_data,
            state: Mutex::new(ConsumerState {
                closed: false,
                transport: None,
                enabling: false,
                pause_state: PauseState::new(false, false, Profile::Default),
                source_paused,
                effective_profile: None,
                reports: Some(Reports::default()),
            }),
        })
    }

    /// What it consumes. If that is closed, it waits for another one.
    pub(crate) fn producer(&self) -> Arc<ProducerNode> {
        Arc::clone(&lock(&self.producer))
    }

    /// It consumes another producer. Only [`State`](super::state::State) does this, under its lock.
    pub(crate) fn set_producer(&self, producer: &Arc<ProducerNode>) {
        *lock(&self.producer) = Arc::clone(producer);
    }

    /// Whose client is told about it, and the name of the peer it receives from.
    pub(crate) fn client(&self) -> Option<(&PeerNode, Arc<str>)> {
        let producer = self.producer();
        let source = producer.peer()?;
        Some((self.receiver.as_deref()?, Arc::clone(&source.name)))
    }

    /// What its client gets to know of it.
    pub(crate) fn info(&self) -> ConsumerInfo {
        let producer = self.producer();
        let state = lock(&self.state);
        ConsumerInfo {
            id: self.id,
            kind: self.kind,
            rtp_parameters: Arc::clone(&self.rtp_parameters),
            paused: state.pause_state.paused() || state.source_paused,
            preferred_profile: state.pause_state.preferred_profile(),
            effective_profile: state.effective_profile,
            app_data: Arc::clone(&self.app_data),
            peer_name: match producer.peer() {
                Some(source) => Arc::clone(&source.name),
                None => Arc::from(""),
            },
        }
    }

    /// The worker's request for a peer's consumer, neither paused nor with a preference.
    pub(crate) fn request(&self, transport: TransportId) -> Result<CreateConsumer, Error> {
        let producer = self.producer();
        let placement = ConsumerPlacement {
            room: self.room.id,
            transport,
            producer: producer.id,
            consumer: self.id,
            preferred_profile: Profile::Default,
            paused: false,
            cname_is_made_up: producer.cname_is_made_up,
        };
        let payload_types = match &producer.consumable {
            Some(consumable) => consumable.mapping.payload_types(),
            None => &[],
        };
        self.rtp_parameters
            .consumer_request(placement, payload_types)
            .map_err(Error::InvalidParameters)
    }
}
