//! A worker process comes up: it is made, and says hello.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir_channel::endpoint::SupervisorEndpoint;
use weir_channel::error::ChannelError;
use weir_channel::message::Hello;
use weir_channel::page::Page;

use crate::server::model::error::DeathCause;
use crate::server::model::shortage::Shortage;
use crate::server::workers::body::Body;
use crate::server::workers::end::{EXIT_GRACE, channel_cause, end, exited, millis};
use crate::server::workers::shared::Shared;
use crate::server::workers::slot::Slot;
use crate::server::workers::spawn::{LastLines, Process};

/// A process that has said hello, and was told nothing else yet.
#[derive(Debug)]
pub(crate) struct Born {
    /// Killed when dropped.
    pub(crate) child: Body,
    pub(crate) pid: u32,
    /// So many bytes of memory it has taken at once.
    pub(crate) reserve: u64,
    pub(crate) endpoint: SupervisorEndpoint,
    pub(crate) page: Option<Arc<Page>>,
    /// It has written more to its standard error than is borne.
    pub(crate) flooded: Arc<Notify>,
    pub(crate) listener: JoinHandle<()>,
    pub(crate) last_lines: LastLines,
}

/// A process that did not come up.
#[derive(Debug)]
pub(crate) struct Stillborn {
    pub(crate) pid: Option<u32>,
    pub(crate) cause: DeathCause,
    pub(crate) stderr: Vec<String>,
}

/// Makes a process for a slot, which takes `reserve` bytes of memory at once, and waits for its hello.
pub(crate) async fn bear(shared: &Shared, slot: &Slot, reserve: u64) -> Result<Born, Stillborn> {
    let process = match shared.workers.spawner.spawn(slot.id(), slot.cpu(), reserve).await {
        Ok(process) => process,
        Err(error) => {
            return Err(Stillborn {
                pid: None,
                cause: DeathCause::NotStarted {
                    reason: Shortage::of(&error).map_or_else(|| error.to_string(), |shortage| shortage.to_string()),
                },
                stderr: Vec::new(),
            });
        }
    };
    let Process {
        mut child,
        channel,
        page,
        last_lines,
        flooded,
        listener,
    } = process;
    let pid = child.id();
    let hello = Hello::new(env!("CARGO_PKG_VERSION"), slot.id());
    let mut closing = shared.workers.closing.subscribe();
    let connected = tokio::select! {
        biased;
        connected = SupervisorEndpoint::connect(channel, hello, shared.settings.start_timeout) => Ok(connected),
        status = child.wait() => Err(status),
        _ = closing.wait_for(|closing| *closing) => Ok(Err(ChannelError::ClosedHere)),
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(status) => return Err(stillborn(pid, exited(status), &last_lines, listener).await),
    };
    let error = match (connected, pid) {
        (Ok(endpoint), Some(pid)) => {
            return Ok(Born {
                child,
                pid,
                reserve,
                endpoint,
                page: page.map(Arc::new),
                flooded,
                listener,
                last_lines,
            });
        }
        // A process that was not waited for has a number.
        (Ok(_), None) => ChannelError::Closed,
        (Err(error), _) => error,
    };
    let cause = match error {
        ChannelError::HelloTimeout { after } => Some(DeathCause::NoHello {
            timeout_ms: millis(after),
        }),
        ChannelError::ClosedHere => Some(DeathCause::ServerClosed),
        error => channel_cause(error),
    };
    let cause = end(&mut child, cause).await;
    Err(stillborn(pid, cause, &last_lines, listener).await)
}

/// Hears the process out: what it has written is in the pipe. Only if it has handed the pipe on to somebody does it stay open.
async fn stillborn(
    pid: Option<u32>,
    cause: DeathCause,
    last_lines: &LastLines,
    mut listener: JoinHandle<()>,
) -> Stillborn {
    if timeout(EXIT_GRACE, &mut listener).await.is_err() {
        listener.abort();
    }
    Stillborn {
        pid,
        cause,
        stderr: last_lines.lines(),
    }
}
