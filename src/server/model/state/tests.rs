//! The state against a model of a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::broadcast;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    ComediaPolicy, CreateConsumer, CreatePlainTransport, CreateProducer, CreateWebRtcTransport, DtlsParameters,
    DtlsRole, Encoding, IceCredentials, IceProtocol, MediaKind, Method, Mirror, Notification, Profile, Remote, Reply,
    WorkerError,
};
use weir_worker::webrtc::ice::Preferences;

use super::{Command, OnAccept, Pausable, State};
use crate::server::model::consumer::ConsumerNode;
use crate::server::model::desired::Object;
use crate::server::model::error::Error;
use crate::server::model::event::{Event, EventKind};
use crate::server::model::lock;
use crate::server::model::peer::{Closing, PeerNode, PeerOptions};
use crate::server::model::producer::ProducerNode;
use crate::server::model::reservation::ConsumerReservation;
use crate::server::model::room::RoomNode;
use crate::server::model::rtp_capabilities::RtpCapabilities;
use crate::server::model::rtp_parameters::{ConsumerPlacement, ConsumerSsrcs, ProducerPlacement, RtpParameters};
use crate::server::model::settings::Settings;
use crate::server::model::side::Side;
use crate::server::model::transport::{MirrorOutlet, Owner, TransportNode, WebRtcNode};

const WORKER: WorkerId = WorkerId(1);
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

const ROOM: RoomId = RoomId(1);

/// A worker's own bookkeeping, written as simply as can be: flat lists, searched.
#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    exists: bool,
    transports: Vec<CreatePlainTransport>,
    webrtc: Vec<(CreateWebRtcTransport, Option<DtlsParameters>)>,
    remote_ice: BTreeMap<TransportId, IceCredentials>,
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
                self.remote_ice.remove(transport);
                let found = self.webrtc.iter_mut().find(|(each, _)| each.transport == *transport);
                found.map(|(each, _)| each.ice = ice.clone()).is_some()
            }
            Method::SetRemoteIce { transport, ice } => {
                let known = self.webrtc.iter().any(|(each, _)| each.transport == *transport);
                if known {
                    self.remote_ice.insert(*transport, ice.clone());
                }
                known
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
                    && (has_producer(self, request.producer) || request.lasting_cname.is_some())
                    && own.is_none_or(|producer| *producer == request.producer)
                    && !self.consumers.iter().any(|each| each.consumer == request.consumer);
                if valid {
                    self.consumers.push(request.clone());
                }
                valid
            }
            Method::SetConsumerSource(request) => {
                let valid = has_producer(self, request.producer);
                let mut lasting = self.consumers.iter_mut().filter(|each| each.lasting_cname.is_some());
                let found = lasting.find(|each| valid && each.consumer == request.consumer);
                found.map(|each| each.producer = request.producer).is_some()
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
            Method::SetProducerPaused { producer, paused } => self.producer(*producer, |each| each.paused = *paused),
            Method::SetProducerPreferredProfile { producer, profile } => {
                self.producer(*producer, |each| each.preferred_profile = *profile)
            }
            Method::SetConsumerPaused { consumer, paused } => self.consumer(*consumer, |each| each.paused = *paused),
            Method::SetConsumerPreferredProfile { consumer, profile } => {
                self.consumer(*consumer, |each| each.preferred_profile = *profile)
            }
            Method::CloseTransport { transport } => {
                let known = has_transport(self, *transport);
                self.transports.retain(|each| each.transport != *transport);
                self.webrtc.retain(|(each, _)| each.transport != *transport);
                self.remote_ice.remove(transport);
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
        let lasts = |each: &CreateConsumer| each.lasting_cname.is_some();
        self.consumers
            .retain(|each| producers.contains(&each.producer) || lasts(each));
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

    fn objects(&self) -> BTreeSet<String> {
        let plain = self.transports.iter().map(|each| each.transport.to_string());
        let webrtc = self.webrtc.iter().map(|(each, _)| each.transport.to_string());
        let producers = self.producers.iter().map(|each| each.producer.to_string());
        let consumers = self.consumers.iter().map(|each| each.consumer.to_string());
        let staying = self.staying.keys().map(ConsumerId::to_string);
        plain
            .chain(webrtc)
            .chain(producers)
            .chain(consumers)
            .chain(staying)
            .collect()
    }

    fn sorted(mut self) -> Self {
        self.transports.sort_by_key(|each| each.transport);
        self.webrtc.sort_by_key(|(each, _)| each.transport);
        self.producers.sort_by_key(|each| each.producer);
        self.consumers.sort_by_key(|each| each.consumer);
        self
    }
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
    proptest::sample::select(vec![DtlsRole::Auto, DtlsRole::Client, DtlsRole::Server]).prop_map(|role| DtlsParameters {
        role,
        fingerprints: Vec::new(),
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
                comedia_from: None,
            })
        });
    let create_webrtc = (transport(), ice()).prop_map(|(transport, ice)| {
        Method::CreateWebRtcTransport(CreateWebRtcTransport {
            room: ROOM,
            transport,
            listeners: vec![IceProtocol::Udp, IceProtocol::Tcp],
            connected: Vec::new(),
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
    let flags = || (any::<bool>(), any::<bool>());
    let create_consumer = || {
        (transport(), producer(), consumer(), profile(), flags()).prop_map(
            |(transport, producer, consumer, preferred_profile, (paused, lasts))| {
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
                    lasting_cname: lasts.then(|| "stage".to_owned()),
                })
            },
        )
    };
    let set_source = create_consumer().prop_map(|method| match method {
        Method::CreateConsumer(request) => Method::SetConsumerSource(request),
        other => other,
    });
    prop_oneof![
        3 => create_transport,
        3 => create_webrtc,
        6 => create_producer,
        10 => create_consumer(),
        5 => set_source,
        1 => (transport(), remote()).prop_map(|(transport, remote)| Method::SetRemote { transport, remote }),
        1 => (transport(), ice()).prop_map(|(transport, ice)| Method::RestartIce { transport, ice }),
        1 => (transport(), ice()).prop_map(|(transport, ice)| Method::SetRemoteIce { transport, ice }),
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

/// What the supervisor knows of the one room.
struct Known {
    state: State,
    room: Arc<RoomNode>,
    peer: Arc<PeerNode>,
    /// Of the transports that are made.
    owner: Option<Owner>,
    events: broadcast::Receiver<Arc<Event>>,
}

impl Known {
    fn new() -> Self {
        let mut state = State::new(Arc::default());
        let room = RoomNode::new(ROOM, WORKER, RtpCapabilities::default(), Value::Null);
        let command = Command {
            method: Method::CreateRouter { room: ROOM },
            on_accept: OnAccept::Room(Arc::clone(&room), Box::new(())),
        };
        state.apply_answer(command, Ok(Reply::Done)).unwrap();
        let peers = &mut state.room_mut(ROOM).unwrap().peers;
        let peer = peers.add(
            &room,
            PeerOptions::new("ann", RtpCapabilities::default()),
            &Arc::default(),
        );
        let events = state.events.subscribe().0.unwrap();
        Self {
            peer: peer.unwrap(),
            state,
            room,
            owner: None,
            events,
        }
    }

    /// Asks the worker for something that it accepts, and applies that.
    fn ask(&mut self, method: &Method, worker: &mut Model) {
        match method {
            Method::SetProducerPaused { producer, paused } => {
                return self.ask_to_pause(Pausable::Producer(*producer), *paused, worker);
            }
            Method::SetConsumerPaused { consumer, paused } => {
                return self.ask_to_pause(Pausable::Consumer(*consumer), *paused, worker);
            }
            Method::SetProducerPreferredProfile { producer, profile } => {
                return self.ask_to_prefer(Pausable::Producer(*producer), *profile, worker);
            }
            Method::SetConsumerPreferredProfile { consumer, profile } => {
                return self.ask_to_prefer(Pausable::Consumer(*consumer), *profile, worker);
            }
            _ => {}
        }
        let source = match method {
            Method::CreateConsumer(request) | Method::SetConsumerSource(request) => Some(request.producer),
            _ => None,
        };
        let is_there = source.is_none_or(|source| self.state.producers.contains_key(&source));
        if !is_there || !worker.clone().accept(method) {
            return;
        }
        let (on_accept, method) = self.plan(method);
        let reply = match method {
            Method::SetDtlsParameters { .. } => Reply::DtlsRole(DtlsRole::Server),
            _ => Reply::Done,
        };
        assert!(worker.accept(&method), "refused: {method:?}");
        self.state
            .apply_answer(Command { method, on_accept }, Ok(reply))
            .unwrap();
    }

    fn ask_to_pause(&mut self, of: Pausable, paused: bool, worker: &mut Model) {
        let planned = self.state.plan_pause(of, Side::Local, paused, Value::Null);
        self.ask_if_planned(planned.ok().flatten(), worker);
    }

    fn ask_to_prefer(&mut self, of: Pausable, profile: Profile, worker: &mut Model) {
        let planned = self.state.plan_preference(of, Side::Local, profile);
        self.ask_if_planned(planned.ok().flatten(), worker);
    }

    fn ask_if_planned(&mut self, planned: Option<Command>, worker: &mut Model) {
        if let Some(command) = planned {
            assert!(worker.accept(&command.method), "refused: {:?}", command.method);
            self.state.apply_answer(command, Ok(Reply::Done)).unwrap();
        }
    }

    /// What comes with a request. A consumer that waited is enabled as its pause state says.
    fn plan(&mut self, method: &Method) -> (OnAccept, Method) {
        let mut method = method.clone();
        let on_accept = match &mut method {
            Method::CreatePlainTransport(request) => OnAccept::Transport(TransportNode::plain(
                &Settings::default(),
                Arc::clone(&self.room),
                self.owner.clone(),
                request,
                (ADDRESS, None),
                Box::new(()),
                Value::Null,
            )),
            Method::CreateWebRtcTransport(request) => OnAccept::Transport(TransportNode::for_webrtc(
                request.transport,
                Arc::clone(&self.room),
                self.owner.clone(),
                Arc::new(WebRtcNode::new(
                    &Settings::default(),
                    ADDRESS,
                    &[],
                    request.ice.clone(),
                    Preferences::default(),
                )),
                Box::new(()),
                Value::Null,
            )),
            Method::CreateProducer(request) => OnAccept::Producer(ProducerNode::new(
                ProducerPlacement {
                    room: ROOM,
                    transport: request.transport,
                    producer: request.producer,
                    kind: request.kind,
                    preferred_profile: request.preferred_profile,
                    paused: request.paused,
                    is_plain: true,
                },
                Arc::clone(&self.state.transports[&request.transport]),
                RtpParameters::default(),
                false,
                None,
                Value::Null,
            )),
            Method::CreateConsumer(request) => match self.state.consumers.get(&request.consumer) {
                Some(waiting) => {
                    request.lasting_cname = None;
                    let mut state = lock(&waiting.state);
                    state.enabling = true;
                    (request.paused, request.preferred_profile) = state
                        .pause_state
                        .plan_enabling(request.paused, Some(request.preferred_profile));
                    OnAccept::Enable(Arc::clone(waiting))
                }
                None => {
                    let transport = Arc::clone(&self.state.transports[&request.transport]);
                    self.state.admit_consumer(&transport).unwrap();
                    let ssrcs = ConsumerSsrcs { media: 1, rtx: 2 };
                    let reservation = request.lasting_cname.clone().map(|cname| {
                        let (kind, receiver) = (MediaKind::Video, RtpCapabilities::default());
                        ConsumerReservation::new(request.transport, kind, receiver, ssrcs, cname)
                    });
                    OnAccept::Consumer(ConsumerNode::on_transport(
                        ConsumerPlacement {
                            room: ROOM,
                            transport: request.transport,
                            producer: request.producer,
                            consumer: request.consumer,
                            preferred_profile: request.preferred_profile,
                            paused: request.paused,
                            cname_is_made_up: false,
                        },
                        transport,
                        Arc::clone(&self.state.producers[&request.producer]),
                        (RtpParameters::default(), reservation),
                        Value::Null,
                    ))
                }
            },
            Method::SetConsumerSource(request) => {
                let consumer = &self.state.consumers[&request.consumer];
                // Where it leaves is what it was made with.
                request.transport = lock(&consumer.state).transport.as_ref().unwrap().id;
                request.lasting_cname = Some("stage".to_owned());
                let producer = &self.state.producers[&request.producer];
                OnAccept::Source(Arc::clone(consumer), Arc::clone(producer))
            }
            Method::StartMirroring { mirror, .. } => OnAccept::Mirror(MirrorOutlet {
                local: ADDRESS,
                mirror: *mirror,
                socket: Box::new(()),
            }),
            Method::SetAudioLevels { enabled, .. } => {
                // What is wanted is known by who listens.
                self.state.room_mut(ROOM).unwrap().listeners.count = usize::from(*enabled);
                OnAccept::None
            }
            _ => OnAccept::None,
        };
        (on_accept, method)
    }

    fn add_waiting(&mut self, consumer: ConsumerId, producer: ProducerId) {
        let ssrcs = ConsumerSsrcs { media: 1, rtx: 2 };
        let node = ConsumerNode::waiting(
            consumer,
            Arc::clone(&self.state.producers[&producer]),
            Arc::clone(&self.peer),
            (RtpParameters::default(), ssrcs),
            false,
            Arc::new(Value::Null),
        );
        self.state.room_mut(ROOM).unwrap().desired.add_waiting_consumer(&node);
        self.state.served_mut(node.room.worker).streams += 1;
        self.state.consumers.insert(consumer, node);
    }

    /// What has closed since the last call, and which consumers have lost their transport, in the order of the events.
    fn closed(&mut self) -> (Vec<String>, Vec<ConsumerId>) {
        let (mut closed, mut unhandled) = (Vec::new(), Vec::new());
        while let Ok(event) = self.events.try_recv() {
            match event.kind {
                EventKind::TransportClosed { transport, .. } => closed.push(transport.to_string()),
                EventKind::ProducerClosed { producer, .. } => closed.push(producer.to_string()),
                EventKind::ConsumerClosed { consumer, .. } => closed.push(consumer.to_string()),
                EventKind::ConsumerUnhandled { consumer, .. } => unhandled.push(consumer),
                _ => {}
            }
        }
        (closed, unhandled)
    }
}

proptest! {
    /// Whatever a worker has accepted, replaying the desired state into a fresh one makes the same room, and it accepts
    /// every request of the replay. And each closing tells exactly what is gone, once, and which consumers of peers have
    /// lost their transport.
    #[test]
    fn a_replay_makes_the_same_room(steps in proptest::collection::vec(step(), 0..120)) {
        let mut worker = Model::default();
        worker.accept(&Method::CreateRouter { room: ROOM });
        let mut known = Known::new();
        for step in &steps {
            let (before, handled) = (worker.objects(), worker.handled());
            match step {
                Step::Wait(consumer, producer) => {
                    if worker.add_waiting(*consumer, *producer) {
                        known.add_waiting(*consumer, *producer);
                    }
                }
                Step::Ask(method) => known.ask(method, &mut worker),
            }
            let (closed, unhandled) = known.closed();
            let told: BTreeSet<String> = closed.iter().cloned().collect();
            prop_assert_eq!(told.len(), closed.len(), "told twice");
            let gone: BTreeSet<String> = before.difference(&worker.objects()).cloned().collect();
            prop_assert_eq!(&told, &gone);
            let after = worker.handled();
            let lost = handled.difference(&after).filter(|id| !gone.contains(&id.to_string()));
            let unhandled: BTreeSet<ConsumerId> = unhandled.into_iter().collect();
            prop_assert_eq!(unhandled, lost.copied().collect());
        }

        let mut fresh = Model::default();
        for method in known.state.replay(ROOM).map(|replayed| replayed.method) {
            prop_assert!(fresh.accept(&method), "refused: {:?}", method);
        }
        fresh.staying.clone_from(&worker.staying);
        let objects = worker.objects().len();
        prop_assert_eq!(fresh.sorted(), worker.sorted());
        known.state.close_object(Object::Room(ROOM), Side::Local, Value::Null);
        prop_assert_eq!(known.closed().0.len(), objects);
        prop_assert_eq!(known.state.entries(), [0; 5]);
        prop_assert!(known.state.replay(ROOM).next().is_none());
    }
}

/// A peer is closed when all of its transports are. What of them the worker has closed before it dies is not made again.
#[test]
fn of_a_peer_that_is_being_closed_only_what_the_worker_has_is_replayed() {
    let mut known = Known::new();
    let mut worker = Model::default();
    worker.accept(&Method::CreateRouter { room: ROOM });
    let plain = |transport| {
        Method::CreatePlainTransport(CreatePlainTransport {
            room: ROOM,
            transport: TransportId(transport),
            remote: None,
            comedia: false,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        })
    };
    let create_producer = |producer, transport| {
        Method::CreateProducer(CreateProducer {
            room: ROOM,
            transport: TransportId(transport),
            producer: ProducerId(producer),
            kind: MediaKind::Video,
            mid: None,
            codecs: Vec::new(),
            encodings: Vec::new(),
            header_extensions: Vec::new(),
            preferred_profile: Profile::Default,
            paused: false,
            reduced_size: true,
        })
    };
    let create_consumer = |consumer, producer, transport| {
        Method::CreateConsumer(CreateConsumer {
            room: ROOM,
            transport: TransportId(transport),
            producer: ProducerId(producer),
            consumer: ConsumerId(consumer),
            ssrc: 1,
            payload_types: Vec::new(),
            header_extensions: Vec::new(),
            preferred_profile: Profile::Default,
            paused: false,
            nack: false,
            rtx: None,
            cname: "weir".to_owned(),
            cname_is_made_up: false,
            lasting_cname: None,
        })
    };
    known.owner = Some((Arc::clone(&known.peer), None));
    lock(&known.peer.state).producers_on_their_way = 2;
    known.state.room_mut(ROOM).unwrap().producers_on_their_way = 2;
    for transport in 1..4 {
        known.ask(&plain(transport), &mut worker);
    }
    for method in [
        create_producer(1, 1),
        create_producer(2, 2),
        create_consumer(1, 1, 3),
        create_consumer(2, 2, 1),
        create_consumer(3, 2, 3),
    ] {
        known.ask(&method, &mut worker);
    }
    lock(&known.peer.state).closing = Some(Closing {
        side: Side::Local,
        app_data: Value::Null,
        unanswered: 3,
        closed: Vec::new(),
        refused: false,
    });
    let close = Method::CloseTransport {
        transport: TransportId(1),
    };
    worker.accept(&close);
    let command = Command {
        method: close,
        on_accept: OnAccept::ClosePeer(Arc::clone(&known.peer)),
    };
    known.state.apply_answer(command, Ok(Reply::Done)).unwrap();
    // Whoever still asks something of that finds it closed.
    for (consumer, is_closed) in [(1, true), (2, true), (3, false)].map(|(id, is)| (ConsumerId(id), is)) {
        let command = Command::new(Method::RequestKeyFrame { consumer });
        let answered = known
            .state
            .apply_answer(command, Err(WorkerError::UnknownConsumer(consumer)));
        assert_eq!(
            matches!(answered, Err(Error::InvalidState { .. })),
            is_closed,
            "{answered:?}"
        );
    }
    let mut fresh = Model::default();
    for method in known.state.replay(ROOM).map(|replayed| replayed.method) {
        assert!(fresh.accept(&method), "refused: {method:?}");
    }
    assert_eq!(fresh.sorted(), worker.sorted());
    let taken_up = known.state.replay_rehearsed(ROOM, |_| false);
    let Some(Method::TakeUp {
        transports,
        producers,
        consumers,
        ..
    }) = taken_up.last().map(|replayed| &replayed.method)
    else {
        panic!("nothing is taken up");
    };
    assert_eq!(transports, &[TransportId(2), TransportId(3)]);
    assert_eq!(
        (&producers[..], &consumers[..]),
        (&[ProducerId(2)][..], &[ConsumerId(3)][..])
    );
}

#[test]
fn a_learned_remote_is_not_learned_again() {
    let mut known = Known::new();
    let mut worker = Model::default();
    worker.accept(&Method::CreateRouter { room: ROOM });
    let transport = TransportId(1);
    let create = Method::CreatePlainTransport(CreatePlainTransport {
        room: ROOM,
        transport,
        remote: None,
        comedia: true,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    });
    known.ask(&create, &mut worker);
    let remote = Remote {
        rtp: ([192, 0, 2, 1], 9).into(),
        rtcp: None,
    };
    let learned = Notification::RemoteLearned { transport, remote };
    known.state.apply_notification(WORKER, learned);
    let Some(Method::CreatePlainTransport(request)) = known.state.replay(ROOM).nth(1).map(|replayed| replayed.method)
    else {
        panic!("no transport in the replay");
    };
    assert_eq!((request.remote, request.comedia), (Some(remote), true));
}
