//! A header extension, and the id it has in a room.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use weir_channel::message::{ExtensionUri, MediaKind, any_case_if_any};

/// A header extension that can be used for a kind of media.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", from = "ExtensionJson")]
pub struct RtpHeaderExtensionCapability {
    /// The kind of media that it is for; absent: both kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<MediaKind>,
    /// The URI that says what it means, as in `a=extmap`.
    pub uri: String,
    /// Its id in the room, 1 to 14.
    pub preferred_id: u8,
    /// Whether its value should be encrypted (RFC 6904); always `false` in a room.
    pub preferred_encrypt: bool,
}

/// A header extension that can be used for a kind of media.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExtensionJson {
    /// The kind of media that it is for; absent: both kinds.
    #[serde(default, deserialize_with = "any_case_if_any")]
    kind: Option<MediaKind>,
    /// The URI that says what it means, as in `a=extmap`.
    uri: String,
    /// Its id in the room, 1 to 14.
    preferred_id: u8,
    /// Whether its value should be encrypted (RFC 6904); always `false` in a room.
    #[serde(default)]
    preferred_encrypt: bool,
    /// Who sends it, which mediasoup 3 says; ignored.
    #[serde(rename = "direction")]
    #[schemars(with = "Option<String>")]
    _direction: Option<IgnoredAny>,
}

impl From<ExtensionJson> for RtpHeaderExtensionCapability {
    fn from(json: ExtensionJson) -> Self {
        Self {
            kind: json.kind,
            uri: json.uri,
            preferred_id: json.preferred_id,
            preferred_encrypt: json.preferred_encrypt,
        }
    }
}

impl RtpHeaderExtensionCapability {
    /// An extension the worker knows.
    pub fn new(kind: MediaKind, uri: ExtensionUri, preferred_id: u8) -> Self {
        Self {
            kind: Some(kind),
            uri: uri.uri().to_owned(),
            preferred_id,
            preferred_encrypt: false,
        }
    }

    /// Whether both are the same extension, and for a kind in common.
    pub(super) fn matches(&self, other: &Self) -> bool {
        let kinds = match (self.kind, other.kind) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        kinds && self.uri.eq_ignore_ascii_case(&other.uri)
    }

    pub(super) fn is_for(&self, kind: MediaKind) -> bool {
        self.kind.is_none_or(|own| own == kind)
    }
}

/// A list of header extensions, as URIs.
pub(crate) mod extension_uris {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use weir_channel::message::ExtensionUri;

    use crate::server::model::rtp_parameters::extension_uri;

    pub(crate) fn serialize<S: Serializer>(
        wanted: &Option<Vec<ExtensionUri>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let uris = wanted.as_ref().map(|wanted| wanted.iter().map(|uri| uri.uri()));
        uris.map(Vec::from_iter).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Vec<ExtensionUri>>, D::Error> {
        let Some(uris) = Option::<Vec<String>>::deserialize(reader)? else {
            return Ok(None);
        };
        let known = uris.iter().map(|uri| {
            extension_uri(uri)
                .ok_or_else(|| D::Error::custom(format!("{uri:?} is not a header extension that Weir relays")))
        });
        known.collect::<Result<_, _>>().map(Some)
    }
}
