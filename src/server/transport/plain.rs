//! A transport for plain RTP and RTCP over UDP.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_channel::message::{ComediaPolicy, CreatePlainTransport, Method, Remote};

use super::{Kind, Owner, Sockets, Transport, TransportNode, TransportState, Tuple};
use crate::server::error::Error;
use crate::server::lock;
use crate::server::room::{RoomNode, complete_remote};
use crate::server::settings::Settings;
use crate::server::sockets::TransportSockets;
use crate::server::state::Command;

/// What a transport has when it is one for plain RTP.
#[derive(Debug)]
pub(super) struct PlainNode {
    comedia: Option<ComediaPolicy>,
    rtcp_mux: bool,
    rtp_address: SocketAddr,
    rtcp_address: Option<SocketAddr>,
    announced_ip: IpAddr,
}

impl PlainNode {
    /// Its addresses.
    pub(super) fn tuple(&self, remote: Option<SocketAddr>) -> Tuple {
        self.tuple_of(self.rtp_address, remote)
    }

    fn tuple_of(&self, local: SocketAddr, remote: Option<SocketAddr>) -> Tuple {
        Tuple {
            local_ip: self.announced_ip,
            bound_ip: local.ip(),
            local_port: local.port(),
            remote,
            zone: Tuple::zone_of(local),
        }
    }
}

impl TransportNode {
    /// One for plain RTP.
    pub(crate) fn plain(
        settings: &Settings,
        room: Arc<RoomNode>,
        owner: Option<Owner>,
        request: &CreatePlainTransport,
        sockets: TransportSockets,
        app_data: Value,
    ) -> Arc<Self> {
        let rtp_address = sockets.rtp_address();
        Arc::new(Self {
            id: request.transport,
            room,
            owner,
            app_data,
            kind: Kind::Plain(PlainNode {
                comedia: request.comedia.then_some(request.comedia_policy),
                rtcp_mux: request.rtcp_mux,
                rtp_address,
                rtcp_address: sockets.rtcp_address(),
                announced_ip: settings.announced(rtp_address.ip()),
            }),
            state: Mutex::new(TransportState::new(Sockets::Plain(sockets), request.remote)),
        })
    }

    fn plain_node(&self) -> Option<&PlainNode> {
        match &self.kind {
            Kind::Plain(plain) => Some(plain),
            Kind::WebRtc(_) => None,
        }
    }
}

impl Transport {
    /// Whether it learns its remote from the first valid packet.
    pub fn comedia(&self) -> bool {
        self.comedia_policy().is_some()
    }

    /// If it learns its remote: whether it may learn another one.
    pub fn comedia_policy(&self) -> Option<ComediaPolicy> {
        self.node.plain_node()?.comedia
    }

    /// Whether RTP and RTCP share one port, as they always do in WebRTC.
    pub fn rtcp_mux(&self) -> bool {
        self.node.plain_node().is_none_or(|plain| plain.rtcp_mux)
    }

    /// The addresses for RTCP; `None` if it shares RTP's port.
    pub fn rtcp_tuple(&self) -> Option<Tuple> {
        let plain = self.node.plain_node()?;
        let remote = lock(&self.node.state).remote;
        Some(plain.tuple_of(plain.rtcp_address?, remote.and_then(|remote| remote.rtcp)))
    }

    /// Sets or changes the remote address; from then on, packets from other addresses are dropped.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when nothing can be sent there, or when the transport is one for WebRTC, which finds its
    /// remote by ICE; [`Error::InvalidState`] when the transport is closed.
    pub async fn set_remote(&self, remote: Remote) -> Result<(), Error> {
        let transport = self.node.id;
        let Some(plain) = self.node.plain_node() else {
            return Err(Error::InvalidParameters(format!(
                "{transport} is for WebRTC: its remote is found by ICE, not told"
            )));
        };
        let remote = complete_remote(remote, plain.rtcp_mux, plain.rtp_address.ip())?;
        self.call(Command::new(Method::SetRemote { transport, remote }))
            .await
            .map(drop)
    }
}
