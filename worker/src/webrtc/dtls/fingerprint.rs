//! Fingerprints of certificates (RFC 8122 §5): what the signalling says the peer's certificate will be.

use std::fmt;

use aws_lc_rs::digest;
use thiserror::Error;
use weir_channel::message::{FINGERPRINTS_MAX, FingerprintAlgorithm};

const fn digest_of(algorithm: FingerprintAlgorithm) -> &'static digest::Algorithm {
    match algorithm {
        FingerprintAlgorithm::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        FingerprintAlgorithm::Sha224 => &digest::SHA224,
        FingerprintAlgorithm::Sha256 => &digest::SHA256,
        FingerprintAlgorithm::Sha384 => &digest::SHA384,
        FingerprintAlgorithm::Sha512 => &digest::SHA512,
    }
}

/// The hash of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    algorithm: FingerprintAlgorithm,
    bytes: [u8; 64],
}

/// Not as many pairs of hexadecimal digits, with colons between them, as the hash function yields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a fingerprint is pairs of hexadecimal digits with colons between them, as many as the hash has bytes")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(algorithm: FingerprintAlgorithm, certificate: &[u8]) -> Self {
        let hash = digest::digest(digest_of(algorithm), certificate);
        let mut bytes = [0; 64];
        bytes[..hash.as_ref().len()].copy_from_slice(hash.as_ref());
        Self { algorithm, bytes }
    }

    /// Reads `AB:CD:…`, in upper or lower case.
    ///
    /// # Errors
    ///
    /// If the form or the length is wrong.
    pub fn parse(algorithm: FingerprintAlgorithm, value: &str) -> Result<Self, InvalidFingerprint> {
        let mut bytes = [0; 64];
        let len = digest_of(algorithm).output_len;
        let mut pairs = value.split(':');
        for byte in &mut bytes[..len] {
            let pair = pairs.next().ok_or(InvalidFingerprint)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(InvalidFingerprint);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidFingerprint)?;
        }
        if pairs.next().is_some() {
            return Err(InvalidFingerprint);
        }
        Ok(Self { algorithm, bytes })
    }

    /// The hash algorithm.
    pub fn algorithm(&self) -> FingerprintAlgorithm {
        self.algorithm
    }

    /// Whether a certificate in DER has it.
    pub fn matches(&self, certificate: &[u8]) -> bool {
        *self == Self::of(self.algorithm, certificate)
    }
}

impl fmt::Display for Fingerprint {
    /// As signalling has it: upper case, with colons.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        // In one piece: a successor says five of them for each of thousands of transports.
        let mut text = [b':'; 3 * 64];
        let len = digest_of(self.algorithm).output_len;
        for (place, byte) in text.chunks_exact_mut(3).zip(&self.bytes[..len]) {
            place[0] = DIGITS[usize::from(byte >> 4)];
            place[1] = DIGITS[usize::from(byte & 0xf)];
        }
        let shown = &text[..(3 * len).saturating_sub(1)];
        formatter.write_str(str::from_utf8(shown).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {self}", self.algorithm)
    }
}

/// What a peer announced, reduced to what its certificate must match: one of the fingerprints that were made with the
/// strongest of the hash functions it used (RFC 8122 §5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    fingerprints: Vec<Fingerprint>,
}

/// Why announced fingerprints cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unusable {
    /// There are none, or more than [`FINGERPRINTS_MAX`].
    #[error("1 to {FINGERPRINTS_MAX} fingerprints are needed")]
    Count,
    /// None was made with SHA-256 or a stronger function.
    #[error("a fingerprint made with sha-256, sha-384 or sha-512 is needed")]
    Weak,
}

impl Expected {
    /// Out of everything announced. Weak functions count only where `weak_allowed`, and never beside a strong one.
    ///
    /// # Errors
    ///
    /// No usable fingerprint is left.
    pub fn new(announced: &[Fingerprint], weak_allowed: bool) -> Result<Self, Unusable> {
        if announced.is_empty() || announced.len() > FINGERPRINTS_MAX {
            return Err(Unusable::Count);
        }
        let strongest = announced
            .iter()
            .map(Fingerprint::algorithm)
            .filter(|algorithm| weak_allowed || algorithm.is_strong())
            .max()
            .ok_or(Unusable::Weak)?;
        let fingerprints = announced
            .iter()
            .filter(|fingerprint| fingerprint.algorithm == strongest)
            .copied()
            .collect();
        Ok(Self { fingerprints })
    }

    /// Whether a certificate in DER is the announced one.
    pub fn matches(&self, certificate: &[u8]) -> bool {
        self.fingerprints
            .iter()
            .any(|fingerprint| fingerprint.matches(certificate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180's example message, in place of a certificate.
    const ABC: &[u8] = b"abc";

    #[test]
    fn known_hashes() {
        let rows = [
            ("sha-1", "A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D"),
            (
                "sha-224",
                "23:09:7D:22:34:05:D8:22:86:42:A4:77:BD:A2:55:B3:2A:AD:BC:E4:BD:A0:B3:F7:E3:6C:9D:A7",
            ),
            (
                "sha-256",
                "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD",
            ),
        ];
        for (name, value) in rows {
            let algorithm: FingerprintAlgorithm = name.parse().unwrap();
            assert_eq!(Fingerprint::of(algorithm, ABC).to_string(), value);
            for written in [value.to_owned(), value.to_lowercase()] {
                let fingerprint = Fingerprint::parse(algorithm, &written).unwrap();
                assert!(fingerprint.matches(ABC) && !fingerprint.matches(b"abd"));
            }
        }
        for algorithm in FingerprintAlgorithm::ALL {
            let value = Fingerprint::of(algorithm, ABC).to_string();
            assert_eq!(value.len(), 3 * digest_of(algorithm).output_len - 1);
            assert!(Fingerprint::parse(algorithm, &value).unwrap().matches(ABC));
        }
        for unknown in ["sha-999", "sha256"] {
            assert!(unknown.parse::<FingerprintAlgorithm>().is_err());
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let good = Fingerprint::of(FingerprintAlgorithm::Sha256, ABC).to_string();
        for bad in [
            String::new(),
            "AA".into(),
            good.replace(':', ""),
            good.replace(':', "-"),
            good[3..].to_owned(),
            format!("{good}:00"),
            format!("{good}:"),
            format!(":{good}"),
            good.replacen("BA", "+A", 1),
            good.replacen("BA", "ä", 1),
            good.replacen("BA", " B", 1),
            good.replacen("BA", "GA", 1),
        ] {
            let parsed = Fingerprint::parse(FingerprintAlgorithm::Sha256, &bad);
            assert_eq!(parsed, Err(InvalidFingerprint), "{bad}");
        }
        assert!(Fingerprint::parse(FingerprintAlgorithm::Sha1, &good).is_err());
    }

    #[test]
    fn the_strongest_decides() {
        let of = |algorithm, message: &[u8]| Fingerprint::of(algorithm, message);
        use FingerprintAlgorithm::{Sha1, Sha224, Sha256, Sha512};
        let right =
            |announced: &[Fingerprint], weak| Expected::new(announced, weak).map(|expected| expected.matches(ABC));
        assert_eq!(right(&[of(Sha256, ABC)], false), Ok(true));
        assert_eq!(right(&[of(Sha256, b"x")], false), Ok(false));
        // Any of several certificates.
        assert_eq!(right(&[of(Sha256, b"x"), of(Sha256, ABC)], false), Ok(true));
        // A weaker one does not make up for it, wherever it stands.
        assert_eq!(right(&[of(Sha256, ABC), of(Sha512, b"x")], false), Ok(false));
        assert_eq!(
            right(&[of(Sha512, b"x"), of(Sha256, ABC), of(Sha1, ABC)], true),
            Ok(false)
        );
        assert_eq!(right(&[of(Sha1, b"x"), of(Sha256, ABC)], true), Ok(true));
        // Weak ones alone.
        assert_eq!(right(&[of(Sha1, ABC), of(Sha224, ABC)], false), Err(Unusable::Weak));
        assert_eq!(right(&[of(Sha1, ABC)], true), Ok(true));
        assert_eq!(right(&[], true), Err(Unusable::Count));
        assert_eq!(
            right(&[of(Sha256, ABC); FINGERPRINTS_MAX + 1], false),
            Err(Unusable::Count)
        );
    }
}
