//! A spare rehearses: it makes all rooms that its worker has, and hears what the worker accepts, so that nothing but sockets and the
//! worker's page is missing when its time comes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::time::ClockId;
use tokio::time::{sleep, timeout};
use weir_channel::endpoint::{FromWorker, RequestSender, Together, WorkerReceiver};
use weir_channel::error::ChannelError;
use weir_channel::id::{RequestId, RoomId};
use weir_channel::message::{Method, Request, Response, WorkerError};

use crate::server::model::desired::Replayed;
use crate::server::model::state::State;
use crate::server::workers::link::{Accepted, Link, deadline_after, to_rehearse};

/// The most requests that a spare is asked at once: what it does takes the CPU from the worker, which has it back after a fraction of a
/// millisecond.
const TOGETHER_MAX: usize = 32;

/// As long as the spare makes what is there already, the CPU is the worker's for so many times as long as the spare has used it. A spare
/// that takes its half of a busy CPU makes everybody wait, and most of all those who have just waited for its predecessor.
const PAUSE_RATIO: u32 = 9;

/// How long that is where nobody knows how long the spare has used it.
const PAUSE: Duration = Duration::from_millis(2);

/// And at most: somebody else has the CPU, too.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// How long a spare may take to finish what it has heard of, when the worker is dead: it should be done already.
const FINISH_TIME_MAX: Duration = Duration::from_millis(250);

/// How long it may take to do anything.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// So much of what a spare says unasked is kept until its time comes. It says how it is confined, and little else.
const HEARD_MAX: usize = 64;

/// Why a rehearsal has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{0}")]
    Channel(#[from] ChannelError),
    #[error("it could not do what its worker did: {0}")]
    OutOfStep(WorkerError),
    #[error("it is too far behind its worker")]
    Behind,
    #[error("sockets cannot be duplicated for it: {0}")]
    Sockets(#[from] io::Error),
}

/// Something that a spare is to do.
#[derive(Debug)]
struct Line {
    replayed: Replayed,
    /// Its worker has just done it.
    is_news: bool,
}

impl Line {
    fn old(replayed: Replayed) -> Self {
        Self {
            replayed,
            is_news: false,
        }
    }

    fn news(replayed: Replayed) -> Self {
        Self {
            replayed,
            is_news: true,
        }
    }
}

/// A spare's.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    link: Arc<Link>,
    /// What the worker accepts.
    accepted: Accepted,
    /// The rooms that are still to be made.
    rooms: VecDeque<RoomId>,
    /// What the spare is still to be told.
    lines: VecDeque<Line>,
    together: Together,
    /// Of each request in there, whether its worker has just done that.
    in_frame: Vec<bool>,
    last_id: u64,
    /// What it was told and has not done yet: whether that was accepted by its worker since the rehearsal began.
    unanswered: VecDeque<bool>,
    /// The clock of what it uses of a CPU.
    cpu_clock: Option<ClockId>,
    /// What that showed when it was told that.
    told_at: Duration,
    /// It has had all rooms once: from now on it can do whatever the worker can.
    is_complete: bool,
    heard: Vec<FromWorker>,
}

impl Rehearsal {
    /// Begins one with a spare that was told nothing yet.
    pub(crate) fn new(link: Arc<Link>, state: &Mutex<State>, cpu_clock: Option<ClockId>) -> Self {
        let (accepted, rooms) = link.follow(state);
        Self {
            link,
            accepted,
            rooms: rooms.into(),
            lines: VecDeque::from([Line::old(Method::Rehearse.into())]),
            together: Together::default(),
            in_frame: Vec::new(),
            last_id: 0,
            unanswered: VecDeque::new(),
            cpu_clock,
            told_at: Duration::ZERO,
            is_complete: false,
            heard: Vec::new(),
        }
    }

    /// Rehearses, until that goes wrong. Cancel safe.
    pub(crate) async fn go_on(
        &mut self,
        (sender, receiver): (&RequestSender, &mut WorkerReceiver),
        state: &Mutex<State>,
    ) -> Broken {
        loop {
            if let Err(broken) = self.step((sender, &mut *receiver), state).await {
                return broken;
            }
        }
    }

    async fn step(
        &mut self,
        (sender, receiver): (&RequestSender, &mut WorkerReceiver),
        state: &Mutex<State>,
    ) -> Result<(), Broken> {
        self.take_in();
        if self.lines.is_empty()
            && self.together.is_empty()
            && let Some(room) = self.rooms.pop_front()
        {
            let (accepted, lines) = (&mut self.accepted.methods, &mut self.lines);
            let made = self.link.rehearse_room(state, room, || {
                while let Ok(replayed) = accepted.try_recv() {
                    lines.push_back(Line::news(replayed));
                }
            });
            self.lines.extend(made.into_iter().map(Line::old));
        }
        if !self.unanswered.is_empty() {
            let heard = receiver.next().await?;
            self.hear(heard)?;
            if self.unanswered.is_empty() && !self.is_complete {
                sleep(self.pause()).await;
            }
            return Ok(());
        }
        if self.tell(sender).await? {
            return Ok(());
        }
        self.is_complete |= self.rooms.is_empty();
        tokio::select! {
            biased;
            heard = receiver.next() => {
                let heard = heard?;
                self.hear(heard)
            }
            replayed = self.accepted.methods.recv() => {
                self.lines.push_back(Line::news(replayed.ok_or(Broken::Behind)?));
                Ok(())
            }
        }
    }

    /// Finishes what has been heard of; the worker is dead. Returns what the spare has said unasked; `None`: it is not where its worker was.
    pub(crate) async fn finish(mut self, channel: (&RequestSender, &mut WorkerReceiver)) -> Option<Vec<FromWorker>> {
        let (sender, receiver) = channel;
        let finished = timeout(FINISH_TIME_MAX, async {
            loop {
                self.take_in();
                if !self.unanswered.is_empty() {
                    let heard = receiver.next().await?;
                    self.hear(heard)?;
                } else if !self.tell(sender).await? {
                    return match self.accepted.methods.is_closed() {
                        true => Err(Broken::Behind),
                        false => Ok(()),
                    };
                }
            }
        });
        match finished.await {
            Ok(Ok(())) => return Some(self.heard),
            Ok(Err(broken)) => tracing::warn!(%broken, "a spare process is of no use"),
            Err(_) => tracing::warn!("a spare process is of no use: it is late"),
        }
        self.link.end_following();
        None
    }

    /// What the worker has accepted since.
    fn take_in(&mut self) {
        while self.lines.len() < TOGETHER_MAX
            && let Ok(replayed) = self.accepted.methods.try_recv()
        {
            self.lines.push_back(Line::news(replayed));
        }
    }

    /// Asks for the next few things; `false`: there are none.
    async fn tell(&mut self, sender: &RequestSender) -> Result<bool, Broken> {
        while self.together.len() < TOGETHER_MAX
            && let Some(line) = self.lines.pop_front()
        {
            let descriptors = to_rehearse(&line.replayed.sockets)?;
            if !self.together.has_room_for(descriptors.len()) {
                self.lines.push_front(line);
                break;
            }
            self.last_id += 1;
            let request = Request {
                id: RequestId(self.last_id),
                deadline: deadline_after(ANSWER_TIME_MAX),
                method: line.replayed.method,
            };
            // There is room for its descriptors.
            if self.together.push(request, descriptors).is_ok() {
                self.in_frame.push(line.is_news);
            }
        }
        if self.together.is_empty() {
            return Ok(false);
        }
        self.told_at = self.cpu_time().unwrap_or_default();
        sender.send_together(&mut self.together).await?;
        self.unanswered.extend(self.in_frame.drain(..));
        Ok(true)
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.cpu_clock?.now().ok().map(Duration::from)
    }

    /// For how long the CPU is the worker's now.
    fn pause(&self) -> Duration {
        let used = self.cpu_time().map(|now| now.saturating_sub(self.told_at));
        used.map_or(PAUSE, |used| (used * PAUSE_RATIO).min(PAUSE_MAX))
    }

    fn hear(&mut self, heard: FromWorker) -> Result<(), Broken> {
        match heard {
            FromWorker::Response(Response { result, .. }) => {
                if self.unanswered.pop_front() == Some(true) {
                    self.accepted.done();
                }
                match result {
                    Ok(_) => Ok(()),
                    // Of what is in a room that it has not got yet.
                    Err(
                        WorkerError::UnknownRoom(_)
                        | WorkerError::UnknownTransport(_)
                        | WorkerError::UnknownProducer(_)
                        | WorkerError::UnknownConsumer(_),
                    ) if !self.is_complete => Ok(()),
                    Err(error) => Err(Broken::OutOfStep(error)),
                }
            }
            other => {
                if self.heard.len() < HEARD_MAX {
                    self.heard.push(other);
                }
                Ok(())
            }
        }
    }
}
