//! Ephemeral key exchange (RFC 8422).

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use zeroize::Zeroizing;

use super::super::super::session::Failure;

/// A group that keys are exchanged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    X25519,
    P256,
    P384,
    P521,
}

impl Group {
    /// All of them, the one we like best first. Peers also take the list for the curves that certificates may have (RFC 8422
    /// §5.1.1), so it has more than an exchange needs.
    pub(super) const ALL: [Self; 4] = [Self::X25519, Self::P256, Self::P384, Self::P521];

    /// As the IANA numbers it.
    pub(super) const fn id(self) -> u16 {
        match self {
            Self::X25519 => 29,
            Self::P256 => 23,
            Self::P384 => 24,
            Self::P521 => 25,
        }
    }

    pub(super) fn of_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.id() == id)
    }

    fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::X25519 => &agreement::X25519,
            Self::P256 => &agreement::ECDH_P256,
            Self::P384 => &agreement::ECDH_P384,
            Self::P521 => &agreement::ECDH_P521,
        }
    }
}

/// Our half of an exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) group: Group,
    private: EphemeralPrivateKey,
    /// For the peer.
    pub(super) public: Vec<u8>,
}

impl Exchange {
    pub(super) fn new(group: Group) -> Result<Self, Failure> {
        let private =
            EphemeralPrivateKey::generate(group.algorithm(), &SystemRandom::new()).map_err(|_| Failure::Internal)?;
        let public = private.compute_public_key().map_err(|_| Failure::Internal)?;
        Ok(Self {
            group,
            private,
            public: public.as_ref().to_vec(),
        })
    }

    /// The secret that both sides come to.
    pub(super) fn agree(self, public: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let theirs = UnparsedPublicKey::new(self.group.algorithm(), public);
        agree_ephemeral(self.private, theirs, Failure::Protocol, |secret| {
            Ok(Zeroizing::new(secret.to_vec()))
        })
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
