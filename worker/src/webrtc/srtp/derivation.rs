//! Session keys out of a master key (RFC 3711 §4.3; for the GCM profiles RFC 7714 §11).

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::MasterKey;
use super::counter::Counter;
use super::keys::SALT_LEN_MAX;

/// Length of a key for HMAC-SHA1, in bytes (RFC 3711 §5.2).
const AUTH_KEY_LEN: usize = 20;

/// What the keys are for. RFC 3711 §4.3.2: each of the three keys of each has a label of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// Labels 0 to 2.
    Rtp,
    /// Labels 3 to 5.
    Rtcp,
}

/// The keys with which packets of one protocol and one direction are protected. Wiped when dropped; on the heap as master keys
/// are.
pub(super) struct SessionKeys {
    key: Box<[u8; 32]>,
    key_len: usize,
    /// Meaningless for the GCM profiles, which need none.
    auth: Box<[u8; AUTH_KEY_LEN]>,
    /// Padded with zeros at its end.
    salt: Box<[u8; SALT_LEN_MAX]>,
}

/// What session keys are derived with. To load the master key, and to wipe it, costs more than all that is derived from it: once is enough.
pub(super) struct Derivation<'a> {
    master: &'a MasterKey,
    keystream: Counter,
}

impl<'a> Derivation<'a> {
    pub(super) fn new(master: &'a MasterKey) -> Self {
        Self {
            master,
            keystream: Counter::new(master.key()),
        }
    }

    /// The keys for one protocol. The key derivation rate is zero, so they last as long as the master key.
    pub(super) fn session_keys(&self, protocol: Protocol) -> SessionKeys {
        let first = match protocol {
            Protocol::Rtp => 0,
            Protocol::Rtcp => 3,
        };
        let profile = self.master.profile();
        let mut keys = SessionKeys::empty(profile.key_len());
        self.fill(first, &mut keys.key[..profile.key_len()]);
        if !profile.is_aead() {
            self.fill(first + 1, &mut *keys.auth);
        }
        self.fill(first + 2, &mut keys.salt[..profile.salt_len()]);
        keys
    }

    /// RFC 3711 §4.3.1 and §4.3.3: the keystream of AES in counter mode under the master key, from `(label ‖ r) XOR salt` on,
    /// where r is zero.
    fn fill(&self, label: u8, out: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..SALT_LEN_MAX].copy_from_slice(self.master.salt());
        iv[7] ^= label;
        // What the keystream is added to.
        out.zeroize();
        let filled = self.keystream.crypt(iv, out);
        filled.expect("the cipher takes texts of any length that fits into memory");
        iv.zeroize();
    }
}

impl SessionKeys {
    fn empty(key_len: usize) -> Self {
        Self {
            key: Box::new([0; 32]),
            key_len,
            auth: Box::new([0; AUTH_KEY_LEN]),
            salt: Box::new([0; SALT_LEN_MAX]),
        }
    }

    /// The keys themselves, as the vectors of RFC 7714 give them.
    #[cfg(test)]
    pub(super) fn given(key: &[u8], salt: &[u8]) -> Self {
        let mut keys = Self::empty(key.len());
        keys.key[..key.len()].copy_from_slice(key);
        keys.salt[..salt.len()].copy_from_slice(salt);
        keys
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    pub(super) fn auth(&self) -> &[u8; AUTH_KEY_LEN] {
        &self.auth
    }

    pub(super) fn salt(&self) -> &[u8; SALT_LEN_MAX] {
        &self.salt
    }
}

impl Zeroize for SessionKeys {
    fn zeroize(&mut self) {
        self.key.zeroize();
        self.auth.zeroize();
        self.salt.zeroize();
    }
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for SessionKeys {}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::super::hex;
    use super::*;

    fn zeroizes_on_drop<T: ZeroizeOnDrop>() {}

    /// RFC 3711 appendix B.3: its master key and master salt.
    fn b_3(profile: Profile) -> MasterKey {
        let key = hex("e1f97a0d3e018be0d64fa32c06de4139");
        let salt = hex("0ec675ad498afeebb6960b3aabe6");
        MasterKey::new(profile, &key, &salt).unwrap()
    }

    #[test]
    fn rfc3711_b_3_session_keys() {
        for profile in [Profile::Aes128CmSha1_80, Profile::Aes128CmSha1_32] {
            let master = b_3(profile);
            let keys = Derivation::new(&master).session_keys(Protocol::Rtp);
            assert_eq!(keys.key(), hex("c61e7a93744f39ee10734afe3ff7a087"));
            assert_eq!(keys.salt()[..], hex("30cbbc08863d8c85d49db34a9ae1"));
            // The vector goes on to 94 bytes; an HMAC-SHA1 key has the first 20 of them.
            assert_eq!(keys.auth()[..], hex("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
        }
    }

    #[test]
    fn rfc3711_b_3_the_whole_authentication_key() {
        let mut key = [0xff; 94];
        Derivation::new(&b_3(Profile::Aes128CmSha1_80)).fill(1, &mut key);
        let expected = "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbcee049646c43d9327ad175578ef722\
                        70986371c10c9a369ac2f94a8c5fbcdddc256d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34db60db\
                        dfb2";
        assert_eq!(key[..], hex(expected)[..]);
    }

    #[test]
    fn control_packets_have_keys_of_their_own() {
        let keys = Derivation::new(&b_3(Profile::Aes128CmSha1_80)).session_keys(Protocol::Rtcp);
        assert_eq!(keys.key(), hex("4c1aa45a81f73d61c800bbb00fbb1eaa"));
        assert_eq!(keys.salt()[..], hex("9581c7ad87b3e530bf3e4454a8b3"));
        assert_eq!(keys.auth()[..], hex("8d54534feb49ae8e7993a6bd0b844fc323a93dfd"));
    }

    #[test]
    fn session_keys_are_wiped() {
        zeroizes_on_drop::<MasterKey>();
        zeroizes_on_drop::<SessionKeys>();
        let mut keys = Derivation::new(&b_3(Profile::Aes128CmSha1_80)).session_keys(Protocol::Rtp);
        keys.zeroize();
        assert_eq!(keys.key(), [0; 16]);
        assert_eq!((*keys.auth, *keys.salt), ([0; AUTH_KEY_LEN], [0; SALT_LEN_MAX]));
    }
}
