//! A worker process as the supervisor holds it: it is waited for, and killed if need be.

use std::io;
use std::process::ExitStatus;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use tokio::process::Child;

#[cfg(test)]
use crate::server::workers::simulated::SimulatedBody;

/// Killed when dropped.
#[derive(Debug)]
pub(crate) enum Body {
    Process(Child),
    #[cfg(test)]
    Simulated(SimulatedBody),
}

impl Body {
    /// Its process id, until it has been waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        match self {
            Self::Process(child) => child.id(),
            #[cfg(test)]
            Self::Simulated(simulated) => Some(simulated.pid),
        }
    }

    /// The clock of how long CPUs have worked for it; `None`: there is none.
    pub(crate) fn cpu_clock(&self) -> Option<ClockId> {
        match self {
            Self::Process(child) => {
                let pid = i32::try_from(child.id()?).ok()?;
                clock_getcpuclockid(Pid::from_raw(pid)).ok()
            }
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    /// Waits until it has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Process(child) => child.wait().await,
            #[cfg(test)]
            Self::Simulated(simulated) => Ok(simulated.wait().await),
        }
    }

    /// How it has ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Process(child) => child.try_wait(),
            #[cfg(test)]
            Self::Simulated(simulated) => Ok(simulated.status()),
        }
    }

    /// Kills it; it has not ended yet when this returns.
    pub(crate) fn start_kill(&mut self) -> io::Result<()> {
        match self {
            Self::Process(child) => child.start_kill(),
            #[cfg(test)]
            Self::Simulated(simulated) => {
                simulated.kill();
                Ok(())
            }
        }
    }
}
