//! The protection profiles that DTLS negotiates (RFC 5764 §4.1.2, RFC 7714 §14.2).

/// A cipher, its key lengths and its tag lengths.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM`.
    AeadAes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`.
    AeadAes256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`. The one that every WebRTC endpoint has (RFC 8827 §6.5).
    Aes128CmSha1_80,
    /// `SRTP_AES128_CM_HMAC_SHA1_32`. Its SRTP tags have 32 bits; those of SRTCP have 80 all the same. Never negotiated by a
    /// handshake here; for keys that come by other ways.
    Aes128CmSha1_32,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::Aes128CmSha1_80,
        Self::Aes128CmSha1_32,
    ];

    /// What a handshake may choose, the one we like best first: AES-GCM costs a quarter of AES-CM with SHA-1.
    pub const NEGOTIATED: [Self; 3] = [Self::AeadAes256Gcm, Self::AeadAes128Gcm, Self::Aes128CmSha1_80];

    /// The most bytes that any profile adds to an RTP packet.
    pub const RTP_OVERHEAD_MAX: usize = 16;

    /// The most bytes that any profile adds to an RTCP packet.
    pub const RTCP_OVERHEAD_MAX: usize = 20;

    /// The number in DTLS's `use_srtp` extension.
    pub const fn id(self) -> u16 {
        match self {
            Self::Aes128CmSha1_80 => 0x0001,
            Self::Aes128CmSha1_32 => 0x0002,
            Self::AeadAes128Gcm => 0x0007,
            Self::AeadAes256Gcm => 0x0008,
        }
    }

    /// The profile with that number in DTLS's `use_srtp` extension, if a handshake may choose it.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::NEGOTIATED.into_iter().find(|profile| profile.id() == id)
    }

    /// The name in the registry of DTLS-SRTP profiles, without the `SRTP_` that all names there begin with.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::Aes128CmSha1_80 => "AES128_CM_HMAC_SHA1_80",
            Self::Aes128CmSha1_32 => "AES128_CM_HMAC_SHA1_32",
        }
    }

    /// Length of the master key, in bytes; that of the session keys for encryption is the same.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 16,
        }
    }

    /// Length of the master salt, in bytes; that of the session salts is the same.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 14,
        }
    }

    /// How many bytes to ask of DTLS's exporter: two keys and two salts (RFC 5764 §4.2).
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Length of the tag of an SRTP packet, in bytes, which is all that SRTP adds to it.
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
            Self::Aes128CmSha1_32 => 4,
        }
    }

    /// What SRTCP adds to an RTCP packet, in bytes: the tag, and the index with its E flag.
    pub const fn rtcp_overhead(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16 + 4,
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 10 + 4,
        }
    }

    /// Whether it is one of RFC 7714.
    pub(super) const fn is_aead(self) -> bool {
        matches!(self, Self::AeadAes128Gcm | Self::AeadAes256Gcm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lengths_are_those_of_the_registry() {
        // RFC 5764 §4.1.2 and RFC 7714 §12, §14.2: id, key, salt, tag of SRTP, tag and index of SRTCP.
        let rows = [
            (Profile::Aes128CmSha1_80, 1, 16, 14, 10, 14, 60),
            (Profile::Aes128CmSha1_32, 2, 16, 14, 4, 14, 60),
            (Profile::AeadAes128Gcm, 7, 16, 12, 16, 20, 56),
            (Profile::AeadAes256Gcm, 8, 32, 12, 16, 20, 88),
        ];
        for (profile, id, key, salt, rtp, rtcp, material) in rows {
            assert_eq!(profile.id(), id);
            assert_eq!((profile.key_len(), profile.salt_len()), (key, salt));
            assert_eq!((profile.rtp_overhead(), profile.rtcp_overhead()), (rtp, rtcp));
            assert_eq!(profile.keying_material_len(), material);
            assert!(rtp <= Profile::RTP_OVERHEAD_MAX && rtcp <= Profile::RTCP_OVERHEAD_MAX);
        }
        for profile in Profile::NEGOTIATED {
            assert_eq!(Profile::from_id(profile.id()), Some(profile));
        }
        for unknown in [0, 2, 3, 5, 6, 9, u16::MAX] {
            assert_eq!(Profile::from_id(unknown), None);
        }
    }
}
