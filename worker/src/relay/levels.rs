//! How loud the producers of a room are: their average levels, sent twice a second while an application wants them (differences §10).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_channel::id::{ProducerId, RoomId};
use weir_channel::message::{AUDIO_LEVELS_MAX, Notification};

use crate::rtp::extension::{ExtensionBlock, elements};
use crate::time::Time;

use super::Room;
use super::keys::ProducerKey;
use super::producer::Producers;

/// From one [`Notification::AudioLevels`] to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// Rooms whose levels are sent in one turn: a room of 50 takes some microseconds.
const TURN_ROOMS_MAX: usize = 32;

/// When the levels of rooms are due.
#[derive(Debug, Default)]
pub(super) struct AudioLevels {
    timers: BinaryHeap<Reverse<(Time, RoomId)>>,
}

impl AudioLevels {
    /// Begins or ends to send a room's levels; whether this changes anything.
    pub(super) fn set(&mut self, now: Time, id: RoomId, room: &mut Room, enabled: bool) -> bool {
        if room.levels_due.is_some() == enabled {
            return false;
        }
        room.levels_due = enabled.then_some(now + INTERVAL);
        self.timers.extend(room.levels_due.map(|due| Reverse((due, id))));
        true
    }

    /// When [`AudioLevels::notify`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// Adds notifications of the rooms that are due, a turn's worth of them.
    pub(super) fn notify(
        &mut self,
        now: Time,
        rooms: &mut HashMap<RoomId, Room, FixedState>,
        producer_of_id: &HashMap<ProducerId, ProducerKey, FixedState>,
        producers: &mut Producers,
        notifications: &mut VecDeque<Notification>,
    ) {
        for _ in 0..TURN_ROOMS_MAX {
            let first = self.timers.peek().copied();
            let Some(Reverse((due, id))) = first.filter(|Reverse((due, _))| *due <= now) else {
                return;
            };
            self.timers.pop();
            // Closed, or nobody wants to know any more, or somebody wants to know again since.
            let Some(room) = rooms.get_mut(&id).filter(|room| room.levels_due == Some(due)) else {
                continue;
            };
            // A worker that was stopped for a while does not make up for it.
            let next = if due + INTERVAL > now {
                due + INTERVAL
            } else {
                now + INTERVAL
            };
            room.levels_due = Some(next);
            self.timers.push(Reverse((next, id)));
            let keys = room.producers.iter().filter_map(|id| producer_of_id.get(id));
            let mut levels: Vec<_> = keys
                .filter_map(|key| {
                    let producer = &mut producers[*key];
                    // What was measured before it was paused is not worth sending.
                    let level = producer.meter.take().filter(|_| !producer.paused)?;
                    Some((producer.id, level))
                })
                .collect();
            // The loudest first, and among equals the oldest.
            levels.sort_by_key(|(producer, level)| (Reverse(*level), *producer));
            levels.truncate(AUDIO_LEVELS_MAX);
            notifications.push_back(Notification::AudioLevels { room: id, levels });
        }
    }
}

/// How loud one producer is: the audio levels that its packets carry (RFC 6464) since the last time, averaged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// The extension's id with this producer; 0: nobody wants to know.
    id: u8,
    /// The sum of the levels, in −dBov.
    sum: u32,
    count: u32,
}

impl Meter {
    /// Measures the extension with this id; 0: none.
    pub(super) fn new(id: u8) -> Self {
        Self { id, ..Self::default() }
    }

    /// Takes in the level of a packet, if it has one and somebody wants to know.
    #[inline]
    pub(super) fn on_packet(&mut self, packet: &[u8], block: Option<ExtensionBlock>) {
        if self.id != 0 {
            self.measure(packet, block);
        }
    }

    fn measure(&mut self, packet: &[u8], block: Option<ExtensionBlock>) {
        let element = block.and_then(|block| elements(packet, block).find(|element| element.id == self.id));
        // RFC 6464 §3: one bit for voice, seven for the level in −dBov.
        if let Some([level]) = element.as_ref().map(|element| element.value(packet)) {
            self.sum = self.sum.saturating_add(u32::from(level & 0x7f));
            self.count = self.count.saturating_add(1);
        }
    }

    /// The average in dBov, −127 to 0, and begins anew; `None` if there was no level.
    pub(super) fn take(&mut self) -> Option<i8> {
        let (sum, count) = (std::mem::take(&mut self.sum), std::mem::take(&mut self.count));
        let average = sum.checked_div(count)?;
        Some(-(average.min(127) as i8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::extension::Form;

    #[test]
    fn averages_are_truncated_towards_zero_and_overflow_nothing() {
        let packet = |level: u8| [0x10, level, 0x21, 9, 9, 0];
        let block = Some(ExtensionBlock {
            start: 0,
            len: 5,
            form: Form::OneByte,
        });
        let mut meter = Meter {
            id: 1,
            ..Meter::default()
        };
        assert_eq!(meter.take(), None);
        // The highest bit is voice activity, and no level.
        for level in [10, 0x80 | 11] {
            meter.on_packet(&packet(level), block);
        }
        assert_eq!(meter.take(), Some(-10));
        assert_eq!(meter.take(), None);
        for _ in 0..1_000 {
            meter.on_packet(&packet(127), block);
        }
        assert_eq!(meter.take(), Some(-127));
        meter.on_packet(&packet(0), block);
        assert_eq!(meter.take(), Some(0));
        // Without the extension, of another length, or under another id: no level.
        meter.on_packet(&packet(5), None);
        meter.on_packet(
            &[0x11, 5, 5, 0],
            Some(ExtensionBlock {
                start: 0,
                len: 4,
                form: Form::OneByte,
            }),
        );
        Meter { id: 3, ..meter }.on_packet(&packet(5), block);
        assert_eq!(meter.take(), None);
    }
}
