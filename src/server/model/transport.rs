//! What is known of a transport.

mod ice;
mod plain;
mod webrtc;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::TransportId;
use weir_channel::message::{CreateConsumer, CreatePlainTransport, Mirror, Remote, Zoned};
use weir_channel::words;

use crate::server::model::address::Tuple;
use crate::server::model::error::Error;
use crate::server::model::held::Held;
use crate::server::model::lock;
use crate::server::model::peer::PeerNode;
use crate::server::model::reports::Reports;
use crate::server::model::room::RoomNode;
use crate::server::model::settings::Settings;

pub(crate) use self::ice::new_credentials;
pub use self::ice::{IceCandidate, IceCandidateType, IceParameters, IceTcpType};
use self::plain::PlainNode;
pub(crate) use self::webrtc::{WebRtcNode, WebRtcState};

/// The kind of a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// RTP and RTCP over UDP, unencrypted.
    #[default]
    Plain,
    /// WebRTC as browsers use it: ICE, DTLS and SRTP.
    WebRtc,
}

words!(TransportKind { Plain = "plain", WebRtc = "webrtc" });

/// The direction in which a client uses a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To send to the room.
    Send,
    /// To receive from it.
    Recv,
}

/// The copies of a transport's packets that are being sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirroring {
    /// The address that they are sent from.
    pub local: SocketAddr,
    /// The address that they are sent to.
    pub remote: SocketAddr,
    /// RTP that the transport sends.
    pub send_rtp: bool,
    /// RTCP that the transport sends.
    pub send_rtcp: bool,
    /// RTP that the transport receives.
    pub recv_rtp: bool,
    /// RTCP that the transport receives.
    pub recv_rtcp: bool,
}

/// A mirror that a worker has accepted, with its socket: while it is kept, nobody else gets the port.
#[derive(Debug)]
pub(crate) struct MirrorOutlet {
    pub(crate) local: SocketAddr,
    pub(crate) mirror: Mirror,
    pub(crate) socket: Held,
}

impl MirrorOutlet {
    pub(crate) fn mirroring(&self) -> Mirroring {
        let Mirror {
            remote,
            send_rtp,
            send_rtcp,
            recv_rtp,
            recv_rtcp,
        } = self.mirror;
        Mirroring {
            local: self.local,
            remote,
            send_rtp,
            send_rtcp,
            recv_rtp,
            recv_rtcp,
        }
    }
}

pub(crate) type Owner = (Arc<PeerNode>, Option<Direction>);

#[derive(Debug)]
pub(crate) struct TransportNode {
    pub(crate) id: TransportId,
    pub(crate) room: Arc<RoomNode>,
    /// The peer it belongs to, and what that wants it for.
    pub(crate) owner: Option<Owner>,
    pub(crate) app_data: Value,
    kind: Kind,
    pub(crate) state: Mutex<TransportState>,
}

#[derive(Debug)]
enum Kind {
    Plain(PlainNode),
    WebRtc(Arc<WebRtcNode>),
}

#[derive(Debug)]
pub(crate) struct TransportState {
    // None once closed: then the ports are free.
    pub(crate) sockets: Option<Held>,
    pub(crate) remote: Option<Remote>,
    /// The application has set the remote: none is learned any more.
    pub(crate) remote_was_set: bool,
    pub(crate) max_bitrate_bps: Option<u64>,
    pub(crate) mirror: Option<MirrorOutlet>,
    /// Those that consumers were sent under, closed ones too. On a WebRTC transport none is used by two: under its key, the
    /// second would repeat the first one's indices (RFC 3711 §9.1) if a worker has died in between.
    used_ssrcs: HashSet<u32>,
    /// Until it is closed.
    pub(crate) reports: Option<Reports>,
}

impl TransportState {
    fn new(sockets: Held, remote: Option<Remote>) -> Self {
        Self {
            sockets: Some(sockets),
            remote,
            remote_was_set: false,
            max_bitrate_bps: None,
            mirror: None,
            used_ssrcs: HashSet::new(),
            reports: Some(Reports::default()),
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
        (rtp_address, rtcp_address): (SocketAddr, Option<SocketAddr>),
        sockets: Held,
        app_data: Value,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: request.transport,
            room,
            owner,
            app_data,
            kind: Kind::Plain(PlainNode {
                comedia: request.comedia.then_some(request.comedia_policy),
                comedia_from: request.comedia_from,
                rtcp_mux: request.rtcp_mux,
                rtp_address,
                rtcp_address,
                announced_ip: settings.announced(rtp_address.ip()),
            }),
            state: Mutex::new(TransportState::new(sockets, request.remote)),
        })
    }

    /// One for WebRTC.
    pub(crate) fn for_webrtc(
        id: TransportId,
        room: Arc<RoomNode>,
        owner: Option<Owner>,
        webrtc: Arc<WebRtcNode>,
        sockets: Held,
        app_data: Value,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            room,
            owner,
            app_data,
            kind: Kind::WebRtc(webrtc),
            state: Mutex::new(TransportState::new(sockets, None)),
        })
    }

    pub(crate) fn transport_kind(&self) -> TransportKind {
        match self.kind {
            Kind::Plain(_) => TransportKind::Plain,
            Kind::WebRtc(_) => TransportKind::WebRtc,
        }
    }

    pub(crate) fn plain_node(&self) -> Option<&PlainNode> {
        match &self.kind {
            Kind::Plain(plain) => Some(plain),
            Kind::WebRtc(_) => None,
        }
    }

    /// Whether its worker has closed it already, and it waits for the other transports of its peer.
    pub(crate) fn awaits_close_of_peer(&self) -> bool {
        let Some((peer, _)) = &self.owner else { return false };
        let peer = lock(&peer.state);
        let closing = peer.closing.as_ref();
        closing.is_some_and(|closing| closing.closed.contains(&self.id))
    }

    pub(crate) fn webrtc(&self) -> Option<&Arc<WebRtcNode>> {
        match &self.kind {
            Kind::Plain(_) => None,
            Kind::WebRtc(webrtc) => Some(webrtc),
        }
    }

    /// A consumer is sent on it. Only [`State`](super::state::State) tells, under its lock.
    pub(crate) fn sends(&self, request: &CreateConsumer) {
        if self.webrtc().is_some() {
            let ssrcs = [request.ssrc]
                .into_iter()
                .chain(request.rtx.as_ref().map(|rtx| rtx.ssrc));
            lock(&self.state).used_ssrcs.extend(ssrcs);
        }
    }

    /// Whether a consumer was sent under it that may be closed by now, on a transport where that matters.
    pub(crate) fn has_used(&self, ssrc: u32) -> bool {
        lock(&self.state).used_ssrcs.contains(&ssrc)
    }

    /// Only [`State`](super::state::State) does this, under its lock.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        let (sockets, mirror) = (state.sockets.take(), state.mirror.take());
        state.reports = None;
        state.used_ssrcs = HashSet::new();
        drop(state);
        drop((sockets, mirror));
        if let Some(webrtc) = self.webrtc() {
            webrtc.closed();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).sockets.is_none()
    }

    /// Whether it, and the peer it belongs to, take calls.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.is_closed() {
            return Err(Error::closed(self.id));
        }
        match &self.owner {
            Some((peer, _)) => peer.check_open(),
            None => Ok(()),
        }
    }

    pub(crate) fn tuple(&self) -> Tuple {
        let remote = lock(&self.state).remote;
        match &self.kind {
            Kind::Plain(plain) => plain.tuple(remote.map(|remote| remote.rtp)),
            Kind::WebRtc(webrtc) => webrtc.tuple(),
        }
    }

    /// The address it is bound to that can send to another; if it is of another family, its own all the same.
    pub(crate) fn local_ip_towards(&self, remote: IpAddr) -> Zoned {
        let same_family = self.webrtc().and_then(|webrtc| webrtc.local_ip_towards(remote));
        same_family.unwrap_or_else(|| {
            let tuple = self.tuple();
            Zoned {
                ip: tuple.bound_ip,
                zone: tuple.zone.unwrap_or(0),
            }
        })
    }

    /// A worker has started or stopped mirroring. Only [`State`](super::state::State) does this, under its lock.
    pub(crate) fn set_mirror(&self, outlet: Option<MirrorOutlet>) {
        let former = std::mem::replace(&mut lock(&self.state).mirror, outlet);
        drop(former);
    }
}
