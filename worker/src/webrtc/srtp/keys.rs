//! Master keys, and where they lie in what a DTLS handshake exports (RFC 5764 §4.2).

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Profile;

/// The label to export keying material with; there is no context.
pub const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// Longest master key, in bytes.
const KEY_LEN_MAX: usize = 32;

/// Longest master salt, in bytes. RFC 3711 §4.3.1: key derivation uses as many, and pads shorter ones with zeros.
pub(super) const SALT_LEN_MAX: usize = 14;

/// Our role in the DTLS handshake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The side that sends the first message (`setup:active`).
    Client,
    /// The side that waits for it (`setup:passive`), and that chooses how media is protected.
    Server,
}

/// Master key and master salt of one direction. Wiped when dropped, and never shown. On the heap, so that there is one copy of them
/// however often they are moved.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    profile: Profile,
    key: Box<[u8; KEY_LEN_MAX]>,
    salt: Box<[u8; SALT_LEN_MAX]>,
}

impl MasterKey {
    /// A key and a salt; `None` if their lengths are not the profile's.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return None;
        }
        let mut master = Self {
            profile,
            key: Box::new([0; KEY_LEN_MAX]),
            salt: Box::new([0; SALT_LEN_MAX]),
        };
        master.key[..key.len()].copy_from_slice(key);
        master.salt[..salt.len()].copy_from_slice(salt);
        Some(master)
    }

    /// The protection profile.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The key. Whoever copies it wipes the copy.
    pub fn key(&self) -> &[u8] {
        &self.key[..self.profile.key_len()]
    }

    /// The salt, padded with zeros at its end.
    pub fn salt(&self) -> &[u8; SALT_LEN_MAX] {
        &self.salt
    }
}

impl Zeroize for MasterKey {
    fn zeroize(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// The master keys of both directions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyingMaterial {
    /// The key for what we send.
    pub outbound: MasterKey,
    /// The key for what the peer sends.
    pub inbound: MasterKey,
}

impl KeyingMaterial {
    /// Cuts what DTLS exported under [`EXPORTER_LABEL`]: client's key, server's key, client's salt, server's salt. `None` if
    /// there are not [`Profile::keying_material_len`] bytes.
    ///
    /// The caller's bytes stay the caller's to wipe.
    pub fn split(profile: Profile, exported: &[u8], role: Role) -> Option<Self> {
        let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
        if exported.len() != profile.keying_material_len() {
            return None;
        }
        let (keys, salts) = exported.split_at(2 * key_len);
        let client = MasterKey::new(profile, &keys[..key_len], &salts[..salt_len])?;
        let server = MasterKey::new(profile, &keys[key_len..], &salts[salt_len..])?;
        Some(match role {
            Role::Client => Self {
                outbound: client,
                inbound: server,
            },
            Role::Server => Self {
                outbound: server,
                inbound: client,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_where_rfc_5764_puts_it() {
        // profile, client's key, server's key, client's salt, server's salt: first and last byte of each.
        let rows = [
            (Profile::Aes128CmSha1_80, [(0, 15), (16, 31), (32, 45), (46, 59)]),
            (Profile::Aes128CmSha1_32, [(0, 15), (16, 31), (32, 45), (46, 59)]),
            (Profile::AeadAes128Gcm, [(0, 15), (16, 31), (32, 43), (44, 55)]),
            (Profile::AeadAes256Gcm, [(0, 31), (32, 63), (64, 75), (76, 87)]),
        ];
        for (profile, parts) in rows {
            let exported: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
            let [client_key, server_key, client_salt, server_salt] =
                parts.map(|(first, last)| (first..=last).collect::<Vec<u8>>());
            let as_client = KeyingMaterial::split(profile, &exported, Role::Client).unwrap();
            let as_server = KeyingMaterial::split(profile, &exported, Role::Server).unwrap();
            for (master, key, salt) in [
                (&as_client.outbound, &client_key, &client_salt),
                (&as_client.inbound, &server_key, &server_salt),
                (&as_server.outbound, &server_key, &server_salt),
                (&as_server.inbound, &client_key, &client_salt),
            ] {
                assert_eq!(master.profile(), profile);
                assert_eq!(master.key(), key);
                assert_eq!(&master.salt()[..profile.salt_len()], salt);
                assert!(master.salt()[profile.salt_len()..].iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        for profile in Profile::ALL {
            let right = profile.keying_material_len();
            for actual in [0, 1, right - 1, right + 1] {
                assert_eq!(KeyingMaterial::split(profile, &vec![1; actual], Role::Client), None);
            }
            let (key, salt) = (vec![1; profile.key_len()], vec![1; profile.salt_len()]);
            assert_eq!(MasterKey::new(profile, &key[1..], &salt), None);
            assert_eq!(MasterKey::new(profile, &key, &salt[1..]), None);
            assert_eq!(MasterKey::new(profile, &salt, &key), None);
        }
    }

    #[test]
    fn keys_are_wiped_and_not_shown() {
        let mut master = MasterKey::new(Profile::AeadAes256Gcm, &[0xab; 32], &[0xcd; 12]).unwrap();
        let shown = format!("{master:?}");
        assert_eq!(shown, "MasterKey { profile: AeadAes256Gcm, .. }");
        master.zeroize();
        assert_eq!((*master.key, *master.salt), ([0; KEY_LEN_MAX], [0; SALT_LEN_MAX]));
    }
}
