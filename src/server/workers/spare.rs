//! A spare process for each worker: it has said hello, is confined, and waits to take the place of the one that serves. So a
//! death costs no start.
//!
//! It has as much memory as the one that serves, for what it will make: else it would wait for the system to find and clear that
//! when everybody waits for it. When the other one has outgrown it, or has become much smaller, another spare takes its place.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::server::model::error::DeathCause;
use crate::server::workers::birth::{Born, bear};
use crate::server::workers::end::end;
use crate::server::workers::shared::Shared;
use crate::server::workers::slot::Slot;

/// How long to wait before a spare that did not come up, or did not stay, is made again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How often it is looked at whether a spare fits.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The spare of a slot. When it is dropped its process is killed.
#[derive(Debug)]
pub(crate) struct Spare {
    wanted: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<Born>>,
}

impl Spare {
    /// Has one made, and made again when it dies.
    pub(crate) fn keep(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Self {
        let (wanted, is_wanted) = oneshot::channel();
        Self {
            wanted: Some(wanted),
            task: tokio::spawn(keep(Arc::clone(shared), Arc::clone(slot), is_wanted)),
        }
    }

    /// The process, as soon as it is there; `None` if it did not come up.
    pub(crate) async fn hand_over(mut self) -> Option<Born> {
        self.wanted.take()?.send(()).ok();
        (&mut self.task).await.ok()?
    }

    /// Ends it, and waits until it is gone.
    pub(crate) async fn end(self) {
        if let Some(mut process) = self.hand_over().await {
            end(&mut process.child, Some(DeathCause::ServerClosed)).await;
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(shared: Arc<Shared>, slot: Arc<Slot>, mut wanted: oneshot::Receiver<()>) -> Option<Born> {
    // The one that does not fit any more stays until the next one is there.
    let mut unfit: Option<Born> = None;
    loop {
        let size = Size::wanted(&slot);
        let born = tokio::select! {
            biased;
            // One that does not fit is better than one that is not there yet.
            _ = &mut wanted, if unfit.is_some() => return unfit,
            born = bear(&shared, &slot, size.reserve()) => born,
        };
        match born {
            Ok(mut process) => {
                unfit = None;
                tokio::select! {
                    biased;
                    status = process.child.wait() => {
                        tracing::warn!(worker = slot.id().0, ?status, "the spare process of a worker has died");
                    }
                    _ = &mut wanted => return Some(process),
                    () = fits_no_more(&slot, size) => {
                        unfit = Some(process);
                        continue;
                    }
                }
            }
            Err(stillborn) => {
                tracing::warn!(worker = slot.id().0, cause = %stillborn.cause, "the spare process of a worker did not start");
            }
        }
        tokio::select! {
            biased;
            _ = &mut wanted => return unfit,
            () = sleep(RETRY_AFTER) => {}
        }
    }
}

/// What memory a process has of its own, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Size(u64);

impl Size {
    /// A process without rooms is smaller.
    const SMALL: Self = Self(32 << 20);

    /// What a spare should have.
    fn wanted(slot: &Slot) -> Self {
        slot.process()
            .map_or(Self(0), |(pid, reserve)| Self::of(pid).beside(Self(reserve)))
    }

    /// Of a process of this size that has reserved so much: how much of it it needs. Of what it has reserved nobody knows that. So that spares do
    /// not grow with each death, it counts as it was reserved until there is clearly more.
    fn beside(self, reserved: Self) -> Self {
        match self.0 <= reserved.0 + reserved.0 / 3 + Self::SMALL.0 {
            true if reserved.0 > 0 => reserved,
            _ => self,
        }
    }

    /// That of a process; 0 if it cannot be read.
    fn of(pid: u32) -> Self {
        #[cfg(test)]
        if crate::server::workers::simulated::now_ns().is_some() {
            return Self(0);
        }
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        // proc_pid_statm(5): size, resident, shared, in pages.
        let mut pages = statm.split(' ').skip(1).map_while(|word| word.parse::<u64>().ok());
        let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
        Self(resident.saturating_sub(shared) * page_bytes())
    }

    /// What a spare reserves that is to have it.
    fn reserve(self) -> u64 {
        match self > Self::SMALL {
            true => self.0,
            false => 0,
        }
    }

    /// Whether a spare of this size is of use for a process of that one, and does not take much more than it.
    fn fits(self, served: Self) -> bool {
        let served = served.0.max(Self::SMALL.0);
        (served * 3 / 4..=2 * served).contains(&self.0.max(Self::SMALL.0))
    }
}

fn page_bytes() -> u64 {
    use nix::unistd::{SysconfVar, sysconf};
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

/// Returns when a spare of this size is too small for what the process that serves has become, or much too large.
async fn fits_no_more(slot: &Slot, spare: Size) {
    loop {
        sleep(LOOK_INTERVAL).await;
        if !spare.fits(Size::wanted(slot)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_is_about_as_large_as_what_it_stands_in_for() {
        let mib = |mib: u64| Size(mib << 20);
        assert!(mib(3).fits(mib(3)) && mib(3).fits(mib(31)), "small ones are all alike");
        assert!(mib(3).fits(mib(40)) && !mib(3).fits(mib(50)));
        assert!(mib(100).fits(mib(120)) && !mib(100).fits(mib(150)), "outgrown");
        assert!(
            mib(100).fits(mib(60)) && !mib(100).fits(mib(30)),
            "memory that nobody needs"
        );
        assert_eq!((mib(30).reserve(), mib(40).reserve()), (0, 40 << 20));
        assert_eq!(mib(140).beside(mib(0)), mib(140));
        assert_eq!(mib(140).beside(mib(100)), mib(100), "with what is no heap");
        assert_eq!(mib(200).beside(mib(100)), mib(200), "outgrown");
        assert!(Size::of(std::process::id()) > mib(1));
        assert_eq!(Size::of(u32::MAX), Size(0));
    }
}
