//! The worker's only clocks.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::time::{Time, WallClock};

/// The machine's monotonic clock, the one that request deadlines are on. About 20 ns a read (vDSO).
pub fn monotonic() -> Time {
    Time(read(ClockId::CLOCK_MONOTONIC))
}

/// The machine's realtime clock in nanoseconds since 1970, the one that the kernel stamps arrivals with.
pub fn realtime_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

/// Where the wall clock stands on the monotonic one. Of three readings the one that took the least time counts, in case the
/// process is interrupted between the two clocks.
pub fn wall_clock() -> WallClock {
    let readings = [(); 3].map(|()| {
        let (before, unix_ns, after) = (monotonic(), realtime_ns(), monotonic());
        let took = after.since(before);
        (took, WallClock::new(before + took / 2, unix_ns))
    });
    let [first, rest @ ..] = readings;
    rest.into_iter()
        .fold(first, |best, other| if other.0 < best.0 { other } else { best })
        .1
}

/// An instant of the standard library's, with the moment on our clock that it stands for.
#[expect(
    clippy::disallowed_methods,
    reason = "a library counts in instants, which cannot be made from numbers"
)]
pub fn instant() -> (Instant, Time) {
    (Instant::now(), monotonic())
}

/// User and system CPU time of this process, in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: ClockId) -> u64 {
    // Linux has all three clocks, so the call cannot fail; 580 years fit into the u64.
    let now = clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    now.as_nanos() as u64
}
