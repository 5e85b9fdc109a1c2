//! Sockets that are connected to a transport's peer: those that a worker asks for, those that it has accepted, and when it has closed
//! them.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use weir_channel::id::TransportId;
use weir_channel::message::{IceTuple, Method};

use super::{End, Link, of_process};
use crate::server::model::lock;
use crate::server::model::state::State;
use crate::server::workers::sockets::WebRtcSockets;

impl Link {
    /// Gives the worker a connected socket for a transport that shares its port, if there is one to be had.
    pub(super) fn give_socket(&self, state: &Mutex<State>, transport: TransportId, tuple: IceTuple) {
        let Some(shared_ports) = &self.shared_ports else {
            return;
        };
        let Ok(permit) = Arc::clone(&self.sockets).try_acquire_owned() else {
            return;
        };
        let connect = |sockets: &mut WebRtcSockets| {
            let socket = shared_ports.connect(self.worker, tuple)?;
            sockets.keep(tuple, &socket);
            Some(socket)
        };
        if let Some(socket) = self.with_sockets(state, transport, connect).flatten() {
            let method = Method::UseConnectedSocket { transport, tuple };
            // Nobody waits: without it the transport goes on as before.
            let _ = self.enqueue(of_process(method), self.timeout, vec![socket], Some(permit));
        }
    }

    /// Keeps a copy of a connection that a worker has accepted.
    pub(super) fn keep_connection(
        &self,
        state: &Mutex<State>,
        transport: TransportId,
        tuple: IceTuple,
        connection: Option<OwnedFd>,
    ) -> Result<(), End> {
        // If there was no number left for it, it does not outlive the worker.
        let Some(connection) = connection else {
            return Ok(());
        };
        let keep = |sockets: &mut WebRtcSockets| sockets.keep_connection(tuple, connection);
        let kept = self.with_sockets(state, transport, keep).unwrap_or(Ok(()));
        kept.map_err(|what| End::Misbehaved(format!("it sent {what}")))
    }

    /// Closes the copy of a socket that a worker has closed, or has refused.
    pub(super) fn close_socket(&self, state: &Mutex<State>, transport: TransportId, tuple: IceTuple) {
        self.with_sockets(state, transport, |sockets| sockets.close(tuple));
    }

    /// The sockets of a WebRTC transport of this worker's, if it is open.
    fn with_sockets<T>(
        &self,
        state: &Mutex<State>,
        transport: TransportId,
        act: impl FnOnce(&mut WebRtcSockets) -> T,
    ) -> Option<T> {
        let node = lock(state).webrtc_of(self.worker, transport)?;
        let mut state = lock(&node.state);
        state.sockets.as_mut()?.downcast_mut().map(act)
    }
}
