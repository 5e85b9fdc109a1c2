//! Waiting for sockets, with microseconds.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tracing::warn;

use super::optional::Optional;

pub use super::source::Source;

/// What to wait for at a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Readable.
    Read,
    /// Readable or writable.
    ReadWrite,
    /// Writable.
    Write,
    /// Nothing for now. Errors are reported all the same.
    Nothing,
}

/// Something that is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What has become ready.
    pub source: Source,
    /// There is something to read, or an error to be met by reading.
    pub is_readable: bool,
    /// The socket is writable.
    pub is_writable: bool,
}

/// Two epolls, level triggered: what is left unread is reported again. Sockets at which anybody is heard have one of their own,
/// so that however many of them are ready, the others come first.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    /// It is watched by the first one.
    open: Epoll,
    is_open_ready: bool,
    events: Vec<libc::epoll_event>,
    /// How often something was added.
    added: Cell<u64>,
    calls: u64,
    /// epoll_pwait2 takes nanoseconds, but is missing before Linux 5.11 and in some sandboxes.
    has_pwait2: bool,
}

impl Poller {
    /// Each of the two reports at most `events` at once. Those left out come first the next time.
    ///
    /// # Errors
    /// What epoll_create1 and epoll_ctl say.
    pub fn new(events: usize) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let open = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Self::of(epoll, open, events)
    }

    /// Waits with these two epolls from now on, which watch nothing yet and which others may hold too, and at the channel. If that fails,
    /// nothing changes.
    ///
    /// # Errors
    /// `EBUSY` if something else is watched already, `EINVAL` if one is no epoll; what else epoll_ctl says.
    pub fn move_to(
        &mut self,
        [epoll, open]: [OwnedFd; 2],
        channel: BorrowedFd<'_>,
        interest: Interest,
    ) -> Result<(), Errno> {
        if self.added.get() > 1 {
            return Err(Errno::EBUSY);
        }
        let moved = Self::of(Epoll(epoll), Epoll(open), self.events.len())?;
        moved.add(channel, Source::Channel, interest)?;
        *self = Self {
            calls: self.calls,
            has_pwait2: self.has_pwait2,
            ..moved
        };
        Ok(())
    }

    fn of(epoll: Epoll, open: Epoll, events: usize) -> Result<Self, Errno> {
        let vacant = libc::epoll_event { events: 0, u64: 0 };
        epoll.add(&open.0, event(Source::Open, Interest::Read))?;
        Ok(Self {
            epoll,
            open,
            is_open_ready: false,
            events: vec![vacant; events.max(1)],
            added: Cell::new(0),
            calls: 0,
            has_pwait2: true,
        })
    }

    /// Starts to watch a descriptor.
    ///
    /// # Errors
    /// What epoll_ctl says.
    pub fn add(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno> {
        self.epoll_of(source).add(descriptor, event(source, interest))?;
        self.added.set(self.added.get() + 1);
        Ok(())
    }

    /// Waits for something else at a descriptor that is watched.
    ///
    /// # Errors
    /// What epoll_ctl says.
    pub fn modify(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno> {
        self.epoll_of(source).modify(descriptor, &mut event(source, interest))
    }

    /// Waits for something else at a descriptor that is watched. If the kernel refuses, that is logged, and it is watched as before.
    pub fn rewatch(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) {
        if let Err(errno) = self.modify(descriptor, source, interest) {
            warn!(%errno, "epoll_ctl");
        }
    }

    /// Stops watching a descriptor. Closing it is not enough while another process holds the same socket.
    ///
    /// # Errors
    /// What epoll_ctl says.
    pub fn remove(&self, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        match self.epoll.delete(descriptor) {
            Err(Errno::ENOENT) => self.open.delete(descriptor),
            result => result,
        }
    }

    fn epoll_of(&self, source: Source) -> &Epoll {
        match source.is_open() {
            true => &self.open,
            false => &self.epoll,
        }
    }

    /// Waits until something is ready, at most `timeout` (`None`: for ever), and writes what it is to `ready`, in place of
    /// what was there, except for what anybody is heard at: then [`Poller::is_open_ready`]. An interrupted wait is a short one.
    ///
    /// # Errors
    /// What the kernel says of the epoll itself.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Event>) -> Result<(), Errno> {
        let result = self.wait_at(self.epoll.0.as_raw_fd(), timeout, ready);
        let before = ready.len();
        ready.retain(|event| event.source != Source::Open);
        self.is_open_ready |= ready.len() != before;
        result
    }

    /// Whether [`Poller::poll_open`] has something to report.
    pub fn is_open_ready(&self) -> bool {
        self.is_open_ready
    }

    /// Writes what is ready of that at which anybody is heard to `ready`, in place of what was there.
    ///
    /// # Errors
    /// As [`Poller::wait`].
    pub fn poll_open(&mut self, ready: &mut Vec<Event>) -> Result<(), Errno> {
        self.wait_at(self.open.0.as_raw_fd(), Some(Duration::ZERO), ready)?;
        self.is_open_ready = !ready.is_empty();
        Ok(())
    }

    fn wait_at(&mut self, epoll: RawFd, timeout: Option<Duration>, ready: &mut Vec<Event>) -> Result<(), Errno> {
        ready.clear();
        let count = match self.wait_once(epoll, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        ready.extend(self.events[..count].iter().map(|event| {
            let flags = EpollFlags::from_bits_retain(event.events as libc::c_int);
            Event {
                source: Source::from_bits(event.u64),
                is_readable: flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
                is_writable: flags.contains(EpollFlags::EPOLLOUT),
            }
        }));
        Ok(())
    }

    /// Calls of the kernel that waited.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    fn wait_once(&mut self, epoll: RawFd, timeout: Option<Duration>) -> Result<usize, Errno> {
        self.calls += 1;
        if self.has_pwait2 {
            match self.pwait2(epoll, timeout) {
                result @ (Ok(_) | Err(Errno::EINTR | Errno::EBADF)) => return result,
                // An old kernel says ENOSYS, a sandbox whatever it likes; if it is something else, epoll_wait says it again.
                Err(errno) => {
                    Optional::EpollNanoseconds.or_without::<()>(Err(errno));
                    self.has_pwait2 = false;
                }
            }
        }
        // Rounded up: a timer that is due in 10 µs must not become a busy loop.
        let timeout_ms = timeout.map_or(-1, |timeout| {
            libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
        });
        // SAFETY: the kernel writes at most as many events as the array has.
        let count = unsafe {
            libc::epoll_wait(
                epoll,
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                timeout_ms,
            )
        };
        Errno::result(count).map(|count| (count as usize).min(self.events.len()))
    }

    fn pwait2(&mut self, epoll: RawFd, timeout: Option<Duration>) -> Result<usize, Errno> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let timeout_pointer = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // Called by number, because not every C library has the name.
        // SAFETY: the kernel writes at most as many events as the array has, and reads the time, if there is one.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll,
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                timeout_pointer,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        Errno::result(count).map(|count| (count as usize).min(self.events.len()))
    }
}

fn event(source: Source, interest: Interest) -> EpollEvent {
    let flags = match interest {
        Interest::Read => EpollFlags::EPOLLIN,
        Interest::ReadWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        Interest::Write => EpollFlags::EPOLLOUT,
        Interest::Nothing => EpollFlags::empty(),
    };
    EpollEvent::new(flags, source.to_bits())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::super::source::Side;
    use super::*;
    use crate::relay::sink::{Port, TransportIx};

    /// However many sockets strangers send to: who is known is not behind them.
    #[test]
    fn what_anybody_is_heard_at_is_reported_apart() {
        let mut poller = Poller::new(4).unwrap();
        let mut pairs = Vec::new();
        for index in 0..40 {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            let side = if index == 30 {
                Side::Connected
            } else {
                Side::Unconnected
            };
            let source = Source::Socket {
                transport: TransportIx(index),
                port: Port::Rtp,
                side,
            };
            poller.add(ours.as_fd(), source, Interest::Read).unwrap();
            theirs.send(b"something").unwrap();
            pairs.push((ours, theirs, source));
        }
        let mut ready = Vec::new();
        poller.wait(None, &mut ready).unwrap();
        assert_eq!(
            ready.iter().map(|event| event.source).collect::<Vec<_>>(),
            [pairs[30].2]
        );
        assert!(poller.is_open_ready());
        // All of them have their turn.
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            poller.poll_open(&mut ready).unwrap();
            assert_eq!(ready.len(), 4);
            seen.extend(ready.iter().map(|event| event.source));
        }
        assert_eq!(seen.len(), 39);
        for (ours, _, _) in &pairs {
            poller.remove(ours.as_fd()).unwrap();
        }
        poller.poll_open(&mut ready).unwrap();
        assert!(ready.is_empty() && !poller.is_open_ready());
        poller.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert!(ready.is_empty() && !poller.is_open_ready());
    }

    /// Whoever holds the epolls too sees what is watched; what is watched already is not left behind.
    #[test]
    fn it_moves_before_anything_but_the_channel_is_watched() {
        let make = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap().0;
        let (channel, _peer) = UnixDatagram::pair().unwrap();
        let mut poller = Poller::new(4).unwrap();
        poller.add(channel.as_fd(), Source::Channel, Interest::Read).unwrap();
        let other: OwnedFd = channel.try_clone().unwrap().into();
        let refused = poller.move_to([other, make()], channel.as_fd(), Interest::Read);
        assert_eq!(refused, Err(Errno::EINVAL), "a socket is no epoll");
        let (epoll, open) = (make(), make());
        let pair = [epoll.try_clone().unwrap(), open];
        poller.move_to(pair, channel.as_fd(), Interest::Read).unwrap();
        let again = Epoll(epoll).add(&channel, EpollEvent::empty());
        assert_eq!(again, Err(Errno::EEXIST), "the channel is watched there");
        let (socket, _peer) = UnixDatagram::pair().unwrap();
        poller
            .add(socket.as_fd(), Source::SharedPort { number: 0 }, Interest::Read)
            .unwrap();
        let refused = poller.move_to([make(), make()], channel.as_fd(), Interest::Read);
        assert_eq!(refused, Err(Errno::EBUSY));
    }
}
