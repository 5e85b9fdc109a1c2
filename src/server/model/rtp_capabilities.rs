//! What a room relays and what a peer can receive, in the JSON shape of mediasoup (differences §5), and how a
//! producer's parameters become those of its consumers.
//!
//! A room has one set of payload types and header extension ids. Peers say in the room's numbers what they can receive; a
//! producer sends under numbers of its own, which a [`ProducerMapping`] translates. All of this is pure.

mod codec;
mod consumable;
mod header_extension;
mod mapping;
mod receiver;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weir_channel::message::{ExtensionUri, MediaKind};

use crate::server::model::rtp_parameters::{
    Checked, check_feedback, check_format_parameters, check_payload_type, check_text, extension_uri,
};

pub use self::codec::RtpCodecCapability;
pub(crate) use self::consumable::consumer_parameters;
pub use self::header_extension::RtpHeaderExtensionCapability;
pub(crate) use self::header_extension::extension_uris;
pub(crate) use self::mapping::ProducerMapping;
pub(crate) use self::receiver::{receivable, receivable_parameters, receiver_parameters};

/// The most entries in one list of a peer's capabilities.
const ENTRIES_MAX: usize = 128;

/// The RTP capabilities of a room (what it relays) or of a peer (what it can receive).
///
/// ```
/// use weir::{CodecName, RtpCapabilities, RtpCodecCapability};
///
/// let room = RtpCapabilities::for_room(&[
///     RtpCodecCapability::new(CodecName::Opus),
///     RtpCodecCapability::new(CodecName::Vp8),
/// ])?;
/// let payload_types: Vec<Option<u8>> = room.codecs.iter().map(|codec| codec.preferred_payload_type).collect();
/// assert_eq!(payload_types, [Some(100), Some(101), Some(102)], "the third is the retransmission of the second");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtpCapabilities {
    /// The codecs. A retransmission codec (`rtx`) follows the codec that it repairs.
    pub codecs: Vec<RtpCodecCapability>,
    /// The header extensions, one entry for each kind of media.
    #[serde(default)]
    pub header_extensions: Vec<RtpHeaderExtensionCapability>,
    /// Mechanisms for forward error correction; a room has none.
    #[serde(default)]
    pub fec_mechanisms: Vec<String>,
}

impl RtpCapabilities {
    /// Checks that all of this is in the room's capabilities, under the room's numbers.
    ///
    /// # Errors
    /// A sentence that names the first that is not.
    pub fn check_subset_of(&self, room: &Self) -> Result<(), String> {
        self.check_sizes()?;
        for codec in &self.codecs {
            self.check_codec(codec, room)?;
        }
        for extension in &self.header_extensions {
            let same = |other: &&RtpHeaderExtensionCapability| other.matches(extension);
            let RtpHeaderExtensionCapability { uri, preferred_id, .. } = extension;
            match room.header_extensions.iter().find(same) {
                None => return Err(format!("the room does not have header extension {uri}; leave it out")),
                Some(own) if own.preferred_id != *preferred_id => {
                    return Err(format!(
                        "the preferredId of header extension {uri} is {} in this room, not {preferred_id}",
                        own.preferred_id
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Checks that nothing in it is too long.
    fn check_sizes(&self) -> Checked<()> {
        for (list, len) in [
            ("codecs", self.codecs.len()),
            ("headerExtensions", self.header_extensions.len()),
            ("fecMechanisms", self.fec_mechanisms.len()),
        ] {
            if len > ENTRIES_MAX {
                return Err(format!("{list} lists {len}, more than {ENTRIES_MAX}"));
            }
        }
        for mechanism in &self.fec_mechanisms {
            check_text("a fecMechanism", mechanism)?;
        }
        for codec in &self.codecs {
            check_text("the name of a codec", &codec.name)?;
            check_format_parameters(&codec.parameters)?;
            check_feedback(&codec.rtcp_feedback)?;
        }
        Ok(())
    }

    /// What of it is for one kind of media.
    pub(crate) fn of_kind(&self, kind: MediaKind) -> Self {
        let codecs = self.codecs.iter().filter(|codec| codec.kind == kind);
        let extensions = self.header_extensions.iter();
        Self {
            codecs: codecs.cloned().collect(),
            header_extensions: extensions.filter(|extension| extension.is_for(kind)).cloned().collect(),
            fec_mechanisms: self.fec_mechanisms.clone(),
        }
    }

    /// Checks its codecs as those of a receiver, in payload types of its own. (Header extensions are checked as those of its
    /// consumer.)
    pub(crate) fn check_receiver(&self) -> Checked<()> {
        self.check_sizes()?;
        let mut payload_types = BTreeSet::new();
        for codec in &self.codecs {
            let RtpCodecCapability {
                name,
                preferred_payload_type,
                ..
            } = codec;
            let Some(payload_type) = *preferred_payload_type else {
                return Err(format!(
                    "codec {name} needs a preferredPayloadType, under which it is to be sent"
                ));
            };
            check_payload_type(payload_type)?;
            if !payload_types.insert(payload_type) {
                return Err(format!("preferredPayloadType {payload_type} is listed twice"));
            }
        }
        Ok(())
    }

    fn check_codec(&self, codec: &RtpCodecCapability, room: &Self) -> Checked<()> {
        let RtpCodecCapability {
            name,
            preferred_payload_type,
            ..
        } = codec;
        let Some(payload_type) = *preferred_payload_type else {
            return Err(format!(
                "codec {name} needs the preferredPayloadType it has in the room"
            ));
        };
        let same = room
            .codecs
            .iter()
            .find(|own| own.preferred_payload_type == *preferred_payload_type);
        let repairs_the_same = |own: &RtpCodecCapability| !codec.is_rtx() || own.apt() == codec.apt();
        match same {
            Some(own) if own.is_same_format(codec) && repairs_the_same(own) => Ok(()),
            _ => Err(format!(
                "the room has no codec {name} under preferredPayloadType {payload_type}; use the room's codecs and numbers"
            )),
        }
    }

    /// Whether the codec under this payload type is among them.
    pub(crate) fn has_payload_type(&self, payload_type: u8) -> bool {
        let mut codecs = self.codecs.iter();
        codecs.any(|codec| codec.preferred_payload_type == Some(payload_type))
    }

    /// What a room announces if the application does not say: everything but MID, transmission offsets and video orientation.
    ///
    /// Chromium numbers its header extensions by the order of its tracks, and mediasoup's client (2.x) answers with the
    /// numbers that they have when audio comes first. With video first, these three have others, and what the client says of
    /// MID is then a number that Chromium has given away ("RTP extension ID reassignment not supported"). All that is left has
    /// the same number in every order, or is the only one of its track, or is not offered by browsers unless they are told to.
    ///
    /// Nothing is lost but that two simulcast tracks of one transport may not use the same RIDs. Browsers turn their pictures
    /// upright themselves where the orientation cannot be told, and the time of sending says more than offsets.
    pub const BROWSER_EXTENSIONS: [ExtensionUri; 7] = [
        ExtensionUri::AudioLevel,
        ExtensionUri::AbsSendTime,
        ExtensionUri::RtpStreamId,
        ExtensionUri::RepairedRtpStreamId,
        ExtensionUri::AbsCaptureTime,
        ExtensionUri::PlayoutDelay,
        ExtensionUri::DependencyDescriptor,
    ];

    /// Announces these header extensions and no others, under the numbers that they always have.
    pub(crate) fn announce(&mut self, wanted: &[ExtensionUri]) -> Checked<()> {
        for (index, uri) in wanted.iter().enumerate() {
            if self.extension(*uri).is_none() {
                return Err(format!(
                    "rooms do not announce header extension {}; leave it out",
                    uri.uri()
                ));
            }
            if wanted[..index].contains(uri) {
                return Err(format!("header extension {} is listed twice", uri.uri()));
            }
        }
        self.keep_header_extensions(wanted);
        Ok(())
    }

    /// Drops all header extensions but these.
    pub fn keep_header_extensions(&mut self, keep: &[ExtensionUri]) {
        self.header_extensions
            .retain(|extension| extension_uri(&extension.uri).is_some_and(|uri| keep.contains(&uri)));
    }

    fn extension(&self, uri: ExtensionUri) -> Option<&RtpHeaderExtensionCapability> {
        let mut all = self.header_extensions.iter();
        all.find(|extension| extension_uri(&extension.uri) == Some(uri))
    }
}
