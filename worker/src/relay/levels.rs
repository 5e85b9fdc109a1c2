//! How loud the producers of a room are: their average levels, sent twice a second while an application wants them (differences §10).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_channel::id::{ProducerId, RoomId};
use weir_channel::message::{AUDIO_LEVELS_MAX, Notification};

use crate::time::Time;

use super::keys::ProducerKey;
use super::producer::Producers;
use super::room::Room;

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
