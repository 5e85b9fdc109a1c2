//! Which producers and streams still send: the check for silence, and the changes that owners are notified of.

use std::collections::VecDeque;
use std::time::Duration;

use weir_channel::message::Notification;

use crate::time::Time;

use super::keys::ProducerKey;
use super::producer::{Producer, Producers};

/// How often silent streams are looked for (differences §2.8).
const INTERVAL: Duration = Duration::from_millis(250);

/// The activity of all producers.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// When to look for silent streams next; only while a producer exists.
    next_check: Option<Time>,
    /// Streams that the last check found silent while others of their producer are not.
    pub(super) silent: Vec<(ProducerKey, u8)>,
    /// Producers whose owners have yet to be notified whether they send; each stands here once.
    changed: VecDeque<ProducerKey>,
}

impl Activity {
    /// There is one more producer: so many producers and streams in all.
    pub(super) fn on_producer(&mut self, now: Time, producers: usize, streams: usize) {
        self.next_check.get_or_insert(now + INTERVAL);
        self.silent.reserve(streams.saturating_sub(self.silent.len()));
        let missing = (producers + 1).saturating_sub(self.changed.len());
        self.changed.reserve(missing);
    }

    /// When [`Activity::check`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.next_check
    }

    /// Looks for streams that are silent while others of their producer are not. Looked at anew each time, so that it
    /// does not matter in which order streams fall silent (v2 looked at the edges only, differences §2.8). And for producers
    /// all of whose streams are silent: nothing better is on offer then, so their consumers stay as they are, but the owner
    /// is notified.
    pub(super) fn check(&mut self, now: Time, producers: &mut Producers) {
        self.silent.clear();
        if self.next_check.is_none_or(|due| due > now) {
            return;
        }
        for (key, producer) in producers.iter_mut() {
            let streams = &producer.streams;
            for (encoding, stream) in streams.iter().enumerate() {
                let others = streams.iter().enumerate().filter(|(other, _)| *other != encoding);
                let others = others.filter_map(|(_, stream)| stream.last_media).max();
                if stream.available && stream.has_fallen_behind(others) {
                    self.silent.push((key, encoding as u8));
                }
            }
            if producer.is_active && producer.is_silent(now) {
                self.set(key, producer, false);
            }
        }
        self.next_check = (!producers.is_empty()).then(|| now + INTERVAL);
    }

    /// A producer has begun to send, or has not sent for a while: its owner is to be notified, if it is still so then.
    pub(super) fn set(&mut self, key: ProducerKey, producer: &mut Producer, is_active: bool) {
        producer.is_active = is_active;
        if !std::mem::replace(&mut producer.is_notification_queued, true) {
            self.changed.push_back(key);
        }
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
