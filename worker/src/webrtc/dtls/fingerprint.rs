//! Fingerprints of certificates (RFC 8122 §5): what the signalling says the peer's certificate will be.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use thiserror::Error;

/// The hash functions that a fingerprint may be made with, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HashFunction {
    /// 160 bits; broken. Announced for clients that know no other, and not trusted alone.
    Sha1,
    /// 224 bits. Announced, and not trusted alone.
    Sha224,
    /// 256 bits; what everybody uses.
    Sha256,
    /// 384 bits.
    Sha384,
    /// 512 bits.
    Sha512,
}

impl HashFunction {
    /// All of them, weakest first, which is the order in which clients know them.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name that signalling uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha224 => "sha-224",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    /// Whether a certificate may be recognised by it alone.
    pub const fn is_strong(self) -> bool {
        matches!(self, Self::Sha256 | Self::Sha384 | Self::Sha512)
    }

    const fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => &digest::SHA224,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// Not the name of a hash function that is known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unsupported fingerprint algorithm")]
pub struct UnknownHashFunction;

impl FromStr for HashFunction {
    type Err = UnknownHashFunction;

    /// The names of RFC 8122 §5, in upper or lower case.
    fn from_str(name: &str) -> Result<Self, UnknownHashFunction> {
        Self::ALL
            .into_iter()
            .find(|function| function.name().eq_ignore_ascii_case(name))
            .ok_or(UnknownHashFunction)
    }
}

/// The hash of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    function: HashFunction,
    bytes: [u8; 64],
}

/// Not as many pairs of hexadecimal digits, with colons between them, as the hash function yields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a fingerprint is pairs of hexadecimal digits with colons between them, as many as the hash has bytes")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(function: HashFunction, certificate: &[u8]) -> Self {
        let hash = digest::digest(function.algorithm(), certificate);
        let mut bytes = [0; 64];
        bytes[..hash.as_ref().len()].copy_from_slice(hash.as_ref());
        Self { function, bytes }
    }

    /// Reads `AB:CD:…`, in upper or lower case.
    ///
    /// # Errors
    ///
    /// If the form or the length is wrong.
    pub fn parse(function: HashFunction, value: &str) -> Result<Self, InvalidFingerprint> {
        let mut bytes = [0; 64];
        let len = function.algorithm().output_len;
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
        Ok(Self { function, bytes })
    }

    /// The hash function.
    pub fn function(&self) -> HashFunction {
        self.function
    }

    /// Whether a certificate in DER has it.
    pub fn matches(&self, certificate: &[u8]) -> bool {
        *self == Self::of(self.function, certificate)
    }
}

impl fmt::Display for Fingerprint {
    /// As signalling has it: upper case, with colons.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.bytes[..self.function.algorithm().output_len].iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(formatter, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {self}", self.function.name())
    }
}

/// Fingerprints that a peer may announce.
pub const FINGERPRINTS_MAX: usize = 16;

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
            .map(Fingerprint::function)
            .filter(|function| weak_allowed || function.is_strong())
            .max()
            .ok_or(Unusable::Weak)?;
        let fingerprints = announced
            .iter()
            .filter(|fingerprint| fingerprint.function == strongest)
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
            let function: HashFunction = name.parse().unwrap();
            assert_eq!(Fingerprint::of(function, ABC).to_string(), value);
            assert_eq!(name.to_uppercase().parse(), Ok(function));
            for written in [value.to_owned(), value.to_lowercase()] {
                let fingerprint = Fingerprint::parse(function, &written).unwrap();
                assert!(fingerprint.matches(ABC) && !fingerprint.matches(b"abd"));
            }
        }
        for function in HashFunction::ALL {
            let value = Fingerprint::of(function, ABC).to_string();
            assert_eq!(value.len(), 3 * function.algorithm().output_len - 1);
            assert!(Fingerprint::parse(function, &value).unwrap().matches(ABC));
        }
        assert_eq!("sha-999".parse::<HashFunction>(), Err(UnknownHashFunction));
        assert_eq!("sha256".parse::<HashFunction>(), Err(UnknownHashFunction));
    }

    #[test]
    fn other_forms_are_refused() {
        let good = Fingerprint::of(HashFunction::Sha256, ABC).to_string();
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
            let parsed = Fingerprint::parse(HashFunction::Sha256, &bad);
            assert_eq!(parsed, Err(InvalidFingerprint), "{bad}");
        }
        assert!(Fingerprint::parse(HashFunction::Sha1, &good).is_err());
    }

    #[test]
    fn the_strongest_decides() {
        let of = |function, message: &[u8]| Fingerprint::of(function, message);
        use HashFunction::{Sha1, Sha224, Sha256, Sha512};
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
