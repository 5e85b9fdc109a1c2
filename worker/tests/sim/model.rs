//! The relay's rules once more, as simply as can be: one producer, its consumers, one packet after the other. No trains, no
//! lists of followers, no ledgers that are settled later.
//!
//! Rules, in the order of their telling: a paused producer's packets go nowhere; a packet seen before goes nowhere; a
//! paused consumer gets nothing. Otherwise a consumer follows what it is sent now and what it should be sent: it starts
//! on a key frame (audio: on anything) of either, and goes on with what it started on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_channel::id::ConsumerId;
use weir_channel::message::{ConsumerStats, DropReason, Profile};
use weir_worker::time::Time;

use super::stream::Mark;

/// A producer and its consumers, as they should be.
#[derive(Clone, Debug)]
pub struct Model {
    pub video: bool,
    pub paused: bool,
    pub preferred: Profile,
    pub layers: Vec<Layer>,
    pub consumers: BTreeMap<ConsumerId, Consumer>,
    /// When silent layers are looked for next.
    pub next_check: Option<Time>,
}

#[derive(Clone, Debug)]
pub struct Layer {
    pub profile: Profile,
    pub available: bool,
    last: Option<Time>,
    /// Of its newest packet.
    frame: Option<u32>,
    /// Its longest pause of late.
    cadence: Duration,
    /// Counts resumptions of the producer.
    epoch: u32,
    seen: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Consumer {
    pub paused: bool,
    pub preferred: Profile,
    /// What it is sent now.
    pub current: Option<usize>,
    /// What it should be sent.
    pub target: Option<usize>,
    /// Nothing is forwarded before the next start.
    waiting: bool,
    /// (layer's epoch, sequence number) of the last start.
    start: (u32, u64),
    /// What its owner knows.
    pub effective: Option<usize>,
    pub switches: u64,
    pub received: Vec<Mark>,
    pub packets_in: u64,
    pub dropped: BTreeMap<DropReason, u64>,
    pub changes: Vec<Option<Profile>>,
    /// What its owner was told last.
    told: Option<usize>,
    /// And when it can be told of another change.
    rests_until: Option<Time>,
}

/// From one change that is told to the next.
const REST: Duration = Duration::from_millis(100);

impl Model {
    pub fn new(video: bool, profiles: &[Profile], now: Time) -> Self {
        Self {
            video,
            paused: false,
            preferred: Profile::Default,
            layers: profiles
                .iter()
                .map(|profile| Layer {
                    profile: *profile,
                    available: false,
                    last: None,
                    frame: None,
                    cadence: Duration::ZERO,
                    epoch: 0,
                    seen: BTreeSet::new(),
                })
                .collect(),
            consumers: BTreeMap::new(),
            next_check: (profiles.len() > 1).then(|| now + Duration::from_millis(250)),
        }
    }

    pub fn add(&mut self, consumer: ConsumerId, paused: bool, preferred: Profile) {
        self.consumers.insert(
            consumer,
            Consumer {
                paused,
                preferred,
                waiting: true,
                ..Consumer::default()
            },
        );
        self.choose();
    }

    pub fn pause(&mut self, consumer: ConsumerId) {
        self.consumers.get_mut(&consumer).expect("it exists").paused = true;
    }

    pub fn resume(&mut self, consumer: ConsumerId) {
        let consumer = self.consumers.get_mut(&consumer).expect("it exists");
        // Resuming what is not paused does nothing.
        consumer.waiting |= consumer.paused;
        consumer.paused = false;
    }

    pub fn prefer(&mut self, consumer: ConsumerId, profile: Profile) {
        self.consumers.get_mut(&consumer).expect("it exists").preferred = profile;
        self.choose();
    }

    pub fn source_prefers(&mut self, profile: Profile) {
        self.preferred = profile;
        self.choose();
    }

    pub fn pause_producer(&mut self) {
        self.paused = true;
    }

    pub fn resume_producer(&mut self) {
        if self.paused {
            self.paused = false;
            // Everybody starts anew.
            self.layers.iter_mut().for_each(|layer| layer.epoch += 1);
        }
    }

    /// The highest layer on offer that is not above the wish, else the lowest.
    fn wanted(&self, own: Profile) -> Option<usize> {
        let wish = if own == Profile::Default { self.preferred } else { own };
        let offer: Vec<_> = (0..self.layers.len())
            .filter(|layer| self.layers[*layer].available)
            .collect();
        let fits = |layer: &&usize| wish == Profile::Default || self.layers[**layer].profile <= wish;
        offer.iter().rev().find(fits).or(offer.first()).copied()
    }

    fn choose(&mut self) {
        let model = self.clone();
        for consumer in self.consumers.values_mut() {
            consumer.target = model.wanted(consumer.preferred);
        }
    }

    pub fn packet(&mut self, now: Time, layer: usize, mark: Mark) {
        let newest = self.layers[layer].seen.last().copied();
        let fresh = self.layers[layer].seen.insert(mark.seq);
        let is_newest = newest.is_none_or(|newest| newest < mark.seq);
        if is_newest {
            if self.layers[layer].frame != Some(mark.frame) {
                let pause = self.layers[layer].last.map_or(Duration::ZERO, |last| now.since(last));
                let cadence = self.layers[layer].cadence;
                self.layers[layer].cadence = pause.max(cadence - cadence / 8);
                self.layers[layer].frame = Some(mark.frame);
            }
            self.layers[layer].last = Some(now);
        }
        if is_newest && !self.layers[layer].available {
            self.layers[layer].available = true;
            self.choose();
        }
        let (epoch, paused, video) = (self.layers[layer].epoch, self.paused, self.video);
        let profile = self.layers[layer].profile;
        for consumer in self.consumers.values_mut() {
            consumer.packets_in += 1;
            let reason = if consumer.paused {
                Some(DropReason::ConsumerPaused)
            } else if paused {
                Some(DropReason::ProducerPaused)
            } else if !fresh {
                Some(DropReason::Duplicate)
            } else {
                consumer.decide(layer, epoch, mark, video)
            };
            match reason {
                Some(reason) => *consumer.dropped.entry(reason).or_default() += 1,
                None => {
                    consumer.received.push(mark);
                    if consumer.effective != Some(layer) {
                        consumer.effective = Some(layer);
                        consumer.switches += 1;
                        consumer.tell(now, |_| profile);
                    }
                }
            }
        }
    }

    /// Looks for silent layers if it is time to.
    pub fn tick(&mut self, now: Time) {
        if self.next_check != Some(now) {
            return;
        }
        self.next_check = Some(now + Duration::from_millis(250));
        let newest: Vec<_> = self.layers.iter().map(|layer| layer.last).collect();
        for layer in 0..self.layers.len() {
            // Behind the others by a second, or by two of its own pauses, but never more than five seconds.
            let others = (0..newest.len()).filter(|other| *other != layer);
            let others = others.filter_map(|other| newest[other]).max();
            let patience = Duration::from_secs(1).max((self.layers[layer].cadence * 2).min(Duration::from_secs(5)));
            let is_behind = match (newest[layer], others) {
                (Some(own), Some(others)) => others.since(own) >= patience,
                (own, others) => own.is_none() && others.is_some(),
            };
            if self.layers[layer].available && is_behind {
                self.layers[layer].available = false;
                for consumer in self.consumers.values_mut() {
                    if consumer.current == Some(layer) {
                        consumer.current = None;
                        consumer.waiting = true;
                        if consumer.effective.take().is_some() {
                            // It has none.
                            consumer.tell(now, |_| Profile::Default);
                        }
                    }
                }
            }
        }
        self.choose();
    }

    /// When an owner can be told of another change next.
    pub fn next_rest(&self) -> Option<Time> {
        self.consumers
            .values()
            .filter_map(|consumer| consumer.rests_until)
            .min()
    }

    /// Tells what has changed, and not back, since owners were told last.
    pub fn end_rests(&mut self, now: Time) {
        let profiles: Vec<_> = self.layers.iter().map(|layer| layer.profile).collect();
        for consumer in self.consumers.values_mut() {
            if consumer.rests_until.is_some_and(|until| until <= now) {
                consumer.rests_until = None;
                if consumer.told != consumer.effective {
                    consumer.tell(now, |layer| profiles[layer]);
                }
            }
        }
    }

    /// A consumer's statistics are what the model counted.
    #[track_caller]
    pub fn check_stats(&self, stats: &ConsumerStats) {
        let consumer = &self.consumers[&stats.consumer];
        let profile = |layer: Option<usize>| layer.map(|layer| self.layers[layer].profile);
        assert_eq!(stats.paused, consumer.paused, "{stats:?}");
        assert_eq!(stats.source_paused, self.paused, "{stats:?}");
        assert_eq!(stats.effective_profile, profile(consumer.effective), "{stats:?}");
        assert_eq!(stats.target_profile, profile(consumer.target), "{stats:?}");
        assert_eq!(stats.packets_in, consumer.packets_in, "{stats:?}");
        assert_eq!(stats.packets_forwarded, consumer.received.len() as u64, "{stats:?}");
        assert_eq!(
            stats.dropped.iter().copied().collect::<BTreeMap<_, _>>(),
            consumer.dropped,
            "{stats:?}"
        );
        assert_eq!(stats.switches, consumer.switches, "{stats:?}");
    }
}

impl Consumer {
    /// Its owner is told what it is sent now, unless that happened a moment ago.
    fn tell(&mut self, now: Time, profile: impl Fn(usize) -> Profile) {
        if self.rests_until.is_none() {
            self.changes.push(self.effective.map(profile));
            self.told = self.effective;
            self.rests_until = Some(now + REST);
        }
    }

    /// Why a packet does not go out, if it does not.
    fn decide(&mut self, layer: usize, epoch: u32, mark: Mark, video: bool) -> Option<DropReason> {
        if self.current == Some(layer) && !self.waiting && self.start.0 == epoch {
            return (mark.seq < self.start.1).then_some(DropReason::BeforeSwitch);
        }
        if self.current != Some(layer) && self.target != Some(layer) {
            return Some(DropReason::OtherProfile);
        }
        if video && !mark.key {
            return Some(DropReason::AwaitingKeyFrame);
        }
        self.current = Some(layer);
        self.waiting = false;
        self.start = (epoch, mark.seq);
        None
    }
}
