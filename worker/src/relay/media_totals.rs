//! What all consumers, streams and transports of a worker have counted together, with those that are gone.
//!
//! Nobody adds up ten thousand consumers at once: that would hold packets up. A *round* goes past all objects in small steps, once a
//! second, and what it has found is told at its end. Each object is in the sum as the round has found it. So what comes behind the
//! round (a counted object closes, or a new one takes its place) is left for the next one, and what is told never goes back.
//!
//! Objects that were taken over from another worker's page go on with its counters. Of them only what has come since is in the sum:
//! the supervisor adds what the worker before has told.

use std::time::Duration;

use weir_channel::message::{DropReason, NotRepaired, UnroutedReason, WorkerStats};

use crate::time::Time;

use super::Relay;
use super::consumer::Consumer;
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::slots::Slots;
use super::stream::Stream;
use super::transport::Transport;

/// How long a round takes.
const ROUND: Duration = Duration::from_secs(1);

/// How often it makes a step, at most.
const STEP: Duration = Duration::from_millis(10);

/// Of so many places a round is made at once if somebody asks: it takes a tenth of a millisecond.
const FEW_PLACES: usize = 1_024;

/// The sums that are one number.
const NUMBERS: usize = 12;

/// What was counted. Numbers wrap around: what was taken over is subtracted, perhaps before it is added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted {
    /// In the order of [`Counted::tell`].
    numbers: [u64; NUMBERS],
    dropped: [u64; DropReason::ALL.len()],
    not_repaired: [u64; NotRepaired::ALL.len()],
    unrouted: [u64; UnroutedReason::ALL.len()],
}

impl Counted {
    /// By a consumer; its `update_counters` first.
    pub(super) fn by_consumer(consumer: &Consumer) -> Self {
        let mut counted = Self {
            dropped: consumer.dropped,
            ..Self::default()
        };
        let [offered, forwarded, retransmitted, _, _, nacks, _, plis, _, firs, ..] = &mut counted.numbers;
        *offered = consumer.packets_in();
        *forwarded = consumer.forwarded;
        *nacks = consumer.nack_count;
        *plis = consumer.pli_count;
        *firs = consumer.fir_count;
        if let Some(repair) = &consumer.repair {
            *retransmitted = repair.packets;
            counted.not_repaired = repair.refused();
        }
        counted
    }

    /// By a stream of a producer.
    pub(super) fn by_stream(stream: &Stream) -> Self {
        let counters = &stream.counters;
        let mut counted = Self::default();
        let [_, _, _, requested, repaired, _, nacks, _, plis, _, firs, key_frames] = &mut counted.numbers;
        *requested = counters.nacked;
        *repaired = counters.repaired;
        *nacks = counters.nacks;
        *plis = counters.pli;
        *firs = counters.fir;
        *key_frames = counters.key_frames;
        counted
    }

    /// By a transport.
    pub(super) fn by_transport(transport: &Transport) -> Self {
        Self {
            unrouted: transport.counters.unrouted,
            ..Self::default()
        }
    }

    fn words_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        let Self {
            numbers,
            dropped,
            not_repaired,
            unrouted,
        } = self;
        numbers.iter_mut().chain(dropped).chain(not_repaired).chain(unrouted)
    }

    fn words(mut self) -> impl Iterator<Item = u64> {
        let mut words = [0; NUMBERS + DropReason::ALL.len() + NotRepaired::ALL.len() + UnroutedReason::ALL.len()];
        for (word, own) in words.iter_mut().zip(self.words_mut()) {
            *word = *own;
        }
        words.into_iter()
    }

    fn add(&mut self, other: Self) {
        for (own, other) in self.words_mut().zip(other.words()) {
            *own = own.wrapping_add(other);
        }
    }

    fn subtract(&mut self, other: Self) {
        for (own, other) in self.words_mut().zip(other.words()) {
            *own = own.wrapping_sub(other);
        }
    }

    fn at_least(&mut self, other: Self) {
        for (own, other) in self.words_mut().zip(other.words()) {
            // What is below zero has wrapped around.
            *own = own.cast_signed().max(other.cast_signed()).cast_unsigned();
        }
    }

    fn tell(&self) -> WorkerStats {
        let mut stats = WorkerStats {
            dropped: DropReason::ALL.into_iter().zip(self.dropped).collect(),
            not_repaired: NotRepaired::ALL.into_iter().zip(self.not_repaired).collect(),
            transports_unrouted: UnroutedReason::ALL.into_iter().zip(self.unrouted).collect(),
            ..WorkerStats::default()
        };
        let told: [&mut u64; NUMBERS] = [
            &mut stats.packets_offered,
            &mut stats.packets_forwarded,
            &mut stats.packets_retransmitted,
            &mut stats.packets_requested,
            &mut stats.packets_repaired,
            &mut stats.nacks_received,
            &mut stats.nacks_sent,
            &mut stats.plis_received,
            &mut stats.plis_sent,
            &mut stats.firs_received,
            &mut stats.firs_sent,
            &mut stats.key_frames_received,
        ];
        for (told, number) in told.into_iter().zip(self.numbers) {
            *told = number;
        }
        stats
    }
}

/// Where an object is, in the order of a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Consumer(usize),
    Producer(usize),
    Transport(usize),
}

impl From<ConsumerKey> for Place {
    fn from(key: ConsumerKey) -> Self {
        Self::Consumer(Slots::<ConsumerKey, Consumer>::place(key))
    }
}

impl From<ProducerKey> for Place {
    fn from(key: ProducerKey) -> Self {
        Self::Producer(Slots::<ProducerKey, ()>::place(key))
    }
}

impl From<TransportKey> for Place {
    fn from(key: TransportKey) -> Self {
        Self::Transport(Slots::<TransportKey, Transport>::place(key))
    }
}

/// The sums, and how far the round is.
#[derive(Debug)]
pub(super) struct MediaTotals {
    /// Of objects that are gone; less what those that were taken over had counted already.
    settled: Counted,
    /// The part of it of objects that the round had passed by then.
    settled_behind: Counted,
    /// Of objects that the round has passed, as it has found them.
    found: Counted,
    /// The first place that it has not passed.
    next: Place,
    began: Time,
    next_step: Time,
    told: Counted,
}

impl Default for MediaTotals {
    fn default() -> Self {
        Self {
            settled: Counted::default(),
            settled_behind: Counted::default(),
            found: Counted::default(),
            next: Place::Consumer(0),
            began: Time::default(),
            next_step: Time::default(),
            told: Counted::default(),
        }
    }
}

impl MediaTotals {
    /// An object is gone, which has counted this.
    pub(super) fn on_gone(&mut self, place: impl Into<Place>, counted: Counted) {
        self.settled.add(counted);
        if place.into() < self.next {
            self.settled_behind.add(counted);
        }
    }

    /// An object goes on with what another worker has counted.
    pub(super) fn on_taken_over(&mut self, place: impl Into<Place>, counted: Counted) {
        self.settled.subtract(counted);
        if place.into() < self.next {
            self.settled_behind.subtract(counted);
        }
    }

    fn end_round(&mut self, now: Time) {
        let mut all = self.settled;
        all.subtract(self.settled_behind);
        all.add(self.found);
        // A packet that was thrown away and is sent after all leaves the counter that it was in. Nobody is told so.
        all.at_least(self.told);
        self.told = all;
        self.settled_behind = Counted::default();
        self.found = Counted::default();
        self.next = Place::Consumer(0);
        self.began = now;
    }
}

impl Relay {
    /// Goes on counting together what its objects have counted. To be called often; it takes little time at once.
    pub fn count_together(&mut self, now: Time) {
        if now < self.media_totals.next_step {
            return;
        }
        self.media_totals.next_step = now + STEP;
        let places = self.places();
        let elapsed = now.since(self.media_totals.began).min(ROUND);
        let until = places * elapsed.as_millis() as usize / ROUND.as_millis() as usize;
        self.count_up_to(until);
        if elapsed == ROUND {
            self.media_totals.end_round(now);
        }
    }

    /// As [`Relay::count_together`], for somebody who is to be told what is true now: at once, if it has few objects.
    pub fn count_together_if_few(&mut self, now: Time) {
        let places = self.places();
        if places <= FEW_PLACES {
            // The round that is under way, and one that begins now.
            for _ in 0..2 {
                self.count_up_to(places);
                self.media_totals.end_round(now);
            }
        }
    }

    /// What all its objects have counted, with those that are gone, when the last round passed them; the rest is 0.
    pub fn media_totals(&self) -> WorkerStats {
        self.media_totals.told.tell()
    }

    fn places(&self) -> usize {
        self.consumers.places() + self.producers.places() + self.transports.places()
    }

    /// Has the round pass the first so many places. If there are fewer of the kinds that it has passed than there were, it is ahead.
    fn count_up_to(&mut self, until: usize) {
        loop {
            let consumers = self.consumers.places();
            let producers = consumers + self.producers.places();
            match self.media_totals.next {
                Place::Consumer(place) if place >= consumers => self.media_totals.next = Place::Producer(0),
                Place::Consumer(place) if place < until => {
                    if let Some(consumer) = self.consumers.at_mut(place) {
                        consumer.update_counters(&self.producers[consumer.producer].counters);
                        self.media_totals.found.add(Counted::by_consumer(consumer));
                    }
                    self.media_totals.next = Place::Consumer(place + 1);
                }
                Place::Producer(place) if consumers + place >= producers => {
                    self.media_totals.next = Place::Transport(0);
                }
                Place::Producer(place) if consumers + place < until => {
                    let streams = self.producers.at(place).map_or(&[][..], |producer| &producer.streams);
                    for stream in streams {
                        self.media_totals.found.add(Counted::by_stream(stream));
                    }
                    self.media_totals.next = Place::Producer(place + 1);
                }
                Place::Transport(place) if producers + place < until => {
                    if let Some(transport) = self.transports.at(place) {
                        self.media_totals.found.add(Counted::by_transport(transport));
                    }
                    self.media_totals.next = Place::Transport(place + 1);
                }
                _ => return,
            }
        }
    }
}
