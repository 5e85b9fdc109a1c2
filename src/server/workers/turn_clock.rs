//! A worker that hangs is found out by its turn clock, without a message: each turn of its event loop is bounded, so one that
//! lasts is none.

use std::future::pending;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use weir_channel::own_time::OwnTime;
use weir_channel::page::Page;

/// How long a turn may last. It takes some milliseconds at most.
pub(crate) const TURN_MAX: Duration = Duration::from_secs(1);

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Returns when a turn has lasted too long, in time in which this process itself ran.
pub(crate) async fn overlong_turn(page: Option<&Page>) {
    let Some(page) = page else {
        return pending().await;
    };
    let mut own = OwnTime::in_steps(Instant::now(), LOOK_INTERVAL);
    let mut watched = Watched::default();
    loop {
        sleep(LOOK_INTERVAL).await;
        if watched.is_overlong(own.look(Instant::now()), page.turn_began()) {
            return;
        }
    }
}

/// For so long a process is looked at that hangs.
const SPIN_TIME: Duration = Duration::from_millis(20);

/// A process that hangs because it goes round and round uses at least this part of that time, also where others want its CPU.
const SPIN_SHARE: u32 = 8;

/// Whether a process that hangs uses its CPU. One that was stopped from outside, or waits for something, does not.
pub(crate) async fn spins(pid: u32) -> bool {
    let used = || {
        let pid = i32::try_from(pid).ok()?;
        let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
        clock.now().ok().map(Duration::from)
    };
    let before = used();
    sleep(SPIN_TIME).await;
    match (before, used()) {
        (Some(before), Some(after)) => after.saturating_sub(before) >= SPIN_TIME / SPIN_SHARE,
        _ => false,
    }
}

/// The turn that was seen last.
#[derive(Debug, Default)]
struct Watched {
    /// When it began by the worker's clock, and when it was first seen by ours.
    turn: Option<(u64, Duration)>,
}

impl Watched {
    /// Looks once more, at `now`.
    fn is_overlong(&mut self, now: Duration, began: Option<u64>) -> bool {
        match (self.turn, began) {
            (Some((known, since)), Some(began)) if known == began => {
                // It may have begun just after the look before the first that saw it.
                now.saturating_sub(since) + LOOK_INTERVAL >= TURN_MAX
            }
            (_, began) => {
                self.turn = began.map(|began| (began, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_goes_round_and_round_is_told_from_one_that_was_stopped() {
        let mut process = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let pid = process.id();
        while !spins(pid).await {}
        nix::sys::signal::kill(Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGSTOP).unwrap();
        while spins(pid).await {}
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(!spins(pid).await, "it is gone");
    }

    #[test]
    fn only_one_turn_that_lasts_is_overlong() {
        let at = Duration::from_millis;
        let mut watched = Watched::default();
        for look in 0..100 {
            assert!(!watched.is_overlong(at(50 * look), Some(look + 1)), "turns that end");
        }
        for look in 100..200 {
            assert!(!watched.is_overlong(at(50 * look), None), "it waits");
        }
        assert!(!watched.is_overlong(at(10_000), Some(7)));
        assert!(!watched.is_overlong(at(10_900), Some(7)));
        assert!(!watched.is_overlong(at(10_950), Some(8)), "another turn");
        assert!(!watched.is_overlong(at(11_850), Some(8)));
        assert!(watched.is_overlong(at(11_900), Some(8)));
    }
}
