//! Pausing, resuming and preferring: what follows when it takes effect, and who is told (differences §2.2, §2.3, §3.3, §3.4).

use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId};
use weir_channel::message::{Method, Profile};

use super::{Command, OnAccept, State};
use crate::server::model::error::Error;
use crate::server::model::event::{EventKind, Originator};
use crate::server::model::lock;
use crate::server::model::pause_state::{Change, PauseState, Plan};
use crate::server::model::peer_notification::PeerNotification;
use crate::server::model::side::Side;

/// What can be paused, and has a preferred profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pausable {
    Producer(ProducerId),
    Consumer(ConsumerId),
}

impl Pausable {
    /// The request to pause it, or to resume it.
    pub(super) fn pause(self, paused: bool) -> Method {
        match self {
            Self::Producer(producer) => Method::SetProducerPaused { producer, paused },
            Self::Consumer(consumer) => Method::SetConsumerPaused { consumer, paused },
        }
    }

    fn prefer(self, profile: Profile) -> Method {
        match self {
            Self::Producer(producer) => Method::SetProducerPreferredProfile { producer, profile },
            Self::Consumer(consumer) => Method::SetConsumerPreferredProfile { consumer, profile },
        }
    }

    fn closed(self) -> Error {
        match self {
            Self::Producer(producer) => Error::closed(producer),
            Self::Consumer(consumer) => Error::closed(consumer),
        }
    }
}

impl State {
    /// Calls `change` with who holds it paused, while it is open.
    pub(super) fn with_pause_state<T>(&self, of: Pausable, change: impl FnOnce(&mut PauseState) -> T) -> Option<T> {
        match of {
            Pausable::Producer(producer) => Some(change(&mut lock(&self.producers.get(&producer)?.state).pause_state)),
            Pausable::Consumer(consumer) => Some(change(&mut lock(&self.consumers.get(&consumer)?.state).pause_state)),
        }
    }

    /// Whether the worker knows it, or will when all that is under way is accepted.
    fn is_known_to_worker(&self, of: Pausable) -> bool {
        match of {
            Pausable::Producer(_) => true,
            Pausable::Consumer(consumer) => {
                let node = self.consumers.get(&consumer);
                node.is_some_and(|node| lock(&node.state).is_known_to_worker())
            }
        }
    }

    /// The request to pause or to resume, unless there is nothing to ask the worker for. What the worker does not know
    /// changes at once.
    pub(crate) fn plan_pause(
        &mut self,
        of: Pausable,
        side: Side,
        paused: bool,
        app_data: Value,
    ) -> Result<Option<Command>, Error> {
        let known = self.is_known_to_worker(of);
        let plan = self.with_pause_state(of, |pause_state| pause_state.plan_pause(side, paused, known));
        match plan.ok_or_else(|| of.closed())? {
            Plan::Nothing => Ok(None),
            Plan::AtOnce => {
                self.set_paused(of, side, paused, app_data);
                Ok(None)
            }
            Plan::Ask { paused } => Ok(Some(Command::by(side, of.pause(paused), app_data))),
        }
    }

    /// As above, for a preferred profile.
    pub(crate) fn plan_preference(
        &mut self,
        of: Pausable,
        side: Side,
        profile: Profile,
    ) -> Result<Option<Command>, Error> {
        let known = self.is_known_to_worker(of);
        let plan = self.with_pause_state(of, |pause_state| pause_state.plan_preference(profile, known));
        match plan.ok_or_else(|| of.closed())? {
            Plan::Nothing => Ok(None),
            Plan::AtOnce => {
                self.set_preferred_profile(of, side, profile);
                Ok(None)
            }
            Plan::Ask { .. } => Ok(Some(Command::by(side, of.prefer(profile), Value::Null))),
        }
    }

    /// A change that was under way takes effect.
    pub(super) fn change_pausable(&mut self, of: Pausable, change: Option<Change>, on_accept: OnAccept) {
        let (side, app_data) = on_accept.into_side();
        match change {
            Some(Change::Pause { side, paused }) => self.set_paused(of, side, paused, app_data),
            Some(Change::Prefer(profile)) => self.set_preferred_profile(of, side, profile),
            Some(Change::Enable { .. } | Change::Correct) | None => {}
        }
    }

    /// A side pauses or resumes.
    pub(super) fn set_paused(&mut self, of: Pausable, side: Side, paused: bool, app_data: Value) {
        match of {
            Pausable::Producer(producer) => self.producer_paused(producer, side, paused, app_data),
            Pausable::Consumer(consumer) => self.consumer_paused(consumer, side, paused, app_data),
        }
    }

    pub(super) fn set_preferred_profile(&mut self, of: Pausable, side: Side, profile: Profile) {
        match of {
            Pausable::Producer(producer) => self.producer_prefers(producer, profile),
            Pausable::Consumer(consumer) => self.consumer_prefers(consumer, side, profile),
        }
    }

    /// The worker relays it, or does not any more.
    pub(super) fn set_worker_paused(&mut self, of: Pausable, paused: bool) {
        self.with_pause_state(of, |pause_state| pause_state.set_worker_paused(paused));
        if let Pausable::Producer(producer) = of {
            self.source_paused(producer, paused);
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

    /// Tells the consumers of a producer, if that is new.
    fn source_paused(&mut self, producer: ProducerId, paused: bool) {
        let Some(node) = self.producers.get(&producer) else {
            return;
        };
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

    /// A side holds a consumer paused, or does not any more.
    fn consumer_paused(&mut self, consumer: ConsumerId, side: Side, paused: bool, app_data: Value) {
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

    fn consumer_prefers(&mut self, consumer: ConsumerId, side: Side, profile: Profile) {
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
