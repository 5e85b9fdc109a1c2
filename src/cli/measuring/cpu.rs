//! Which CPU does what.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

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
    pub(in crate::cli) fn choose() -> nix::Result<Self> {
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

/// Keeps the calling thread on one CPU. Where that is forbidden the figures suffer, nothing else.
pub(in crate::cli) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}
