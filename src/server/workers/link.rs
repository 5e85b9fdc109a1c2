//! The conversation with a worker: questions go out, answers and news come in, nobody waits for ever.
//!
//! It outlives the processes that it is held with. What one has not answered is asked of the next one, after that has been told
//! what to make again ([`restoration`]).
//!
//! Invariant: answers and news are applied to the state in the order in which they arrive, and before the caller hears of
//! them; so nobody ever sees an object that an earlier event does not know.
//!
//! Invariant: nothing of what a worker says is believed, kept or repeated before it is checked: whether it may say so much
//! ([`allowance`](super::allowance)), and whether it can be true ([`State::check_notification`], [`State::check_reply`]).
//!
//! Invariant: nobody's wait is over before what has arrived is read, and only time in which this process itself ran counts
//! ([`OwnTime`]). A supervisor that was stopped, or had no CPU, does not blame its workers.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use weir_channel::error::ChannelError;
use weir_channel::id::WorkerId;
use weir_channel::lanes::Lane;
use weir_channel::message::{Method, Reply, Request, Response, Sandbox};
use weir_channel::own_time::OwnTime;
use weir_channel::page::Doing;

use crate::server::model::error::{DeathCause, Error};
use crate::server::model::lock;
use crate::server::model::state::{Command, OnAccept, State, bounded_refusal};
use crate::server::workers::pending::Pending;
use crate::server::workers::sockets::SharedPorts;
use crate::server::workers::totals::Totals;

use self::attached::Attached;
pub(crate) use self::attached::to_rehearse;
pub(crate) use self::conversation::{converse, expire_meanwhile};
pub(crate) use self::following::Accepted;
use self::following::Following;
use self::hearing::Allowances;
pub(crate) use self::pulse::Pulse;
use self::restoration::Restoring;
pub(crate) use self::restoration::{First, Inheritance, Restorations};
pub(crate) use self::timeouts::deadline_after;

mod attached;
mod connected;
mod conversation;
mod following;
mod forwarding;
mod hearing;
mod in_turn;
mod pulse;
mod restoration;
mod timeouts;

/// How many commands may wait for the channel; further callers wait for their turn. The channel's own queue
/// behind it holds some thousands.
const CONTROL_WAITING_MAX: usize = 1_024;

/// As above, for questions about counters, whose answers are large.
const BULK_WAITING_MAX: usize = 64;

/// As above, for sockets that a worker has asked for; more it does not get, and asks again later.
const SOCKETS_WAITING_MAX: usize = 64;

/// The callers' side of a conversation.
#[derive(Debug)]
pub(crate) struct Link {
    worker: WorkerId,
    timeout: Duration,
    pulse: Pulse,
    /// The ports that WebRTC transports share, if they do.
    shared_ports: Option<Arc<SharedPorts>>,
    table: Mutex<Table>,
    control: Queue,
    bulk: Queue,
    /// How many connected sockets may wait for the channel.
    sockets: Arc<Semaphore>,
    /// What its process has said first.
    sandbox: Mutex<Option<Sandbox>>,
    /// How often a process has taken its predecessor's place.
    restorations: Arc<Restorations>,
    /// What its processes have counted.
    totals: Arc<Totals>,
    /// A process has.
    restored: Notify,
    /// Who is to take its process's place.
    following: Following,
    /// Something is to be answered, and nothing was before.
    asked: Notify,
    allowances: Mutex<Allowances>,
    /// A request has timed out.
    late: Notify,
    /// Something is wrong with what it has answered, which only who asked could see.
    condemned: Notify,
}

#[derive(Debug)]
struct Table {
    pending: Pending<Command, Waiter>,
    /// How many requests in a row have timed out, and when the first of them did.
    timeouts: u32,
    timeouts_since: Duration,
    condemned: Option<String>,
    /// What deadlines are measured with.
    own: OwnTime,
    ended: Option<DeathCause>,
    restoring: Restoring,
}

type Waiter = oneshot::Sender<Result<Reply, Error>>;

#[derive(Debug)]
struct Queue {
    /// A permit for each command that may wait.
    capacity: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<Queued>,
}

/// The other ends of a link's queues.
#[derive(Debug)]
pub(crate) struct Queues {
    control: mpsc::UnboundedReceiver<Queued>,
    bulk: mpsc::UnboundedReceiver<Queued>,
}

#[derive(Debug)]
struct Queued {
    request: Request,
    attached: Attached,
    /// Given back when the channel has taken the request.
    _permit: Option<OwnedSemaphorePermit>,
}

/// What the worker will have answered.
type Answer = oneshot::Receiver<Result<Reply, Error>>;

/// How a conversation ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The channel did.
    Channel(ChannelError),
    /// A ping was not answered in time.
    Hung,
    /// It stands still: a turn of its event loop does not end, or it does not wake up for another one.
    StoodStill(Doing),
    /// The worker said something that makes no sense.
    Protocol(String),
    /// The worker did what no worker does that is what it should be.
    Misbehaved(String),
}

impl Link {
    /// A conversation in which requests are answered within `timeout`, and pings within what `pulse` says.
    pub(crate) fn new(
        worker: WorkerId,
        timeout: Duration,
        pulse: Pulse,
        shared_ports: Option<Arc<SharedPorts>>,
        (restorations, totals): (Arc<Restorations>, Arc<Totals>),
    ) -> (Arc<Self>, Queues) {
        let (control, control_receiver) = Queue::new(CONTROL_WAITING_MAX);
        let (bulk, bulk_receiver) = Queue::new(BULK_WAITING_MAX);
        let link = Self {
            worker,
            timeout,
            pulse,
            shared_ports,
            table: Mutex::new(Table {
                pending: Pending::new(),
                timeouts: 0,
                timeouts_since: Duration::ZERO,
                condemned: None,
                own: OwnTime::new(Instant::now(), timeout.min(pulse.timeout)),
                ended: None,
                restoring: Restoring::default(),
            }),
            control,
            bulk,
            sockets: Arc::new(Semaphore::new(SOCKETS_WAITING_MAX)),
            sandbox: Mutex::new(None),
            restorations,
            totals,
            restored: Notify::new(),
            following: Following::default(),
            asked: Notify::new(),
            allowances: Mutex::new(Allowances::new(Instant::now())),
            late: Notify::new(),
            condemned: Notify::new(),
        };
        let queues = Queues {
            control: control_receiver,
            bulk: bulk_receiver,
        };
        (Arc::new(link), queues)
    }

    /// What confines the worker, as it has said.
    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        lock(&self.sandbox).clone()
    }

    /// See [`Shared::call`](super::shared::Shared::call).
    pub(crate) async fn call(
        &self,
        state: &Mutex<State>,
        lane: Lane,
        descriptors: Vec<OwnedFd>,
        plan: impl FnOnce(&mut State) -> Result<Vec<Command>, Error>,
    ) -> Result<Reply, Error> {
        let queue = self.queue(lane);
        // An error means that the conversation has ended, which `enqueue` says better.
        let permit = Arc::clone(&queue.capacity).acquire_owned().await.ok();
        let answer = {
            let mut state = lock(state);
            let planned = plan(&mut state);
            self.follow_up(&mut state);
            let mut commands = planned?;
            let Some(last) = commands.pop() else {
                return Ok(Reply::Done);
            };
            for command in commands {
                // Nobody waits for these: the last one is answered last. There are as many as a peer has transports.
                drop(self.enqueue(command, self.timeout, Vec::new(), None)?);
            }
            debug_assert_eq!(Lane::of_method(&last.method), lane);
            self.enqueue(last, self.timeout, descriptors, permit)?
        };
        answer.await.unwrap_or_else(|_| Err(self.death()))
    }

    /// Queues what follows from a change of the state, before anybody else can see the change.
    pub(crate) fn follow_up(&self, state: &mut State) {
        for command in state.take_follow_ups() {
            // When the conversation has ended, what they are about is closed, or about to be.
            let _ = self.enqueue(command, self.timeout, Vec::new(), None);
        }
    }

    /// Queues a command of the supervisor's own, which needs no permit, and which a successor of the process does not get.
    pub(crate) fn say(&self, method: Method, timeout: Duration) -> Result<Answer, Error> {
        self.enqueue(of_process(method), timeout, Vec::new(), None)
    }

    fn enqueue(
        &self,
        command: Command,
        timeout: Duration,
        descriptors: Vec<OwnedFd>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Answer, Error> {
        let mut table = lock(&self.table);
        if let Some(cause) = &table.ended {
            return Err(died(self.worker, cause));
        }
        let lane = Lane::of_method(&command.method);
        let (request, answer) = self.take_up(&mut table, command, timeout);
        let queued = Queued {
            request,
            attached: Attached::Ready(descriptors),
            _permit: permit,
        };
        // It is received as long as the conversation has not ended, which `ended` says, under the same lock.
        let _ = self.queue(lane).sender.send(queued);
        Ok(answer)
    }

    /// Enters a command among what is to be answered.
    fn take_up(&self, table: &mut Table, command: Command, timeout: Duration) -> (Request, Answer) {
        let (waiter, answer) = oneshot::channel();
        let method = command.method.clone();
        let now = table.own.at(Instant::now());
        if table.pending.next_deadline().is_none() {
            self.asked.notify_one();
        }
        let id = table.pending.insert(now, timeout, command, waiter);
        let request = Request {
            id,
            deadline: deadline_after(timeout),
            method,
        };
        (request, answer)
    }

    /// How many requests the worker has not answered.
    pub(crate) fn requests(&self) -> usize {
        lock(&self.table).pending.len()
    }

    /// How many requests in a row it has not answered in time.
    pub(crate) fn timeouts(&self) -> u32 {
        lock(&self.table).timeouts
    }

    /// The worker has done what no worker does that is what it should be, and is to be replaced.
    pub(crate) fn condemn(&self, reason: String) {
        lock(&self.table).condemned.get_or_insert(reason);
        self.condemned.notify_one();
    }

    /// The worker is dead: no command is taken any more. Called with the state locked, so that no plan can still find an
    /// object open and its worker gone.
    pub(crate) fn end(&self, cause: &DeathCause) {
        lock(&self.table).ended = Some(cause.clone());
        self.control.capacity.close();
        self.bulk.capacity.close();
    }

    /// Tells all who still wait that the worker is dead. Called when the state says so too, and not locked any more.
    pub(crate) fn resolve_all(&self) {
        let (waiters, cause) = {
            let mut table = lock(&self.table);
            let cause = table.ended.clone().unwrap_or(DeathCause::ServerClosed);
            (table.pending.drain(), cause)
        };
        for waiter in waiters {
            let _ = waiter.send(Err(died(self.worker, &cause)));
        }
    }

    fn death(&self) -> Error {
        let table = lock(&self.table);
        died(self.worker, table.ended.as_ref().unwrap_or(&DeathCause::ServerClosed))
    }

    fn queue(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        }
    }

    /// Whether somebody has waited for as long as they would, at the last look at the clock.
    fn is_overdue(&self) -> bool {
        let table = lock(&self.table);
        let now = table.own.passed();
        table.pending.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Tells those whose time is up. A worker that has let too many wait is to be replaced.
    fn expire(&self) -> Result<(), End> {
        let (expired, outcome) = {
            let mut table = lock(&self.table);
            let now = table.own.passed();
            let expired = table.pending.expire(now);
            let outcome = table.count_timeouts(now, expired.len());
            (expired, outcome)
        };
        if !expired.is_empty() {
            self.late.notify_one();
        }
        for (waiter, after) in expired {
            // An error says that the caller has stopped waiting.
            let _ = waiter.send(Err(Error::Timeout { after }));
        }
        outcome
    }

    /// Applies an answer, then tells who waits for it.
    fn apply(&self, state: &Mutex<State>, response: Response) -> Result<(), End> {
        let answered = lock(&self.table).pending.answer(response.id);
        let Some((command, waiter)) = answered else {
            return Err(End::Protocol(format!(
                "it answered {}, which nobody asked",
                response.id
            )));
        };
        let mut result = response.result.map_err(bounded_refusal);
        if result.is_ok() && command.method != Method::Ping {
            lock(&self.table).timeouts = 0;
        }
        if let (Method::UseConnectedSocket { transport, tuple }, Err(_)) = (&command.method, &result) {
            self.close_socket(state, *transport, *tuple);
        }
        let outcome = {
            let mut state = lock(state);
            let credible = match &mut result {
                Ok(reply) => state.check_reply(&command.method, reply),
                Err(_) => Ok(()),
            };
            if let (Ok(()), Ok(Reply::WorkerStats(stats))) = (&credible, &mut result) {
                self.totals.complete(stats);
            }
            credible.map(|()| {
                let adopted = restoration::step_of(&command);
                if result.is_ok() && adopted.is_none() {
                    self.following.hear(&command);
                }
                let outcome = state.apply_answer(command, result);
                if let Some(adopted) = adopted {
                    self.restored(&mut state, adopted, lost_of(&outcome));
                }
                self.follow_up(&mut state);
                outcome
            })
        };
        let (outcome, end) = match outcome {
            Ok(outcome) => (outcome, Ok(())),
            Err(reason) => {
                let worker = self.worker;
                let told = reason.clone();
                (
                    Err(Error::Protocol { worker, reason: told }),
                    Err(End::Misbehaved(reason)),
                )
            }
        };
        if let Some(waiter) = waiter {
            // An error says that the caller has stopped waiting.
            let _ = waiter.send(outcome);
        }
        end
    }
}

impl Queue {
    fn new(waiting_max: usize) -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let capacity = Arc::new(Semaphore::new(waiting_max));
        (Self { capacity, sender }, receiver)
    }
}

/// How much an answer says is lost.
fn lost_of(outcome: &Result<Reply, Error>) -> u64 {
    match outcome {
        Ok(Reply::TakenUp(others)) => {
            (others.transports.len() + others.producers.len() + others.consumers.len()) as u64
        }
        Ok(_) => 0,
        Err(_) => 1,
    }
}

/// A command that means nothing to another process of the worker.
fn of_process(method: Method) -> Command {
    Command {
        method,
        on_accept: OnAccept::OfProcess,
    }
}

fn died(worker: WorkerId, cause: &DeathCause) -> Error {
    match cause {
        DeathCause::ServerClosed => Error::closed("the server"),
        cause => Error::WorkerDied {
            worker,
            cause: cause.clone(),
        },
    }
}
