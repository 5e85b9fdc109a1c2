//! What is known of a transport for plain RTP.

use std::net::{IpAddr, SocketAddr};

use weir_channel::message::ComediaPolicy;

use crate::server::model::address::Tuple;

/// What a transport has when it is one for plain RTP.
#[derive(Debug)]
pub(crate) struct PlainNode {
    pub(crate) comedia: Option<ComediaPolicy>,
    /// Where it learns its remote; `None`: anywhere.
    pub(crate) comedia_from: Option<IpAddr>,
    pub(crate) rtcp_mux: bool,
    pub(crate) rtp_address: SocketAddr,
    pub(crate) rtcp_address: Option<SocketAddr>,
    pub(super) announced_ip: IpAddr,
}

impl PlainNode {
    /// Its addresses.
    pub(super) fn tuple(&self, remote: Option<SocketAddr>) -> Tuple {
        self.tuple_of(self.rtp_address, remote)
    }

    pub(crate) fn tuple_of(&self, local: SocketAddr, remote: Option<SocketAddr>) -> Tuple {
        Tuple {
            local_ip: self.announced_ip,
            bound_ip: local.ip(),
            local_port: local.port(),
            remote,
            zone: Tuple::zone_of(local),
        }
    }
}
