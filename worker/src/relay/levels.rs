//! How loud producers are: the audio levels that their packets carry (RFC 6464), averaged and told twice a second to
//! whoever asked (differences §10).

use std::cmp::Reverse;
use std::time::Duration;

use weir_channel::id::RoomId;
use weir_channel::message::{AUDIO_LEVELS_MAX, ExtensionUri, MediaKind, Notification, WorkerError};

use crate::rtp::extension::{ExtensionBlock, elements};
use crate::time::Time;

use super::Relay;
use super::keys::ProducerKey;

/// From one [`Notification::AudioLevels`] to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// Rooms told of in one turn: a room of 50 takes some microseconds.
const TURN_ROOMS_MAX: usize = 32;

/// The levels of one producer since the last time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// The extension's id with this producer; 0: nobody wants to know.
    id: u8,
    /// Of −dBov.
    sum: u32,
    count: u32,
}

impl Meter {
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
    fn take(&mut self) -> Option<i8> {
        let (sum, count) = (std::mem::take(&mut self.sum), std::mem::take(&mut self.count));
        let average = sum.checked_div(count)?;
        Some(-(average.min(127) as i8))
    }
}

impl Relay {
    /// Begins or ends telling how loud a room's producers are.
    pub(super) fn set_audio_levels(&mut self, now: Time, id: RoomId, enabled: bool) -> Result<(), WorkerError> {
        let room = self.rooms.get_mut(&id).ok_or(WorkerError::UnknownRoom(id))?;
        if room.levels_due.is_some() == enabled {
            return Ok(());
        }
        room.levels_due = enabled.then_some(now + INTERVAL);
        self.level_timers.extend(room.levels_due.map(|due| Reverse((due, id))));
        for producer in self.rooms[&id].producers.clone() {
            if let Ok(key) = self.find_producer(producer) {
                self.measure_level(key);
            }
        }
        Ok(())
    }

    /// Begins or ends measuring a producer, as its room wants it.
    pub(super) fn measure_level(&mut self, key: ProducerKey) {
        let producer = &mut self.producers[key];
        let is_wanted = self
            .rooms
            .get(&producer.room)
            .is_some_and(|room| room.levels_due.is_some());
        let id = producer
            .extension_id(ExtensionUri::AudioLevel)
            .filter(|_| is_wanted && producer.kind == MediaKind::Audio);
        producer.meter = Meter {
            id: id.unwrap_or_default(),
            ..Meter::default()
        };
    }

    /// Tells the rooms' levels that are due, a turn's worth of them.
    pub(super) fn notify_levels(&mut self, now: Time) {
        for _ in 0..TURN_ROOMS_MAX {
            let Some(Reverse((due, id))) = self.level_timers.peek().copied() else {
                return;
            };
            if due > now {
                return;
            }
            self.level_timers.pop();
            // Closed, or nobody wants to know any more, or somebody wants to know again since.
            let Some(room) = self.rooms.get_mut(&id).filter(|room| room.levels_due == Some(due)) else {
                continue;
            };
            // A worker that was stopped for a while does not make up for it.
            let next = if due + INTERVAL > now {
                due + INTERVAL
            } else {
                now + INTERVAL
            };
            room.levels_due = Some(next);
            self.level_timers.push(Reverse((next, id)));
            self.notify_levels_of(id);
        }
    }

    fn notify_levels_of(&mut self, id: RoomId) {
        let mut levels = Vec::new();
        for producer in &self.rooms[&id].producers {
            let Some(key) = self.producer_of_id.get(producer) else {
                continue;
            };
            let producer = &mut self.producers[*key];
            // What was measured before it was paused is not worth telling.
            if let Some(level) = producer.meter.take()
                && !producer.paused
            {
                levels.push((producer.id, level));
            }
        }
        // The loudest first, and among equals the oldest.
        levels.sort_by_key(|(producer, level)| (Reverse(*level), *producer));
        levels.truncate(AUDIO_LEVELS_MAX);
        self.notifications
            .push_back(Notification::AudioLevels { room: id, levels });
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
