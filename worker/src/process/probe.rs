//! Tests what a worker needs of the kernel before there is a worker. The supervisor does this, because its workers inherit its
//! sandbox. So a refusal that matters fails the server's start and not each transport later, and any other is logged once.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::prctl;
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use weir_channel::message::{Remote, WorkerError};

use super::startup;
use crate::net::optional::Optional;
use crate::net::poll::{Interest, Poller, Source};
use crate::net::receive::ReceiveBatch;
use crate::net::scheduling;
use crate::net::send::{KernelSend, Message, SendBackend};
use crate::net::sockets::{Side, Sockets, TransportSockets, drop_count, may_segment, stamp_arrivals};
use crate::relay::sink::{Port, TransportIx};

/// What the kernel, or what confines this process, refuses, and no worker can do without.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{call} ({reason})")]
pub struct Refusal {
    /// The system call.
    pub call: String,
    /// What the system said.
    pub reason: String,
}

impl Refusal {
    fn of(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self {
            call: call.to_owned(),
            reason: errno.to_string(),
        }
    }
}

impl From<WorkerError> for Refusal {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Os { call, reason } => Self { call, reason },
            other => Self {
                call: "the sockets of a transport".to_owned(),
                reason: other.to_string(),
            },
        }
    }
}

/// Two packets of a train.
const TRAIN: [u8; 16] = [0; 16];
const SEGMENT: usize = TRAIN.len() / 2;

/// Does with the sockets of two plain transports, `[unconnected, connected]` each, what a worker does with those of two that send to each other,
/// and asks for what a worker asks for when it starts. To be called on a thread that ends afterwards: some of that
/// stays with the thread. `other_end` is where the second transport's sockets are bound to. Whether packets get through is not
/// looked at: a firewall is no reason not to start.
///
/// # Errors
/// The first thing that is refused and cannot be done without.
pub fn probe(one: Vec<OwnedFd>, other: Vec<OwnedFd>, other_end: SocketAddr) -> Result<(), Refusal> {
    probe_process();
    let (near, far) = (TransportIx(0), TransportIx(1));
    let mut sockets = Sockets::new();
    sockets.attach(near, TransportSockets::adopt(one, true)?);
    sockets.attach(far, TransportSockets::adopt(other, true)?);
    let remote = Remote {
        rtp: other_end,
        rtcp: None,
    };
    sockets.connect(near, remote)?;
    let (Some(sending), Some(receiving)) = (
        sockets.get(near, Port::Rtp, Side::Connected),
        sockets.get(far, Port::Rtp, Side::Unconnected),
    ) else {
        return Ok(()); // which cannot be: they were attached
    };
    send(sending)?;
    receive(receiving)?;
    // Once switched on it is on: some sandboxes refuse only that.
    Optional::ArrivalTimes.or_without(stamp_arrivals(receiving, true));
    let _ = drop_count(receiving);
    Ok(())
}

fn send(socket: BorrowedFd<'_>) -> Result<(), Refusal> {
    let mut backend = KernelSend::new();
    // No message: what is said to that is said of the call, and not of a packet, which a firewall may refuse by the same names.
    if let Err(errno @ (Errno::ENOSYS | Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP)) =
        backend.send_batch(socket, &TRAIN, &[])
    {
        return Err(Refusal::of("sendmmsg")(errno));
    }
    let singles: Vec<Message> = Message::whole(TRAIN.len(), SEGMENT).singles().collect();
    let _ = backend.send_batch(socket, &TRAIN, &singles);
    if may_segment() {
        // If it is refused, so it is by each way out, which then does without.
        let _ = backend.send_train(socket, &TRAIN, SEGMENT);
    }
    match backend.send_packet(socket, &TRAIN) {
        Err(errno @ Errno::ENOSYS) => Err(Refusal::of("send")(errno)),
        _ => Ok(()),
    }
}

fn receive(socket: BorrowedFd<'_>) -> Result<(), Refusal> {
    let mut poller = Poller::new(1).map_err(Refusal::of("epoll_create1"))?;
    poller
        .add(socket, Source::Channel, Interest::Read)
        .map_err(Refusal::of("epoll_ctl"))?;
    poller
        .wait(Some(Duration::ZERO), &mut Vec::new())
        .map_err(Refusal::of("epoll_wait"))?;
    let mut batch = ReceiveBatch::new(4, 2_048);
    batch.receive(socket, 4).map_err(Refusal::of("recvmmsg"))?;
    Ok(())
}

/// Tests what a worker asks for when it starts and can do without.
fn probe_process() {
    // None: the thread must not bring its process down when it ends. That a signal can be chosen is what matters.
    Optional::DeathSignal.or_without(prctl::set_pdeathsig(None));
    let cpu = sched_getaffinity(Pid::from_raw(0))
        .ok()
        .and_then(|set| (0..CpuSet::count()).find(|cpu| set.is_set(*cpu) == Ok(true)));
    // The CPU is one of those that this process may use.
    let _ = startup::set_up_thread(cpu.and_then(|cpu| u32::try_from(cpu).ok()));
    if let Err(error) = scheduling::prefer_latency() {
        startup::report_no_short_slices(&error);
    }
}

/// Asks at a listening TCP socket for what a worker asks for at the connections that it accepts, and can do without.
pub fn probe_tcp(listener: &OwnedFd) {
    Optional::NoDelay.or_without(setsockopt(listener, sockopt::TcpNoDelay, &true));
}
