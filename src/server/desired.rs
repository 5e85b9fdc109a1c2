//! The desired state of a room: the very requests that made it, kept current.
//!
//! Replaying them into a fresh worker makes the same room again. It is also the supervisor's topology: what closes with
//! what is read from here. Pure; it changes only when a worker has accepted a request ([`DesiredRoom::accept`]) or told
//! of something that a successor must know ([`DesiredRoom::learn_remote`]).

use std::collections::{BTreeMap, BTreeSet};

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{CreateConsumer, CreatePlainTransport, CreateProducer, Method, Remote};

/// A room as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DesiredRoom {
    room: RoomId,
    transports: BTreeMap<TransportId, DesiredTransport>,
    producers: BTreeMap<ProducerId, DesiredProducer>,
    consumers: BTreeMap<ConsumerId, CreateConsumer>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct DesiredTransport {
    request: CreatePlainTransport,
    producers: BTreeSet<ProducerId>,
    consumers: BTreeSet<ConsumerId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct DesiredProducer {
    request: CreateProducer,
    consumers: BTreeSet<ConsumerId>,
}

/// What closed together, in the order in which it is told (spec §1.6): a parent before its children.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Closed(pub(crate) Vec<ClosedObject>);

/// Something that closed because a parent did.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum ClosedObject {
    Transport(TransportId),
    Producer(ProducerId),
    /// With the parent that took it along.
    Consumer(ConsumerId, ConsumerParent),
}

/// Which of a consumer's parents closed it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum ConsumerParent {
    /// Nobody: it was closed by itself.
    Itself,
    Transport,
    Producer,
}

impl DesiredRoom {
    pub(crate) fn new(room: RoomId) -> Self {
        Self {
            room,
            transports: BTreeMap::new(),
            producers: BTreeMap::new(),
            consumers: BTreeMap::new(),
        }
    }

    /// The requests that make the room, in an order in which a worker accepts them.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "proven now, used when rooms are rebuilt in a fresh worker")
    )]
    pub(crate) fn replay(&self) -> impl Iterator<Item = Method> + '_ {
        let router = [Method::CreateRouter { room: self.room }].into_iter();
        let transports = self.transports.values();
        let producers = self.producers.values();
        let consumers = self.consumers.values();
        router
            .chain(transports.map(|transport| Method::CreatePlainTransport(transport.request.clone())))
            .chain(producers.map(|producer| Method::CreateProducer(producer.request.clone())))
            .chain(consumers.map(|consumer| Method::CreateConsumer(consumer.clone())))
    }

    /// Takes up a request that the worker has accepted. Returns what it closed; nothing for most methods.
    pub(crate) fn accept(&mut self, method: &Method) -> Closed {
        match method {
            Method::CreatePlainTransport(request) => {
                let transport = DesiredTransport {
                    request: request.clone(),
                    producers: BTreeSet::new(),
                    consumers: BTreeSet::new(),
                };
                self.transports.insert(request.transport, transport);
            }
            Method::CreateProducer(request) => {
                if let Some(transport) = self.transports.get_mut(&request.transport) {
                    transport.producers.insert(request.producer);
                    let producer = DesiredProducer {
                        request: request.clone(),
                        consumers: BTreeSet::new(),
                    };
                    self.producers.insert(request.producer, producer);
                }
            }
            Method::CreateConsumer(request) => {
                if let Some(transport) = self.transports.get_mut(&request.transport)
                    && let Some(producer) = self.producers.get_mut(&request.producer)
                {
                    transport.consumers.insert(request.consumer);
                    producer.consumers.insert(request.consumer);
                    self.consumers.insert(request.consumer, request.clone());
                }
            }
            Method::SetRemote { transport, remote } => self.set_remote(*transport, *remote),
            Method::PauseProducer { producer } => self.with_producer(*producer, |request| request.paused = true),
            Method::ResumeProducer { producer } => self.with_producer(*producer, |request| request.paused = false),
            Method::SetProducerPreferredProfile { producer, profile } => {
                self.with_producer(*producer, |request| request.preferred_profile = *profile);
            }
            Method::PauseConsumer { consumer } => self.with_consumer(*consumer, |request| request.paused = true),
            Method::ResumeConsumer { consumer } => self.with_consumer(*consumer, |request| request.paused = false),
            Method::SetConsumerPreferredProfile { consumer, profile } => {
                self.with_consumer(*consumer, |request| request.preferred_profile = *profile);
            }
            Method::CloseRouter { .. } => return self.close_all(),
            Method::CloseTransport { transport } => return self.close_transport(*transport),
            Method::CloseProducer { producer } => return self.close_producer(*producer),
            Method::CloseConsumer { consumer } => return self.close_consumer(*consumer),
            // These change nothing that a successor must know.
            Method::Ping
            | Method::SetLogFilter(_)
            | Method::SetCoalescing(_)
            | Method::CreateRouter { .. }
            | Method::RequestKeyFrame { .. }
            | Method::WorkerStats
            | Method::RoomStats { .. }
            | Method::TransportStats { .. }
            | Method::ProducerStats { .. }
            | Method::ConsumerStats { .. }
            | Method::RoomDump { .. }
            | Method::Shutdown => {}
        }
        Closed::default()
    }

    /// A `comedia` transport has learned its remote: a successor must not learn another one.
    pub(crate) fn learn_remote(&mut self, transport: TransportId, remote: Remote) {
        self.set_remote(transport, remote);
    }

    /// The consumers of a producer.
    pub(crate) fn consumers_of(&self, producer: ProducerId) -> impl Iterator<Item = ConsumerId> + '_ {
        let producer = self.producers.get(&producer);
        producer
            .into_iter()
            .flat_map(|producer| producer.consumers.iter().copied())
    }

    pub(crate) fn transports(&self) -> impl Iterator<Item = TransportId> + '_ {
        self.transports.keys().copied()
    }

    pub(crate) fn producers(&self) -> impl Iterator<Item = ProducerId> + '_ {
        self.producers.keys().copied()
    }

    pub(crate) fn consumers(&self) -> impl Iterator<Item = ConsumerId> + '_ {
        self.consumers.keys().copied()
    }

    /// Everything in the room, as it is told when the room closes: producers, each with its consumers, then transports.
    pub(crate) fn close_all(&mut self) -> Closed {
        let mut closed = Vec::with_capacity(self.transports.len() + self.producers.len() + self.consumers.len());
        for (producer, desired) in &self.producers {
            closed.push(ClosedObject::Producer(*producer));
            let consumers = desired.consumers.iter();
            closed.extend(consumers.map(|consumer| ClosedObject::Consumer(*consumer, ConsumerParent::Producer)));
        }
        closed.extend(self.transports.keys().copied().map(ClosedObject::Transport));
        *self = Self::new(self.room);
        Closed(closed)
    }

    fn close_transport(&mut self, transport: TransportId) -> Closed {
        let Some(desired) = self.transports.get(&transport) else {
            return Closed::default();
        };
        let (producers, consumers) = (desired.producers.clone(), desired.consumers.clone());
        let mut closed = vec![ClosedObject::Transport(transport)];
        for producer in producers {
            closed.extend(self.close_producer(producer).0);
        }
        for consumer in consumers {
            // Those that consumed a producer of the same transport are gone already.
            if self.remove_consumer(consumer) {
                closed.push(ClosedObject::Consumer(consumer, ConsumerParent::Transport));
            }
        }
        self.transports.remove(&transport);
        Closed(closed)
    }

    fn close_producer(&mut self, producer: ProducerId) -> Closed {
        let Some(desired) = self.producers.get(&producer) else {
            return Closed::default();
        };
        let transport = desired.request.transport;
        let mut closed = vec![ClosedObject::Producer(producer)];
        for consumer in desired.consumers.clone() {
            self.remove_consumer(consumer);
            closed.push(ClosedObject::Consumer(consumer, ConsumerParent::Producer));
        }
        self.producers.remove(&producer);
        if let Some(transport) = self.transports.get_mut(&transport) {
            transport.producers.remove(&producer);
        }
        Closed(closed)
    }

    fn close_consumer(&mut self, consumer: ConsumerId) -> Closed {
        match self.remove_consumer(consumer) {
            true => Closed(vec![ClosedObject::Consumer(consumer, ConsumerParent::Itself)]),
            false => Closed::default(),
        }
    }

    fn remove_consumer(&mut self, consumer: ConsumerId) -> bool {
        let Some(request) = self.consumers.remove(&consumer) else {
            return false;
        };
        if let Some(transport) = self.transports.get_mut(&request.transport) {
            transport.consumers.remove(&consumer);
        }
        if let Some(producer) = self.producers.get_mut(&request.producer) {
            producer.consumers.remove(&consumer);
        }
        true
    }

    fn set_remote(&mut self, transport: TransportId, remote: Remote) {
        if let Some(transport) = self.transports.get_mut(&transport) {
            transport.request.remote = Some(remote);
            // What is known is not learned, and the worker refuses a request that says both.
            transport.request.comedia = false;
        }
    }

    fn with_producer(&mut self, producer: ProducerId, change: impl FnOnce(&mut CreateProducer)) {
        if let Some(producer) = self.producers.get_mut(&producer) {
            change(&mut producer.request);
        }
    }

    fn with_consumer(&mut self, consumer: ConsumerId, change: impl FnOnce(&mut CreateConsumer)) {
        if let Some(consumer) = self.consumers.get_mut(&consumer) {
            change(consumer);
        }
    }
}
