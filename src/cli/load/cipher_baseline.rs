//! The cipher baseline: what the ciphers alone cost.
//!
//! The same algorithms of the same crates as the worker's, reading the train and writing the message as the worker does, and
//! nothing else: no streams, no indices, no windows. Nobody could unprotect what comes out.

use anyhow::{Context as _, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use weir_worker::net::send::Message;

use crate::cli::measuring::client::Protection;

/// Of the baseline's packets, which have neither CSRCs nor extensions.
const HEADER_BYTES: usize = 12;

/// One receiver's key.
pub(super) struct CipherBaseline {
    cipher: Cipher,
    overhead: usize,
    /// What makes each nonce another one.
    packets: u64,
}

enum Cipher {
    Gcm(LessSafeKey),
    Cm(Box<CounterMode>),
}

struct CounterMode {
    aes: EncryptingKey,
    mac: Hmac<Sha1>,
}

impl CipherBaseline {
    /// With a key of its own for each `number`, so that keys are as far apart in memory as the worker's.
    pub(super) fn new(protection: Protection, number: usize) -> anyhow::Result<Self> {
        let mut key = [0x5a; 32];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let cipher = match protection {
            Protection::Gcm => Cipher::Gcm(LessSafeKey::new(
                UnboundKey::new(&AES_256_GCM, &key).context("making a key")?,
            )),
            Protection::Cm => Cipher::Cm(Box::new(CounterMode {
                aes: UnboundCipherKey::new(&AES_128, &key[..16])
                    .and_then(EncryptingKey::ctr)
                    .context("making a key")?,
                mac: Hmac::new_from_slice(&key[..20]).context("making a key")?,
            })),
        };
        Ok(Self {
            cipher,
            overhead: protection.profile().rtp_overhead(),
            packets: 0,
        })
    }

    /// What is added to each packet.
    pub(super) fn overhead(&self) -> usize {
        self.overhead
    }

    /// The bytes that a message needs when it is protected.
    pub(super) fn room(&self, message: &Message) -> usize {
        message.len + message.packets() * self.overhead
    }

    /// Protects packets of `segment` bytes into the start of `buffer`, and says how many bytes they are then.
    pub(super) fn protect_train(&mut self, train: &[u8], segment: usize, buffer: &mut [u8]) -> anyhow::Result<usize> {
        let mut end = 0;
        for packet in train.chunks(segment) {
            let buffer = buffer.get_mut(end..end + packet.len() + self.overhead);
            self.protect(packet, buffer.context("the buffer is too small for a protected train")?)?;
            end += packet.len() + self.overhead;
        }
        Ok(end)
    }

    #[inline]
    fn protect(&mut self, packet: &[u8], buffer: &mut [u8]) -> anyhow::Result<()> {
        ensure!(packet.len() >= HEADER_BYTES, "a packet without a header");
        let (header, payload) = packet.split_at(HEADER_BYTES);
        let number = self.packets;
        self.packets += 1;
        match &self.cipher {
            Cipher::Gcm(key) => {
                buffer[..HEADER_BYTES].copy_from_slice(header);
                let (protected, tag) = buffer[HEADER_BYTES..].split_at_mut(payload.len());
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&number.to_be_bytes());
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.seal_out_of_place_scatter(nonce, Aad::from(header), payload, protected, &[], tag)
                    .context("AES-GCM")
            }
            Cipher::Cm(mode) => {
                let (text, tag) = buffer.split_at_mut(packet.len());
                text.copy_from_slice(packet);
                let mut counter = [0; 16];
                // The last two bytes count the blocks of a packet.
                counter[6..14].copy_from_slice(&number.to_be_bytes());
                let context = EncryptionContext::Iv128(FixedLength::from(counter));
                mode.aes
                    .less_safe_encrypt(&mut text[HEADER_BYTES..], context)
                    .context("AES in counter mode")?;
                let mut mac = mode.mac.clone();
                mac.update(text);
                mac.update(&[0; 4]);
                let whole = mac.finalize().into_bytes();
                tag.copy_from_slice(&whole[..tag.len()]);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trains_stay_trains_and_no_packet_looks_like_another() {
        for protection in [Protection::Gcm, Protection::Cm] {
            let mut baseline = CipherBaseline::new(protection, 1).expect("a key");
            let overhead = protection.profile().rtp_overhead();
            let train = [[0x80; 100], [0x80; 100], [0x80; 100]].concat();
            let mut buffer = vec![0; 3 * (100 + overhead) + 1];
            assert_eq!(
                baseline
                    .protect_train(&train[..250], 100, &mut buffer)
                    .expect("it fits"),
                250 + 3 * overhead
            );
            let packets: Vec<&[u8]> = buffer[..250 + 3 * overhead].chunks(100 + overhead).collect();
            for packet in &packets {
                assert_eq!(packet[..HEADER_BYTES], train[..HEADER_BYTES]);
            }
            assert_ne!(packets[0][HEADER_BYTES..], packets[1][HEADER_BYTES..]);
            assert_ne!(packets[0][HEADER_BYTES..], train[HEADER_BYTES..100 + overhead]);
            assert!(baseline.protect_train(&train, 100, &mut buffer[..300]).is_err());
        }
    }
}
