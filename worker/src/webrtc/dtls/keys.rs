//! What a handshake yields for SRTP: a protection profile, and for each direction a master key and a master salt.

use std::fmt;

use zeroize::Zeroize;

use super::Role;

/// An SRTP protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SrtpProfile {
    /// SRTP_AEAD_AES_256_GCM.
    AeadAes256Gcm,
    /// SRTP_AEAD_AES_128_GCM.
    AeadAes128Gcm,
    /// SRTP_AES128_CM_HMAC_SHA1_80.
    Aes128CmSha1_80,
    /// SRTP_AES128_CM_HMAC_SHA1_32. Never negotiated by a handshake here; for keys that come by other ways.
    Aes128CmSha1_32,
}

impl SrtpProfile {
    /// What a handshake may choose, the one we like best first: AES-GCM costs a quarter of AES-CM with SHA-1.
    pub const NEGOTIATED: [Self; 3] = [Self::AeadAes256Gcm, Self::AeadAes128Gcm, Self::Aes128CmSha1_80];

    /// The number of the registry of DTLS-SRTP profiles.
    pub const fn id(self) -> u16 {
        match self {
            Self::Aes128CmSha1_80 => 1,
            Self::Aes128CmSha1_32 => 2,
            Self::AeadAes128Gcm => 7,
            Self::AeadAes256Gcm => 8,
        }
    }

    /// The profile of a number, if a handshake may choose it.
    pub fn of_id(id: u16) -> Option<Self> {
        Self::NEGOTIATED.into_iter().find(|profile| profile.id() == id)
    }

    /// Of a master key, in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 16,
        }
    }

    /// Of a master salt, in bytes.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 14,
        }
    }

    /// The name of the registry of DTLS-SRTP profiles.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
            Self::Aes128CmSha1_32 => "SRTP_AES128_CM_HMAC_SHA1_32",
        }
    }
}

impl fmt::Display for SrtpProfile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A master key and its salt, for one direction. Erased when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    bytes: [u8; 32 + 14],
    key_len: u8,
    salt_len: u8,
}

impl MasterKey {
    /// Of a profile; `None` if the lengths are not the profile's.
    pub fn new(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Option<Self> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return None;
        }
        let mut bytes = [0; 46];
        bytes[..key.len()].copy_from_slice(key);
        bytes[key.len()..key.len() + salt.len()].copy_from_slice(salt);
        Some(Self {
            bytes,
            key_len: key.len() as u8,
            salt_len: salt.len() as u8,
        })
    }

    /// The master key.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..usize::from(self.key_len)]
    }

    /// The master salt.
    pub fn salt(&self) -> &[u8] {
        let start = usize::from(self.key_len);
        &self.bytes[start..start + usize::from(self.salt_len)]
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterKey(..)")
    }
}

/// The keys of both directions. They exist only for a peer whose certificate has the announced fingerprint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SrtpKeys {
    /// The protection profile.
    pub profile: SrtpProfile,
    /// What the DTLS client sends with.
    pub client: MasterKey,
    /// What the DTLS server sends with.
    pub server: MasterKey,
    /// Our DTLS role.
    pub local: Role,
}

impl SrtpKeys {
    /// Cuts exported keying material into its parts: client's key, server's key, client's salt, server's salt (RFC 5764
    /// §4.2). `None` if it has not the length that the profile needs.
    pub fn from_exported(profile: SrtpProfile, material: &[u8], local: Role) -> Option<Self> {
        let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
        if material.len() != 2 * (key_len + salt_len) {
            return None;
        }
        let (keys, salts) = material.split_at(2 * key_len);
        Some(Self {
            profile,
            client: MasterKey::new(profile, &keys[..key_len], &salts[..salt_len])?,
            server: MasterKey::new(profile, &keys[key_len..], &salts[salt_len..])?,
            local,
        })
    }

    /// The master key for what we send.
    pub fn outbound(&self) -> &MasterKey {
        match self.local {
            Role::Client => &self.client,
            Role::Server => &self.server,
        }
    }

    /// The master key for what the peer sends.
    pub fn inbound(&self) -> &MasterKey {
        match self.local {
            Role::Client => &self.server,
            Role::Server => &self.client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_is_cut_as_rfc_5764_says() {
        for (profile, key_len, salt_len) in [
            (SrtpProfile::AeadAes256Gcm, 32, 12),
            (SrtpProfile::AeadAes128Gcm, 16, 12),
            (SrtpProfile::Aes128CmSha1_80, 16, 14),
            (SrtpProfile::Aes128CmSha1_32, 16, 14),
        ] {
            let parts: Vec<Vec<u8>> = [(1, key_len), (2, key_len), (3, salt_len), (4, salt_len)]
                .map(|(byte, len)| vec![byte; len])
                .to_vec();
            let keys = SrtpKeys::from_exported(profile, &parts.concat(), Role::Server).unwrap();
            assert_eq!((keys.client.key(), keys.client.salt()), (&parts[0][..], &parts[2][..]));
            assert_eq!((keys.server.key(), keys.server.salt()), (&parts[1][..], &parts[3][..]));
            assert_eq!((keys.outbound(), keys.inbound()), (&keys.server, &keys.client));
            let client = SrtpKeys {
                local: Role::Client,
                ..keys.clone()
            };
            assert_eq!((client.outbound(), client.inbound()), (&keys.client, &keys.server));
            assert!(!format!("{keys:?}").contains('['), "{keys:?}");

            let mut material = parts.concat();
            material.push(0);
            assert_eq!(SrtpKeys::from_exported(profile, &material, Role::Server), None);
            assert_eq!(SrtpKeys::from_exported(profile, &material[2..], Role::Server), None);
            assert_eq!(MasterKey::new(profile, &parts[0][1..], &parts[2]), None);
        }
    }
}
