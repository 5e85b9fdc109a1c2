//! Parameters and capabilities as clients write them.
//!
//! The library and the HTTP interface refuse members they do not know, so that a typo is not taken for a default. A browser
//! cannot be asked to mend its messages, and newer ones say more than older ones: in what clients of the mediasoup protocol
//! send, members that are not known, and those that are null, are left out before it is read.

use serde_json::{Map, Value};

/// What a member holds.
#[derive(Clone, Copy)]
enum Shape {
    /// Read as it is.
    Anything,
    /// An object with these members.
    Object(&'static [(&'static str, Shape)]),
    /// A list of such.
    List(&'static Shape),
}

use Shape::{Anything, List, Object};

const FEEDBACK: Shape = Object(&[("type", Anything), ("parameter", Anything)]);

/// `RtpParameters`.
const PARAMETERS: Shape = Object(&[
    ("muxId", Anything),
    (
        "codecs",
        List(&Object(&[
            ("name", Anything),
            ("mimeType", Anything),
            ("payloadType", Anything),
            ("clockRate", Anything),
            ("channels", Anything),
            ("parameters", Anything),
            ("rtcpFeedback", List(&FEEDBACK)),
        ])),
    ),
    (
        "headerExtensions",
        List(&Object(&[("uri", Anything), ("id", Anything), ("encrypt", Anything)])),
    ),
    (
        "encodings",
        List(&Object(&[
            ("ssrc", Anything),
            ("rtx", Object(&[("ssrc", Anything)])),
            ("encodingId", Anything),
            ("profile", Anything),
            ("codecPayloadType", Anything),
        ])),
    ),
    (
        "rtcp",
        Object(&[("cname", Anything), ("reducedSize", Anything), ("mux", Anything)]),
    ),
]);

/// `RtpCapabilities`.
const CAPABILITIES: Shape = Object(&[
    (
        "codecs",
        List(&Object(&[
            ("kind", Anything),
            ("name", Anything),
            ("mimeType", Anything),
            ("preferredPayloadType", Anything),
            ("clockRate", Anything),
            ("channels", Anything),
            ("parameters", Anything),
            ("rtcpFeedback", List(&FEEDBACK)),
        ])),
    ),
    (
        "headerExtensions",
        List(&Object(&[
            ("kind", Anything),
            ("uri", Anything),
            ("preferredId", Anything),
            ("preferredEncrypt", Anything),
        ])),
    ),
    ("fecMechanisms", Anything),
]);

/// The RTP parameters that a client sent, without what is not known.
pub(crate) fn known_parameters(value: Value) -> Value {
    keep(value, PARAMETERS)
}

/// The RTP capabilities that a client sent, without what is not known.
pub(crate) fn known_capabilities(value: Value) -> Value {
    keep(value, CAPABILITIES)
}

fn keep(value: Value, shape: Shape) -> Value {
    match (shape, value) {
        (Object(members), Value::Object(mut object)) => {
            let known = members.iter().filter_map(|(name, shape)| {
                let (name, value) = object.remove_entry(*name)?;
                (!value.is_null()).then(|| (name, keep(value, *shape)))
            });
            Value::Object(known.collect::<Map<String, Value>>())
        }
        (List(each), Value::Array(values)) => values.into_iter().map(|value| keep(value, *each)).collect(),
        (_, other) => other,
    }
}
