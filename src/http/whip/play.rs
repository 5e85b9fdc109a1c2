//! Watching: the consumers that an offer has room for, and what is answered.

use weir_channel::message::MediaKind;

use super::problem::Problem;
use super::rooms::nobody;
use crate::sdp::{AnsweredMedia, AnsweredStream, MediaDirection, Offer, RtpSection, SdpError};
use crate::{
    Consumer, ConsumerOptions, Error, Peer, Producer, Room, RtpCapabilities, RtpCodec, RtpCodecCapability,
    RtpHeaderExtensionCapability, WebRtcTransport,
};

/// What is sent in a section.
#[derive(Debug)]
pub(super) struct Track {
    producer: Producer,
    receiver: RtpCapabilities,
}

/// What to send of what a peer sends, or the first peer that sends anything. `None`: a section for which there is nothing.
pub(super) fn plan(offer: &Offer, room: &Room, peer: Option<&str>) -> Result<Vec<Option<Track>>, Problem> {
    let is_heard = |peer: &Peer| !peer.spy() && !peer.producers().is_empty();
    let publisher = match peer {
        Some(name) => room
            .peer(name)
            .filter(is_heard)
            .ok_or_else(|| nobody(&format!("{name:.64} does not publish here")))?,
        None => room
            .peers()
            .into_iter()
            .find(is_heard)
            .ok_or_else(|| nobody("nobody publishes in this room"))?,
    };
    let mut left = publisher.producers();
    let mut receives = false;
    let mut refused: Option<String> = None;
    let tracks: Vec<Option<Track>> = offer
        .media
        .iter()
        .map(|section| {
            let rtp = section
                .rtp
                .as_ref()
                .filter(|rtp| !section.is_off && rtp.direction.receives())?;
            receives = true;
            let receiver = capabilities(rtp);
            let of_kind = |producer: &Producer| producer.kind() == rtp.kind;
            let index = left
                .iter()
                .position(|own| of_kind(own) && own.can_be_received_by(&receiver));
            let Some(index) = index else {
                let unmatched = left.iter().find(|own| of_kind(own));
                refused = refused.take().or_else(|| unmatched.and_then(sent_codec));
                return None;
            };
            Some(Track {
                producer: left.swap_remove(index),
                receiver,
            })
        })
        .collect();
    if tracks.iter().any(Option::is_some) {
        return Ok(tracks);
    }
    let message = match (receives, refused) {
        (false, _) => {
            "no section of the offer receives; make one recvonly (draft-ietf-wish-whep), or publish at /whip/"
                .to_owned()
        }
        (true, Some(codec)) => format!("the publisher sends {codec}, which the offer does not have; offer it, too"),
        (true, None) => {
            "the publisher sends nothing of the kinds that the offer receives; offer audio and video".to_owned()
        }
    };
    Err(SdpError::Unsupported(message).into())
}

/// The codec that a producer sends, for people.
fn sent_codec(producer: &Producer) -> Option<String> {
    let codec = producer.rtp_parameters().codecs.first()?;
    Some(codec.mime_type.clone())
}

/// Makes the consumers.
pub(super) async fn consume(
    transport: &WebRtcTransport,
    plan: Vec<Option<Track>>,
) -> Result<(Vec<Option<AnsweredMedia>>, Vec<Consumer>), Error> {
    let mut answered = Vec::with_capacity(plan.len());
    let mut consumers = Vec::new();
    for track in plan {
        answered.push(match track {
            None => None,
            Some(Track { producer, receiver }) => {
                let options = ConsumerOptions::default();
                let consumer = transport.consume_as(&producer, &receiver, options).await?;
                let media = answer(&producer, &consumer);
                consumers.push(consumer);
                Some(media)
            }
        });
    }
    Ok((answered, consumers))
}

fn answer(producer: &Producer, consumer: &Consumer) -> AnsweredMedia {
    let parameters = consumer.rtp_parameters();
    let encoding = parameters.encodings.first();
    // What has the same stream is kept in sync.
    let stream_id = producer
        .peer()
        .map_or_else(String::new, |peer| format!("weir-{}", peer.room().id().0));
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
                stream_id,
                track_id: consumer.kind().to_string(),
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
