//! A process takes the place of its predecessor: it is told what to make again, then asked what that has not answered.
//!
//! All of it is put into one order while the state is locked, and goes ahead of everything that is asked later: what callers
//! plan meanwhile is planned on the state that the process will have by then. So nobody hears of the death.
//!
//! Of what is asked again, that which makes an object comes before the adoption of its room ends: if the dead process has carried it out,
//! the object stands in its page. What closes or pauses one does, too: if the dead process has done that, the object must not send
//! before it is done again, under numbers of which the page knows nothing any more. The rest comes after all rooms.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use weir_channel::endpoint::FromWorker;
use weir_channel::id::{RequestId, RoomId};
use weir_channel::lanes::Lane;
use weir_channel::message::{Method, Request, WorkerError};
use weir_channel::page::Page;

use super::attached::{Attached, has_connected, of_mirror};
use super::hearing::Allowances;
use super::timeouts::deadline_after;
use super::{Link, Queued, Queues, Table};
use crate::server::model::desired::{Replayed, SocketsOf};
use crate::server::model::error::DeathCause;
use crate::server::model::event::EventKind;
use crate::server::model::lock;
use crate::server::model::state::{Command, OnAccept, State};

/// How long a process may take to make everything again. Should it hang, it is found out sooner.
const RESTORE_TIME_MAX: Duration = Duration::from_secs(60);

/// What waits in sockets that nobody has read for so long is dropped. What is younger is worth being played late: senders have it
/// for a second yet, and what of it is missing can be asked for. After two seconds nothing fits any more: receivers need
/// a key frame, and sound of then would only delay that of now.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// The most pages that are read for a room: as many as the channel passes at once, and as there are attempts. An older one
/// has told what it knows to a younger one long since.
const PAGES_MAX: usize = 6;

/// What a process is told before anything else.
#[derive(Debug, Default)]
pub(crate) struct First {
    pub(super) control: Vec<Queued>,
    pub(super) bulk: Vec<Queued>,
    /// What it has said before.
    pub(super) heard: Vec<FromWorker>,
}

/// What a dead process leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Inheritance {
    pub(crate) page: Option<Arc<Page>>,
    pub(crate) cause: DeathCause,
    /// When the death was noticed; of several that have not served in between, the first.
    pub(crate) died_at: Instant,
    /// The number of rooms that are left out.
    pub(crate) left_out: usize,
}

impl Inheritance {
    /// How long nobody has read the sockets.
    fn unread_for(&self) -> Duration {
        let before_death = match self.cause {
            DeathCause::Stuck { turn_ms: ms }
            | DeathCause::Frozen { rest_ms: ms }
            | DeathCause::Hung { timeout_ms: ms } => Duration::from_millis(ms),
            _ => Duration::ZERO,
        };
        self.died_at.elapsed() + before_death
    }
}

/// How often a worker was restored, and how the last time went.
#[derive(Debug, Default)]
pub(crate) struct Restorations(Mutex<(u64, Option<Duration>)>);

impl Restorations {
    /// The number, and the last gap.
    pub(crate) fn read(&self) -> (u64, Option<Duration>) {
        *lock(&self.0)
    }

    fn count(&self, gap: Duration) {
        let mut known = lock(&self.0);
        *known = (known.0 + 1, Some(gap));
    }
}

/// Which rooms a process has still to adopt.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    /// What is known of the process's predecessor; `None`: it has none, or everything is restored.
    predecessor: Option<Predecessor>,
    /// The pages that know something of the rooms that are not adopted yet, the latest first.
    pages: HashMap<RoomId, Vec<Arc<Page>>>,
    /// Since when the process has all that it should have.
    served_since: Option<Instant>,
}

#[derive(Debug)]
struct Predecessor {
    died_at: Instant,
    successor: u32,
    rooms: u64,
    unadopted: usize,
    lost: u64,
}

/// What an answer means to the restoration.
pub(super) enum Step {
    /// Something is there again.
    Made,
    Adopted(RoomId),
}

/// What the answer to a command means to the restoration, if it belongs to it.
pub(super) fn step_of(command: &Command) -> Option<Step> {
    match (&command.on_accept, &command.method) {
        (OnAccept::Restored, Method::AdoptionEnded { room }) => Some(Step::Adopted(*room)),
        (OnAccept::Restored, _) => Some(Step::Made),
        _ => None,
    }
}

impl Link {
    /// A process takes over, after another one if that has left something: what it must be told first, `settings` before
    /// all. Nothing that was queued is lost.
    pub(crate) fn take_over(
        &self,
        queues: &mut Queues,
        state: &Mutex<State>,
        (pid, rehearsed): (u32, Option<Vec<FromWorker>>),
        settings: Vec<(Method, Vec<OwnedFd>)>,
        inheritance: Option<&Inheritance>,
    ) -> First {
        *lock(&self.allowances) = Allowances::new(Instant::now());
        *lock(&self.sandbox) = None;
        let mut state = lock(state);
        let mut first = First::default();
        let made = self.following.end();
        let made = rehearsed.map(|heard| {
            first.heard = heard;
            made
        });
        let expired = {
            let mut table = lock(&self.table);
            table.timeouts = 0;
            table.condemned = None;
            table.restoring.served_since = None;
            // What they hold is asked again below, as it is among what is not answered.
            while queues.control.try_recv().is_ok() || queues.bulk.try_recv().is_ok() {}
            let pending = &mut table.pending;
            pending.extract(|command, _| matches!(command.on_accept, OnAccept::Restored | OnAccept::OfProcess));
            let expired = pending.extract(|_, is_awaited| !is_awaited);
            let again = again(&table);
            if made.is_some() {
                let command = super::of_process(Method::RehearsalEnded);
                self.put_first(&mut first, &mut table, command, Attached::Ready(Vec::new()));
            }
            let made = made.unwrap_or_default();
            for (method, descriptors) in settings {
                let command = super::of_process(method);
                self.put_first(&mut first, &mut table, command, Attached::Ready(descriptors));
            }
            if let Some(left) = inheritance {
                self.make_again(&mut first, &mut table, &state, left, again, (pid, made));
            } else {
                again.into_iter().for_each(|queued| first.push(queued));
                table.restoring.served_since = Some(Instant::now());
            }
            expired
        };
        for command in expired {
            // Whoever asked has been told that nobody knows what became of it. Nothing has.
            let _ = state.apply_answer(command, Err(WorkerError::DeadlinePassed));
        }
        if let Some(left) = inheritance {
            self.finish_if_all_is_adopted(&mut state, left.died_at);
        }
        self.follow_up(&mut state);
        first
    }

    fn make_again(
        &self,
        first: &mut First,
        table: &mut Table,
        state: &State,
        left: &Inheritance,
        again: Vec<Queued>,
        (successor, mut made): (u32, BTreeSet<RoomId>),
    ) {
        let rooms = state.rooms_to_restore(self.worker);
        let mut former = std::mem::take(&mut table.restoring.pages);
        let (mut of_rooms, others) = of_rooms_apart(again, state);
        // All of them first, so that the process knows for how long there is nothing more urgent.
        for room in &rooms {
            let mut pages: Vec<_> = left.page.iter().cloned().collect();
            pages.extend(former.remove(room).into_iter().flatten());
            pages.truncate(PAGES_MAX);
            let adopt = Method::Adopt {
                room: *room,
                pages: pages.len() as u8, // at most PAGES_MAX
            };
            self.restore(first, table, adopt, Attached::Pages(pages.clone()));
            table.restoring.pages.insert(*room, pages);
        }
        for room in &rooms {
            if left.unread_for() >= STALE_AFTER {
                let drop_waiting = Method::DropWaiting { room: *room };
                self.restore(first, table, drop_waiting, Attached::Ready(Vec::new()));
            }
            let is_made = made.remove(room);
            let replayed: Vec<_> = match is_made {
                true => state.replay_rehearsed(*room, has_connected),
                false => state.replay(*room).collect(),
            };
            for Replayed { method, sockets } in replayed {
                let attached = match is_made {
                    true => Attached::ConnectedOf(sockets),
                    false => Attached::Of(sockets),
                };
                self.restore(first, table, method, attached);
            }
            for queued in of_rooms.remove(room).into_iter().flatten() {
                first.push(queued);
            }
            // Its packets flow while the next rooms are made.
            let ended = Method::AdoptionEnded { room: *room };
            self.restore(first, table, ended, Attached::Ready(Vec::new()));
        }
        // Those that have been closed since, without the process that is dead.
        for room in made {
            let command = super::of_process(Method::CloseRouter { room });
            self.put_first(first, table, command, Attached::Ready(Vec::new()));
        }
        let of_no_room = of_rooms.into_values().flatten();
        of_no_room.chain(others).for_each(|queued| first.push(queued));
        table.restoring.predecessor = Some(Predecessor {
            died_at: left.died_at,
            successor,
            rooms: rooms.len() as u64,
            unadopted: rooms.len(),
            lost: left.left_out as u64,
        });
    }

    fn restore(&self, first: &mut First, table: &mut Table, method: Method, attached: Attached) {
        let command = Command {
            method,
            on_accept: OnAccept::Restored,
        };
        self.put_first(first, table, command, attached);
    }

    fn put_first(&self, first: &mut First, table: &mut Table, command: Command, attached: Attached) {
        // Nobody waits for the answer.
        let (request, _) = self.take_up(table, command, RESTORE_TIME_MAX);
        first.push(Queued {
            request,
            attached,
            _permit: None,
        });
    }

    /// Something is made again, or was refused and is closed. Called with the state locked.
    pub(super) fn restored(&self, state: &mut State, step: Step, lost: u64) {
        let died_at = {
            let mut table = lock(&self.table);
            let restoring = &mut table.restoring;
            let Some(predecessor) = &mut restoring.predecessor else {
                return;
            };
            predecessor.lost += lost;
            if let Step::Adopted(room) = step {
                restoring.pages.remove(&room);
                predecessor.unadopted = predecessor.unadopted.saturating_sub(1);
            }
            predecessor.died_at
        };
        self.finish_if_all_is_adopted(state, died_at);
    }

    fn finish_if_all_is_adopted(&self, state: &mut State, died_at: Instant) {
        let now = Instant::now();
        let finished = {
            let mut table = lock(&self.table);
            let restoring = &mut table.restoring;
            let finished = restoring.predecessor.take_if(|predecessor| predecessor.unadopted == 0);
            if finished.is_some() {
                restoring.served_since = Some(now);
                restoring.pages.clear();
            }
            finished
        };
        let Some(finished) = finished else {
            return;
        };
        let gap = now.saturating_duration_since(died_at);
        self.restorations.count(gap);
        self.restored.notify_waiters();
        state.events.emit(EventKind::WorkerRestored {
            worker: self.worker,
            pid: finished.successor,
            gap_ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
            rooms: finished.rooms,
            lost: finished.lost,
        });
    }

    /// Since when the process has had all that it should have; `None` as long as something is missing.
    pub(crate) fn served_since(&self) -> Option<Instant> {
        lock(&self.table).restoring.served_since
    }

    /// Returns when the process has all that it should have.
    pub(crate) async fn serves(&self) {
        loop {
            let notified = self.restored.notified();
            if self.served_since().is_some() {
                return;
            }
            notified.await;
        }
    }
}

/// What is to be asked again, in the order in which it was asked, with its number and as much time as is left.
fn again(table: &Table) -> Vec<Queued> {
    let now = table.own.at(Instant::now());
    let unanswered = table.pending.unanswered().into_iter();
    let again = unanswered.map(|(id, command, deadline)| {
        let left = deadline.unwrap_or_default().saturating_sub(now);
        queued_again(id, command, left)
    });
    again.collect()
}

/// What makes, closes or pauses something in a room, by rooms, and all else; both in their order.
fn of_rooms_apart(again: Vec<Queued>, state: &State) -> (HashMap<RoomId, Vec<Queued>>, Vec<Queued>) {
    let (mut of_rooms, mut others) = (HashMap::<_, Vec<_>>::new(), Vec::new());
    for queued in again {
        let method = &queued.request.method;
        match method.creates_in().or_else(|| state.room_served_by(method)) {
            Some(room) => of_rooms.entry(room).or_default().push(queued),
            None => others.push(queued),
        }
    }
    (of_rooms, others)
}

fn queued_again(id: RequestId, command: &Command, left: Duration) -> Queued {
    let attached = match &command.on_accept {
        OnAccept::Transport(node) => Attached::Of(SocketsOf::Transport(Arc::clone(node))),
        // Without its socket it is refused.
        OnAccept::Mirror(outlet) => Attached::Ready(of_mirror(&outlet.socket).unwrap_or_default()),
        _ => Attached::Ready(Vec::new()),
    };
    Queued {
        request: Request {
            id,
            deadline: deadline_after(left),
            method: command.method.clone(),
        },
        attached,
        _permit: None,
    }
}

impl First {
    fn push(&mut self, queued: Queued) {
        match Lane::of_method(&queued.request.method) {
            Lane::Control => self.control.push(queued),
            Lane::Bulk => self.bulk.push(queued),
        }
    }
}
