//! The tasks that keep a worker process in each slot.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use weir_channel::endpoint::SupervisorEndpoint;
use weir_channel::error::ChannelError;
use weir_channel::message::{Hello, Method};
use weir_channel::own_time::within_own_time;
use weir_worker::exit::Exit;

use crate::server::model::error::{DeathCause, StartError};
use crate::server::model::event::{CloseCause, EventKind};
use crate::server::model::lock;
use crate::server::model::shortage::Shortage;
use crate::server::workers::backoff::Backoff;
use crate::server::workers::link::{self, End, Link, Pulse};
use crate::server::workers::shared::Shared;
use crate::server::workers::slot::{Slot, WorkerState};
use crate::server::workers::spawn::{LastLines, Process};

/// A worker whose channel has ended is given this long to exit by itself, so that its exit code is known.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Why the first process of a slot did not come up.
#[derive(Debug)]
struct StartFailure {
    cause: DeathCause,
    stderr: Vec<String>,
}

/// Fills all slots, and waits until every worker is ready. When one is not, all are ended again.
pub(crate) async fn start(shared: &Arc<Shared>) -> Result<(), StartError> {
    let mut ready = Vec::new();
    for slot in &shared.workers.slots {
        let (sender, receiver) = oneshot::channel();
        shared.workers.watched.send_modify(|watched| *watched += 1);
        tokio::spawn(watch(Arc::clone(shared), Arc::clone(slot), sender));
        ready.push(receiver);
    }
    for (slot, receiver) in shared.workers.slots.iter().zip(ready) {
        let failure = match receiver.await {
            Ok(Ok(())) => continue,
            Ok(Err(failure)) => failure,
            // Its task was dropped: the runtime is shutting down.
            Err(_) => StartFailure {
                cause: DeathCause::ServerClosed,
                stderr: Vec::new(),
            },
        };
        shared.begin_close();
        shared.workers.ended().await;
        return Err(StartError::Worker {
            worker: slot.id(),
            cause: failure.cause,
            stderr: failure.stderr,
        });
    }
    Ok(())
}

/// Keeps a worker process in `slot` until the server closes. `ready` hears of the first one.
async fn watch(shared: Arc<Shared>, slot: Arc<Slot>, ready: oneshot::Sender<Result<(), StartFailure>>) {
    let _watched = Watched {
        shared: &shared,
        slot: &slot,
    };
    let mut ready = Some(ready);
    let mut backoff = Backoff::new();
    let mut closing = shared.workers.closing.subscribe();
    while !*closing.borrow() {
        slot.set_starting();
        let born = Instant::now();
        let life = live(&shared, &slot, &mut ready).await;
        if *closing.borrow() {
            bury(&shared, &slot, life, None);
            break;
        }
        if let Some(ready) = ready.take() {
            let failure = StartFailure {
                cause: life.cause.clone(),
                stderr: life.last_lines.lines(),
            };
            bury(&shared, &slot, life, None);
            let _ = ready.send(Err(failure));
            break;
        }
        let wait = backoff.after_death(born.elapsed());
        tracing::error!(
            worker = slot.id().0,
            restart_in = ?wait,
            "{} died: {}",
            slot.id(),
            life.cause
        );
        bury(&shared, &slot, life, Some(wait));
        tokio::select! {
            () = sleep(wait) => {}
            // The sender lives in `shared`.
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }
}

/// Counts a slot as watched. Also when the task is dropped in the middle, because its runtime ends, nobody is left waiting
/// for a worker that nobody talks to any more.
struct Watched<'a> {
    shared: &'a Shared,
    slot: &'a Slot,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.slot.link() {
            let life = Life {
                pid: None,
                cause: DeathCause::ServerClosed,
                last_lines: LastLines::default(),
                link: Some(link),
            };
            bury(self.shared, self.slot, life, None);
        }
        self.slot.set_closed();
        self.shared.workers.watched.send_modify(|watched| {
            if *watched == 1 {
                // Before anybody hears that the last worker has ended.
                lock(&self.shared.state).events.close();
            }
            *watched -= 1;
        });
    }
}

/// A worker's life, when it is over.
struct Life {
    pid: Option<u32>,
    cause: DeathCause,
    last_lines: LastLines,
    /// If it ever took commands.
    link: Option<Arc<Link>>,
}

/// Starts a worker, talks to it until it ends, and makes sure that it has ended, and has been heard out.
async fn live(
    shared: &Shared,
    slot: &Arc<Slot>,
    ready: &mut Option<oneshot::Sender<Result<(), StartFailure>>>,
) -> Life {
    let Process {
        mut child,
        channel,
        page: _page,
        last_lines,
        flooded,
        mut listener,
    } = match shared.workers.spawner.spawn(slot.id(), slot.cpu()).await {
        Ok(process) => process,
        Err(error) => {
            return Life {
                pid: None,
                cause: DeathCause::NotStarted {
                    reason: Shortage::of(&error).map_or_else(|| error.to_string(), |shortage| shortage.to_string()),
                },
                last_lines: LastLines::default(),
                link: None,
            };
        }
    };
    let pid = child.id();
    slot.set_pid(pid);
    let (cause, link) = serve(shared, slot, &mut child, channel, &flooded, ready).await;
    // What the process has written is in the pipe. Only if it has handed the pipe on to somebody does it stay open.
    if timeout(EXIT_GRACE, &mut listener).await.is_err() {
        listener.abort();
    }
    Life {
        pid,
        cause,
        last_lines,
        link,
    }
}

/// Talks to a worker until it ends, and makes sure that it has ended. Returns of what it died, and the link if it ever took
/// commands.
async fn serve(
    shared: &Shared,
    slot: &Arc<Slot>,
    child: &mut Child,
    channel: OwnedFd,
    flooded: &Notify,
    ready: &mut Option<oneshot::Sender<Result<(), StartFailure>>>,
) -> (DeathCause, Option<Arc<Link>>) {
    let hello = Hello::new(env!("CARGO_PKG_VERSION"), slot.id());
    let start_timeout = shared.settings.start_timeout;
    let mut closing = shared.workers.closing.subscribe();
    let connected = tokio::select! {
        connected = SupervisorEndpoint::connect(channel, hello, start_timeout) => connected,
        status = child.wait() => return (exited(status), None),
        _ = closing.wait_for(|closing| *closing) => Err(ChannelError::ClosedHere),
    };
    let endpoint = match connected {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let cause = match error {
                ChannelError::HelloTimeout { after } => Some(DeathCause::NoHello {
                    timeout_ms: millis(after),
                }),
                ChannelError::ClosedHere => Some(DeathCause::ServerClosed),
                error => channel_cause(error),
            };
            return (end(child, cause).await, None);
        }
    };

    let pulse = Pulse {
        interval: shared.settings.ping_interval,
        timeout: shared.settings.ping_timeout,
    };
    let (link, queues) = Link::new(
        slot.id(),
        shared.settings.request_timeout,
        pulse,
        shared.shared_ports.clone(),
    );
    shared.configure(slot, Arc::clone(&link));
    if let Some(pid) = child.id() {
        let worker = slot.id();
        lock(&shared.state)
            .events
            .emit(EventKind::WorkerStarted { worker, pid });
    }
    if let Some(ready) = ready.take() {
        let _ = ready.send(Ok(()));
    }

    let conversation = link::converse(&link, queues, endpoint, &shared.state, |rtt| slot.set_ping_rtt(rtt));
    tokio::pin!(conversation);
    let how = tokio::select! {
        how = &mut conversation => Some(how),
        () = flooded.notified() => Some(End::Misbehaved("it wrote to its standard error without end".to_owned())),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let how = match how {
        Some(how) => how,
        None => {
            let close_timeout = shared.settings.close_timeout;
            let _ = link.say(Method::Shutdown, close_timeout);
            match within_own_time(close_timeout, &mut conversation).await {
                Some(how) => how,
                None => {
                    tracing::warn!(worker = slot.id().0, "{} did not end in time and is killed", slot.id());
                    End::Hung
                }
            }
        }
    };
    let cause = match how {
        End::Channel(error) => channel_cause(error),
        End::Hung => Some(DeathCause::Hung {
            timeout_ms: millis(pulse.timeout),
        }),
        End::Protocol(reason) => Some(DeathCause::Protocol { reason }),
        End::Misbehaved(reason) => Some(DeathCause::Misbehaved { reason }),
    };
    (end(child, cause).await, Some(Arc::clone(&link)))
}

/// Tells everybody that a worker is dead: closes its rooms, resolves its callers.
fn bury(shared: &Shared, slot: &Slot, life: Life, restart: Option<Duration>) {
    let cause = match *shared.workers.closing.borrow() {
        true => DeathCause::ServerClosed,
        false => life.cause,
    };
    let state = match restart {
        Some(wait) => WorkerState::Restarting { after_ms: millis(wait) },
        None => WorkerState::Closed,
    };
    {
        let mut known = lock(&shared.state);
        slot.set_dead(state, cause.clone());
        if let Some(link) = &life.link {
            link.end(&cause);
        }
        let worker = slot.id();
        known.close_rooms_of(
            worker,
            &CloseCause::WorkerDied {
                worker,
                cause: cause.clone(),
            },
        );
        if cause != DeathCause::ServerClosed {
            known.events.emit(EventKind::WorkerDied {
                worker,
                pid: life.pid,
                cause,
                restart_in_ms: restart.map(millis),
            });
        }
    }
    if let Some(link) = &life.link {
        link.resolve_all();
    }
}

/// Ends a process, if it has not ended, and reaps it. `cause` is why it has to end; `None` when it is about to exit by
/// itself, and its exit tells why.
async fn end(child: &mut Child, cause: Option<DeathCause>) -> DeathCause {
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
fn channel_cause(error: ChannelError) -> Option<DeathCause> {
    match error {
        ChannelError::Closed | ChannelError::ClosedInFrame { .. } => None,
        error => Some(DeathCause::Protocol {
            reason: error.to_string(),
        }),
    }
}

fn exited(status: std::io::Result<ExitStatus>) -> DeathCause {
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
