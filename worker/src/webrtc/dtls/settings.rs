//! The settings of DTLS sessions, and their fixed limits.

use std::time::Duration;

/// A handshake in which the peer says nothing for so long, but hellos that it has said before, has failed.
pub const HANDSHAKE_SILENCE_MAX: Duration = Duration::from_secs(30);

/// A handshake that takes longer has failed. Peers whose timer is a second and doubles, OpenSSL's for instance, say everything six
/// times in the first half minute, and where a fifth is lost that is not always enough.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(120);

/// A flight that is not answered is sent again after this, then after twice as long, and so on. Peers in the same
/// continent answer in time; the second that TLS over TCP was made with would be heard as a second of silence.
pub(super) const RETRANSMISSION_TIME: Duration = Duration::from_millis(200);

/// The longest datagram of a handshake that we send: what fits through any path that carries media.
pub(super) const MTU_BYTES: usize = 1_200;

/// The longest certificate of a peer that is taken, in bytes. Those with an RSA key of 16,384 bits have 5,000, those with many names
/// three times as many.
pub const CERTIFICATE_BYTES_MAX: usize = 32_768;

/// Which protocol versions are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Versions {
    /// DTLS 1.2 alone, which all peers speak.
    #[default]
    Dtls12,
    /// DTLS 1.3 with those who offer it, else 1.2.
    Dtls12And13,
}

/// The settings of DTLS sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Which protocol versions are spoken.
    pub versions: Versions,
    /// As the server, answer a first message with a cookie only (RFC 6347 §4.2.1). It costs a round trip, and proves that
    /// the address that a check came from receives what is sent there, before more than that is sent.
    pub cookies: bool,
    /// Believe a certificate that only a SHA-1 or SHA-224 fingerprint was announced for.
    pub weak_fingerprints: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            versions: Versions::default(),
            cookies: true,
            weak_fingerprints: false,
        }
    }
}
