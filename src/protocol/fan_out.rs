//! How many consumers a client may cause to be made in a while.
//!
//! One small message, `createProducer`, makes a consumer for every other peer of the room, and each of them is told. A
//! client that makes producers and closes them again, as fast as its messages are read, would keep the server busy with
//! nothing else. So each consumer costs its maker time, some of which a client has in advance.

use std::time::Duration;

use tokio::time::Instant;

/// What a consumer costs: a client can have 1,000 made a second in the long run.
const CONSUMER: Duration = Duration::from_millis(1);

/// What a client has in advance: 5,000 consumers at once, five producers in the largest room.
const ADVANCE: Duration = Duration::from_secs(5);

/// What one client has used up.
#[derive(Debug, Default)]
pub(crate) struct FanOut {
    /// When everything is paid for.
    paid: Option<Instant>,
}

impl FanOut {
    /// Counts consumers that are about to be made.
    ///
    /// # Errors
    /// How long to wait, when that is too many.
    pub(super) fn take(&mut self, consumers: usize, now: Instant) -> Result<(), Duration> {
        let paid = self.paid.map_or(now, |paid| paid.max(now));
        let cost = CONSUMER.saturating_mul(u32::try_from(consumers).unwrap_or(u32::MAX));
        let owed = (paid - now).saturating_add(cost);
        if owed > ADVANCE {
            return Err(owed - ADVANCE);
        }
        self.paid = Some(now + owed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_comes_back_with_time() {
        let (mut budget, start) = (FanOut::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(budget.take(999, start), Ok(()));
        }
        assert_eq!(budget.take(999, start), Err(Duration::from_millis(994)));
        assert_eq!(budget.take(5, start), Ok(()));
        assert_eq!(budget.take(1, start), Err(CONSUMER));
        assert_eq!(budget.take(0, start), Ok(()), "alone in the room");
        let later = start + Duration::from_millis(999);
        assert_eq!(budget.take(1_000, later), Err(CONSUMER));
        assert_eq!(budget.take(999, later), Ok(()));
        assert_eq!(
            budget.take(5_000, later + Duration::from_secs(3_600)),
            Ok(()),
            "no more than that is saved"
        );
        assert!(budget.take(1, later + Duration::from_secs(3_600)).is_err());
    }
}
