//! A worker that hangs is found out by its turn clock, without a message: each turn of its event loop is bounded, so one that
//! lasts is none; and between two turns it waits no longer than [`REST_MAX`](weir_channel::page::REST_MAX) at a time, so one that does not
//! wake up cannot.

use std::future::pending;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use weir_channel::own_time::OwnTime;
use weir_channel::page::{Doing, Page};

/// How long a worker may show that it does the same, at least. A turn takes some milliseconds at most; what is left of this after a
/// wait is for machines whose CPUs are wanted by others.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How long a worker may stand still: a second, but for those who give it much time to answer pings, so that they can look at a
/// process that they have stopped.
pub(crate) fn standstill_max(ping_timeout: Duration) -> Duration {
    STANDSTILL.max(ping_timeout / 5)
}

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Returns when a worker has stood still for so long, in time in which this process itself ran, with what it does.
pub(crate) async fn standstill(page: Option<&Page>, most: Duration) -> Doing {
    let Some(page) = page else {
        return pending().await;
    };
    let mut own = OwnTime::in_steps(Instant::now(), LOOK_INTERVAL);
    let mut watched = Watched::for_at_most(most);
    loop {
        sleep(LOOK_INTERVAL).await;
        if let Some(doing) = watched.stands_still(own.look(Instant::now()), page.doing()) {
            return doing;
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

/// What was seen last.
#[derive(Debug)]
struct Watched {
    /// How long it may go on.
    most: Duration,
    /// What the worker did, by its clock, and when it was first seen to, by ours.
    doing: Option<(Doing, Duration)>,
}

impl Watched {
    fn for_at_most(most: Duration) -> Self {
        Self { most, doing: None }
    }

    /// Looks once more, at `now`. What the worker does, if it has done nothing else for too long.
    fn stands_still(&mut self, now: Duration, seen: Option<Doing>) -> Option<Doing> {
        match (self.doing, seen) {
            (Some((known, since)), Some(seen)) if known == seen => {
                // It may have begun just after the look before the first that saw it.
                (now.saturating_sub(since) + LOOK_INTERVAL >= self.most).then_some(known)
            }
            (_, seen) => {
                self.doing = seen.map(|seen| (seen, now));
                None
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
    fn only_who_does_the_same_for_long_stands_still() {
        let at = Duration::from_millis;
        let mut watched = Watched::for_at_most(STANDSTILL);
        for look in 0..100 {
            let doing = Some(Doing::Turn(look + 1));
            assert_eq!(watched.stands_still(at(50 * look), doing), None, "turns that end");
        }
        for look in 100..200 {
            let doing = Some(Doing::Rest(look / 5));
            assert_eq!(
                watched.stands_still(at(50 * look), doing),
                None,
                "it waits, a while at a time"
            );
        }
        for look in 200..300 {
            assert_eq!(watched.stands_still(at(50 * look), None), None, "it has not begun");
        }
        for doing in [Doing::Turn, Doing::Rest] {
            let mut watched = Watched::for_at_most(STANDSTILL);
            for (now, began) in [(10_000, 7), (10_900, 7), (10_950, 8), (11_850, 8)] {
                assert_eq!(watched.stands_still(at(now), Some(doing(began))), None);
            }
            assert_eq!(watched.stands_still(at(11_900), Some(doing(8))), Some(doing(8)));
        }
        let mut watched = Watched::for_at_most(STANDSTILL);
        assert_eq!(watched.stands_still(at(0), Some(Doing::Turn(7))), None);
        assert_eq!(
            watched.stands_still(at(5_000), Some(Doing::Rest(7))),
            None,
            "it waits since"
        );
    }

    /// A supervisor that does not run itself sees nothing, and blames nobody: the machine was suspended, or others had its CPU.
    #[tokio::test(start_paused = true)]
    async fn who_has_not_looked_blames_nobody() {
        let mut own = OwnTime::in_steps(Instant::now(), LOOK_INTERVAL);
        let mut watched = Watched::for_at_most(STANDSTILL);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(60)).await;
            assert_eq!(
                watched.stands_still(own.look(Instant::now()), Some(Doing::Rest(1))),
                None
            );
        }
        let mut looks = 0;
        while watched
            .stands_still(own.look(Instant::now()), Some(Doing::Rest(1)))
            .is_none()
        {
            tokio::time::advance(LOOK_INTERVAL).await;
            looks += 1;
        }
        assert!(looks >= 8, "{looks}");
    }

    #[test]
    fn who_has_much_time_for_pings_may_stand_still_for_longer() {
        let most = |seconds| standstill_max(Duration::from_secs(seconds));
        assert_eq!([most(1), most(5)], [STANDSTILL; 2]);
        assert_eq!(most(3_600), Duration::from_secs(720));
    }
}
