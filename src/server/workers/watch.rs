//! The tasks that keep a worker process in each slot.
//!
//! When a process dies, the next one takes its place, with all that it had: the conversation with the worker goes on
//! ([`link`](super::link)), and callers wait for as long as they would wait for any answer. Only when several processes in a
//! row have not lived to serve are the rooms given up.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use weir_channel::message::Method;
use weir_channel::own_time::within_own_time;
use weir_channel::page::{Doing, Page};

use crate::server::model::error::{DeathCause, StartError};
use crate::server::model::event::{CloseCause, EventKind};
use crate::server::model::lock;
use crate::server::workers::backoff::Backoff;
use crate::server::workers::birth::{Born, Stillborn, bear};
use crate::server::workers::end::{EXIT_GRACE, channel_cause, end, millis};
use crate::server::workers::link::{self, End, Inheritance, Link, Pulse, Queues};
use crate::server::workers::pollers::Pollers;
use crate::server::workers::shared::Shared;
use crate::server::workers::slot::{Slot, WorkerState};
use crate::server::workers::spare::Spare;
use crate::server::workers::suspicion::{Crash, Evidence, Suspicions};
use crate::server::workers::turn_clock::{spins, standstill, standstill_max};

/// How long to wait for the last words of a process that has ended itself. They are in the pipe, or there are none.
const LAST_WORDS_TIME: Duration = Duration::from_millis(100);

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

/// What a slot has, whichever process is in it.
#[derive(Default)]
struct Estate {
    /// The conversation, until the rooms are given up.
    conversation: Option<(Arc<Link>, Queues)>,
    /// What the last process has left.
    inheritance: Option<Inheritance>,
    spare: Option<Spare>,
    /// What the last process has waited with, until the next one serves: closing it takes the time that the next one needs.
    pollers: Option<Pollers>,
    /// Whose packets its processes died of, perhaps.
    suspicions: Suspicions,
}

/// A worker's life, when it is over.
struct Life {
    pid: Option<u32>,
    cause: DeathCause,
    /// What it has written last, if it never came up.
    stderr: Vec<String>,
    /// How long it had all that it should have, if it ever did.
    served: Option<Duration>,
    /// Whose packets it may have died of.
    evidence: Option<Evidence>,
}

impl Life {
    fn over(pid: Option<u32>, cause: DeathCause) -> Self {
        Self {
            pid,
            cause,
            stderr: Vec::new(),
            served: None,
            evidence: None,
        }
    }
}

impl From<Stillborn> for Life {
    fn from(stillborn: Stillborn) -> Self {
        let Stillborn { pid, cause, stderr } = stillborn;
        Self {
            stderr,
            ..Self::over(pid, cause)
        }
    }
}

/// Keeps a worker process in `slot` until the server closes. `ready` hears of the first one.
async fn watch(shared: Arc<Shared>, slot: Arc<Slot>, ready: oneshot::Sender<Result<(), StartFailure>>) {
    let watched = Watched {
        shared: &shared,
        slot: &slot,
    };
    let mut ready = Some(ready);
    let mut backoff = Backoff::new();
    let mut estate = Estate::default();
    let mut closing = shared.workers.closing.subscribe();
    while !*closing.borrow() {
        slot.set_starting();
        let life = match next_process(&shared, &slot, &mut estate).await {
            Ok(process) => live(&shared, &slot, process, &mut estate, &mut ready).await,
            Err(stillborn) => stillborn.into(),
        };
        if *closing.borrow() {
            break;
        }
        if let Some(ready) = ready.take() {
            let _ = ready.send(Err(StartFailure {
                cause: life.cause,
                stderr: life.stderr,
            }));
            break;
        }
        let wait = backoff.after_death(life.served);
        tracing::error!(
            worker = slot.id().0,
            restart_in = ?wait,
            "{} died: {}",
            slot.id(),
            life.cause
        );
        match backoff.is_hopeless() {
            true => {
                let link = estate.conversation.take().map(|(link, _)| link);
                estate.inheritance = None;
                // If there is one, it has rehearsed what nobody has any more.
                estate.spare = None;
                estate.pollers = None;
                bury(&shared, &slot, link.as_deref(), life, Some(wait));
            }
            false => tell_of_death(&shared, &slot, &mut estate, life, wait),
        }
        if !wait.is_zero() {
            let link = estate.conversation.as_ref().map(|(link, _)| &**link);
            tokio::select! {
                biased;
                () = link::expire_meanwhile(link, sleep(wait)) => {}
                // The sender lives in `shared`.
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
    }
    if let Some(spare) = estate.spare.take() {
        spare.end().await;
    }
    // Whoever still waits for the worker is told now.
    drop(watched);
}

/// The spare process, or a new one.
async fn next_process(shared: &Arc<Shared>, slot: &Arc<Slot>, estate: &mut Estate) -> Result<Born, Stillborn> {
    let spare = estate.spare.take();
    let next = async {
        if let Some(spare) = spare
            && let Some(process) = spare.hand_over().await
        {
            return Ok(process);
        }
        bear(shared, slot).await
    };
    let link = estate.conversation.as_ref().map(|(link, _)| &**link);
    link::expire_meanwhile(link, next).await
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
            let life = Life::over(None, DeathCause::ServerClosed);
            bury(self.shared, self.slot, Some(&link), life, None);
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

/// Lets a process take over, talks to it until it ends, and makes sure that it has ended.
async fn live(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    process: Born,
    estate: &mut Estate,
    ready: &mut Option<oneshot::Sender<Result<(), StartFailure>>>,
) -> Life {
    let Born {
        mut child,
        pid,
        sender,
        receiver,
        rehearsed,
        page,
        flooded,
        mut listener,
        last_lines,
    } = process;
    slot.set_process(pid);
    let pulse = Pulse {
        interval: shared.settings.ping_interval,
        timeout: shared.settings.ping_timeout,
    };
    let (link, queues) = estate.conversation.get_or_insert_with(|| {
        Link::new(
            slot.id(),
            shared.settings.request_timeout,
            pulse,
            shared.shared_ports.clone(),
            (slot.restorations(), slot.totals()),
        )
    });
    let worker = slot.id();
    lock(&shared.state)
        .events
        .emit(EventKind::WorkerStarted { worker, pid });
    release_sources(shared, slot, &mut estate.suspicions, None);
    let pollers = Pollers::create()
        .inspect_err(
            |errno| tracing::warn!(%errno, worker = worker.0, "a worker's death will take longer than it could"),
        )
        .ok();
    let first = shared.take_over(
        slot,
        (link, queues),
        (pid, rehearsed),
        pollers.as_ref(),
        estate.inheritance.as_ref(),
    );
    if let Some(ready) = ready.take() {
        let _ = ready.send(Ok(()));
    }

    let conversation = link::converse(link, queues, first, (sender, receiver), &shared.state, |rtt| {
        slot.set_ping_rtt(rtt)
    });
    tokio::pin!(conversation);
    let mut closing = shared.workers.closing.subscribe();
    let its_page = page.clone();
    let standstill_max = standstill_max(pulse.timeout);
    let standstill = standstill(its_page.as_deref(), standstill_max);
    tokio::pin!(standstill);
    let mut serves = false;
    let how = loop {
        tokio::select! {
            // Always in the same order; what may have much to do comes last, and leaves the others their share.
            biased;
            () = flooded.notified() => {
                break Some(End::Misbehaved("it wrote to its standard error without end".to_owned()));
            }
            doing = &mut standstill => break Some(End::StoodStill(doing)),
            () = until(estate.suspicions.next_release()) => {
                release_sources(shared, slot, &mut estate.suspicions, Some(link));
            }
            // Not sooner: until then there is enough to do.
            () = link.serves(), if !serves => {
                serves = true;
                estate.pollers = None;
                estate.spare = Some(Spare::keep(shared, slot, estate.inheritance.is_some()));
            }
            _ = closing.wait_for(|closing| *closing) => break None,
            how = &mut conversation => break Some(how),
        }
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
    let ended_at = Instant::now();
    let served = link
        .served_since()
        .map(|since| ended_at.saturating_duration_since(since));
    let is_spinning = matches!(how, End::StoodStill(Doing::Turn(_))) && spins(pid).await;
    let cause = match how {
        End::Channel(error) => channel_cause(error),
        End::Hung => Some(DeathCause::Hung {
            timeout_ms: millis(pulse.timeout),
        }),
        End::StoodStill(Doing::Turn(_)) => Some(DeathCause::Stuck {
            turn_ms: millis(standstill_max),
        }),
        End::StoodStill(Doing::Rest(_)) => Some(DeathCause::Frozen {
            rest_ms: millis(standstill_max),
        }),
        End::Protocol(reason) => Some(DeathCause::Protocol { reason }),
        End::Misbehaved(reason) => Some(DeathCause::Misbehaved { reason }),
    };
    let cause = link::expire_meanwhile(Some(link), end(&mut child, cause)).await;
    if cause.is_abort() {
        // Only they tell whose doing it was. Whoever could hold the pipe open is dead.
        let _ = timeout(LAST_WORDS_TIME, &mut listener).await;
    }
    let evidence = evidence(shared, slot, its_page.as_deref(), || {
        Crash::of(&cause, is_spinning, &last_lines.lines())
    });
    // Its last words are heard beside what follows: only if it has handed the pipe on to somebody does it stay open.
    tokio::spawn(async move {
        if !listener.is_finished() && timeout(EXIT_GRACE, &mut listener).await.is_err() {
            listener.abort();
        }
    });
    // It may be dying still.
    tokio::spawn(async move { child.wait().await });
    estate.pollers = pollers;
    slot.totals().on_death(its_page.as_deref());
    let first_death = estate.inheritance.take().filter(|_| served.is_none());
    estate.inheritance = Some(Inheritance {
        page,
        cause: cause.clone(),
        left_out: first_death.as_ref().map_or(0, |first| first.left_out),
        died_at: first_death.map_or(ended_at, |first| first.died_at),
    });
    Life {
        served,
        evidence,
        ..Life::over(Some(pid), cause)
    }
}

/// Tells everybody that a process is dead, and that the next one will take its place, perhaps without whom it may have died of.
fn tell_of_death(shared: &Shared, slot: &Slot, estate: &mut Estate, life: Life, wait: Duration) {
    let restart_in_ms = millis(wait);
    let Estate {
        inheritance,
        suspicions,
        ..
    } = estate;
    let verdict = life
        .evidence
        .map(|evidence| suspicions.on_death(Instant::now(), evidence))
        .unwrap_or_default();
    let mut known = lock(&shared.state);
    slot.set_died(restart_in_ms, life.cause.clone());
    if let Some((room, deaths)) = verdict.room {
        let worker = slot.id();
        let reason = format!(
            "{worker} has died {deaths} times in a row while it worked on packets to this room ({})",
            life.cause
        );
        tracing::error!(worker = worker.0, room = room.0, reason, "a room is given up");
        if known.leave_out(worker, room, reason)
            && let Some(inheritance) = inheritance
        {
            inheritance.left_out += 1;
        }
    }
    known.events.emit(EventKind::WorkerDied {
        worker: slot.id(),
        pid: life.pid,
        cause: life.cause,
        restart_in_ms: Some(restart_in_ms),
    });
    if let (Some((source, length)), Some(evidence)) = (verdict.quarantine, life.evidence) {
        slot.set_quarantined(suspicions.quarantined());
        let (ip, port) = (source.ip, source.port);
        tracing::error!(worker = slot.id().0, %ip, port, for_ = ?length, "a source is in quarantine");
        known.events.emit(EventKind::SourceQuarantined {
            worker: slot.id(),
            ip,
            port,
            transport: evidence.transport.map(|(transport, _)| transport),
            room: evidence.transport.map(|(_, room)| room),
            for_s: length.as_secs(),
        });
    }
}

/// Whose packets a process was working on that has died of a crash.
fn evidence(
    shared: &Shared,
    slot: &Slot,
    page: Option<&Page>,
    crash: impl FnOnce() -> Option<Crash>,
) -> Option<Evidence> {
    // Its turn had not ended.
    let suspect = page.filter(|page| page.was_in_turn())?.suspect()?;
    let crash = crash()?;
    let transport = suspect.transport.map(|transport| {
        let room = lock(&shared.state).room_of(slot.id(), transport);
        room.map(|room| (transport, room))
    });
    Some(Evidence {
        crash,
        source: suspect.source,
        // A transport that is not there any more can do no harm.
        transport: match transport {
            Some(None) => return None,
            Some(Some(known)) => Some(known),
            None => None,
        },
    })
}

/// Releases the sources whose quarantine is over. The process is told, if there is one.
fn release_sources(shared: &Shared, slot: &Slot, suspicions: &mut Suspicions, link: Option<&Link>) {
    let released = suspicions.release(Instant::now());
    if released.is_empty() {
        return;
    }
    let quarantined = suspicions.quarantined();
    slot.set_quarantined(quarantined.clone());
    if let Some(link) = link {
        // It is asked nothing that could be refused, and its successor is told the same.
        let _ = link.say(Method::SetQuarantine(quarantined), shared.settings.request_timeout);
    }
    let mut known = lock(&shared.state);
    for source in released {
        let (ip, port) = (source.ip, source.port);
        tracing::info!(worker = slot.id().0, %ip, port, "a source is released from quarantine");
        known.events.emit(EventKind::SourceReleased {
            worker: slot.id(),
            ip,
            port,
        });
    }
}

/// Returns at a moment, if there is one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Tells everybody that a worker is dead, and nobody follows it soon: closes its rooms, resolves its callers.
fn bury(shared: &Shared, slot: &Slot, link: Option<&Link>, life: Life, restart: Option<Duration>) {
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
        if let Some(link) = link {
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
    if let Some(link) = link {
        link.resolve_all();
    }
}
