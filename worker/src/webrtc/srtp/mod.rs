//! SRTP and SRTCP (RFC 3711, RFC 7714): the framing around the ciphers, for the keys of a DTLS handshake (RFC 5764).
//!
//! ```text
//!  SRTP    | header, CSRCs, extension | payload, padding | tag |
//!          |<------------------ authenticated --------->|
//!                                     |<-- encrypted --->|
//!
//!  SRTCP   | header, SSRC | reports … | tag | E + index |    the GCM profiles
//!          | header, SSRC | reports … | E + index | tag |    the SHA-1 profiles
//!          |<--------- authenticated, with E + index ---|
//!                         |<encrypted>|
//! ```
//!
//! [`KeyingMaterial::split`] makes of the handshake's bytes a [`MasterKey`] for each direction. [`Inbound`] unprotects what
//! comes from the peer, [`Outbound`] protects what goes to it; one of each per transport, with the state of all SSRCs inside.
//! Both work on the caller's bytes.
//!
//! # What holds
//!
//! - A packet is authenticated before anything is remembered of it; a forgery changes no state and takes no memory.
//! - No packet is taken twice ([`Inbound`]), and no index is used twice for protecting ([`Outbound`]): with the same nonce
//!   twice, GCM loses its authentication key and counter mode its plaintext.
//! - Any bytes are allowed as input; none panics.
//! - When an SSRC is known, its packets allocate nothing.
//! - Keys are wiped from memory when they are dropped, and tags are compared in constant time, by the crates that hold
//!   them.
//!
//! Deliberately absent: key derivation rates other than zero, MKI, `<From, To>`, the null cipher, SRTCP without
//! authentication. WebRTC uses none of them.

mod cipher;
mod counter;
mod derivation;
mod error;
mod header;
mod inbound;
mod index;
mod keys;
mod outbound;
mod profile;
mod window;

pub use error::{ProtectError, UnprotectError};
pub use inbound::{Inbound, Unprotected, WINDOWS_MAX};
pub use index::{INDEX_MAX, nearest};
pub use keys::{EXPORTER_LABEL, KeyingMaterial, MasterKey, Role};
pub use outbound::{IDENTICAL_WINDOW, Outbound, ProtectedTrain, Repeats, Spent, StreamKey};
pub use profile::Profile;
pub use window::WINDOW;
pub(in crate::webrtc) use window::{Verdict, Window};

/// Bytes from their digits.
#[cfg(test)]
fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2) && digits.is_ascii());
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
