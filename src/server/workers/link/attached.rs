//! The descriptors that travel beside a request.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use weir_channel::message::Method;
use weir_channel::page::Page;

use crate::server::model::desired::SocketsOf;
use crate::server::model::held::Held;
use crate::server::model::lock;
use crate::server::workers::sockets::{SenderSocket, TransportSockets, WebRtcSockets};

/// Where they come from.
#[derive(Debug)]
pub(super) enum Attached {
    Ready(Vec<OwnedFd>),
    /// Duplicated when it is the request's turn, so that not those of a whole worker are open twice at once.
    Of(SocketsOf),
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
            Self::Pages(pages) => pages.iter().map(|page| page.try_clone()).collect(),
        }
    }
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
