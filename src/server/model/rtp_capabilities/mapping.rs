//! From a producer's own numbers to the room's.

use weir_channel::message::MediaKind;

use super::{RtpCapabilities, RtpCodecCapability};
use crate::server::model::rtp_parameters::{Checked, RtpCodec, RtpHeaderExtension, RtpParameters, extension_uri};

/// Which of a producer's payload types and header extension ids are which of its room's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ProducerMapping {
    /// (the producer's payload type of a media codec, the room's), each at most once.
    payload_types: Vec<(u8, u8)>,
    /// (the producer's id, the room's), each at most once. What the room does not announce is not in it.
    header_extensions: Vec<(u8, u8)>,
}

impl ProducerMapping {
    /// Finds each of a producer's codecs among the room's. Of several that would do (H264 of one packetization mode), the one
    /// with the same profile is taken, and each of the room's at most once: when two of the producer's would be one in the
    /// room, the first is relayed.
    ///
    /// # Errors
    /// A sentence about the first codec that the room does not have.
    pub(crate) fn derive(parameters: &RtpParameters, room: &RtpCapabilities) -> Checked<Self> {
        let mut mapping = Self::default();
        for codec in parameters.codecs.iter().filter(|codec| !codec.is_rtx()) {
            let (_, to) = room_codec(codec, room).ok_or_else(|| {
                let name = codec.mime_type.split_once('/').map_or("", |(_, name)| name);
                format!("unsupported codec [name:{name}, payloadType:{}]", codec.payload_type)
            })?;
            let from = codec.payload_type;
            if mapping
                .payload_types
                .iter()
                .all(|(own, other)| *own != from && *other != to)
            {
                mapping.payload_types.push((from, to));
            }
        }
        for extension in &parameters.header_extensions {
            let Some(announced) = extension_uri(&extension.uri).and_then(|uri| room.extension(uri)) else {
                continue;
            };
            let (from, to) = (extension.id, announced.preferred_id);
            if mapping
                .header_extensions
                .iter()
                .all(|(own, other)| *own != from && *other != to)
            {
                mapping.header_extensions.push((from, to));
            }
        }
        Ok(mapping)
    }

    /// (the producer's payload type of a media codec, the room's).
    pub(crate) fn payload_types(&self) -> &[(u8, u8)] {
        &self.payload_types
    }

    /// What consumers can be sent of a producer with these parameters: its codecs as the room has them, each with the room's
    /// retransmission, whether the producer has that or not; its header extensions that are of use to receivers, under the
    /// room's ids; its streams and its RTCP.
    pub(crate) fn consumable(
        &self,
        kind: MediaKind,
        parameters: &RtpParameters,
        room: &RtpCapabilities,
    ) -> RtpParameters {
        let mut codecs = Vec::new();
        for (_, payload_type) in &self.payload_types {
            let own = room.codecs.iter().filter(|codec| codec.kind == kind);
            let of_it = own.filter(|codec| match codec.is_rtx() {
                true => codec.apt() == Some(*payload_type),
                false => codec.preferred_payload_type == Some(*payload_type),
            });
            codecs.extend(of_it.filter_map(under_payload_type));
        }
        let header_extensions = parameters.header_extensions.iter().filter_map(|extension| {
            let uri = extension_uri(&extension.uri).filter(|uri| uri.is_relayed())?;
            let own = |own: &(u8, u8)| own.0 == extension.id;
            let (_, id) = self.header_extensions.iter().copied().find(own)?;
            let announced = room.header_extensions.iter().filter(|announced| announced.is_for(kind));
            let mut ids = announced.map(|announced| announced.preferred_id);
            ids.any(|announced| announced == id)
                .then(|| RtpHeaderExtension::new(uri, id))
        });
        RtpParameters {
            mux_id: None,
            codecs,
            header_extensions: header_extensions.collect(),
            encodings: parameters.encodings.clone(),
            rtcp: parameters.rtcp.clone(),
        }
    }
}

/// The room's codec for a producer's, with its payload type.
fn room_codec<'a>(codec: &RtpCodec, room: &'a RtpCapabilities) -> Option<(&'a RtpCodecCapability, u8)> {
    let alike = || {
        let codecs = room.codecs.iter().filter(|own| own.is_format_of(codec));
        codecs.filter_map(|own| Some((own, own.preferred_payload_type?)))
    };
    alike()
        .find(|(own, _)| own.has_profile_of(&codec.parameters))
        .or_else(|| alike().next())
}

/// A capability as a codec under its payload type.
fn under_payload_type(codec: &RtpCodecCapability) -> Option<RtpCodec> {
    Some(RtpCodec {
        mime_type: codec.mime_type(),
        payload_type: codec.preferred_payload_type?,
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        parameters: codec.parameters.clone(),
        rtcp_feedback: codec.rtcp_feedback.clone(),
    })
}
