//! Those who send wrong tokens: named in the log, and refused ever more slowly.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::crowd::Network;
use super::listen::Caller;
use super::seldom::Seldom;
use crate::server::lock;

/// Anybody may mistype a token so many times.
const FREE: u32 = 3;

/// The first delay; each wrong token after that doubles it.
const DELAY_MIN: Duration = Duration::from_millis(100);

/// The longest delay.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// After such a time without a wrong token, those before it are forgotten.
const MEMORY: Duration = Duration::from_secs(600);

/// Networks that are remembered; beyond that the one that has been quiet for longest is forgotten.
const NETWORKS_MAX: usize = 4_096;

/// The wrong tokens of the last minutes, by where they came from.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    table: Mutex<Table>,
    logged: Seldom,
}

#[derive(Debug, Default)]
struct Table {
    networks: HashMap<Network, Guessed>,
}

#[derive(Debug)]
struct Guessed {
    count: u32,
    last: Instant,
}

/// How long to wait before the answer is sent; an extension of the answer. Whoever serves the connection waits, because it
/// notices when the client hangs up, or its place is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AnswerAfter(pub(super) Duration);

impl Guesses {
    /// Counts a wrong token, logs that it came, and returns for how long its answer shall wait. `whose`: what it would have opened.
    pub(super) fn count(&self, caller: Option<Caller>, whose: &'static str) -> AnswerAfter {
        let network = match caller {
            Some(Caller::Remote(address)) => Network::of(address.ip()),
            // Who may use the control socket needs no token.
            Some(Caller::Process(_)) | None => return AnswerAfter(Duration::ZERO),
        };
        let now = Instant::now();
        let count = lock(&self.table).count(network, now);
        if let Some(others) = self.logged.line(now)
            && let Some(caller) = caller
        {
            warn!(address = %caller, wrong_tokens = count, not_logged = others, "refused a wrong token of {whose}");
        }
        AnswerAfter(delay(count))
    }
}

impl Table {
    /// How many wrong tokens have come from there, with this one.
    fn count(&mut self, network: Network, now: Instant) -> u32 {
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            let quietest = self.networks.iter().min_by_key(|(_, guessed)| guessed.last);
            if let Some((&quietest, _)) = quietest {
                self.networks.remove(&quietest);
            }
        }
        let guessed = self.networks.entry(network).or_insert(Guessed { count: 0, last: now });
        if now.saturating_duration_since(guessed.last) > MEMORY {
            guessed.count = 0;
        }
        guessed.last = now;
        guessed.count = guessed.count.saturating_add(1);
        guessed.count
    }
}

fn delay(count: u32) -> Duration {
    match count.saturating_sub(FREE) {
        0 => Duration::ZERO,
        beyond => DELAY_MIN
            .saturating_mul(1_u32.checked_shl(beyond - 1).unwrap_or(u32::MAX))
            .min(DELAY_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> Network {
        Network::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn answers_come_later_and_later_up_to_a_bound() {
        let delays: Vec<u128> = (1..=10).map(|count| delay(count).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 5_000]);
        assert_eq!(delay(u32::MAX), DELAY_MAX);
    }

    #[test]
    fn each_network_counts_for_itself_and_is_forgotten() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert_eq!((table.count(network(1), now), table.count(network(1), now)), (1, 2));
        assert_eq!(table.count(network(2), now), 1);
        assert_eq!(table.count(network(1), now + MEMORY), 3);
        assert_eq!(table.count(network(1), now + 2 * MEMORY + Duration::from_millis(1)), 1);
        for number in 0..2 * NETWORKS_MAX as u32 {
            table.count(network(number), now + 3 * MEMORY);
        }
        assert_eq!(table.networks.len(), NETWORKS_MAX);
    }
}
