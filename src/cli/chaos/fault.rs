//! What is done to a worker.

use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fault {
    /// The process is killed (SIGKILL)
    Kill,
    /// It is stopped, as if it hung (SIGSTOP), and goes on after 5 seconds if nobody has ended it
    Stop,
    /// It is ended as the kernel ends what has no memory left: by the signal of a failed allocation (SIGABRT)
    Oom,
    /// It is killed while the server may open no more descriptors, for 300 ms
    Emfile,
}

/// How long the server may open nothing.
const SHORTAGE: Duration = Duration::from_millis(300);

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Oom => "oom",
            Self::Emfile => "emfile",
        }
    }

    /// Does it. What it takes away is given back before this ends.
    pub(super) async fn strike(self, pid: u32) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(pid).context("a process id beyond what the kernel gives")?);
        let signal = match self {
            Self::Kill | Self::Emfile => Signal::SIGKILL,
            Self::Stop => Signal::SIGSTOP,
            Self::Oom => Signal::SIGABRT,
        };
        let shortage = match self {
            Self::Emfile => Some(Shortage::begin()?),
            _ => None,
        };
        kill(pid, signal).context("sending a worker a signal")?;
        if let Some(shortage) = shortage {
            tokio::time::sleep(SHORTAGE).await;
            drop(shortage);
        }
        Ok(())
    }
}

/// While this lives, this process may open no more descriptors.
struct Shortage {
    soft: libc::rlim_t,
    hard: libc::rlim_t,
}

impl Shortage {
    fn begin() -> anyhow::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of descriptors")?;
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).context("lowering the limit of descriptors")?;
        Ok(Self { soft, hard })
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        // To what it was: nothing forbids that.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard);
    }
}

/// The descriptors that a process has open.
pub(super) fn descriptors_of(pid: u32) -> anyhow::Result<usize> {
    let folder = format!("/proc/{pid}/fd");
    // Since Linux 6.2 its size is their number. Listing it would make thousands of names, which the kernel takes apart when the
    // process dies, before anybody hears of it: 6 ms of a gap.
    match std::fs::metadata(&folder).context("counting descriptors")?.len() {
        0 => Ok(std::fs::read_dir(folder).context("counting descriptors")?.count()),
        count => Ok(usize::try_from(count)?),
    }
}

/// The memory of a process that is its own alone (RssAnon), in bytes.
pub(super) fn memory_of(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading how much memory is in use")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the kernel does not say how much memory is in use (RssAnon)")? * 1_024)
}
