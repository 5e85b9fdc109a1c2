//! A header extension under an id.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weir_channel::message::{ExtensionUri, HeaderExtension};

use super::Checked;
use super::json::HeaderExtensionJson;

/// The most bytes in a URI. The longest in use have a hundred.
const URI_BYTES_MAX: usize = 256;

/// RFC 8285 §4.3: ids of the two-byte form.
const ID_MAX: usize = 255;

/// A header extension under an id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", from = "HeaderExtensionJson")]
pub struct RtpHeaderExtension {
    /// The URI that says what it means, as in `a=extmap`.
    pub uri: String,
    /// 1..=255. Above 14, only packets in the two-byte form can carry it (RFC 8285 §4.3; `a=extmap-allow-mixed`).
    pub id: u8,
    /// Whether its value is encrypted (RFC 6904). Weir does not support this, because a relay could not read the value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypt: bool,
}

impl RtpHeaderExtension {
    /// An extension the worker knows, under an id.
    pub fn new(uri: ExtensionUri, id: u8) -> Self {
        Self {
            uri: uri.uri().to_owned(),
            id,
            encrypt: false,
        }
    }
}

/// Checks a list, and gives back those that the worker knows.
pub(crate) fn check_header_extensions(extensions: &[RtpHeaderExtension]) -> Checked<Vec<HeaderExtension>> {
    if extensions.len() > ID_MAX {
        return Err(format!("headerExtensions can list at most {ID_MAX}, one for each id"));
    }
    let mut ids = BTreeSet::new();
    let mut uris = BTreeSet::new();
    let mut known = Vec::new();
    for RtpHeaderExtension { uri, id, encrypt } in extensions {
        if uri.len() > URI_BYTES_MAX {
            return Err(format!(
                "the uri of a header extension can have at most {URI_BYTES_MAX} bytes, not {}",
                uri.len()
            ));
        }
        if *id == 0 {
            return Err(format!(
                "the id of header extension {uri} must be 1 to {ID_MAX} (RFC 8285 §4.3), not 0"
            ));
        }
        if *encrypt {
            return Err(format!(
                "header extension {uri} must not be encrypted (RFC 6904): that is not supported"
            ));
        }
        if !ids.insert(*id) {
            return Err(format!("header extension id {id} is used twice; give each its own"));
        }
        if !uris.insert(uri.to_ascii_lowercase()) {
            return Err(format!("header extension {uri} is listed twice"));
        }
        known.extend(extension_uri(uri).map(|uri| HeaderExtension { id: *id, uri }));
    }
    Ok(known)
}

/// The known extension with this URI. Schemes and hosts have no case, and senders differ in the rest (differences §5.7
/// lowers it as well).
pub(crate) fn extension_uri(uri: &str) -> Option<ExtensionUri> {
    ExtensionUri::ALL
        .into_iter()
        .find(|known| known.uri().eq_ignore_ascii_case(uri))
}
