//! The search for the highest rate that is carried.

/// Between two rates, before it is known that the answer lies between two of them, and after that.
const COARSE_STEP: f64 = 1.26;
const STEP: f64 = 1.08;

/// Rates that are tried at most.
const TRIALS_MAX: u32 = 40;

/// Goes up or down until the answer changes, and then up in smaller steps.
#[derive(Debug)]
pub(super) struct Search {
    rate: f64,
    step: f64,
    carried: Option<f64>,
    refused: Option<f64>,
    /// The rate was refused once. It is tried again, because something else may have had the CPU.
    is_doubted: bool,
    trials: u32,
    is_over: bool,
}

impl Search {
    /// Begins with this rate, in any unit.
    pub(super) fn new(rate: f64) -> Self {
        Self {
            rate,
            step: COARSE_STEP,
            carried: None,
            refused: None,
            is_doubted: false,
            trials: 0,
            is_over: false,
        }
    }

    /// The rate to try next; `None` when the search is over.
    pub(super) fn next(&self) -> Option<f64> {
        (!self.is_over && self.trials < TRIALS_MAX).then_some(self.rate)
    }

    /// Takes what came of it.
    pub(super) fn on_trial(&mut self, is_carried: bool) {
        self.trials += 1;
        if is_carried {
            self.is_doubted = false;
            self.carried = Some(self.rate);
            if self.refused.is_some() {
                self.step = STEP;
            }
            self.rate *= self.step;
            // The last step would end where the answer is known.
            self.is_over = self.refused.is_some_and(|refused| self.rate >= refused);
            return;
        }
        if self.carried.is_some() && !self.is_doubted {
            self.is_doubted = true;
            return;
        }
        self.is_doubted = false;
        self.refused = Some(self.rate);
        match self.carried {
            Some(carried) if carried * STEP < self.rate => (self.step, self.rate) = (STEP, carried * STEP),
            Some(_) => self.is_over = true,
            None => self.rate /= self.step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The highest rate that was carried, and the number of trials, where all up to `limit` are.
    fn search(start: f64, limit: f64, mut disturb: impl FnMut(u32) -> bool) -> (f64, u32) {
        let mut search = Search::new(start);
        let (mut best, mut trials) = (0.0_f64, 0);
        while let Some(rate) = search.next() {
            let is_carried = rate <= limit && !disturb(trials);
            trials += 1;
            search.on_trial(is_carried);
            if is_carried {
                best = best.max(rate);
            }
        }
        (best, trials)
    }

    #[test]
    fn the_maximum_is_found_within_a_step() {
        for start in [1.0, 0.3, 0.9, 1.01, 3.0, 7.7] {
            let (best, trials) = search(start, 1.0, |_| false);
            assert!((1.0 / STEP..=1.0).contains(&best), "{best} from {start}");
            assert!(trials <= 16, "{trials} from {start}");
        }
    }

    #[test]
    fn one_disturbed_trial_does_not_end_it() {
        for disturbed in 1..10 {
            let (best, _) = search(0.4, 1.0, |trial| trial == disturbed);
            assert!(
                (1.0 / STEP..=1.0).contains(&best),
                "{best} with trial {disturbed} disturbed"
            );
        }
    }

    #[test]
    fn it_ends_whatever_happens() {
        assert_eq!(search(1.0, f64::MAX, |_| false).1, TRIALS_MAX);
        assert_eq!(search(1.0, 0.0, |_| false), (0.0, TRIALS_MAX));
    }
}
