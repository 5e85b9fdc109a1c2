//! Protecting and unprotecting the bytes of one packet, given its index: AES-GCM (RFC 7714), and AES in counter mode with
//! HMAC-SHA1 (RFC 3711 §4).
//!
//! Nothing here remembers anything: whether an index may be used is for [`Outbound`](super::Outbound) and
//! [`Inbound`](super::Inbound) to say.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hmac::{Hmac, KeyInit as _, Mac};
use sha1::Sha1;
use zeroize::Zeroize;

use super::counter::Counter;
use super::derivation::{Derivation, Protocol, SessionKeys};
use super::error::Failed;
use super::header::RTCP_CLEAR_LEN;
use super::keys::SALT_LEN_MAX;
use super::{MasterKey, Profile};
use crate::webrtc::residue::without_residue;

/// RFC 7714 §13.1: tags of 16 bytes, for SRTP and SRTCP.
const GCM_TAG_LEN: usize = 16;

/// RFC 3711 §3.4: tags of 80 bits for SRTCP, whatever those of SRTP have.
const RTCP_SHA1_TAG_LEN: usize = 10;

/// The SRTCP index with its E flag in front.
const RTCP_INDEX_LEN: usize = 4;

/// In front of the SRTCP index: the packet is encrypted.
const E_FLAG: u32 = 1 << 31;

/// What came out, in short: the first 8 bytes of the packet's whole tag, also where fewer of them are sent. Equal only if
/// everything in the packet is, except with a probability of about 2⁻⁵⁸, which nobody without the key can better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Fingerprint(u64);

/// The keys of one protocol and one direction, ready for use.
pub(super) struct Cipher {
    salt: [u8; SALT_LEN_MAX],
    transform: Transform,
}

enum Transform {
    /// The key is wiped by aws-lc, which wipes all memory that it frees.
    Gcm(LessSafeKey),
    CounterMode(Box<CounterMode>),
}

/// AES in counter mode, and HMAC-SHA1. Both wipe their keys when dropped.
struct CounterMode {
    aes: Counter,
    /// With the key taken in already, so that a packet starts with a copy.
    mac: Hmac<Sha1>,
    rtp_tag_len: usize,
}

impl Cipher {
    /// Those for RTP and RTCP under a master key. No key is left on the stack.
    pub(super) fn both(master: &MasterKey) -> [Self; 2] {
        without_residue(|| {
            let derivation = Derivation::new(master);
            [Protocol::Rtp, Protocol::Rtcp]
                .map(|protocol| Self::new(master.profile(), &derivation.session_keys(protocol)))
        })
    }

    pub(super) fn new(profile: Profile, keys: &SessionKeys) -> Self {
        let transform = match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                let algorithm = match profile {
                    Profile::AeadAes256Gcm => &AES_256_GCM,
                    _ => &AES_128_GCM,
                };
                let key = UnboundKey::new(algorithm, keys.key()).expect("the key has the algorithm's length");
                Transform::Gcm(LessSafeKey::new(key))
            }
            Profile::Aes128CmSha1_80 | Profile::Aes128CmSha1_32 => Transform::CounterMode(Box::new(CounterMode {
                aes: Counter::new(keys.key()),
                mac: Hmac::new_from_slice(keys.auth()).expect("an HMAC takes keys of any length"),
                rtp_tag_len: profile.rtp_overhead(),
            })),
        };
        Self {
            salt: *keys.salt(),
            transform,
        }
    }

    /// Protects an RTP packet: `packet` has its clear part, of `clear_len` bytes, and behind it space for `payload` and tag.
    #[inline]
    pub(super) fn protect_rtp(
        &self,
        ssrc: u32,
        index: u64,
        clear_len: usize,
        payload: &[u8],
        packet: &mut [u8],
    ) -> Result<Fingerprint, Failed> {
        match &self.transform {
            Transform::Gcm(key) => {
                let (clear, protected) = packet.split_at_mut_checked(clear_len).ok_or(Failed)?;
                encrypt_gcm(key, self.gcm_nonce(ssrc, index), clear, Some(payload), protected)
            }
            Transform::CounterMode(mode) => {
                let text_end = packet.len().checked_sub(mode.rtp_tag_len).ok_or(Failed)?;
                let (text, tag) = packet.split_at_mut(text_end);
                mode.crypt(
                    &self.counter(ssrc, index),
                    Some(payload),
                    text.get_mut(clear_len..).ok_or(Failed)?,
                )?;
                Ok(mode.authenticate(text, &rollover(index), tag))
            }
        }
    }

    /// Unprotects an RTP packet in place, and says how long it is without its tag. What fails leaves `packet` worthless.
    #[inline]
    pub(super) fn unprotect_rtp(
        &self,
        ssrc: u32,
        index: u64,
        clear_len: usize,
        packet: &mut [u8],
    ) -> Result<usize, Failed> {
        match &self.transform {
            Transform::Gcm(key) => {
                let (clear, protected) = packet.split_at_mut_checked(clear_len).ok_or(Failed)?;
                let nonce = self.gcm_nonce(ssrc, index);
                let payload = key
                    .open_in_place(nonce, Aad::from(&*clear), protected)
                    .map_err(|_| Failed)?;
                Ok(clear_len + payload.len())
            }
            Transform::CounterMode(mode) => {
                let text_end = packet.len().checked_sub(mode.rtp_tag_len).ok_or(Failed)?;
                let (text, tag) = packet.split_at_mut(text_end);
                mode.verify(text, &rollover(index), tag)?;
                mode.crypt(
                    &self.counter(ssrc, index),
                    None,
                    text.get_mut(clear_len..).ok_or(Failed)?,
                )?;
                Ok(text_end)
            }
        }
    }

    /// Protects an RTCP packet of `len` bytes in place: behind it `packet` has space for tag and index.
    pub(super) fn protect_rtcp(&self, ssrc: u32, index: u32, len: usize, packet: &mut [u8]) -> Result<(), Failed> {
        let trailer = (E_FLAG | index).to_be_bytes();
        match &self.transform {
            Transform::Gcm(key) => {
                let (protected, index_bytes) = packet.split_at_mut_checked(len + GCM_TAG_LEN).ok_or(Failed)?;
                index_bytes.copy_from_slice(&trailer);
                let (clear, protected) = protected.split_at_mut_checked(RTCP_CLEAR_LEN).ok_or(Failed)?;
                let mut associated = [0; RTCP_CLEAR_LEN + RTCP_INDEX_LEN];
                associated[..RTCP_CLEAR_LEN].copy_from_slice(clear);
                associated[RTCP_CLEAR_LEN..].copy_from_slice(&trailer);
                encrypt_gcm(
                    key,
                    self.gcm_nonce(ssrc, u64::from(index)),
                    &associated,
                    None,
                    protected,
                )?;
            }
            Transform::CounterMode(mode) => {
                let (text, tag) = packet.split_at_mut_checked(len + RTCP_INDEX_LEN).ok_or(Failed)?;
                let reports = text.get_mut(RTCP_CLEAR_LEN..len).ok_or(Failed)?;
                mode.crypt(&self.counter(ssrc, u64::from(index)), None, reports)?;
                text[len..].copy_from_slice(&trailer);
                mode.authenticate(text, &[], tag);
            }
        }
        Ok(())
    }

    /// The index in an SRTCP packet; `None` if it is too short to have one.
    pub(super) fn rtcp_index(&self, packet: &[u8]) -> Option<u32> {
        let end = match self.transform {
            Transform::Gcm(_) => packet.len(),
            Transform::CounterMode(_) => packet.len().checked_sub(RTCP_SHA1_TAG_LEN)?,
        };
        Some(u32::from_be_bytes(*packet.get(..end)?.last_chunk()?) & !E_FLAG)
    }

    /// Unprotects an RTCP packet in place, encrypted or, with the E flag at zero, only authenticated, and says how long it is
    /// without its trailer. What fails leaves `packet` worthless.
    pub(super) fn unprotect_rtcp(&self, ssrc: u32, packet: &mut [u8]) -> Result<usize, Failed> {
        let index = self.rtcp_index(packet).ok_or(Failed)?;
        match &self.transform {
            Transform::Gcm(key) => {
                let nonce = self.gcm_nonce(ssrc, u64::from(index));
                let (protected, trailer) = packet.split_last_chunk_mut::<RTCP_INDEX_LEN>().ok_or(Failed)?;
                let trailer = *trailer;
                let len = protected.len().checked_sub(GCM_TAG_LEN).ok_or(Failed)?;
                let (clear, rest) = protected.split_at_mut_checked(RTCP_CLEAR_LEN).ok_or(Failed)?;
                if is_encrypted(trailer) {
                    let mut associated = [0; RTCP_CLEAR_LEN + RTCP_INDEX_LEN];
                    associated[..RTCP_CLEAR_LEN].copy_from_slice(clear);
                    associated[RTCP_CLEAR_LEN..].copy_from_slice(&trailer);
                    key.open_in_place(nonce, Aad::from(associated), rest)
                        .map_err(|_| Failed)?;
                    return Ok(len);
                }
                // RFC 7714 §9.3: everything is associated data, the index right behind the packet, where the tag is.
                let mut tag = [0; GCM_TAG_LEN];
                tag.copy_from_slice(protected.get(len..).ok_or(Failed)?);
                protected[len..len + RTCP_INDEX_LEN].copy_from_slice(&trailer);
                let associated = Aad::from(&protected[..len + RTCP_INDEX_LEN]);
                key.open_in_place(nonce, associated, &mut tag).map_err(|_| Failed)?;
                Ok(len)
            }
            Transform::CounterMode(mode) => {
                let text_end = packet.len().checked_sub(RTCP_SHA1_TAG_LEN).ok_or(Failed)?;
                let (text, tag) = packet.split_at_mut(text_end);
                mode.verify(text, &[], tag)?;
                let (text, trailer) = text.split_last_chunk_mut::<RTCP_INDEX_LEN>().ok_or(Failed)?;
                if is_encrypted(*trailer) {
                    let reports = text.get_mut(RTCP_CLEAR_LEN..).ok_or(Failed)?;
                    mode.crypt(&self.counter(ssrc, u64::from(index)), None, reports)?;
                }
                Ok(text.len())
            }
        }
    }

    /// RFC 7714 §8.1 and §9.1: 16 bits of zeros, the SSRC, and the index in 48 bits, all XOR the salt.
    #[inline]
    fn gcm_nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut bits = [0; 16];
        bits[4..].copy_from_slice(&self.salt[..12]);
        let mixed = u128::from_be_bytes(bits) ^ (u128::from(ssrc) << 48) ^ u128::from(index);
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&mixed.to_be_bytes()[4..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// RFC 3711 §4.1.1: salt · 2¹⁶ XOR SSRC · 2⁶⁴ XOR index · 2¹⁶; the low 16 bits count the blocks.
    #[inline]
    fn counter(&self, ssrc: u32, index: u64) -> [u8; 16] {
        let mut bits = [0; 16];
        bits[..SALT_LEN_MAX].copy_from_slice(&self.salt);
        (u128::from_be_bytes(bits) ^ (u128::from(ssrc) << 64) ^ (u128::from(index) << 16)).to_be_bytes()
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

/// `protected` is the text, or the space for what is read from `text`, and behind it the space for the tag.
#[inline]
fn encrypt_gcm(
    key: &LessSafeKey,
    nonce: Nonce,
    associated: &[u8],
    text: Option<&[u8]>,
    protected: &mut [u8],
) -> Result<Fingerprint, Failed> {
    let (protected, tag) = protected.split_last_chunk_mut::<GCM_TAG_LEN>().ok_or(Failed)?;
    let associated = Aad::from(associated);
    match text {
        Some(text) => key.seal_out_of_place_scatter(nonce, associated, text, protected, &[], tag),
        None => key.seal_in_place_scatter(nonce, associated, protected, &[], tag),
    }
    .map_err(|_| Failed)?;
    Ok(Fingerprint::of(tag))
}

impl CounterMode {
    /// Encrypts or decrypts `text` in place, or from `from` into it.
    #[inline]
    fn crypt(&self, counter: &[u8; 16], from: Option<&[u8]>, text: &mut [u8]) -> Result<(), Failed> {
        if let Some(from) = from {
            // A pass of its own, but what it costs is little beside that of the tag.
            text.get_mut(..from.len()).ok_or(Failed)?.copy_from_slice(from);
        }
        self.aes.crypt(*counter, text)
    }

    /// Writes as much of the tag as fits.
    #[inline]
    fn authenticate(&self, text: &[u8], rollover: &[u8], tag: &mut [u8]) -> Fingerprint {
        let mut mac = self.mac.clone();
        mac.update(text);
        mac.update(rollover);
        let whole = mac.finalize().into_bytes();
        tag.copy_from_slice(&whole[..tag.len()]);
        Fingerprint::of(&whole)
    }

    #[inline]
    fn verify(&self, text: &[u8], rollover: &[u8], tag: &[u8]) -> Result<(), Failed> {
        let mut mac = self.mac.clone();
        mac.update(text);
        mac.update(rollover);
        mac.verify_truncated_left(tag).map_err(|_| Failed)
    }
}

impl Fingerprint {
    fn of(tag: &[u8]) -> Self {
        Self(tag.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }
}

/// RFC 3711 §4.2: the rollover counter is authenticated with the packet, which does not carry it.
#[inline]
fn rollover(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

fn is_encrypted(trailer: [u8; RTCP_INDEX_LEN]) -> bool {
    u32::from_be_bytes(trailer) & E_FLAG != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::ZeroizeOnDrop;

    use super::super::{INDEX_MAX, MasterKey, hex};
    use super::*;

    const KEY_128: &str = "000102030405060708090a0b0c0d0e0f";
    const KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    /// "Quid pro quo".
    const SALT: &str = "517569642070726f2071756f";
    const RTP_CLEAR: &str = "8040f17b8041f8d35501a0b2";
    /// "Gallia est omnis divisa in partes tres".
    const RTP_PAYLOAD: &str = "47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573";
    const RTP_SSRC: u32 = 0x5501_a0b2;
    const RTP_INDEX: u64 = 0xf17b;
    const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                        deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
    const RTCP_SSRC: u32 = 0x4d61_7273;
    const RTCP_INDEX: u32 = 0x5d4;

    fn gcm(key: &str) -> Cipher {
        let keys = SessionKeys::given(&hex(key), &hex(SALT));
        let profile = if key.len() == 32 {
            Profile::AeadAes128Gcm
        } else {
            Profile::AeadAes256Gcm
        };
        Cipher::new(profile, &keys)
    }

    fn check_rtp(cipher: &Cipher, ssrc: u32, index: u64, plain: &[u8], protected: &[u8]) {
        let mut packet = vec![0xee; protected.len()];
        packet[..12].copy_from_slice(&plain[..12]);
        assert!(cipher.protect_rtp(ssrc, index, 12, &plain[12..], &mut packet).is_ok());
        assert_eq!(packet, protected);

        assert_eq!(cipher.unprotect_rtp(ssrc, index, 12, &mut packet), Ok(plain.len()));
        assert_eq!(&packet[..plain.len()], plain);
    }

    fn check_rtcp(cipher: &Cipher, ssrc: u32, index: u32, plain: &[u8], protected: &[u8]) {
        let mut packet = plain.to_vec();
        packet.resize(protected.len(), 0xee);
        assert_eq!(cipher.protect_rtcp(ssrc, index, plain.len(), &mut packet), Ok(()));
        assert_eq!(packet, protected);
        check_rtcp_unprotects(cipher, ssrc, index, plain, protected);
    }

    fn check_rtcp_unprotects(cipher: &Cipher, ssrc: u32, index: u32, plain: &[u8], protected: &[u8]) {
        let mut packet = protected.to_vec();
        assert_eq!(cipher.rtcp_index(&packet), Some(index));
        assert_eq!(cipher.unprotect_rtcp(ssrc, &mut packet), Ok(plain.len()));
        assert_eq!(&packet[..plain.len()], plain);
    }

    #[test]
    fn rfc7714_16_srtp() {
        let plain = [hex(RTP_CLEAR), hex(RTP_PAYLOAD)].concat();
        for (key, protected) in [
            (
                KEY_128,
                "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833\
                 899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                KEY_256,
                "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b\
                 7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ] {
            let protected = [hex(RTP_CLEAR), hex(protected)].concat();
            check_rtp(&gcm(key), RTP_SSRC, RTP_INDEX, &plain, &protected);
        }
    }

    #[test]
    fn rfc7714_16_nonce() {
        let nonce = gcm(KEY_128).gcm_nonce(RTP_SSRC, RTP_INDEX);
        assert_eq!(nonce.as_ref()[..], hex("51753c6580c2726f20718414"));
        let nonce = gcm(KEY_128).gcm_nonce(RTCP_SSRC, u64::from(RTCP_INDEX));
        assert_eq!(nonce.as_ref()[..], hex("517524055203726f207170bb"));
    }

    proptest! {
        /// A nonce and a counter carry SSRC and index whole, so two of them are equal only if both are.
        #[test]
        fn nonces_differ_if_anything_does(ssrc: u32, index in 0..=INDEX_MAX) {
            let [counter_mode, _] = sha1_80();
            let xor = |bytes: &[u8], salt: &[u8]| -> Vec<u8> {
                bytes.iter().zip(salt).map(|(byte, salt)| byte ^ salt).collect()
            };
            let plain = |zeros| [&[0; 8][..zeros], &ssrc.to_be_bytes(), &index.to_be_bytes()[2..]].concat();
            let nonce = gcm(KEY_256).gcm_nonce(ssrc, index);
            prop_assert_eq!(xor(nonce.as_ref(), &hex(SALT)), plain(2));
            let counter = counter_mode.counter(ssrc, index);
            prop_assert_eq!(xor(&counter, &counter_mode.salt), plain(4));
            // Room for the blocks of the longest datagram.
            prop_assert_eq!(&counter[14..], &[0, 0]);
        }
    }

    #[test]
    fn rfc7714_16_tagging_only() {
        // The whole packet as its clear part.
        let packet = [hex(RTP_CLEAR), hex(RTP_PAYLOAD)].concat();
        for (key, tag) in [
            (KEY_128, "22493f82d2bce397e9d79e3b19aa4216"),
            (KEY_256, "a866d5910f887463067ceefec45215d4"),
        ] {
            let mut protected = packet.clone();
            protected.resize(packet.len() + 16, 0);
            let all_clear = packet.len();
            assert!(
                gcm(key)
                    .protect_rtp(RTP_SSRC, RTP_INDEX, all_clear, &[], &mut protected)
                    .is_ok()
            );
            assert_eq!(protected, [packet.clone(), hex(tag)].concat());
            assert_eq!(
                gcm(key).unprotect_rtp(RTP_SSRC, RTP_INDEX, all_clear, &mut protected),
                Ok(all_clear)
            );
        }
    }

    #[test]
    fn rfc7714_17_srtcp() {
        for (key, protected) in [
            (
                KEY_128,
                "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b46\
                 86303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
            ),
            (
                KEY_256,
                "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658\
                 c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
            ),
        ] {
            check_rtcp(&gcm(key), RTCP_SSRC, RTCP_INDEX, &hex(RTCP), &hex(protected));
        }
    }

    #[test]
    fn rfc7714_17_srtcp_without_encryption() {
        for (key, tag) in [
            (KEY_128, "841dd9683dd78ec92ae58790125f62b3"),
            (KEY_256, "91db4afbfeee5a978fab4393ed2615fe"),
        ] {
            let protected = [hex(RTCP), hex(tag), hex("000005d4")].concat();
            check_rtcp_unprotects(&gcm(key), RTCP_SSRC, RTCP_INDEX, &hex(RTCP), &protected);
            // The E flag is authenticated.
            let mut forged = protected.clone();
            forged[protected.len() - 4] ^= 0x80;
            assert_eq!(gcm(key).unprotect_rtcp(RTCP_SSRC, &mut forged), Err(Failed));
        }
    }

    fn sha1_80() -> [Cipher; 2] {
        let master = MasterKey::new(
            Profile::Aes128CmSha1_80,
            &hex("e1f97a0d3e018be0d64fa32c06de4139"),
            &hex("0ec675ad498afeebb6960b3aabe6"),
        )
        .unwrap();
        Cipher::both(&master)
    }

    /// RFC 3711 has no vectors of whole packets; these are the ones that implementations compare with each other, under
    /// the master key of its appendix B.3.
    #[test]
    fn whole_packets_under_the_keys_of_rfc3711_b_3() {
        let [rtp, rtcp] = sha1_80();
        let plain = hex("800f1234decafbadcafebabeabababababababababababababababab");
        let protected = hex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb");
        check_rtp(&rtp, 0xcafe_babe, 0x1234, &plain, &protected);
        let plain = hex("81c8000bcafebabeabababababababababababababababab");
        let protected = hex("81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798");
        check_rtcp(&rtcp, 0xcafe_babe, 1, &plain, &protected);
    }

    #[test]
    fn rfc3711_b_2_keystream() {
        let mut keys = SessionKeys::given(
            &hex("2b7e151628aed2a6abf7158809cf4f3c"),
            &hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd"),
        );
        let cipher = Cipher::new(Profile::Aes128CmSha1_80, &keys);
        keys.zeroize();
        assert_eq!(cipher.counter(0, 0)[..], hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd0000"));
        let Transform::CounterMode(mode) = &cipher.transform else {
            panic!("not counter mode");
        };
        // 0xff02 blocks, of which the appendix gives the first three and the last three.
        let mut keystream = vec![0; 0xff02 * 16];
        mode.crypt(&cipher.counter(0, 0), None, &mut keystream).unwrap();
        let first = "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0";
        let last = "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae6a2cc3787889374fbeb4c81b17ba6c44";
        assert_eq!(keystream[..48], hex(first));
        assert_eq!(keystream[keystream.len() - 48..], hex(last));
    }

    #[test]
    fn sha1_without_encryption_is_opened_too() {
        let [_, rtcp] = sha1_80();
        let Transform::CounterMode(mode) = &rtcp.transform else {
            panic!("not counter mode");
        };
        let plain = hex(RTCP);
        let mut protected = [plain.clone(), vec![0, 0, 5, 0xd4]].concat();
        let mut tag = [0; RTCP_SHA1_TAG_LEN];
        mode.authenticate(&protected, &[], &mut tag);
        protected.extend(tag);
        check_rtcp_unprotects(&rtcp, RTCP_SSRC, RTCP_INDEX, &plain, &protected);
    }

    #[test]
    fn ciphers_wipe_their_keys() {
        fn zeroizes_on_drop<T: ZeroizeOnDrop>() {}
        // An HMAC is two of these, and does not say so.
        zeroizes_on_drop::<Sha1>();
    }

    #[test]
    fn packets_too_short_for_anything() {
        let ciphers = [gcm(KEY_128), gcm(KEY_256), sha1_80().into_iter().next().unwrap()];
        for cipher in &ciphers {
            for len in 0..24 {
                let mut packet = vec![0x80; len];
                assert_eq!(cipher.unprotect_rtcp(1, &mut packet.clone()), Err(Failed));
                assert_eq!(cipher.unprotect_rtp(1, 1, 12, &mut packet), Err(Failed));
            }
        }
    }
}
