//! The descriptors that travel beside a request.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
    /// The descriptors, to be sent now.
    ///
    /// # Errors
    /// When there are no more of them, or what they belong to is closed.
    pub(super) fn descriptors(self) -> io::Result<Vec<OwnedFd>> {
        match self {
            Self::Ready(descriptors) => Ok(descriptors),
            Self::Of(SocketsOf::Nobody) => Ok(Vec::new()),
            Self::Of(SocketsOf::Transport(node)) => {
                let state = lock(&node.state);
                state.sockets.as_ref().map_or_else(|| Err(closed()), of_transport)
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
fn of_transport(held: &Held) -> io::Result<Vec<OwnedFd>> {
    let plain = held.downcast_ref().map(TransportSockets::descriptors);
    let sockets = plain.or_else(|| held.downcast_ref().map(WebRtcSockets::descriptors));
    sockets.unwrap_or_else(|| Ok(Vec::new()))
}

/// The socket of a mirror.
pub(super) fn of_mirror(held: &Held) -> io::Result<Vec<OwnedFd>> {
    let socket = held.downcast_ref().map(SenderSocket::descriptor);
    socket.transpose().map(|socket| socket.into_iter().collect())
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "it is closed")
}
