//! Offers and answers (RFC 3264) in SDP (RFC 8866), as far as one transport of WebRTC needs them: what WHIP and WHEP carry.
//!
//! The grammar is `sdp-types`'; what the attributes mean is read here. An [`Offer`] is what a client says of itself: how to
//! reach it, its certificate, and its media sections, with codecs and streams in the types that producers and consumers are made
//! with. An [`Answer`] is what it is told. A [`Fragment`] is what comes or goes later (RFC 8840).
//!
//! All of this is pure, and every byte of an offer is a stranger's: what can be said at most is bounded, what makes no sense is
//! refused in a sentence ([`SdpError`]), and what nobody here knows is passed over, as RFC 8866 §5 wants. Candidates of clients
//! are passed over, too: a transport answers checks from wherever they come.

mod answer;
mod fragment;
mod media;
mod offer;
#[cfg(test)]
mod tests;

pub use self::answer::{Answer, AnsweredMedia, AnsweredStream};
pub use self::fragment::{FRAGMENT_BYTES_MAX, Fragment};
pub use self::media::{MediaDirection, OfferedMedia, RtpSection};
pub use self::offer::{IceClient, OFFER_BYTES_MAX, Offer};

/// Why SDP is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SdpError {
    /// It is not SDP, or contradicts itself.
    #[error("{0}")]
    Malformed(String),
    /// It is right, but asks for what cannot be had here.
    #[error("{0}")]
    Unsupported(String),
}

fn malformed<T>(message: impl Into<String>) -> Result<T, SdpError> {
    Err(SdpError::Malformed(message.into()))
}

fn unsupported<T>(message: impl Into<String>) -> Result<T, SdpError> {
    Err(SdpError::Unsupported(message.into()))
}

/// The beginning of what a stranger has said, as long as it needs to be recognised.
fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    text.chars().take(CHARACTERS_MAX).collect()
}

/// The values of all attributes of a name, in their order; empty for those that have none.
fn values<'a>(attributes: &'a [sdp_types::Attribute], name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = attributes.iter().filter(move |attribute| attribute.attribute == name);
    named.map(|attribute| attribute.value.as_deref().unwrap_or_default().trim())
}

/// The value of the first attribute of a name.
fn value<'a>(attributes: &'a [sdp_types::Attribute], name: &'a str) -> Option<&'a str> {
    values(attributes, name).next()
}

fn has(attributes: &[sdp_types::Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.attribute == name)
}
