//! Pausing, resuming and preferring: what follows when it takes effect, and who is told (differences §2.2, §2.3, §3.3,
//! §3.4).

use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId};
use weir_channel::message::{Method, Profile};

use super::{Command, State};
use crate::server::model::error::Error;
use crate::server::model::event::{EventKind, Originator};
use crate::server::model::lock;
use crate::server::model::pause_state::{Change, Plan};
use crate::server::model::peer_notification::PeerNotification;
use crate::server::model::side::Side;

impl State {
    /// The request for a producer to be paused or not, unless there is nothing to ask the worker for.
    pub(crate) fn plan_producer_pause(
        &mut self,
        producer: ProducerId,
        side: Side,
        paused: bool,
        app_data: Value,
    ) -> Result<Option<Command>, Error> {
        let Some(node) = self.producers.get(&producer) else {
            return Err(Error::closed(producer));
        };
        let plan = lock(&node.state).pause_state.plan_pause(side, paused, true);
        match plan {
            Plan::Nothing => Ok(None),
            Plan::AtOnce => {
                self.producer_paused(producer, side, paused, app_data);
                Ok(None)
            }
            Plan::Ask { paused } => {
                let method = Method::SetProducerPaused { producer, paused };
                Ok(Some(Command::by(side, method, app_data)))
            }
        }
    }

    /// As above, for a preferred profile.
    pub(crate) fn plan_producer_preference(
        &mut self,
        producer: ProducerId,
        profile: Profile,
    ) -> Result<Option<Command>, Error> {
        let Some(node) = self.producers.get(&producer) else {
            return Err(Error::closed(producer));
        };
        let plan = lock(&node.state).pause_state.plan_preference(profile, true);
        let method = Method::SetProducerPreferredProfile { producer, profile };
        Ok((plan != Plan::Nothing).then(|| Command::new(method)))
    }

    /// As for a producer. A consumer that the worker does not know changes at once.
    pub(crate) fn plan_consumer_pause(
        &mut self,
        consumer: ConsumerId,
        side: Side,
        paused: bool,
        app_data: Value,
    ) -> Result<Option<Command>, Error> {
        let Some(node) = self.consumers.get(&consumer) else {
            return Err(Error::closed(consumer));
        };
        let plan = {
            let mut state = lock(&node.state);
            let known = state.is_known_to_worker();
            state.pause_state.plan_pause(side, paused, known)
        };
        match plan {
            Plan::Nothing => Ok(None),
            Plan::AtOnce => {
                self.consumer_paused(consumer, side, paused, app_data);
                Ok(None)
            }
            Plan::Ask { paused } => {
                let method = Method::SetConsumerPaused { consumer, paused };
                Ok(Some(Command::by(side, method, app_data)))
            }
        }
    }

    /// As above, for a preferred profile.
    pub(crate) fn plan_consumer_preference(
        &mut self,
        consumer: ConsumerId,
        side: Side,
        profile: Profile,
    ) -> Result<Option<Command>, Error> {
        let Some(node) = self.consumers.get(&consumer) else {
            return Err(Error::closed(consumer));
        };
        let plan = {
            let mut state = lock(&node.state);
            let known = state.is_known_to_worker();
            state.pause_state.plan_preference(profile, known)
        };
        match plan {
            Plan::Nothing => Ok(None),
            Plan::AtOnce => {
                self.consumer_prefers(consumer, side, profile);
                Ok(None)
            }
            Plan::Ask { .. } => {
                let method = Method::SetConsumerPreferredProfile { consumer, profile };
                Ok(Some(Command::by(side, method, Value::Null)))
            }
        }
    }

    /// The worker has accepted a change of a producer. `stopped`: whether it relays it from here on, if that was asked.
    pub(super) fn steer_producer(
        &mut self,
        producer: ProducerId,
        method: &Method,
        change: Option<Change>,
        stopped: Option<bool>,
        app_data: Value,
    ) {
        let Some(node) = self.producers.get(&producer) else {
            return;
        };
        let room = node.transport.room.id;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.accept(method);
        }
        match change {
            Some(Change::Pause { side, paused }) => self.producer_paused(producer, side, paused, app_data),
            Some(Change::Prefer(profile)) => self.producer_prefers(producer, profile),
            Some(Change::Enable { .. } | Change::Correct) | None => {}
        }
        if let Some(stopped) = stopped {
            self.source_paused(producer, stopped);
        }
    }

    /// A side holds a producer paused, or does not any more.
    fn producer_paused(&mut self, producer: ProducerId, side: Side, paused: bool, app_data: Value) {
        let Some(node) = self.producers.get(&producer) else {
            return;
        };
        if !lock(&node.state).pause_state.set_paused(side, paused) {
            return;
        }
        let room = node.transport.room.id;
        if let (Side::Local, Some(peer)) = (side, node.peer()) {
            let peer_name = peer.name.clone();
            let app_data = app_data.clone();
            peer.outbox.push(match paused {
                true => PeerNotification::ProducerPaused {
                    producer,
                    peer_name,
                    app_data,
                },
                false => PeerNotification::ProducerResumed {
                    producer,
                    peer_name,
                    app_data,
                },
            });
        }
        let originator = side.into();
        self.events.emit(match paused {
            true => EventKind::ProducerPaused {
                producer,
                room,
                originator,
                app_data,
            },
            false => EventKind::ProducerResumed {
                producer,
                room,
                originator,
                app_data,
            },
        });
    }

    /// The worker relays a producer, or does not any more; its consumers are told if that is new.
    fn source_paused(&mut self, producer: ProducerId, paused: bool) {
        let Some(node) = self.producers.get(&producer) else {
            return;
        };
        lock(&node.state).pause_state.set_worker_paused(paused);
        let Some(entry) = self.rooms.get(&node.transport.room.id) else {
            return;
        };
        let consumers: Vec<ConsumerId> = entry.desired.consumers_of(producer).collect();
        for consumer in consumers {
            self.consumer_source_paused(consumer, paused);
        }
    }

    /// A consumer's source is paused, or not any more.
    pub(super) fn consumer_source_paused(&mut self, consumer: ConsumerId, paused: bool) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        let (enabled, locally_paused) = {
            let mut state = lock(&node.state);
            if std::mem::replace(&mut state.source_paused, paused) == paused {
                return;
            }
            (state.transport.is_some(), state.pause_state.is_paused_by(Side::Local))
        };
        let room = node.room.id;
        if let Some((receiver, peer_name)) = node.client()
            && enabled
            && !locally_paused
        {
            receiver
                .outbox
                .push(consumer_paused_notification(consumer, peer_name, paused, Value::Null));
        }
        self.events.emit(consumer_paused_event(
            consumer,
            room,
            paused,
            Originator::Source,
            Value::Null,
        ));
    }

    fn producer_prefers(&mut self, producer: ProducerId, profile: Profile) {
        let Some(node) = self.producers.get(&producer) else {
            return;
        };
        let room = node.transport.room.id;
        if lock(&node.state).pause_state.set_preferred_profile(profile) {
            self.events.emit(EventKind::ProducerPreferredProfileSet {
                producer,
                room,
                profile,
            });
        }
    }

    /// A change of a consumer takes effect. `stopped`: what the worker does from here on, if it knows the consumer.
    pub(super) fn steer_consumer(
        &mut self,
        consumer: ConsumerId,
        method: &Method,
        change: Option<Change>,
        stopped: Option<bool>,
        side: Side,
        app_data: Value,
    ) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        if let Some(stopped) = stopped {
            lock(&node.state).pause_state.set_worker_paused(stopped);
        }
        let room = node.room.id;
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.desired.accept(method);
        }
        match change {
            Some(Change::Pause { side, paused }) => self.consumer_paused(consumer, side, paused, app_data),
            Some(Change::Prefer(profile)) => self.consumer_prefers(consumer, side, profile),
            Some(Change::Enable { .. } | Change::Correct) | None => {}
        }
    }

    /// A side holds a consumer paused, or does not any more.
    pub(super) fn consumer_paused(&mut self, consumer: ConsumerId, side: Side, paused: bool, app_data: Value) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        let (enabled, source_paused) = {
            let mut state = lock(&node.state);
            if !state.pause_state.set_paused(side, paused) {
                return;
            }
            (state.transport.is_some(), state.source_paused)
        };
        let room = node.room.id;
        if let (Side::Local, Some((receiver, peer_name))) = (side, node.client())
            && enabled
            && !source_paused
        {
            let notification = consumer_paused_notification(consumer, peer_name, paused, app_data.clone());
            receiver.outbox.push(notification);
        }
        self.events
            .emit(consumer_paused_event(consumer, room, paused, side.into(), app_data));
    }

    pub(super) fn consumer_prefers(&mut self, consumer: ConsumerId, side: Side, profile: Profile) {
        let Some(node) = self.consumers.get(&consumer) else {
            return;
        };
        if !lock(&node.state).pause_state.set_preferred_profile(profile) {
            return;
        }
        let room = node.room.id;
        if let (Side::Local, Some((receiver, peer_name))) = (side, node.client()) {
            receiver.outbox.push(PeerNotification::ConsumerPreferredProfileSet {
                consumer,
                peer_name,
                profile,
            });
        }
        self.events.emit(EventKind::ConsumerPreferredProfileSet {
            consumer,
            room,
            profile,
        });
    }
}

fn consumer_paused_notification(
    consumer: ConsumerId,
    peer_name: std::sync::Arc<str>,
    paused: bool,
    app_data: Value,
) -> PeerNotification {
    match paused {
        true => PeerNotification::ConsumerPaused {
            consumer,
            peer_name,
            app_data,
        },
        false => PeerNotification::ConsumerResumed {
            consumer,
            peer_name,
            app_data,
        },
    }
}

fn consumer_paused_event(
    consumer: ConsumerId,
    room: weir_channel::id::RoomId,
    paused: bool,
    originator: Originator,
    app_data: Value,
) -> EventKind {
    match paused {
        true => EventKind::ConsumerPaused {
            consumer,
            room,
            originator,
            app_data,
        },
        false => EventKind::ConsumerResumed {
            consumer,
            room,
            originator,
            app_data,
        },
    }
}
