//! What a worker's process stands on: the kernel, or a simulation of it in which the time is virtual and packets come from tests.
//!
//! Sockets are descriptors on both, and what these are bound and connected to is the kernel's business on both. What differs is
//! what time it is, and what brings packets, takes them, or waits for them. Who is generic over it costs nothing: there is one of
//! each in a program.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::clock;
use super::poll::{Event, Interest, Poller, Source};
use super::receive::{ReceiveBatch, Received};
use super::send::{KernelSend, SendBackend};
use crate::time::{Time, WallClock};

/// See the [module](self).
pub trait Shell {
    /// What takes packets.
    type Send: SendBackend;
    /// What brings them.
    type Receive: ReceiveBackend;
    /// What waits for them.
    type Poll: PollBackend;

    /// The clock that deadlines are on, which never goes back.
    fn monotonic() -> Time;

    /// Nanoseconds since 1970.
    fn realtime_ns() -> u64;

    /// Where the wall clock stands on the other one.
    fn wall_clock() -> WallClock;

    /// A number that no other worker of this machine gets.
    fn seed() -> u64;
}

/// Takes what has arrived at a socket.
pub trait ReceiveBackend {
    /// As [`ReceiveBatch::receive`].
    ///
    /// # Errors
    /// What is wrong with the socket.
    fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> Result<Received<'_>, Errno>;

    /// How often it has looked.
    fn calls(&self) -> u64;
}

/// Waits for sockets, as a [`Poller`] does.
pub trait PollBackend {
    /// As [`Poller::add`].
    ///
    /// # Errors
    /// Why it is not watched.
    fn add(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno>;

    /// As [`Poller::modify`].
    ///
    /// # Errors
    /// Why it is watched as before.
    fn modify(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno>;

    /// As [`Poller::rewatch`].
    fn rewatch(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest);

    /// As [`Poller::remove`].
    ///
    /// # Errors
    /// Why it is still watched.
    fn remove(&self, descriptor: BorrowedFd<'_>) -> Result<(), Errno>;

    /// As [`Poller::move_to`].
    ///
    /// # Errors
    /// Why it waits as before.
    fn move_to(&mut self, pollers: [OwnedFd; 2], channel: BorrowedFd<'_>, interest: Interest) -> Result<(), Errno>;

    /// As [`Poller::wait`].
    ///
    /// # Errors
    /// Why it cannot wait.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Event>) -> Result<(), Errno>;

    /// As [`Poller::is_open_ready`].
    fn is_open_ready(&self) -> bool;

    /// As [`Poller::poll_open`].
    ///
    /// # Errors
    /// Why it cannot look.
    fn poll_open(&mut self, ready: &mut Vec<Event>) -> Result<(), Errno>;

    /// Waits for the channel alone, to be read or, with [`Interest::Write`], to be written. An error or a signal only makes the
    /// wait shorter.
    fn wait_for_channel(&self, channel: BorrowedFd<'_>, interest: Interest, timeout: Duration);

    /// How often it has waited.
    fn calls(&self) -> u64;
}

/// What an event loop stands on.
#[derive(Debug)]
pub struct Backends<S: Shell> {
    /// What takes packets.
    pub send: S::Send,
    /// What brings them.
    pub receive: S::Receive,
    /// What waits for them, and for the channel.
    pub poll: S::Poll,
}

/// The kernel.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

impl Shell for Kernel {
    type Send = KernelSend;
    type Receive = ReceiveBatch;
    type Poll = Poller;

    fn monotonic() -> Time {
        clock::monotonic()
    }

    fn realtime_ns() -> u64 {
        clock::realtime_ns()
    }

    fn wall_clock() -> WallClock {
        clock::wall_clock()
    }

    fn seed() -> u64 {
        // Two that start in the same nanosecond have different process numbers.
        clock::realtime_ns().rotate_left(22) ^ u64::from(std::process::id())
    }
}

impl ReceiveBackend for ReceiveBatch {
    #[inline]
    fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> Result<Received<'_>, Errno> {
        Self::receive(self, socket, limit)
    }

    fn calls(&self) -> u64 {
        Self::calls(self)
    }
}

impl PollBackend for Poller {
    fn add(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno> {
        Self::add(self, descriptor, source, interest)
    }

    fn modify(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno> {
        Self::modify(self, descriptor, source, interest)
    }

    fn rewatch(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) {
        Self::rewatch(self, descriptor, source, interest);
    }

    fn remove(&self, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        Self::remove(self, descriptor)
    }

    fn move_to(&mut self, pollers: [OwnedFd; 2], channel: BorrowedFd<'_>, interest: Interest) -> Result<(), Errno> {
        Self::move_to(self, pollers, channel, interest)
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Event>) -> Result<(), Errno> {
        Self::wait(self, timeout, ready)
    }

    #[inline]
    fn is_open_ready(&self) -> bool {
        Self::is_open_ready(self)
    }

    #[inline]
    fn poll_open(&mut self, ready: &mut Vec<Event>) -> Result<(), Errno> {
        Self::poll_open(self, ready)
    }

    fn wait_for_channel(&self, channel: BorrowedFd<'_>, interest: Interest, timeout: Duration) {
        let flags = match interest {
            Interest::Read => PollFlags::POLLIN,
            Interest::ReadWrite => PollFlags::POLLIN | PollFlags::POLLOUT,
            Interest::Write => PollFlags::POLLOUT,
            Interest::Nothing => PollFlags::empty(),
        };
        let mut channel = [PollFd::new(channel, flags)];
        let _ = ppoll(&mut channel, Some(TimeSpec::from_duration(timeout)), None);
    }

    fn calls(&self) -> u64 {
        Self::calls(self)
    }
}
