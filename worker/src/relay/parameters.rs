//! What a request's parameters must be like. Checked before anything changes.

use weir_channel::message::{
    ConsumerRtx, CreateConsumer, CreateProducer, Encoding, HeaderExtension, Profile, Remote, WorkerError,
};

use super::limits::ENCODINGS_MAX;

/// The longest MID or RID: the one-byte form of RFC 8285 carries 16 bytes, the two-byte form 255; senders of today use
/// a few.
const NAME_BYTES_MAX: usize = 32;

/// Payload types that a producer or consumer may list.
const CODECS_MAX: usize = 16;

pub(super) fn invalid(sentence: impl Into<String>) -> WorkerError {
    WorkerError::InvalidParameters(sentence.into())
}

pub(super) fn check_remote(remote: Remote, rtcp_mux: bool) -> Result<(), WorkerError> {
    match (rtcp_mux, remote.rtcp) {
        (true, Some(_)) => Err(invalid(
            "RTCP is muxed on this transport: it has no RTCP address of its own",
        )),
        _ if remote.rtp.port() == 0 || remote.rtcp.is_some_and(|rtcp| rtcp.port() == 0) => {
            Err(invalid("port 0 is not a place to send to"))
        }
        _ => Ok(()),
    }
}

/// `is_plain`: the transport is a plain one, where payload types may be enough to recognise a stream by.
pub(super) fn check_producer(request: &CreateProducer, is_plain: bool) -> Result<(), WorkerError> {
    if request.codecs.is_empty() || request.codecs.len() > CODECS_MAX {
        return Err(invalid(format!(
            "a producer has 1 to {CODECS_MAX} codecs, not {}",
            request.codecs.len()
        )));
    }
    for (index, codec) in request.codecs.iter().enumerate() {
        check_payload_type(codec.payload_type)?;
        if codec.name.kind() != request.kind {
            return Err(invalid(format!("{} is not {}", codec.name.subtype(), request.kind)));
        }
        if codec.clock_rate == 0 {
            return Err(invalid(format!("{} has a clock rate of 0", codec.name.subtype())));
        }
        let mut before = request.codecs[..index].iter();
        if before.any(|other| other.payload_type == codec.payload_type) {
            return Err(invalid(format!("payload type {} is listed twice", codec.payload_type)));
        }
        if let Some(rtx) = codec.rtx {
            check_payload_type(rtx)?;
            let is_taken = request.codecs.iter().any(|other| other.payload_type == rtx)
                || request.codecs[..index].iter().any(|other| other.rtx == Some(rtx));
            if is_taken {
                return Err(invalid(format!(
                    "payload type {rtx}, of retransmissions of {}, is another's too",
                    codec.payload_type
                )));
            }
        }
    }
    check_extensions(&request.header_extensions)?;
    check_name("mid", request.mid.as_deref())?;
    if request.encodings.is_empty() || request.encodings.len() > ENCODINGS_MAX {
        return Err(invalid(format!(
            "a producer has 1 to {ENCODINGS_MAX} encodings, not {}",
            request.encodings.len()
        )));
    }
    let simulcast = request.encodings.len() > 1;
    for (index, encoding) in request.encodings.iter().enumerate() {
        check_encoding(encoding, simulcast, request.mid.is_some() || is_plain)?;
        for other in &request.encodings[..index] {
            if other.profile == encoding.profile {
                return Err(invalid(format!("profile {} is listed twice", encoding.profile)));
            }
            if other.ssrc.is_some() && other.ssrc == encoding.ssrc || other.rid.is_some() && other.rid == encoding.rid {
                return Err(invalid(format!("encoding {index} has the SSRC or RID of another one")));
            }
        }
    }
    check_rtx_ssrcs(&request.encodings)?;
    Ok(())
}

/// No stream's retransmissions have the SSRC of anything else of the producer.
fn check_rtx_ssrcs(encodings: &[Encoding]) -> Result<(), WorkerError> {
    for (index, encoding) in encodings.iter().enumerate() {
        let Some(rtx_ssrc) = encoding.rtx_ssrc else { continue };
        let is_taken = encodings.iter().any(|other| other.ssrc == Some(rtx_ssrc))
            || encodings[..index].iter().any(|other| other.rtx_ssrc == Some(rtx_ssrc));
        if is_taken {
            return Err(invalid(format!(
                "SSRC {rtx_ssrc}, of the retransmissions of encoding {index}, is another's too"
            )));
        }
    }
    Ok(())
}

/// `may_be_nameless`: something else than its own names leads to the producer.
fn check_encoding(encoding: &Encoding, simulcast: bool, may_be_nameless: bool) -> Result<(), WorkerError> {
    check_name("rid", encoding.rid.as_deref())?;
    // Differences §4: a lone encoding has no profile; among several, each has one.
    match (simulcast, encoding.profile) {
        (true, Profile::Default) => {
            return Err(invalid(
                "of several encodings each needs a profile: low, medium or high",
            ));
        }
        (false, Profile::Low | Profile::Medium | Profile::High) => {
            return Err(invalid("a single encoding carries no profile"));
        }
        _ => {}
    }
    if encoding.ssrc.is_none() && encoding.rid.is_none() && (simulcast || !may_be_nameless) {
        return Err(invalid(
            "an encoding needs an SSRC, a RID or (if it is the only one) the producer's MID or a plain transport",
        ));
    }
    Ok(())
}

pub(super) fn check_consumer(request: &CreateConsumer) -> Result<(), WorkerError> {
    if request.payload_types.is_empty() || request.payload_types.len() > CODECS_MAX {
        return Err(invalid(format!("a consumer has 1 to {CODECS_MAX} payload types")));
    }
    for (index, (source, own)) in request.payload_types.iter().enumerate() {
        check_payload_type(*source)?;
        check_payload_type(*own)?;
        let mut before = request.payload_types[..index].iter();
        if before.any(|other| other.0 == *source || other.1 == *own) {
            return Err(invalid(format!("payload type {source} or {own} is listed twice")));
        }
    }
    if let Some(rtx) = &request.rtx {
        check_consumer_rtx(request, rtx)?;
    }
    check_extensions(&request.header_extensions)
}

fn check_consumer_rtx(request: &CreateConsumer, rtx: &ConsumerRtx) -> Result<(), WorkerError> {
    if rtx.ssrc == request.ssrc {
        return Err(invalid(
            "retransmissions have an SSRC of their own, or there is no stream of them (RFC 4588 §5.3)",
        ));
    }
    if rtx.payload_types.len() > CODECS_MAX {
        return Err(invalid(format!(
            "a consumer has at most {CODECS_MAX} payload types of retransmissions"
        )));
    }
    for (index, (own, again)) in rtx.payload_types.iter().enumerate() {
        check_payload_type(*again)?;
        if !request.payload_types.iter().any(|(_, listed)| listed == own) {
            return Err(invalid(format!(
                "payload type {again} is of retransmissions of {own}, which is none of the consumer's"
            )));
        }
        let is_taken = request.payload_types.iter().any(|(_, listed)| listed == again)
            || rtx.payload_types[..index]
                .iter()
                .any(|other| other.0 == *own || other.1 == *again);
        if is_taken {
            return Err(invalid(format!(
                "payload type {again}, of retransmissions of {own}, is listed twice"
            )));
        }
    }
    Ok(())
}

/// RFC 5761 §4: with RTP and RTCP on one port, 64 to 95 would be taken for RTCP.
fn check_payload_type(payload_type: u8) -> Result<(), WorkerError> {
    if payload_type > 127 || (64..=95).contains(&payload_type) {
        return Err(invalid(format!(
            "payload type {payload_type} is not in 0..=63 or 96..=127 (RFC 5761 §4)"
        )));
    }
    Ok(())
}

fn check_extensions(extensions: &[HeaderExtension]) -> Result<(), WorkerError> {
    for (index, extension) in extensions.iter().enumerate() {
        if extension.id == 0 {
            return Err(invalid("header extension id 0 is not in 1..=255 (RFC 8285 §4.3)"));
        }
        let mut before = extensions[..index].iter();
        if before.any(|other| other.id == extension.id || other.uri == extension.uri) {
            let (id, uri) = (extension.id, extension.uri.uri());
            return Err(invalid(format!("header extension {id} ({uri}) is listed twice")));
        }
    }
    Ok(())
}

fn check_name(noun: &str, name: Option<&str>) -> Result<(), WorkerError> {
    match name {
        Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
            Err(invalid(format!("a {noun} has 1 to {NAME_BYTES_MAX} bytes")))
        }
        _ => Ok(()),
    }
}
