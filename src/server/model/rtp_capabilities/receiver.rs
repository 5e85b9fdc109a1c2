//! What of a producer a receiver is sent that says in numbers of its own what it can receive, as in an offer.

use super::{RtpCapabilities, RtpCodecCapability};
use crate::server::model::rtp_parameters::{
    RtcpFeedback, RtcpParameters, RtpCodec, RtpHeaderExtension, RtpParameters, extension_uri,
};

/// The feedback that a consumer can be given.
const FEEDBACK: [(&str, &str); 4] = [("nack", ""), ("nack", "pli"), ("ccm", "fir"), ("goog-remb", "")];

/// What a receiver is sent of a producer with these parameters, and each media codec's payload types: the producer's and the
/// receiver's. Codecs and header extensions are those in common, each with the receiver's number, format parameters and feedback.
/// Retransmissions are the receiver's, too, whether the producer has them or not. There are no streams; the caller sets them.
pub(crate) fn receiver_parameters(
    producer: &RtpParameters,
    receiver: &RtpCapabilities,
) -> (RtpParameters, Vec<(u8, u8)>) {
    let mut payload_types: Vec<(u8, u8)> = Vec::new();
    let mut codecs = Vec::new();
    for codec in producer.codecs.iter().filter(|codec| !codec.is_rtx()) {
        let Some((theirs, payload_type)) = received_as(codec, receiver, &payload_types) else {
            continue;
        };
        payload_types.push((codec.payload_type, payload_type));
        codecs.extend(received(theirs, payload_type, receiver));
    }
    // What goes along with a codec is of no use without one.
    let is_main = |codec: &RtpCodec| !codec.is_rtx() && !codec.is_companion();
    if producer.codecs.iter().any(is_main) && !codecs.iter().any(is_main) {
        codecs.clear();
        payload_types.clear();
    }
    let sent = |uri: &str| {
        let mut own = producer.header_extensions.iter();
        own.any(|own| own.uri.eq_ignore_ascii_case(uri))
    };
    let mut header_extensions = received_extensions(receiver);
    header_extensions.retain(|theirs| sent(&theirs.uri));
    let parameters = RtpParameters {
        mux_id: None,
        codecs,
        header_extensions,
        encodings: Vec::new(),
        rtcp: producer.rtcp.clone(),
    };
    (parameters, payload_types)
}

/// A codec as it is received, and its retransmissions, if the receiver has them.
fn received(
    codec: &RtpCodecCapability,
    payload_type: u8,
    receiver: &RtpCapabilities,
) -> impl Iterator<Item = RtpCodec> + use<> {
    let given = |theirs: &&RtcpFeedback| {
        let mut own = FEEDBACK
            .iter()
            .map(|(name, parameter)| RtcpFeedback::new(name, parameter));
        own.any(|own| own.is_same(theirs))
    };
    let received = RtpCodec {
        mime_type: codec.mime_type(),
        payload_type,
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        parameters: codec.parameters.clone(),
        rtcp_feedback: codec.rtcp_feedback.iter().filter(given).cloned().collect(),
    };
    let mut others = receiver.codecs.iter();
    let rtx = others.find(|own| own.kind == codec.kind && own.is_rtx() && own.apt() == Some(payload_type));
    let rtx = rtx.and_then(|own| own.preferred_payload_type);
    let repair = rtx.map(|own| RtpCodec::rtx(own, &received));
    [Some(received), repair].into_iter().flatten()
}

/// Those of the receiver's header extensions that are relayed.
fn received_extensions(receiver: &RtpCapabilities) -> Vec<RtpHeaderExtension> {
    let theirs = receiver.header_extensions.iter().filter_map(|theirs| {
        let uri = extension_uri(&theirs.uri).filter(|uri| uri.is_relayed())?;
        Some(RtpHeaderExtension::new(uri, theirs.preferred_id))
    });
    theirs.collect()
}

/// What a receiver can be sent in a room, whoever sends it there: those of its codecs that the room relays, with their
/// retransmissions. Those that `first` has come first, and the others as the room prefers them.
pub(crate) fn receivable(
    receiver: &RtpCapabilities,
    room: &RtpCapabilities,
    first: Option<&RtpParameters>,
) -> RtpCapabilities {
    let preference = |theirs: &RtpCodecCapability| {
        let in_room = room
            .codecs
            .iter()
            .position(|own| !own.is_rtx() && own.is_same_format(theirs))?;
        let is_first = |codec: &RtpCodec| theirs.is_format_of(codec);
        let rank = match first {
            Some(first)
                if first
                    .codecs
                    .iter()
                    .any(|own| is_first(own) && theirs.has_profile_of(&own.parameters)) =>
            {
                0
            }
            Some(first) if first.codecs.iter().any(is_first) => 1,
            _ => 2,
        };
        Some((rank, in_room))
    };
    let media = receiver
        .codecs
        .iter()
        .filter(|theirs| !theirs.is_rtx() && theirs.preferred_payload_type.is_some());
    let mut known: Vec<_> = media
        .filter_map(|theirs| Some((preference(theirs)?, theirs.clone())))
        .collect();
    known.sort_by_key(|(preference, _)| *preference);
    let mut codecs: Vec<_> = known.into_iter().map(|(_, theirs)| theirs).collect();
    let is_known = |apt: u8| codecs.iter().any(|own| own.preferred_payload_type == Some(apt));
    let rtx = receiver
        .codecs
        .iter()
        .filter(|theirs| theirs.is_rtx() && theirs.apt().is_some_and(is_known));
    let rtx: Vec<_> = rtx.cloned().collect();
    codecs.extend(rtx);
    RtpCapabilities {
        codecs,
        header_extensions: receiver.header_extensions.clone(),
        fec_mechanisms: Vec::new(),
    }
}

/// Everything that a receiver may be sent, for an answer. There are no streams; the caller sets them.
pub(crate) fn receivable_parameters(receivable: &RtpCapabilities, cname: String) -> RtpParameters {
    let media = receivable.codecs.iter().filter(|own| !own.is_rtx());
    let codecs = media.filter_map(|own| Some(received(own, own.preferred_payload_type?, receivable)));
    RtpParameters {
        mux_id: None,
        codecs: codecs.flatten().collect(),
        header_extensions: received_extensions(receivable),
        encodings: Vec::new(),
        rtcp: RtcpParameters {
            cname: Some(cname),
            ..RtcpParameters::default()
        },
    }
}

/// The receiver's codec of a producer's format that nothing else has: with the same profile, if it matters and there is one.
fn received_as<'a>(
    codec: &RtpCodec,
    receiver: &'a RtpCapabilities,
    taken: &[(u8, u8)],
) -> Option<(&'a RtpCodecCapability, u8)> {
    let alike = || {
        let codecs = receiver
            .codecs
            .iter()
            .filter(|theirs| !theirs.is_rtx() && theirs.is_format_of(codec));
        let numbered = codecs.filter_map(|theirs| Some((theirs, theirs.preferred_payload_type?)));
        numbered.filter(|(_, payload_type)| taken.iter().all(|(_, other)| other != payload_type))
    };
    alike()
        .find(|(theirs, _)| theirs.has_profile_of(&codec.parameters))
        .or_else(|| alike().next())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_channel::message::{CodecName, ExtensionUri, MediaKind};

    use super::*;
    use crate::server::model::rtp_capabilities::RtpHeaderExtensionCapability;

    fn h264(payload_type: u8, mode: &str, profile: &str) -> RtpCodecCapability {
        let mut codec = RtpCodecCapability::new(CodecName::H264);
        codec.preferred_payload_type = Some(payload_type);
        codec.parameters.insert("packetization-mode".to_owned(), json!(mode));
        codec.parameters.insert("profile-level-id".to_owned(), json!(profile));
        codec.rtcp_feedback = ["nack", "transport-cc"].map(|name| RtcpFeedback::new(name, "")).into();
        codec
    }

    fn rtx(payload_type: u8, apt: u8) -> RtpCodecCapability {
        let mut codec = RtpCodecCapability::new(CodecName::H264);
        codec.name = "rtx".to_owned();
        codec.preferred_payload_type = Some(payload_type);
        codec.parameters.insert("apt".to_owned(), json!(apt.to_string()));
        codec
    }

    fn producer() -> RtpParameters {
        let mut codec = RtpCodec::new(CodecName::H264, 96);
        codec.parameters.insert("packetization-mode".to_owned(), json!(1));
        codec.parameters.insert("profile-level-id".to_owned(), json!("42e01f"));
        RtpParameters {
            codecs: vec![codec],
            header_extensions: vec![
                RtpHeaderExtension::new(ExtensionUri::Mid, 1),
                RtpHeaderExtension::new(ExtensionUri::AbsSendTime, 3),
            ],
            ..RtpParameters::default()
        }
    }

    fn extension(uri: ExtensionUri, id: u8) -> RtpHeaderExtensionCapability {
        RtpHeaderExtensionCapability::new(MediaKind::Video, uri, id)
    }

    #[test]
    fn a_receiver_gets_its_own_numbers_and_repairs() {
        let receiver = RtpCapabilities {
            codecs: vec![
                h264(102, "0", "42e01f"),
                h264(103, "1", "4d001f"),
                rtx(104, 103),
                h264(105, "1", "42e034"),
                rtx(106, 105),
            ],
            header_extensions: vec![
                extension(ExtensionUri::Mid, 4),
                extension(ExtensionUri::AbsSendTime, 9),
                extension(ExtensionUri::PlayoutDelay, 10),
            ],
            fec_mechanisms: Vec::new(),
        };
        let (parameters, payload_types) = receiver_parameters(&producer(), &receiver);
        assert_eq!(payload_types, [(96, 105)], "the same mode and the same profile");
        let numbers: Vec<u8> = parameters.codecs.iter().map(|codec| codec.payload_type).collect();
        assert_eq!(numbers, [105, 106], "repaired, although the producer is not");
        assert_eq!(
            parameters.codecs[0].parameters["profile-level-id"], "42e034",
            "as the receiver offers it"
        );
        assert_eq!(parameters.codecs[0].rtcp_feedback, [RtcpFeedback::new("nack", "")]);
        assert_eq!(
            parameters.header_extensions,
            [RtpHeaderExtension::new(ExtensionUri::AbsSendTime, 9)]
        );
        let another_profile = RtpCapabilities {
            codecs: vec![h264(103, "1", "4d001f")],
            ..RtpCapabilities::default()
        };
        let (_, payload_types) = receiver_parameters(&producer(), &another_profile);
        assert_eq!(payload_types, [(96, 103)], "decoders take more than they say");
    }

    #[test]
    fn what_is_not_in_common_is_not_received() {
        for receiver in [
            RtpCapabilities::default(),
            RtpCapabilities {
                codecs: vec![h264(102, "0", "42e01f"), rtx(104, 102)],
                ..RtpCapabilities::default()
            },
        ] {
            let (parameters, payload_types) = receiver_parameters(&producer(), &receiver);
            assert!(parameters.codecs.is_empty() && payload_types.is_empty());
        }
    }
}
