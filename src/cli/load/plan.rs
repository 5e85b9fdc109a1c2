//! What is set up before anything is measured: sources, sockets, and who gets what.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context as _;
use weir::Transport;
use weir_worker::net::sockets::prepare;
use weir_worker::webrtc::srtp::{Inbound, Outbound, Repeats};

use crate::cli::measuring::client::Session;
use crate::cli::measuring::socket::{local_socket, never_block, receiver_socket};

use super::driver::Encryption;
use super::traffic::Source;

/// Streams that one client can be sent: two of each other peer.
const STREAMS_MAX: usize = 400;

/// The sockets and transports of all rooms, while they are set up.
pub(super) struct Plan {
    pub sources: Vec<Source>,
    /// For each source what it sends on.
    pub senders: Vec<Arc<UdpSocket>>,
    pub receivers: Vec<Arc<UdpSocket>>,
    /// What the baseline sends on instead of transports: a connected socket, and where the unconnected one sends to.
    pub paths: Vec<(OwnedFd, SocketAddr)>,
    /// The baseline's unconnected socket.
    pub shared: UdpSocket,
    /// Receivers of the baseline's own.
    pub sinks: Vec<Arc<UdpSocket>>,
    /// For each source the paths that its packets leave on.
    pub targets: Vec<Vec<usize>>,
    pub encryption: Encryption,
    gro_receivers: bool,
}

impl Plan {
    pub(super) fn new(gro_receivers: bool) -> anyhow::Result<Self> {
        Ok(Self {
            sources: Vec::new(),
            senders: Vec::new(),
            receivers: Vec::new(),
            paths: Vec::new(),
            shared: local_socket()?,
            sinks: Vec::new(),
            targets: Vec::new(),
            encryption: Encryption::default(),
            gro_receivers,
        })
    }

    /// What the baseline sends on instead of a transport that sends to `receiver`: the transport's own socket, unless it has
    /// none because transports share a port.
    pub(super) fn add_path(
        &mut self,
        transport: &Transport,
        receiver: &UdpSocket,
        is_port_shared: bool,
    ) -> anyhow::Result<()> {
        let connected = match is_port_shared {
            false => transport.rtp_path()?,
            true => {
                let (path, sink) = (local_socket()?, self.receiver()?);
                path.connect(sink.local_addr()?)?;
                sink.connect(path.local_addr()?)?;
                prepare(path.as_fd()).context("setting up a socket of the baseline")?;
                self.sinks.push(Arc::new(sink));
                path.into()
            }
        };
        // A receiver that is connected to its transport hears nobody else.
        let remote = match receiver.peer_addr() {
            Err(_) => receiver.local_addr()?,
            Ok(_) => {
                let sink = self.receiver()?;
                sink.connect(self.shared.local_addr()?)?;
                let remote = sink.local_addr()?;
                self.sinks.push(Arc::new(sink));
                remote
            }
        };
        self.paths.push((connected, remote));
        Ok(())
    }

    /// A socket with room for what comes while the driver is busy.
    pub(super) fn receiver(&self) -> anyhow::Result<UdpSocket> {
        let socket = receiver_socket()?;
        if self.gro_receivers {
            prepare(socket.as_fd()).context("setting up a receiver")?;
        } else {
            never_block(&socket)?;
        }
        Ok(socket)
    }
}

impl Encryption {
    /// The sources with these SSRCs are this client's.
    pub(super) fn sends(&mut self, ssrcs: &[u32], session: &Session) -> anyhow::Result<()> {
        let mut outbound = Outbound::new(&session.keys.outbound);
        for ssrc in ssrcs {
            let stream = outbound.add_stream(*ssrc, Repeats::Refused);
            let stream = stream.map_err(|refused| anyhow::anyhow!("SSRC {ssrc} is refused: {refused:?}"))?;
            self.streams.push((self.outbounds.len(), stream));
        }
        self.outbounds.push(outbound);
        Ok(())
    }

    /// The next receiver is this client's.
    pub(super) fn receives(&mut self, session: &Session, is_looked_at: bool) {
        let inbound = is_looked_at.then(|| Inbound::new(&session.keys.inbound, STREAMS_MAX));
        self.inbounds.push(inbound);
    }
}
