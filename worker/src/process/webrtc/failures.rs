//! Failures of ICE and DTLS: counted by reason, reported to the supervisor, and logged up to a rate.

use std::time::Duration;

use tracing::info;
use weir_channel::id::TransportId;
use weir_channel::message::{Counts, Notification, WebRtcFailure, WebRtcFailureReason};

use crate::time::Time;
use crate::webrtc::budget::Budget;
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::ice::Refusal;
use crate::webrtc::transport::{Counters, IceEnd};

/// The rate of log lines: if every client fails, the log says so and stays readable.
const LOG_LINES: Budget = Budget::new(5, 20);

/// While a transport goes on refusing checks, the supervisor is notified again after this time.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(10);

/// The failures of all transports, counted and logged.
pub(super) struct FailureLog {
    pub(super) failures: Counts<WebRtcFailureReason>,
    log_budget: Budget,
}

impl Default for FailureLog {
    fn default() -> Self {
        Self {
            failures: Counts::default(),
            log_budget: LOG_LINES,
        }
    }
}

impl FailureLog {
    /// Counts a failure that occurred `times` times, and logs it if the rate allows.
    pub(super) fn record(&mut self, now: Time, transport: TransportId, failure: &WebRtcFailure, times: u64) {
        self.failures.add(failure.reason, times);
        if self.log_budget.take(now) {
            info!(id = %transport, reason = ?failure.reason, "{}", failure.message);
        }
    }
}

/// Which refused checks of a transport the supervisor has been notified of.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The counts of the last notification.
    last_notified: [u64; Refusal::ALL.len()],
    last_notified_at: Option<Time>,
}

impl Refusals {
    /// When to notify again, if there is anything new.
    pub(super) fn due(&self, counters: &Counters) -> Option<Time> {
        let has_more = Refusal::ALL
            .iter()
            .any(|refusal| counters.refused(*refusal) != self.last_notified[*refusal as usize]);
        let last_notified_at = self.last_notified_at.filter(|_| has_more)?;
        Some(last_notified_at + REFUSALS_INTERVAL)
    }

    /// What to notify of now: each reason whose count has grown, and by how much.
    pub(super) fn take(&mut self, now: Time, counters: &Counters) -> Vec<(WebRtcFailure, u64)> {
        if counters.refusals == self.last_notified.iter().sum::<u64>()
            || self
                .last_notified_at
                .is_some_and(|last_notified_at| now < last_notified_at + REFUSALS_INTERVAL)
        {
            return Vec::new();
        }
        self.last_notified_at = Some(now);
        let mut changes = Vec::new();
        for refusal in Refusal::ALL {
            let (count, last) = (counters.refused(refusal), &mut self.last_notified[refusal as usize]);
            if count > *last {
                changes.push((of_refusal(refusal), count - *last));
                *last = count;
            }
        }
        changes
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
        Failure::WorkerDied => WebRtcFailureReason::WorkerDied,
    };
    failure(reason, &cause.to_string())
}

fn failure(reason: WebRtcFailureReason, message: &str) -> WebRtcFailure {
    WebRtcFailure {
        reason,
        message: message.to_owned(),
    }
}
