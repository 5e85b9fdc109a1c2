//! How a worker process ends, and what its end says.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;
use weir_channel::error::ChannelError;
use weir_worker::exit::Exit;

use crate::server::model::error::DeathCause;
use crate::server::workers::body::Body;

/// A worker whose channel has ended is given this long to exit by itself, so that its exit code is known; and one that has
/// exited, for its last words.
pub(crate) const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Ends a process, if it has not ended, and reaps it. `cause` is why it has to end; `None` when it is about to exit by
/// itself, and its exit tells why.
pub(crate) async fn end(child: &mut Body, cause: Option<DeathCause>) -> DeathCause {
    let (grace, cause) = match cause {
        Some(cause) => (Duration::ZERO, cause),
        None => (EXIT_GRACE, DeathCause::ChannelClosed),
    };
    // A process that has exited already tells its own cause, whatever made us look.
    let status = match timeout(grace, child.wait()).await {
        Ok(status) => Some(status),
        // The kernel may know more than the runtime has been told.
        Err(_) => child.try_wait().transpose(),
    };
    if let Some(status) = status {
        return match cause {
            DeathCause::ChannelClosed => exited(status),
            cause => cause,
        };
    }
    // Fails only when the process has exited in the meantime.
    let _ = child.start_kill();
    if let Err(error) = child.wait().await {
        tracing::error!(%error, "a worker process cannot be waited for");
    }
    cause
}

/// What the end of a channel says about the worker; `None` when it only says that the worker is going.
pub(crate) fn channel_cause(error: ChannelError) -> Option<DeathCause> {
    match error {
        ChannelError::Closed | ChannelError::ClosedInFrame { .. } => None,
        error @ ChannelError::DescriptorsFromWorker { .. } => Some(DeathCause::Misbehaved {
            reason: error.to_string(),
        }),
        error => Some(DeathCause::Protocol {
            reason: error.to_string(),
        }),
    }
}

pub(crate) fn exited(status: std::io::Result<ExitStatus>) -> DeathCause {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return DeathCause::NotStarted {
                reason: format!("it cannot be waited for: {error}"),
            };
        }
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => DeathCause::Exited {
            code,
            meaning: Exit::from_code(code).map_or_else(|| "not a code of a worker".to_owned(), |exit| exit.to_string()),
        },
        (None, signal) => {
            let signal = signal.unwrap_or(0);
            DeathCause::Signalled {
                signal,
                name: Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string()),
                core_dumped: status.core_dumped(),
            }
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
