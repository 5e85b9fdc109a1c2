//! Consumers that start in the middle of a group of pictures, because its sender would not begin another one for them: they are
//! sent what has come of it ([`Gop`](super::gop::Gop)), four times as fast as it came, until they have caught up.
//!
//! ```text
//!   waits ──a group is kept──▶ catches up ──all is sent──▶ flows
//!     ▲                            │ the next group begins ──▶ flows, from there
//!     └──── the group is gone ─────┘
//! ```
//!
//! Its pictures are shown as fast as they are sent: the distances of their timestamps shrink likewise. So a receiver that plays
//! by its clock is not late for ever, and nothing has to be thrown away.

use std::time::Duration;

use crate::time::Time;

use super::Relay;
use super::fanout::{send_one, start};
use super::gop::Gop;
use super::keys::{ConsumerKey, ProducerKey};
use super::rewrite::SPEEDUP;
use super::sink::Sink;

/// How often those who catch up are sent something.
const TICK: Duration = Duration::from_millis(10);

/// Packets of one turn for one consumer: with packets of 1,200 bytes, 31 Mbit/s at most.
const TURN_PACKETS: usize = 32;

/// Where somebody is who catches up.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatchUp {
    encoding: u8,
    /// Which group.
    number: u32,
    /// The next of its packets.
    place: usize,
    began: Time,
    /// When the group's first packet came.
    first_at: Time,
    /// The newest timestamp sent, as the producer had it.
    newest: u64,
}

/// Those who catch up.
#[derive(Debug, Default)]
pub(super) struct CatchingUp {
    consumers: Vec<ConsumerKey>,
    next: Option<Time>,
}

impl CatchingUp {
    /// When [`Relay::catch_up`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.next
    }
}

/// How it goes on for somebody who was sent what was due.
enum Outcome {
    Goes,
    IsDone,
    /// The group is gone, or something else is to be sent now.
    IsOver,
}

impl Relay {
    /// A consumer waits for a start of a stream whose last group of pictures is kept: it begins there.
    pub(super) fn begin_catch_up(&mut self, now: Time, key: ConsumerKey, encoding: u8) -> bool {
        let consumer = &mut self.consumers[key];
        let producer = &self.producers[consumer.producer];
        let stream = &producer.streams[usize::from(encoding)];
        let group = |gop: &Gop| Some((gop.number()?, *gop.first()?));
        let Some((number, first)) = stream.gop.as_deref().and_then(group) else {
            return false;
        };
        if first.packet.epoch != stream.epoch {
            return false;
        }
        start(consumer, producer, &first.packet, (false, true), now);
        consumer.flow.is_catching_up = true;
        consumer.catch_up = Some(CatchUp {
            encoding,
            number,
            place: 0,
            began: now,
            first_at: first.at,
            newest: first.packet.timestamp,
        });
        self.catching_up.consumers.push(key);
        self.catching_up.next.get_or_insert(now);
        true
    }

    /// Sends those who catch up what is due.
    pub(super) fn catch_up(&mut self, now: Time, sink: &mut impl Sink) {
        if self.catching_up.next.is_none_or(|next| next > now) {
            return;
        }
        let mut consumers = std::mem::take(&mut self.catching_up.consumers);
        consumers.retain(|key| self.send_group(now, *key, sink));
        // Nobody joins while it is sent.
        self.catching_up.next = (!consumers.is_empty()).then(|| now + TICK);
        self.catching_up.consumers = consumers;
    }

    /// Sends one of them what is due; whether that was not all.
    fn send_group(&mut self, now: Time, key: ConsumerKey, sink: &mut impl Sink) -> bool {
        let outcome = self.send_due(now, key, sink);
        let Some(consumer) = self.consumers.get_mut(key) else {
            return false;
        };
        match outcome {
            Outcome::Goes => return true,
            Outcome::IsDone => {
                let newest = consumer.catch_up.map_or(0, |catch_up| catch_up.newest);
                consumer.rewriter.end_speedup(newest);
                if let Some(repair) = &mut consumer.repair {
                    repair.on_offsets(consumer.rewriter.offsets());
                }
                consumer.flow.is_catching_up = false;
            }
            Outcome::IsOver => {
                // If it still is where it was, it has to wait for another start.
                if std::mem::take(&mut consumer.flow.is_catching_up) {
                    consumer.flow.sync_required = true;
                    self.request_key_frame_for(now, key);
                }
            }
        }
        if let Some(consumer) = self.consumers.get_mut(key) {
            consumer.catch_up = None;
        }
        false
    }

    fn send_due(&mut self, now: Time, key: ConsumerKey, sink: &mut impl Sink) -> Outcome {
        let Some(consumer) = self.consumers.get_mut(key) else {
            return Outcome::IsOver;
        };
        let Some(mut catch_up) = consumer.catch_up else {
            return Outcome::IsOver;
        };
        let producer = &self.producers[consumer.producer];
        let stream = &producer.streams[usize::from(catch_up.encoding)];
        let flow = &consumer.flow;
        let is_on_its_way = flow.is_catching_up
            && flow.current == Some(catch_up.encoding)
            && flow.epoch == stream.epoch
            && !flow.sync_required
            && consumer.can_be_sent()
            && !producer.paused;
        let gop = stream.gop.as_ref().filter(|gop| gop.number() == Some(catch_up.number));
        let (Some(gop), true) = (gop, is_on_its_way) else {
            return Outcome::IsOver;
        };
        for _ in 0..TURN_PACKETS {
            let Some((kept, bytes)) = gop.get(catch_up.place) else {
                consumer.catch_up = Some(catch_up);
                return Outcome::IsDone;
            };
            let due = catch_up.began + kept.at.since(catch_up.first_at) / SPEEDUP;
            if due > now {
                break;
            }
            catch_up.place += 1;
            catch_up.newest = catch_up.newest.max(kept.packet.timestamp);
            let packet = (kept.packet, bytes, kept.ordinal);
            send_one(consumer, producer, now, packet, &mut self.workspace.held, sink);
        }
        consumer.catch_up = Some(catch_up);
        Outcome::Goes
    }

    /// Keeps a stream's group of pictures, or ceases to, by whether its sender answers requests.
    pub(super) fn refresh_gop(&mut self, key: ProducerKey, encoding: u8) {
        let producer = &mut self.producers[key];
        let is_lone = producer.streams.len() == 1;
        let stream = &mut producer.streams[usize::from(encoding)];
        match (&stream.gop, stream.responsiveness.is_unresponsive() && is_lone) {
            (None, true) if self.gops < self.gops_max => {
                stream.gop = Some(Box::default());
                self.gops += 1;
            }
            (Some(_), false) => {
                stream.gop = None;
                self.gops -= 1;
            }
            _ => {}
        }
    }
}
