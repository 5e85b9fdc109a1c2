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

use crate::page::Page;
use crate::time::Time;

use super::consumer::{Consumer, Consumers};
use super::forward::{send_one, start};
use super::gop::{Gop, GopCursor};
use super::keys::ConsumerKey;
use super::producer::{Producer, Producers};
use super::rewrite::SPEEDUP;
use super::sink::Sink;

/// How often those who catch up are sent something.
const TICK: Duration = Duration::from_millis(10);

/// Packets of one turn for one consumer: with packets of 1,200 bytes, 31 Mbit/s at most.
const TURN_PACKETS: usize = 32;

/// The consumers that catch up.
#[derive(Debug, Default)]
pub(super) struct CatchingUp {
    consumers: Vec<ConsumerKey>,
    next: Option<Time>,
    /// Consumers that could not be sent all of their group, and so need a key frame.
    stranded: Vec<ConsumerKey>,
}

/// How it goes on for a consumer that was sent what was due.
enum Outcome {
    GoesOn,
    IsDone,
    /// The group is gone, or something else is to be sent now.
    IsOver,
}

impl CatchingUp {
    /// When [`CatchingUp::send`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.next
    }

    /// A consumer waits for a start of a stream. If the stream's last group of pictures is kept, the consumer begins there.
    pub(super) fn begin(
        &mut self,
        now: Time,
        consumer: &mut Consumer,
        producer: &Producer,
        encoding: u8,
        page: &Page,
    ) -> bool {
        let stream = &producer.streams[usize::from(encoding)];
        let group = |gop: &Gop| Some((gop.number()?, *gop.first()?));
        let Some((number, first)) = stream.gop.as_deref().and_then(group) else {
            return false;
        };
        if first.packet.epoch != stream.epoch {
            return false;
        }
        start(consumer, producer, &first.packet, (false, true), now, page);
        consumer.catch_up = Some(GopCursor {
            encoding,
            number,
            place: 0,
            began: now,
            first_at: first.at,
            newest: first.packet.timestamp,
        });
        self.consumers.push(consumer.key);
        self.next.get_or_insert(now);
        true
    }

    /// Sends those that catch up what is due. `buffer` is memory for a packet.
    pub(super) fn send(
        &mut self,
        now: Time,
        consumers: &mut Consumers,
        producers: &Producers,
        buffer: &mut Vec<u8>,
        page: &Page,
        sink: &mut impl Sink,
    ) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let stranded = &mut self.stranded;
        self.consumers.retain(|key| {
            let Some(consumer) = consumers.get_mut(*key) else {
                return false;
            };
            match send_due(now, consumer, &producers[consumer.producer], buffer, page, sink) {
                Outcome::GoesOn => return true,
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
                        stranded.push(*key);
                    }
                }
            }
            consumer.catch_up = None;
            consumer.keep_flow(page);
            false
        });
        self.next = (!self.consumers.is_empty()).then(|| now + TICK);
    }

    /// The next consumer that needs a key frame, because it could not be sent all of its group.
    pub(super) fn pop_stranded(&mut self) -> Option<ConsumerKey> {
        self.stranded.pop()
    }
}

fn send_due(
    now: Time,
    consumer: &mut Consumer,
    producer: &Producer,
    buffer: &mut Vec<u8>,
    page: &Page,
    sink: &mut impl Sink,
) -> Outcome {
    let Some(mut catch_up) = consumer.catch_up else {
        return Outcome::IsOver;
    };
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
        send_one(consumer, producer, now, packet, buffer, page, sink);
    }
    consumer.catch_up = Some(catch_up);
    Outcome::GoesOn
}
