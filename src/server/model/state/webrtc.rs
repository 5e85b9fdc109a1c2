//! What becomes of WebRTC transports: what workers say of their ICE and DTLS, and what their answers change.

use std::sync::Arc;

use weir_channel::id::{TransportId, WorkerId};
use weir_channel::message::{DtlsState, IceState, IceTuple, Method, Notification, Reply, WebRtcFailure};

use super::State;
use crate::server::model::event::EventKind;
use crate::server::model::transport::TransportNode;

/// The longest message of a failure, in bytes. A worker is not trusted with more.
const MESSAGE_BYTES_MAX: usize = 256;

fn bounded(mut failure: WebRtcFailure) -> WebRtcFailure {
    let mut end = failure.message.len().min(MESSAGE_BYTES_MAX);
    while !failure.message.is_char_boundary(end) {
        end -= 1;
    }
    failure.message.truncate(end);
    failure
}

impl State {
    /// A worker says how far a transport's ICE or DTLS got. Ignored when the transport is not the worker's, not for WebRTC,
    /// or gone, and when it is no news.
    pub(crate) fn hear_of_webrtc(&mut self, worker: WorkerId, notification: Notification) {
        match notification {
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
            _ => {}
        }
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

    /// Whether this is a WebRTC transport that the worker serves.
    pub(crate) fn serves_webrtc(&self, worker: WorkerId, transport: TransportId) -> bool {
        let node = self.transport_of(worker, transport);
        node.is_some_and(|node| node.webrtc().is_some())
    }

    fn transport_of(&self, worker: WorkerId, transport: TransportId) -> Option<Arc<TransportNode>> {
        let node = self.transports.get(&transport)?;
        (node.room.worker == worker).then(|| Arc::clone(node))
    }

    /// A worker has accepted new credentials, or who the peer is.
    pub(super) fn change_webrtc(&mut self, method: &Method, reply: &Reply) {
        let (Method::RestartIce { transport, .. } | Method::SetDtlsParameters { transport, .. }) = method else {
            return;
        };
        let Some(node) = self.transports.get(transport).cloned() else {
            return;
        };
        self.accept(node.room.id, method);
        let Some(webrtc) = node.webrtc() else {
            return;
        };
        match (method, reply) {
            (Method::RestartIce { ice, .. }, _) => webrtc.restarted(ice.clone()),
            (Method::SetDtlsParameters { .. }, Reply::DtlsRole(role)) => webrtc.dtls_role_decided(*role),
            _ => {}
        }
    }
}
