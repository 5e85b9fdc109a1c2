//! Our own certificate: self-signed and made when the server starts, or read from files.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SerialNumber};
use thiserror::Error;
use weir_channel::message::FingerprintAlgorithm;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use crate::webrtc::entropy::Entropy;

use super::fingerprint::Fingerprint;
use super::signature::Signer;

/// A certificate and its private key. Printed for debugging, it keeps the key to itself.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
    signer: Arc<Signer>,
    fingerprints: [Fingerprint; 5],
}

/// Why a certificate cannot be used, or could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum InvalidCertificate {
    /// No `CERTIFICATE` in the PEM text, or not one that can be read.
    #[error("the PEM text has no readable certificate")]
    Certificate,
    /// No private key in the PEM text, or not one that can be read.
    #[error("the PEM text has no readable private key")]
    PrivateKey,
    /// The key is not one of ECDSA over P-256 or P-384, nor RSA.
    #[error("the private key is neither an ECDSA key over P-256 or P-384 nor an RSA key")]
    UnsupportedKey,
    /// The certificate is for another key.
    #[error("the certificate belongs to another private key")]
    KeyMismatch,
    /// The cryptographic library refused to make one.
    #[error("the certificate could not be made")]
    Generation,
}

/// Peers compare fingerprints and do not look at dates; these are for those that do. The first day is for their clocks.
const VALID_BEFORE: Duration = Duration::from_secs(24 * 3_600);
const VALID_AFTER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// What PEM calls private keys: PKCS #8, SEC 1 and PKCS #1.
const PRIVATE_KEY_TAGS: [&str; 3] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];

impl Certificate {
    /// A self-signed one with a new ECDSA key over P-256. `now` is the time of day, since the Unix epoch.
    ///
    /// # Errors
    ///
    /// If the cryptographic library fails, for lack of memory for instance.
    pub fn generate(entropy: &mut impl Entropy, now: Duration) -> Result<Self, InvalidCertificate> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| InvalidCertificate::Generation)?;
        let mut parameters = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "WebRTC");
        parameters.distinguished_name = name;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        parameters.not_before = epoch + now.saturating_sub(VALID_BEFORE);
        parameters.not_after = epoch + now + VALID_AFTER;
        // Firefox refuses a certificate with the issuer and serial number of another that it has seen. RFC 5280 §4.1.2.2:
        // positive, and at most 20 bytes.
        let mut serial = [0; 16];
        entropy.fill(&mut serial);
        serial[0] = serial[0] & 0x7f | 0x40;
        parameters.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = parameters
            .self_signed(&key)
            .map_err(|_| InvalidCertificate::Generation)?;
        let signer = Signer::read(key.serialized_der()).ok_or(InvalidCertificate::Generation)?;
        Ok(Self::new(certificate.der().to_vec(), key.serialize_der(), signer))
    }

    /// A new one, as the PEM texts of the certificate and its private key (PKCS #8), for processes that are to show the same.
    ///
    /// # Errors
    ///
    /// As [`Certificate::generate`].
    pub fn generate_pem(entropy: &mut impl Entropy, now: Duration) -> Result<(String, String), InvalidCertificate> {
        let made = Self::generate(entropy, now)?;
        Ok((to_pem(&made.der), tagged("PRIVATE KEY", &made.private_key)))
    }

    /// The first certificate of one PEM text, with the private key of another, which may be the same text.
    ///
    /// # Errors
    ///
    /// If one of them is missing, if the key is of a kind that we do not sign with, or if they do not belong together.
    pub fn from_pem(certificate: &str, private_key: &str) -> Result<Self, InvalidCertificate> {
        let der = find_pem(certificate, &["CERTIFICATE"]).ok_or(InvalidCertificate::Certificate)?;
        let private_key = find_pem(private_key, &PRIVATE_KEY_TAGS).ok_or(InvalidCertificate::PrivateKey)?;
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|_| InvalidCertificate::Certificate)?;
        let Some(signer) = Signer::read(&private_key) else {
            // Another kind of key, or none at all?
            return Err(match KeyPair::try_from(&private_key[..]) {
                Ok(_) => InvalidCertificate::UnsupportedKey,
                Err(_) => InvalidCertificate::PrivateKey,
            });
        };
        let public_key = &parsed.tbs_certificate().subject_public_key_info().subject_public_key;
        if public_key.raw_bytes() != signer.public_key() {
            return Err(InvalidCertificate::KeyMismatch);
        }
        Ok(Self::new(der, private_key, signer))
    }

    fn new(der: Vec<u8>, private_key: Vec<u8>, signer: Signer) -> Self {
        let fingerprints = FingerprintAlgorithm::ALL.map(|algorithm| Fingerprint::of(algorithm, &der));
        Self {
            der,
            private_key: Zeroizing::new(private_key),
            signer: Arc::new(signer),
            fingerprints,
        }
    }

    /// With other bytes in place of the certificate, as a peer may have that lies or is broken. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn showing(self, der: Vec<u8>) -> Self {
        Self {
            fingerprints: FingerprintAlgorithm::ALL.map(|algorithm| Fingerprint::of(algorithm, &der)),
            der,
            ..self
        }
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its fingerprints, weakest first, for the signalling.
    pub fn fingerprints(&self) -> &[Fingerprint] {
        &self.fingerprints
    }

    /// Its private key in DER: PKCS #8, SEC 1 or PKCS #1.
    pub(super) fn private_key(&self) -> &[u8] {
        &self.private_key
    }

    /// What signs with it.
    pub(super) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Certificate")
            .field("fingerprint", &self.fingerprints[2])
            .finish_non_exhaustive()
    }
}

/// The contents of the first block with one of the tags.
fn find_pem(text: &str, tags: &[&str]) -> Option<Vec<u8>> {
    pem::parse_many(text)
        .ok()?
        .into_iter()
        .find(|block| tags.contains(&block.tag()))
        .map(pem::Pem::into_contents)
}

/// A certificate in DER as PEM text, with line feeds.
pub fn to_pem(der: &[u8]) -> String {
    tagged("CERTIFICATE", der)
}

fn tagged(tag: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::entropy::SeededEntropy;
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

    const NOW: Duration = Duration::from_secs(1_795_000_000);

    fn generate(seed: u64) -> Certificate {
        Certificate::generate(&mut SeededEntropy(seed), NOW).unwrap()
    }

    #[test]
    fn a_generated_one_is_what_peers_expect() {
        let certificate = generate(1);
        let parsed = x509_cert::Certificate::from_der(certificate.der()).unwrap();
        let tbs = parsed.tbs_certificate();
        let serial = tbs.serial_number().as_bytes();
        assert_eq!(serial.len(), 16);
        assert_eq!(serial[0] & 0xc0, 0x40, "positive, and of full length");
        let validity = tbs.validity();
        assert_eq!(validity.not_before.to_unix_duration(), NOW - VALID_BEFORE);
        assert_eq!(validity.not_after.to_unix_duration(), NOW + VALID_AFTER);
        assert_eq!(tbs.issuer(), tbs.subject());
        let algorithms: Vec<_> = certificate.fingerprints().iter().map(Fingerprint::algorithm).collect();
        assert_eq!(algorithms, FingerprintAlgorithm::ALL);
        assert!(
            certificate
                .fingerprints()
                .iter()
                .all(|fingerprint| fingerprint.matches(certificate.der()))
        );
        let other = generate(2);
        assert_ne!(other.der(), certificate.der());
        assert_ne!(
            x509_cert::Certificate::from_der(other.der())
                .unwrap()
                .tbs_certificate()
                .serial_number(),
            tbs.serial_number()
        );
    }

    fn signed(key: &KeyPair) -> String {
        CertificateParams::default().self_signed(key).unwrap().pem()
    }

    #[test]
    fn certificates_from_files() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let (certificate, private_key) = (signed(&key), key.serialize_pem());
            let read = Certificate::from_pem(&certificate, &private_key).unwrap();
            assert_eq!(to_pem(read.der()), certificate.replace("\r\n", "\n"));
            // Both in one file, in any order, and with a chain behind.
            let one = format!(
                "{private_key}\n{certificate}\n{}",
                signed(&KeyPair::generate().unwrap())
            );
            assert_eq!(Certificate::from_pem(&one, &one).unwrap().der(), read.der());
            assert!(!format!("{read:?}").to_lowercase().contains("key"));
        }
    }

    #[test]
    fn files_that_do_not_fit() {
        let key = KeyPair::generate().unwrap();
        let (certificate, private_key) = (signed(&key), key.serialize_pem());
        let why = |certificate: &str, private_key: &str| Certificate::from_pem(certificate, private_key).err();
        assert_eq!(why("", &private_key), Some(InvalidCertificate::Certificate));
        assert_eq!(why(&private_key, &private_key), Some(InvalidCertificate::Certificate));
        assert_eq!(why(&certificate, &certificate), Some(InvalidCertificate::PrivateKey));
        let cut = to_pem(&generate(1).der()[..100]);
        assert_eq!(why(&cut, &private_key), Some(InvalidCertificate::Certificate));
        let junk = pem::encode(&pem::Pem::new("PRIVATE KEY", vec![1, 2, 3]));
        assert_eq!(why(&certificate, &junk), Some(InvalidCertificate::PrivateKey));
        let other = KeyPair::generate().unwrap();
        assert_eq!(
            why(&certificate, &other.serialize_pem()),
            Some(InvalidCertificate::KeyMismatch)
        );
        let edwards = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        assert_eq!(
            why(&signed(&edwards), &edwards.serialize_pem()),
            Some(InvalidCertificate::UnsupportedKey)
        );
    }
}
