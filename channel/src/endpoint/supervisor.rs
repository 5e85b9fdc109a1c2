//! The supervisor's end: tokio. One task writes; whoever owns the [`WorkerReceiver`] reads; any number of [`RequestSender`]s
//! queue requests.
//!
//! A worker that reads nothing costs bounded memory: [`LANE_MAX`] per lane, then [`RequestSender::send`] waits, first come
//! first served (the caller's own deadline ends the wait; nothing is queued then). A worker that writes much is read as
//! fast as [`WorkerReceiver::next`] is called, and no faster.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};

use super::{Fill, Inbound, Side, shut_down, write_batch};
use crate::descriptors::{DescriptorError, MAX_DESCRIPTORS};
use crate::error::{ChannelError, kind_of};
use crate::frame::{self, MAX_FRAME, PREFIX};
use crate::lanes::{Drained, Lane, Lanes, QueuedFrame, cost_of};
use crate::log;
use crate::message::{Hello, Message, Notification, Request, Response};
use crate::own_time::within_own_time;

/// The requests that wait in one lane may cost this much: some 13,000 pauses, half a second of the highest command rate, or
/// 120 transports with four sockets each.
pub const LANE_MAX: usize = 2 << 20;

// The longest frame must fit, or its sender would wait for ever.
const _: () = assert!(cost_of(PREFIX + MAX_FRAME, MAX_DESCRIPTORS) <= LANE_MAX && LANE_MAX <= u32::MAX as usize);

/// When the kernel has no memory, or holds too many unread descriptors of this user, it offers nothing to wait for, so the
/// writer tries again.
const RETRY_AFTER: Duration = Duration::from_millis(2);

/// Both halves of the supervisor's end, after the Hellos.
#[derive(Debug)]
pub struct SupervisorEndpoint {
    sender: RequestSender,
    receiver: WorkerReceiver,
    worker: Hello,
}

impl SupervisorEndpoint {
    /// Takes the socket, sends `hello`, and waits for the worker's. Must be called within a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`ChannelError::HelloTimeout`], by this process's [own time](crate::own_time); whatever else ends a channel. The socket is closed then.
    pub async fn connect(socket: OwnedFd, hello: Hello, timeout: Duration) -> Result<Self, ChannelError> {
        let socket = register(socket).map_err(|error| ChannelError::Os {
            call: "epoll_ctl",
            errno: errno_of(error),
        })?;
        let shared = Arc::new(Shared {
            socket,
            queue: Mutex::default(),
            wake: Notify::new(),
            control_permits: Semaphore::new(LANE_MAX),
            bulk_permits: Semaphore::new(LANE_MAX),
        });
        let sender = RequestSender {
            handle: Arc::new(SenderHandle {
                shared: Arc::clone(&shared),
            }),
        };
        let mut receiver = WorkerReceiver {
            shared: Arc::clone(&shared),
            inbound: Inbound::new(Side::Supervisor, hello.clone()),
            ended: None,
        };
        sender.push(&Message::Hello(hello), Vec::new()).await?;
        // A fresh socket takes the Hello at once. So the worker has it whatever its own says, and both know what differs.
        if let Ok(Some(drained)) = write_batch(shared.socket.as_fd(), &mut shared.queue().lanes) {
            shared.give_back(drained);
        }
        tokio::spawn(write_until_closed(shared));
        let worker = match within_own_time(timeout, receiver.hello()).await {
            Some(hello) => hello?,
            // The Hello may have arrived by now, although the runtime has not woken this task.
            None => match receiver.arrived()? {
                Some((Message::Hello(hello), _)) => hello,
                Some((other, _)) => return Err(receiver.end(ChannelError::HelloExpected { got: kind_of(&other) })),
                None => return Err(ChannelError::HelloTimeout { after: timeout }),
            },
        };
        Ok(Self {
            sender,
            receiver,
            worker,
        })
    }

    /// The worker's Hello.
    pub fn worker(&self) -> &Hello {
        &self.worker
    }

    /// The half that sends and the half that receives.
    pub fn split(self) -> (RequestSender, WorkerReceiver) {
        (self.sender, self.receiver)
    }
}

/// Queues requests for the worker. Clones share the queue.
///
/// When the last one is dropped, what is queued is still written; the channel stays open for reading until the
/// [`WorkerReceiver`] is dropped.
#[derive(Clone, Debug)]
pub struct RequestSender {
    handle: Arc<SenderHandle>,
}

impl RequestSender {
    /// Queues a request and the descriptors that travel with it, in the lane of its method; waits while the lane is full.
    /// `Ok` means queued: whether the worker has done it, its response tells. The descriptors are closed here as soon as they
    /// are on their way, or when this fails.
    ///
    /// Cancel safe: a dropped call has queued nothing. One task's requests stay in order within a lane.
    ///
    /// # Errors
    /// What ended the channel; or [`ChannelError::Unsendable`] and [`ChannelError::Descriptors`] for a request that is too
    /// big or has too many descriptors, which do not end it.
    pub async fn send(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<(), ChannelError> {
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(DescriptorError::TooMany {
                count: descriptors.len(),
            }
            .into());
        }
        self.push(&Message::Request(request), descriptors).await
    }

    async fn push(&self, message: &Message, descriptors: Vec<OwnedFd>) -> Result<(), ChannelError> {
        let shared = &self.handle.shared;
        let bytes = frame::encode(message).map_err(ChannelError::Unsendable)?;
        let lane = Lane::of(message);
        let cost = cost_of(bytes.len(), descriptors.len()) as u32; // at most LANE_MAX
        match shared.permits(lane).acquire_many(cost).await {
            Ok(permits) => permits.forget(), // the writer gives them back
            Err(_) => return Err(shared.why_closed()),
        }
        let mut queue = shared.queue();
        if let Some(error) = &queue.closed {
            return Err(error.clone());
        }
        queue.lanes.push(
            lane,
            QueuedFrame {
                descriptors,
                ..QueuedFrame::plain(bytes)
            },
        );
        drop(queue);
        shared.wake.notify_one();
        Ok(())
    }
}

/// What a worker sends.
#[derive(Debug)]
pub enum FromWorker {
    /// The answer to a request.
    Response(Response),
    /// A notification, which answers no request.
    Notification(Notification),
    /// A notification that a descriptor comes with. `None`: this process had no descriptor number left for it. Nothing is known of
    /// what it is.
    WithDescriptor(Notification, Option<OwnedFd>),
}

/// A message, with the descriptors that have come with it.
type Arrived = (Message, Vec<OwnedFd>);

/// Reads what the worker says. Dropping it closes the channel at once.
#[derive(Debug)]
pub struct WorkerReceiver {
    shared: Arc<Shared>,
    inbound: Inbound,
    ended: Option<ChannelError>,
}

impl WorkerReceiver {
    /// The next response or notification. Cancel safe. Log lines are cut to their limits and hold no control characters.
    ///
    /// # Errors
    /// What ended the channel, after everything that the worker said before: its end closed, anything that a worker must not
    /// send, a frame that was refused. Every later call, and every later [`RequestSender::send`], returns the same.
    pub async fn next(&mut self) -> Result<FromWorker, ChannelError> {
        let message = self.next_message().await?;
        self.check(message)
    }

    /// As [`WorkerReceiver::next`], of what has arrived already, whether the runtime has heard of it or not; `None`: nothing
    /// more has.
    ///
    /// # Errors
    /// As [`WorkerReceiver::next`].
    pub fn next_arrived(&mut self) -> Result<Option<FromWorker>, ChannelError> {
        match self.arrived()? {
            Some(arrived) => self.check(arrived).map(Some),
            None => Ok(None),
        }
    }

    /// What a worker may say after its Hello.
    fn check(&mut self, (message, descriptors): Arrived) -> Result<FromWorker, ChannelError> {
        match message {
            Message::Response(response) => Ok(FromWorker::Response(response)),
            Message::Notification(Notification::Log(line)) => {
                Ok(FromWorker::Notification(Notification::Log(log::printable(line))))
            }
            Message::Notification(notification) if notification.descriptors() > 0 => {
                Ok(FromWorker::WithDescriptor(notification, descriptors.into_iter().next()))
            }
            Message::Notification(notification) => Ok(FromWorker::Notification(notification)),
            other => Err(self.end(ChannelError::WrongDirection {
                sender: "worker",
                kind: kind_of(&other),
            })),
        }
    }

    /// The worker's Hello, which must be its first frame.
    async fn hello(&mut self) -> Result<Hello, ChannelError> {
        match self.next_message().await?.0 {
            Message::Hello(hello) => Ok(hello),
            other => Err(self.end(ChannelError::HelloExpected { got: kind_of(&other) })),
        }
    }

    async fn next_message(&mut self) -> Result<Arrived, ChannelError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        // A worker that floods its end must not keep this task from yielding.
        tokio::task::coop::consume_budget().await;
        loop {
            match self.inbound.next_message() {
                Ok(Some(arrived)) => return Ok(arrived),
                Ok(None) => {}
                Err(error) => return Err(self.end(error)),
            }
            let socket = &self.shared.socket;
            if socket.readable().await.is_err() {
                return Err(self.end(ChannelError::ClosedHere)); // the runtime shuts down
            }
            // `try_io` wants to hear of WouldBlock, to wait for the next readiness; errors are ours.
            let filled = socket.try_io(Interest::READABLE, || match self.inbound.fill(socket.as_fd()) {
                Ok(Fill::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
                Ok(Fill::Bytes) => Ok(Ok(())),
                Err(error) => Ok(Err(error)),
            });
            if let Ok(Err(error)) = filled {
                return Err(self.end(error));
            }
        }
    }

    /// The next message of those that are in the socket, or were read from it, at this moment.
    fn arrived(&mut self) -> Result<Option<Arrived>, ChannelError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        loop {
            match self.inbound.next_message() {
                Ok(Some(arrived)) => return Ok(Some(arrived)),
                Ok(None) => {}
                Err(error) => return Err(self.end(error)),
            }
            // The runtime may think that there is something to be read still; the next reading finds out.
            match self.inbound.fill(self.shared.socket.as_fd()) {
                Ok(Fill::Bytes) => {}
                Ok(Fill::WouldBlock) => return Ok(None),
                Err(error) => return Err(self.end(error)),
            }
        }
    }

    /// Ends the channel with its first error.
    fn end(&mut self, error: ChannelError) -> ChannelError {
        let error = self.shared.close_sending(error);
        shut_down(self.shared.socket.as_fd());
        self.ended.insert(error).clone()
    }
}

impl Drop for WorkerReceiver {
    fn drop(&mut self) {
        self.shared.close_sending(ChannelError::ClosedHere);
        // Senders may keep the socket open for a while; the worker need not wait for them to know.
        shut_down(self.shared.socket.as_fd());
    }
}

/// What the halves and the writer share.
#[derive(Debug)]
struct Shared {
    socket: UnixStream,
    queue: Mutex<Queue>,
    /// Wakes the writer: something was queued, or the channel closed, or the last sender went.
    wake: Notify,
    /// The cost that may still be queued, as permits.
    control_permits: Semaphore,
    bulk_permits: Semaphore,
}

#[derive(Debug, Default)]
struct Queue {
    lanes: Lanes,
    /// Why nothing can be sent any more.
    closed: Option<ChannelError>,
    /// No sender is left; the writer ends when the lanes are empty.
    senders_gone: bool,
}

impl Shared {
    /// Nothing panics while the lock is held, and the queue is whole between any two statements.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permits(&self, lane: Lane) -> &Semaphore {
        match lane {
            Lane::Control => &self.control_permits,
            Lane::Bulk => &self.bulk_permits,
        }
    }

    fn why_closed(&self) -> ChannelError {
        self.queue().closed.clone().unwrap_or(ChannelError::ClosedHere)
    }

    /// Nothing is sent any more, and what waits is thrown away. Returns why: the first reason there was.
    fn close_sending(&self, error: ChannelError) -> ChannelError {
        let mut queue = self.queue();
        let error = queue.closed.get_or_insert(error).clone();
        queue.lanes.clear();
        drop(queue);
        self.control_permits.close();
        self.bulk_permits.close();
        self.wake.notify_one();
        error
    }

    /// What is written lets senders queue as much again.
    fn give_back(&self, drained: Drained) {
        self.control_permits.add_permits(drained.control);
        self.bulk_permits.add_permits(drained.bulk);
    }

    /// Writes until nothing waits or the socket takes no more.
    fn write(&self) -> Written {
        let mut queue = self.queue();
        loop {
            if queue.closed.is_some() {
                return Written::Closed;
            }
            let written = self.socket.try_io(Interest::WRITABLE, || {
                write_batch(self.socket.as_fd(), &mut queue.lanes).map_err(io::Error::from)
            });
            match written.map_err(errno_of) {
                Ok(Some(drained)) => self.give_back(drained),
                Ok(None) if queue.senders_gone => return Written::Closed,
                Ok(None) => return Written::All,
                Err(Errno::EWOULDBLOCK) => return Written::SocketFull,
                Err(Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => return Written::Retry,
                // The worker is gone. What it has sent is still to be read, and the receiver says how it ended; until then
                // requests are accepted as if the worker were slow.
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Written::Closed,
                Err(errno) => {
                    drop(queue);
                    self.close_sending(ChannelError::Os { call: "sendmsg", errno });
                    shut_down(self.socket.as_fd()); // so that the receiver ends too
                    return Written::Closed;
                }
            }
        }
    }
}

/// Puts the socket under the runtime's watch.
fn register(socket: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// `try_io` speaks `io::Error`, and makes one without a number when the socket is known not to be ready.
fn errno_of(error: io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::WouldBlock => Errno::EWOULDBLOCK,
        _ => Errno::try_from(error).unwrap_or(Errno::UnknownErrno),
    }
}

/// What the writer waits for next.
enum Written {
    /// Something to write.
    All,
    /// The socket to become writable.
    SocketFull,
    /// Memory in the kernel.
    Retry,
    /// Nothing.
    Closed,
}

/// The writer: the only task that writes. Ends when the channel closes, or when the last sender is gone and all is written.
async fn write_until_closed(shared: Arc<Shared>) {
    loop {
        match shared.write() {
            Written::All => shared.wake.notified().await,
            Written::SocketFull => {
                // A full lane is no reason to write, but the writer must hear of a close.
                tokio::select! {
                    ready = shared.socket.writable() => {
                        if ready.is_err() {
                            return; // the runtime shuts down
                        }
                    }
                    () = shared.wake.notified() => {}
                }
            }
            Written::Retry => tokio::time::sleep(RETRY_AFTER).await,
            Written::Closed => return,
        }
    }
}

/// Tells the writer when the last sender goes.
#[derive(Debug)]
struct SenderHandle {
    shared: Arc<Shared>,
}

impl Drop for SenderHandle {
    fn drop(&mut self) {
        self.shared.queue().senders_gone = true;
        self.shared.wake.notify_one();
    }
}
