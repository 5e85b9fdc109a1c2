//! The baseline: the same trains handed to the same connected sockets by the same calls, with no relay.
//!
//! Runs on the worker's CPU while the worker is idle. What is measured is the thread's CPU time of the send calls, and with
//! encryption of the same bytes by the bare cipher, alone.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use weir_worker::net::clock;
use weir_worker::net::poll::Poller;
use weir_worker::net::send::{KernelSend, SendBackend, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX};
use weir_worker::webrtc::srtp::Profile;

use super::cipher_baseline::CipherBaseline;
use super::thread::MeasuringThread;
use super::traffic::{Schedule, TrainWriter};

/// One slice: how fast and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// The sources' rates are multiplied by this.
    pub scale: f64,
    pub duration: Duration,
}

/// What a slice cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawSlice {
    pub packets: u64,
    pub calls: u64,
    pub errors: u64,
    pub cpu_ns: u64,
}

impl RawSlice {
    pub(super) fn ns_per_packet(&self) -> f64 {
        self.cpu_ns as f64 / self.packets.max(1) as f64
    }
}

/// The thread that sends the baseline.
pub(super) type RawSender = MeasuringThread<Order, RawSlice>;

/// `paths` are the sockets, each with its cipher if what leaves on it is encrypted, and `targets[source]` says which of
/// them each source's trains go to.
pub(super) fn start(
    cpu: usize,
    writers: Vec<TrainWriter>,
    paths: Vec<(OwnedFd, Option<CipherBaseline>)>,
    targets: Vec<Vec<usize>>,
) -> anyhow::Result<RawSender> {
    let mut state = State {
        writers,
        paths,
        targets,
        backend: KernelSend::new(),
        protected: vec![0; TRAIN_BYTES_MAX + TRAIN_SEGMENTS_MAX * Profile::RTP_OVERHEAD_MAX],
    };
    RawSender::start("raw baseline", cpu, move |order| state.slice(order))
}

struct State {
    writers: Vec<TrainWriter>,
    paths: Vec<(OwnedFd, Option<CipherBaseline>)>,
    targets: Vec<Vec<usize>>,
    backend: KernelSend,
    /// Where trains are protected.
    protected: Vec<u8>,
}

impl State {
    fn slice(&mut self, order: Order) -> anyhow::Result<RawSlice> {
        let sources: Vec<_> = self.writers.iter().map(|writer| writer.source().clone()).collect();
        let mut schedule = Schedule::new(&sources, order.scale);
        let mut sleeper = Poller::new(1)?;
        let mut ready = Vec::new();
        let mut slice = RawSlice::default();
        let start = clock::monotonic();
        let end_ns = order.duration.as_nanos() as u64;
        loop {
            let now_ns = clock::monotonic().since(start).as_nanos() as u64;
            if now_ns >= end_ns {
                return Ok(slice);
            }
            let Some(source) = schedule.pop(now_ns) else {
                // The worker waits between trains too, so the CPU is as warm or cold for both.
                let wait_ns = schedule.next_due().min(end_ns).saturating_sub(now_ns);
                sleeper.wait(Some(Duration::from_nanos(wait_ns)), &mut ready)?;
                continue;
            };
            let writer = &mut self.writers[source];
            let segment = writer.source().packet_bytes;
            let burst = writer.source().burst;
            let train = writer.next_train();
            let before = thread_cpu_ns();
            for target in &self.targets[source] {
                let (path, baseline) = &mut self.paths[*target];
                let socket = path.as_fd();
                let (train, segment) = match baseline {
                    None => (train, segment),
                    Some(baseline) => {
                        let len = baseline.protect_train(train, segment, &mut self.protected)?;
                        (&self.protected[..len], segment + baseline.overhead())
                    }
                };
                let sent = if burst == 1 {
                    self.backend.send_packet(socket, train)
                } else {
                    self.backend.send_train(socket, train, segment)
                };
                slice.errors += u64::from(sent.is_err());
            }
            slice.cpu_ns += thread_cpu_ns() - before;
            let calls = self.targets[source].len() as u64;
            slice.calls += calls;
            slice.packets += calls * burst as u64;
        }
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    time.as_nanos() as u64
}
