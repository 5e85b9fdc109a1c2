//! Making access tokens: for `weir token create`, and for applications in Rust. Everybody else can use any library for JSON Web Tokens.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::{EncodeConfig, LineEnding, Pem};
use zeroize::Zeroizing;

use super::claims::Claims;
use super::token_keys::{KeyError, choose_library, failed, name_of, read_file, secret_in};

/// What a key is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// One secret, which the server and whoever makes tokens have.
    Hs256,
    /// A private key for whoever makes tokens, and a public one for the server.
    EdDsa,
}

/// A key that access tokens are signed with.
pub struct SigningKey {
    name: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// The key in a file: a secret for HS256, or an Ed25519 private key in PEM (PKCS #8).
    ///
    /// # Errors
    /// When the file cannot be read, or has no such key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        choose_library();
        let failed = failed(path);
        let name = name_of(path)?;
        let (text, _) = read_file(path)?;
        if !text.starts_with("-----BEGIN") {
            let secret = secret_in(&text).map_err(|reason| failed(&reason))?;
            return Ok(Self {
                name,
                algorithm: Algorithm::HS256,
                key: EncodingKey::from_secret(secret.as_bytes()).map_err(|error| failed(&error))?,
            });
        }
        let pem = pem::parse(text.as_bytes()).map_err(|error| failed(&error))?;
        if pem.tag() == "PUBLIC KEY" {
            return Err(failed(
                &"this is a public key, which checks tokens; sign them with the private key",
            ));
        }
        let der = Zeroizing::new(pem.into_contents());
        Ed25519KeyPair::from_pkcs8(&der).map_err(|_| failed(&"this is no Ed25519 private key (PRIVATE KEY in PEM)"))?;
        Ok(Self {
            name,
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(&der),
        })
    }

    /// Its name: that of its file up to the first dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A token that says this, signed with the key, which it calls `name` (`kid`).
    ///
    /// # Errors
    /// When the key cannot be used after all.
    pub fn sign(&self, claims: &Claims, name: &str) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(name.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key)
    }

    /// Makes a new key and writes it into new files, whose names begin with `path`: `.key` for a secret; for a pair `.pem` with the
    /// private key, and `.pub.pem` with the public one. Returns the files, the one for the server last.
    ///
    /// # Errors
    /// When a file is there already or cannot be written, or there is no source of randomness.
    pub fn generate(kind: KeyKind, path: &Path) -> Result<Vec<PathBuf>, KeyError> {
        name_of(path)?;
        let no_randomness = |_| failed(path)(&"the system gives no random numbers");
        let with_end = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        match kind {
            KeyKind::Hs256 => {
                let mut bytes = Zeroizing::new([0; 32]);
                aws_lc_rs::rand::fill(&mut *bytes).map_err(no_randomness)?;
                let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
                let text = Zeroizing::new(digits.collect::<String>() + "\n");
                let file = with_end(".key");
                write_new(&file, &text, 0o600)?;
                Ok(vec![file])
            }
            KeyKind::EdDsa => {
                let private = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(no_randomness)?;
                let pair = Ed25519KeyPair::from_pkcs8(private.as_ref());
                let pair = pair.map_err(|error| failed(path)(&error))?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(no_randomness)?;
                let files = [with_end(".pem"), with_end(".pub.pem")];
                let text = |tag: &str, der: &[u8]| {
                    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
                    Zeroizing::new(pem::encode_config(&Pem::new(tag, der), config))
                };
                write_new(&files[0], &text("PRIVATE KEY", private.as_ref()), 0o600)?;
                write_new(&files[1], &text("PUBLIC KEY", public.as_ref()), 0o644)?;
                Ok(files.into())
            }
        }
    }
}

/// Writes a file that was not there.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| failed(path)(&error))
}
