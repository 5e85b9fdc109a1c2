//! An offer of AES in counter mode alone, which the DTLS library cannot be asked for.
//!
//! It offers every protection profile that it knows, and whoever may choose takes AES-GCM. So the offer is changed on its way
//! to the wire, and changed in the same way wherever the client hashes or signs what it has said: the server reads, hashes
//! and verifies an offer of one profile, and the handshake is whole.

use std::borrow::Cow;

use dimpl::CryptoError;
use dimpl::crypto::aws_lc_rs::default_provider;
use dimpl::crypto::{
    Buf, CryptoProvider, HashAlgorithm, HashContext, HashProvider, KeyProvider, SignatureAlgorithm, SigningKey,
};

/// The extension use_srtp (RFC 5764 §4.1.1) as the library writes it: three profiles, of which counter mode is the last, and no MKI.
const OFFERED: [u8; 13] = [0, 14, 0, 9, 0, 6, 0, 8, 0, 7, 0, 1, 0];

/// Counter mode three times over.
const COUNTER_MODE: [u8; 13] = [0, 14, 0, 9, 0, 6, 0, 1, 0, 1, 0, 1, 0];

/// A ClientHello comes first in whatever it is in, and is not longer.
const CLIENT_HELLO_MAX: usize = 1_000;

/// `bytes`, be it a datagram or all that was said so far, with another offer if there is one in it.
pub(super) fn of_counter_mode(bytes: &[u8]) -> Cow<'_, [u8]> {
    let places = bytes.windows(OFFERED.len()).take(CLIENT_HELLO_MAX);
    match places.into_iter().position(|place| place == OFFERED) {
        None => Cow::Borrowed(bytes),
        Some(at) => {
            let mut changed = bytes.to_vec();
            changed[at..at + COUNTER_MODE.len()].copy_from_slice(&COUNTER_MODE);
            Cow::Owned(changed)
        }
    }
}

/// The library's own cryptography, for a client whose datagrams go through [`of_counter_mode`].
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        hash_provider: &Hashes,
        key_provider: &Keys,
        ..default_provider()
    }
}

#[derive(Debug)]
struct Hashes;

impl HashProvider for Hashes {
    fn create_hash(&self, algorithm: HashAlgorithm) -> Box<dyn HashContext> {
        Box::new(Hash(default_provider().hash_provider.create_hash(algorithm)))
    }
}

#[derive(Debug)]
struct Hash(Box<dyn HashContext>);

impl HashContext for Hash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(&of_counter_mode(data));
    }

    fn clone_and_finalize(&self, out: &mut Buf) {
        self.0.clone_and_finalize(out);
    }
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key_der: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        Ok(Box::new(Key(default_provider()
            .key_provider
            .load_private_key(key_der)?)))
    }
}

#[derive(Debug)]
struct Key(Box<dyn SigningKey>);

impl SigningKey for Key {
    fn sign(&mut self, data: &[u8], hash_alg: HashAlgorithm, out: &mut Buf) -> Result<(), CryptoError> {
        self.0.sign(&of_counter_mode(data), hash_alg, out)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.0.hash_algorithm()
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        self.0.supported_hash_algorithms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_offer_changes() {
        let hello = [&[22, 254, 253][..], &OFFERED, &[0, 23]].concat();
        let changed = of_counter_mode(&hello);
        assert_eq!(changed[..3], hello[..3]);
        assert_eq!(changed[3..16], COUNTER_MODE);
        assert_eq!(changed[16..], hello[16..]);
        assert!(
            matches!(of_counter_mode(&changed), Cow::Borrowed(_)),
            "it is so already"
        );
        assert!(matches!(of_counter_mode(&hello[..15]), Cow::Borrowed(_)), "half of one");
        assert!(matches!(of_counter_mode(&[]), Cow::Borrowed(_)));
    }
}
