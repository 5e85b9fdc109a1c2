//! A consumer: one producer as one remote receives it.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_channel::id::ConsumerId;
use weir_channel::message::{ConsumerStats, MediaKind, Method, Profile, Reply};

use super::error::Error;
use super::producer::{Producer, ProducerNode};
use super::room::Room;
use super::rtp_parameters::{ConsumerSeat, RtpParameters};
use super::state::{Command, State};
use super::transport::{Transport, TransportNode};
use super::{Shared, lock};

/// A handle on a consumer. Cheap to clone; dropping it closes nothing.
#[derive(Clone)]
pub struct Consumer {
    shared: Arc<Shared>,
    node: Arc<ConsumerNode>,
}

#[derive(Debug)]
pub(crate) struct ConsumerNode {
    pub(crate) id: ConsumerId,
    pub(crate) transport: Arc<TransportNode>,
    pub(crate) producer: Arc<ProducerNode>,
    pub(crate) rtp_parameters: RtpParameters,
    pub(crate) app_data: Value,
    pub(crate) state: Mutex<ConsumerState>,
}

#[derive(Debug)]
pub(crate) struct ConsumerState {
    pub(crate) closed: bool,
    pub(crate) paused: bool,
    pub(crate) source_paused: bool,
    pub(crate) preferred_profile: Profile,
    pub(crate) effective_profile: Option<Profile>,
    /// As for producers.
    pub(crate) calls_under_way: u32,
}

impl ConsumerNode {
    pub(crate) fn new(
        seat: ConsumerSeat,
        transport: Arc<TransportNode>,
        producer: Arc<ProducerNode>,
        rtp_parameters: RtpParameters,
        app_data: Value,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: seat.consumer,
            transport,
            producer,
            rtp_parameters,
            app_data,
            state: Mutex::new(ConsumerState {
                closed: false,
                paused: seat.paused,
                source_paused: false,
                preferred_profile: seat.preferred_profile,
                effective_profile: None,
                calls_under_way: 0,
            }),
        })
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
        Room::new(Arc::clone(&self.shared), Arc::clone(&self.node.transport.room))
    }

    /// The transport it leaves on.
    pub fn transport(&self) -> Transport {
        Transport::new(Arc::clone(&self.shared), Arc::clone(&self.node.transport))
    }

    /// What it consumes.
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

    /// Whether it is paused by itself, as far as the worker has confirmed.
    pub fn paused(&self) -> bool {
        lock(&self.node.state).paused
    }

    /// Whether its producer is paused.
    pub fn source_paused(&self) -> bool {
        lock(&self.node.state).source_paused
    }

    /// The highest profile it wants.
    pub fn preferred_profile(&self) -> Profile {
        lock(&self.node.state).preferred_profile
    }

    /// The profile it is sent; `None` before its first packet and while none is available.
    pub fn effective_profile(&self) -> Option<Profile> {
        lock(&self.node.state).effective_profile
    }

    /// Stops sending to it. Pausing what is paused does nothing. Calls take effect in the order in which they are made.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn pause(&self, app_data: Value) -> Result<(), Error> {
        let consumer = self.node.id;
        self.change(Method::PauseConsumer { consumer }, app_data, |state| state.paused)
            .await
    }

    /// Sends to it again; video from the next key frame, which is asked for. Resuming what is not paused does nothing.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn resume(&self, app_data: Value) -> Result<(), Error> {
        let consumer = self.node.id;
        self.change(Method::ResumeConsumer { consumer }, app_data, |state| !state.paused)
            .await
    }

    /// Caps the profile it gets; [`Profile::Default`] removes the cap.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn set_preferred_profile(&self, profile: Profile) -> Result<(), Error> {
        let consumer = self.node.id;
        let method = Method::SetConsumerPreferredProfile { consumer, profile };
        self.change(method, Value::Null, |state| state.preferred_profile == profile)
            .await
    }

    /// Asks its producer for a key frame. Does nothing for audio, and while it or its producer is paused.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn request_key_frame(&self) -> Result<(), Error> {
        let consumer = self.node.id;
        let plan = self.plan(Method::RequestKeyFrame { consumer });
        self.shared.call(self.node.transport.room.worker, plan).await.map(drop)
    }

    /// Its counters.
    pub async fn stats(&self) -> Result<ConsumerStats, Error> {
        let consumer = self.node.id;
        let worker = self.node.transport.room.worker;
        let plan = self.plan(Method::ConsumerStats { consumer });
        match self.shared.ask(worker, plan).await? {
            Reply::Stats(mut page) if page.consumers.len() == 1 => Ok(page.consumers.remove(0)),
            other => Err(self.shared.unexpected(worker, "ConsumerStats", &other)),
        }
    }

    /// Closes it. Closing what is closed is fine, and does nothing.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        let consumer = self.node.id;
        let closed = self
            .shared
            .call(self.node.transport.room.worker, |_| match self.closed() {
                true => Ok(None),
                false => Ok(Some(Command::with_app_data(
                    Method::CloseConsumer { consumer },
                    app_data,
                ))),
            });
        match closed.await {
            Err(Error::WorkerDied { .. }) if self.closed() => Ok(()),
            other => other.map(drop),
        }
    }

    fn plan(&self, method: Method) -> impl FnOnce(&mut State) -> Result<Option<Command>, Error> + '_ {
        move |_| match lock(&self.node.state).closed {
            true => Err(Error::closed(self.node.id)),
            false => Ok(Some(Command::new(method))),
        }
    }

    async fn change(
        &self,
        method: Method,
        app_data: Value,
        nothing_to_do: impl FnOnce(&ConsumerState) -> bool,
    ) -> Result<(), Error> {
        let reply = self.shared.call(self.node.transport.room.worker, |_| {
            let mut state = lock(&self.node.state);
            if state.closed {
                return Err(Error::closed(self.node.id));
            }
            if state.calls_under_way == 0 && nothing_to_do(&state) {
                return Ok(None);
            }
            state.calls_under_way += 1;
            Ok(Some(Command::with_app_data(method, app_data)))
        });
        reply.await.map(drop)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}
