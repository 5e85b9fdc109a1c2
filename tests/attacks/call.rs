//! Rooms, transports, producers and consumers of calls, as an application sets them up over HTTP.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::browser::{Begins, Browser};
use crate::control::Client;

/// Opus, as those who send it have it.
pub(crate) const THEIRS: u8 = 111;

/// Opus, as those who receive it have it.
pub(crate) const RECEIVERS: u8 = 100;

/// A microphone with this SSRC.
pub(crate) fn microphone(ssrc: u32) -> Value {
    json!({
        "kind": "audio",
        "rtpParameters": {
            "codecs": [{"mimeType": "audio/opus", "payloadType": THEIRS, "clockRate": 48000, "channels": 2}],
            "encodings": [{"ssrc": ssrc}],
        },
    })
}

/// A camera with this SSRC, whose packets can be asked for again.
pub(crate) fn camera(ssrc: u32) -> Value {
    json!({
        "kind": "video",
        "rtpParameters": {
            "codecs": [{"mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000, "rtcpFeedback": [
                {"type": "nack"}, {"type": "nack", "parameter": "pli"}, {"type": "goog-remb"}]}],
            "encodings": [{"ssrc": ssrc}],
        },
    })
}

/// Makes a room on a worker.
pub(crate) async fn room(client: &mut Client, worker: u32) -> u64 {
    let room = client.post("/rooms", json!({"worker": worker})).await.expect(201);
    room["id"].as_u64().unwrap()
}

/// A plain transport: its id, and where to send to.
pub(crate) async fn plain(client: &mut Client, room: u64, options: Value) -> (u64, SocketAddr) {
    let target = format!("/rooms/{room}/transports");
    let transport = client.post(&target, options).await.expect(201);
    let tuple = &transport["tuple"];
    let ip = tuple["localIp"].as_str().unwrap().parse().unwrap();
    let port = u16::try_from(tuple["localPort"].as_u64().unwrap()).unwrap();
    (transport["id"].as_u64().unwrap(), SocketAddr::new(ip, port))
}

pub(crate) async fn produce(client: &mut Client, transport: u64, producer: Value) -> u64 {
    let target = format!("/transports/{transport}/producers");
    let producer = client.post(&target, producer).await.expect(201);
    producer["id"].as_u64().unwrap()
}

/// A consumer that is sent under this SSRC.
pub(crate) async fn consume(client: &mut Client, transport: u64, producer: u64, ssrc: u32) -> u64 {
    let target = format!("/transports/{transport}/consumers");
    let rtp = json!({"ssrc": ssrc, "payloadTypes": {"111": RECEIVERS}});
    let consumer = client.post(&target, json!({"producer": producer, "rtp": rtp})).await;
    consumer.expect(201)["id"].as_u64().unwrap()
}

/// A WebRTC transport, as its client must know it.
pub(crate) struct WebRtc {
    pub(crate) id: u64,
    /// What the server says of it, under the names of the mediasoup protocol.
    pub(crate) introduction: Value,
}

impl WebRtc {
    pub(crate) async fn create(client: &mut Client, room: u64, options: Value) -> Self {
        let target = format!("/rooms/{room}/webrtc-transports");
        let transport = client.post(&target, options).await.expect(201);
        let webrtc = &transport["webrtc"];
        Self {
            id: transport["id"].as_u64().unwrap(),
            introduction: json!({
                "iceParameters": webrtc["iceParameters"],
                "iceCandidates": webrtc["iceCandidates"],
                "dtlsParameters": webrtc["dtlsLocalParameters"],
            }),
        }
    }

    /// Where the server listens for this protocol.
    pub(crate) fn address(&self, protocol: &str) -> SocketAddr {
        let candidates = self.introduction["iceCandidates"].as_array().unwrap();
        let candidate = candidates.iter().find(|each| each["protocol"] == protocol).unwrap();
        let port = u16::try_from(candidate["port"].as_u64().unwrap()).unwrap();
        SocketAddr::new(candidate["ip"].as_str().unwrap().parse().unwrap(), port)
    }

    pub(crate) fn ufrag(&self) -> &str {
        self.introduction["iceParameters"]["usernameFragment"].as_str().unwrap()
    }

    pub(crate) fn password(&self) -> &str {
        self.introduction["iceParameters"]["password"].as_str().unwrap()
    }

    /// Tells the server who a browser is, and the browser what the server has said.
    pub(crate) async fn introduce(&self, client: &mut Client, browser: &mut Browser) {
        let target = format!("/transports/{}/dtls", self.id);
        client.put(&target, browser.dtls_parameters()).await.expect(200);
        browser.connect(&self.introduction);
    }
}

/// Two browsers that are connected, of which the first one sends to the second one.
pub(crate) struct Browsers {
    pub(crate) sending: Browser,
    pub(crate) receiving: Browser,
    pub(crate) sends: WebRtc,
    pub(crate) receives: WebRtc,
}

impl Browsers {
    /// The sender's stream has this SSRC, the receiver's the next one; both are at this address.
    pub(crate) async fn connect(client: &mut Client, room: u64, ssrc: u32, home: IpAddr) -> Self {
        let mut sending = Browser::new_at(home, Begins::There, THEIRS).await;
        let mut receiving = Browser::new_at(home, Begins::Here, RECEIVERS).await;
        receiving.recorded = Some(Vec::new());
        let sends = WebRtc::create(client, room, json!({})).await;
        let receives = WebRtc::create(client, room, json!({})).await;
        sends.introduce(client, &mut sending).await;
        receives.introduce(client, &mut receiving).await;
        let producer = produce(client, sends.id, microphone(ssrc)).await;
        consume(client, receives.id, producer, ssrc + 1).await;
        sending.declare_sent("0", ssrc);
        receiving.declare_received("0", ssrc + 1);
        sending.run_until("the sender", |browser| browser.connected).await;
        receiving.run_until("the receiver", |browser| browser.connected).await;
        // The server knows the receiver when its first media comes through.
        for seq in 1.. {
            sending.send(ssrc, THEIRS, seq, &[0; 4]);
            sending.run_until("what is in line", |_| true).await;
            let mut looks = 0;
            receiving
                .run_until("the packet", |receiving| {
                    looks += 1;
                    !receiving.packets.is_empty() || looks > 2
                })
                .await;
            if !receiving.packets.is_empty() {
                receiving.packets.clear();
                break;
            }
        }
        Self {
            sending,
            receiving,
            sends,
            receives,
        }
    }
}
