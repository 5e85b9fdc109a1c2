//! What owners of consumers are told of effective profiles: the first change at once, and then one change of each consumer in
//! [`INTERVAL`] at most. Clients can make profiles change as often as they like, by their wishes and by what they send; this is what
//! it costs everybody else.

use std::collections::VecDeque;
use std::time::Duration;

use weir_channel::message::Notification;

use crate::time::Time;

use super::consumer::Consumers;
use super::keys::ConsumerKey;
use super::producer::Producers;

/// From one notification of a consumer's profile to the next. Long enough that flapping costs little, too short for people to
/// see.
const INTERVAL: Duration = Duration::from_millis(100);

/// The consumers whose profiles have changed.
#[derive(Debug, Default)]
pub(super) struct ProfileChanges {
    /// Their owners have yet to be notified; each stands here once.
    queued: VecDeque<ConsumerKey>,
    /// Their owners were notified, or are about to be, and are not again before this time; each stands here once.
    resting: VecDeque<(Time, ConsumerKey)>,
}

impl ProfileChanges {
    /// There are so many consumers: all of them may change in one call, while some that are closed still stand here.
    pub(super) fn reserve(&mut self, consumers: usize) {
        self.queued.reserve(consumers);
        self.resting.reserve(consumers);
    }

    /// A consumer is sent another profile than before, or none: its owner is to be notified, now or when it is time to.
    pub(super) fn on_change(&mut self, now: Time, key: ConsumerKey, consumers: &mut Consumers) {
        let consumer = &mut consumers[key];
        if std::mem::replace(&mut consumer.notification_rests, true) {
            return;
        }
        self.resting.push_back((now + INTERVAL, key));
        if !std::mem::replace(&mut consumer.is_notification_queued, true) {
            self.queued.push_back(key);
        }
    }

    /// When [`ProfileChanges::check`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.resting.front().map(|(until, _)| *until)
    }

    /// Looks at those who have rested: what has changed since, and not back, is told now.
    pub(super) fn check(&mut self, now: Time, consumers: &mut Consumers) {
        // Who rests again does so until later, so this ends.
        while let Some((until, key)) = self.resting.front().copied() {
            if until > now {
                break;
            }
            self.resting.pop_front();
            let Some(consumer) = consumers.get_mut(key) else {
                continue;
            };
            consumer.notification_rests = false;
            if consumer.last_notified != consumer.effective {
                self.on_change(now, key, consumers);
            }
        }
    }

    /// The next notification. What has changed back since is no change.
    pub(super) fn poll(&mut self, consumers: &mut Consumers, producers: &Producers) -> Option<Notification> {
        while let Some(key) = self.queued.pop_front() {
            let Some(consumer) = consumers.get_mut(key) else {
                continue;
            };
            consumer.is_notification_queued = false;
            if consumer.last_notified != consumer.effective {
                consumer.last_notified = consumer.effective;
                let streams = &producers[consumer.producer].streams;
                return Some(Notification::EffectiveProfileChanged {
                    consumer: consumer.id,
                    profile: consumer
                        .effective
                        .map(|encoding| streams[usize::from(encoding)].profile),
                });
            }
        }
        None
    }
}
