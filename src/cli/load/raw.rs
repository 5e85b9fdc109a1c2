//! The baselines: the same frames handed to the kernel by bare send calls, with no relay.
//!
//! There are two, as there are two ways to send to many: through a connected socket for each receiver, which are the worker's own
//! where that can be, or through one unconnected socket for all of them. The cheaper one is what the relay is compared with.
//! Frames are grown to equal packets, so that each is one message: cheaper the kernel does not have it.
//!
//! Runs on the worker's CPU while the worker is idle. What is measured is the thread's CPU time of the send calls, and with
//! encryption of the same bytes by the bare cipher, alone.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use weir_worker::net::clock;
use weir_worker::net::poll::Poller;
use weir_worker::net::send::{BATCH_MESSAGES_MAX, Destination, KernelSend, Message, SendBackend};

use crate::cli::measuring::thread::MeasuringThread;

use super::cipher_baseline::CipherBaseline;
use super::traffic::{Frame, FrameWriter, Schedule};

/// Encrypted bytes that are gathered before they are sent through the one socket, if messages are not too many before that.
const GATHERED_BYTES_MAX: usize = 1 << 18;

/// What the baseline sends through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Through {
    /// A connected socket for each receiver.
    Connected,
    /// One unconnected socket.
    Shared,
}

/// One slice: how fast, how long, and through what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub through: Through,
    /// The sources' rates are multiplied by this.
    pub scale: f64,
    pub duration: Duration,
}

/// What a slice cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawSlice {
    pub packets: u64,
    pub errors: u64,
    pub cpu_ns: u64,
}

impl RawSlice {
    pub(super) fn ns_per_packet(&self) -> f64 {
        self.cpu_ns as f64 / self.packets.max(1) as f64
    }
}

/// The thread that sends the baselines.
pub(super) type RawSender = MeasuringThread<Order, RawSlice>;

/// A way to one receiver.
pub(super) struct Path {
    pub connected: OwnedFd,
    /// Where the unconnected socket sends to instead.
    pub remote: SocketAddr,
    pub cipher: Option<CipherBaseline>,
}

/// `targets[source]` says which of the paths each source's frames go to.
pub(super) fn start(
    cpu: usize,
    writers: Vec<FrameWriter>,
    paths: Vec<Path>,
    shared: UdpSocket,
    targets: Vec<Vec<usize>>,
) -> anyhow::Result<RawSender> {
    let destinations = paths.iter().map(|path| Destination::new(path.remote, false)).collect();
    let mut state = State {
        writers,
        sender: Sender {
            paths,
            destinations,
            shared,
            backend: KernelSend::new(),
            protected: Vec::new(),
            gathered: Vec::with_capacity(BATCH_MESSAGES_MAX),
        },
        targets,
    };
    RawSender::start("raw baseline", cpu, move |order| state.slice(order))
}

struct State {
    writers: Vec<FrameWriter>,
    sender: Sender,
    targets: Vec<Vec<usize>>,
}

struct Sender {
    paths: Vec<Path>,
    destinations: Vec<Destination>,
    shared: UdpSocket,
    backend: KernelSend,
    /// Where trains are protected.
    protected: Vec<u8>,
    /// What waits to be sent through the one socket.
    gathered: Vec<(Message, Destination)>,
}

impl State {
    fn slice(&mut self, order: Order) -> anyhow::Result<RawSlice> {
        let mut schedule = Schedule::new(self.writers.iter().map(FrameWriter::source), order.scale);
        let mut sleeper = Poller::new(1)?;
        let mut ready = Vec::new();
        let mut slice = RawSlice::default();
        let start = clock::monotonic();
        let end_ns = order.duration.as_nanos() as u64;
        loop {
            let now = clock::monotonic();
            let now_ns = now.since(start).as_nanos() as u64;
            if now_ns >= end_ns {
                return Ok(slice);
            }
            let Some(source) = schedule.pop(now_ns) else {
                // The worker waits between trains too, so the CPU is as warm or cold for both.
                let wait_ns = schedule.next_due().min(end_ns).saturating_sub(now_ns);
                sleeper.wait(Some(Duration::from_nanos(wait_ns)), &mut ready)?;
                continue;
            };
            let frame = self.writers[source].next_frame(now.0);
            let targets = &self.targets[source];
            let before = thread_cpu_ns();
            slice.errors += match order.through {
                Through::Connected => self.sender.send_connected(&frame, targets)?,
                Through::Shared => self.sender.send_shared(&frame, targets)?,
            };
            slice.cpu_ns += thread_cpu_ns() - before;
            slice.packets += (targets.len() * frame.packets) as u64;
        }
    }
}

impl Sender {
    /// Says how many messages the kernel refused.
    fn send_connected(&mut self, frame: &Frame<'_>, targets: &[usize]) -> anyhow::Result<u64> {
        let mut errors = 0;
        for target in targets {
            let path = &mut self.paths[*target];
            for message in frame.messages {
                let train = &frame.bytes[message.start..message.start + message.len];
                let (train, segment) = match &mut path.cipher {
                    None => (train, message.segment),
                    Some(cipher) => {
                        reserve(&mut self.protected, cipher.room(message));
                        let len = cipher.protect_train(train, message.segment, &mut self.protected)?;
                        (&self.protected[..len], message.segment + cipher.overhead())
                    }
                };
                let socket = path.connected.as_fd();
                let sent = match train.len() > segment {
                    false => self.backend.send_packet(socket, train),
                    true => self.backend.send_train(socket, train, segment),
                };
                errors += u64::from(sent.is_err());
            }
        }
        Ok(errors)
    }

    /// Likewise.
    fn send_shared(&mut self, frame: &Frame<'_>, targets: &[usize]) -> anyhow::Result<u64> {
        let mut errors = 0;
        let mut end = 0;
        for target in targets {
            let destination = self.destinations[*target];
            for message in frame.messages {
                let is_full = self.gathered.len() == BATCH_MESSAGES_MAX || end > GATHERED_BYTES_MAX;
                if is_full {
                    errors += self.flush(frame);
                    end = 0;
                }
                let message = match &mut self.paths[*target].cipher {
                    None => *message,
                    Some(cipher) => {
                        let train = &frame.bytes[message.start..message.start + message.len];
                        reserve(&mut self.protected, end + cipher.room(message));
                        let len = cipher.protect_train(train, message.segment, &mut self.protected[end..])?;
                        end += len;
                        Message {
                            start: end - len,
                            len,
                            segment: message.segment + cipher.overhead(),
                        }
                    }
                };
                self.gathered.push((message, destination));
            }
        }
        Ok(errors + self.flush(frame))
    }

    /// Sends what was gathered, and says how many messages the kernel refused.
    fn flush(&mut self, frame: &Frame<'_>) -> u64 {
        let is_encrypted = self.paths.first().is_some_and(|path| path.cipher.is_some());
        let bytes = if is_encrypted { &self.protected } else { frame.bytes };
        let (mut errors, mut first) = (0, 0);
        while let rest @ [_, ..] = &self.gathered[first..] {
            match self.backend.send_scattered(self.shared.as_fd(), bytes, rest) {
                Ok(sent) => first += sent.max(1),
                // The first one was not taken: the others may be.
                Err(_) => {
                    errors += 1;
                    first += 1;
                }
            }
        }
        self.gathered.clear();
        errors
    }
}

fn reserve(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    time.as_nanos() as u64
}
