//! Cipher suites: ephemeral keys and authenticated encryption only.

use std::fmt;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, tls_prf};

use super::wire::DTLS_1_2;
use crate::webrtc::dtls::signature::KeyKind;

/// How records are protected, how keys are derived, and by what kind of key the server proves itself.
#[derive(Debug)]
pub(super) struct Suite {
    /// As the IANA numbers it.
    pub(super) id: u16,
    /// Of the server's certificate.
    pub(super) key: KeyKind,
    aead: &'static aead::Algorithm,
    /// Of the transcript.
    pub(super) hash: &'static digest::Algorithm,
    pub(super) prf: &'static tls_prf::Algorithm,
}

/// All of them, the one we like best first. RFC 8827 §6.5 wants the first; the others are those of RFC 8422 and RFC 7905 that RFC
/// 7525 recommends.
pub(super) static SUITES: [Suite; 6] = [
    Suite::new(0xc02b, KeyKind::Ec, &aead::AES_128_GCM, SHA256),
    Suite::new(0xc02c, KeyKind::Ec, &aead::AES_256_GCM, SHA384),
    Suite::new(0xcca9, KeyKind::Ec, &aead::CHACHA20_POLY1305, SHA256),
    Suite::new(0xc02f, KeyKind::Rsa, &aead::AES_128_GCM, SHA256),
    Suite::new(0xc030, KeyKind::Rsa, &aead::AES_256_GCM, SHA384),
    Suite::new(0xcca8, KeyKind::Rsa, &aead::CHACHA20_POLY1305, SHA256),
];

/// A hash function, and the pseudorandom function that is made of it (RFC 5246 §5).
type Hash = (&'static digest::Algorithm, &'static tls_prf::Algorithm);

const SHA256: Hash = (&digest::SHA256, &tls_prf::P_SHA256);
const SHA384: Hash = (&digest::SHA384, &tls_prf::P_SHA384);

impl Suite {
    const fn new(id: u16, key: KeyKind, aead: &'static aead::Algorithm, (hash, prf): Hash) -> Self {
        Self {
            id,
            key,
            aead,
            hash,
            prf,
        }
    }

    /// ChaCha20-Poly1305 takes its nonce from the record's number alone (RFC 7905 §2).
    fn has_explicit_nonce(&self) -> bool {
        self.aead != &aead::CHACHA20_POLY1305
    }

    fn salt_len(&self) -> usize {
        if self.has_explicit_nonce() { 4 } else { 12 }
    }

    /// What the key derivation must yield for both directions, in bytes.
    pub(super) fn key_block_len(&self) -> usize {
        2 * (self.aead.key_len() + self.salt_len())
    }

    /// The client's cipher and the server's (RFC 5246 §6.3). `None` if the block has not the right length.
    pub(super) fn ciphers(&self, block: &[u8]) -> Option<(Cipher, Cipher)> {
        if block.len() != self.key_block_len() {
            return None;
        }
        let (keys, salts) = block.split_at(2 * self.aead.key_len());
        let (client, server) = keys.split_at(self.aead.key_len());
        let (client_salt, server_salt) = salts.split_at(self.salt_len());
        Some((self.cipher(client, client_salt)?, self.cipher(server, server_salt)?))
    }

    fn cipher(&self, key: &[u8], salt: &[u8]) -> Option<Cipher> {
        let mut nonce = [0; aead::NONCE_LEN];
        nonce[..salt.len()].copy_from_slice(salt);
        Some(Cipher {
            key: LessSafeKey::new(UnboundKey::new(self.aead, key).ok()?),
            nonce,
            explicit_nonce: self.has_explicit_nonce(),
        })
    }
}

/// Protects the records of one direction.
pub(super) struct Cipher {
    key: LessSafeKey,
    /// What all nonces begin with, or are made of.
    nonce: [u8; aead::NONCE_LEN],
    explicit_nonce: bool,
}

/// Of the part of a nonce that is in the record.
const EXPLICIT_NONCE_LEN: usize = 8;

impl Cipher {
    pub(super) fn overhead(&self) -> usize {
        self.key.algorithm().tag_len() + if self.explicit_nonce { EXPLICIT_NONCE_LEN } else { 0 }
    }

    fn nonce(&self, number: &[u8; 8]) -> Nonce {
        let mut nonce = self.nonce;
        for (byte, number) in nonce[4..].iter_mut().zip(number) {
            // The salt of a suite with an explicit nonce ends where the number begins, so there are zeros here.
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// RFC 5246 §6.2.3.3.
    fn associated_data(content: u8, number: &[u8; 8], len: usize) -> Aad<[u8; 13]> {
        let mut data = [0; 13];
        data[..8].copy_from_slice(number);
        data[8] = content;
        data[9..11].copy_from_slice(&DTLS_1_2);
        data[11..].copy_from_slice(&(len as u16).to_be_bytes());
        Aad::from(data)
    }

    /// Appends the protected fragment. A record's number is its nonce, so no two may have the same. Says whether it did.
    pub(super) fn protect(&self, content: u8, number: &[u8; 8], plain: &[u8], out: &mut Vec<u8>) -> bool {
        if self.explicit_nonce {
            out.extend_from_slice(number);
        }
        let start = out.len();
        out.extend_from_slice(plain);
        let data = Self::associated_data(content, number, plain.len());
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(number), data, &mut out[start..]);
        if let Ok(tag) = &tag {
            out.extend_from_slice(tag.as_ref());
        }
        tag.is_ok()
    }

    /// What was protected, if it was by the peer.
    pub(super) fn unprotect(&self, content: u8, number: &[u8; 8], fragment: &[u8]) -> Option<Vec<u8>> {
        let len = fragment.len().checked_sub(self.overhead())?;
        let (explicit, protected) = fragment.split_at(if self.explicit_nonce { EXPLICIT_NONCE_LEN } else { 0 });
        // The peer chooses its explicit nonce, which need not be the record's number (RFC 5288 §3).
        let nonce = self.nonce(explicit.try_into().as_ref().unwrap_or(number));
        let mut unprotected = protected.to_vec();
        let data = Self::associated_data(content, number, len);
        self.key.open_in_place(nonce, data, &mut unprotected).ok()?;
        unprotected.truncate(len);
        Some(unprotected)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Cipher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_protected_is_unprotected_and_nothing_else() {
        for suite in &SUITES {
            let block: Vec<u8> = (0..suite.key_block_len()).map(|byte| byte as u8).collect();
            let (client, server) = suite.ciphers(&block).unwrap();
            let number = [0, 1, 0, 0, 0, 0, 0, 9];
            let mut protected = Vec::new();
            assert!(client.protect(22, &number, b"finished", &mut protected));
            assert_eq!(protected.len(), 8 + client.overhead());
            assert_eq!(
                client.unprotect(22, &number, &protected).as_deref(),
                Some(&b"finished"[..])
            );
            assert_eq!(server.unprotect(22, &number, &protected), None);
            assert_eq!(client.unprotect(21, &number, &protected), None);
            assert_eq!(client.unprotect(22, &[0, 1, 0, 0, 0, 0, 0, 8], &protected), None);
            for len in 0..protected.len() {
                assert_eq!(client.unprotect(22, &number, &protected[..len]), None);
            }
            for at in 0..protected.len() {
                let mut damaged = protected.clone();
                damaged[at] ^= 1;
                assert_eq!(client.unprotect(22, &number, &damaged), None);
            }
            assert!(suite.ciphers(&block[1..]).is_none());
        }
    }
}
