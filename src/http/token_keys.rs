//! The keys that access tokens are signed with (JSON Web Signature, RFC 7515), and whether a token is signed with one of them.
//!
//! Which algorithm a key is for follows from the key alone, so a token can choose neither `none` nor a public key as the secret of
//! another algorithm (RFC 8725 §3.1). Keys that a token brings with it, or links to, are not looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jsonwebtoken::crypto::aws_lc;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::claims::{Claims, LEEWAY_S, LIFETIME_MAX_S};
use crate::server::lock;

/// The longest token. It must fit into a request's head beside other headers.
pub const TOKEN_BYTES_MAX: usize = 4 * 1_024;

/// A shorter secret could be guessed from a token (RFC 7518 §3.2: as long as the hash at least).
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// A key file has some hundred bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// As many keys as a token without a key's name is tried with.
const KEYS_MAX: usize = 64;

/// The longest name of a key.
const NAME_LEN_MAX: usize = 64;

/// What stands before the 32 bytes of an Ed25519 public key (SubjectPublicKeyInfo, RFC 8410 §4).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The keys that access tokens are signed with, several at a time, so that one can follow another. Clones are the same keys. A
/// key's name, by which tokens choose it (`kid`), is that of its file up to the first dot.
#[derive(Clone)]
pub struct TokenKeys {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    keys: Mutex<Arc<[TokenKey]>>,
}

/// A key with which tokens are checked.
struct TokenKey {
    name: String,
    algorithm: Algorithm,
    key: DecodingKey,
    /// Of its file, to notice that it is another one.
    digest: [u8; 32],
}

/// Why a key file cannot be used. Says which file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

/// Why a token is not accepted. The sentences tell those who have a token with a good signature what is wrong with it, and others
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It has more than [`TOKEN_BYTES_MAX`] bytes.
    #[error("the access token is longer than 4096 bytes")]
    TooLong,
    /// It is no JSON Web Token at all, has none of the algorithms, or an extension that must be understood (RFC 7515 §4.1.11).
    #[error("this is no access token: it must be a JSON Web Token that is signed with HS256 or EdDSA")]
    Malformed,
    /// It was signed with none of the keys.
    #[error("the access token is not signed with a key of this server")]
    Signature,
    /// Its claims are not what Weir reads.
    #[error("a claim of the access token has the wrong type")]
    Claims,
    /// It says nothing of when it expires.
    #[error("the access token has no exp: it must say when it expires")]
    NoExpiry,
    /// It expires later than in a year.
    #[error("the access token expires later than in 366 days; exp is in seconds since 1970")]
    LivesTooLong,
    /// It has expired.
    #[error("the access token has expired")]
    Expired,
    /// It does not hold yet.
    #[error("the access token does not hold yet (nbf)")]
    NotYetValid,
}

impl TokenError {
    /// Whether who sent it may be guessing. Whoever has a token with a good signature is not.
    pub(super) fn is_guess(self) -> bool {
        matches!(self, Self::TooLong | Self::Malformed | Self::Signature)
    }
}

impl TokenKeys {
    /// The keys in a file, or in all files of a directory that end in `.key` or `.pem`. A file has a secret for HS256, at least 32
    /// visible characters in one line, or an Ed25519 public key in PEM.
    ///
    /// # Errors
    /// When there is no key, or one that cannot be used: it is too short, or others could read or change it.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        choose_library();
        let keys = read_all(path)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                keys: Mutex::new(keys.into()),
            }),
        })
    }

    /// Reads the files again, and returns the names of the keys that there are now.
    ///
    /// # Errors
    /// As [`TokenKeys::read`]; then the keys are those from before.
    pub fn reload(&self) -> Result<Vec<String>, KeyError> {
        *lock(&self.shared.keys) = read_all(&self.shared.path)?.into();
        Ok(self.names())
    }

    /// Takes the keys of others that were read from the same place later. Returns whether they are not the same.
    pub fn follow(&self, later: &Self) -> bool {
        let digests = |keys: &[TokenKey]| {
            keys.iter()
                .map(|key| (key.name.clone(), key.digest))
                .collect::<Vec<_>>()
        };
        let (own, other) = (self.keys(), later.keys());
        if self != later || digests(&own) == digests(&other) {
            return false;
        }
        *lock(&self.shared.keys) = other;
        true
    }

    /// The names of the keys.
    pub fn names(&self) -> Vec<String> {
        self.keys().iter().map(|key| key.name.clone()).collect()
    }

    fn keys(&self) -> Arc<[TokenKey]> {
        Arc::clone(&lock(&self.shared.keys))
    }

    /// What a token says, if it is signed with one of the keys, and holds at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &[u8], now: u64) -> Result<Claims, TokenError> {
        let (claims, _) = self.verify_signature(token)?;
        claims.check_times(now)?;
        Ok(claims)
    }

    /// What a token says, and the name of the key that it is signed with, whether it holds now or not.
    ///
    /// # Errors
    /// It is signed with none of the keys, or its claims cannot be read.
    pub fn verify_signature(&self, token: &[u8]) -> Result<(Claims, String), TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let header = header_of(token)?;
        let keys = self.keys();
        let mut candidates = keys.iter().filter(|key| {
            let is_named = header.kid.as_ref().is_none_or(|name| *name == key.name);
            is_named && key.algorithm == header.alg
        });
        candidates
            .find_map(|key| match key.verify(token) {
                Err(TokenError::Signature) => None,
                other => Some(other.map(|claims| (claims, key.name.clone()))),
            })
            .unwrap_or(Err(TokenError::Signature))
    }
}

impl TokenKey {
    /// What a token says that is signed with this key. Times are left to the caller.
    fn verify(&self, token: &[u8]) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        // Claims are an object (RFC 7519 §4); they would be read from a list, too.
        let payload = jsonwebtoken::decode::<BTreeMap<String, IgnoredAny>>(token, &self.key, &validation);
        payload.map_err(|error| match error.kind() {
            // The payload's, which is read only if the signature is good; the header has been read before.
            ErrorKind::Json(_) => TokenError::Claims,
            _ => TokenError::Signature,
        })?;
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &validation);
        decoded.map(|data| data.claims).map_err(|_| TokenError::Claims)
    }
}

impl Claims {
    /// Whether a token with these claims holds at `now`, in seconds since 1970.
    fn check_times(&self, now: u64) -> Result<(), TokenError> {
        let expiry = self.exp.ok_or(TokenError::NoExpiry)?;
        if now >= expiry.saturating_add(LEEWAY_S) {
            return Err(TokenError::Expired);
        }
        if expiry > now.saturating_add(LIFETIME_MAX_S + LEEWAY_S) {
            return Err(TokenError::LivesTooLong);
        }
        match self.nbf {
            Some(begin) if begin > now.saturating_add(LEEWAY_S) => Err(TokenError::NotYetValid),
            _ => Ok(()),
        }
    }
}

/// What a token says of how it is signed.
fn header_of(token: &[u8]) -> Result<jsonwebtoken::Header, TokenError> {
    // Three parts (RFC 7515 §7.1), and nothing that somebody else could read otherwise.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !token.iter().all(is_plain) || token.iter().filter(|byte| **byte == b'.').count() != 2 {
        return Err(TokenError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    match header.crit {
        Some(_) => Err(TokenError::Malformed),
        None => Ok(header),
    }
}

/// What a token says whoever has signed it. For people to read; nothing may depend on it.
#[derive(Clone, PartialEq, Debug)]
pub struct Unverified {
    /// The algorithm that it says it is signed with.
    pub algorithm: String,
    /// The name of the key that it says it is signed with.
    pub key: Option<String>,
    /// Its claims.
    pub claims: serde_json::Value,
}

/// What a token says whoever has signed it.
///
/// # Errors
/// It is no token that [`TokenKeys`] would look at.
pub fn unverified(token: &str) -> Result<Unverified, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let header = header_of(token.as_bytes())?;
    let decoded = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(token);
    Ok(Unverified {
        algorithm: format!("{:?}", header.alg),
        key: header.kid,
        claims: decoded.map_err(|_| TokenError::Malformed)?.claims,
    })
}

/// All keys at a path.
fn read_all(path: &Path) -> Result<Vec<TokenKey>, KeyError> {
    let failed = failed(path);
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !metadata.is_dir() {
        return Ok(vec![TokenKey::read(path)?]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| failed(&error))? {
        let file = entry.map_err(|error| failed(&error))?.path();
        let is_key = file.extension().is_some_and(|end| end == "key" || end == "pem");
        if is_key && !file.is_dir() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(failed(
            &"there is no key in this directory: no file NAME.key or NAME.pem",
        ));
    }
    if files.len() > KEYS_MAX {
        return Err(failed(&format_args!("there are more than {KEYS_MAX} keys")));
    }
    files.sort();
    let keys: Vec<TokenKey> = files
        .iter()
        .map(|file| TokenKey::read(file))
        .collect::<Result<_, _>>()?;
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].iter().any(|other| other.name == key.name) {
            return Err(failed(&format_args!(
                "two keys are called {:?}, which is what stands before the first dot of a file's name",
                key.name
            )));
        }
    }
    Ok(keys)
}

impl TokenKey {
    fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = failed(path);
        let name = name_of(path)?;
        let (text, mode) = read_file(path)?;
        let mut digest = [0; 32];
        digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref());
        if !text.starts_with("-----BEGIN") {
            let secret = secret_in(&text).map_err(|reason| failed(&reason))?;
            if mode & 0o007 != 0 {
                let message = "this is a secret, and every user of this machine can read or change it; \
                               take that away from them (chmod o= FILE)";
                return Err(failed(&message));
            }
            return Ok(Self {
                name,
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret.as_bytes()).map_err(|error| failed(&error))?,
                digest,
            });
        }
        if mode & 0o002 != 0 {
            let message = "every user of this machine can change this key; take that away from them (chmod o-w FILE)";
            return Err(failed(&message));
        }
        let pem = pem::parse(text.as_bytes()).map_err(|error| failed(&error))?;
        match (pem.tag(), pem.contents().strip_prefix(&ED25519_PREFIX)) {
            ("PUBLIC KEY", Some(key)) if key.len() == 32 => Ok(Self {
                name,
                algorithm: Algorithm::EdDSA,
                key: DecodingKey::from_ed_der(key),
                digest,
            }),
            ("PRIVATE KEY", _) => Err(failed(
                &"this is a private key; the server needs only the public one, which `weir token key generate` has \
                  written beside it",
            )),
            _ => Err(failed(&"this is no Ed25519 public key (PUBLIC KEY in PEM)")),
        }
    }
}

/// Has tokens signed and checked with the library that everything else here uses. Left to itself, jsonwebtoken follows the features
/// that it was built with, and panics at the first token if an embedding program has chosen another library, too.
pub(super) fn choose_library() {
    // It fails if this was called before, or the program has chosen: both are what is wanted.
    let _ = aws_lc::DEFAULT_PROVIDER.install_default();
}

/// The name of the key in a file.
///
/// # Errors
/// A file that is called so cannot have one.
pub(super) fn name_of(path: &Path) -> Result<String, KeyError> {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = file.split('.').next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(is_plain) {
        let reason = format!(
            "a key is called after its file up to the first dot, which must be 1 to {NAME_LEN_MAX} letters, digits, - and _"
        );
        return Err(failed(path)(&reason));
    }
    Ok(name.to_owned())
}

/// What is in a key file, and who may read it.
pub(super) fn read_file(path: &Path) -> Result<(Zeroizing<String>, u32), KeyError> {
    let failed = failed(path);
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mode = file.metadata().map_err(|error| failed(&error))?.permissions().mode();
    // As large as it may become: what grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(failed(&format_args!("it has more than {FILE_BYTES_MAX} bytes"))),
        false => Ok((text, mode)),
    }
}

/// The secret in a file, which may end its line.
pub(super) fn secret_in(text: &str) -> Result<&str, String> {
    let secret = text.trim_end();
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a secret has visible ASCII characters only, no blanks".to_owned());
    }
    match secret.len() {
        ..SECRET_BYTES_MIN => Err(format!(
            "a secret has at least {SECRET_BYTES_MIN} characters, not {}; make one with `weir token key generate`",
            secret.len()
        )),
        _ => Ok(secret),
    }
}

/// Says of a file what is wrong with it.
pub(super) fn failed(path: &Path) -> impl Fn(&dyn fmt::Display) -> KeyError {
    let path = path.to_owned();
    move |reason| KeyError {
        path: path.clone(),
        reason: reason.to_string(),
    }
}

impl PartialEq for TokenKeys {
    /// Whether they are read from the same place.
    fn eq(&self, other: &Self) -> bool {
        self.shared.path == other.shared.path
    }
}

impl Eq for TokenKeys {}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenKeys").field(&self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::http::{KeyKind, SigningKey};

    /// Seconds since 1970, some time in 2026.
    const NOW: u64 = 1_790_000_000;

    const SECRET: &str = "a-secret-of-forty-characters-and-no-less";

    /// A directory with key files.
    struct Keys(TempDir);

    impl Keys {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn read(&self) -> Result<TokenKeys, String> {
            TokenKeys::read(self.0.path()).map_err(|error| error.to_string())
        }
    }

    fn claims() -> Value {
        json!({"room": "stage", "peer": "alice", "publish": true, "exp": NOW + 60})
    }

    /// A token as anybody could make it.
    fn forged(header: &Header, claims: &Value, key: &EncodingKey) -> Vec<u8> {
        jsonwebtoken::encode(header, claims, key).unwrap().into_bytes()
    }

    fn signed(claims: &Value, secret: &str) -> Vec<u8> {
        forged(
            &Header::new(Algorithm::HS256),
            claims,
            &EncodingKey::from_secret(secret.as_bytes()).unwrap(),
        )
    }

    #[test]
    fn tokens_of_both_kinds_of_keys_are_accepted() {
        let (own, signers) = (Keys::new(), Keys::new());
        let shared = SigningKey::generate(KeyKind::Hs256, &own.path("shared")).unwrap();
        let pair = SigningKey::generate(KeyKind::EdDsa, &signers.path("pair")).unwrap();
        assert_eq!(pair, [signers.path("pair.pem"), signers.path("pair.pub.pem")]);
        for (file, mode) in [(&shared[0], 0o600), (&pair[0], 0o600), (&pair[1], 0o644)] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, mode);
        }
        fs::copy(&pair[1], own.path("pair.pub.pem")).unwrap();
        let keys = own.read().unwrap();
        assert_eq!(keys.names(), ["pair", "shared"]);
        let claims: Claims = serde_json::from_value(claims()).unwrap();
        for file in [&shared[0], &pair[0]] {
            let key = SigningKey::read(file).unwrap();
            for name in [key.name(), "shared", "pair", "unknown"] {
                let token = key.sign(&claims, name).unwrap();
                let expected = match name == key.name() {
                    true => Ok(claims.clone()),
                    false => Err(TokenError::Signature),
                };
                assert_eq!(keys.verify(token.as_bytes(), NOW), expected, "{name}");
            }
        }
        let again = SigningKey::generate(KeyKind::Hs256, &own.path("shared"));
        assert!(again.is_err(), "no key is overwritten");
        assert_eq!(format!("{keys:?}"), "TokenKeys([\"pair\", \"shared\"])");
    }

    #[test]
    fn a_token_without_a_keys_name_is_tried_with_all_of_its_algorithm() {
        let keys = Keys::new();
        keys.write("old.key", "another-secret-of-forty-characters-or-so", 0o600);
        keys.write("new.key", SECRET, 0o640);
        let read = keys.read().unwrap();
        assert!(read.verify(&signed(&claims(), SECRET), NOW).is_ok());
        // Rotation: the key goes, and with it its tokens.
        fs::remove_file(keys.path("new.key")).unwrap();
        assert!(read.verify(&signed(&claims(), SECRET), NOW).is_ok());
        assert_eq!(read.reload().unwrap(), ["old"]);
        assert_eq!(read.verify(&signed(&claims(), SECRET), NOW), Err(TokenError::Signature));
        // What cannot be read changes nothing.
        fs::remove_file(keys.path("old.key")).unwrap();
        assert!(read.reload().is_err());
        assert_eq!(read.names(), ["old"]);
    }

    #[test]
    fn the_key_decides_the_algorithm_and_not_the_token() {
        let (own, signers) = (Keys::new(), Keys::new());
        let pair = SigningKey::generate(KeyKind::EdDsa, &signers.path("pair")).unwrap();
        let pem = fs::read_to_string(&pair[1]).unwrap();
        let public = own.write("pair.pub.pem", &pem, 0o644);
        let keys = TokenKeys::read(&public).unwrap();
        let der = pem::parse(&pem).unwrap().into_contents();
        // What everybody knows is nobody's secret. (HMAC fills a secret up with zeros, so that one zero is as good as an empty one.)
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &der, &der[12..], b"\0"] {
            for kid in [None, Some("pair".to_owned())] {
                let mut header = Header::new(Algorithm::HS256);
                header.kid = kid;
                let token = forged(&header, &claims(), &EncodingKey::from_secret(secret).unwrap());
                assert_eq!(keys.verify(&token, NOW), Err(TokenError::Signature));
            }
        }
        let shared = Keys::new();
        let keys = TokenKeys::read(&shared.write("shared.key", SECRET, 0o600)).unwrap();
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            let token = forged(
                &Header::new(algorithm),
                &claims(),
                &EncodingKey::from_secret(SECRET.as_bytes()).unwrap(),
            );
            assert_eq!(keys.verify(&token, NOW), Err(TokenError::Signature), "{algorithm:?}");
        }
        let good = String::from_utf8(signed(&claims(), SECRET)).unwrap();
        let (head, signature) = good.rsplit_once('.').unwrap();
        let payload = head.split_once('.').unwrap().1;
        // {"alg":"none"}, {"alg":"None"}, and an extension that must be understood: {"alg":"HS256","crit":["x"],"x":1}
        for header in [
            "eyJhbGciOiJub25lIn0",
            "eyJhbGciOiJOb25lIn0",
            "eyJhbGciOiJIUzI1NiIsImNyaXQiOlsieCJdLCJ4IjoxfQ",
        ] {
            for signature in ["", signature] {
                let token = format!("{header}.{payload}.{signature}");
                assert_eq!(
                    keys.verify(token.as_bytes(), NOW),
                    Err(TokenError::Malformed),
                    "{token}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_token_or_has_another_signature_is_refused() {
        let own = Keys::new();
        let keys = TokenKeys::read(&own.write("shared.key", SECRET, 0o600)).unwrap();
        let good = signed(&claims(), SECRET);
        assert!(keys.verify(&good, NOW).is_ok());
        for index in 0..good.len() {
            let mut wrong = good.clone();
            wrong[index] = match wrong[index] {
                b'A' => b'B',
                _ => b'A',
            };
            if wrong != good {
                assert!(keys.verify(&wrong, NOW).is_err_and(TokenError::is_guess), "{index}");
            }
            assert!(keys.verify(&good[..index], NOW).is_err(), "{index}");
        }
        let text = String::from_utf8(good).unwrap();
        let padded = [
            format!("{text}="),
            format!("{text} "),
            format!("{text}."),
            format!(".{text}"),
            format!("{text}A"),
        ];
        let rows = padded
            .iter()
            .map(String::as_str)
            .chain(["", ".", "..", "...", "a.b.c", "\0.\0.\0"]);
        for wrong in rows {
            assert!(keys.verify(wrong.as_bytes(), NOW).is_err(), "{wrong:?}");
        }
        assert_eq!(
            keys.verify(&signed(&claims(), "another-secret-of-forty-characters-or-so"), NOW),
            Err(TokenError::Signature)
        );
        let mut long = claims();
        long["x"] = "x".repeat(TOKEN_BYTES_MAX).into();
        assert_eq!(keys.verify(&signed(&long, SECRET), NOW), Err(TokenError::TooLong));
        assert_eq!(keys.verify(&vec![b'.'; 10_000_000], NOW), Err(TokenError::TooLong));
    }

    #[test]
    fn a_token_holds_from_then_to_then_and_for_a_year_at_most() {
        let own = Keys::new();
        let keys = TokenKeys::read(&own.write("shared.key", SECRET, 0o600)).unwrap();
        let check = |exp: Value, nbf: Option<u64>, expected: Result<(), TokenError>| {
            let mut claims = json!({ "room": "stage", "unknown": {"to": ["us"]} });
            if !exp.is_null() {
                claims["exp"] = exp.clone();
            }
            if let Some(nbf) = nbf {
                claims["nbf"] = nbf.into();
            }
            let found = keys.verify(&signed(&claims, SECRET), NOW).map(drop);
            assert_eq!(found, expected, "{exp} {nbf:?}");
        };
        check(json!(NOW + 60), None, Ok(()));
        check(json!(NOW as f64 + 60.5), None, Ok(()));
        check(Value::Null, None, Err(TokenError::NoExpiry));
        // Clocks differ.
        check(json!(NOW - LEEWAY_S + 1), None, Ok(()));
        check(json!(NOW - LEEWAY_S), None, Err(TokenError::Expired));
        check(json!(0), None, Err(TokenError::Expired));
        check(json!(-1), None, Err(TokenError::Expired));
        check(json!(NOW + LIFETIME_MAX_S), None, Ok(()));
        check(
            json!(NOW + LIFETIME_MAX_S + LEEWAY_S + 1),
            None,
            Err(TokenError::LivesTooLong),
        );
        check(json!(NOW * 1_000), None, Err(TokenError::LivesTooLong));
        check(json!(u64::MAX), None, Err(TokenError::LivesTooLong));
        check(json!(NOW + 60), Some(NOW + LEEWAY_S), Ok(()));
        check(json!(NOW + 60), Some(NOW + LEEWAY_S + 1), Err(TokenError::NotYetValid));
        check(json!(NOW + 60), Some(u64::MAX), Err(TokenError::NotYetValid));
        check(json!("soon"), None, Err(TokenError::Claims));
        let list = json!(["stage", "alice", true, true, true, NOW + 60]);
        assert_eq!(keys.verify(&signed(&list, SECRET), NOW), Err(TokenError::Claims));
        assert!(!TokenError::Expired.is_guess() && !TokenError::Claims.is_guess());
    }

    #[test]
    fn keys_that_others_could_know_or_change_are_refused_by_name() {
        let signers = Keys::new();
        let pair = SigningKey::generate(KeyKind::EdDsa, &signers.path("pair")).unwrap();
        let public = fs::read_to_string(&pair[1]).unwrap();
        let private = fs::read_to_string(&pair[0]).unwrap();
        let other = public.replace("MCowBQYDK2Vw", "MCowBQYDK2Vu"); // X25519
        for (name, text, mode, complaint) in [
            ("a.key", SECRET, 0o644, "can read or change it"),
            ("a.key", SECRET, 0o602, "can read or change it"),
            ("a.key", &SECRET[..31], 0o600, "at least 32 characters, not 31"),
            ("a.key", "", 0o600, "at least 32 characters, not 0"),
            ("a.key", "a secret with blanks in it, which is long", 0o600, "no blanks"),
            ("a.key", &"x".repeat(20_000), 0o600, "more than 16384 bytes"),
            ("a.pem", public.as_str(), 0o646, "can change this key"),
            ("a.pem", private.as_str(), 0o600, "a private key"),
            ("a.pem", &other, 0o644, "no Ed25519 public key"),
            ("a.pem", "-----BEGIN PUBLIC KEY-----\n", 0o644, "a.pem: "),
            ("ä.key", SECRET, 0o600, "called after its file"),
            (".key", SECRET, 0o600, "called after its file"),
        ] {
            let keys = Keys::new();
            let path = keys.write(name, text, mode);
            let error = TokenKeys::read(&path).unwrap_err().to_string();
            assert!(
                error.contains(complaint) && error.starts_with(path.to_str().unwrap()),
                "{error}"
            );
            assert!(text.len() < 20 || !error.contains(text), "{error}");
        }
        let keys = Keys::new();
        assert!(keys.read().unwrap_err().contains("no key in this directory"));
        keys.write("notes.txt", "not a key", 0o644);
        assert!(keys.read().unwrap_err().contains("no key in this directory"));
        keys.write("a.key", SECRET, 0o600);
        assert_eq!(keys.read().unwrap().names(), ["a"]);
        keys.write("a.pub.pem", &public, 0o644);
        assert!(keys.read().unwrap_err().contains("two keys are called \"a\""));
        for number in 0..KEYS_MAX {
            keys.write(&format!("key{number}.key"), SECRET, 0o600);
        }
        assert!(keys.read().unwrap_err().contains("more than 64 keys"));
        assert!(TokenKeys::read(&keys.path("nothing.key")).is_err());
        let private = SigningKey::read(&pair[1]).err().unwrap();
        assert!(private.to_string().contains("a public key"), "{private}");
    }
}
