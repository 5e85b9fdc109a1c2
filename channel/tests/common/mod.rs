//! What the tests of this crate share.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use nix::unistd::pipe2;
use weir_channel::endpoint::WorkerEndpoint;
use weir_channel::id::WorkerId;
use weir_channel::message::{Deadline, Hello};

/// How long a test waits for something that must come, before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn socketpair() -> (OwnedFd, OwnedFd) {
    nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe2(OFlag::O_CLOEXEC).unwrap()
}

pub(crate) fn hello() -> Hello {
    Hello::new("0.1.0", WorkerId(1))
}

pub(crate) fn deadline() -> Deadline {
    Deadline::after(PATIENCE)
}

pub(crate) fn assert_close_on_exec(descriptor: &OwnedFd) {
    let flags = FdFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFD).unwrap());
    assert!(
        flags.contains(FdFlag::FD_CLOEXEC),
        "{descriptor:?} would survive an exec"
    );
}

/// Waits for `events`, or for the peer's end.
pub(crate) fn wait_for(descriptor: BorrowedFd<'_>, events: PollFlags) -> PollFlags {
    let mut entries = [PollFd::new(descriptor, events)];
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut entries, timeout).unwrap(), 1, "waited in vain for {events:?}");
    entries[0].revents().unwrap()
}

pub(crate) fn wait_readable(endpoint: &WorkerEndpoint) {
    wait_for(endpoint.as_fd(), PollFlags::POLLIN);
}

/// Flushes all, waiting for the socket.
pub(crate) fn flush(endpoint: &mut WorkerEndpoint) {
    while !endpoint.flush().unwrap() {
        wait_for(endpoint.as_fd(), PollFlags::POLLOUT);
    }
}

/// A worker's end in a thread of its own.
pub(crate) struct Worker<T> {
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Worker<T> {
    pub(crate) fn spawn(
        socket: OwnedFd,
        hello: Hello,
        body: impl FnOnce(&mut WorkerEndpoint) -> T + Send + 'static,
    ) -> Self {
        let thread = std::thread::spawn(move || {
            let mut endpoint = WorkerEndpoint::new(socket, hello).unwrap();
            flush(&mut endpoint);
            body(&mut endpoint)
        });
        Self { thread }
    }

    pub(crate) fn join(self) -> T {
        self.thread.join().unwrap()
    }
}
