//! A producer: one track that a remote sends.

use std::sync::Arc;

use serde_json::Value;
use weir_channel::id::{ProducerId, WorkerId};
use weir_channel::message::{MediaKind, Method, Profile};

use crate::server::api::handle::handle;
use crate::server::api::peer::Peer;
use crate::server::api::room::Room;
use crate::server::api::transport::Transport;
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::producer::ProducerNode;
use crate::server::model::rtp_capabilities::{RtpCapabilities, receiver_parameters};
use crate::server::model::rtp_parameters::RtpParameters;
use crate::server::model::side::Side;
use crate::server::model::state::{Command, Pausable};

handle! {
    /// A handle on a producer. Cheap to clone; dropping it closes nothing.
    pub struct Producer(ProducerNode);
}

impl Producer {
    /// Its id.
    pub fn id(&self) -> ProducerId {
        self.node.id
    }

    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.node.kind
    }

    /// The room it belongs to.
    pub fn room(&self) -> Room {
        Room::new(&self.shared, &self.node.transport.room)
    }

    /// The transport it arrives on.
    pub fn transport(&self) -> Transport {
        Transport::new(&self.shared, &self.node.transport)
    }

    /// The peer it belongs to.
    pub fn peer(&self) -> Option<Peer> {
        Some(Peer::new(&self.shared, self.node.peer()?))
    }

    /// The RTP parameters of the remote, as given when it was made, and with a `cname` if none was given.
    pub fn rtp_parameters(&self) -> &RtpParameters {
        &self.node.rtp_parameters
    }

    /// Whether a receiver that can receive this, in numbers of its own, has a codec in common with it
    /// ([`Transport::consume_as`]).
    pub fn can_be_received_by(&self, receiver: &RtpCapabilities) -> bool {
        let (_, payload_types) = receiver_parameters(&self.node.rtp_parameters, receiver);
        !payload_types.is_empty()
    }

    /// The app data that is kept with it.
    pub fn app_data(&self) -> Value {
        Value::clone(&lock(&self.node.state).app_data)
    }

    /// Replaces its app data. Consumers have a copy from the time when they were made.
    pub fn set_app_data(&self, app_data: Value) {
        lock(&self.node.state).app_data = Arc::new(app_data);
    }

    /// Whether it is closed.
    pub fn closed(&self) -> bool {
        lock(&self.node.state).closed
    }

    /// Whether anybody holds it paused, as far as the worker has confirmed.
    pub fn paused(&self) -> bool {
        lock(&self.node.state).pause_state.paused()
    }

    /// The profile for consumers that have no preference of their own.
    pub fn preferred_profile(&self) -> Profile {
        lock(&self.node.state).pause_state.preferred_profile()
    }

    /// Sets the profile that consumers without a preference of their own follow.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn set_preferred_profile(&self, profile: Profile) -> Result<(), Error> {
        let changed = self.shared.call(self.worker(), |state| {
            state.plan_preference(Pausable::Producer(self.node.id), Side::Local, profile)
        });
        changed.await.map(drop)
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.node.transport.room.worker
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        match self.closed() {
            true => Err(Error::closed(self.node.id)),
            false => Ok(()),
        }
    }

    /// Closes it and its consumers. Has no effect if it is closed already.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        self.close_by(Side::Local, app_data).await
    }

    /// [`Producer::close`] for one of the two who may.
    pub async fn close_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
        let producer = self.node.id;
        let plan = |_: &mut _| vec![Command::by(side, Method::CloseProducer { producer }, app_data)];
        self.shared.close(self.worker(), || self.closed(), plan).await
    }
}

impl From<&Producer> for ProducerId {
    fn from(producer: &Producer) -> Self {
        producer.id()
    }
}
