//! What a worker's answer changes.

use std::sync::Arc;

use serde_json::Value;
use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{
    CreateConsumer, CreateProducer, DtlsParameters, IceCredentials, Method, Remote, Reply, WorkerError,
};

use super::pausing::Pausable;
use super::{Command, OnAccept, State};
use crate::server::model::consumer::ConsumerNode;
use crate::server::model::desired::Object;
use crate::server::model::error::Error;
use crate::server::model::event::EventKind;
use crate::server::model::lock;
use crate::server::model::pause_state::{Change, PauseState};
use crate::server::model::peer::PeerNode;
use crate::server::model::transport::TransportNode;

/// What a request changes of what is known when a worker accepts it.
#[derive(Clone, Copy)]
enum Effect<'a> {
    Nothing,
    /// The room or transport that came with it exists.
    Open,
    OpenProducer(&'a CreateProducer),
    OpenConsumer(&'a CreateConsumer),
    /// The consumer and the producer come with it.
    ChangeSource(&'a CreateConsumer),
    Close(Object),
    Pause(Pausable, bool),
    Prefer(Pausable),
    SetRemote(TransportId, Remote),
    SetMaxBitrate(TransportId, Option<u64>),
    /// The mirror comes with it, if there is one from now on.
    Mirror(TransportId),
    RestartIce(TransportId, &'a IceCredentials),
    SetRemoteIce(TransportId, &'a IceCredentials),
    SetDtlsParameters(TransportId, &'a DtlsParameters),
}

impl<'a> Effect<'a> {
    /// The table of methods: all that follows from an answer is decided by what stands here.
    fn of(method: &'a Method) -> Self {
        match method {
            Method::CreateRouter { .. } | Method::CreatePlainTransport(_) | Method::CreateWebRtcTransport(_) => {
                Self::Open
            }
            Method::CreateProducer(request) => Self::OpenProducer(request),
            Method::CreateConsumer(request) => Self::OpenConsumer(request),
            Method::SetConsumerSource(request) => Self::ChangeSource(request),
            Method::CloseRouter { room } => Self::Close(Object::Room(*room)),
            Method::CloseTransport { transport } => Self::Close(Object::Transport(*transport)),
            Method::CloseProducer { producer } => Self::Close(Object::Producer(*producer)),
            Method::CloseConsumer { consumer } => Self::Close(Object::Consumer(*consumer)),
            Method::SetProducerPaused { producer, paused } => Self::Pause(Pausable::Producer(*producer), *paused),
            Method::SetConsumerPaused { consumer, paused } => Self::Pause(Pausable::Consumer(*consumer), *paused),
            Method::SetProducerPreferredProfile { producer, .. } => Self::Prefer(Pausable::Producer(*producer)),
            Method::SetConsumerPreferredProfile { consumer, .. } => Self::Prefer(Pausable::Consumer(*consumer)),
            Method::SetRemote { transport, remote } => Self::SetRemote(*transport, *remote),
            Method::SetMaxBitrate { transport, bitrate_bps } => Self::SetMaxBitrate(*transport, *bitrate_bps),
            Method::StartMirroring { transport, .. } | Method::StopMirroring { transport } => Self::Mirror(*transport),
            Method::RestartIce { transport, ice } => Self::RestartIce(*transport, ice),
            Method::SetRemoteIce { transport, ice } => Self::SetRemoteIce(*transport, ice),
            Method::SetDtlsParameters { transport, parameters } => Self::SetDtlsParameters(*transport, parameters),
            Method::Ping
            | Method::SetLogFilter(_)
            | Method::SetCoalescing(_)
            | Method::UseDtlsCertificate(_)
            | Method::OpenSharedPorts(_)
            | Method::UseConnectedSocket { .. }
            | Method::UsePollers
            | Method::Adopt { .. }
            | Method::AdoptionEnded { .. }
            | Method::SetQuarantine(_)
            | Method::DropWaiting { .. }
            | Method::Rehearse
            | Method::RehearsalEnded
            | Method::TakeUp { .. }
            | Method::SetAudioLevels { .. }
            | Method::RequestKeyFrame { .. }
            | Method::WorkerStats
            | Method::Stats(_)
            | Method::Dump(_)
            | Method::Shutdown => Self::Nothing,
        }
    }

    /// Whose pauses and preferences it is about, if the worker knows that, or will.
    fn pausable(self) -> Option<Pausable> {
        match self {
            Self::Pause(pausable, _) | Self::Prefer(pausable) => Some(pausable),
            Self::OpenConsumer(request) => Some(Pausable::Consumer(request.consumer)),
            _ => None,
        }
    }
}

impl State {
    /// Applies a worker's answer. What it returns is what the caller gets.
    pub(crate) fn apply_answer(
        &mut self,
        command: Command,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        let Command { method, on_accept } = command;
        if let OnAccept::Restored = on_accept {
            return self.apply_restored(&method, result);
        }
        let effect = Effect::of(&method);
        let change = self.end_under_way(effect, &on_accept);
        // A worker that refuses for another reason than that it is busy would refuse again.
        let busy = matches!(result, Ok(_) | Err(WorkerError::DeadlinePassed));
        let refused_again = change == Some(Change::Correct) && !busy;
        let outcome = match result {
            Err(WorkerError::DeadlinePassed) if matches!(on_accept, OnAccept::FollowUp) && change.is_none() => {
                self.follow_up(method);
                return Err(WorkerError::DeadlinePassed.into());
            }
            result => self.apply(&method, effect, on_accept, change, result),
        };
        if !refused_again {
            self.correct(effect);
        }
        outcome
    }

    /// The request is no longer under way.
    fn end_under_way(&mut self, effect: Effect<'_>, on_accept: &OnAccept) -> Option<Change> {
        match on_accept {
            OnAccept::Transport(node) => {
                let (peer, _) = node.owner.as_ref()?;
                lock(&peer.state).transports_on_their_way.remove(&node.id);
            }
            OnAccept::Producer(node) => {
                lock(&node.peer()?.state).producers_on_their_way -= 1;
                self.rooms.get_mut(&node.transport.room.id)?.producers_on_their_way -= 1;
            }
            OnAccept::Consumer(node) | OnAccept::Streamer(node) => {
                self.rooms.get_mut(&node.room.id)?.consumers_on_their_way -= 1;
            }
            OnAccept::Enable(node) => lock(&node.state).enabling = false,
            _ => {}
        }
        self.with_pause_state(effect.pausable()?, PauseState::end_oldest)?
    }

    fn apply(
        &mut self,
        method: &Method,
        effect: Effect<'_>,
        on_accept: OnAccept,
        change: Option<Change>,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        if let (OnAccept::ClosePeer(peer), Effect::Close(Object::Transport(transport))) = (&on_accept, effect) {
            return self.close_of_closing_peer(peer, transport, result);
        }
        let (reply, by_worker) = match result {
            Ok(reply) => (reply, true),
            // The worker has nothing to do with it (any more), so what is asked takes effect here.
            Err(WorkerError::UnknownConsumer(consumer)) if self.is_waiting(consumer) => match effect {
                Effect::Pause(..) | Effect::Prefer(_) | Effect::Close(_) => (Reply::Done, false),
                _ => return Err(Error::NotEnabled { consumer }),
            },
            Err(error) => return self.explain(effect, error),
        };
        match (effect, on_accept) {
            (Effect::Open, OnAccept::Room(node, _placed)) => self.open_room(node)?,
            (Effect::Open, OnAccept::Transport(node)) => {
                if let (Some(webrtc), Reply::WebRtcTransportCreated { fingerprints }) = (node.webrtc(), &reply) {
                    webrtc.opened(fingerprints.clone());
                }
                self.open_transport(method, node)?;
            }
            (Effect::OpenProducer(request), OnAccept::Producer(node)) => self.open_producer(request, node)?,
            (Effect::OpenConsumer(request), OnAccept::Consumer(node)) => self.open_consumer(request, node, &reply)?,
            (Effect::OpenConsumer(request), OnAccept::Streamer(node)) => self.open_streamer(request, node, &reply)?,
            (Effect::OpenConsumer(request), OnAccept::Enable(node)) => {
                self.enable_consumer(request, &node, change, &reply)?;
            }
            (Effect::ChangeSource(request), OnAccept::Source(node, producer)) => {
                self.change_source(request, (&node, &producer), &reply)?;
            }
            (Effect::Close(object), on_accept) => {
                let (side, app_data) = on_accept.into_side();
                self.close_object(object, side, app_data);
            }
            (Effect::Pause(pausable, paused), on_accept) => {
                self.change_pausable(pausable, change, on_accept);
                if by_worker {
                    self.set_worker_paused(pausable, paused);
                }
            }
            (Effect::Prefer(pausable), on_accept) => self.change_pausable(pausable, change, on_accept),
            (Effect::SetRemote(transport, remote), _) => self.set_remote(transport, remote),
            (Effect::SetMaxBitrate(transport, bitrate_bps), _) => {
                self.with_transport(transport, |node| lock(&node.state).max_bitrate_bps = bitrate_bps);
            }
            (Effect::Mirror(transport), on_accept) => {
                self.with_transport(transport, |node| node.set_mirror(on_accept.into_mirror()))
            }
            (Effect::RestartIce(transport, ice), _) => self.with_transport(transport, |node| {
                if let Some(webrtc) = node.webrtc() {
                    webrtc.restarted(ice.clone());
                }
            }),
            (Effect::SetRemoteIce(transport, ice), _) => self.with_transport(transport, |node| {
                if let Some(webrtc) = node.webrtc() {
                    webrtc.reached_with(ice.clone());
                }
            }),
            (Effect::SetDtlsParameters(transport, parameters), _) => self.with_transport(transport, |node| {
                if let (Some(webrtc), Reply::DtlsRole(role)) = (node.webrtc(), &reply) {
                    webrtc.client_known(parameters.clone(), *role);
                }
            }),
            (
                Effect::Nothing
                | Effect::Open
                | Effect::OpenProducer(_)
                | Effect::OpenConsumer(_)
                | Effect::ChangeSource(_),
                _,
            ) => {}
        }
        Ok(reply)
    }

    fn with_transport(&self, transport: TransportId, change: impl FnOnce(&TransportNode)) {
        if let Some(node) = self.transports.get(&transport) {
            change(node);
        }
    }

    /// Whether no worker knows the consumer: it is not enabled.
    fn is_waiting(&self, consumer: ConsumerId) -> bool {
        let node = self.consumers.get(&consumer);
        node.is_some_and(|node| lock(&node.state).transport.is_none())
    }

    /// A refusal because of an object that has been closed in the meantime is not the worker's fault: closing it again
    /// is fine, everything else finds it closed. So it is with what the worker has closed of a peer that is being closed.
    fn explain(&self, effect: Effect<'_>, error: WorkerError) -> Result<Reply, Error> {
        let is_open = |transport: &TransportNode| !transport.awaits_close_of_peer();
        let (object, known) = match &error {
            WorkerError::UnknownRoom(id) => (id.to_string(), self.rooms.contains_key(id)),
            WorkerError::UnknownTransport(id) => {
                let node = self.transports.get(id);
                (id.to_string(), node.is_some_and(|node| is_open(node)))
            }
            WorkerError::UnknownProducer(id) => {
                let node = self.producers.get(id);
                (id.to_string(), node.is_some_and(|node| is_open(&node.transport)))
            }
            WorkerError::UnknownConsumer(id) => {
                let node = self.consumers.get(id);
                let has_open = |node: &ConsumerNode| {
                    let own = lock(&node.state).transport.clone();
                    own.is_none_or(|own| is_open(&own)) && is_open(&node.producer().transport)
                };
                (id.to_string(), node.is_some_and(|node| has_open(node)))
            }
            _ => return Err(error.into()),
        };
        match effect {
            _ if known => Err(error.into()),
            Effect::Close(_) => Ok(Reply::Done),
            _ => Err(Error::closed(object)),
        }
    }

    /// One of the transports of a peer that is being closed has been answered. The last answer closes the peer.
    fn close_of_closing_peer(
        &mut self,
        peer: &Arc<PeerNode>,
        transport: TransportId,
        result: Result<Reply, WorkerError>,
    ) -> Result<Reply, Error> {
        let outcome = match result {
            // It was refused when it was made, or closed by somebody else.
            Err(WorkerError::UnknownTransport(_)) => Ok(Reply::Done),
            other => other.map_err(Error::from),
        };
        let finished = {
            let mut state = lock(&peer.state);
            let Some(closing) = &mut state.closing else {
                return outcome;
            };
            closing.unanswered -= 1;
            match &outcome {
                Ok(_) => closing.closed.push(transport),
                Err(_) => closing.refused = true,
            }
            match closing.unanswered {
                0 => state.closing.take(),
                _ => None,
            }
        };
        let Some(closing) = finished else {
            return outcome;
        };
        if !closing.refused {
            self.close_peer(peer, closing.side, closing.app_data);
            return outcome;
        }
        for transport in closing.closed {
            self.close_object(Object::Transport(transport), closing.side, Value::Null);
        }
        // Whichever was refused, the caller hears of it.
        outcome.and(Err(WorkerError::DeadlinePassed.into()))
    }

    fn set_remote(&mut self, transport: TransportId, remote: Remote) {
        let Some(node) = self.transports.get(&transport) else {
            return;
        };
        let former = {
            let mut state = lock(&node.state);
            state.remote_was_set = true;
            state.remote.replace(remote)
        };
        if former != Some(remote) {
            self.events.emit(EventKind::RemoteSet {
                transport,
                room: node.room.id,
                remote,
            });
        }
    }

    /// Asks the worker once more for what a producer or consumer should do, when all answers about it are in and it does
    /// something else.
    fn correct(&mut self, effect: Effect<'_>) {
        let Some(pausable) = effect.pausable() else {
            return;
        };
        if matches!(pausable, Pausable::Consumer(consumer) if self.is_waiting(consumer)) {
            return;
        }
        let correction = self.with_pause_state(pausable, PauseState::correction);
        if let Some(paused) = correction.flatten() {
            self.follow_up(pausable.pause(paused));
        }
    }
}
