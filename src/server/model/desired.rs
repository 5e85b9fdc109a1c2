//! The desired state of a room: the very requests that made it, kept current.
//!
//! Replaying them into a fresh worker makes the same room again. It is also the supervisor's topology: what closes with
//! what is read from here. Pure; it changes only when a worker has accepted a request ([`DesiredRoom::accept`]) or told
//! of something that a successor must know ([`DesiredRoom::learn_remote`]), and for consumers that wait to be enabled,
//! of which no worker knows ([`DesiredRoom::add_waiting_consumer`]).

use std::collections::{BTreeMap, BTreeSet};

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    CreateConsumer, CreatePlainTransport, CreateProducer, CreateWebRtcTransport, DtlsParameters, Method, Mirror, Remote,
};

/// A room as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DesiredRoom {
    room: RoomId,
    transports: BTreeMap<TransportId, DesiredTransport>,
    producers: BTreeMap<ProducerId, DesiredProducer>,
    consumers: BTreeMap<ConsumerId, DesiredConsumer>,
    audio_levels: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct DesiredTransport {
    request: TransportRequest,
    max_bitrate_bps: Option<u64>,
    mirror: Option<Mirror>,
    producers: BTreeSet<ProducerId>,
    consumers: BTreeSet<ConsumerId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum TransportRequest {
    Plain(CreatePlainTransport),
    /// With what the peer was said to be.
    WebRtc(CreateWebRtcTransport, Option<DtlsParameters>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct DesiredProducer {
    request: CreateProducer,
    consumers: BTreeSet<ConsumerId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct DesiredConsumer {
    producer: ProducerId,
    /// It outlives its transports: it belongs to a peer.
    stays: bool,
    /// While it is enabled.
    request: Option<CreateConsumer>,
}

/// What closed together, in the order in which it is told (differences §1.6): a parent before its children.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Closed(pub(crate) Vec<ClosedObject>);

/// Something that closed because a parent did.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum ClosedObject {
    Transport(TransportId),
    Producer(ProducerId),
    /// With the parent that took it along.
    Consumer(ConsumerId, ConsumerParent),
    /// Did not close, but has lost its transport.
    Unhandled(ConsumerId),
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
            audio_levels: false,
        }
    }

    /// The requests that make the room, in an order in which a worker accepts them. A mirror needs its descriptor, which
    /// the transport keeps.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "proven now, used when rooms are rebuilt in a fresh worker")
    )]
    pub(crate) fn replay(&self) -> impl Iterator<Item = Method> + '_ {
        let router = [Method::CreateRouter { room: self.room }].into_iter();
        let transports = self.transports.values();
        let producers = self.producers.values();
        let consumers = self.consumers.values();
        let levels = self.audio_levels.then_some(Method::SetAudioLevels {
            room: self.room,
            enabled: true,
        });
        router
            .chain(transports.flat_map(DesiredTransport::replay))
            .chain(producers.map(|producer| Method::CreateProducer(producer.request.clone())))
            .chain(consumers.filter_map(|consumer| consumer.request.clone().map(Method::CreateConsumer)))
            .chain(levels)
    }

    /// Takes up a request that the worker has accepted. Returns what it closed; nothing for most methods.
    pub(crate) fn accept(&mut self, method: &Method) -> Closed {
        match method {
            Method::CreatePlainTransport(request) => {
                let kind = TransportRequest::Plain(request.clone());
                self.transports.insert(request.transport, DesiredTransport::new(kind));
            }
            Method::CreateWebRtcTransport(request) => {
                let kind = TransportRequest::WebRtc(request.clone(), None);
                self.transports.insert(request.transport, DesiredTransport::new(kind));
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
                    let consumer = self.consumers.entry(request.consumer).or_insert(DesiredConsumer {
                        producer: request.producer,
                        stays: false,
                        request: None,
                    });
                    consumer.request = Some(request.clone());
                }
            }
            Method::SetRemote { transport, remote } => self.set_remote(*transport, *remote),
            Method::RestartIce { transport, ice } => self.with_transport(*transport, |transport| {
                if let TransportRequest::WebRtc(request, _) = &mut transport.request {
                    request.ice = ice.clone();
                }
            }),
            Method::SetDtlsParameters { transport, parameters } => self.with_transport(*transport, |transport| {
                if let TransportRequest::WebRtc(_, known) = &mut transport.request {
                    *known = Some(parameters.clone());
                }
            }),
            Method::SetProducerPaused { producer, paused } => self.with_producer(*producer, |request| request.paused = *paused),
            Method::SetProducerPreferredProfile { producer, profile } => {
                self.with_producer(*producer, |request| request.preferred_profile = *profile);
            }
            Method::SetConsumerPaused { consumer, paused } => self.with_consumer(*consumer, |request| request.paused = *paused),
            Method::SetConsumerPreferredProfile { consumer, profile } => {
                self.with_consumer(*consumer, |request| request.preferred_profile = *profile);
            }
            Method::CloseRouter { .. } => return self.close_all(),
            Method::CloseTransport { transport } => return self.close_transport(*transport),
            Method::CloseProducer { producer } => return self.close_producer(*producer),
            Method::CloseConsumer { consumer } => return self.close_consumer(*consumer),
            Method::SetAudioLevels { enabled, .. } => self.audio_levels = *enabled,
            Method::SetMaxBitrate { transport, bitrate_bps } => {
                self.with_transport(*transport, |transport| transport.max_bitrate_bps = *bitrate_bps);
            }
            Method::StartMirroring { transport, mirror } => {
                self.with_transport(*transport, |transport| transport.mirror = Some(*mirror));
            }
            Method::StopMirroring { transport } => self.with_transport(*transport, |transport| transport.mirror = None),
            // These change nothing that a successor must know.
            Method::Ping
            | Method::SetLogFilter(_)
            | Method::SetCoalescing(_)
            | Method::CreateRouter { .. }
            | Method::UseDtlsCertificate(_)
            | Method::RequestKeyFrame { .. }
            | Method::WorkerStats
            | Method::Stats(_)
            | Method::Dump(_)
            // The doors are opened again with the worker, and sockets are asked for again.
            | Method::OpenSharedPorts(_)
            | Method::UseConnectedSocket { .. }
            | Method::Shutdown => {}
        }
        Closed::default()
    }

    /// A `comedia` transport has learned its remote: a successor begins with that, and learns another one no sooner.
    pub(crate) fn learn_remote(&mut self, transport: TransportId, remote: Remote) {
        self.with_transport(transport, |transport| {
            if let TransportRequest::Plain(request) = &mut transport.request {
                request.remote = Some(remote);
            }
        });
    }

    /// A peer has a consumer that is not enabled yet.
    pub(crate) fn add_waiting_consumer(&mut self, consumer: ConsumerId, producer: ProducerId) {
        if let Some(desired) = self.producers.get_mut(&producer) {
            desired.consumers.insert(consumer);
            let waiting = DesiredConsumer {
                producer,
                stays: true,
                request: None,
            };
            self.consumers.insert(consumer, waiting);
        }
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
            match self.consumers.get_mut(&consumer) {
                // It consumed a producer of the same transport, and is gone already.
                None => {}
                Some(desired) if desired.stays => {
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
        let Some(desired) = self.consumers.remove(&consumer) else {
            return false;
        };
        if let Some(request) = desired.request
            && let Some(transport) = self.transports.get_mut(&request.transport)
        {
            transport.consumers.remove(&consumer);
        }
        if let Some(producer) = self.producers.get_mut(&desired.producer) {
            producer.consumers.remove(&consumer);
        }
        true
    }

    fn set_remote(&mut self, transport: TransportId, remote: Remote) {
        self.with_transport(transport, |transport| {
            if let TransportRequest::Plain(request) = &mut transport.request {
                request.remote = Some(remote);
                // What was told is not learned.
                request.comedia = false;
            }
        });
    }

    fn with_transport(&mut self, transport: TransportId, change: impl FnOnce(&mut DesiredTransport)) {
        if let Some(transport) = self.transports.get_mut(&transport) {
            change(transport);
        }
    }

    fn with_producer(&mut self, producer: ProducerId, change: impl FnOnce(&mut CreateProducer)) {
        if let Some(producer) = self.producers.get_mut(&producer) {
            change(&mut producer.request);
        }
    }

    fn with_consumer(&mut self, consumer: ConsumerId, change: impl FnOnce(&mut CreateConsumer)) {
        if let Some(consumer) = self.consumers.get_mut(&consumer)
            && let Some(request) = &mut consumer.request
        {
            change(request);
        }
    }
}

impl DesiredTransport {
    fn new(request: TransportRequest) -> Self {
        Self {
            request,
            max_bitrate_bps: None,
            mirror: None,
            producers: BTreeSet::new(),
            consumers: BTreeSet::new(),
        }
    }

    fn replay(&self) -> impl Iterator<Item = Method> + '_ {
        let (transport, created, introduced) = match &self.request {
            TransportRequest::Plain(request) => {
                let created = Method::CreatePlainTransport(request.clone());
                (request.transport, created, None)
            }
            TransportRequest::WebRtc(request, peer) => {
                let transport = request.transport;
                let created = Method::CreateWebRtcTransport(request.clone());
                let peer = peer.clone();
                let introduced = peer.map(|parameters| Method::SetDtlsParameters { transport, parameters });
                (transport, created, introduced)
            }
        };
        let limited = self.max_bitrate_bps.map(|bitrate| Method::SetMaxBitrate {
            transport,
            bitrate_bps: Some(bitrate),
        });
        let mirrored = self.mirror.map(|mirror| Method::StartMirroring { transport, mirror });
        [Some(created), introduced, limited, mirrored].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_channel::message::{ComediaPolicy, DtlsRole, Encoding, IceCredentials, IceProtocol, MediaKind, Profile};

    use super::*;

    const ROOM: RoomId = RoomId(1);

    /// A worker's own bookkeeping, written as simply as can be: flat lists, searched.
    #[derive(Clone, PartialEq, Debug, Default)]
    struct Model {
        exists: bool,
        transports: Vec<CreatePlainTransport>,
        webrtc: Vec<(CreateWebRtcTransport, Option<DtlsParameters>)>,
        producers: Vec<CreateProducer>,
        consumers: Vec<CreateConsumer>,
        max_bitrates: BTreeMap<TransportId, u64>,
        mirrors: BTreeMap<TransportId, Mirror>,
        audio_levels: bool,
        /// Consumers of peers, enabled or not, each with its producer.
        staying: BTreeMap<ConsumerId, ProducerId>,
    }

    impl Model {
        /// Whether a worker would accept the request; if so, it has taken effect.
        fn accept(&mut self, method: &Method) -> bool {
            let has_transport = |model: &Self, id| {
                let plain = model.transports.iter().any(|each| each.transport == id);
                plain || model.webrtc.iter().any(|(each, _)| each.transport == id)
            };
            let has_producer = |model: &Self, id| model.producers.iter().any(|each| each.producer == id);
            match method {
                Method::CreateRouter { .. } => !std::mem::replace(&mut self.exists, true),
                Method::CreatePlainTransport(request) => {
                    let valid = self.exists && !has_transport(self, request.transport);
                    if valid {
                        self.transports.push(request.clone());
                    }
                    valid
                }
                Method::CreateWebRtcTransport(request) => {
                    let valid = self.exists && !has_transport(self, request.transport);
                    if valid {
                        self.webrtc.push((request.clone(), None));
                    }
                    valid
                }
                Method::RestartIce { transport, ice } => {
                    let found = self.webrtc.iter_mut().find(|(each, _)| each.transport == *transport);
                    found.map(|(each, _)| each.ice = ice.clone()).is_some()
                }
                Method::SetDtlsParameters { transport, parameters } => {
                    let mut webrtc = self.webrtc.iter_mut();
                    let found = webrtc.find(|(each, known)| each.transport == *transport && known.is_none());
                    found.map(|(_, known)| *known = Some(parameters.clone())).is_some()
                }
                Method::CreateProducer(request) => {
                    let valid = has_transport(self, request.transport) && !has_producer(self, request.producer);
                    if valid {
                        self.producers.push(request.clone());
                    }
                    valid
                }
                Method::CreateConsumer(request) => {
                    let own = self.staying.get(&request.consumer);
                    let valid = has_transport(self, request.transport)
                        && has_producer(self, request.producer)
                        && own.is_none_or(|producer| *producer == request.producer)
                        && !self.consumers.iter().any(|each| each.consumer == request.consumer);
                    if valid {
                        self.consumers.push(request.clone());
                    }
                    valid
                }
                Method::SetRemote { transport, remote } => {
                    let found = self.transports.iter_mut().find(|each| each.transport == *transport);
                    found
                        .map(|each| (each.remote, each.comedia) = (Some(*remote), false))
                        .is_some()
                }
                Method::SetMaxBitrate { transport, bitrate_bps } => {
                    let known = has_transport(self, *transport);
                    match bitrate_bps.filter(|_| known) {
                        Some(bitrate) => self.max_bitrates.insert(*transport, bitrate),
                        None => self.max_bitrates.remove(transport),
                    };
                    known
                }
                Method::StartMirroring { transport, mirror } => {
                    let valid = has_transport(self, *transport) && !self.mirrors.contains_key(transport);
                    if valid {
                        self.mirrors.insert(*transport, *mirror);
                    }
                    valid
                }
                Method::StopMirroring { transport } => {
                    self.mirrors.remove(transport);
                    has_transport(self, *transport)
                }
                Method::SetAudioLevels { enabled, .. } => {
                    self.audio_levels = *enabled;
                    self.exists
                }
                Method::SetProducerPaused { producer, paused } => {
                    self.producer(*producer, |each| each.paused = *paused)
                }
                Method::SetProducerPreferredProfile { producer, profile } => {
                    self.producer(*producer, |each| each.preferred_profile = *profile)
                }
                Method::SetConsumerPaused { consumer, paused } => {
                    self.consumer(*consumer, |each| each.paused = *paused)
                }
                Method::SetConsumerPreferredProfile { consumer, profile } => {
                    self.consumer(*consumer, |each| each.preferred_profile = *profile)
                }
                Method::CloseTransport { transport } => {
                    let known = has_transport(self, *transport);
                    self.transports.retain(|each| each.transport != *transport);
                    self.webrtc.retain(|(each, _)| each.transport != *transport);
                    self.max_bitrates.remove(transport);
                    self.mirrors.remove(transport);
                    self.producers.retain(|each| each.transport != *transport);
                    self.consumers.retain(|each| each.transport != *transport);
                    self.drop_orphans();
                    known
                }
                Method::CloseProducer { producer } => {
                    let known = has_producer(self, *producer);
                    self.producers.retain(|each| each.producer != *producer);
                    self.drop_orphans();
                    known
                }
                Method::CloseConsumer { consumer } => {
                    let before = self.consumers.len();
                    self.consumers.retain(|each| each.consumer != *consumer);
                    // No worker is asked about one that is not enabled.
                    let stayed = self.staying.remove(consumer).is_some();
                    self.consumers.len() < before || stayed
                }
                other => panic!("not part of the test: {other:?}"),
            }
        }

        fn drop_orphans(&mut self) {
            let producers: Vec<ProducerId> = self.producers.iter().map(|each| each.producer).collect();
            self.consumers.retain(|each| producers.contains(&each.producer));
            self.staying.retain(|_, producer| producers.contains(producer));
        }

        /// A peer gets a consumer that is not enabled.
        fn add_waiting(&mut self, consumer: ConsumerId, producer: ProducerId) -> bool {
            let valid = self.producers.iter().any(|each| each.producer == producer)
                && !self.staying.contains_key(&consumer)
                && !self.consumers.iter().any(|each| each.consumer == consumer);
            if valid {
                self.staying.insert(consumer, producer);
            }
            valid
        }

        /// Those that are enabled and would outlive their transport.
        fn handled(&self) -> BTreeSet<ConsumerId> {
            let enabled = self.consumers.iter().map(|each| each.consumer);
            enabled.filter(|id| self.staying.contains_key(id)).collect()
        }

        fn producer(&mut self, id: ProducerId, change: impl FnOnce(&mut CreateProducer)) -> bool {
            self.producers
                .iter_mut()
                .find(|each| each.producer == id)
                .map(change)
                .is_some()
        }

        fn consumer(&mut self, id: ConsumerId, change: impl FnOnce(&mut CreateConsumer)) -> bool {
            self.consumers
                .iter_mut()
                .find(|each| each.consumer == id)
                .map(change)
                .is_some()
        }

        fn objects(&self) -> BTreeSet<ClosedObject> {
            let plain = self.transports.iter().map(|each| each.transport);
            let webrtc = self.webrtc.iter().map(|(each, _)| each.transport);
            let transports = plain.chain(webrtc).map(ClosedObject::Transport);
            let producers = self.producers.iter().map(|each| ClosedObject::Producer(each.producer));
            let consumers = self.consumers.iter().map(|each| consumer(each.consumer));
            let staying = self.staying.keys().map(|id| consumer(*id));
            transports.chain(producers).chain(consumers).chain(staying).collect()
        }

        fn sorted(mut self) -> Self {
            self.transports.sort_by_key(|each| each.transport);
            self.webrtc.sort_by_key(|(each, _)| each.transport);
            self.producers.sort_by_key(|each| each.producer);
            self.consumers.sort_by_key(|each| each.consumer);
            self
        }
    }

    /// Without the parent, which the model does not know.
    fn consumer(id: ConsumerId) -> ClosedObject {
        ClosedObject::Consumer(id, ConsumerParent::Itself)
    }

    fn id() -> std::ops::Range<u64> {
        0..6
    }

    fn remote() -> impl Strategy<Value = Remote> {
        (1_u16..9).prop_map(|port| Remote {
            rtp: ([127, 0, 0, 1], port).into(),
            rtcp: None,
        })
    }

    fn profile() -> impl Strategy<Value = Profile> {
        proptest::sample::select(vec![Profile::Default, Profile::Low, Profile::Medium, Profile::High])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(Method),
        /// A peer gets a consumer of a producer.
        Wait(ConsumerId, ProducerId),
    }

    fn step() -> impl Strategy<Value = Step> {
        let waiting = (id().prop_map(ConsumerId), id().prop_map(ProducerId));
        prop_oneof![
            6 => method().prop_map(Step::Ask),
            1 => waiting.prop_map(|(consumer, producer)| Step::Wait(consumer, producer)),
        ]
    }

    fn mirror() -> impl Strategy<Value = Mirror> {
        (remote(), any::<bool>()).prop_map(|(remote, send_rtp)| Mirror {
            remote: remote.rtp,
            send_rtp,
            send_rtcp: false,
            recv_rtp: true,
            recv_rtcp: false,
        })
    }

    fn ice() -> impl Strategy<Value = IceCredentials> {
        ("[a-z]{4}", "[a-z]{22}").prop_map(|(username_fragment, password)| IceCredentials {
            username_fragment,
            password,
        })
    }

    fn dtls() -> impl Strategy<Value = DtlsParameters> {
        proptest::sample::select(vec![DtlsRole::Auto, DtlsRole::Client, DtlsRole::Server]).prop_map(|role| {
            DtlsParameters {
                role,
                fingerprints: Vec::new(),
            }
        })
    }

    fn method() -> impl Strategy<Value = Method> {
        let transport = || id().prop_map(TransportId);
        let producer = || id().prop_map(ProducerId);
        let consumer = || id().prop_map(ConsumerId);
        let create_transport =
            (transport(), proptest::option::of(remote()), any::<bool>()).prop_map(|(transport, remote, comedia)| {
                Method::CreatePlainTransport(CreatePlainTransport {
                    room: ROOM,
                    transport,
                    comedia,
                    remote,
                    rtcp_mux: true,
                    comedia_policy: ComediaPolicy::default(),
                })
            });
        let create_webrtc = (transport(), ice()).prop_map(|(transport, ice)| {
            Method::CreateWebRtcTransport(CreateWebRtcTransport {
                room: ROOM,
                transport,
                listeners: vec![IceProtocol::Udp, IceProtocol::Tcp],
                ice,
            })
        });
        let create_producer = (transport(), producer(), profile(), any::<bool>()).prop_map(
            |(transport, producer, preferred_profile, paused)| {
                Method::CreateProducer(CreateProducer {
                    room: ROOM,
                    transport,
                    producer,
                    kind: MediaKind::Video,
                    mid: None,
                    codecs: Vec::new(),
                    encodings: vec![Encoding {
                        ssrc: Some(1),
                        rid: None,
                        profile: Profile::Default,
                        rtx_ssrc: None,
                    }],
                    header_extensions: Vec::new(),
                    preferred_profile,
                    paused,
                    reduced_size: true,
                })
            },
        );
        let create_consumer = (transport(), producer(), consumer(), profile(), any::<bool>()).prop_map(
            |(transport, producer, consumer, preferred_profile, paused)| {
                Method::CreateConsumer(CreateConsumer {
                    room: ROOM,
                    transport,
                    producer,
                    consumer,
                    ssrc: 1,
                    payload_types: Vec::new(),
                    header_extensions: Vec::new(),
                    preferred_profile,
                    paused,
                    nack: false,
                    rtx: None,
                    cname: "weir".to_owned(),
                    cname_is_made_up: false,
                })
            },
        );
        prop_oneof![
            3 => create_transport,
            3 => create_webrtc,
            6 => create_producer,
            10 => create_consumer,
            1 => (transport(), remote()).prop_map(|(transport, remote)| Method::SetRemote { transport, remote }),
            1 => (transport(), ice()).prop_map(|(transport, ice)| Method::RestartIce { transport, ice }),
            1 => (transport(), dtls())
                .prop_map(|(transport, parameters)| Method::SetDtlsParameters { transport, parameters }),
            1 => producer().prop_map(|producer| Method::SetProducerPaused { producer, paused: true }),
            1 => producer().prop_map(|producer| Method::SetProducerPaused { producer, paused: false }),
            1 => (producer(), profile())
                .prop_map(|(producer, profile)| Method::SetProducerPreferredProfile { producer, profile }),
            1 => consumer().prop_map(|consumer| Method::SetConsumerPaused { consumer, paused: true }),
            1 => consumer().prop_map(|consumer| Method::SetConsumerPaused { consumer, paused: false }),
            1 => (consumer(), profile())
                .prop_map(|(consumer, profile)| Method::SetConsumerPreferredProfile { consumer, profile }),
            1 => (transport(), proptest::option::of(10_000_u64..20_000))
                .prop_map(|(transport, bitrate_bps)| Method::SetMaxBitrate { transport, bitrate_bps }),
            1 => (transport(), mirror()).prop_map(|(transport, mirror)| Method::StartMirroring { transport, mirror }),
            1 => transport().prop_map(|transport| Method::StopMirroring { transport }),
            1 => any::<bool>().prop_map(|enabled| Method::SetAudioLevels { room: ROOM, enabled }),
            1 => transport().prop_map(|transport| Method::CloseTransport { transport }),
            1 => producer().prop_map(|producer| Method::CloseProducer { producer }),
            1 => consumer().prop_map(|consumer| Method::CloseConsumer { consumer }),
        ]
    }

    proptest! {
        /// Whatever a worker has accepted, replaying the desired state into a fresh one makes the same room, and it accepts
        /// every request of the replay. And each closing tells exactly what is gone, once, children after their parents, and
        /// which consumers of peers have lost their transport.
        #[test]
        fn a_replay_makes_the_same_room(steps in proptest::collection::vec(step(), 0..120)) {
            let mut worker = Model::default();
            worker.accept(&Method::CreateRouter { room: ROOM });
            let mut desired = DesiredRoom::new(ROOM);
            for step in &steps {
                let method = match step {
                    Step::Wait(consumer, producer) => {
                        if worker.add_waiting(*consumer, *producer) {
                            desired.add_waiting_consumer(*consumer, *producer);
                        }
                        continue;
                    }
                    Step::Ask(method) => method,
                };
                let (before, handled) = (worker.objects(), worker.handled());
                if !worker.accept(method) {
                    continue;
                }
                let Closed(closed) = desired.accept(method);
                let unhandled: BTreeSet<ConsumerId> = closed
                    .iter()
                    .filter_map(|object| match object {
                        ClosedObject::Unhandled(id) => Some(*id),
                        _ => None,
                    })
                    .collect();
                let told: BTreeSet<ClosedObject> = closed
                    .iter()
                    .filter(|object| !matches!(object, ClosedObject::Unhandled(_)))
                    .map(|object| match object {
                        ClosedObject::Consumer(id, _) => consumer(*id),
                        other => *other,
                    })
                    .collect();
                prop_assert_eq!(told.len() + unhandled.len(), closed.len(), "told twice");
                let gone: BTreeSet<ClosedObject> = before.difference(&worker.objects()).copied().collect();
                prop_assert_eq!(&told, &gone);
                let after = worker.handled();
                let lost = handled.difference(&after).filter(|id| !gone.contains(&consumer(**id)));
                prop_assert_eq!(unhandled, lost.copied().collect());
            }

            let mut fresh = Model::default();
            for method in desired.replay() {
                prop_assert!(fresh.accept(&method), "refused: {:?}", method);
            }
            fresh.staying.clone_from(&worker.staying);
            prop_assert_eq!(desired.consumers().count(), desired.consumer_count());
            prop_assert_eq!(worker.objects().len(), desired.close_all().0.len());
            prop_assert_eq!(fresh.sorted(), worker.sorted());
            prop_assert_eq!(desired, DesiredRoom::new(ROOM));
        }
    }

    #[test]
    fn a_learned_remote_is_not_learned_again() {
        let mut desired = DesiredRoom::new(ROOM);
        let transport = TransportId(1);
        desired.accept(&Method::CreatePlainTransport(CreatePlainTransport {
            room: ROOM,
            transport,
            remote: None,
            comedia: true,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
        }));
        let remote = Remote {
            rtp: ([192, 0, 2, 1], 9).into(),
            rtcp: None,
        };
        desired.learn_remote(transport, remote);
        let Some(Method::CreatePlainTransport(request)) = desired.replay().nth(1) else {
            panic!("no transport in the replay");
        };
        assert_eq!((request.remote, request.comedia), (Some(remote), true));
    }
}
