//! STUN messages (RFC 8489) as ICE uses them: parsed without copying, written into a buffer that is used again.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |0 0|  message type (14 bits)   |   message length (no header)  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     magic cookie 0x2112a442                   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                     transaction id (96 bits)                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   attributes: type (16), length (16), value, padding to 32 bits
//! ```

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};
use thiserror::Error;

/// The header, in bytes.
pub const HEADER_LEN: usize = 20;

/// The longest message that is read. A check is a few hundred bytes, and has to fit one packet on every path (RFC 8489 §6.1).
pub const MESSAGE_BYTES_MAX: usize = 1_500;

/// The Binding method, the only one of ICE.
pub const BINDING: u16 = 0x001;

const COOKIE: u32 = 0x2112_a442;
const INTEGRITY_LEN: usize = 20;
const FINGERPRINT_LEN: usize = 4;

/// Unknown attributes that an error response names. More than one is rare, and the answer must stay short.
const UNKNOWN_MAX: usize = 4;

/// Attribute types (RFC 8489 §18.3, RFC 8445 §16.1). Those below 0x8000 must be understood.
pub mod attribute {
    /// Who asks whom: `<asked's ufrag>:<asking's ufrag>`.
    pub const USERNAME: u16 = 0x0006;
    /// HMAC-SHA1 of what stands before it.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// What is wrong, as a number and in words.
    pub const ERROR_CODE: u16 = 0x0009;
    /// Attributes that were not understood and should have been.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// HMAC-SHA256 of what stands before it. ICE does not use it, but a sender may add it.
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    /// Where the request came from.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// The priority that the asking side would give the pair's remote candidate.
    pub const PRIORITY: u16 = 0x0024;
    /// The controlling side nominates this pair.
    pub const USE_CANDIDATE: u16 = 0x0025;
    /// CRC-32 of what stands before it.
    pub const FINGERPRINT: u16 = 0x8028;
    /// The sender believes to be controlled.
    pub const ICE_CONTROLLED: u16 = 0x8029;
    /// The sender believes to be controlling.
    pub const ICE_CONTROLLING: u16 = 0x802a;
    /// How recent a nomination is, in Chromium (draft-thatcher-ice-renomination).
    pub const NOMINATION: u16 = 0xc001;
}

/// The class of a message (RFC 8489 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A request, which expects a response.
    Request,
    /// An indication, which expects no response.
    Indication,
    /// A success response.
    Success,
    /// An answer: not done, and why.
    Error,
}

/// What an answer repeats of its request.
pub type TransactionId = [u8; 12];

/// Why bytes are not a STUN message. Such bytes are dropped without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Malformed {
    /// Shorter than a header, or the first two bits or the cookie are not STUN's.
    #[error("not a STUN header")]
    Header,
    /// The length is not that of the datagram, or not a multiple of 4.
    #[error("a length that is not the datagram's")]
    Length,
    /// An attribute runs past the end, or is not as long as its type says.
    #[error("an attribute of the wrong length")]
    Attribute,
    /// The fingerprint is wrong, or something follows it.
    #[error("a wrong fingerprint")]
    Fingerprint,
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("longer than any message")]
    TooLong,
}

/// A message whose form is right. Whether its bytes are, [`Message::is_intact`] and [`Message::is_authentic`] say: both read all of it, so
/// they come after everything that costs less. Of attributes that occur twice the first counts; what follows the message integrity,
/// other than the fingerprint, does not count at all (RFC 8489 §14.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// The class.
    pub class: Class,
    /// The method; see [`BINDING`].
    pub method: u16,
    /// What ties an answer to a request.
    pub transaction: TransactionId,
    /// USERNAME.
    pub username: Option<&'a [u8]>,
    /// PRIORITY.
    pub priority: Option<u32>,
    /// USE-CANDIDATE.
    pub use_candidate: bool,
    /// ICE-CONTROLLED is there.
    pub controlled: bool,
    /// ICE-CONTROLLING is there.
    pub controlling: bool,
    /// How recent the nomination is.
    pub nomination: Option<u32>,
    /// Where FINGERPRINT begins.
    fingerprint: Option<usize>,
    /// Where MESSAGE-INTEGRITY begins.
    integrity: Option<usize>,
    unknown: [u16; UNKNOWN_MAX],
    unknown_len: usize,
}

impl<'a> Message<'a> {
    /// Reads a datagram. Neither the fingerprint nor the integrity is checked.
    ///
    /// # Errors
    ///
    /// The first reason found; see [`Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let Some((header, mut rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Header);
        };
        let kind = u16::from_be_bytes([header[0], header[1]]);
        if kind & 0xc000 != 0 || header[4..8] != COOKIE.to_be_bytes() {
            return Err(Malformed::Header);
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length % 4 != 0 || length != rest.len() {
            return Err(Malformed::Length);
        }
        let mut message = Self {
            bytes,
            class: match kind & 0x0110 {
                0x0000 => Class::Request,
                0x0010 => Class::Indication,
                0x0100 => Class::Success,
                _ => Class::Error,
            },
            method: kind & 0x000f | (kind & 0x00e0) >> 1 | (kind & 0x3e00) >> 2,
            transaction: {
                let mut transaction = [0; 12];
                transaction.copy_from_slice(&header[8..]);
                transaction
            },
            username: None,
            priority: None,
            use_candidate: false,
            controlled: false,
            controlling: false,
            nomination: None,
            fingerprint: None,
            integrity: None,
            unknown: [0; UNKNOWN_MAX],
            unknown_len: 0,
        };
        while let Some((head, after)) = rest.split_first_chunk::<4>() {
            if message.fingerprint.is_some() {
                return Err(Malformed::Fingerprint);
            }
            let at = bytes.len() - rest.len();
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (Some(value), Some(next)) = (after.get(..len), after.get(len.next_multiple_of(4)..)) else {
                return Err(Malformed::Attribute);
            };
            rest = next;
            message.take(kind, value, at)?;
        }
        Ok(message)
    }

    /// Takes one attribute, which begins at `at`.
    fn take(&mut self, kind: u16, value: &'a [u8], at: usize) -> Result<(), Malformed> {
        if kind == attribute::FINGERPRINT {
            if value.len() != FINGERPRINT_LEN {
                return Err(Malformed::Fingerprint);
            }
            self.fingerprint = Some(at);
            return Ok(());
        }
        if self.integrity.is_some() {
            return Ok(());
        }
        match kind {
            attribute::MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => self.integrity = Some(at),
            attribute::USERNAME => _ = self.username.get_or_insert(value),
            attribute::PRIORITY => _ = self.priority.get_or_insert(word(value)?),
            attribute::NOMINATION => _ = self.nomination.get_or_insert(word(value)?),
            attribute::USE_CANDIDATE if value.is_empty() => self.use_candidate = true,
            attribute::ICE_CONTROLLED if value.len() == 8 => self.controlled = true,
            attribute::ICE_CONTROLLING if value.len() == 8 => self.controlling = true,
            attribute::MESSAGE_INTEGRITY
            | attribute::USE_CANDIDATE
            | attribute::ICE_CONTROLLED
            | attribute::ICE_CONTROLLING => return Err(Malformed::Attribute),
            attribute::ERROR_CODE
            | attribute::UNKNOWN_ATTRIBUTES
            | attribute::MESSAGE_INTEGRITY_SHA256
            | attribute::XOR_MAPPED_ADDRESS
            | 0x8000.. => {}
            _ if self.unknown_len < UNKNOWN_MAX => {
                self.unknown[self.unknown_len] = kind;
                self.unknown_len += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether MESSAGE-INTEGRITY is there.
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether FINGERPRINT is there.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// Whether FINGERPRINT is there and right.
    pub fn is_intact(&self) -> bool {
        self.fingerprint.is_some_and(|at| {
            let expected = crc32(&self.bytes[..at]) ^ FINGERPRINT_XOR;
            self.bytes[at + 4..at + 4 + FINGERPRINT_LEN] == expected.to_be_bytes()
        })
    }

    /// Attributes that must be understood and are not; the first of them, if they are many.
    pub fn unknown(&self) -> &[u16] {
        &self.unknown[..self.unknown_len]
    }

    /// Whether MESSAGE-INTEGRITY was made with `key`. Takes as long for every wrong one.
    pub fn is_authentic(&self, key: &Key) -> bool {
        let Some(at) = self.integrity else {
            return false;
        };
        let end = at + 4 + INTEGRITY_LEN;
        let expected = integrity(key, &self.bytes[..at]);
        constant_time::verify_slices_are_equal(expected.as_ref(), &self.bytes[at + 4..end]).is_ok()
    }
}

/// The username that a datagram names, without looking at anything else: who it is for, before anybody has judged it.
pub fn username_of(datagram: &[u8]) -> Option<&[u8]> {
    let mut rest = datagram.get(HEADER_LEN..)?;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if u16::from_be_bytes([head[0], head[1]]) == attribute::USERNAME {
            return after.get(..len);
        }
        rest = after.get(len.next_multiple_of(4)..)?;
    }
    None
}

/// A value of 32 bits.
fn word(value: &[u8]) -> Result<u32, Malformed> {
    match value {
        &[a, b, c, d] => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(Malformed::Attribute),
    }
}

/// The key of a short-term credential (RFC 8489 §9.1.1): a password.
#[derive(Clone, Debug)]
pub struct Key(hmac::Key);

impl Key {
    /// The key of this password.
    pub fn new(password: &str) -> Self {
        // SHA-1 is what ICE has; as an HMAC it still holds.
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }
}

/// MESSAGE-INTEGRITY over `before`, a message without its end, as if it ended with that attribute (RFC 8489 §14.5).
fn integrity(key: &Key, before: &[u8]) -> hmac::Tag {
    let length = before.len() - HEADER_LEN + 4 + INTEGRITY_LEN;
    let mut context = hmac::Context::with_key(&key.0);
    context.update(&before[..2]);
    context.update(&(length as u16).to_be_bytes());
    context.update(&before[4..]);
    context.sign()
}

/// Writes one message. Attributes stand in the order of the calls.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Begins a message in `bytes`; what was there is gone.
    pub fn new(bytes: &'a mut Vec<u8>, class: Class, method: u16, transaction: TransactionId) -> Self {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let kind: u16 = class | method & 0x000f | (method & 0x0070) << 1 | (method & 0x0f80) << 2;
        bytes.clear();
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&COOKIE.to_be_bytes());
        bytes.extend_from_slice(&transaction);
        Self { bytes }
    }

    /// An attribute of at most 65,535 bytes less what stands before it; longer values are cut.
    pub fn attribute(self, kind: u16, value: &[u8]) -> Self {
        let capacity = usize::from(u16::MAX - 3).saturating_sub(self.bytes.len() + 4);
        let value = &value[..value.len().min(capacity)];
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = (self.bytes.len() - HEADER_LEN) as u16;
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
        self
    }

    /// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        let mut value = [0; 20];
        let mask: [u8; 16] = {
            let mut mask = [0; 16];
            mask.copy_from_slice(&self.bytes[4..HEADER_LEN]);
            mask
        };
        value[2..4].copy_from_slice(&(address.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
        let len = match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&ip.octets());
                8
            }
            IpAddr::V6(ip) => {
                value[1] = 2;
                value[4..20].copy_from_slice(&ip.octets());
                20
            }
        };
        for (byte, mask) in value[4..len].iter_mut().zip(mask) {
            *byte ^= mask;
        }
        self.attribute(attribute::XOR_MAPPED_ADDRESS, &value[..len])
    }

    /// ERROR-CODE (RFC 8489 §14.8), 300 to 699.
    pub fn error_code(self, code: u16, reason: &str) -> Self {
        let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
        value.extend_from_slice(reason.as_bytes());
        self.attribute(attribute::ERROR_CODE, &value)
    }

    /// UNKNOWN-ATTRIBUTES (RFC 8489 §14.9).
    pub fn unknown_attributes(self, unknown: &[u16]) -> Self {
        let value: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        self.attribute(attribute::UNKNOWN_ATTRIBUTES, &value)
    }

    /// MESSAGE-INTEGRITY.
    pub fn integrity(self, key: &Key) -> Self {
        let tag = integrity(key, self.bytes);
        self.attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref())
    }

    /// FINGERPRINT, which ends the message.
    pub fn fingerprint(self) -> &'a [u8] {
        let at = self.bytes.len();
        let written = self.attribute(attribute::FINGERPRINT, &[0; 4]);
        let sum = crc32(&written.bytes[..at]) ^ FINGERPRINT_XOR;
        written.bytes[at + 4..].copy_from_slice(&sum.to_be_bytes());
        written.bytes
    }
}

/// What tells a fingerprint from the CRC of an application that carries STUN (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// CRC-32 as in ITU V.42.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut sum = at as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
                bit += 1;
            }
            table[at] = sum;
            at += 1;
        }
        table
    };
    !bytes
        .iter()
        .fold(!0, |sum, byte| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests;
