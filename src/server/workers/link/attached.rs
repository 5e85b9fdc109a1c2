//! The descriptors that travel beside a request.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use weir_channel::message::Method;
use weir_channel::page::Page;

use crate::server::model::desired::SocketsOf;
use crate::server::model::held::Held;
use crate::server::model::lock;
use crate::server::model::transport::TransportNode;
use crate::server::workers::sockets::{SenderSocket, TransportSockets, WebRtcSockets};

/// Where they come from.
#[derive(Debug)]
pub(super) enum Attached {
    Ready(Vec<OwnedFd>),
    /// Duplicated when it is the request's turn, so that not those of a whole worker are open twice at once.
    Of(SocketsOf),
    /// As before, but only what is connected to the transport's peer: the process has had the rest already.
    ConnectedOf(SocketsOf),
    Pages(Vec<Arc<Page>>),
}

impl Attached {
    /// The descriptors, to be sent now. The request is told which ones they are, if only now that is known.
    ///
    /// # Errors
    /// When there are no more of them, or what they belong to is closed.
    pub(super) fn descriptors(self, method: &mut Method) -> io::Result<Vec<OwnedFd>> {
        match self {
            Self::Ready(descriptors) => Ok(descriptors),
            Self::Of(SocketsOf::Nobody) => Ok(Vec::new()),
            Self::Of(SocketsOf::Transport(node)) => {
                let state = lock(&node.state);
                state
                    .sockets
                    .as_ref()
                    .map_or_else(|| Err(closed()), |held| of_transport(held, method))
            }
            Self::Of(SocketsOf::Mirror(node)) => {
                let state = lock(&node.state);
                let outlet = state.mirror.as_ref();
                outlet.map_or_else(|| Err(closed()), |outlet| of_mirror(&outlet.socket))
            }
            Self::ConnectedOf(SocketsOf::Transport(node)) => {
                let state = lock(&node.state);
                let sockets = state
                    .sockets
                    .as_ref()
                    .and_then(|held| held.downcast_ref::<WebRtcSockets>());
                match (sockets, method) {
                    (Some(sockets), Method::CreateWebRtcTransport(request)) => {
                        request.connected = sockets.connected();
                        sockets.connected_descriptors()
                    }
                    _ => Ok(Vec::new()),
                }
            }
            Self::ConnectedOf(other) => Self::Of(other).descriptors(method),
            Self::Pages(pages) => pages.iter().map(|page| page.try_clone()).collect(),
        }
    }
}

/// Whether sockets of a transport are connected to its peer that a process has not got which has rehearsed it.
pub(super) fn has_connected(node: &TransportNode) -> bool {
    let state = lock(&node.state);
    let sockets = state.sockets.as_ref();
    let sockets = sockets.and_then(|held| held.downcast_ref::<WebRtcSockets>());
    // Of one whose sockets are gone the process need not know that.
    sockets.is_some_and(|sockets| !sockets.connected().is_empty())
}

/// The sockets with which a transport is rehearsed: those that are not connected to its peer. None if it is closed.
pub(crate) fn to_rehearse(sockets: &SocketsOf) -> io::Result<Vec<OwnedFd>> {
    let SocketsOf::Transport(node) = sockets else {
        return Ok(Vec::new());
    };
    let state = lock(&node.state);
    let Some(held) = &state.sockets else {
        return Ok(Vec::new());
    };
    if let Some(plain) = held.downcast_ref::<TransportSockets>() {
        return plain.descriptors();
    }
    held.downcast_ref()
        .map_or_else(|| Ok(Vec::new()), WebRtcSockets::own_descriptors)
}

/// The sockets of a transport, in the order in which the request that makes it wants them.
fn of_transport(held: &Held, method: &mut Method) -> io::Result<Vec<OwnedFd>> {
    if let Some(plain) = held.downcast_ref::<TransportSockets>() {
        return plain.descriptors();
    }
    let Some(sockets) = held.downcast_ref::<WebRtcSockets>() else {
        return Ok(Vec::new());
    };
    if let Method::CreateWebRtcTransport(request) = method {
        request.connected = sockets.connected();
    }
    sockets.descriptors()
}

/// The socket of a mirror.
pub(super) fn of_mirror(held: &Held) -> io::Result<Vec<OwnedFd>> {
    let socket = held.downcast_ref().map(SenderSocket::descriptor);
    socket.transpose().map(|socket| socket.into_iter().collect())
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "it is closed")
}
