//! A transport for plain RTP and RTCP over UDP.

use std::net::IpAddr;

use weir_channel::message::{ComediaPolicy, Method, Remote};

use super::Transport;
use crate::server::model::address::{Tuple, complete_remote};
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::state::Command;

impl Transport {
    /// Whether it learns its remote from the first valid packet.
    pub fn comedia(&self) -> bool {
        self.comedia_policy().is_some()
    }

    /// If it learns its remote: whether it may learn another one.
    pub fn comedia_policy(&self) -> Option<ComediaPolicy> {
        self.node.plain_node()?.comedia
    }

    /// If it learns its remote: the only IP at which it does; `None`: at any.
    pub fn comedia_from(&self) -> Option<IpAddr> {
        self.node.plain_node()?.comedia_from
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
