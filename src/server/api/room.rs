//! A room: where producers and consumers meet. It lives in one worker, for life.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{RoomId, WorkerId};
use weir_channel::message::{ComediaPolicy, CreatePlainTransport, ExtensionUri, Method, Remote, Zoned, any_case};

use crate::server::api::active_speaker::ActiveSpeakerDetector;
use crate::server::api::audio_levels::AudioLevelsStream;
use crate::server::api::consumer::Consumer;
use crate::server::api::handle::handle;
use crate::server::api::peer::{Joined, Peer};
use crate::server::api::producer::Producer;
use crate::server::api::rtp_streamer::{RtpStreamer, RtpStreamerOptions};
use crate::server::api::transport::{Transport, WebRtcTransport, WebRtcTransportOptions};
use crate::server::model::address::{IpFamily, check_local, complete_remote, family_of};
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::peer::PeerOptions;
use crate::server::model::room::RoomNode;
use crate::server::model::rtp_capabilities::{RtpCapabilities, RtpCodecCapability, extension_uris};
use crate::server::model::side::Side;
use crate::server::model::state::{Command, OnAccept};
use crate::server::model::transport::{Owner, TransportNode};
use crate::server::workers::ports::PortCount;
use crate::server::workers::sockets::need_of_ports;

/// The options of a new room.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RoomOptions {
    /// The worker that serves it; the default is the one with the fewest rooms.
    pub worker: Option<WorkerId>,
    /// The codecs that its peers may use; the default is all.
    pub media_codecs: Option<Vec<RtpCodecCapability>>,
    /// The RTP header extensions that it announces, as URIs in JSON; the default are those with which mediasoup's client can send
    /// from every browser, whatever it sends first ([`RtpCapabilities::BROWSER_EXTENSIONS`]).
    #[serde(with = "extension_uris")]
    #[schemars(with = "Option<Vec<String>>")]
    pub header_extensions: Option<Vec<ExtensionUri>>,
    /// Any data of the application, kept with the room.
    pub app_data: Value,
}

/// The options of a new plain RTP transport.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlainTransportOptions {
    /// The address to send to, if known already. Without `rtcp_mux`, the default port for RTCP is the one above RTP's
    /// (RFC 3550 §11).
    pub remote: Option<Remote>,
    /// Learn the remote address from the first valid packet; not together with `remote`.
    pub comedia: bool,
    /// Whether a learned address may change to another port of the same IP.
    #[serde(deserialize_with = "any_case")]
    pub comedia_policy: ComediaPolicy,
    /// The only IP address at which the remote is learned, e.g. that of the client; only with `comedia`. The default is any.
    pub comedia_from: Option<IpAddr>,
    /// Whether RTP and RTCP share one port (RFC 5761).
    pub rtcp_mux: bool,
    /// The IP family; the default is that of `remote` or `local_ip`, else IPv4 if the server has it.
    pub family: Option<IpFamily>,
    /// The local address; the default is the server's own of that family.
    #[schemars(with = "Option<String>")]
    pub local_ip: Option<Zoned>,
    /// The local port for RTP, one of `rtc_ports`. Without `rtcp_mux` it must be even, because RTCP gets the next one.
    /// The default is any free port.
    pub local_port: Option<u16>,
    /// Any data of the application, kept with the transport.
    pub app_data: Value,
}

impl Default for PlainTransportOptions {
    fn default() -> Self {
        Self {
            remote: None,
            comedia: false,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
            rtcp_mux: true,
            family: None,
            local_ip: None,
            local_port: None,
            app_data: Value::Null,
        }
    }
}

handle! {
    /// A handle on a room. Cheap to clone; dropping it closes nothing.
    pub struct Room(RoomNode);
}

impl Room {
    /// Its id.
    pub fn id(&self) -> RoomId {
        self.node.id
    }

    /// The worker that serves it.
    pub fn worker(&self) -> WorkerId {
        self.node.worker
    }

    /// Whether it is closed: by itself, with its server, or because its worker died.
    pub fn closed(&self) -> bool {
        self.node.is_closed()
    }

    /// What it was created with.
    pub fn app_data(&self) -> &Value {
        &self.node.app_data
    }

    /// What its peers may send and receive, with the payload types and header extension ids that they receive under.
    pub fn rtp_capabilities(&self) -> &RtpCapabilities {
        &self.node.rtp_capabilities
    }

    /// Creates a peer. It gets a consumer for everything that the other peers produce. The other peers' clients are
    /// told of it, unless it is a spy.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when the name or the capabilities are not right, [`Error::DuplicatePeer`],
    /// [`Error::TooMany`], [`Error::InvalidState`] when the room is closed.
    pub fn create_peer(&self, options: PeerOptions) -> Result<Peer, Error> {
        Ok(self.join(options)?.peer)
    }

    /// Creates a peer as [`Room::create_peer`] does, and returns the other peers, too, for the client that joins.
    pub fn join(&self, options: PeerOptions) -> Result<Joined, Error> {
        let (node, others) = lock(&self.shared.state).join(&self.node, options)?;
        let peer = Peer::new(&self.shared, &node);
        Ok(Joined { peer, others })
    }

    /// Its peer of this name.
    pub fn peer(&self, name: &str) -> Option<Peer> {
        let state = lock(&self.shared.state);
        let entry = state.room(self.node.id)?.peers.named(name)?;
        Some(Peer::new(&self.shared, &entry.node))
    }

    /// Its peers, in the order in which they joined.
    pub fn peers(&self) -> Vec<Peer> {
        let state = lock(&self.shared.state);
        let entry = state.room(self.node.id).into_iter();
        let peers = entry.flat_map(|entry| entry.peers.iter());
        peers.map(|peer| Peer::new(&self.shared, &peer.node)).collect()
    }

    /// The number of its peers.
    pub(crate) fn peer_count(&self) -> usize {
        let state = lock(&self.shared.state);
        state.room(self.node.id).map_or(0, |entry| entry.peers.len())
    }

    /// The audio levels of its producers, every 500 ms. The worker measures only while such a stream exists.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when the room is closed, and what the worker answers.
    pub async fn audio_levels(&self) -> Result<AudioLevelsStream, Error> {
        AudioLevelsStream::open(&self.shared, &self.node).await
    }

    /// Follows who is speaking.
    ///
    /// # Errors
    /// As [`Room::audio_levels`].
    pub async fn create_active_speaker_detector(&self) -> Result<ActiveSpeakerDetector, Error> {
        ActiveSpeakerDetector::create(self).await
    }

    /// Sends a producer of the room to an address, with the room's payload types. This creates a transport and a
    /// consumer that belong to no peer.
    ///
    /// # Errors
    /// As [`Room::create_plain_transport`] and [`Transport::consume`]; nothing of it is left then.
    pub async fn create_rtp_streamer(
        &self,
        producer: &Producer,
        options: RtpStreamerOptions,
    ) -> Result<RtpStreamer, Error> {
        RtpStreamer::create(self, producer, options).await
    }

    /// Its open transports, by id.
    pub fn transports(&self) -> Vec<Transport> {
        let state = lock(&self.shared.state);
        let entry = state.room(self.node.id).into_iter();
        let nodes = entry.flat_map(|entry| entry.desired.transports());
        nodes.map(|node| Transport::new(&self.shared, node)).collect()
    }

    /// Its open producers, by id.
    pub fn producers(&self) -> Vec<Producer> {
        let state = lock(&self.shared.state);
        let entry = state.room(self.node.id).into_iter();
        let nodes = entry.flat_map(|entry| entry.desired.producers());
        nodes.map(|node| Producer::new(&self.shared, node)).collect()
    }

    /// Its open consumers, by id.
    pub fn consumers(&self) -> Vec<Consumer> {
        let state = lock(&self.shared.state);
        let entry = state.room(self.node.id).into_iter();
        let nodes = entry.flat_map(|entry| entry.desired.consumers());
        nodes.map(|node| Consumer::new(&self.shared, node)).collect()
    }

    /// Creates a transport for plain RTP and RTCP over UDP: binds its port (or two) and gives it to the worker.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when the options contradict each other, [`Error::PortTaken`] when the requested port is in use,
    /// [`Error::PortsExhausted`] when no port is free, [`Error::Exhausted`] when there are no descriptors for it, [`Error::InvalidState`] when the room is closed, and what the worker answers.
    pub async fn create_plain_transport(&self, options: PlainTransportOptions) -> Result<Transport, Error> {
        self.make_plain_transport(options, None).await
    }

    pub(crate) async fn make_plain_transport(
        &self,
        options: PlainTransportOptions,
        owner: Option<Owner>,
    ) -> Result<Transport, Error> {
        self.node.check_open()?;
        let local_ip = self.local_ip(&options)?;
        let remote = options
            .remote
            .map(|remote| complete_remote(remote, options.rtcp_mux, local_ip.ip))
            .transpose()?;
        if remote.is_some() && options.comedia {
            return Err(Error::InvalidParameters(
                "with comedia the remote is learned; leave out one of comedia and remote".to_owned(),
            ));
        }
        if options.comedia_from.is_some() && !options.comedia {
            return Err(Error::InvalidParameters(
                "comediaFrom says where comedia may learn the remote; leave it out, or set comedia".to_owned(),
            ));
        }
        let count = match options.rtcp_mux {
            true => PortCount::One,
            false => PortCount::Pair,
        };
        let sockets = self.shared.make_sockets(|maker| match options.local_port {
            Some(port) => maker.make_at(local_ip, port, count),
            None => maker.make(local_ip, count),
        });
        let sockets = sockets.await?;
        let maker = &self.shared.sockets;
        let doing = "duplicating the sockets of a transport";
        let descriptors = maker.made(need_of_ports(count), doing, sockets.descriptors())?;
        let request = CreatePlainTransport {
            room: self.node.id,
            transport: self.shared.ids.transport(),
            remote,
            comedia: options.comedia,
            rtcp_mux: options.rtcp_mux,
            comedia_policy: options.comedia_policy,
            comedia_from: options.comedia_from.map(|ip| ip.to_canonical()),
        };
        let node = TransportNode::plain(
            &self.shared.settings,
            Arc::clone(&self.node),
            owner,
            &request,
            (sockets.rtp_address(), sockets.rtcp_address()),
            Box::new(sockets),
            options.app_data,
        );
        let command = Command {
            method: Method::CreatePlainTransport(request),
            on_accept: OnAccept::Transport(Arc::clone(&node)),
        };
        self.shared
            .call_with_descriptors(self.node.worker, descriptors, |state| {
                state.admit_transport(&node)?;
                Ok(Some(command))
            })
            .await?;
        Ok(Transport::new(&self.shared, &node))
    }

    /// Creates a transport for a WebRTC client, such as a browser: binds its ports and gives them to the worker.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when neither UDP nor TCP is left, [`Error::PortsExhausted`], [`Error::Exhausted`] or [`Error::Io`] when no
    /// port could be bound, [`Error::InvalidState`] when the room is closed, and what the worker answers.
    pub async fn create_webrtc_transport(&self, options: WebRtcTransportOptions) -> Result<WebRtcTransport, Error> {
        WebRtcTransport::create(&self.shared, &self.node, options, None).await
    }

    /// Closes the room with everything in it. Has no effect if it is closed already.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        let room = self.node.id;
        let plan = |_: &mut _| vec![Command::by(Side::Local, Method::CloseRouter { room }, app_data)];
        self.shared.close(self.node.worker, || self.closed(), plan).await
    }

    fn local_ip(&self, options: &PlainTransportOptions) -> Result<Zoned, Error> {
        let contradiction = |text: &str| Err(Error::InvalidParameters(text.to_owned()));
        let wanted = [
            options.family,
            options.local_ip.map(|local| family_of(local.ip)),
            options.remote.map(|remote| family_of(remote.rtp.ip())),
        ];
        let mut families = wanted.into_iter().flatten();
        let family = families.next();
        if families.any(|other| Some(other) != family) {
            return contradiction("family, localIp and remote are of different IP families; make them one");
        }
        if let Some(local) = options.local_ip {
            check_local(local)?;
            return Ok(local);
        }
        let fits = |ip: &IpAddr| family.is_none_or(|family| family == family_of(*ip));
        let found = self.shared.addresses.ips().find(fits);
        match (found, family) {
            (Some(ip), _) => Ok(ip.into()),
            (None, Some(IpFamily::Ipv6)) => {
                contradiction("the server has no IPv6 for media; set rtc_ipv6, or use IPv4")
            }
            (None, _) => contradiction("the server has no IPv4 for media; set rtc_ipv4, or use IPv6"),
        }
    }
}
