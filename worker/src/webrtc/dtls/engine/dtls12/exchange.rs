//! Ephemeral key exchange (RFC 8422).

use std::fmt;

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use p224::elliptic_curve::sec1::ToEncodedPoint as _;
use zeroize::Zeroizing;

use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::entropy::{Entropy as _, SystemEntropy};

/// A group that keys are exchanged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    X25519,
    P256,
    P384,
    P521,
    P224,
}

/// Of a private key over P-224, in bytes.
const P224_KEY_LEN: usize = 28;

impl Group {
    /// All of them, the one we like best first. OpenSSL takes the list for the curves that certificates may have, too (RFC 8422
    /// §5.1.1), and a server of its with a certificate over P-224 refuses a client that does not offer that curve. Nobody has been
    /// seen to choose it.
    pub(super) const ALL: [Self; 5] = [Self::X25519, Self::P256, Self::P384, Self::P521, Self::P224];

    /// As the IANA numbers it.
    pub(super) const fn id(self) -> u16 {
        match self {
            Self::X25519 => 29,
            Self::P256 => 23,
            Self::P384 => 24,
            Self::P521 => 25,
            Self::P224 => 21,
        }
    }

    pub(super) fn of_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.id() == id)
    }

    /// Aws-lc's; `None` if it is not in its bindings.
    fn algorithm(self) -> Option<&'static agreement::Algorithm> {
        match self {
            Self::X25519 => Some(&agreement::X25519),
            Self::P256 => Some(&agreement::ECDH_P256),
            Self::P384 => Some(&agreement::ECDH_P384),
            Self::P521 => Some(&agreement::ECDH_P521),
            Self::P224 => None,
        }
    }
}

/// Our half of an exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    private: Private,
    /// For the peer.
    pub(super) public: Vec<u8>,
}

enum Private {
    AwsLc(&'static agreement::Algorithm, EphemeralPrivateKey),
    P224(p224::SecretKey),
}

impl fmt::Debug for Private {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Private(..)")
    }
}

impl Exchange {
    pub(super) fn new(group: Group) -> Result<Self, Failure> {
        match group.algorithm() {
            Some(algorithm) => {
                let private = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new());
                let private = private.map_err(|_| Failure::Internal)?;
                let public = private.compute_public_key().map_err(|_| Failure::Internal)?;
                Ok(Self {
                    public: public.as_ref().to_vec(),
                    private: Private::AwsLc(algorithm, private),
                })
            }
            None => {
                let private = p224_key();
                Ok(Self {
                    public: private.public_key().to_encoded_point(false).as_bytes().to_vec(),
                    private: Private::P224(private),
                })
            }
        }
    }

    /// The secret that both sides come to.
    pub(super) fn agree(self, public: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        match self.private {
            Private::AwsLc(algorithm, private) => {
                let theirs = UnparsedPublicKey::new(algorithm, public);
                agree_ephemeral(private, theirs, Failure::Protocol, |secret| {
                    Ok(Zeroizing::new(secret.to_vec()))
                })
            }
            Private::P224(private) => {
                let theirs = p224::PublicKey::from_sec1_bytes(public).map_err(|_| Failure::Protocol)?;
                let secret = p224::ecdh::diffie_hellman(private.to_nonzero_scalar(), theirs.as_affine());
                Ok(Zeroizing::new(secret.raw_secret_bytes().to_vec()))
            }
        }
    }
}

fn p224_key() -> p224::SecretKey {
    let mut entropy = SystemEntropy::new();
    let mut bytes = Zeroizing::new([0; P224_KEY_LEN]);
    loop {
        entropy.fill(&mut *bytes);
        // Zero, and the few numbers from the order of the group on, are no keys.
        if let Ok(key) = p224::SecretKey::from_slice(&*bytes) {
            return key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_come_to_the_same_secret() {
        for group in Group::ALL {
            assert_eq!(Group::of_id(group.id()), Some(group));
            let (one, other) = (Exchange::new(group).unwrap(), Exchange::new(group).unwrap());
            let (ours, theirs) = (one.public.clone(), other.public.clone());
            assert_eq!(one.agree(&theirs), other.agree(&ours));
            for public in [&theirs[1..], &[0; 32], &[]] {
                assert_eq!(
                    Exchange::new(group).unwrap().agree(public),
                    Err(Failure::Protocol),
                    "{group:?}"
                );
            }
        }
    }
}
