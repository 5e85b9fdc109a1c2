//! The desired state of a room: what a fresh worker must be asked for, so that it serves the same room again.
//!
//! There is one copy of what is wanted. The requests that made the room's objects are kept here as they were accepted; what
//! has changed since, such as a pause or a remote address, is read from the objects. What is actual is the worker's. This is
//! also the supervisor's topology: what closes with what is read from here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{CreateConsumer, CreateProducer, Method};

use crate::server::model::consumer::ConsumerNode;
use crate::server::model::lock;
use crate::server::model::producer::ProducerNode;
use crate::server::model::transport::TransportNode;

/// A room as it should be.
#[derive(Debug, Default)]
pub(crate) struct DesiredRoom {
    transports: BTreeMap<TransportId, DesiredTransport>,
    producers: BTreeMap<ProducerId, DesiredProducer>,
    consumers: BTreeMap<ConsumerId, DesiredConsumer>,
}

#[derive(Debug)]
struct DesiredTransport {
    node: Arc<TransportNode>,
    request: Method,
    producers: BTreeSet<ProducerId>,
    consumers: BTreeSet<ConsumerId>,
}

#[derive(Debug)]
struct DesiredProducer {
    node: Arc<ProducerNode>,
    request: CreateProducer,
    consumers: BTreeSet<ConsumerId>,
}

#[derive(Debug)]
struct DesiredConsumer {
    node: Arc<ConsumerNode>,
    /// While it is enabled.
    request: Option<CreateConsumer>,
}

/// A request that makes something again, and whose sockets go with it.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) method: Method,
    pub(crate) sockets: SocketsOf,
}

/// Whose sockets travel beside a request.
#[derive(Clone, Debug)]
pub(crate) enum SocketsOf {
    Nobody,
    Transport(Arc<TransportNode>),
    /// Of the transport's mirror.
    Mirror(Arc<TransportNode>),
}

impl From<Method> for Replayed {
    fn from(method: Method) -> Self {
        Self {
            method,
            sockets: SocketsOf::Nobody,
        }
    }
}

/// Something that can be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Object {
    Room(RoomId),
    Transport(TransportId),
    Producer(ProducerId),
    Consumer(ConsumerId),
}

/// One of the objects that closed together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClosedObject {
    Transport(TransportId),
    Producer(ProducerId),
    Consumer(ConsumerId, ConsumerParent),
    /// It belongs to a peer, so it outlives its transport.
    Unhandled(ConsumerId),
    /// It outlives its producer, and waits for another one.
    Sourceless(ConsumerId),
}

/// With what a consumer closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConsumerParent {
    /// Nobody: it was closed by itself.
    Itself,
    Transport,
    Producer,
}

impl DesiredRoom {
    /// The requests that make what is in the room, in an order in which a worker accepts them.
    pub(crate) fn replay(&self) -> impl Iterator<Item = Replayed> + '_ {
        let closed = Arc::new(self.closed_by_worker());
        let (of_producers, of_consumers) = (Arc::clone(&closed), Arc::clone(&closed));
        let transports = self.transports.values();
        let transports = transports.filter(move |transport| !closed.contains(transport.node.id));
        let producers = self.producers.values();
        let producers = producers.filter(move |producer| !of_producers.contains(producer.request.transport));
        let consumers = self.consumers.values();
        let consumers = consumers.filter(move |consumer| !of_consumers.takes(self, consumer));
        let made = producers.map(DesiredProducer::replay);
        let made = made.chain(consumers.filter_map(DesiredConsumer::replay));
        transports
            .flat_map(DesiredTransport::replay)
            .chain(made.map(Replayed::from))
    }

    /// Transports that the worker has closed, and that are kept until all of their peer's are.
    fn closed_by_worker(&self) -> ClosedByWorker {
        let transports = self.transports.values().map(|transport| &transport.node);
        let closed = transports.filter(|node| node.awaits_close_of_peer());
        ClosedByWorker(closed.map(|node| node.id).collect())
    }

    /// The requests that make what is in the room in a process that has rehearsed it.
    /// `has_connected`: whether a transport's sockets are connected to a peer that the process has not got.
    pub(crate) fn replay_rehearsed(
        &self,
        room: RoomId,
        has_connected: impl Fn(&TransportNode) -> bool,
    ) -> Vec<Replayed> {
        let (mut replayed, mut others) = (Vec::new(), Vec::new());
        let closed = self.closed_by_worker();
        for (id, transport) in &self.transports {
            if closed.contains(*id) {
                continue;
            }
            match &transport.request {
                Method::CreateWebRtcTransport(request)
                    // Without ports of its own it has had no sockets yet.
                    if request.listeners.is_empty() || has_connected(&transport.node) =>
                {
                    let is_relays = |method: &Method| matches!(method, Method::SetMaxBitrate { .. });
                    replayed.extend(transport.make().filter(|made| !is_relays(&made.method)));
                }
                _ => others.push(*id),
            }
        }
        let producers = self.producers.iter();
        let producers = producers.filter(|(_, producer)| !closed.contains(producer.request.transport));
        let enabled = self.consumers.iter().filter(|(_, consumer)| consumer.request.is_some());
        let enabled = enabled.filter(|(_, consumer)| !closed.takes(self, consumer));
        let taken_up = Method::TakeUp {
            room,
            transports: others,
            producers: producers.map(|(id, _)| *id).collect(),
            consumers: enabled.map(|(id, _)| *id).collect(),
        };
        replayed.push(taken_up.into());
        let open = self.transports.values();
        let open = open.filter(|transport| !closed.contains(transport.node.id));
        replayed.extend(open.filter_map(DesiredTransport::mirror));
        replayed
    }

    /// How many consumers a worker knows.
    pub(crate) fn enabled_count(&self) -> usize {
        let requests = self.consumers.values().filter(|consumer| consumer.request.is_some());
        requests.count()
    }

    /// A worker has accepted a transport.
    pub(crate) fn add_transport(&mut self, request: &Method, node: &Arc<TransportNode>) {
        let transport = DesiredTransport {
            node: Arc::clone(node),
            request: request.clone(),
            producers: BTreeSet::new(),
            consumers: BTreeSet::new(),
        };
        self.transports.insert(node.id, transport);
    }

    /// A worker has accepted a producer.
    pub(crate) fn add_producer(&mut self, request: &CreateProducer, node: &Arc<ProducerNode>) {
        if let Some(transport) = self.transports.get_mut(&request.transport) {
            transport.producers.insert(node.id);
            let producer = DesiredProducer {
                node: Arc::clone(node),
                request: request.clone(),
                consumers: BTreeSet::new(),
            };
            self.producers.insert(node.id, producer);
        }
    }

    /// A worker has accepted a consumer: a new one, or one that waited to be enabled.
    pub(crate) fn add_consumer(&mut self, request: &CreateConsumer, node: &Arc<ConsumerNode>) {
        self.add_waiting_consumer(node);
        if let Some(transport) = self.transports.get_mut(&request.transport)
            && let Some(consumer) = self.consumers.get_mut(&node.id)
        {
            transport.consumers.insert(node.id);
            consumer.request = Some(request.clone());
        }
    }

    /// A peer has a consumer that is not enabled yet.
    pub(crate) fn add_waiting_consumer(&mut self, node: &Arc<ConsumerNode>) {
        if let Some(producer) = self.producers.get_mut(&node.producer().id) {
            producer.consumers.insert(node.id);
            self.consumers.entry(node.id).or_insert_with(|| DesiredConsumer {
                node: Arc::clone(node),
                request: None,
            });
        }
    }

    /// A worker has given a consumer another producer.
    pub(crate) fn set_source(&mut self, request: &CreateConsumer, node: &ConsumerNode, producer: &Arc<ProducerNode>) {
        if let Some(before) = self.producers.get_mut(&node.producer().id) {
            before.consumers.remove(&node.id);
        }
        node.set_producer(producer);
        if let Some(consumer) = self.consumers.get_mut(&node.id) {
            consumer.request = Some(request.clone());
            if let Some(after) = self.producers.get_mut(&producer.id) {
                after.consumers.insert(node.id);
            }
        }
    }

    /// How many things there are, waiting consumers included.
    pub(crate) fn len(&self) -> usize {
        self.transports.len() + self.producers.len() + self.consumers.len()
    }

    /// How many consumers there are, waiting ones included.
    pub(crate) fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// The consumers of a producer, waiting ones included.
    pub(crate) fn consumers_of(&self, producer: ProducerId) -> impl Iterator<Item = ConsumerId> + '_ {
        let producer = self.producers.get(&producer);
        producer
            .into_iter()
            .flat_map(|producer| producer.consumers.iter().copied())
    }

    pub(crate) fn transports(&self) -> impl Iterator<Item = &Arc<TransportNode>> {
        self.transports.values().map(|transport| &transport.node)
    }

    pub(crate) fn producers(&self) -> impl Iterator<Item = &Arc<ProducerNode>> {
        self.producers.values().map(|producer| &producer.node)
    }

    pub(crate) fn consumers(&self) -> impl Iterator<Item = &Arc<ConsumerNode>> {
        self.consumers.values().map(|consumer| &consumer.node)
    }

    /// Closes something. Returns what closed together, in the order of the events (differences §1.6): a parent before its
    /// children.
    pub(crate) fn close(&mut self, object: Object) -> Vec<ClosedObject> {
        match object {
            Object::Room(_) => self.close_all(),
            Object::Transport(transport) => self.close_transport(transport),
            Object::Producer(producer) => self.close_producer(producer),
            Object::Consumer(consumer) => match self.remove_consumer(consumer) {
                true => vec![ClosedObject::Consumer(consumer, ConsumerParent::Itself)],
                false => Vec::new(),
            },
        }
    }

    /// Producers, each with its consumers, then transports.
    fn close_all(&mut self) -> Vec<ClosedObject> {
        let mut closed = Vec::with_capacity(self.transports.len() + self.producers.len() + self.consumers.len());
        for (producer, desired) in &self.producers {
            closed.push(ClosedObject::Producer(*producer));
            let consumers = desired.consumers.iter();
            closed.extend(consumers.map(|consumer| ClosedObject::Consumer(*consumer, ConsumerParent::Producer)));
        }
        closed.extend(self.transports.keys().copied().map(ClosedObject::Transport));
        // Those that wait for a producer.
        let of_producers = self.producers.values().flat_map(|producer| &producer.consumers);
        let of_producers: BTreeSet<_> = of_producers.collect();
        let sourceless = self
            .consumers
            .keys()
            .filter(|consumer| !of_producers.contains(consumer));
        closed.extend(sourceless.map(|consumer| ClosedObject::Consumer(*consumer, ConsumerParent::Transport)));
        *self = Self::default();
        closed
    }

    fn close_transport(&mut self, transport: TransportId) -> Vec<ClosedObject> {
        let Some(desired) = self.transports.get(&transport) else {
            return Vec::new();
        };
        let (producers, consumers) = (desired.producers.clone(), desired.consumers.clone());
        let mut closed = vec![ClosedObject::Transport(transport)];
        for producer in producers {
            closed.extend(self.close_producer(producer));
        }
        for consumer in consumers {
            match self.consumers.get_mut(&consumer) {
                // It consumed a producer of the same transport, and is gone already.
                None => {}
                Some(desired) if desired.node.receiver.is_some() => {
                    desired.request = None;
                    closed.push(ClosedObject::Unhandled(consumer));
                }
                Some(_) => {
                    self.remove_consumer(consumer);
                    closed.push(ClosedObject::Consumer(consumer, ConsumerParent::Transport));
                }
            }
        }
        self.transports.remove(&transport);
        closed
    }

    fn close_producer(&mut self, producer: ProducerId) -> Vec<ClosedObject> {
        let Some(desired) = self.producers.get(&producer) else {
            return Vec::new();
        };
        let transport = desired.request.transport;
        let mut closed = vec![ClosedObject::Producer(producer)];
        for consumer in desired.consumers.clone() {
            let own = self.consumers.get(&consumer);
            if own.is_some_and(|own| own.node.reservation.is_some()) {
                closed.push(ClosedObject::Sourceless(consumer));
                continue;
            }
            self.remove_consumer(consumer);
            closed.push(ClosedObject::Consumer(consumer, ConsumerParent::Producer));
        }
        self.producers.remove(&producer);
        if let Some(transport) = self.transports.get_mut(&transport) {
            transport.producers.remove(&producer);
        }
        closed
    }

    fn remove_consumer(&mut self, consumer: ConsumerId) -> bool {
        let Some(desired) = self.consumers.remove(&consumer) else {
            return false;
        };
        if let Some(request) = desired.request
            && let Some(transport) = self.transports.get_mut(&request.transport)
        {
            transport.consumers.remove(&consumer);
        }
        if let Some(producer) = self.producers.get_mut(&desired.node.producer().id) {
            producer.consumers.remove(&consumer);
        }
        true
    }
}

/// Transports that the worker has closed, with what was on them.
#[derive(Debug)]
struct ClosedByWorker(BTreeSet<TransportId>);

impl ClosedByWorker {
    fn contains(&self, transport: TransportId) -> bool {
        self.0.contains(&transport)
    }

    /// Whether a consumer has closed with its transport or its producer.
    fn takes(&self, room: &DesiredRoom, consumer: &DesiredConsumer) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let own = consumer.request.as_ref().map(|request| request.transport);
        let producer = room.producers.get(&consumer.node.producer().id);
        let is_producer_closed = producer.is_some_and(|producer| self.contains(producer.request.transport));
        own.is_some_and(|own| self.contains(own)) || is_producer_closed && consumer.node.reservation.is_none()
    }
}

impl DesiredTransport {
    fn replay(&self) -> impl Iterator<Item = Replayed> + '_ {
        self.make().chain(self.mirror())
    }

    /// The requests that make it, but for its mirror.
    fn make(&self) -> impl Iterator<Item = Replayed> + '_ {
        let transport = self.node.id;
        let state = lock(&self.node.state);
        let mut created = self.request.clone();
        let (mut dtls, mut ice) = (None, None);
        match (&mut created, self.node.webrtc()) {
            (Method::CreatePlainTransport(request), _) => {
                request.remote = state.remote;
                request.comedia &= !state.remote_was_set;
            }
            (Method::CreateWebRtcTransport(request), Some(webrtc)) => {
                let webrtc = lock(&webrtc.state);
                request.ice = webrtc.ice.clone();
                dtls.clone_from(&webrtc.remote_dtls);
                ice.clone_from(&webrtc.remote_ice);
            }
            _ => {}
        }
        let dtls = dtls.map(|parameters| Method::SetDtlsParameters { transport, parameters });
        let ice = ice.map(|ice| Method::SetRemoteIce { transport, ice });
        let limit = state.max_bitrate_bps.map(|bitrate| Method::SetMaxBitrate {
            transport,
            bitrate_bps: Some(bitrate),
        });
        let created = Replayed {
            method: created,
            sockets: SocketsOf::Transport(Arc::clone(&self.node)),
        };
        let told = [ice, dtls, limit].into_iter().flatten().map(Replayed::from);
        [created].into_iter().chain(told)
    }

    fn mirror(&self) -> Option<Replayed> {
        let state = lock(&self.node.state);
        let outlet = state.mirror.as_ref()?;
        Some(Replayed {
            method: Method::StartMirroring {
                transport: self.node.id,
                mirror: outlet.mirror,
            },
            sockets: SocketsOf::Mirror(Arc::clone(&self.node)),
        })
    }
}

impl DesiredProducer {
    fn replay(&self) -> Method {
        let pause_state = &lock(&self.node.state).pause_state;
        Method::CreateProducer(CreateProducer {
            paused: pause_state.paused(),
            preferred_profile: pause_state.preferred_profile(),
            ..self.request.clone()
        })
    }
}

impl DesiredConsumer {
    fn replay(&self) -> Option<Method> {
        let request = self.request.clone()?;
        let pause_state = &lock(&self.node.state).pause_state;
        Some(Method::CreateConsumer(CreateConsumer {
            paused: pause_state.paused(),
            preferred_profile: pause_state.preferred_profile(),
            ..request
        }))
    }
}
