//! Which CPU does what.

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use super::progress;

/// The worker's CPU, and the one for everything else.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Cpus {
    pub worker: usize,
    pub load: usize,
    /// They are the same, because there is only one.
    pub shared: bool,
}

impl Cpus {
    /// The first CPU that this thread may use is the one that the server pins its first worker to.
    fn choose() -> nix::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        let worker = cpus.next().unwrap_or(0);
        let load = cpus.next();
        Ok(Self {
            worker,
            load: load.unwrap_or(worker),
            shared: load.is_none(),
        })
    }
}

/// Which CPU does what, and a runtime for the server on the one for everything else. The server looks at the affinity of the thread
/// that starts it to find CPUs for its workers, so that thread moves away after that.
pub(in crate::cli) fn begin() -> anyhow::Result<(Cpus, Runtime)> {
    let cpus = Cpus::choose().context("reading which CPUs this process may use")?;
    if cpus.shared {
        progress::warn("only one CPU may be used: workers and everybody else share it, and the figures suffer");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(move || pin(cpus.load))
        .build()
        .context("starting the runtime")?;
    Ok((cpus, runtime))
}

/// Keeps the calling thread on one CPU. Where that is forbidden the figures suffer, nothing else.
pub(in crate::cli) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}
