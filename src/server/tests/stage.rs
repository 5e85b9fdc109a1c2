//! A room with peers, served by a worker that accepts everything and remembers what it was asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use serde_json::Value;
use weir_channel::message::{CodecName, MediaKind, Method, Notification, Reply, WorkerError};

use tokio::sync::mpsc;

use crate::server::fake::{Fake, server, settings, soon};
use crate::server::{
    Consumer, Direction, EnableOptions, Event, EventStream, Peer, PeerOptions, PlainTransportOptions, Producer,
    ProducerOptions, Room, RoomOptions, RtpCodec, RtpEncoding, RtpParameters, Server, Transport, lock,
};

/// See the module.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) room: Room,
    events: EventStream,
    requests: Arc<Mutex<Vec<Method>>>,
    refusals: Arc<Mutex<VecDeque<Option<WorkerError>>>>,
    news: mpsc::UnboundedSender<Notification>,
}

impl Stage {
    pub(super) async fn new() -> Self {
        let (server, fake) = server(settings()).await;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let refusals = Arc::new(Mutex::new(VecDeque::new()));
        let (news, receiver) = mpsc::unbounded_channel();
        tokio::spawn(play(fake, Arc::clone(&requests), Arc::clone(&refusals), receiver));
        let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
        lock(&requests).clear();
        Self {
            events: server.events(),
            server,
            room,
            requests,
            refusals,
            news,
        }
    }

    /// What the worker was asked for since the last time.
    pub(super) fn requests(&self) -> Vec<Method> {
        std::mem::take(&mut lock(&self.requests))
    }

    /// The next request is refused with this.
    pub(super) fn refuse(&self, error: WorkerError) {
        lock(&self.refusals).push_back(Some(error));
    }

    /// The request after the next is refused with this.
    pub(super) fn refuse_second(&self, error: WorkerError) {
        lock(&self.refusals).extend([None, Some(error)]);
    }

    /// Waits until the worker has closed a transport that nobody waits for.
    pub(super) async fn until_closed(&self, transport: &Transport) {
        let mut events = self.server.events();
        while !transport.closed() {
            events.next().await.unwrap();
        }
    }

    /// What happened since the last time, each as a line.
    pub(super) fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(Some(event)) = self.events.next().now_or_never() {
            events.push(brief(&event));
        }
        events
    }

    /// The worker says something unasked.
    pub(super) fn say(&self, notification: Notification) {
        self.news.send(notification).unwrap();
    }

    /// The worker says something unasked; returns the first event that tells of it.
    pub(super) async fn hear(&mut self, notification: Notification) -> String {
        self.say(notification);
        let event = soon(self.events.next()).await.unwrap();
        brief(&event)
    }

    /// Lets a peer in that can receive everything.
    pub(super) fn join(&self, name: &str) -> Peer {
        self.room.create_peer(self.options(name)).unwrap()
    }

    pub(super) fn options(&self, name: &str) -> PeerOptions {
        PeerOptions {
            app_data: Value::from(name.to_uppercase()),
            ..PeerOptions::new(name, self.room.rtp_capabilities().clone())
        }
    }

    /// Forgets what was asked, told and notified so far.
    pub(super) fn forget(&mut self, peers: &[&Peer]) {
        self.requests();
        self.events();
        for peer in peers {
            told(peer);
        }
    }
}

async fn play(
    mut fake: Fake,
    requests: Arc<Mutex<Vec<Method>>>,
    refusals: Arc<Mutex<VecDeque<Option<WorkerError>>>>,
    mut news: mpsc::UnboundedReceiver<Notification>,
) {
    loop {
        tokio::select! {
            Some(notification) = news.recv() => fake.notify(notification).await,
            request = fake.request() => {
                let Some((request, _)) = request else { return };
                lock(&requests).push(request.method.clone());
                let refusal = lock(&refusals).pop_front().flatten();
                let result = match refusal {
                    Some(error) => Err(error),
                    None => Ok(fake.oblige(&request.method)),
                };
                fake.answer(&request, result).await;
            }
        }
    }
}

/// Two peers, alice with a producer and bob with an enabled consumer of it, and carol, who only joined.
pub(super) struct Trio {
    pub(super) stage: Stage,
    pub(super) alice: Peer,
    pub(super) bob: Peer,
    pub(super) carol: Peer,
    pub(super) sending: Transport,
    pub(super) receiving: Transport,
    pub(super) producer: Producer,
    pub(super) of_bob: Consumer,
    pub(super) of_carol: Consumer,
}

impl Trio {
    /// What led here is forgotten.
    pub(super) async fn new() -> Self {
        let mut stage = Stage::new().await;
        let alice = stage.join("alice");
        let bob = stage.join("bob");
        let carol = stage.join("carol");
        let sending = transport(&alice, Direction::Send).await;
        let receiving = transport(&bob, Direction::Recv).await;
        let producer = soon(sending.produce(video(1_000))).await.unwrap();
        let of_bob = bob.consumers().remove(0);
        let of_carol = carol.consumers().remove(0);
        soon(of_bob.enable(&receiving, EnableOptions::default())).await.unwrap();
        stage.forget(&[&alice, &bob, &carol]);
        Self {
            stage,
            alice,
            bob,
            carol,
            sending,
            receiving,
            producer,
            of_bob,
            of_carol,
        }
    }

    /// What the three were told since the last time, in the order alice, bob, carol.
    pub(super) fn told(&self) -> Vec<String> {
        [&self.alice, &self.bob, &self.carol]
            .into_iter()
            .flat_map(told)
            .collect()
    }
}

pub(super) async fn transport(peer: &Peer, direction: Direction) -> Transport {
    soon(peer.create_plain_transport(PlainTransportOptions::default(), Some(direction)))
        .await
        .unwrap()
}

pub(super) fn video(ssrc: u32) -> ProducerOptions {
    let rtp_parameters = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Vp8, 96)],
        encodings: vec![RtpEncoding::ssrc(ssrc)],
        ..RtpParameters::default()
    };
    ProducerOptions {
        app_data: Value::from("camera"),
        ..ProducerOptions::new(MediaKind::Video, rtp_parameters)
    }
}

pub(super) fn audio(ssrc: u32) -> ProducerOptions {
    let rtp_parameters = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Opus, 111)],
        encodings: vec![RtpEncoding::ssrc(ssrc)],
        ..RtpParameters::default()
    };
    ProducerOptions::new(MediaKind::Audio, rtp_parameters)
}

/// What a peer's client was told since the last time: `bob: consumerPaused 1 of alice "x"`.
pub(super) fn told(peer: &Peer) -> Vec<String> {
    let mut notifications = peer.notifications();
    let mut lines = Vec::new();
    while let Some(Some(notification)) = notifications.next().now_or_never() {
        let value = serde_json::to_value(&notification).unwrap();
        let mut line = format!("{}: {}", peer.name(), value["method"].as_str().unwrap());
        for (key, before) in [
            ("id", " "),
            ("name", " "),
            ("peerName", " of "),
            ("profile", " "),
            ("appData", " "),
        ] {
            match &value[key] {
                Value::Null => {}
                Value::String(text) if key != "appData" => line += &format!("{before}{text}"),
                other => line += &format!("{before}{other}"),
            }
        }
        lines.push(line);
    }
    lines
}

/// `producerPaused producer=1 local "x"`.
pub(super) fn brief(event: &Event) -> String {
    let value = serde_json::to_value(event).unwrap();
    let mut line = value["type"].as_str().unwrap().to_owned();
    for key in [
        "peer",
        "transport",
        "producer",
        "consumer",
        "levels",
        "sourcePaused",
        "active",
    ] {
        match &value[key] {
            Value::Null => {}
            Value::String(text) => line += &format!(" {key}={text}"),
            other => line += &format!(" {key}={other}"),
        }
    }
    for key in ["originator", "profile", "state"] {
        if let Some(text) = value[key].as_str() {
            line += &format!(" {text}");
        }
    }
    if let Some(cause) = value["cause"]["kind"].as_str().filter(|cause| *cause != "closed") {
        line += &format!(" ({cause})");
    }
    if !value["appData"].is_null() {
        line += &format!(" {}", value["appData"]);
    }
    line
}

/// What an obliging worker answers to most requests.
pub(super) fn done() -> Result<Reply, WorkerError> {
    Ok(Reply::Done)
}
