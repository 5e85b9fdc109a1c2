//! What is called: anything that an application might want, at random.

use std::net::SocketAddr;
use std::rc::Rc;

use serde_json::Value;
use tokio::time::timeout;
use weir_channel::message::{CodecName, MediaKind, Profile, Remote};

use super::client;
use super::story::{CALL_TIME_MAX, Call, Story, World};
use crate::server::api::transport::ConsumerOptions;
use crate::server::{
    Consumer, Direction, EnableOptions, Error, Peer, PeerOptions, PlainTransportOptions, Producer, ProducerOptions,
    Room, RoomOptions, RtcpFeedback, RtpCodec, RtpEncoding, RtpParameters, Transport, WebRtcTransport,
    WebRtcTransportOptions,
};

impl Story {
    /// Something that an application might want.
    pub(super) fn call(&mut self) -> Option<Call> {
        let rooms = self.server.rooms();
        let dice = self.random.below(100);
        if rooms.is_empty() || (dice < 3 && rooms.len() < 3) {
            let server = self.server.clone();
            return Some(self.begin("create a room", async move {
                server.create_room(RoomOptions::default()).await.map(drop)
            }));
        }
        let room = self.pick(rooms)?;
        match dice {
            0..12 => self.join(&room),
            12..22 => self.open(&room),
            22..34 => self.produce(&room),
            34..52 => self.enable(&room),
            52..56 => self.consume(&room),
            56..68 => self.pause_consumer(&room),
            68..78 => self.pause_producer(&room),
            78..84 => self.prefer(&room),
            84..88 => self.ask(&room),
            88..96 => self.close(&room),
            96..99 => self.look_at(&room),
            _ if self.random.chance(200) => {
                Some(self.begin(
                    format!("close {}", room.id()),
                    async move { room.close(Value::Null).await },
                ))
            }
            _ => None,
        }
    }

    pub(super) fn pick<T>(&mut self, mut items: Vec<T>) -> Option<T> {
        if items.is_empty() {
            return None;
        }
        let chosen = self.random.below(items.len());
        Some(items.swap_remove(chosen))
    }

    /// A call, which has one outcome, and that in time.
    pub(super) fn begin(
        &self,
        what: impl std::fmt::Display,
        call: impl Future<Output = Result<(), Error>> + 'static,
    ) -> Call {
        self.begin_then(what, call, |_| {})
    }

    pub(super) fn begin_then<T: 'static>(
        &self,
        what: impl std::fmt::Display,
        call: impl Future<Output = Result<T, Error>> + 'static,
        then: impl FnOnce(T) + 'static,
    ) -> Call {
        let (what, world) = (what.to_string(), Rc::clone(&self.world));
        world.calls.set(world.calls.get() + 1);
        let number = world.calls.get();
        world.tell(&format_args!("[{number}] {what}"));
        Box::pin(async move {
            let outcome = timeout(CALL_TIME_MAX, call).await;
            // What was sent until now was sent before anybody knew of the outcome.
            world.look();
            let outcome = outcome.unwrap_or_else(|_| panic!("[{number}] {what}: no outcome"));
            match outcome {
                Ok(value) => {
                    world.tell(&format_args!("[{number}] is done"));
                    then(value);
                }
                Err(error) => {
                    let is_expected = matches!(
                        error,
                        Error::InvalidState { .. }
                            | Error::AlreadyEnabled { .. }
                            | Error::NotEnabled { .. }
                            | Error::NotFound { .. }
                            | Error::TooMany { .. }
                    );
                    assert!(is_expected, "[{number}] {what}: {error}");
                    world.tell(&format_args!("[{number}] {error}"));
                }
            }
        })
    }

    pub(super) fn join(&mut self, room: &Room) -> Option<Call> {
        if room.peers().len() >= 4 {
            return self.open(room);
        }
        self.names += 1;
        let name = format!("peer{}", self.names);
        self.world.tell(&format_args!("{name} joins {}", room.id()));
        let options = PeerOptions::new(name, room.rtp_capabilities().clone());
        let peer = room.create_peer(options).expect("a new name");
        Some(self.open_for(&peer, Direction::Send))
    }

    pub(super) fn open(&mut self, room: &Room) -> Option<Call> {
        let peer = self.pick(room.peers())?;
        if peer.transports().len() >= 4 {
            return None;
        }
        let has_way_out = peer
            .transports()
            .iter()
            .any(|transport| transport.direction() == Some(Direction::Recv));
        let direction = if has_way_out && self.random.chance(500) {
            Direction::Send
        } else {
            Direction::Recv
        };
        Some(self.open_for(&peer, direction))
    }

    pub(super) fn open_for(&mut self, peer: &Peer, direction: Direction) -> Call {
        let remote = self.world.media.borrow_mut().address();
        if self.random.chance(self.webrtc) {
            return self.connect_for(peer, direction, remote);
        }
        let comedia = direction == Direction::Send && self.random.chance(300);
        let rtcp_mux = self.random.chance(800);
        let options = PlainTransportOptions {
            remote: (!comedia).then_some(Remote {
                rtp: remote,
                rtcp: (!rtcp_mux).then(|| (remote.ip(), remote.port() + 1).into()),
            }),
            comedia,
            rtcp_mux,
            ..PlainTransportOptions::default()
        };
        let what = format!("open a transport ({direction:?}) for {}", peer.name());
        let (peer, remotes) = (peer.clone(), Rc::clone(&self.remotes));
        let call = async move { peer.create_plain_transport(options, Some(direction)).await };
        self.begin_then(what, call, move |transport: Transport| {
            remotes.borrow_mut().insert(transport.id().0, remote);
        })
    }

    /// As [`Story::open_for`], for a client of WebRTC.
    fn connect_for(&mut self, peer: &Peer, direction: Direction, from: SocketAddr) -> Call {
        let options = WebRtcTransportOptions {
            tcp: false,
            ..WebRtcTransportOptions::default()
        };
        let what = format!("open a WebRTC transport ({direction:?}) for {}", peer.name());
        let (peer, world) = (peer.clone(), Rc::clone(&self.world));
        let call = async move {
            let transport = peer.create_webrtc_transport(options, Some(direction)).await?;
            transport.set_remote_dtls_parameters(client::parameters()).await?;
            Ok(transport)
        };
        self.begin_then(what, call, move |transport: WebRtcTransport| {
            world.tell(&format_args!("it is {}", transport.id()));
            world.media.borrow_mut().connect(transport, from);
            world.changed.notify_one();
        })
    }

    pub(super) fn way(&mut self, peer: &Peer, direction: Direction) -> Option<Transport> {
        let ways = peer.transports().into_iter();
        let ways = ways.filter(|transport| transport.direction() == Some(direction));
        self.pick(
            ways.filter(|transport| self.remotes.borrow().contains_key(&transport.id().0))
                .collect(),
        )
    }

    pub(super) fn produce(&mut self, room: &Room) -> Option<Call> {
        let peer = self.pick(room.peers())?;
        if peer.producers().len() >= 3 {
            return None;
        }
        let transport = self.way(&peer, Direction::Send)?;
        let layers: &[Profile] = match self.random.below(4) {
            0 => &[Profile::Low, Profile::Medium, Profile::High],
            _ => &[Profile::Default],
        };
        let is_audio = layers.len() == 1 && self.random.chance(400);
        let ssrcs: Vec<u32> = layers.iter().map(|_| self.world.media.borrow_mut().ssrc()).collect();
        let (kind, codec, name) = match is_audio {
            true => (MediaKind::Audio, RtpCodec::new(CodecName::Opus, 111), CodecName::Opus),
            false => {
                let mut codec = RtpCodec::new(CodecName::Vp8, 96);
                if self.random.chance(500) {
                    codec.rtcp_feedback.push(RtcpFeedback::new("nack", ""));
                }
                (MediaKind::Video, codec, CodecName::Vp8)
            }
        };
        let encodings = match layers.len() {
            1 => vec![RtpEncoding::ssrc(ssrcs[0])],
            _ => ssrcs
                .iter()
                .zip(layers)
                .map(|(ssrc, layer)| RtpEncoding::layer(*ssrc, *layer))
                .collect(),
        };
        let options = ProducerOptions::new(
            kind,
            RtpParameters {
                codecs: vec![codec],
                encodings,
                ..RtpParameters::default()
            },
        );
        let from = self.remotes.borrow()[&transport.id().0];
        let what = format!("produce {name:?} ({} layers) on {}", layers.len(), transport.id());
        let world = Rc::clone(&self.world);
        Some(self.begin_then(
            what,
            async move { transport.produce(options).await },
            move |producer: Producer| {
                world.tell(&format_args!("it is {}", producer.id()));
                world.media.borrow_mut().send(producer, from, name, &ssrcs);
                world.changed.notify_one();
            },
        ))
    }

    pub(super) fn enable(&mut self, room: &Room) -> Option<Call> {
        let peers = room.peers().into_iter();
        let waiting: Vec<_> = peers
            .flat_map(|peer| {
                peer.consumers()
                    .into_iter()
                    .map(move |consumer| (peer.clone(), consumer))
            })
            .filter(|(_, consumer)| !consumer.enabled())
            .collect();
        let (peer, consumer) = self.pick(waiting)?;
        let transport = self.way(&peer, Direction::Recv)?;
        let what = format!(
            "enable {} of {} on {}",
            consumer.id(),
            consumer.producer().id(),
            transport.id()
        );
        Some(self.begin(what, async move {
            consumer.enable(&transport, EnableOptions::default()).await
        }))
    }

    pub(super) fn consume(&mut self, room: &Room) -> Option<Call> {
        let producer = self.pick(room.producers())?;
        let peer = self.pick(room.peers())?;
        let transport = self.way(&peer, Direction::Recv)?;
        let what = format!("consume {} on {}", producer.id(), transport.id());
        let options = ConsumerOptions::default();
        Some(self.begin(what, async move {
            transport.consume(producer.id(), options).await.map(drop)
        }))
    }

    pub(super) fn enabled(&mut self, room: &Room) -> Option<Consumer> {
        let consumers = room.consumers().into_iter();
        self.pick(consumers.filter(Consumer::enabled).collect())
    }

    pub(super) fn pause_consumer(&mut self, room: &Room) -> Option<Call> {
        let consumer = self.enabled(room)?;
        let (id, world) = (consumer.id(), Rc::clone(&self.world));
        if self.random.chance(600) {
            if let Some(listener) = world.media.borrow_mut().listeners.get_mut(&id) {
                listener.is_silenced = false;
                listener.resumes += 1;
            }
            return Some(self.begin(
                format!("resume {id}"),
                async move { consumer.resume(Value::Null).await },
            ));
        }
        let probe = consumer.clone();
        let resumes_of = move |world: &World| {
            world
                .media
                .borrow()
                .listeners
                .get(&id)
                .map_or(0, |listener| listener.resumes)
        };
        let resumes = resumes_of(&world);
        let call = async move { consumer.pause(Value::Null).await };
        Some(self.begin_then(format!("pause {id}"), call, move |()| {
            // Unless somebody has resumed it meanwhile, which may be under way.
            let is_last = resumes_of(&world) == resumes;
            if let Some(listener) = world.media.borrow_mut().listeners.get_mut(&id)
                && probe.locally_paused()
                && is_last
            {
                listener.is_silenced = true;
            }
        }))
    }

    pub(super) fn pause_producer(&mut self, room: &Room) -> Option<Call> {
        let producer = self.pick(room.producers())?;
        let (id, world) = (producer.id(), Rc::clone(&self.world));
        if self.random.chance(650) {
            world.media.borrow_mut().silenced.insert(id, false);
            *world.media.borrow_mut().resumes.entry(id).or_default() += 1;
            return Some(self.begin(
                format!("resume {id}"),
                async move { producer.resume(Value::Null).await },
            ));
        }
        let probe = producer.clone();
        let resumes = world.media.borrow().resumes.get(&id).copied();
        let call = async move { producer.pause(Value::Null).await };
        Some(self.begin_then(format!("pause {id}"), call, move |()| {
            if probe.locally_paused() && world.media.borrow().resumes.get(&id).copied() == resumes {
                world.media.borrow_mut().silenced.insert(id, true);
            }
        }))
    }

    pub(super) fn prefer(&mut self, room: &Room) -> Option<Call> {
        let profile = self
            .random
            .pick(&[Profile::Default, Profile::Low, Profile::Medium, Profile::High]);
        if self.random.chance(200) {
            let producer = self.pick(room.producers())?;
            let what = format!("{} prefers {profile:?}", producer.id());
            return Some(self.begin(what, async move { producer.set_preferred_profile(profile).await }));
        }
        let consumer = self.pick(room.consumers())?;
        let what = format!("{} prefers {profile:?}", consumer.id());
        Some(self.begin(what, async move { consumer.set_preferred_profile(profile).await }))
    }

    pub(super) fn ask(&mut self, room: &Room) -> Option<Call> {
        let consumer = self.enabled(room)?;
        let what = format!("ask for a key frame for {}", consumer.id());
        Some(self.begin(what, async move { consumer.request_key_frame().await }))
    }

    pub(super) fn close(&mut self, room: &Room) -> Option<Call> {
        match self.random.below(12) {
            0..5 => {
                let consumer = self.pick(room.consumers())?;
                let (id, world) = (consumer.id(), Rc::clone(&self.world));
                let call = async move { consumer.close(Value::Null).await };
                Some(self.begin_then(format!("close {id}"), call, move |()| {
                    if let Some(listener) = world.media.borrow_mut().listeners.get_mut(&id) {
                        listener.is_silenced = true;
                    }
                }))
            }
            5..8 => {
                let producer = self.pick(room.producers())?;
                let (id, world) = (producer.id(), Rc::clone(&self.world));
                let call = async move { producer.close(Value::Null).await };
                Some(self.begin_then(format!("close {id}"), call, move |()| {
                    world.media.borrow_mut().silenced.insert(id, true);
                }))
            }
            8..10 => {
                let transport = self.pick(room.transports())?;
                let what = format!("close {}", transport.id());
                Some(self.begin(what, async move { transport.close(Value::Null).await }))
            }
            _ => {
                let peer = self.pick(room.peers())?;
                let what = format!("close {}", peer.name());
                Some(self.begin(what, async move { peer.close(Value::Null).await }))
            }
        }
    }

    pub(super) fn look_at(&mut self, room: &Room) -> Option<Call> {
        let room = room.clone();
        Some(self.begin(format!("statistics of {}", room.id()), async move {
            room.stats().await.map(drop)
        }))
    }
}
