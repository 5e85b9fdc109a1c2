//! From parameters to the requests that make a worker's producers and consumers.

use std::collections::BTreeSet;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ConsumerRtx, CreateConsumer, CreateProducer, ExtensionUri, HeaderExtension, MediaKind, Profile,
};

use super::check_payload_type;
use super::codec::{Subtype, set_parameter};
use super::{Checked, ConsumerRtp, RtpCodec, RtpHeaderExtension, RtpParameters, check_header_extensions};

/// The most media codecs of a producer; each may have an `rtx` codec besides.
const MEDIA_CODECS_MAX: usize = 16;

/// Where a producer is made, and how it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerPlacement {
    pub(crate) room: RoomId,
    pub(crate) transport: TransportId,
    pub(crate) producer: ProducerId,
    pub(crate) kind: MediaKind,
    pub(crate) preferred_profile: Profile,
    pub(crate) paused: bool,
    /// The transport is a plain one: payload types may be enough to recognise a stream by.
    pub(crate) is_plain: bool,
}

/// Where a consumer is made, and how it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsumerPlacement {
    pub(crate) room: RoomId,
    pub(crate) transport: TransportId,
    pub(crate) producer: ProducerId,
    pub(crate) consumer: ConsumerId,
    pub(crate) preferred_profile: Profile,
    pub(crate) paused: bool,
    /// Nobody has given the producer's canonical name.
    pub(crate) cname_is_made_up: bool,
}

/// What a consumer is sent under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConsumerSsrcs {
    /// Its media.
    pub(crate) media: u32,
    /// Its retransmissions, if they are a stream of their own.
    pub(crate) rtx: u32,
}

impl RtpParameters {
    /// Checks the parameters and turns them into the worker's request.
    pub(crate) fn create_producer(&self, placement: ProducerPlacement) -> Checked<CreateProducer> {
        let codecs = self.check_codecs(placement.kind)?;
        let header_extensions = check_header_extensions(&self.header_extensions)?;
        let has = |uri| header_extensions.iter().any(|extension| extension.uri == uri);
        if let Some(mid) = &self.mux_id {
            if mid.is_empty() || mid.len() > 32 {
                return Err("muxId must have 1 to 32 bytes".to_owned());
            }
            if !has(ExtensionUri::Mid) && !self.every_stream_is_known_without_mid() {
                return Err(format!(
                    "muxId needs the header extension it travels in: add {}",
                    ExtensionUri::Mid.uri()
                ));
            }
        }
        let encodings = self.check_encodings(placement, &codecs)?;
        if encodings.iter().any(|encoding| encoding.rid.is_some()) && !has(ExtensionUri::RtpStreamId) {
            return Err(format!(
                "encodingId needs the header extension it travels in: add {}",
                ExtensionUri::RtpStreamId.uri()
            ));
        }
        if let Some(cname) = &self.rtcp.cname
            && (cname.is_empty() || cname.len() > 255)
        {
            return Err("rtcp.cname must have 1 to 255 bytes".to_owned());
        }
        Ok(CreateProducer {
            room: placement.room,
            transport: placement.transport,
            producer: placement.producer,
            kind: placement.kind,
            // Without the extension the id is the browser's own affair: its packets do not carry it.
            mid: self.mux_id.clone().filter(|_| has(ExtensionUri::Mid)),
            codecs,
            encodings,
            header_extensions,
            preferred_profile: placement.preferred_profile,
            reduced_size: self.rtcp.reduced_size,
            paused: placement.paused,
        })
    }

    /// What a consumer of a producer with these (checked) parameters is sent, and the worker's request for it.
    pub(crate) fn create_consumer(
        &self,
        placement: ConsumerPlacement,
        wanted: &ConsumerRtp,
        ssrcs: ConsumerSsrcs,
    ) -> Checked<(CreateConsumer, Self)> {
        let (payload_types, codecs): (Vec<(u8, u8)>, _) = self.consumed_codecs(wanted)?.into_iter().unzip();
        let extensions = self.consumed_header_extensions(wanted.header_extensions.as_deref())?;
        let parameters = Self {
            mux_id: None,
            codecs,
            header_extensions: extensions
                .into_iter()
                .map(|extension| RtpHeaderExtension::new(extension.uri, extension.id))
                .collect(),
            encodings: Vec::new(),
            rtcp: self.rtcp.clone(),
        }
        .with_ssrcs(ssrcs);
        let request = parameters.consumer_request(placement, &payload_types)?;
        Ok((request, parameters))
    }

    /// The worker's request for a consumer that is sent these parameters. `payload_types`: (the producer's, the
    /// consumer's); those that the consumer does not have are left out.
    pub(crate) fn consumer_request(
        &self,
        placement: ConsumerPlacement,
        payload_types: &[(u8, u8)],
    ) -> Checked<CreateConsumer> {
        let media = |payload_type: u8| {
            let mut codecs = self.codecs.iter().filter(|codec| !codec.is_rtx());
            codecs.any(|codec| codec.payload_type == payload_type)
        };
        let media_types: Vec<(u8, u8)> = payload_types.iter().copied().filter(|(_, own)| media(*own)).collect();
        if media_types.is_empty() {
            return Err("the receiver has no codec in common with the producer".to_owned());
        }
        let encoding = self.encodings.first();
        let ssrc = encoding.and_then(|encoding| encoding.ssrc).filter(|ssrc| *ssrc != 0);
        let rtx_ssrc = encoding.and_then(|encoding| encoding.rtx).and_then(|rtx| rtx.ssrc);
        let repairs = self.codecs.iter().filter(|codec| codec.is_rtx()).filter_map(|codec| {
            let apt = codec.apt().filter(|apt| media(*apt))?;
            Some((apt, codec.payload_type))
        });
        let repairs: Vec<(u8, u8)> = repairs.collect();
        Ok(CreateConsumer {
            room: placement.room,
            transport: placement.transport,
            producer: placement.producer,
            consumer: placement.consumer,
            ssrc: ssrc.ok_or("a consumer needs an ssrc other than 0")?,
            payload_types: media_types,
            header_extensions: check_header_extensions(&self.header_extensions)?
                .into_iter()
                .filter(|extension| extension.uri.is_relayed())
                .collect(),
            nack: self.codecs.iter().any(|codec| codec.has_feedback("nack")),
            rtx: rtx_ssrc.filter(|_| !repairs.is_empty()).map(|ssrc| ConsumerRtx {
                ssrc,
                payload_types: repairs,
            }),
            cname: self.rtcp.cname.clone().unwrap_or_else(|| "weir".to_owned()),
            preferred_profile: placement.preferred_profile,
            paused: placement.paused,
            cname_is_made_up: placement.cname_is_made_up,
            lasting_cname: None,
        })
    }

    /// By its SSRC, or by its RID.
    fn every_stream_is_known_without_mid(&self) -> bool {
        let mut encodings = self.encodings.iter();
        !self.encodings.is_empty()
            && encodings.all(|encoding| encoding.ssrc.is_some() || encoding.encoding_id.is_some())
    }

    fn check_codecs(&self, kind: MediaKind) -> Checked<Vec<Codec>> {
        let mut payload_types = BTreeSet::new();
        let mut media = Vec::new();
        for codec in &self.codecs {
            let subtype = codec.check(kind)?;
            if !payload_types.insert(codec.payload_type) {
                return Err(format!("payloadType {} is listed twice", codec.payload_type));
            }
            if let Subtype::Media(name) = subtype {
                media.push(Codec {
                    payload_type: codec.payload_type,
                    name,
                    clock_rate: codec.clock_rate,
                    pli: codec.has_feedback_of("nack", "pli"),
                    fir: codec.has_feedback_of("ccm", "fir"),
                    nack: codec.has_feedback("nack"),
                    remb: codec.has_feedback("goog-remb"),
                    rtx: None,
                });
            }
        }
        if media.is_empty() || media.len() > MEDIA_CODECS_MAX {
            return Err(format!(
                "codecs must list 1 to {MEDIA_CODECS_MAX} codecs of media, not {}",
                media.len()
            ));
        }
        // What goes along with nothing is all there is, and so what it is about.
        if media.iter().all(|codec| codec.name.is_companion()) {
            for codec in &mut media {
                codec.name = match kind {
                    MediaKind::Audio => CodecName::OtherAudio,
                    MediaKind::Video => CodecName::OtherVideo,
                };
            }
        }
        for codec in self.codecs.iter().filter(|codec| codec.is_rtx()) {
            let own = codec.payload_type;
            let apt = codec.apt().ok_or_else(|| {
                format!("rtx under payloadType {own} needs parameters.apt, the payloadType it repairs")
            })?;
            let repaired = media
                .iter_mut()
                .find(|media| media.payload_type == apt)
                .ok_or_else(|| {
                    format!("rtx under payloadType {own} repairs {apt}, which is not a listed media codec")
                })?;
            if repaired.clock_rate != codec.clock_rate {
                return Err(format!(
                    "rtx under payloadType {own} must have the clockRate of what it repairs, {}, not {} (RFC 4588 §4)",
                    repaired.clock_rate, codec.clock_rate
                ));
            }
            if let Some(other) = repaired.rtx.replace(own) {
                return Err(format!(
                    "payloadType {apt} is repaired by both {other} and {own}; one will do"
                ));
            }
        }
        Ok(media)
    }

    /// Each codec that is consumed, after (the producer's payload type, the consumer's).
    fn consumed_codecs(&self, wanted: &ConsumerRtp) -> Checked<Vec<((u8, u8), RtpCodec)>> {
        let wanted = &wanted.payload_types;
        let mut taken = BTreeSet::new();
        for (from, to) in wanted {
            if !self.codecs.iter().any(|codec| codec.payload_type == *from) {
                return Err(format!("payloadTypes names {from}, which the producer does not send"));
            }
            check_payload_type(*to)?;
            if !taken.insert(to) {
                return Err(format!("payloadTypes gives {to} to two codecs; give each its own"));
            }
        }
        let renumber = |from: u8| match wanted.is_empty() {
            true => Some(from),
            false => wanted.get(&from).copied(),
        };
        let mut consumed = Vec::new();
        for codec in &self.codecs {
            let from = codec.payload_type;
            let Some(to) = renumber(from) else {
                continue;
            };
            let mut codec = RtpCodec {
                payload_type: to,
                ..codec.clone()
            };
            if let Some(apt) = codec.apt().filter(|_| codec.is_rtx()) {
                let repaired = renumber(apt).ok_or_else(|| {
                    format!("payloadTypes lists {from}, which repairs {apt}, but not {apt}; list both or neither")
                })?;
                set_parameter(&mut codec.parameters, "apt", repaired.into());
            }
            consumed.push(((from, to), codec));
        }
        Ok(consumed)
    }

    fn consumed_header_extensions(&self, wanted: Option<&[RtpHeaderExtension]>) -> Checked<Vec<HeaderExtension>> {
        let sent = check_header_extensions(&self.header_extensions)?;
        let understood = match wanted {
            Some(wanted) => check_header_extensions(wanted)?,
            None => sent.clone(),
        };
        Ok(understood
            .into_iter()
            .filter(|extension| extension.uri.is_relayed())
            .filter(|extension| sent.iter().any(|sent| sent.uri == extension.uri))
            .collect())
    }
}
