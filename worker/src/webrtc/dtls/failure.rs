//! Why DTLS sessions fail, in words and as the alerts that their peers get.

use thiserror::Error;

use super::settings::{CERTIFICATE_BYTES_MAX, HANDSHAKE_SILENCE_MAX, HANDSHAKE_TIME_MAX};

/// Why a session failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Failure {
    /// The peer's certificate is not the announced one.
    #[error("the peer's certificate does not have the fingerprint that the signalling announced")]
    Fingerprint,
    /// The peer showed no certificate.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// The peer's certificate has more than [`CERTIFICATE_BYTES_MAX`] bytes.
    #[error("the peer's certificate has more than {CERTIFICATE_BYTES_MAX} bytes")]
    CertificateTooLong,
    /// The peer's certificate cannot be read, or has a key of a kind that we cannot check.
    #[error("the peer's certificate cannot be read, or its key is not RSA, Ed25519 or ECDSA over P-224 to P-521")]
    UnsupportedCertificate,
    /// The peer has not the key of its certificate, or somebody changed what was said.
    #[error("the peer did not prove that it has its certificate's private key")]
    Signature,
    /// The peer and we have no SRTP profile in common.
    #[error("the peer offers no SRTP profile that Weir supports")]
    NoSrtpProfile,
    /// The peer and we have no cipher suite, group or signature in common.
    #[error("the peer offers no cipher suite, group or signature algorithm that Weir supports")]
    NothingInCommon,
    /// The peer speaks none of our versions.
    #[error("the peer does not support DTLS 1.2")]
    Version,
    /// Nothing came for [`HANDSHAKE_SILENCE_MAX`], or it took longer than [`HANDSHAKE_TIME_MAX`].
    #[error("the handshake took too long: nothing came for {} s, or {} s in all", HANDSHAKE_SILENCE_MAX.as_secs(), HANDSHAKE_TIME_MAX.as_secs())]
    Timeout,
    /// The peer refused, with this alert (RFC 5246 §7.2).
    #[error("the peer refused with alert {0} ({name})", name = alert_name(*.0))]
    Alert(u8),
    /// The peer broke the protocol.
    #[error("the peer violated the DTLS protocol")]
    Protocol,
    /// Our own engine has failed.
    #[error("the DTLS engine failed; please report this bug")]
    Internal,
    /// The worker that had begun the handshake is dead.
    #[error("the worker died while the handshake was going on")]
    WorkerDied,
}

impl Failure {
    /// The alert that the peer gets (RFC 5246 §7.2.2); `None` if it knows of the failure, or cannot be reached.
    pub(super) fn alert(self) -> Option<u8> {
        Some(match self {
            Self::Fingerprint | Self::CertificateTooLong => 42,
            Self::NoCertificate | Self::NoSrtpProfile | Self::NothingInCommon => 40,
            Self::UnsupportedCertificate => 43,
            Self::Signature => 51,
            Self::Version => 70,
            Self::Protocol => 10,
            Self::Internal | Self::WorkerDied => 80,
            Self::Timeout | Self::Alert(_) => return None,
        })
    }
}

/// The name of an alert (RFC 5246 §7.2, RFC 8446 §6, RFC 7301).
fn alert_name(alert: u8) -> &'static str {
    match alert {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "unknown",
    }
}
