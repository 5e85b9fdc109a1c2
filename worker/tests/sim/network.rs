//! What happens to packets between a sender and the relay.

use std::time::Duration;

use super::ms;
use super::random::Random;

/// Chances in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network {
    /// A packet is lost.
    pub loss: usize,
    /// It arrives twice.
    pub duplicate: usize,
    /// It arrives late, after packets that were sent after it.
    pub late: usize,
    /// How late, at most.
    pub late_ms_max: usize,
    /// A key frame request is lost on its way back.
    pub ask_loss: usize,
    /// Packets that arrive together are joined by the kernel, where they can be.
    pub joins: bool,
}

impl Network {
    /// Nothing is lost, nothing overtakes.
    pub const GOOD: Self = Self {
        loss: 0,
        duplicate: 0,
        late: 0,
        late_ms_max: 1,
        ask_loss: 0,
        joins: true,
    };

    /// Everything happens.
    pub const BAD: Self = Self {
        loss: 20,
        duplicate: 10,
        late: 30,
        late_ms_max: 80,
        ask_loss: 200,
        joins: true,
    };

    /// The delays after which a packet arrives: none, one or two of them.
    pub fn carry(&self, random: &mut Random) -> Vec<Duration> {
        let mut arrivals = Vec::new();
        if random.chance(self.loss) {
            return arrivals;
        }
        let delay = |random: &mut Random| {
            let extra = if random.chance(self.late) {
                random.range(1..self.late_ms_max + 1)
            } else {
                0
            };
            ms(10 + extra as u64)
        };
        arrivals.push(delay(random));
        if random.chance(self.duplicate) {
            arrivals.push(delay(random));
        }
        arrivals
    }
}
