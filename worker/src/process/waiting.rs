//! How the event loop waits: until the next turn may begin, then awake for a while, then asleep.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use weir_channel::message::{Coalescing, WorkerError};

use super::coalesce::Window;
use super::spin::Spin;
use crate::net::poll::{Event, Interest};
use crate::net::shell::{PollBackend, Shell};
use crate::time::Time;

/// What is waited with: the kernel, or a test's virtual clock.
pub(super) trait Waits {
    /// What time it is.
    fn now(&mut self) -> Time;

    /// Waits until a socket or the channel is ready, at most `timeout` (`None`: for ever). Returns whether one is.
    ///
    /// # Errors
    /// What the kernel says of the wait itself.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, Errno>;

    /// Waits until the channel is ready, at most `timeout`.
    fn wait_for_channel(&mut self, timeout: Duration);
}

/// What the loop waits with.
pub(super) struct Wait<'a, S: Shell> {
    pub(super) poller: &'a mut S::Poll,
    pub(super) ready: &'a mut Vec<Event>,
    pub(super) channel: BorrowedFd<'a>,
}

impl<S: Shell> Waits for Wait<'_, S> {
    fn now(&mut self) -> Time {
        S::monotonic()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, Errno> {
        self.poller.wait(timeout, self.ready)?;
        Ok(!self.ready.is_empty() || self.poller.is_open_ready())
    }

    fn wait_for_channel(&mut self, timeout: Duration) {
        self.poller.wait_for_channel(self.channel, Interest::Read, timeout);
    }
}

/// How the loop waits, and what it has cost.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) window: Window,
    pub(super) spin: Spin,
    /// When the last turn began that looked at the sockets.
    looked: Time,
    pub(super) counters: Counters,
}

/// Counters of waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counters {
    /// Turns that began later than they could have, because of the window.
    pub(super) coalesced_turns: u64,
    /// How long it has looked for packets instead of sleeping.
    pub(super) spun: Duration,
}

impl Waiting {
    /// Sets how long packets may wait for others, and how long to spin.
    ///
    /// # Errors
    /// [`WorkerError::InvalidParameters`] when one of them is too long; then neither is set.
    pub(super) fn set_max(&mut self, coalescing: Coalescing) -> Result<(), WorkerError> {
        let window = Window::with_max(coalescing.window_us_max)?;
        self.spin = Spin::with_max(coalescing.spin_us_max)?;
        self.window = window;
        Ok(())
    }

    /// Waits for something to do. `now` is when the last turn ended; `due` when a timer wants a turn of its own, if any does.
    ///
    /// # Errors
    /// As [`Waits::wait`].
    pub(super) fn wait(&mut self, kernel: &mut impl Waits, now: Time, due: Option<Time>) -> Result<(), Errno> {
        let (began, mut now) = (now, now);
        let next_turn = self.window.next_turn(self.looked);
        if let Some(next_turn) = next_turn.filter(|next_turn| *next_turn > now) {
            // Nothing but the channel ends this wait early. A timer is as late as a packet.
            self.counters.coalesced_turns += 1;
            kernel.wait_for_channel(next_turn.since(now));
            now = kernel.now();
        } else if next_turn.is_none()
            && let Some(spin) = self.spin.duration()
        {
            let until = (began + spin).min(due.unwrap_or(Time(u64::MAX)));
            let mut is_ready = false;
            while !is_ready && now < until {
                is_ready = kernel.wait(Some(Duration::ZERO))?;
                now = kernel.now();
            }
            self.counters.spun += now.since(began);
            if is_ready {
                self.spin.on_wait(now.since(began));
                self.looked = now;
                return Ok(());
            }
        }
        kernel.wait(due.map(|due| due.since(now)))?;
        self.looked = kernel.now();
        if next_turn.is_none() {
            // With what it has spun: what comes after that is late.
            self.spin.on_wait(self.looked.since(began));
        }
        Ok(())
    }

    /// Looks for something to do without waiting, because something is left to do.
    ///
    /// # Errors
    /// As [`Waits::wait`].
    pub(super) fn look(&mut self, kernel: &mut impl Waits) -> Result<(), Errno> {
        kernel.wait(Some(Duration::ZERO))?;
        self.looked = kernel.now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::coalesce::Turn;
    use super::*;

    /// What a wake-up costs, in nanoseconds.
    const WAKE_NS: u64 = 4_000;
    /// What relaying a packet costs.
    const RELAY_NS: u64 = 5_000;

    /// Packets that arrive at known times, a clock that only waiting and working move, and what both add up to.
    struct Virtual {
        now: u64,
        /// When packets arrive, sorted.
        arrivals: Vec<u64>,
        /// Those before it are relayed.
        next: usize,
        wakes: u64,
        /// When the channel has something, if ever.
        channel: u64,
    }

    impl Virtual {
        fn new(arrivals: Vec<u64>) -> Self {
            Self {
                now: 0,
                arrivals,
                next: 0,
                wakes: 0,
                channel: u64::MAX,
            }
        }

        fn sleep_until(&mut self, time: u64) {
            if time > self.now {
                self.now = time + WAKE_NS;
                self.wakes += 1;
            }
        }
    }

    impl Waits for Virtual {
        fn now(&mut self) -> Time {
            Time(self.now)
        }

        fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, Errno> {
            let until = timeout.map_or(u64::MAX, |timeout| self.now + timeout.as_nanos() as u64);
            let arrival = self
                .arrivals
                .get(self.next)
                .copied()
                .unwrap_or(u64::MAX)
                .min(self.channel);
            assert!(arrival.min(until) < u64::MAX, "it would wait for ever");
            self.sleep_until(arrival.min(until));
            self.now += 300;
            Ok(arrival <= self.now)
        }

        fn wait_for_channel(&mut self, timeout: Duration) {
            self.sleep_until((self.now + timeout.as_nanos() as u64).min(self.channel));
        }
    }

    /// What came of a run: the delay of each packet, and what it cost.
    struct Outcome {
        delays: Vec<u64>,
        wakes: u64,
        spun: Duration,
        coalesced: u64,
    }

    impl Outcome {
        fn percentile(&self, percent: usize) -> u64 {
            let mut sorted = self.delays.clone();
            sorted.sort_unstable();
            sorted[(sorted.len() - 1) * percent / 100]
        }
    }

    /// Relays all of the packets.
    fn run(window_us: u32, spin_us: u32, arrivals: &[u64]) -> Outcome {
        let mut waiting = Waiting::default();
        waiting.set_max(settings(window_us, spin_us)).unwrap();
        let mut kernel = Virtual::new(arrivals.to_vec());
        let mut delays = Vec::new();
        while kernel.next < arrivals.len() {
            let ended = kernel.now;
            waiting.wait(&mut kernel, Time(ended), None).unwrap();
            let woke = kernel.now;
            let first = kernel.next;
            // What has arrived by now is read; what arrives meanwhile, in the next turn.
            while kernel.next < arrivals.len() && arrivals[kernel.next] <= woke {
                delays.push(kernel.now - arrivals[kernel.next]);
                kernel.now += RELAY_NS;
                kernel.next += 1;
            }
            waiting.window.on_turn(Turn {
                waited: Duration::from_nanos(woke - ended),
                worked: Duration::from_nanos(kernel.now - woke),
                packets: (kernel.next - first) as u64,
            });
        }
        Outcome {
            delays,
            wakes: kernel.wakes,
            spun: waiting.counters.spun,
            coalesced: waiting.counters.coalesced_turns,
        }
    }

    fn settings(window_us_max: u32, spin_us_max: u32) -> Coalescing {
        Coalescing {
            window_us_max,
            spin_us_max,
            measure_residence: false,
        }
    }

    /// Packets at random, so many per second on average, for a second.
    fn poisson(rate: f64, seed: u64) -> Vec<u64> {
        let (mut state, mut time) = (seed, 0.0);
        std::iter::from_fn(|| {
            // A linear congruential generator is random enough here; its upper bits are the better ones.
            state = u64::wrapping_add(state.wrapping_mul(6_364_136_223_846_793_005), 1_442_695_040_888_963_407);
            let uniform = ((state >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
            time -= f64::ln(uniform) / rate * 1e9;
            (time < 1e9).then_some(time as u64)
        })
        .collect()
    }

    /// SPECIFICATION N7.
    #[test]
    fn no_packet_waits_longer_than_the_window_more() {
        for window_us in [50, 200, 1_000] {
            for rate in [500.0, 5_000.0, 20_000.0, 60_000.0, 120_000.0, 160_000.0] {
                let arrivals = poisson(rate, 7);
                let without = run(0, 0, &arrivals);
                let with = run(window_us, 0, &arrivals);
                // A window later, it may find as many packets before it as a window brings.
                let window = u64::from(window_us) * 1_000;
                let turn = (rate * window as f64 / 1e9).ceil() as u64 * RELAY_NS * 2 + WAKE_NS + 10_000;
                let (worst, before) = (with.percentile(100), without.percentile(100));
                assert!(
                    worst <= before + window + turn,
                    "{window_us} µs at {rate}: {worst} instead of {before} ns"
                );
            }
        }
    }

    #[test]
    fn it_opens_where_packets_gather_and_only_there() {
        // 560 packets a second are a call of four; 200,000 are all that this worker can do.
        for (rate, is_open) in [(560.0, false), (20_000.0, false), (80_000.0, true), (150_000.0, true)] {
            let arrivals = poisson(rate, 1);
            let (without, with) = (run(0, 0, &arrivals), run(1_000, 0, &arrivals));
            assert_eq!(without.coalesced, 0);
            assert_eq!(with.coalesced > 0, is_open, "{rate} packets a second");
            if is_open {
                assert!(
                    with.wakes * 4 < without.wakes,
                    "{rate}: {} of {}",
                    with.wakes,
                    without.wakes
                );
            } else {
                assert_eq!(with.delays, without.delays);
            }
        }
    }

    /// Where turns take longer than the window there is nothing to wait for.
    #[test]
    fn a_saturated_worker_does_not_wait() {
        let arrivals = poisson(230_000.0, 3);
        let (without, with) = (run(0, 0, &arrivals), run(200, 0, &arrivals));
        assert!(with.coalesced < 20, "{}", with.coalesced);
        assert!(with.percentile(50) <= without.percentile(50) * 11 / 10);
    }

    /// 32 packets to a turn are enough, so that many packets wait for a shorter time.
    #[test]
    fn the_more_packets_come_the_shorter_they_wait() {
        let half = |rate| run(1_000, 0, &poisson(rate, 5)).percentile(50);
        let (few, many) = (half(60_000.0), half(150_000.0));
        assert!(few > 200_000 && few < 500_000 && many < 200_000, "{few}, {many}");
    }

    #[test]
    fn the_channel_does_not_wait_for_the_window() {
        let mut waiting = Waiting::default();
        waiting.set_max(settings(1_000, 0)).unwrap();
        for _ in 0..1_000 {
            waiting.window.on_turn(Turn {
                waited: Duration::from_micros(500),
                worked: Duration::from_micros(500),
                packets: 10,
            });
        }
        let mut kernel = Virtual::new(vec![2_000_000]);
        (kernel.now, kernel.channel, waiting.looked) = (1_000_000, 1_100_000, Time(1_000_000));
        waiting.wait(&mut kernel, Time(1_000_000), None).unwrap();
        assert!(kernel.now < 1_110_000, "{}", kernel.now);
    }

    #[test]
    fn zero_is_off_and_too_long_is_refused() {
        let mut waiting = Waiting::default();
        waiting.set_max(settings(1_000, 1_000)).unwrap();
        let before = format!("{waiting:?}");
        for (settings, words) in [
            (
                settings(1_001, 0),
                "a coalescing window of 1001 µs; at most 1000 are allowed",
            ),
            (settings(0, 1_001), "spinning for 1001 µs; at most 1000 are allowed"),
        ] {
            assert_eq!(waiting.set_max(settings).unwrap_err().to_string(), words);
            assert_eq!(format!("{waiting:?}"), before);
        }
        let arrivals = poisson(60_000.0, 2);
        let off = run(0, 0, &arrivals);
        assert_eq!((off.coalesced, off.spun), (0, Duration::ZERO));
    }

    /// It saves the time to wake up while packets come in time, and costs nothing else.
    #[test]
    fn it_spins_while_packets_come_in_time() {
        let steady: Vec<_> = (1..10_000).map(|index| index * 100_000).collect();
        let (asleep, awake) = (run(0, 0, &steady), run(0, 150, &steady));
        assert!(asleep.percentile(50) >= WAKE_NS && awake.percentile(50) < 1_000);
        assert!(awake.wakes < 100, "{}", awake.wakes);
        assert!(awake.spun > Duration::from_millis(800), "{:?}", awake.spun);
        let too_slow = run(0, 50, &steady);
        assert_eq!((too_slow.wakes, too_slow.spun), (asleep.wakes, Duration::ZERO));
    }

    /// What comes after it has given up is late, however soon after that it comes.
    #[test]
    fn it_stops_spinning_when_packets_come_later() {
        let soon = (1..2_000).map(|index| index * 50_000);
        let later = (1..5_000).map(|index| 100_000_000 + index * 150_000);
        let outcome = run(0, 100, &soon.chain(later).collect::<Vec<_>>());
        assert!(outcome.spun > Duration::from_millis(80), "{:?}", outcome.spun);
        assert!(outcome.spun < Duration::from_millis(110), "{:?}", outcome.spun);
    }

    /// The window is for many packets, spinning for few.
    #[test]
    fn a_worker_with_an_open_window_does_not_spin() {
        let arrivals = poisson(60_000.0, 4);
        let both = run(1_000, 1_000, &arrivals);
        assert!(
            both.coalesced > 500 && both.spun < Duration::from_millis(50),
            "{:?}",
            both.spun
        );
    }
}
