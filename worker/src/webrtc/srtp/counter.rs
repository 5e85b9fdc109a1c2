//! AES in counter mode, for packets (RFC 3711 §4.1.1) and for key derivation (§4.3.3).

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::error::Failed;

/// A key of 16 or 32 bytes. aws-lc-rs wipes it when it is dropped.
pub(super) struct Counter(EncryptingKey);

impl Counter {
    pub(super) fn new(key: &[u8]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr);
        Self(key.expect("keys of all profiles have 16 or 32 bytes"))
    }

    /// Adds the keystream from `first` on to `text`: encrypts it, or decrypts it.
    ///
    /// The crate calls this "less safe" because it cannot know whether `first` was used before. For packets,
    /// [`Outbound`](super::Outbound) does.
    #[inline]
    pub(super) fn crypt(&self, first: [u8; 16], text: &mut [u8]) -> Result<(), Failed> {
        let context = EncryptionContext::Iv128(FixedLength::from(first));
        self.0.less_safe_encrypt(text, context).map(drop).map_err(|_| Failed)
    }
}
