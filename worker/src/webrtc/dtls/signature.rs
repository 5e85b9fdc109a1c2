//! Signatures: ours, and those by which peers prove that they have their certificate's key (RFC 5246 §7.4.1.4.1, RFC 8422 §5.4,
//! RFC 8446 §4.2.3).

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey, VerificationAlgorithm};
use p224::ecdsa::signature::hazmat::PrehashVerifier as _;
use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use x509_cert::der::{Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

use super::failure::Failure;

/// The kinds of keys that suites tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyKind {
    /// ECDSA, or Ed25519.
    Ec,
    Rsa,
}

/// A way to sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scheme {
    /// As the IANA numbers it.
    pub(super) id: u16,
    algorithm: Algorithm,
    hash: Hash,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    /// Over whatever curve the key has: DTLS 1.2 does not tie curves to hash functions.
    Ecdsa,
    Ed25519,
    /// PKCS #1.
    Rsa,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Scheme {
    /// All that we check, those that we like best first. None with SHA-1, which can be forged; and no RSA-PSS, which DTLS 1.2 can do
    /// without: keys of 1,024 bits are checked with PKCS #1 alone, and peers that have the choice would use the other.
    pub(super) const ALL: [Self; 7] = [
        Self::new(0x0403, Algorithm::Ecdsa, Hash::Sha256),
        Self::new(0x0503, Algorithm::Ecdsa, Hash::Sha384),
        Self::new(0x0603, Algorithm::Ecdsa, Hash::Sha512),
        Self::new(0x0807, Algorithm::Ed25519, Hash::Sha512),
        Self::new(0x0401, Algorithm::Rsa, Hash::Sha256),
        Self::new(0x0601, Algorithm::Rsa, Hash::Sha512),
        Self::new(0x0501, Algorithm::Rsa, Hash::Sha384),
    ];

    const fn new(id: u16, algorithm: Algorithm, hash: Hash) -> Self {
        Self { id, algorithm, hash }
    }
}

const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP224R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.33");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const SECP521R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyType {
    P224,
    P256,
    P384,
    P521,
    Ed25519,
    Rsa,
}

/// The key of a peer's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PublicKey {
    key: KeyType,
    /// A point, or RSA's two numbers in DER.
    bytes: Vec<u8>,
}

impl PublicKey {
    /// Of a certificate in DER, of which nothing else is looked at: peers are known by the certificate's hash, so names, dates and
    /// whoever signed it do not matter, however odd.
    ///
    /// # Errors
    ///
    /// [`Failure::UnsupportedCertificate`].
    pub(super) fn of_certificate(der: &[u8]) -> Result<Self, Failure> {
        Self::find(der).ok_or(Failure::UnsupportedCertificate)
    }

    fn find(der: &[u8]) -> Option<Self> {
        // RFC 5280 §4.1: the certificate's first element, and in that one, what comes after version, serial number, algorithm,
        // issuer, validity and subject.
        let certificate = sequence(&mut SliceReader::new(der).ok()?)?;
        let tbs = sequence(&mut SliceReader::new(certificate.value()).ok()?)?;
        let mut fields = SliceReader::new(tbs.value()).ok()?;
        let version = Tag::ContextSpecific {
            constructed: true,
            number: TagNumber(0),
        };
        if fields.decode::<AnyRef<'_>>().ok()?.tag() == version {
            fields.decode::<AnyRef<'_>>().ok()?;
        }
        // The serial number has been read; algorithm, issuer, validity and subject follow.
        for _ in 0..4 {
            fields.decode::<AnyRef<'_>>().ok()?;
        }
        let info = sequence(&mut fields)?;
        let mut info = SliceReader::new(info.value()).ok()?;
        let algorithm = sequence(&mut info)?;
        let key = info.decode::<BitStringRef<'_>>().ok()?.as_bytes()?;
        let mut algorithm = SliceReader::new(algorithm.value()).ok()?;
        let key_type = match algorithm.decode::<ObjectIdentifier>().ok()? {
            ID_EC_PUBLIC_KEY => match algorithm.decode::<ObjectIdentifier>().ok()? {
                SECP224R1 => KeyType::P224,
                SECP256R1 => KeyType::P256,
                SECP384R1 => KeyType::P384,
                SECP521R1 => KeyType::P521,
                _ => return None,
            },
            RSA_ENCRYPTION => KeyType::Rsa,
            ID_ED25519 => KeyType::Ed25519,
            _ => return None,
        };
        Some(Self {
            key: key_type,
            bytes: key.to_vec(),
        })
    }

    /// The suites that its owner can be the server of.
    pub(super) fn kind(&self) -> KeyKind {
        match self.key {
            KeyType::Rsa => KeyKind::Rsa,
            _ => KeyKind::Ec,
        }
    }

    /// Whether its owner has signed a message.
    ///
    /// # Errors
    ///
    /// [`Failure::NothingInCommon`] if it was signed in a way that we did not offer or that is not for such a key, else
    /// [`Failure::Signature`].
    pub(super) fn verify(&self, message: &[u8], scheme: u16, signature: &[u8]) -> Result<(), Failure> {
        let scheme = Scheme::ALL.iter().find(|known| known.id == scheme);
        let Some(Scheme { algorithm, hash, .. }) = scheme else {
            return Err(Failure::NothingInCommon);
        };
        let verification: &'static dyn VerificationAlgorithm = match (self.key, algorithm, hash) {
            (KeyType::P224, Algorithm::Ecdsa, hash) => return self.verify_p224(message, *hash, signature),
            (KeyType::P256, Algorithm::Ecdsa, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
            (KeyType::P256, Algorithm::Ecdsa, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
            (KeyType::P256, Algorithm::Ecdsa, Hash::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
            (KeyType::P384, Algorithm::Ecdsa, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
            (KeyType::P384, Algorithm::Ecdsa, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
            (KeyType::P384, Algorithm::Ecdsa, Hash::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
            (KeyType::P521, Algorithm::Ecdsa, Hash::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
            (KeyType::P521, Algorithm::Ecdsa, Hash::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
            (KeyType::P521, Algorithm::Ecdsa, Hash::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
            (KeyType::Ed25519, Algorithm::Ed25519, _) => &signature::ED25519,
            // Keys of 1,024 bits are what old gear has, and all that they can do is to be another peer with the same certificate.
            (KeyType::Rsa, Algorithm::Rsa, Hash::Sha256) => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            (KeyType::Rsa, Algorithm::Rsa, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (KeyType::Rsa, Algorithm::Rsa, Hash::Sha512) => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            _ => return Err(Failure::NothingInCommon),
        };
        UnparsedPublicKey::new(verification, &self.bytes)
            .verify(message, signature)
            .map_err(|_| Failure::Signature)
    }

    /// The one curve that aws-lc's bindings do not have.
    fn verify_p224(&self, message: &[u8], hash: Hash, signature: &[u8]) -> Result<(), Failure> {
        let function = match hash {
            Hash::Sha256 => &aws_lc_rs::digest::SHA256,
            Hash::Sha384 => &aws_lc_rs::digest::SHA384,
            Hash::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        let hash = aws_lc_rs::digest::digest(function, message);
        let key =
            p224::ecdsa::VerifyingKey::from_sec1_bytes(&self.bytes).map_err(|_| Failure::UnsupportedCertificate)?;
        let signature = p224::ecdsa::Signature::from_der(signature).map_err(|_| Failure::Signature)?;
        key.verify_prehash(hash.as_ref(), &signature)
            .map_err(|_| Failure::Signature)
    }
}

fn sequence<'a>(reader: &mut SliceReader<'a>) -> Option<AnyRef<'a>> {
    let any = reader.decode::<AnyRef<'a>>().ok()?;
    (any.tag() == Tag::Sequence).then_some(any)
}

/// Our key.
pub(super) enum Signer {
    /// Over P-256, for signatures with SHA-256.
    P256(EcdsaKeyPair),
    /// Over P-384, for signatures with SHA-384.
    P384(EcdsaKeyPair),
    /// RSA, for gear that knows nothing else.
    Rsa(RsaKeyPair),
}

impl Signer {
    /// Reads a key in DER: PKCS #8, SEC 1 or PKCS #1. `None` if it is of another kind.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let ecdsa = |algorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, der)
                .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der))
                .ok()
        };
        if let Some(key) = ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING) {
            return Some(Self::P256(key));
        }
        if let Some(key) = ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING) {
            return Some(Self::P384(key));
        }
        let key = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
        key.ok().map(Self::Rsa)
    }

    /// As a certificate has it: a point, or RSA's two numbers in DER.
    pub(super) fn public_key(&self) -> &[u8] {
        match self {
            Self::P256(key) | Self::P384(key) => key.public_key().as_ref(),
            Self::Rsa(key) => key.public_key().as_ref(),
        }
    }

    /// The suites that we can be the server of.
    pub(super) fn kind(&self) -> KeyKind {
        match self {
            Self::P256(_) | Self::P384(_) => KeyKind::Ec,
            Self::Rsa(_) => KeyKind::Rsa,
        }
    }

    /// The way to sign for a peer that checks these; `None` if it checks none of ours.
    pub(super) fn choose(&self, offered: &[u16]) -> Option<&'static Scheme> {
        Scheme::ALL.iter().find(|scheme| {
            let is_ours = match self {
                Self::P256(_) => (scheme.algorithm, scheme.hash) == (Algorithm::Ecdsa, Hash::Sha256),
                Self::P384(_) => (scheme.algorithm, scheme.hash) == (Algorithm::Ecdsa, Hash::Sha384),
                Self::Rsa(_) => scheme.algorithm == Algorithm::Rsa,
            };
            is_ours && offered.contains(&scheme.id)
        })
    }

    /// Signs a message in a way that [`Signer::choose`] chose.
    pub(super) fn sign(&self, scheme: &Scheme, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let random = SystemRandom::new();
        match self {
            Self::P256(key) | Self::P384(key) => {
                let signature = key.sign(&random, message).map_err(|_| Failure::Internal)?;
                Ok(signature.as_ref().to_vec())
            }
            Self::Rsa(key) => {
                let encoding: &'static dyn signature::RsaEncoding = match scheme.hash {
                    Hash::Sha256 => &signature::RSA_PKCS1_SHA256,
                    Hash::Sha384 => &signature::RSA_PKCS1_SHA384,
                    Hash::Sha512 => &signature::RSA_PKCS1_SHA512,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature)
                    .map_err(|_| Failure::Internal)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::P256(_) => "Signer::P256(..)",
            Self::P384(_) => "Signer::P384(..)",
            Self::Rsa(_) => "Signer::Rsa(..)",
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }

    /// A certificate with a key over P-224, and signatures of "message" with it, with the schemes' numbers. Made by OpenSSL 3.
    pub(in crate::webrtc::dtls) fn p224() -> (Vec<u8>, Vec<(u16, Vec<u8>)>) {
        let certificate = concat!(
            "308201603082010ea00302010202146f385188c1b94b8e47e13e3493a06639ff3614d8300a06082a8648ce3d040302300f31",
            "0d300b06035504030c0477656972301e170d3236313132393136313930315a170d3336313132363136313930315a300f310d",
            "300b06035504030c0477656972304e301006072a8648ce3d020106052b81040021033a000405795270931aad404d77712464",
            "b1008a46093b0b6388aceb0b5f84bd453a2eda6b8ee5cc32cb2af6259bddf7032018c3287183b1eda71c5ca3533051301d06",
            "03551d0e04160414defd6dc436df56a6a78b7234c0825407b39d1e5f301f0603551d23041830168014defd6dc436df56a6a7",
            "8b7234c0825407b39d1e5f300f0603551d130101ff040530030101ff300a06082a8648ce3d040302034000303d021d00f8d3",
            "fc3920b1266c6c0e108ae082c5795bf71c29a2aaa48c461f8995021c776a48fcb5e0d583b12b1ab10bbef74a1a16492836ea",
            "dbb843a51d75",
        );
        let signatures = [
            (
                0x0403,
                concat!(
                    "303d021c0572731212b51a3fdac18ff7310d50f011896e439d638a2fa60d74a8021d008b65208e67a95e7a9e31",
                    "79e49b1df6743e5a8909f7678933560bf193"
                ),
            ),
            (
                0x0503,
                concat!(
                    "303d021c206c7cee18e760e54f1c7c889df950ae5526d68457116b82beab3c31021d009a459f9d5b4cda7c1f23",
                    "05d77d801097d75b53af67b9f5336e1309c6"
                ),
            ),
            (
                0x0603,
                concat!(
                    "303d021d00b1d9038e6cb003773c6befc832f07982717b078a3da1d4cc8fbe48a9021c5571422175fed47ba966",
                    "e10e602a0602e13975a1dd212871e3cd57ed"
                ),
            ),
        ];
        let signatures = signatures
            .into_iter()
            .map(|(scheme, signature)| (scheme, hex(signature)));
        (hex(certificate), signatures.collect())
    }

    #[test]
    fn what_we_sign_is_ours() {
        for (algorithm, kind) in [
            (&PKCS_ECDSA_P256_SHA256, KeyKind::Ec),
            (&PKCS_ECDSA_P384_SHA384, KeyKind::Ec),
            (&PKCS_RSA_SHA256, KeyKind::Rsa),
        ] {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            let certificate = CertificateParams::default().self_signed(&pair).unwrap();
            let signer = Signer::read(&pair.serialize_der()).unwrap();
            let key = PublicKey::of_certificate(certificate.der()).unwrap();
            assert_eq!(signer.public_key(), key.bytes);
            assert_eq!((signer.kind(), key.kind()), (kind, kind));
            for scheme in &Scheme::ALL {
                let Some(chosen) = signer.choose(&[scheme.id]) else {
                    continue;
                };
                assert_eq!(chosen, scheme);
                let signature = signer.sign(scheme, b"message").unwrap();
                assert_eq!(key.verify(b"message", scheme.id, &signature), Ok(()), "{scheme:?}");
                assert_eq!(key.verify(b"massage", scheme.id, &signature), Err(Failure::Signature));
                let mut damaged = signature.clone();
                damaged[signature.len() / 2] ^= 1;
                assert_eq!(key.verify(b"message", scheme.id, &damaged), Err(Failure::Signature));
                assert_eq!(key.verify(b"message", scheme.id, &[]), Err(Failure::Signature));
            }
            // SHA-1, and nonsense.
            for scheme in [0x0201, 0x0203, 0, 0xffff] {
                assert!(signer.choose(&[scheme]).is_none());
                assert_eq!(
                    key.verify(b"message", scheme, b"signature"),
                    Err(Failure::NothingInCommon)
                );
            }
        }
        assert!(Signer::read(b"no key").is_none());
    }

    /// Made with OpenSSL: `ecparam -name secp224r1`, a certificate with it, and `dgst -sign` of "message".
    #[test]
    fn the_key_of_gnutls_is_taken() {
        let (certificate, signatures) = p224();
        let key = PublicKey::of_certificate(&certificate).unwrap();
        assert_eq!((key.key, key.kind()), (KeyType::P224, KeyKind::Ec));
        for (scheme, signature) in signatures {
            assert_eq!(key.verify(b"message", scheme, &signature), Ok(()));
            assert_eq!(key.verify(b"massage", scheme, &signature), Err(Failure::Signature));
            assert_eq!(key.verify(b"message", scheme, &signature[1..]), Err(Failure::Signature));
        }
        assert_eq!(
            key.verify(b"message", 0x0401, b"signature"),
            Err(Failure::NothingInCommon)
        );
    }

    #[test]
    fn what_is_no_certificate_has_no_key() {
        let pair = KeyPair::generate().unwrap();
        let der = CertificateParams::default().self_signed(&pair).unwrap().der().to_vec();
        assert!(PublicKey::of_certificate(&der).is_ok());
        for len in 0..der.len() {
            let _ = PublicKey::of_certificate(&der[..len]);
        }
        for at in 0..der.len() {
            let mut damaged = der.clone();
            damaged[at] ^= 0xff;
            let _ = PublicKey::of_certificate(&damaged);
        }
        assert_eq!(PublicKey::of_certificate(b""), Err(Failure::UnsupportedCertificate));
        assert_eq!(
            PublicKey::of_certificate(&[0x30, 0x80, 0, 0]),
            Err(Failure::UnsupportedCertificate)
        );
    }
}
