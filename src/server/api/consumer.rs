//! A consumer: one producer as one remote receives it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ConsumerId, WorkerId};
use weir_channel::message::{MediaKind, Method, Profile};

use crate::server::api::handle::handle;
use crate::server::api::peer::Peer;
use crate::server::api::producer::Producer;
use crate::server::api::room::Room;
use crate::server::api::transport::Transport;
use crate::server::model::consumer::ConsumerNode;
use crate::server::model::desired::Object;
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::rtp_parameters::{ConsumerPlacement, RtpParameters};
use crate::server::model::side::Side;
use crate::server::model::state::{Command, OnAccept, Pausable, State};

/// How a peer's consumer is enabled, as its client asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EnableOptions {
    /// Whether it starts paused by the client. `false` leaves that as it is.
    pub paused: bool,
    /// The highest profile the client wants; `None` leaves it as it is.
    pub preferred_profile: Option<Profile>,
}

handle! {
    /// A handle on a consumer. Cheap to clone; dropping it closes nothing.
    pub struct Consumer(ConsumerNode);
}

impl Consumer {
    /// Its id.
    pub fn id(&self) -> ConsumerId {
        self.node.id
    }

    /// Audio or video, as its producer.
    pub fn kind(&self) -> MediaKind {
        self.node.kind
    }

    /// The room it belongs to.
    pub fn room(&self) -> Room {
        Room::new(&self.shared, &self.node.room)
    }

    /// The transport it leaves on; `None` while it is not enabled.
    pub fn transport(&self) -> Option<Transport> {
        let node = lock(&self.node.state).transport.clone()?;
        Some(Transport::new(&self.shared, &node))
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
        Some(Peer::new(&self.shared, self.node.receiver.as_ref()?))
    }

    /// What it consumes: the same as [`Consumer::producer`].
    pub fn source(&self) -> Producer {
        self.producer()
    }

    /// The producer that it consumes; while it [waits](Consumer::waits), the last one.
    pub fn producer(&self) -> Producer {
        Producer::new(&self.shared, &self.node.producer())
    }

    /// Whether it has outlived its producer, and is sent nothing until it is given another one ([`Consumer::set_source`]).
    pub fn waits(&self) -> bool {
        !self.closed() && self.producer().closed()
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
        lock(&self.node.state).pause_state.paused()
    }

    /// Whether its producer is paused.
    pub fn source_paused(&self) -> bool {
        lock(&self.node.state).source_paused
    }

    /// The highest profile that it should receive.
    pub fn preferred_profile(&self) -> Profile {
        lock(&self.node.state).pause_state.preferred_profile()
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

    /// Caps the profile it gets; [`Profile::Default`] removes the cap. Its client is told.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn set_preferred_profile(&self, profile: Profile) -> Result<(), Error> {
        self.set_preferred_profile_by(Side::Local, profile).await
    }

    /// [`Consumer::set_preferred_profile`]; a client is not notified of its own request.
    pub async fn set_preferred_profile_by(&self, side: Side, profile: Profile) -> Result<(), Error> {
        let changed = self.shared.call(self.worker(), |state| {
            state.plan_preference(Pausable::Consumer(self.node.id), side, profile)
        });
        changed.await.map(drop)
    }

    /// Gives it another producer of its room, if it was made to outlive its producers ([`Transport::consume_reserved`]). Its receiver sees
    /// one stream that goes on: the same SSRC, numbers without a break, from the next key frame if it is video. Pause and preference
    /// stay.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such producer; [`Error::InvalidParameters`] when it is in another room, of another kind,
    /// or has no codec that the receiver knows, or the consumer closes with its producer; [`Error::InvalidState`] when either is
    /// closed.
    pub async fn set_source(&self, producer: &Producer) -> Result<(), Error> {
        let closes = || Error::InvalidParameters(format!("{} closes with its producer", self.node.id));
        let reservation = self.node.reservation.as_ref().ok_or_else(closes)?;
        let transport = self.transport().ok_or_else(|| Error::closed(self.node.id))?;
        let producer = transport.in_same_room(producer.id())?;
        let placement = ConsumerPlacement {
            room: self.node.room.id,
            transport: transport.id(),
            producer: producer.id,
            consumer: self.node.id,
            preferred_profile: self.preferred_profile(),
            paused: false,
            cname_is_made_up: producer.cname_is_made_up,
        };
        let command = Command {
            method: Method::SetConsumerSource(reservation.request(placement, &producer)?),
            on_accept: OnAccept::Source(Arc::clone(&self.node), producer),
        };
        let changed = self.shared.call(self.worker(), |_| {
            self.check_known()?;
            Ok(Some(command))
        });
        changed.await.map(drop)
    }

    /// Asks its producer for a key frame. Does nothing for audio, and while it or its producer is paused.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, [`Error::NotEnabled`].
    pub async fn request_key_frame(&self) -> Result<(), Error> {
        let consumer = self.node.id;
        let asked = self.shared.call(self.worker(), |_| {
            self.check_known()?;
            Ok(Some(Command::new(Method::RequestKeyFrame { consumer })))
        });
        asked.await.map(drop)
    }

    /// Closes it. Has no effect if it is closed already.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        self.close_by(Side::Local, app_data).await
    }

    /// [`Consumer::close`] for one of the two who may.
    pub async fn close_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
        let consumer = self.node.id;
        let plan = |state: &mut State| {
            if lock(&self.node.state).is_known_to_worker() {
                return vec![Command::by(side, Method::CloseConsumer { consumer }, app_data)];
            }
            state.close_object(Object::Consumer(consumer), side, app_data);
            Vec::new()
        };
        self.shared.close(self.worker(), || self.closed(), plan).await
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.node.room.worker
    }

    /// For what only the worker can do.
    pub(super) fn check_known(&self) -> Result<(), Error> {
        let state = lock(&self.node.state);
        match (state.closed, state.is_known_to_worker()) {
            (true, _) => Err(Error::closed(self.node.id)),
            (false, false) => Err(Error::NotEnabled { consumer: self.node.id }),
            (false, true) => Ok(()),
        }
    }
}
