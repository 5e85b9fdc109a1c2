//! What fails in ICE and DTLS: counted by reason, told to the supervisor, and written to the log now and then.

use std::time::Duration;

use tracing::info;
use weir_channel::id::TransportId;
use weir_channel::message::{Counts, Notification, WebRtcFailure, WebRtcFailureReason};

use crate::time::Time;
use crate::webrtc::budget::Budget;
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::ice::Refusal;
use crate::webrtc::transport::{Counters, IceEnd};

/// Lines a second that the log gets: a server that everybody fails at says so and stays readable.
const LINES: Budget = Budget::new(5, 20);

/// Checks that a transport refuses are told of again after this, while it goes on.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(10);

/// All transports' together, and what is said of them.
pub(super) struct Record {
    pub(super) failures: Counts<WebRtcFailureReason>,
    lines: Budget,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            failures: Counts::default(),
            lines: LINES,
        }
    }
}

impl Record {
    /// Something has failed, so and so often since it was noted last.
    pub(super) fn note(&mut self, now: Time, transport: TransportId, failure: &WebRtcFailure, times: u64) {
        self.failures.add(failure.reason, times);
        if self.lines.take(now) {
            info!(id = %transport, reason = ?failure.reason, "{}", failure.message);
        }
    }
}

/// What a transport's refusals come to.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Of these it was told of already.
    told: [u64; Refusal::ALL.len()],
    told_at: Option<Time>,
}

impl Refusals {
    /// When there may be more to tell.
    pub(super) fn due(&self, counters: &Counters) -> Option<Time> {
        let untold = Refusal::ALL
            .iter()
            .any(|refusal| counters.refused(*refusal) != self.told[*refusal as usize]);
        let told_at = self.told_at.filter(|_| untold)?;
        Some(told_at + REFUSALS_INTERVAL)
    }

    /// What is to be told now: each reason that is new, and how often it came.
    pub(super) fn take(&mut self, now: Time, counters: &Counters) -> Vec<(WebRtcFailure, u64)> {
        if counters.refusals == self.told.iter().sum::<u64>()
            || self.told_at.is_some_and(|told_at| now < told_at + REFUSALS_INTERVAL)
        {
            return Vec::new();
        }
        self.told_at = Some(now);
        let mut news = Vec::new();
        for refusal in Refusal::ALL {
            let (count, told) = (counters.refused(refusal), &mut self.told[refusal as usize]);
            if count > *told {
                news.push((of_refusal(refusal), count - *told));
                *told = count;
            }
        }
        news
    }
}

/// That a transport refuses checks.
pub(super) fn refused(transport: TransportId, failure: WebRtcFailure) -> Notification {
    Notification::ChecksRefused { transport, failure }
}

fn of_refusal(refusal: Refusal) -> WebRtcFailure {
    let (reason, message) = match refusal {
        Refusal::BadRequest => (
            WebRtcFailureReason::CheckBadRequest,
            "connectivity checks lack required attributes (RFC 8445 §7.1)",
        ),
        Refusal::Unauthenticated => (
            WebRtcFailureReason::CheckUnauthenticated,
            "connectivity checks have another user name or password than this transport",
        ),
        Refusal::UnknownAttribute => (
            WebRtcFailureReason::CheckUnknownAttribute,
            "connectivity checks have unknown attributes that must be understood (RFC 8489 §15)",
        ),
        Refusal::RoleConflict => (
            WebRtcFailureReason::CheckRoleConflict,
            "the peer takes the controlled role; this transport is ICE-lite, so the peer must be controlling (a=ice-lite)",
        ),
    };
    failure(reason, message)
}

pub(super) fn of_ice_end(end: IceEnd) -> WebRtcFailure {
    match end {
        IceEnd::ConsentExpired => failure(
            WebRtcFailureReason::ConsentExpired,
            "no connectivity check has come for 30 s",
        ),
        IceEnd::ConnectionClosed => failure(
            WebRtcFailureReason::ConnectionClosed,
            "the last TCP connection to the peer is closed",
        ),
    }
}

pub(super) fn of_dtls(cause: Failure) -> WebRtcFailure {
    let reason = match cause {
        Failure::Fingerprint => WebRtcFailureReason::Fingerprint,
        Failure::NoCertificate => WebRtcFailureReason::NoCertificate,
        Failure::CertificateTooLong => WebRtcFailureReason::CertificateTooLong,
        Failure::UnsupportedCertificate => WebRtcFailureReason::UnsupportedCertificate,
        Failure::Signature => WebRtcFailureReason::Signature,
        Failure::NoSrtpProfile => WebRtcFailureReason::NoSrtpProfile,
        Failure::NothingInCommon => WebRtcFailureReason::NothingInCommon,
        Failure::Version => WebRtcFailureReason::Version,
        Failure::Timeout => WebRtcFailureReason::Timeout,
        Failure::Alert(_) => WebRtcFailureReason::Alert,
        Failure::Protocol => WebRtcFailureReason::Protocol,
        Failure::Internal => WebRtcFailureReason::Internal,
    };
    failure(reason, &cause.to_string())
}

fn failure(reason: WebRtcFailureReason, message: &str) -> WebRtcFailure {
    WebRtcFailure {
        reason,
        message: message.to_owned(),
    }
}
