//! What simulations put in the place of processes and clocks. It holds for the thread on which a simulation runs; on others the
//! world is real.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::libc::SIGKILL;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use weir_channel::id::WorkerId;
use weir_channel::message::Deadline;
use weir_channel::page::Page;

thread_local! {
    static GROUND: RefCell<Option<Ground>> = const { RefCell::new(None) };
}

/// What a simulation gives its supervisor to stand on.
#[derive(Debug)]
pub(crate) struct Ground {
    /// When its time began.
    pub(crate) began: Instant,
    /// Who makes workers.
    pub(crate) births: mpsc::UnboundedSender<Birth>,
    pub(crate) last_pid: u32,
}

/// A worker is to be made.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    pub(crate) channel: OwnedFd,
    /// The supervisor's end of it.
    pub(crate) far_end: OwnedFd,
    pub(crate) page: Page,
    pub(crate) killed: Arc<Notify>,
    pub(crate) ended: watch::Sender<Option<i32>>,
}

/// From now on this thread stands on it.
pub(crate) fn stand_on(ground: Option<Ground>) {
    GROUND.set(ground);
}

/// Nanoseconds since the simulation began, and a second, so that no time is zero.
pub(crate) fn now_ns() -> Option<u64> {
    GROUND.with_borrow(|ground| Some(ground.as_ref()?.began.elapsed().as_nanos() as u64 + 1_000_000_000))
}

/// As [`Deadline::after`].
pub(crate) fn deadline_after(timeout: Duration) -> Option<Deadline> {
    Some(Deadline(now_ns()?.saturating_add(timeout.as_nanos() as u64)))
}

/// Has a worker made, if this is a simulation.
pub(crate) fn spawn(
    worker: WorkerId,
    channel: &OwnedFd,
    far_end: &OwnedFd,
    page: Option<&Page>,
) -> Option<SimulatedBody> {
    GROUND.with_borrow_mut(|ground| {
        let ground = ground.as_mut()?;
        ground.last_pid += 1;
        let (pid, killed) = (ground.last_pid, Arc::new(Notify::new()));
        let (ended, end) = watch::channel(None);
        let birth = Birth {
            worker,
            pid,
            channel: channel.try_clone().unwrap(),
            far_end: far_end.try_clone().unwrap(),
            page: Page::recognize(page?.try_clone().unwrap()).unwrap(),
            killed: Arc::clone(&killed),
            ended,
        };
        ground.births.send(birth).ok()?;
        Some(SimulatedBody { pid, killed, end })
    })
}

/// A worker that is no process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct SimulatedBody {
    pub(crate) pid: u32,
    killed: Arc<Notify>,
    end: watch::Receiver<Option<i32>>,
}

impl SimulatedBody {
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.end.borrow().map(ExitStatus::from_raw)
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        // An error says that the simulation is over.
        let ended = self.end.wait_for(Option::is_some).await;
        ExitStatus::from_raw(ended.ok().and_then(|status| *status).unwrap_or(SIGKILL))
    }

    pub(crate) fn kill(&self) {
        self.killed.notify_one();
    }
}

impl Drop for SimulatedBody {
    fn drop(&mut self) {
        self.kill();
    }
}
