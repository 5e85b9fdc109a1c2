//! What of a producer a certain peer is sent.

use super::RtpCapabilities;
use crate::server::model::rtp_parameters::{RtpCodec, RtpEncoding, RtpParameters, RtxParameters, extension_uri};

/// What a peer with these capabilities is sent of what is [consumable](super::ProducerMapping::consumable): the codecs and
/// header extensions that it knows, with the feedback that both it and the room give. There is one stream, without SSRCs; the caller sets
/// those ([`RtpParameters::with_ssrcs`]). There may be no codec in common, or none but what goes along with another; then
/// nothing can be sent.
pub(crate) fn consumer_parameters(consumable: &RtpParameters, peer: &RtpCapabilities) -> RtpParameters {
    let known = |payload_type| peer.has_payload_type(payload_type);
    let codecs = consumable.codecs.iter().filter(|codec| {
        let repaired = match codec.is_rtx() {
            true => codec.apt().is_some_and(known),
            false => true,
        };
        known(codec.payload_type) && repaired
    });
    let is_main = |codec: &RtpCodec| !codec.is_rtx() && !codec.is_companion();
    let mut codecs: Vec<RtpCodec> = codecs.cloned().collect();
    // What goes along with a codec is of no use without one.
    if consumable.codecs.iter().any(is_main) && !codecs.iter().any(is_main) {
        codecs.clear();
    }
    let codecs = codecs.into_iter().map(|mut codec| {
        let theirs = peer
            .codecs
            .iter()
            .find(|theirs| theirs.preferred_payload_type == Some(codec.payload_type));
        if let Some(theirs) = theirs {
            let room = std::mem::take(&mut codec.rtcp_feedback);
            let theirs = theirs.rtcp_feedback.iter();
            let common = theirs.filter(|theirs| room.iter().any(|own| own.is_same(theirs)));
            codec.rtcp_feedback = common.cloned().collect();
        }
        codec
    });
    let header_extensions = consumable.header_extensions.iter().filter(|extension| {
        let mut theirs = peer.header_extensions.iter();
        extension_uri(&extension.uri).is_some_and(|uri| uri.is_relayed())
            && theirs
                .any(|theirs| theirs.preferred_id == extension.id && theirs.uri.eq_ignore_ascii_case(&extension.uri))
    });
    let mut parameters = RtpParameters {
        mux_id: None,
        codecs: codecs.collect(),
        header_extensions: header_extensions.cloned().collect(),
        encodings: Vec::new(),
        rtcp: consumable.rtcp.clone(),
    };
    parameters.encodings = vec![RtpEncoding {
        rtx: parameters.has_rtx().then(RtxParameters::default),
        ..RtpEncoding::default()
    }];
    parameters
}
