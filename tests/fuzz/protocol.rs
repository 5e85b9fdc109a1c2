//! The body of the protocol's fuzz target: hostile clients say things to a room. The library takes it in when it is tested or
//! fuzzed, and only then, because it needs a worker that accepts everything.

use std::collections::BTreeMap;

use futures::FutureExt;
use serde_json::{Value, json};

use crate::protocol::ProtocolError;
use crate::server::fake::{obliging_server, settings};
use crate::{ConsumerId, Peer, PeerNotifications, PeerOptions, ProducerId, Profile, Room, RoomOptions, TransportId};

/// What one input says at the most, so that it does not take long.
const MESSAGES_MAX: usize = 64;

/// What clients ask, then what they tell.
const METHODS: [&str; 21] = [
    "queryRoom",
    "join",
    "createTransport",
    "restartTransport",
    "createProducer",
    "enableConsumer",
    "leave",
    "updateTransport",
    "closeTransport",
    "enableTransportStats",
    "disableTransportStats",
    "pauseProducer",
    "resumeProducer",
    "closeProducer",
    "enableProducerStats",
    "disableProducerStats",
    "pauseConsumer",
    "resumeConsumer",
    "setConsumerPreferredProfile",
    "enableConsumerStats",
    "disableConsumerStats",
];

/// The first of [`METHODS`] that is told.
const TOLD: usize = 6;

/// Members that an input may make something else of.
const MEMBERS: [&str; 30] = [
    "/method",
    "/target",
    "/notification",
    "/id",
    "/peerName",
    "/rtpCapabilities",
    "/rtpCapabilities/codecs",
    "/rtpCapabilities/codecs/0",
    "/rtpCapabilities/codecs/0/preferredPayloadType",
    "/rtpCapabilities/codecs/0/clockRate",
    "/rtpCapabilities/headerExtensions/0/preferredId",
    "/spy",
    "/direction",
    "/options",
    "/plainRtpParameters",
    "/plainRtpParameters/ip",
    "/plainRtpParameters/port",
    "/kind",
    "/transportId",
    "/rtpParameters",
    "/rtpParameters/codecs",
    "/rtpParameters/codecs/0/mimeType",
    "/rtpParameters/codecs/0/payloadType",
    "/rtpParameters/codecs/0/parameters",
    "/rtpParameters/headerExtensions",
    "/rtpParameters/encodings",
    "/rtpParameters/encodings/0/ssrc",
    "/paused",
    "/preferredProfile",
    "/interval",
];

/// Any bytes as what clients say, one after the other: nothing panics, whoever is refused is told why, nobody's things
/// change by what somebody else says, and nothing is left when the room closes.
pub fn protocol(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime needs a few descriptors only")
        .block_on(converse(data));
}

/// Returns the methods with which clients got what they wanted.
async fn converse(data: &[u8]) -> Vec<String> {
    let server = obliging_server(settings()).await;
    let room = server.create_room(RoomOptions::default()).await;
    let room = room.expect("the worker accepts everything");
    let mut clients: Vec<Client> = ["alice", "bob"].map(|name| Client::join(&room, name)).into();
    let mut bytes = Bytes(data);
    let mut done = Vec::new();
    for _ in 0..MESSAGES_MAX {
        let Some(speaker) = bytes.next() else {
            break;
        };
        let speaker = speaker % clients.len();
        let Some(message) = bytes.message(&room, &clients[speaker].peer) else {
            continue;
        };
        let before: Vec<Own> = clients.iter().map(Client::own).collect();
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        match clients[speaker].say(&room, message).await {
            Ok(newcomer) => {
                done.push(method);
                clients.extend(newcomer.map(Client::new));
            }
            Err(error) => assert!(!error.message.is_empty()),
        }
        for (index, (client, before)) in clients.iter_mut().zip(before).enumerate() {
            if index != speaker {
                before.check_untouched(&client.own());
            }
            client.hear();
        }
    }
    room.close(Value::Null)
        .await
        .expect("it is open, and the worker accepts everything");
    assert!(server.rooms().is_empty());
    for client in &clients {
        let own = client.own();
        assert!(
            client.peer.closed() && own.transports.is_empty() && own.producers.is_empty() && own.consumers.is_empty()
        );
    }
    server.close().await;
    done
}

struct Client {
    peer: Peer,
    notifications: PeerNotifications,
}

/// What is a client's own.
#[derive(PartialEq, Debug)]
struct Own {
    closed: bool,
    app_data: Value,
    transports: BTreeMap<TransportId, Value>,
    producers: BTreeMap<ProducerId, bool>,
    consumers: BTreeMap<ConsumerId, (bool, bool, Profile)>,
}

impl Client {
    fn join(room: &Room, name: &str) -> Self {
        let peer = room.create_peer(PeerOptions::new(name, room.rtp_capabilities().clone()));
        Self::new(peer.expect("a room's own capabilities fit it"))
    }

    fn new(peer: Peer) -> Self {
        Self {
            notifications: peer.notifications(),
            peer,
        }
    }

    /// As a session passes on what its client says. Returns who has joined by it.
    async fn say(&self, room: &Room, message: Value) -> Result<Option<Peer>, ProtocolError> {
        if message["notification"] == true {
            return self.peer.receive_notification(message).await.map(|()| None);
        }
        let of_room = match message["target"].as_str() {
            Some(target) => target == "room",
            None => matches!(message["method"].as_str(), Some("queryRoom" | "join")),
        };
        match of_room {
            true => room.receive_request(message).await.map(|answer| answer.joined),
            false => self.peer.receive_request(message).await.map(|_| None),
        }
    }

    /// Takes what it is told, which must be something to tell.
    fn hear(&mut self) {
        while let Some(Some(notification)) = self.notifications.next().now_or_never() {
            let message = self.peer.client_message(&notification);
            assert!(
                message["method"].is_string() && message["notification"] == true,
                "{message}"
            );
        }
        assert!(!self.peer.overflowed());
    }

    fn own(&self) -> Own {
        let transports = self.peer.transports();
        let producers = self.peer.producers();
        assert!(transports.len() <= 16 && producers.len() <= 32, "the limits of a peer");
        Own {
            closed: self.peer.closed(),
            app_data: self.peer.app_data(),
            transports: transports.iter().map(|own| (own.id(), json!(own.tuple()))).collect(),
            producers: producers.iter().map(|own| (own.id(), own.paused())).collect(),
            consumers: self
                .peer
                .consumers()
                .iter()
                .map(|own| {
                    (
                        own.id(),
                        (own.enabled(), own.remotely_paused(), own.preferred_profile()),
                    )
                })
                .collect(),
        }
    }
}

impl Own {
    /// Checks that only consumers have come or gone, which follow what others send.
    fn check_untouched(mut self, after: &Self) {
        self.consumers.retain(|id, _| after.consumers.contains_key(id));
        for (id, before) in &self.consumers {
            assert_eq!(before, &after.consumers[id], "{id}");
        }
        assert_eq!((self.closed, &self.app_data), (after.closed, &after.app_data));
        assert_eq!(
            (&self.transports, &self.producers),
            (&after.transports, &after.producers)
        );
    }
}

/// An input that is being read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<usize> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(usize::from(*first))
    }

    /// The next byte as one of these; at the end of the input the first.
    fn choose<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.next().unwrap_or_default() % from.len()]
    }

    /// The next message: a whole one with some members changed, or whatever the next bytes are as JSON.
    fn message(&mut self, room: &Room, speaker: &Peer) -> Option<Value> {
        let choice = self.next()?;
        let Some(method) = METHODS.get(choice) else {
            // Text up to the next line's end.
            let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
            let (text, rest) = self.0.split_at(end);
            self.0 = rest;
            return serde_json::from_slice(text).ok();
        };
        let mut message = self.whole(method, choice >= TOLD, room, speaker);
        for _ in 0..self.next()? % 4 {
            let member = self.choose(&MEMBERS);
            let value = self.value(room);
            if let Some(place) = message.pointer_mut(member) {
                *place = value;
            }
        }
        Some(message)
    }

    /// A message with everything that any of its kind needs. Transports of clients are numbered 1 to 3, producers so, too.
    fn whole(&mut self, method: &str, told: bool, room: &Room, speaker: &Peer) -> Value {
        let consumers: Vec<u64> = speaker.consumers().iter().map(|consumer| consumer.id().0).collect();
        let id = match method {
            "enableConsumer" | "pauseConsumer" | "resumeConsumer" | "setConsumerPreferredProfile"
                if !consumers.is_empty() =>
            {
                *self.choose(&consumers)
            }
            _ => *self.choose(&[1, 2, 3]),
        };
        let of_room = matches!(method, "queryRoom" | "join");
        let (kind, codec) = self
            .choose(&[
                (
                    "audio",
                    json!({"mimeType": "audio/opus", "clockRate": 48000, "payloadType": 111, "channels": 2}),
                ),
                (
                    "video",
                    json!({"mimeType": "video/VP8", "clockRate": 90000, "payloadType": 96}),
                ),
            ])
            .clone();
        json!({
            "method": method, "target": if of_room { "room" } else { "peer" }, "notification": told, "id": id,
            "peerName": self.choose(&["carol", "dave", "alice", ""]), "rtpCapabilities": room.rtp_capabilities(),
            "spy": false, "direction": "send", "options": {}, "plainRtpParameters": {"ip": "127.0.0.1", "port": 5004},
            "kind": kind, "transportId": self.choose(&[1, 2, 3]), "paused": false, "preferredProfile": "high",
            "profile": "low", "interval": 1000, "appData": {"any": [1, null]},
            "rtpParameters": {
                "codecs": [codec], "headerExtensions": [], "encodings": [{"ssrc": self.choose(&[1, 2, 3])}],
                "rtcp": {"cname": "someone"}
            },
        })
    }

    /// What nobody expects in its place.
    fn value(&mut self, room: &Room) -> Value {
        match self.next().unwrap_or_default() % 20 {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(0),
            4 => json!(u64::MAX),
            5 => json!(1.5),
            6 => json!(""),
            7 => json!("alice"),
            8 => json!("::1"),
            9 => json!("default"),
            10 => json!("room"),
            11 => json!("x".repeat(70_000)),
            12 => json!([]),
            13 => json!({}),
            14 => json!([{"ssrc": 1}, {"ssrc": 1}, {"ssrc": 2, "rtx": {"ssrc": 2}}]),
            15 => json!([{"name": "VP8"}, {"mimeType": "video/rtx", "parameters": {"apt": "no"}}]),
            16 => json!([{"uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 300}]),
            17 => json!(room.rtp_capabilities()),
            18 => json!(vec![json!({"deep": [[[[]]]]}); 1_000]),
            _ => json!(self.next().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message as whole as it gets: the speaker, the method, and the first of all that can be chosen.
    fn whole(speaker: u8, method: &str) -> Vec<u8> {
        let method = METHODS.iter().position(|known| *known == method).unwrap();
        let mut bytes = vec![speaker, u8::try_from(method).unwrap()];
        // The id, the codec, the name, the transport's number, the SSRC; no member is changed.
        bytes.extend([0; 6]);
        bytes
    }

    #[tokio::test]
    async fn whole_messages_do_what_they_say() {
        let said = [
            (0, "queryRoom"),
            (0, "join"),
            (0, "createTransport"),
            (0, "createProducer"),
            (1, "createTransport"),
            (1, "enableConsumer"),
            (1, "pauseConsumer"),
            (0, "enableProducerStats"),
            (0, "pauseProducer"),
            (1, "setConsumerPreferredProfile"),
            (0, "closeTransport"),
            (1, "leave"),
        ];
        let input: Vec<u8> = said
            .iter()
            .flat_map(|(speaker, method)| whole(*speaker, method))
            .collect();
        let wanted: Vec<&str> = said.iter().map(|(_, method)| *method).collect();
        assert_eq!(converse(&input).await, wanted);
    }

    #[tokio::test]
    async fn text_is_said_too() {
        let mut input = vec![0, 255];
        input.extend(br#"{"method":"queryRoom"}"#);
        input.push(b'\n');
        assert_eq!(converse(&input).await, ["queryRoom"]);
    }

    proptest! {
        // The library has this file by `#[path]`, which proptest's own place for seeds cannot follow.
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_said_the_room_stands(data: Vec<u8>) {
            protocol(&data);
        }

        #[test]
        fn whatever_is_made_of_whole_messages_the_room_stands(
            said in prop::collection::vec((0..3_u8, 0..21_u8, prop::collection::vec(any::<u8>(), 6..14)), 0..40)
        ) {
            let input: Vec<u8> = said
                .into_iter()
                .flat_map(|(speaker, method, rest)| [vec![speaker, method], rest].concat())
                .collect();
            protocol(&input);
        }
    }
}
