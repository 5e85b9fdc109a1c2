//! A worker of the simulation: the whole of a worker's process, on simulated ground. It has the supervisor's real channel and a
//! real page, and dies when it is told to: between two turns, at a store to its page, or at a byte of what it has said.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::libc::SIGKILL;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::sleep;
use weir_channel::id::WorkerId;
use weir_worker::exit::Exit;
use weir_worker::log;
use weir_worker::net::page::MappedPage;
use weir_worker::net::shell::Backends;
use weir_worker::page::memory::{HeapPage, Memory};
use weir_worker::process::{EventLoop, Start};
use weir_worker::time::Time;
use weir_worker::webrtc::dtls;

use super::network::{Network, Poll, Receiver, Sender, Shared, Virtual, Watching, now};
use super::sim::random::Random;
use crate::server::workers::simulated::Birth;

/// A worker, seen from outside.
pub(super) struct Process {
    pub(super) worker: WorkerId,
    pub(super) pid: u32,
    pub(super) page: Arc<HeapPage>,
    pub(super) watching: Rc<RefCell<Watching>>,
    /// Something is there for it, or it is to look again.
    pub(super) woken: Arc<Notify>,
    /// It gets no CPU until then.
    pub(super) frozen_until: Cell<Option<Time>>,
    /// It is stopped in the middle of a turn, not while it waits.
    pub(super) freezes_in_turn: Cell<bool>,
    /// It dies with what it says next: so much of it arrives.
    pub(super) cut_at: Cell<Option<Cut>>,
    /// How many bytes that was.
    pub(super) cut_of: Cell<u64>,
}

/// How much arrives of what a worker says as it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// In thousandths.
    Part(u64),
    Bytes(u64),
}

impl Process {
    /// Kills it here and now.
    pub(super) fn kill(&self) {
        self.page.kill();
    }

    pub(super) fn is_dead(&self) -> bool {
        self.page.is_dead()
    }

    /// It dies when it would store the word after so many more.
    pub(super) fn kill_after_stores(&self, stores: u64) {
        self.page.kill_after(self.page.stores() + stores);
    }

    /// What was to go wrong does not.
    pub(super) fn disarm(&self) {
        self.page.kill_after(u64::MAX);
        self.cut_at.set(None);
    }

    pub(super) fn freeze(&self, until: Time, in_turn: bool) {
        self.frozen_until.set(Some(until));
        self.freezes_in_turn.set(in_turn);
        self.woken.notify_one();
    }
}

/// Where a worker is made.
pub(super) struct Cradle {
    pub(super) network: Shared,
    pub(super) random: Random,
    /// Chances of a full socket, in a thousand.
    pub(super) full: usize,
}

impl Cradle {
    /// A worker, and what it does until it ends.
    pub(super) fn bear(&mut self, birth: Birth) -> (Rc<Process>, impl Future<Output = ()> + use<>) {
        let woken = Arc::new(Notify::new());
        let on_death = {
            let (woken, channel) = (Arc::clone(&woken), birth.channel.try_clone().unwrap());
            move || {
                // The supervisor reads what was written before, and then the end.
                let _ = shutdown(channel.as_raw_fd(), Shutdown::Both);
                woken.notify_one();
            }
        };
        let page = HeapPage::over(MappedPage::map(&birth.page).unwrap(), on_death);
        let seed = self.random.next();
        let mut random = Random::new(seed);
        let poll = Poll::new(Rc::clone(&self.network));
        let process = Rc::new(Process {
            worker: birth.worker,
            pid: birth.pid,
            page: Arc::clone(&page),
            watching: Rc::clone(&poll.watching),
            woken,
            frozen_until: Cell::new(None),
            freezes_in_turn: Cell::new(false),
            cut_at: Cell::new(None),
            cut_of: Cell::new(0),
        });
        let starts_after = Duration::from_micros(500 + random.below(4_000) as u64);
        let backends = Backends::<Virtual> {
            send: Sender {
                network: Rc::clone(&self.network),
                page,
                random: Random::new(random.next()),
                full: self.full,
            },
            receive: Receiver::new(Rc::clone(&self.network), Random::new(random.next())),
            poll,
        };
        let life = live(
            Rc::clone(&process),
            birth,
            backends,
            Rc::clone(&self.network),
            starts_after,
        );
        (process, life)
    }
}

async fn live(
    process: Rc<Process>,
    birth: Birth,
    backends: Backends<Virtual>,
    network: Shared,
    starts_after: Duration,
) {
    let Birth {
        worker,
        channel,
        far_end,
        killed,
        ended,
        ..
    } = birth;
    let status = {
        // What a signal does, it does at once.
        let life = run(&process, worker, channel, far_end, backends, &network, starts_after);
        tokio::select! {
            biased;
            () = killed.notified() => None,
            exit = life => exit,
        }
    };
    process.kill();
    let status = status.map_or(SIGKILL, |exit| i32::from(exit.code()) << 8);
    let _ = ended.send(Some(status));
}

/// Returns when it has died, or with how it has ended by itself.
async fn run(
    process: &Process,
    worker: WorkerId,
    channel: OwnedFd,
    far_end: OwnedFd,
    backends: Backends<Virtual>,
    network: &RefCell<Network>,
    starts_after: Duration,
) -> Option<Exit> {
    sleep(starts_after).await;
    let (_subscriber, queue, filter) = log::subscriber();
    let readable = std::os::unix::net::UnixStream::from(channel.try_clone().unwrap());
    readable.set_nonblocking(true).unwrap();
    let readable = UnixStream::from_std(readable).unwrap();
    let voice = channel.try_clone().unwrap();
    let start = Start {
        channel,
        id: worker,
        dtls: dtls::Settings::default(),
        log: queue,
        log_filter: filter,
    };
    let mut event_loop = EventLoop::on(backends, start).unwrap();
    event_loop.keep_in(Memory::heap(Arc::clone(&process.page)));
    let mut result = event_loop.begin();
    while result.is_ok() && !event_loop.is_leaving() {
        if process.is_dead() {
            return None;
        }
        if let Some(until) = process.frozen_until.take() {
            let in_turn = process.freezes_in_turn.take();
            if !in_turn {
                event_loop.rest();
            }
            sleep(until.since(now())).await;
        }
        result = event_loop.turn();
        if let Some(part) = process.cut_at.get()
            && let Some(said) = cut(&far_end, &voice, part)
        {
            process.cut_of.set(said);
            process.kill();
        }
        if process.is_dead() {
            return None;
        }
        if process.frozen_until.get().is_some() {
            continue;
        }
        event_loop.rest();
        let is_ready = !process.watching.borrow().ready(&mut network.borrow_mut()).is_empty();
        let due = match is_ready {
            true => now(),
            false => event_loop.next_timeout(),
        };
        tokio::select! {
            biased;
            () = process.woken.notified() => {}
            _ = readable.readable() => {
                // Level triggered: what is not read is reported again.
                let _ = readable.try_io(tokio::io::Interest::READABLE, || peek(&readable));
            }
            () = sleep(due.since(now())) => {}
        }
    }
    Some(match result {
        Ok(()) => event_loop.finish().exit,
        Err(ended) => ended.exit,
    })
}

/// Says whether there is something to read; if not, the runtime waits for it again.
fn peek(channel: &UnixStream) -> std::io::Result<()> {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(channel.as_raw_fd(), &mut byte, flags)
        .map(drop)
        .map_err(std::io::Error::from)
}

/// Takes back from the channel what the supervisor has not read yet, but for a part of it. How much that was, if there was something.
fn cut(far_end: &OwnedFd, voice: &OwnedFd, part: Cut) -> Option<u64> {
    let mut said = vec![0; 1 << 20];
    let len = recv(far_end.as_fd().as_raw_fd(), &mut said, MsgFlags::MSG_DONTWAIT).ok()?;
    let heard = match part {
        Cut::Part(part) => len * part as usize / 1_000,
        Cut::Bytes(bytes) => len.min(bytes as usize),
    };
    if heard > 0 {
        let _ = send(voice.as_raw_fd(), &said[..heard], MsgFlags::MSG_DONTWAIT);
    }
    (len > 0).then_some(len as u64)
}
