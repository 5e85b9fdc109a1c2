//! Watching: what an offer has room for is reserved, and what is published is sent there, whoever publishes it and whenever.
//!
//! A player waits for whom it wants to watch. When they come, and whenever they come again, as encoders do that restart, it is sent what
//! they publish, in the same section, under the same SSRC and with numbers that go on; it need not ask again.

use std::sync::Mutex;

use tracing::{debug, info};
use weir_channel::message::MediaKind;

use super::problem::Problem;
use crate::sdp::{AnsweredMedia, AnsweredStream, MediaDirection, Offer, RtpSection, SdpError};
use crate::server::lock;
use crate::{
    Consumer, ConsumerOptions, ConsumerReservation, Error, Peer, Producer, ProducerId, Profile, Room, RtpCapabilities,
    RtpCodec, RtpCodecCapability, RtpHeaderExtensionCapability, WebRtcTransport,
};

/// What a section can receive.
#[derive(Debug)]
pub(super) struct Track {
    kind: MediaKind,
    receiver: RtpCapabilities,
}

/// Whom a player watches: a peer by its name, or the first one that publishes.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) room: Room,
    pub(super) peer: Option<String>,
}

/// What a player is sent, and may be sent later.
#[derive(Debug)]
pub(super) struct Watching {
    wish: Wish,
    transport: WebRtcTransport,
    slots: tokio::sync::Mutex<Vec<Slot>>,
    /// What is known of them while somebody works on them.
    seen: Mutex<Vec<Seen>>,
}

/// A section.
#[derive(Debug)]
struct Slot {
    /// Its number in the offer.
    section: usize,
    reservation: ConsumerReservation,
    consumer: Option<Consumer>,
    /// Until there is a consumer.
    preferred_profile: Profile,
    /// What was published and cannot be received; it is told once.
    refused: Option<ProducerId>,
}

/// What is known of a section.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Its number in the offer.
    pub(super) section: usize,
    pub(super) kind: MediaKind,
    /// What it is sent, or was.
    consumer: Option<Consumer>,
}

impl Seen {
    /// Whose media it is sent now.
    pub(super) fn producer(&self) -> Option<Producer> {
        let consumer = self.consumer.as_ref().filter(|own| !own.closed() && !own.waits())?;
        Some(consumer.producer())
    }
}

/// What to send in which section. `None`: a section that receives nothing.
pub(super) fn plan(offer: &Offer, wish: &Wish) -> Result<Vec<Option<Track>>, Problem> {
    let tracks: Vec<Option<Track>> = offer
        .media
        .iter()
        .map(|section| {
            let rtp = section
                .rtp
                .as_ref()
                .filter(|rtp| !section.is_off && rtp.direction.receives())?;
            Some(Track {
                kind: rtp.kind,
                receiver: capabilities(rtp),
            })
        })
        .collect();
    let unsupported = |message: String| Err(SdpError::Unsupported(message).into());
    let mut receiving = tracks.iter().flatten().peekable();
    if receiving.peek().is_none() {
        return unsupported(
            "no section of the offer receives; make one recvonly (draft-ietf-wish-whep), or publish at /whip/"
                .to_owned(),
        );
    }
    // Who has come to watch somebody who is there, and can see nothing of it, should know.
    let publishing = wish.publisher(None).map(|peer| peer.producers()).unwrap_or_default();
    let can_receive = |track: &Track| {
        let mut own = publishing.iter().filter(|producer| producer.kind() == track.kind);
        own.any(|producer| producer.can_be_received_by(&track.receiver))
    };
    let wanted = |producer: &&Producer| tracks.iter().flatten().any(|track| track.kind == producer.kind());
    if let Some(producer) = publishing.iter().find(wanted)
        && !receiving.any(can_receive)
    {
        let codec = producer.rtp_parameters().codecs.first();
        let codec = codec.map_or("something", |codec| codec.mime_type.as_str());
        return unsupported(format!(
            "the publisher sends {codec}, which the offer does not have; offer it, too"
        ));
    }
    Ok(tracks)
}

impl Wish {
    /// The peer to watch: by its name, or the one that is being watched, or the first one that publishes.
    fn publisher(&self, watched: Option<Peer>) -> Option<Peer> {
        let publishes = |peer: &Peer| !peer.closed() && !peer.spy() && !peer.producers().is_empty();
        match &self.peer {
            Some(name) => self.room.peer(name).filter(publishes),
            None => watched
                .filter(publishes)
                .or_else(|| self.room.peers().into_iter().find(publishes)),
        }
    }
}

impl Watching {
    /// Reserves what the sections will be sent under, and says what is answered.
    pub(super) fn begin(
        transport: &WebRtcTransport,
        wish: Wish,
        plan: Vec<Option<Track>>,
    ) -> Result<(Self, Vec<Option<AnsweredMedia>>), Problem> {
        let publishing = wish.publisher(None).map(|peer| peer.producers()).unwrap_or_default();
        let mut slots = Vec::new();
        let mut answered = Vec::with_capacity(plan.len());
        let mut refusal = None;
        for (section, track) in plan.into_iter().enumerate() {
            let Some(Track { kind, receiver }) = track else {
                answered.push(None);
                continue;
            };
            let before = slots
                .iter()
                .filter(|slot: &&Slot| slot.reservation.kind() == kind)
                .count();
            let first = publishing.iter().filter(|producer| producer.kind() == kind).nth(before);
            match transport.reserve_consumer(kind, &receiver, first) {
                Ok(reservation) => {
                    answered.push(Some(answer(&wish.room, &reservation)));
                    slots.push(Slot {
                        section,
                        reservation,
                        consumer: None,
                        preferred_profile: Profile::Default,
                        refused: None,
                    });
                }
                Err(error) => {
                    refusal = Some(error);
                    answered.push(None);
                }
            }
        }
        match refusal {
            Some(refusal) if slots.is_empty() => Err(SdpError::Unsupported(format!(
                "{refusal}; offer opus for audio and H264, VP8, VP9 or AV1 for video"
            ))
            .into()),
            _ => {
                let watching = Self {
                    wish,
                    transport: transport.clone(),
                    seen: Mutex::new(slots.iter().map(Slot::seen).collect()),
                    slots: tokio::sync::Mutex::new(slots),
                };
                Ok((watching, answered))
            }
        }
    }

    pub(super) fn wish(&self) -> &Wish {
        &self.wish
    }

    /// What is known of the sections.
    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    /// Whether some section is sent nothing.
    pub(super) fn waits(&self) -> bool {
        let waits = |seen: &Seen| seen.consumer.as_ref().is_none_or(Consumer::waits);
        lock(&self.seen).iter().any(waits)
    }

    /// Whether everything was closed that it was sent, by an operator or because it could not be continued.
    pub(super) fn is_over(&self) -> bool {
        let is_closed = |seen: &Seen| seen.consumer.as_ref().is_some_and(Consumer::closed);
        let seen = lock(&self.seen);
        !seen.is_empty() && seen.iter().all(is_closed)
    }

    /// Gives those sections a source that have none, if there is one now.
    pub(super) async fn attend(&self) {
        let mut slots = self.slots.lock().await;
        let flowing = |slot: &Slot| slot.consumer.clone().filter(|own| !own.closed() && !own.waits());
        let watched = slots
            .iter()
            .filter_map(flowing)
            .find_map(|consumer| consumer.producer().peer());
        let Some(publisher) = self.wish.publisher(watched) else {
            return;
        };
        let mut left = publisher.producers();
        let taken: Vec<ProducerId> = slots
            .iter()
            .filter_map(flowing)
            .map(|own| own.producer().id())
            .collect();
        left.retain(|producer| !taken.contains(&producer.id()) && !producer.closed());
        for slot in slots.iter_mut() {
            if !slot.waits() {
                continue;
            }
            let kind = slot.reservation.kind();
            let fits = |producer: &Producer| {
                producer.kind() == kind && producer.can_be_received_by(slot.reservation.receiver())
            };
            let Some(index) = left.iter().position(fits) else {
                if let Some(other) = left.iter().find(|producer| producer.kind() == kind) {
                    slot.tell_refused(other, &publisher);
                }
                continue;
            };
            let producer = left.swap_remove(index);
            // Who has gone meanwhile comes again, or somebody else does.
            if let Err(error) = slot.follow(&self.transport, &producer).await {
                debug!(%error, "a player cannot be given its source");
            }
        }
        *lock(&self.seen) = slots.iter().map(Slot::seen).collect();
    }

    /// Sets the highest profile that a section should be sent, whoever publishes.
    pub(super) async fn prefer(&self, section: usize, profile: Profile) -> Result<(), Error> {
        let mut slots = self.slots.lock().await;
        if let Some(slot) = slots.iter_mut().find(|slot| slot.section == section) {
            slot.preferred_profile = profile;
            if let Some(consumer) = slot.consumer.as_ref().filter(|own| !own.closed()) {
                consumer.set_preferred_profile(profile).await?;
            }
        }
        Ok(())
    }
}

impl Slot {
    fn seen(&self) -> Seen {
        Seen {
            section: self.section,
            kind: self.reservation.kind(),
            consumer: self.consumer.clone(),
        }
    }

    fn waits(&self) -> bool {
        self.consumer.as_ref().is_none_or(Consumer::waits)
    }

    async fn follow(&mut self, transport: &WebRtcTransport, producer: &Producer) -> Result<(), Error> {
        match &self.consumer {
            Some(consumer) => consumer.set_source(producer).await,
            None => {
                let options = ConsumerOptions {
                    preferred_profile: self.preferred_profile,
                    ..ConsumerOptions::default()
                };
                let made = transport.consume_reserved(&self.reservation, producer, options).await?;
                self.consumer = Some(made);
                Ok(())
            }
        }
    }

    fn tell_refused(&mut self, producer: &Producer, publisher: &Peer) {
        if self.refused.replace(producer.id()) == Some(producer.id()) {
            return;
        }
        let codec = producer.rtp_parameters().codecs.first();
        info!(
            room = publisher.room().id().0,
            peer = publisher.name(),
            codec = codec.map_or("", |codec| codec.mime_type.as_str()),
            "a player does not know the codec that is published, and is sent nothing of it"
        );
    }
}

fn answer(room: &Room, reservation: &ConsumerReservation) -> AnsweredMedia {
    let parameters = reservation.rtp_parameters();
    let encoding = parameters.encodings.first();
    AnsweredMedia {
        direction: MediaDirection::SendOnly,
        codecs: parameters.codecs.clone(),
        header_extensions: parameters.header_extensions.clone(),
        layers: Vec::new(),
        stream: encoding.and_then(|encoding| {
            Some(AnsweredStream {
                ssrc: encoding.ssrc?,
                rtx_ssrc: encoding.rtx.and_then(|rtx| rtx.ssrc),
                cname: parameters.rtcp.cname.clone().unwrap_or_else(|| "weir".to_owned()),
                // What has the same stream is kept in sync.
                stream_id: format!("weir-{}", room.id().0),
                track_id: reservation.kind().to_string(),
            })
        }),
    }
}

/// What a section can receive, in the client's own numbers.
fn capabilities(rtp: &RtpSection) -> RtpCapabilities {
    let kind: MediaKind = rtp.kind;
    let codec = |codec: &RtpCodec| RtpCodecCapability {
        kind,
        name: codec.mime_type.split_once('/').map_or("", |(_, name)| name).to_owned(),
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        parameters: codec.parameters.clone(),
        rtcp_feedback: codec.rtcp_feedback.clone(),
        preferred_payload_type: Some(codec.payload_type),
    };
    let extensions = rtp
        .header_extensions
        .iter()
        .map(|extension| RtpHeaderExtensionCapability {
            kind: Some(kind),
            uri: extension.uri.clone(),
            preferred_id: extension.id,
            preferred_encrypt: false,
        });
    RtpCapabilities {
        codecs: rtp.codecs.iter().map(codec).collect(),
        header_extensions: extensions.collect(),
        fec_mechanisms: Vec::new(),
    }
}
