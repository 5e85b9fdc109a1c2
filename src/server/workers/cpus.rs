//! The CPUs this process may use.

use std::io;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// The CPUs of the affinity mask, in order.
pub(crate) fn usable() -> io::Result<Vec<usize>> {
    let mask = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|cpu| mask.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// How many workers that is: one for each of these CPUs, or fewer if the cgroup's quota pays for fewer.
pub(crate) fn count(cpus: &[usize]) -> usize {
    // The standard library heeds both the mask and the quota (cgroup v1 and v2).
    let paid = available_parallelism().map_or(1, NonZeroUsize::get);
    cpus.len().min(paid).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_cpu_and_no_more_workers_than_cpus() {
        let cpus = usable().unwrap();
        assert!(!cpus.is_empty());
        assert!((1..=cpus.len()).contains(&count(&cpus)));
        assert_eq!(count(&[]), 1);
    }
}
