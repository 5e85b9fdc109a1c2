//! How a producer or a consumer is paused and which profile it prefers: what the worker has accepted, and what is on its
//! way to it (pure).
//!
//! Two sides may each hold it paused, and the worker knows only whether any does (differences §2.2). A change for which
//! the worker has nothing to do takes effect at once; every other goes through the worker's queue, and so does, while
//! anything is in that queue, a change that would not need to: changes take effect in the order in which they were
//! asked for. What is asked of the worker is worked out as if all that is under way will be accepted. Should it refuse
//! something in between, what it does and what it should do can differ when the last answer is in; then it is told once
//! more ([`PauseState::correction`]).

use std::collections::VecDeque;

use weir_channel::message::Profile;

use crate::server::model::side::Side;

/// See the module.
#[derive(Debug)]
pub(crate) struct PauseState {
    locally_paused: bool,
    remotely_paused: bool,
    preferred_profile: Profile,
    /// What the worker does; equal to [`PauseState::paused`] whenever nothing is under way.
    worker_paused: bool,
    /// The oldest first. The worker answers in this order.
    under_way: VecDeque<Change>,
}

/// What one request to the worker changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Pause {
        side: Side,
        paused: bool,
    },
    Prefer(Profile),
    /// The worker gets to know a consumer; its client may ask for these at the same time.
    Enable {
        paused: bool,
        preferred_profile: Option<Profile>,
    },
    /// Nothing: the worker is told again what it should do.
    Correct,
}

/// What becomes of a wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// It is so already.
    Nothing,
    /// The worker has nothing to do with it: it takes effect now.
    AtOnce,
    /// The worker is asked, to pause or not to pause.
    Ask { paused: bool },
}

impl PauseState {
    pub(crate) fn new(locally_paused: bool, remotely_paused: bool, preferred_profile: Profile) -> Self {
        Self {
            locally_paused,
            remotely_paused,
            preferred_profile,
            worker_paused: locally_paused || remotely_paused,
            under_way: VecDeque::new(),
        }
    }

    pub(crate) fn is_paused_by(&self, side: Side) -> bool {
        match side {
            Side::Local => self.locally_paused,
            Side::Remote => self.remotely_paused,
        }
    }

    /// Whether any side holds it paused.
    pub(crate) fn paused(&self) -> bool {
        self.locally_paused || self.remotely_paused
    }

    /// Whether the worker has accepted that it is paused.
    pub(crate) fn worker_paused(&self) -> bool {
        self.worker_paused
    }

    pub(crate) fn preferred_profile(&self) -> Profile {
        self.preferred_profile
    }

    /// A side wants it paused, or not any more. `known`: the worker knows the object, or will when all that is under way
    /// is accepted.
    pub(crate) fn plan_pause(&mut self, side: Side, paused: bool, known: bool) -> Plan {
        if self.under_way.is_empty() {
            if self.is_paused_by(side) == paused {
                return Plan::Nothing;
            }
            if !known || self.other(side) {
                return Plan::AtOnce;
            }
        }
        self.under_way.push_back(Change::Pause { side, paused });
        Plan::Ask {
            paused: self.planned_paused(),
        }
    }

    /// Another profile is preferred.
    pub(crate) fn plan_preference(&mut self, profile: Profile, known: bool) -> Plan {
        if self.under_way.is_empty() {
            if self.preferred_profile == profile {
                return Plan::Nothing;
            }
            if !known {
                return Plan::AtOnce;
            }
        }
        self.under_way.push_back(Change::Prefer(profile));
        Plan::Ask {
            paused: self.planned_paused(),
        }
    }

    /// A consumer is made known to the worker: paused or not, and with which preference.
    pub(crate) fn plan_enabling(&mut self, paused: bool, preferred_profile: Option<Profile>) -> (bool, Profile) {
        self.under_way.push_back(Change::Enable {
            paused,
            preferred_profile,
        });
        let planned = self.under_way.iter().rev().find_map(|change| match change {
            Change::Prefer(profile) => Some(*profile),
            Change::Enable { preferred_profile, .. } => *preferred_profile,
            _ => None,
        });
        (self.planned_paused(), planned.unwrap_or(self.preferred_profile))
    }

    /// Takes the oldest change under way: the worker has answered it.
    pub(crate) fn end_oldest(&mut self) -> Option<Change> {
        self.under_way.pop_front()
    }

    /// The worker does as it was asked.
    pub(crate) fn set_worker_paused(&mut self, paused: bool) {
        self.worker_paused = paused;
    }

    /// Takes up what a side wants. Returns whether that is new.
    pub(crate) fn set_paused(&mut self, side: Side, paused: bool) -> bool {
        let flag = match side {
            Side::Local => &mut self.locally_paused,
            Side::Remote => &mut self.remotely_paused,
        };
        std::mem::replace(flag, paused) != paused
    }

    /// Takes up a preference. Returns whether it is new.
    pub(crate) fn set_preferred_profile(&mut self, profile: Profile) -> bool {
        std::mem::replace(&mut self.preferred_profile, profile) != profile
    }

    /// What the worker must be told once more: nothing is under way, and what it does is not what it should do. The
    /// request counts as under way from here on.
    pub(crate) fn correction(&mut self) -> Option<bool> {
        if !self.under_way.is_empty() || self.worker_paused == self.paused() {
            return None;
        }
        self.under_way.push_back(Change::Correct);
        Some(self.paused())
    }

    fn other(&self, side: Side) -> bool {
        match side {
            Side::Local => self.remotely_paused,
            Side::Remote => self.locally_paused,
        }
    }

    fn planned_paused(&self) -> bool {
        let planned = |wanted: Side| {
            let last = self.under_way.iter().rev().find_map(|change| match change {
                Change::Pause { side, paused } if *side == wanted => Some(*paused),
                Change::Enable { paused: true, .. } if wanted == Side::Remote => Some(true),
                _ => None,
            });
            last.unwrap_or(self.is_paused_by(wanted))
        };
        planned(Side::Local) || planned(Side::Remote)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(plan: Plan) -> Option<bool> {
        match plan {
            Plan::Ask { paused } => Some(paused),
            _ => None,
        }
    }

    #[test]
    fn the_worker_hears_only_what_changes_for_it() {
        let mut pause_state = PauseState::new(false, false, Profile::Default);
        assert_eq!(pause_state.plan_pause(Side::Local, false, true), Plan::Nothing);
        assert_eq!(
            pause_state.plan_pause(Side::Remote, true, true),
            Plan::Ask { paused: true }
        );
        // Under way, so the next one waits in line behind it although it changes nothing for the worker.
        assert_eq!(
            pause_state.plan_pause(Side::Local, true, true),
            Plan::Ask { paused: true }
        );
        for _ in 0..2 {
            let Some(Change::Pause { side, paused }) = pause_state.end_oldest() else {
                panic!("a pause is under way");
            };
            pause_state.set_worker_paused(true);
            assert!(pause_state.set_paused(side, paused));
        }
        assert_eq!(pause_state.plan_pause(Side::Local, false, true), Plan::AtOnce);
        assert!(pause_state.set_paused(Side::Local, false));
        assert_eq!(
            pause_state.plan_pause(Side::Remote, false, true),
            Plan::Ask { paused: false }
        );
    }

    #[test]
    fn without_a_worker_everything_is_at_once() {
        let mut pause_state = PauseState::new(false, false, Profile::Default);
        assert_eq!(pause_state.plan_pause(Side::Local, true, false), Plan::AtOnce);
        assert_eq!(pause_state.plan_preference(Profile::Low, false), Plan::AtOnce);
        assert_eq!(pause_state.plan_preference(Profile::Default, false), Plan::Nothing);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pause(Side, bool),
        Prefer(Profile),
        Answer { accepted: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        let side = prop_oneof![Just(Side::Local), Just(Side::Remote)];
        prop_oneof![
            4 => (side, any::<bool>()).prop_map(|(side, paused)| Step::Pause(side, paused)),
            1 => proptest::sample::select(vec![Profile::Default, Profile::Low, Profile::High]).prop_map(Step::Prefer),
            4 => prop::bool::weighted(0.8).prop_map(|accepted| Step::Answer { accepted }),
        ]
    }

    proptest! {
        /// Whatever is asked by whom and refused in between, in the end the worker does what the two sides want, and each
        /// side's last accepted wish holds.
        #[test]
        fn the_worker_ends_where_the_sides_want_it(steps in proptest::collection::vec(step(), 0..60)) {
            let mut pause_state = PauseState::new(false, false, Profile::Default);
            // What was sent and not answered: what the worker is to do, if it is about pausing.
            let mut sent: VecDeque<Option<bool>> = VecDeque::new();
            let mut wishes = [false, false];
            let mut waiting: VecDeque<Option<(Side, bool)>> = VecDeque::new();
            let mut worker = false;
            let all = steps.iter().cloned().chain(std::iter::repeat_n(Step::Answer { accepted: true }, 80));
            for step in all {
                match step {
                    Step::Pause(side, paused) => match pause_state.plan_pause(side, paused, true) {
                        Plan::Nothing => prop_assert_eq!(wishes[side as usize], paused),
                        Plan::AtOnce => {
                            prop_assert!(pause_state.set_paused(side, paused));
                            wishes[side as usize] = paused;
                        }
                        plan => {
                            sent.push_back(ask(plan));
                            waiting.push_back(Some((side, paused)));
                        }
                    },
                    Step::Prefer(profile) => {
                        if let Plan::Ask { .. } = pause_state.plan_preference(profile, true) {
                            sent.push_back(None);
                            waiting.push_back(None);
                        }
                    }
                    Step::Answer { accepted } => {
                        let Some(asked) = sent.pop_front() else { continue };
                        let wish = waiting.pop_front().flatten();
                        let change = pause_state.end_oldest();
                        if accepted {
                            if let Some(paused) = asked {
                                worker = paused;
                                pause_state.set_worker_paused(paused);
                            }
                            match change {
                                Some(Change::Pause { side, paused }) => {
                                    prop_assert_eq!(wish, Some((side, paused)));
                                    pause_state.set_paused(side, paused);
                                    wishes[side as usize] = paused;
                                }
                                Some(Change::Prefer(profile)) => {
                                    pause_state.set_preferred_profile(profile);
                                }
                                _ => prop_assert_eq!(wish, None),
                            }
                        }
                        if let Some(paused) = pause_state.correction() {
                            sent.push_back(Some(paused));
                            waiting.push_back(None);
                        }
                    }
                }
            }
            prop_assert!(sent.is_empty());
            prop_assert_eq!(worker, wishes[0] || wishes[1]);
            prop_assert_eq!(pause_state.paused(), worker);
            prop_assert_eq!(pause_state.worker_paused(), worker);
        }
    }
}
