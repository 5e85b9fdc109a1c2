//! A spare rehearses: it makes all rooms that its worker has, and hears what the worker accepts, so that nothing but sockets and the
//! worker's page is missing when its time comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use weir_channel::endpoint::{FromWorker, RequestSender, Together, WorkerReceiver};
use weir_channel::error::ChannelError;
use weir_channel::id::{RequestId, RoomId};
use weir_channel::message::{Method, Request, Response, WorkerError};

use crate::server::model::state::State;
use crate::server::workers::link::{Link, deadline_after};

/// The most requests that a spare is asked at once: what it does takes the CPU from the worker, which has it back after a fraction of a
/// millisecond.
const TOGETHER_MAX: usize = 64;

/// How long the CPU is the worker's then, as long as the spare makes what is there already.
const PAUSE: Duration = Duration::from_millis(2);

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
}

/// A spare's.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    link: Arc<Link>,
    /// What the worker accepts.
    accepted: mpsc::Receiver<Method>,
    /// The rooms that are still to be made.
    rooms: VecDeque<RoomId>,
    /// What the spare is still to be told.
    methods: VecDeque<Method>,
    together: Together,
    last_id: u64,
    unanswered: usize,
    /// It has had all rooms once: from now on it can do whatever the worker can.
    is_complete: bool,
    heard: Vec<FromWorker>,
}

impl Rehearsal {
    /// Begins one with a spare that was told nothing yet.
    pub(crate) fn new(link: Arc<Link>, state: &Mutex<State>) -> Self {
        let (accepted, rooms) = link.follow(state);
        Self {
            link,
            accepted,
            rooms: rooms.into(),
            methods: VecDeque::from([Method::Rehearse]),
            together: Together::default(),
            last_id: 0,
            unanswered: 0,
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
        if self.methods.is_empty()
            && self.together.is_empty()
            && let Some(room) = self.rooms.pop_front()
        {
            let (accepted, methods) = (&mut self.accepted, &mut self.methods);
            let made = self.link.rehearse_room(state, room, || {
                while let Ok(method) = accepted.try_recv() {
                    methods.push_back(method);
                }
            });
            self.methods.extend(made);
        }
        if self.unanswered > 0 {
            let heard = receiver.next().await?;
            self.hear(heard)?;
            if self.unanswered == 0 && !self.is_complete {
                sleep(PAUSE).await;
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
            method = self.accepted.recv() => {
                self.methods.push_back(method.ok_or(Broken::Behind)?);
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
                if self.unanswered > 0 {
                    let heard = receiver.next().await?;
                    self.hear(heard)?;
                } else if !self.tell(sender).await? {
                    return match self.accepted.is_closed() {
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
        while self.methods.len() < TOGETHER_MAX
            && let Ok(method) = self.accepted.try_recv()
        {
            self.methods.push_back(method);
        }
    }

    /// Asks for the next few things; `false`: there are none.
    async fn tell(&mut self, sender: &RequestSender) -> Result<bool, Broken> {
        while self.together.len() < TOGETHER_MAX
            && let Some(method) = self.methods.pop_front()
        {
            self.last_id += 1;
            let request = Request {
                id: RequestId(self.last_id),
                deadline: deadline_after(ANSWER_TIME_MAX),
                method,
            };
            // It has no descriptors, of which there could be too many.
            let _ = self.together.push(request, Vec::new());
        }
        let count = self.together.len();
        if count == 0 {
            return Ok(false);
        }
        sender.send_together(&mut self.together).await?;
        self.unanswered += count;
        Ok(true)
    }

    fn hear(&mut self, heard: FromWorker) -> Result<(), Broken> {
        match heard {
            FromWorker::Response(Response { result, .. }) => {
                self.unanswered = self.unanswered.saturating_sub(1);
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
