//! Which producers and streams still send: the check for silence, and the changes that owners are notified of.
//!
//! A producer that sends is checked when the first of its streams may have fallen silent, and once in a while before that. One that
//! has fallen silent costs nothing until it sends again.

use std::collections::VecDeque;
use std::time::Duration;

use weir_channel::message::Notification;

use crate::time::Time;
use crate::time::wheel::TimerWheel;

use super::keys::ProducerKey;
use super::producer::{Producer, Producers};
use super::stream::{INACTIVE_AFTER, Stream};

/// How often silent streams are looked for (differences §2.8). All checks that are due within this time are made together: those of
/// ten thousand producers are no ten thousand wake-ups.
const INTERVAL: Duration = Duration::from_millis(250);

/// Producers that are checked in one turn: some 50 µs.
const TURN_PRODUCERS_MAX: usize = 256;

/// The activity of all producers.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// When the first producer came. Checks are made whole intervals after that.
    began: Time,
    /// When to check which producer next; of those that are active.
    checks: TimerWheel<ProducerKey>,
    /// Streams that the last check found silent while others of their producer are not.
    pub(super) silent: Vec<(ProducerKey, u8)>,
    /// Producers whose owners have yet to be notified whether they send; each stands here once.
    changed: VecDeque<ProducerKey>,
}

impl Activity {
    /// There is one more producer: so many producers and streams in all.
    pub(super) fn on_producer(&mut self, now: Time, key: ProducerKey, (producers, streams): (usize, usize)) {
        if producers == 1 {
            self.began = now;
        }
        self.checks.reserve(key);
        self.silent.reserve(streams.saturating_sub(self.silent.len()));
        let missing = (producers + 1).saturating_sub(self.changed.len());
        self.changed.reserve(missing);
    }

    /// A producer is closed.
    pub(super) fn on_producer_left(&mut self, key: ProducerKey) {
        self.checks.cancel(key);
    }

    /// When [`Activity::check`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.checks.next()
    }

    /// Looks for streams that are silent while others of their producer are not. Looked at anew each time, so that it
    /// does not matter in which order streams fall silent (v2 looked at the edges only, differences §2.8). And for producers
    /// all of whose streams are silent: nothing better is on offer then, so their consumers stay as they are, but the owner
    /// is notified.
    pub(super) fn check(&mut self, now: Time, producers: &mut Producers) {
        self.silent.clear();
        for _ in 0..TURN_PRODUCERS_MAX {
            let Some((_, key)) = self.checks.pop(now) else { return };
            let Some(producer) = producers.get_mut(key) else {
                continue;
            };
            let streams = &producer.streams;
            for (encoding, stream) in streams.iter().enumerate() {
                let others = streams.iter().enumerate().filter(|(other, _)| *other != encoding);
                let others = others.filter_map(|(_, stream)| stream.last_media).max();
                if stream.available && stream.has_fallen_behind(others) {
                    self.silent.push((key, encoding as u8));
                }
            }
            if producer.is_silent(now) {
                // A stream falls behind by what comes on others, so there is nothing to look for.
                self.set(key, producer, false);
            } else {
                self.schedule(now, key, producer);
            }
        }
    }

    /// Sets the time at which an active producer is checked next: when it may be silent, or when the first of its streams may have
    /// fallen behind. Both change with each packet, but are never sooner after one than [`INACTIVE_AFTER`]; so with checks no
    /// further apart than this, none comes too late.
    fn schedule(&mut self, now: Time, key: ProducerKey, producer: &Producer) {
        let streams = &producer.streams;
        let silent = streams
            .iter()
            .filter_map(|stream| stream.silent_from(producer.kind))
            .max();
        let mut due = (now + INACTIVE_AFTER).min(silent.unwrap_or(now));
        if streams.len() > 1 {
            let behind = streams.iter().filter(|stream| stream.available);
            for from in behind.filter_map(Stream::behind_from) {
                // One that is silent already waits for another to go on.
                due = due.min(from);
            }
        }
        self.checks.set(key, self.next_check(now, due));
    }

    /// The first time after `now` at which checks are made, and not before `due`.
    fn next_check(&self, now: Time, due: Time) -> Time {
        let least = due.max(now + Duration::from_nanos(1)).since(self.began).as_nanos() as u64;
        self.began + INTERVAL * least.div_ceil(INTERVAL.as_nanos() as u64) as u32
    }

    /// A producer has begun to send, or has not sent for a while: its owner is to be notified, if it is still so then.
    fn set(&mut self, key: ProducerKey, producer: &mut Producer, is_active: bool) {
        producer.is_active = is_active;
        if !std::mem::replace(&mut producer.is_notification_queued, true) {
            self.changed.push_back(key);
        }
    }

    /// A producer has begun to send.
    pub(super) fn on_active(&mut self, now: Time, key: ProducerKey, producer: &mut Producer) {
        self.set(key, producer, true);
        self.schedule(now, key, producer);
    }

    /// The next producer that has begun or ceased to send. That it sends for the first time is no news.
    pub(super) fn poll(&mut self, producers: &mut Producers) -> Option<Notification> {
        while let Some(key) = self.changed.pop_front() {
            let Some(producer) = producers.get_mut(key) else {
                continue;
            };
            producer.is_notification_queued = false;
            let active = producer.is_active;
            if producer.last_notified_active.replace(active).unwrap_or(true) != active {
                return Some(Notification::ProducerActivityChanged {
                    producer: producer.id,
                    active,
                });
            }
        }
        None
    }
}
