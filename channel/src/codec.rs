//! Messages to bytes and back: the only user of bincode.
//!
//! bincode 2.0.1, configured as little endian, variable-length integers, a claim limit, no trailing bytes. Another
//! codec is a change to this file, to [`crate::message::PROTOCOL_VERSION`] and to the golden bytes.
//!
//! What arrives may be hostile (a worker parses the network). bincode's defence is a running total of the bytes that the
//! *decoded* integers and strings claim, checked before each allocation; [`CLAIM_MAX`] bounds it. serde's own collections
//! reserve at most 1 MiB ahead of the elements that really arrive. Together they bound what a frame can cost; the test
//! `memory_is_bounded` measures it.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::error::DecodeError;

use crate::message::{Hello, Message, PROTOCOL_VERSION};

/// The longest encoded message, in bytes. Answers that could be longer are paged.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The most that the integers and strings of one message may claim, by their full width.
///
/// Not [`MESSAGE_BYTES_MAX`]: a small `u64` is one byte in the frame but claims its full eight, so that limit would refuse pages
/// of counters that fit a frame easily. Nothing in a message is wider than eight bytes, so this never refuses an
/// honest frame, and a length prefix that lies can claim no more than this.
pub const CLAIM_MAX: usize = 8 * MESSAGE_BYTES_MAX;

const CONFIG: Configuration<LittleEndian, Varint, Limit<CLAIM_MAX>> = bincode::config::standard()
    .with_little_endian()
    .with_variable_int_encoding()
    .with_limit::<CLAIM_MAX>();

/// Why bytes are not a message, or a message does not become bytes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes end inside the message.
    #[error("the message ends too early, after {len} bytes")]
    Truncated {
        /// How many bytes there were.
        len: usize,
    },
    /// The bytes go on after the message.
    #[error("the message ends after {used} of its {len} bytes")]
    Trailing {
        /// How many bytes the message takes.
        used: usize,
        /// How many bytes there were.
        len: usize,
    },
    /// A length in the message claims more than a frame can hold.
    #[error("the message claims more than {CLAIM_MAX} bytes")]
    ClaimsTooMuch,
    /// The bytes mean nothing: an unknown variant, text that is not UTF-8, and the like.
    #[error("not a message: {0}")]
    Garbage(String),
    /// The codec refused to encode. Cannot happen with the messages of this crate.
    #[error("the message cannot be encoded: {0}")]
    Unencodable(String),
}

/// Appends the encoded message to `out`.
///
/// # Errors
/// [`CodecError::Unencodable`]; `out` is then as it was.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    match bincode::serde::encode_into_std_write(message, out, CONFIG) {
        Ok(_) => Ok(()),
        Err(error) => {
            out.truncate(start);
            Err(CodecError::Unencodable(error.to_string()))
        }
    }
}

/// Decodes one message that fills `bytes` to the end.
///
/// # Errors
/// All of [`CodecError`] but [`CodecError::Unencodable`].
pub fn decode(bytes: &[u8]) -> Result<Message, CodecError> {
    let (message, used) = decode_prefix(bytes)?;
    if used == bytes.len() {
        Ok(message)
    } else {
        Err(CodecError::Trailing { used, len: bytes.len() })
    }
}

/// Decodes the first message of a channel, which may come from another version of the protocol.
///
/// The fields of [`Hello`] stay the first four for ever; a later version may only add to them. So a `Hello` that names
/// another version is read past what follows it, in order that the error can name both versions and builds.
///
/// # Errors
/// As [`decode`].
pub fn decode_first(bytes: &[u8]) -> Result<Message, CodecError> {
    let (message, used) = decode_prefix(bytes)?;
    match &message {
        Message::Hello(Hello { protocol, .. }) if *protocol != PROTOCOL_VERSION => Ok(message),
        _ if used == bytes.len() => Ok(message),
        _ => Err(CodecError::Trailing { used, len: bytes.len() }),
    }
}

fn decode_prefix(bytes: &[u8]) -> Result<(Message, usize), CodecError> {
    bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|error| match error {
        DecodeError::UnexpectedEnd { .. } => CodecError::Truncated { len: bytes.len() },
        DecodeError::LimitExceeded => CodecError::ClaimsTooMuch,
        DecodeError::Other(text) => CodecError::Garbage(text.to_owned()),
        DecodeError::OtherString(text) => CodecError::Garbage(text), // what serde says, a sentence
        other => CodecError::Garbage(other.to_string()),
    })
}
