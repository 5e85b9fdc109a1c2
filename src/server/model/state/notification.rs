//! What workers say unasked. Ignored when it is about what is another worker's, or gone.

use std::sync::Arc;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{DtlsState, IceState, IceTuple, Notification, Profile, Remote, WebRtcFailure};
use weir_channel::text::cut;

use super::State;
use super::credible::REASON_BYTES_MAX;
use crate::server::model::event::{AudioLevel, EventKind};
use crate::server::model::lock;
use crate::server::model::peer_notification::PeerNotification;
use crate::server::model::producer::ProducerNode;
use crate::server::model::transport::TransportNode;

fn bounded(mut failure: WebRtcFailure) -> WebRtcFailure {
    cut(&mut failure.message, REASON_BYTES_MAX);
    failure
}

impl State {
    /// Applies what a worker says.
    pub(crate) fn apply_notification(&mut self, worker: WorkerId, notification: Notification) {
        match notification {
            Notification::RemoteLearned { transport, remote } => self.learn_remote(worker, transport, remote),
            Notification::EffectiveProfileChanged { consumer, profile } => {
                self.change_effective_profile(worker, consumer, profile);
            }
            Notification::ProducerActivityChanged { producer, active } => {
                self.change_activity(worker, producer, active)
            }
            Notification::SsrcChanged {
                producer,
                ssrc,
                previous,
            } => self.change_ssrc(worker, producer, ssrc, previous),
            Notification::AudioLevels { room, levels } => self.tell_audio_levels(worker, room, &levels),
            Notification::IceStateChanged {
                transport,
                state,
                failure,
            } => self.change_ice_state(worker, transport, state, failure),
            Notification::ChecksRefused { transport, failure } => self.tell_of_refusal(worker, transport, failure),
            Notification::IceSelectedTupleChanged { transport, tuple } => {
                self.change_selected_tuple(worker, transport, tuple);
            }
            Notification::DtlsStateChanged {
                transport,
                state,
                remote_certificate_pem,
                failure,
            } => self.change_dtls_state(worker, transport, state, remote_certificate_pem, failure),
            // These are the link's own.
            Notification::SocketWanted { .. }
            | Notification::ConnectionProven { .. }
            | Notification::SocketClosed { .. }
            | Notification::Log(_)
            | Notification::LogLinesDropped { .. }
            | Notification::Sandboxed(_) => {}
        }
    }

    /// A worker says that a transport has learned its remote. Ignored when the transport is not the worker's, or gone.
    fn learn_remote(&mut self, worker: WorkerId, transport: TransportId, remote: Remote) {
        let Some(node) = self.transport_of(worker, transport) else {
            return;
        };
        lock(&node.state).remote = Some(remote);
        self.events.emit(EventKind::RemoteLearned {
            transport,
            room: node.room.id,
            remote,
        });
    }

    /// A worker says under which SSRC a producer is sent now. Ignored when the producer is not the worker's, or gone.
    fn change_ssrc(&mut self, worker: WorkerId, producer: ProducerId, ssrc: u32, previous: Option<u32>) {
        if let Some(node) = self.producer_of(worker, producer) {
            self.events.emit(EventKind::ProducerSsrcChanged {
                producer,
                room: node.transport.room.id,
                ssrc,
                previous,
            });
        }
    }

    /// A worker says what it sends a consumer now. Ignored when the consumer is not the worker's, or gone, or not enabled.
    fn change_effective_profile(&mut self, worker: WorkerId, consumer: ConsumerId, profile: Option<Profile>) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        let room = node.room.id;
        {
            let mut state = lock(&node.state);
            if node.room.worker != worker || state.transport.is_none() || state.effective_profile == profile {
                return;
            }
            state.effective_profile = profile;
        }
        if let Some((receiver, peer_name)) = node.client() {
            receiver.outbox.push(PeerNotification::ConsumerEffectiveProfileChanged {
                consumer,
                peer_name,
                profile,
            });
        }
        self.events.emit(EventKind::ConsumerEffectiveProfileChanged {
            consumer,
            room,
            profile,
        });
    }

    /// A worker says whether a producer sends anything. Ignored when the producer is not the worker's, or gone.
    fn change_activity(&mut self, worker: WorkerId, producer: ProducerId, active: bool) {
        if let Some(node) = self.producer_of(worker, producer) {
            self.events.emit(EventKind::ProducerActivityChanged {
                producer,
                room: node.transport.room.id,
                active,
            });
        }
    }

    /// A worker says how loud a room's producers were. Ignored when the room is not the worker's, or gone, or nobody
    /// listens; producers that are gone are left out.
    fn tell_audio_levels(&mut self, worker: WorkerId, room: RoomId, levels: &[(ProducerId, i8)]) {
        let Some(entry) = self.rooms.get(&room) else {
            return;
        };
        if entry.node.worker != worker || !entry.listeners.any() {
            return;
        }
        let known = levels.iter().filter_map(|(producer, level_dbov)| {
            let node = self.producers.get(producer)?;
            let level = AudioLevel {
                producer: *producer,
                level_dbov: (*level_dbov).clamp(-127, 0),
            };
            (node.transport.room.id == room).then(|| (Arc::clone(node), level))
        });
        let known: Vec<_> = known.collect();
        let levels = known.iter().map(|(_, level)| *level).collect();
        entry.listeners.tell(known);
        self.events.emit(EventKind::AudioLevels { room, levels });
    }

    fn change_ice_state(
        &mut self,
        worker: WorkerId,
        transport: TransportId,
        state: IceState,
        failure: Option<WebRtcFailure>,
    ) {
        let Some(node) = self.transport_of(worker, transport) else {
            return;
        };
        // That a transport is closed is told by its own event, and by that alone.
        let failure = failure.map(bounded);
        let news = node.webrtc().filter(|_| state != IceState::Closed);
        if news.is_some_and(|webrtc| webrtc.set_ice_state(state, failure.as_ref())) {
            let room = node.room.id;
            self.events.emit(EventKind::IceStateChanged {
                transport,
                room,
                state,
                failure,
            });
        }
    }

    fn tell_of_refusal(&mut self, worker: WorkerId, transport: TransportId, failure: WebRtcFailure) {
        let Some(node) = self.transport_of(worker, transport) else {
            return;
        };
        if let Some(webrtc) = node.webrtc() {
            let failure = bounded(failure);
            webrtc.checks_refused(&failure);
            self.events.emit(EventKind::ChecksRefused {
                transport,
                room: node.room.id,
                failure,
            });
        }
    }

    fn change_selected_tuple(&mut self, worker: WorkerId, transport: TransportId, tuple: Option<IceTuple>) {
        let Some(node) = self.transport_of(worker, transport) else {
            return;
        };
        if let Some(webrtc) = node.webrtc().filter(|webrtc| webrtc.select(tuple)) {
            self.events.emit(EventKind::IceSelectedTupleChanged {
                transport,
                room: node.room.id,
                tuple: tuple.map(|tuple| webrtc.shown(tuple)),
            });
        }
    }

    fn change_dtls_state(
        &mut self,
        worker: WorkerId,
        transport: TransportId,
        state: DtlsState,
        certificate_pem: Option<String>,
        failure: Option<WebRtcFailure>,
    ) {
        let Some(node) = self.transport_of(worker, transport) else {
            return;
        };
        let failure = failure.map(bounded);
        let news = node.webrtc();
        if news.is_some_and(|webrtc| webrtc.set_dtls_state(state, certificate_pem, failure.as_ref())) {
            let room = node.room.id;
            self.events.emit(EventKind::DtlsStateChanged {
                transport,
                room,
                state,
                failure,
            });
        }
    }

    /// This transport, if it is one for WebRTC that the worker serves.
    pub(crate) fn webrtc_of(&self, worker: WorkerId, transport: TransportId) -> Option<Arc<TransportNode>> {
        let node = self.transport_of(worker, transport);
        node.filter(|node| node.webrtc().is_some())
    }

    fn transport_of(&self, worker: WorkerId, transport: TransportId) -> Option<Arc<TransportNode>> {
        let node = self.transports.get(&transport)?;
        (node.room.worker == worker).then(|| Arc::clone(node))
    }

    fn producer_of(&self, worker: WorkerId, producer: ProducerId) -> Option<Arc<ProducerNode>> {
        let node = self.producers.get(&producer)?;
        (node.transport.room.worker == worker).then(|| Arc::clone(node))
    }
}
