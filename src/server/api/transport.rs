//! A transport: the path between the server and one remote. Producers arrive on it, consumers leave on it.

mod mirroring;
mod plain;
mod webrtc;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::id::{ProducerId, TransportId};
use weir_channel::message::{MediaKind, Method, Profile, Reply, WorkerError, any_case};

use crate::server::api::consumer::Consumer;
use crate::server::api::handle::handle;
use crate::server::api::peer::Peer;
use crate::server::api::producer::Producer;
use crate::server::api::room::Room;
use crate::server::model::address::Tuple;
use crate::server::model::consumer::ConsumerNode;
use crate::server::model::error::Error;
use crate::server::model::ids::{made_up_cname, random};
use crate::server::model::lock;
use crate::server::model::producer::{Consumable, ProducerNode};
use crate::server::model::reservation::ConsumerReservation;
use crate::server::model::rtp_capabilities::{RtpCapabilities, consumer_parameters, receivable, receiver_parameters};
use crate::server::model::rtp_parameters::{
    ConsumerPlacement, ConsumerRtp, ConsumerSsrcs, ProducerPlacement, RtpParameters,
};
use crate::server::model::side::Side;
use crate::server::model::state::{Command, OnAccept};
use crate::server::model::transport::{Direction, TransportKind, TransportNode};
use crate::server::workers::sockets::{TransportSockets, WebRtcSockets};

pub use self::mirroring::MirrorOptions;
pub use self::webrtc::{WebRtcTransport, WebRtcTransportOptions};

/// How often another made-up SSRC is tried when the worker says that one is in use. With 2³² of them, a second try is
/// rare already.
const SSRC_TRIES: usize = 8;

/// The options of a new producer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProducerOptions {
    /// Audio or video.
    #[serde(deserialize_with = "any_case")]
    pub kind: MediaKind,
    /// The RTP parameters that the remote sends with.
    pub rtp_parameters: RtpParameters,
    /// Start paused.
    #[serde(default)]
    pub paused: bool,
    /// The profile for consumers that have no preference of their own.
    #[serde(default)]
    pub preferred_profile: Profile,
    /// Any data of the application, kept with the producer.
    #[serde(default)]
    pub app_data: Value,
}

impl ProducerOptions {
    /// A producer that is relayed at once and prefers no profile.
    pub fn new(kind: MediaKind, rtp_parameters: RtpParameters) -> Self {
        Self {
            kind,
            rtp_parameters,
            paused: false,
            preferred_profile: Profile::Default,
            app_data: Value::Null,
        }
    }
}

/// The options of a new consumer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsumerOptions {
    /// Start paused.
    pub paused: bool,
    /// The highest profile that the consumer should receive; [`Profile::Default`] sets no maximum.
    pub preferred_profile: Profile,
    /// The RTP parameters of the receiver, where they differ from the producer's.
    pub rtp: ConsumerRtp,
    /// Any data of the application, kept with the consumer.
    pub app_data: Value,
}

handle! {
    /// A handle on a transport. Cheap to clone; dropping it closes nothing.
    pub struct Transport(TransportNode);
}

impl Transport {
    /// Its id.
    pub fn id(&self) -> TransportId {
        self.node.id
    }

    /// The room it belongs to.
    pub fn room(&self) -> Room {
        Room::new(&self.shared, &self.node.room)
    }

    pub(crate) fn node(&self) -> &TransportNode {
        &self.node
    }

    /// The peer it belongs to.
    pub fn peer(&self) -> Option<Peer> {
        let (peer, _) = self.node.owner.as_ref()?;
        Some(Peer::new(&self.shared, peer))
    }

    /// The direction in which its peer's client uses it, if known.
    pub fn direction(&self) -> Option<Direction> {
        self.node.owner.as_ref().and_then(|(_, direction)| *direction)
    }

    /// Whether it is closed.
    pub fn closed(&self) -> bool {
        self.node.is_closed()
    }

    /// What it was created with.
    pub fn app_data(&self) -> &Value {
        &self.node.app_data
    }

    /// Whether it is for plain RTP or for WebRTC.
    pub fn kind(&self) -> TransportKind {
        self.node.transport_kind()
    }

    /// The addresses for RTP, and for RTCP if it shares RTP's port. For WebRTC the pair that ICE has selected; before
    /// that, the first local address.
    pub fn tuple(&self) -> Tuple {
        self.node.tuple()
    }

    /// Makes a producer: a track that the remote sends on this transport. On a peer's transport it is the peer's, and every
    /// other peer of the room gets a consumer of it, which its client is told to enable. A producer that is nobody's is
    /// consumed where [`Transport::consume`] says, and by no peer.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when the RTP parameters are not right, when the room does not have the codecs of a
    /// peer's producer, or when the peer is a spy; [`Error::InvalidState`] when the transport is closed;
    /// [`Error::TooMany`]; and what the worker answers, e.g. that an SSRC is in use on this transport.
    pub async fn produce(&self, options: ProducerOptions) -> Result<Producer, Error> {
        self.make_producer(options, None).await
    }

    /// As [`Transport::produce`], for who has found out already what is consumable of a peer's producer.
    pub(crate) async fn make_producer(
        &self,
        options: ProducerOptions,
        consumable: Option<Consumable>,
    ) -> Result<Producer, Error> {
        let placement = ProducerPlacement {
            room: self.node.room.id,
            transport: self.node.id,
            producer: self.shared.ids.producer(),
            kind: options.kind,
            preferred_profile: options.preferred_profile,
            paused: options.paused,
            is_plain: self.kind() == TransportKind::Plain,
        };
        let mut rtp_parameters = options.rtp_parameters;
        let cname_is_made_up = rtp_parameters.rtcp.cname.is_none();
        let request = rtp_parameters
            .create_producer(placement)
            .map_err(Error::InvalidParameters)?;
        let consumable = match &self.node.owner {
            None => {
                // All consumers of the producer share it (differences §5.6).
                rtp_parameters.rtcp.cname.get_or_insert_with(made_up_cname);
                None
            }
            Some((peer, _)) if peer.spy => {
                return Err(Error::InvalidParameters(
                    "a spy peer cannot send media to the room".to_owned(),
                ));
            }
            Some((peer, _)) if !peer.publish => {
                return Err(Error::InvalidParameters(
                    "this peer may not send media to the room".to_owned(),
                ));
            }
            Some((peer, _)) => {
                let cname = &mut rtp_parameters.rtcp.cname;
                cname.get_or_insert_with(|| peer.cname.clone());
                let capabilities = &self.node.room.rtp_capabilities;
                let derive = || Consumable::derive(options.kind, &rtp_parameters, capabilities);
                let mut consumable = consumable
                    .map_or_else(derive, Ok)
                    .map_err(|reason| Error::InvalidParameters(format!("wrong RTP parameters: {reason}")))?;
                consumable.parameters.rtcp = rtp_parameters.rtcp.clone();
                Some(consumable)
            }
        };
        let transport = Arc::clone(&self.node);
        let node = ProducerNode::new(
            placement,
            transport,
            rtp_parameters,
            cname_is_made_up,
            consumable,
            options.app_data,
        );
        let command = Command {
            method: Method::CreateProducer(request),
            on_accept: OnAccept::Producer(Arc::clone(&node)),
        };
        self.shared
            .call(self.node.room.worker, |state| {
                state.admit_producer(&self.node, &lock(&node.state).app_data)?;
                Ok(Some(command))
            })
            .await?;
        Ok(Producer::new(&self.shared, &node))
    }

    /// Makes a consumer: a producer of the same room, as the remote of this transport receives it. It belongs to no peer,
    /// and closes with the transport.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such producer, [`Error::InvalidParameters`] when it is in another room or the
    /// options do not fit it, [`Error::InvalidState`] when the transport is closed, [`Error::TooMany`].
    pub async fn consume(&self, producer: impl Into<ProducerId>, options: ConsumerOptions) -> Result<Consumer, Error> {
        let producer = self.in_same_room(producer.into())?;
        self.make_consumer(&producer, options, Shape::Producers, OnAccept::Consumer)
            .await
    }

    /// Makes a consumer as [`Transport::consume`] does, for a receiver that says in payload types and header extension ids of
    /// its own what it can receive, as an offer does. It is sent what both have in common, under the receiver's numbers, and with the
    /// receiver's retransmissions, whether the producer has such or not. Of `receiver` counts what is for the
    /// producer's kind of media, and of `options.rtp` only the SSRCs.
    ///
    /// # Errors
    /// As [`Transport::consume`], and [`Error::InvalidParameters`] when there is no codec in common, or when one of the receiver's
    /// codecs has no payload type, or that of another.
    pub async fn consume_as(
        &self,
        producer: &Producer,
        receiver: &RtpCapabilities,
        options: ConsumerOptions,
    ) -> Result<Consumer, Error> {
        let producer = self.in_same_room(producer.id())?;
        let receiver = receiver.of_kind(producer.kind);
        receiver.check_receiver().map_err(Error::InvalidParameters)?;
        self.make_consumer(&producer, options, Shape::Receivers(&receiver), OnAccept::Consumer)
            .await
    }

    /// Reserves what a consumer will be sent under that outlives its producers, before there is one, as an answer needs it: for a
    /// receiver that says in numbers of its own what it can receive. The codecs are those of `first` first, if that is known, and then
    /// the room's that the receiver has.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when the room relays none of the receiver's codecs.
    pub fn reserve_consumer(
        &self,
        kind: MediaKind,
        receiver: &RtpCapabilities,
        first: Option<&Producer>,
    ) -> Result<ConsumerReservation, Error> {
        let room = &self.node.room.rtp_capabilities;
        let receiver = receivable(receiver, room, first.map(Producer::rtp_parameters));
        if receiver.codecs.is_empty() {
            return Err(Error::InvalidParameters(format!(
                "the room relays no codec of {kind} that the receiver has"
            )));
        }
        let media = self.draw_ssrc(|_| true);
        let ssrcs = ConsumerSsrcs {
            media,
            rtx: self.draw_ssrc(|ssrc| ssrc != media),
        };
        let cname = match &self.node.owner {
            Some((peer, _)) => peer.cname.clone(),
            None => made_up_cname(),
        };
        Ok(ConsumerReservation::new(self.node.id, kind, receiver, ssrcs, cname))
    }

    /// Makes a consumer under what was reserved for it on this transport: one that outlives its producers. When its producer closes,
    /// it [waits](Consumer::waits) for another one ([`Consumer::set_source`]). It closes with the transport. Of `options.rtp` nothing
    /// counts.
    ///
    /// # Errors
    /// As [`Transport::consume`], and [`Error::InvalidParameters`] when the producer is of another kind or has no codec in common with
    /// the receiver, or when the reservation is another transport's.
    pub async fn consume_reserved(
        &self,
        reservation: &ConsumerReservation,
        producer: &Producer,
        mut options: ConsumerOptions,
    ) -> Result<Consumer, Error> {
        if reservation.transport != self.node.id {
            return Err(Error::InvalidParameters(format!(
                "what was reserved is for {}, not for {}",
                reservation.transport, self.node.id
            )));
        }
        let producer = self.in_same_room(producer.id())?;
        options.rtp.ssrc = Some(reservation.ssrcs.media);
        options.rtp.rtx_ssrc = Some(reservation.ssrcs.rtx);
        self.make_consumer(&producer, options, Shape::Reserved(reservation), OnAccept::Consumer)
            .await
    }

    /// An SSRC that nothing was sent under on this transport.
    fn draw_ssrc(&self, also: impl Fn(u32) -> bool) -> u32 {
        loop {
            let ssrc = random() as u32;
            if ssrc != 0 && !self.node.has_used(ssrc) && also(ssrc) {
                return ssrc;
            }
        }
    }

    /// A producer of the transport's room.
    pub(super) fn in_same_room(&self, producer: ProducerId) -> Result<Arc<ProducerNode>, Error> {
        let known = lock(&self.shared.state).producer(producer).cloned();
        let producer = known.ok_or_else(|| Error::NotFound {
            object: producer.to_string(),
        })?;
        if producer.transport.room.id != self.node.room.id {
            return Err(Error::InvalidParameters(format!(
                "{} is in {}, but {} is in {}; a consumer's transport must be in its producer's room",
                producer.id, producer.transport.room.id, self.node.id, self.node.room.id
            )));
        }
        Ok(producer)
    }

    /// A streamer's consumer: with the room's payload types, if the producer has such.
    pub(crate) async fn stream(&self, producer: &Producer) -> Result<Consumer, Error> {
        let known = lock(&self.shared.state).producer(producer.id()).cloned();
        let producer = known.ok_or_else(|| Error::closed(producer.id()))?;
        if producer.transport.room.id != self.node.room.id {
            return Err(Error::InvalidParameters(format!(
                "{} is in {}; it can be streamed from there, not from {}",
                producer.id, producer.transport.room.id, self.node.room.id
            )));
        }
        let shape = producer.consumable.as_ref().map_or(Shape::Producers, Shape::Rooms);
        self.make_consumer(&producer, ConsumerOptions::default(), shape, OnAccept::Streamer)
            .await
    }

    async fn make_consumer(
        &self,
        producer: &Arc<ProducerNode>,
        options: ConsumerOptions,
        shape: Shape<'_>,
        on_accept: fn(Arc<ConsumerNode>) -> OnAccept,
    ) -> Result<Consumer, Error> {
        let placement = ConsumerPlacement {
            room: self.node.room.id,
            transport: self.node.id,
            producer: producer.id,
            consumer: self.shared.ids.consumer(),
            preferred_profile: options.preferred_profile,
            paused: options.paused,
            cname_is_made_up: producer.cname_is_made_up,
        };
        let given = [options.rtp.ssrc, options.rtp.rtx_ssrc].into_iter().flatten();
        if let Some(used) = given.into_iter().find(|ssrc| self.node.has_used(*ssrc)) {
            return Err(Error::Worker(WorkerError::SsrcInUse {
                ssrc: used,
                owner: "another consumer, which may be closed,".to_owned(),
                transport: self.node.id,
            }));
        }
        let draw = || self.draw_ssrc(|_| true);
        let mut tries = 0;
        loop {
            tries += 1;
            let ssrcs = ConsumerSsrcs {
                media: options.rtp.ssrc.unwrap_or_else(draw),
                rtx: options.rtp.rtx_ssrc.unwrap_or_else(draw),
            };
            let made = match shape {
                Shape::Producers => producer.rtp_parameters.create_consumer(placement, &options.rtp, ssrcs),
                Shape::Receivers(receiver) => {
                    let (parameters, payload_types) = receiver_parameters(&producer.rtp_parameters, receiver);
                    let parameters = parameters.with_ssrcs(ssrcs);
                    let request = parameters.consumer_request(placement, &payload_types);
                    request.map(|request| (request, parameters))
                }
                Shape::Reserved(reservation) => {
                    let request = reservation.request(placement, producer)?;
                    Ok((request, reservation.rtp_parameters().clone()))
                }
                Shape::Rooms(consumable) => {
                    let capabilities = &self.node.room.rtp_capabilities;
                    let parameters = consumer_parameters(&consumable.parameters, capabilities).with_ssrcs(ssrcs);
                    let request = parameters.consumer_request(placement, consumable.mapping.payload_types());
                    request.map(|request| (request, parameters))
                }
            };
            let (request, rtp_parameters) = made.map_err(Error::InvalidParameters)?;
            let node = ConsumerNode::on_transport(
                placement,
                Arc::clone(&self.node),
                Arc::clone(producer),
                (rtp_parameters, shape.reservation().cloned()),
                options.app_data.clone(),
            );
            let command = Command {
                method: Method::CreateConsumer(request),
                on_accept: on_accept(Arc::clone(&node)),
            };
            let made = self.shared.call(self.node.room.worker, |state| {
                state.admit_consumer(&self.node)?;
                Ok(Some(command))
            });
            match made.await {
                Ok(_) => return Ok(Consumer::new(&self.shared, &node)),
                Err(Error::Worker(WorkerError::SsrcInUse { ssrc, .. }))
                    if is_made_up(ssrc, ssrcs, &options.rtp) && tries < SSRC_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes it with its producers (and their consumers). Consumers of peers that are sent on it lose it and can be
    /// enabled on another one; other consumers on it are closed. Has no effect if it is closed already.
    pub async fn close(&self, app_data: Value) -> Result<(), Error> {
        self.close_by(Side::Local, app_data).await
    }

    /// Closes it without waiting for that.
    pub(crate) fn abandon(&self) {
        let mut state = lock(&self.shared.state);
        if !self.closed() {
            let transport = self.node.id;
            state.follow_up(Method::CloseTransport { transport });
            self.shared.send_follow_ups(self.node.room.worker, &mut state);
        }
    }

    /// [`Transport::close`] for one of the two sides.
    pub async fn close_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
        let transport = self.node.id;
        let plan = |_: &mut _| vec![Command::by(side, Method::CloseTransport { transport }, app_data)];
        self.shared.close(self.node.room.worker, || self.closed(), plan).await
    }

    /// A descriptor of the socket that carries the transport's RTP, to measure what the socket alone costs.
    #[doc(hidden)]
    pub fn rtp_path(&self) -> Result<OwnedFd, Error> {
        let state = lock(&self.node.state);
        let sockets = state.sockets.as_ref().ok_or_else(|| Error::closed(self.node.id))?;
        let plain = sockets.downcast_ref().map(TransportSockets::rtp_path);
        let path = plain.or_else(|| sockets.downcast_ref().and_then(WebRtcSockets::rtp_path));
        let path = path.ok_or_else(|| Error::InvalidParameters(format!("{} has no UDP", self.node.id)))?;
        path.map_err(Error::io("duplicating a transport's socket"))
    }

    async fn call(&self, command: Command) -> Result<Reply, Error> {
        self.shared
            .call(self.node.room.worker, |_| {
                self.node.check_open()?;
                Ok(Some(command))
            })
            .await
    }
}

/// Whose payload types and header extension ids a consumer has.
#[derive(Clone, Copy)]
enum Shape<'a> {
    /// The producer's, where the options say nothing else.
    Producers,
    /// The room's.
    Rooms(&'a Consumable),
    /// The receiver's, which can receive this.
    Receivers(&'a RtpCapabilities),
    /// What was reserved.
    Reserved(&'a ConsumerReservation),
}

impl<'a> Shape<'a> {
    fn reservation(self) -> Option<&'a ConsumerReservation> {
        match self {
            Self::Reserved(reservation) => Some(reservation),
            Self::Producers | Self::Rooms(_) | Self::Receivers(_) => None,
        }
    }
}

/// Whether an SSRC was drawn, and so another one can be.
fn is_made_up(ssrc: u32, drawn: ConsumerSsrcs, wanted: &ConsumerRtp) -> bool {
    (wanted.ssrc.is_none() && ssrc == drawn.media) || (wanted.rtx_ssrc.is_none() && ssrc == drawn.rtx)
}
