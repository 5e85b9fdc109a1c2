//! A producer: one track that a remote sends.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_channel::id::ProducerId;
use weir_channel::message::{MediaKind, Method, ProducerStats, Profile, Reply};

use super::error::Error;
use super::room::Room;
use super::rtp_parameters::{ProducerSeat, RtpParameters};
use super::state::Command;
use super::transport::{Transport, TransportNode};
use super::{Shared, lock, random};

/// A handle on a producer. Cheap to clone; dropping it closes nothing.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    node: Arc<ProducerNode>,
}

#[derive(Debug)]
pub(crate) struct ProducerNode {
    pub(crate) id: ProducerId,
    pub(crate) kind: MediaKind,
    pub(crate) transport: Arc<TransportNode>,
    pub(crate) rtp_parameters: RtpParameters,
    pub(crate) app_data: Value,
    pub(crate) state: Mutex<ProducerState>,
}

#[derive(Debug)]
pub(crate) struct ProducerState {
    pub(crate) closed: bool,
    pub(crate) paused: bool,
    pub(crate) preferred_profile: Profile,
    /// Requests about the two fields above that the worker has not answered. While there are any, it is not known what
    /// the state will be when a new one is read, so none is left out as having nothing to do.
    pub(crate) calls_under_way: u32,
}

impl ProducerNode {
    pub(crate) fn new(
        seat: ProducerSeat,
        transport: Arc<TransportNode>,
        mut rtp_parameters: RtpParameters,
        app_data: Value,
    ) -> Arc<Self> {
        // RFC 7022 §4.2: 96 random bits; all consumers of the producer share them (spec §5.6).
        let cname = &mut rtp_parameters.rtcp.cname;
        cname.get_or_insert_with(|| format!("{:016x}{:08x}", random(), random() as u32));
        Arc::new(Self {
            id: seat.producer,
            kind: seat.kind,
            transport,
            rtp_parameters,
            app_data,
            state: Mutex::new(ProducerState {
                closed: false,
                paused: seat.paused,
                preferred_profile: seat.preferred_profile,
                calls_under_way: 0,
            }),
        })
    }
}

impl Producer {
    pub(crate) fn new(shared: Arc<Shared>, node: Arc<ProducerNode>) -> Self {
        Self { shared, node }
    }

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
        Room::new(Arc::clone(&self.shared), Arc::clone(&self.node.transport.room))
    }

    /// The transport it arrives on.
    pub fn transport(&self) -> Transport {
        Transport::new(Arc::clone(&self.shared), Arc::clone(&self.node.transport))
    }

    /// What the remote sends, as given when it was made (and with a `cname`, if none was given).
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

    /// Whether it is paused, as far as the worker has confirmed.
    pub fn paused(&self) -> bool {
        lock(&self.node.state).paused
    }

    /// The profile that consumers without a preference of their own follow.
    pub fn preferred_profile(&self) -> Profile {
        lock(&self.node.state).preferred_profile
    }

    /// Stops relaying it to anyone; its packets are still received and counted. Pausing what is paused does nothing.
    ///
    /// Calls take effect in the order in which they are made (first polled): after concurrent pauses and resumes the
    /// state is that of the last one the worker accepted.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn pause(&self, app_data: Value) -> Result<(), Error> {
        let producer = self.node.id;
        self.change(Method::PauseProducer { producer }, app_data, |state| state.paused)
            .await
    }

    /// Relays it again; video from its next key frame, which is asked for. Resuming what is not paused does nothing.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn resume(&self, app_data: Value) -> Result<(), Error> {
        let producer = self.node.id;
        self.change(Method::ResumeProducer { producer }, app_data, |state| !state.paused)
            .await
    }

    /// Sets the profile that consumers without a preference of their own follow.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn set_preferred_profile(&self, profile: Profile) -> Result<(), Error> {
        let producer = self.node.id;
        let method = Method::SetProducerPreferredProfile { producer, profile };
        self.change(method, Value::Null, |state| state.preferred_profile == profile)
            .await
    }

    /// Its counters.
    pub async fn stats(&self) -> Result<ProducerStats, Error> {
        let producer = self.node.id;
        let worker = self.node.transport.room.worker;
        let reply = self.shared.ask(worker, |_| {
            if lock(&self.node.state).closed {
                return Err(Error::closed(producer));
            }
            Ok(Some(Command::new(Method::ProducerStats { producer })))
        });
        match reply.await? {
            Reply::Stats(mut page) if page.producers.len() == 1 => Ok(page.producers.remove(0)),
            other => Err(self.shared.unexpected(worker, "ProducerStats", &other)),
        }
    }

    /// Closes it and its consumers. Closing what is closed is fine, and does nothing.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        let producer = self.node.id;
        let closed = self
            .shared
            .call(self.node.transport.room.worker, |_| match self.closed() {
                true => Ok(None),
                false => Ok(Some(Command::with_app_data(
                    Method::CloseProducer { producer },
                    app_data,
                ))),
            });
        match closed.await {
            Err(Error::WorkerDied { .. }) if self.closed() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn change(
        &self,
        method: Method,
        app_data: Value,
        nothing_to_do: impl FnOnce(&ProducerState) -> bool,
    ) -> Result<(), Error> {
        let worker = self.node.transport.room.worker;
        let reply = self.shared.call(worker, |_| {
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

impl From<&Producer> for ProducerId {
    fn from(producer: &Producer) -> Self {
        producer.id()
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}
