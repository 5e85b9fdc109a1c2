//! Limits the work that anybody may cause in a second: a token bucket over the time that is handed in.

use crate::time::Time;

/// A nanosecond-exact token bucket. It begins full.
///
/// Invariant: of any interval of `t` seconds, at most `burst + t × per_second` takes succeed.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    per_second: u32,
    burst: u32,
    /// In billionths of a token, so that slow refills lose nothing to rounding.
    tokens_nano: u64,
    refilled_at: Time,
}

/// Billionths in one.
const NANO: u64 = 1_000_000_000;

impl Budget {
    /// A bucket that holds `burst` and gains `per_second`.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            tokens_nano: burst as u64 * NANO,
            refilled_at: Time(0),
        }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Time) -> bool {
        let gained = u128::from(now.0.saturating_sub(self.refilled_at.0)) * u128::from(self.per_second);
        let full = u64::from(self.burst) * NANO;
        let gained = u64::try_from(gained).unwrap_or(full);
        self.tokens_nano = self.tokens_nano.saturating_add(gained).min(full);
        self.refilled_at = self.refilled_at.max(now);
        let taken = self.tokens_nano >= NANO;
        if taken {
            self.tokens_nano -= NANO;
        }
        taken
    }
}

/// What all transports of a worker together may spend on those who have not proven who they are.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Error responses to STUN requests.
    pub stun_errors: Budget,
    /// DTLS datagrams of handshakes that have not ended.
    pub handshake_datagrams: Budget,
}

impl Budgets {
    /// A handshake costs a worker some 0.2 ms, spread over about 8 datagrams, so 16,000 a second
    /// are 2,000 handshakes and less than half of its time; a burst is 25 ms of it. An error response costs 2 µs.
    pub const fn of_a_worker() -> Self {
        Self {
            stun_errors: Budget::new(1_000, 1_000),
            handshake_datagrams: Budget::new(16_000, 1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut budget = Budget::new(10, 3);
        let start = Time::from_millis(5_000);
        let taken = |budget: &mut Budget, now| (0..20).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, start), 3);
        assert_eq!(taken(&mut budget, Time::from_millis(5_099)), 0);
        assert_eq!(taken(&mut budget, Time::from_millis(5_100)), 1);
        assert_eq!(taken(&mut budget, Time::from_millis(5_300)), 2);
        assert_eq!(taken(&mut budget, Time(u64::MAX)), 3);
        // Time that goes back gives nothing.
        assert_eq!(taken(&mut budget, start), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_promised(
            per_second in 0_u32..100,
            burst in 0_u32..50,
            steps in prop::collection::vec(0_u64..200_000_000, 1..300),
        ) {
            let mut budget = Budget::new(per_second, burst);
            let mut now = Time(0);
            let mut taken = 0_u64;
            for step in steps {
                now = Time(now.0 + step);
                taken += u64::from(budget.take(now));
                let promised = u128::from(burst) * u128::from(NANO) + u128::from(now.0) * u128::from(per_second);
                prop_assert!(u128::from(taken) * u128::from(NANO) <= promised);
            }
        }
    }
}
