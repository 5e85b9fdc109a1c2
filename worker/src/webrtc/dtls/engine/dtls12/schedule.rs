//! Keys out of the exchange's secret (RFC 5246 §8.1, RFC 7627, RFC 5705).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::tls_prf::Secret;
use zeroize::Zeroizing;

use super::message::{RANDOM_LEN, VERIFY_DATA_LEN};
use super::suite::{Cipher, Suite};
use crate::webrtc::dtls::Role;
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::srtp::{EXPORTER_LABEL, KeyingMaterial, Profile};

/// Of a master secret, in bytes.
const MASTER_SECRET_LEN: usize = 48;

/// The randoms of both hellos.
#[derive(Clone, Copy, Debug)]
pub(super) struct Randoms {
    pub(super) client: [u8; RANDOM_LEN],
    pub(super) server: [u8; RANDOM_LEN],
}

/// What everything else is derived from.
pub(super) struct MasterSecret {
    suite: &'static Suite,
    randoms: Randoms,
    secret: Zeroizing<Vec<u8>>,
}

impl MasterSecret {
    /// Out of the exchange's secret: bound to the transcript up to the client's half of the exchange (RFC 7627 §4) if both sides know
    /// how, else to the randoms alone.
    pub(super) fn new(
        suite: &'static Suite,
        randoms: Randoms,
        premaster: &[u8],
        extended_by: Option<&[u8]>,
    ) -> Result<Self, Failure> {
        let secret = match extended_by {
            Some(transcript) => {
                let hash = digest::digest(suite.hash, transcript);
                derive(
                    suite,
                    premaster,
                    b"extended master secret",
                    &[hash.as_ref()],
                    MASTER_SECRET_LEN,
                )
            }
            None => {
                let seed: [&[u8]; 2] = [&randoms.client, &randoms.server];
                derive(suite, premaster, b"master secret", &seed, MASTER_SECRET_LEN)
            }
        }?;
        Ok(Self { suite, randoms, secret })
    }

    fn derive(&self, label: &[u8], seed: &[&[u8]], len: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
        derive(self.suite, &self.secret, label, seed, len)
    }

    /// The client's cipher and the server's.
    pub(super) fn ciphers(&self) -> Result<(Cipher, Cipher), Failure> {
        let seed: [&[u8]; 2] = [&self.randoms.server, &self.randoms.client];
        let block = self.derive(b"key expansion", &seed, self.suite.key_block_len())?;
        self.suite.ciphers(&block).ok_or(Failure::Internal)
    }

    /// What one side says to have finished, after this transcript (RFC 5246 §7.4.9).
    pub(super) fn verify_data(&self, side: Role, transcript: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let label: &[u8] = match side {
            Role::Client => b"client finished",
            Role::Server => b"server finished",
        };
        let hash = digest::digest(self.suite.hash, transcript);
        self.derive(label, &[hash.as_ref()], VERIFY_DATA_LEN)
    }

    /// The keys of a profile.
    pub(super) fn srtp_keys(&self, profile: Profile, local: Role) -> Result<KeyingMaterial, Failure> {
        let seed: [&[u8]; 2] = [&self.randoms.client, &self.randoms.server];
        let material = self.derive(EXPORTER_LABEL.as_bytes(), &seed, profile.keying_material_len())?;
        KeyingMaterial::split(profile, &material, local).ok_or(Failure::Internal)
    }
}

impl fmt::Debug for MasterSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterSecret(..)")
    }
}

/// The pseudorandom function (RFC 5246 §5).
fn derive(
    suite: &Suite,
    secret: &[u8],
    label: &[u8],
    seed: &[&[u8]],
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let derived = Secret::new(suite.prf, secret)
        .and_then(|secret| secret.derive(label, &seed.concat(), len))
        .map_err(|_| Failure::Internal)?;
    Ok(Zeroizing::new(derived.as_ref().to_vec()))
}
