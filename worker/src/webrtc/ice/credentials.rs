//! The username fragment and the password that a peer must know (RFC 8445 §5.3).

use std::fmt;

use thiserror::Error;

use crate::webrtc::entropy::Entropy;
use crate::webrtc::stun::Key;

/// Characters of a username fragment: 82 bits, and no two transports of a worker have the same.
pub const USERNAME_FRAGMENT_LEN: usize = 16;

/// Characters of a password: 165 bits; RFC 8445 §5.3 asks for 128.
pub const PASSWORD_LEN: usize = 32;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What a peer must know to have its checks answered. Printed for debugging, it keeps the password to itself.
#[derive(Clone)]
pub struct Credentials {
    username_fragment: String,
    password: String,
    key: Key,
}

/// Why strings are no credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum InvalidCredentials {
    /// Not 4 to 256 characters of RFC 8445 §5.3.
    #[error("a username fragment has 4 to 256 characters out of A-Z, a-z, 0-9, + and /")]
    UsernameFragment,
    /// Not 22 to 256 characters of RFC 8445 §5.3.
    #[error("a password has 22 to 256 characters out of A-Z, a-z, 0-9, + and /")]
    Password,
}

impl Credentials {
    /// New ones that nobody can guess.
    pub fn generate(entropy: &mut impl Entropy) -> Self {
        let username_fragment = random_text(entropy, USERNAME_FRAGMENT_LEN);
        let password = random_text(entropy, PASSWORD_LEN);
        let key = Key::new(&password);
        Self {
            username_fragment,
            password,
            key,
        }
    }

    /// Those that were generated before, for a transport that takes over from another.
    ///
    /// # Errors
    ///
    /// If one of the strings is not what RFC 8445 §5.3 allows.
    pub fn restore(username_fragment: &str, password: &str) -> Result<Self, InvalidCredentials> {
        let allowed = |text: &str, len_min: usize| {
            (len_min..=256).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        };
        if !allowed(username_fragment, 4) {
            return Err(InvalidCredentials::UsernameFragment);
        }
        if !allowed(password, 22) {
            return Err(InvalidCredentials::Password);
        }
        Ok(Self {
            username_fragment: username_fragment.to_owned(),
            password: password.to_owned(),
            key: Key::new(password),
        })
    }

    /// The username fragment, for the peer.
    pub fn username_fragment(&self) -> &str {
        &self.username_fragment
    }

    /// The password, for the peer.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The key of messages that are authenticated with the password.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether a USERNAME, `<our fragment>:<the peer's>`, is for these (RFC 8445 §7.2.2).
    pub fn are_named_by(&self, username: &[u8]) -> bool {
        username
            .strip_prefix(self.username_fragment.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b':'))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("username_fragment", &self.username_fragment)
            .finish_non_exhaustive()
    }
}

/// Text of `len` characters, each as likely as any other.
fn random_text(entropy: &mut impl Entropy, len: usize) -> String {
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        // 252 is the largest multiple of 36 that a byte holds; what lies beyond would favour the first characters.
        let fair = bytes.iter().filter(|byte| **byte < 252);
        text.extend(
            fair.map(|byte| char::from(ALPHABET[usize::from(byte % 36)]))
                .take(len - text.len()),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::entropy::{SeededEntropy, SystemEntropy};
    use std::collections::HashMap;

    #[test]
    fn generated_ones_have_the_form_that_clients_know() {
        let one = Credentials::generate(&mut SystemEntropy::new());
        let other = Credentials::generate(&mut SystemEntropy::new());
        for text in [one.username_fragment(), one.password()] {
            assert!(text.bytes().all(|byte| ALPHABET.contains(&byte)), "{text}");
        }
        assert_eq!(
            (one.username_fragment().len(), one.password().len()),
            (USERNAME_FRAGMENT_LEN, PASSWORD_LEN)
        );
        assert_ne!(one.username_fragment(), other.username_fragment());
        assert_ne!(one.password(), other.password());
        assert!(!format!("{one:?}").contains(one.password()));
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let text = random_text(&mut SeededEntropy(7), 36_000);
        let mut counts = HashMap::new();
        for character in text.chars() {
            *counts.entry(character).or_insert(0_u32) += 1;
        }
        // 1,000 each, with a standard deviation of 31.
        assert_eq!(counts.len(), 36);
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_username_names_ours_first() {
        let ours = Credentials::restore("abcd", "0123456789abcdefghijkl").unwrap();
        for (username, expected) in [
            (&b"abcd:xyz"[..], true),
            (b"abcd:", true),
            (b"abcd", false),
            (b"abcde:xyz", false),
            (b"xyz:abcd", false),
            (b"", false),
        ] {
            assert_eq!(ours.are_named_by(username), expected, "{username:?}");
        }
    }

    #[test]
    fn restored_ones_are_checked() {
        let password = "0123456789abcdefghij+/";
        assert!(Credentials::restore("aB0+", password).is_ok());
        let wrong = |ufrag: &str, password: &str| Credentials::restore(ufrag, password).err();
        let long = "a".repeat(257);
        for ufrag in ["", "abc", "ab:d", "abcd ", "äbcd", &long] {
            assert_eq!(wrong(ufrag, password), Some(InvalidCredentials::UsernameFragment));
        }
        for password in ["", "0123456789abcdefghijk", "0123456789abcdefghij:/", &long] {
            assert_eq!(wrong("abcd", password), Some(InvalidCredentials::Password));
        }
    }
}
