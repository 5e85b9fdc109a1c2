//! How a worker process ends, and what its end says.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;
use weir_channel::error::ChannelError;
use weir_worker::exit::Exit;

use crate::server::model::error::DeathCause;
use crate::server::workers::body::Body;
#[cfg(test)]
use crate::server::workers::simulated;

/// A worker whose channel has ended is given this long to exit by itself, so that its exit code is known; and one that has
/// exited, for its last words.
pub(crate) const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Ends a process, if it has not ended, and reaps it; one that is dying already, and has no memory any more, may be left to be reaped
/// later. `cause` is why it has to end; `None` when it is about to exit by itself, and its exit tells why.
pub(crate) async fn end(child: &mut Body, cause: Option<DeathCause>) -> DeathCause {
    let (grace, cause) = match cause {
        Some(cause) => (Duration::ZERO, cause),
        None => match child.id().and_then(exit_of_dying) {
            Some(status) => return exited(Ok(status)),
            None => (EXIT_GRACE, DeathCause::ChannelClosed),
        },
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

/// How a process has ended whose descriptors the kernel is still closing, which takes milliseconds if it had thousands: its memory is gone, so
/// it changes nothing any more. `None`: it is not that far, or nobody may know it yet.
fn exit_of_dying(pid: u32) -> Option<ExitStatus> {
    #[cfg(test)]
    if simulated::now_ns().is_some() {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    exit_in(&stat)
}

/// As [`exit_of_dying`], by what proc_pid_stat(5) describes.
fn exit_in(stat: &str) -> Option<ExitStatus> {
    const FIRST_AFTER_NAME: usize = 3;
    const VIRTUAL_BYTES: usize = 23;
    // As waitpid(2) gives it; 0 for those who may not know.
    const EXIT_CODE: usize = 52;
    let (_, after_name) = stat.rsplit_once(')')?;
    let field = |number: usize| after_name.split_ascii_whitespace().nth(number - FIRST_AFTER_NAME);
    let code = field(EXIT_CODE)?.parse().ok()?;
    (field(VIRTUAL_BYTES) == Some("0") && code != 0).then(|| ExitStatus::from_raw(code))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_memory_has_ended_as_it_says() {
        let stat = |bytes: u64, code: i32| {
            let before = "7 (a) worker) Z 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100";
            format!("{before} {bytes} 0 0{} {code}", " 0".repeat(26))
        };
        let how = |stat: &str| exit_in(stat).map(|status| (status.code(), status.signal()));
        assert_eq!(how(&stat(0, 9)), Some((None, Some(9))));
        assert_eq!(how(&stat(0, 101 << 8)), Some((Some(101), None)));
        assert_eq!(how(&stat(4_096, 9)), None, "it may still write");
        assert_eq!(how(&stat(0, 0)), None, "or it is not for us to know");
        assert_eq!((how(""), how("7 (weir) Z 1")), (None, None));
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert_eq!(how(&own), None, "{own}");
    }
}
