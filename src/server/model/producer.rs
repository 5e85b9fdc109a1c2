//! What is known of a producer.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_channel::id::ProducerId;
use weir_channel::message::MediaKind;

use crate::server::model::pause_state::PauseState;
use crate::server::model::peer::PeerNode;
use crate::server::model::reports::Reports;
use crate::server::model::rtp_capabilities::{ProducerMapping, RtpCapabilities};
use crate::server::model::rtp_parameters::{ProducerPlacement, RtpParameters};
use crate::server::model::transport::TransportNode;

#[derive(Debug)]
pub(crate) struct ProducerNode {
    pub(crate) id: ProducerId,
    pub(crate) kind: MediaKind,
    pub(crate) transport: Arc<TransportNode>,
    pub(crate) rtp_parameters: RtpParameters,
    /// Nobody has given their canonical name: receivers get the one that the sender says of itself.
    pub(crate) cname_is_made_up: bool,
    /// What the peers of its room can be sent, if it is a peer's.
    pub(crate) consumable: Option<Consumable>,
    pub(crate) state: Mutex<ProducerState>,
}

/// A producer in the room's payload types and header extension ids.
#[derive(Debug)]
pub(crate) struct Consumable {
    pub(crate) mapping: ProducerMapping,
    pub(crate) parameters: RtpParameters,
}

impl Consumable {
    /// Finds the producer's codecs among the room's.
    pub(crate) fn derive(kind: MediaKind, parameters: &RtpParameters, room: &RtpCapabilities) -> Result<Self, String> {
        let mapping = ProducerMapping::derive(parameters, room)?;
        let parameters = mapping.consumable(kind, parameters, room);
        Ok(Self { mapping, parameters })
    }
}

#[derive(Debug)]
pub(crate) struct ProducerState {
    pub(crate) closed: bool,
    /// Its consumers share it.
    pub(crate) app_data: Arc<Value>,
    pub(crate) pause_state: PauseState,
    /// Until it is closed.
    pub(crate) reports: Option<Reports>,
}

impl ProducerNode {
    pub(crate) fn new(
        placement: ProducerPlacement,
        transport: Arc<TransportNode>,
        rtp_parameters: RtpParameters,
        cname_is_made_up: bool,
        consumable: Option<Consumable>,
        app_data: Value,
    ) -> Arc<Self> {
        // The one who says in the beginning that a peer's producer is paused is its client.
        let pause_state = match transport.owner {
            Some(_) => PauseState::new(false, placement.paused, placement.preferred_profile),
            None => PauseState::new(placement.paused, false, placement.preferred_profile),
        };
        Arc::new(Self {
            id: placement.producer,
            kind: placement.kind,
            transport,
            rtp_parameters,
            cname_is_made_up,
            consumable,
            state: Mutex::new(ProducerState {
                closed: false,
                app_data: Arc::new(app_data),
                pause_state,
                reports: Some(Reports::default()),
            }),
        })
    }

    /// Whose it is.
    pub(crate) fn peer(&self) -> Option<&Arc<PeerNode>> {
        self.transport.owner.as_ref().map(|(peer, _)| peer)
    }
}
