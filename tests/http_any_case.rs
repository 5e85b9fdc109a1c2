//! Words that have no case, whatever their writers think of it: over HTTP, and in the mediasoup protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;
mod signalling;

use serde_json::{Value, json};

use control::{Client, Control};
use signalling::{Caller, join_request};

/// As it is mostly written, in upper case, in lower case, and with every other letter in upper case.
fn spellings(word: &str) -> [String; 4] {
    let mixed = word.char_indices().map(|(at, letter)| match at % 2 {
        0 => letter.to_ascii_uppercase(),
        _ => letter.to_ascii_lowercase(),
    });
    [
        word.to_owned(),
        word.to_ascii_uppercase(),
        word.to_ascii_lowercase(),
        mixed.collect(),
    ]
}

/// A server with a room, somebody who commands it, and somebody in the room.
struct Both {
    control: Control,
    http: Client,
    client: Caller,
    room: u64,
    last: i64,
}

impl Both {
    async fn start() -> Self {
        let control = Control::start().await;
        let mut http = control.client().await;
        let codecs = json!([
            {"kind": "audio", "name": "opus", "clockRate": 48000, "channels": 2},
            {"kind": "video", "name": "VP8", "clockRate": 90000},
            {"kind": "video", "name": "H264", "clockRate": 90000, "parameters": {"packetization-mode": 1}}
        ]);
        let room = http.post("/rooms", json!({"mediaCodecs": codecs})).await.expect(201);
        let room = room["id"].as_u64().unwrap();
        let mut client = Caller::connect(&control.path, room, "alice").await;
        client.request(join_request("alice", Value::Null)).await.unwrap();
        Self {
            control,
            http,
            client,
            room,
            last: 0,
        }
    }

    fn number(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    /// Tells a new transport who its client is, both ways; the role that the server has then.
    async fn introduce(&mut self, dtls: &Value) -> [Value; 2] {
        let target = format!("/rooms/{}/webrtc-transports", self.room);
        let transport = self.http.post(&target, json!({})).await.expect(201);
        let target = format!("/transports/{}/dtls", transport["id"]);
        let shown = self.http.put(&target, dtls.clone()).await.expect(200);
        self.http.delete(&format!("/transports/{}", transport["id"])).await;
        let id = self.number();
        let request = json!({
            "method": "createTransport", "target": "peer", "id": id, "direction": "send", "options": {},
            "dtlsParameters": dtls
        });
        let answer = self.client.request(request).await;
        let answer = answer.unwrap_or_else(|refused| panic!("{dtls}: {refused:?}"));
        let close = json!({"method": "closeTransport", "target": "peer", "notification": true, "id": id});
        self.client.notify(close).await;
        [
            shown["webrtc"]["dtlsLocalParameters"]["role"].clone(),
            answer["dtlsParameters"]["role"].clone(),
        ]
    }

    /// Makes a producer, both ways; what HTTP shows of it.
    async fn produce(&mut self, kind: &str, rtp: &Value) -> Value {
        let target = format!("/rooms/{}/transports", self.room);
        let transport = self.http.post(&target, json!({"comedia": true})).await.expect(201);
        let target = format!("/transports/{}/producers", transport["id"]);
        let body = json!({"kind": kind, "rtpParameters": rtp});
        let shown = self.http.post(&target, body).await.expect(201);
        self.http.delete(&format!("/transports/{}", transport["id"])).await;
        let (transport, id) = (self.number(), self.number());
        let create = signalling::create_transport(transport, "send");
        self.client.request(create).await.unwrap();
        let request = json!({
            "method": "createProducer", "target": "peer", "id": id, "kind": kind, "transportId": transport,
            "rtpParameters": rtp, "paused": false
        });
        let made = self.client.request(request).await;
        assert_eq!(made, Ok(Value::Null), "{kind} {rtp}");
        let close = json!({"method": "closeTransport", "target": "peer", "notification": true, "id": transport});
        self.client.notify(close).await;
        shown
    }

    async fn close(self) {
        self.control.close().await;
    }
}

fn audio(mime_type: &str) -> Value {
    json!({
        "muxId": "0",
        "codecs": [{"mimeType": mime_type, "payloadType": 111, "clockRate": 48000, "channels": 2}],
        "headerExtensions": [], "encodings": [{"ssrc": 1_000}], "rtcp": {"cname": "someone"}
    })
}

fn video(mime_types: [&str; 2], feedback: [&str; 2], apt: &str) -> Value {
    json!({
        "muxId": "1",
        "codecs": [
            {"mimeType": mime_types[0], "payloadType": 96, "clockRate": 90000,
             "rtcpFeedback": [{"type": feedback[0]}, {"type": feedback[0], "parameter": feedback[1]}]},
            {"mimeType": mime_types[1], "payloadType": 97, "clockRate": 90000, "parameters": {apt: 96}}
        ],
        "headerExtensions": [], "encodings": [{"ssrc": 1_000, "rtx": {"ssrc": 1_001}}], "rtcp": {"cname": "someone"}
    })
}

/// RFC 8122 §5: names of hash functions are not case-sensitive, and neither are hexadecimal digits where they are read.
#[tokio::test(flavor = "multi_thread")]
async fn fingerprints() {
    let mut both = Both::start().await;
    let value = ["aB"; 32].join(":");
    for algorithm in spellings("sha-256") {
        for value in spellings(&value) {
            let fingerprint = json!({"algorithm": algorithm, "value": value});
            let dtls = json!({"role": "client", "fingerprints": [fingerprint]});
            assert_eq!(both.introduce(&dtls).await, ["server", "server"], "{dtls}");
        }
    }
    for (algorithm, len) in [("SHA-384", 48), ("Sha-512", 64)] {
        let value = vec!["AB"; len].join(":");
        let dtls = json!({"role": "server", "fingerprints": [{"algorithm": algorithm, "value": value}]});
        assert_eq!(both.introduce(&dtls).await, ["client", "client"], "{dtls}");
    }
    both.close().await;
}

/// A role is a word of this interface and of mediasoup's, not the one of `a=setup` (`active`, `passive`), so it is written in one
/// way, as all such words are.
#[tokio::test(flavor = "multi_thread")]
async fn roles_are_words_of_the_interface() {
    let mut both = Both::start().await;
    let value = vec!["AB"; 32].join(":");
    let dtls = |role: &str| json!({"role": role, "fingerprints": [{"algorithm": "sha-256", "value": value}]});
    for (role, ours) in [("client", "server"), ("server", "client"), ("auto", "server")] {
        assert_eq!(both.introduce(&dtls(role)).await, [ours, ours], "{role}");
    }
    let target = format!("/rooms/{}/webrtc-transports", both.room);
    let transport = both.http.post(&target, json!({})).await.expect(201);
    for role in ["Client", "SERVER", "active"] {
        let target = format!("/transports/{}/dtls", transport["id"]);
        let answer = both.http.put(&target, dtls(role)).await;
        answer.refuses(400, "invalidBody", "role: unknown variant");
        let request = json!({
            "method": "createTransport", "target": "peer", "id": both.number(), "direction": "send", "options": {},
            "dtlsParameters": dtls(role)
        });
        let refused = both.client.request(request).await.unwrap_err();
        assert_eq!(refused.name, "TypeError", "{role}");
    }
    both.close().await;
}

/// RFC 6838 §4.2, RFC 4855 §3: types and subtypes of media have no case.
#[tokio::test(flavor = "multi_thread")]
async fn kinds_and_mime_types() {
    let mut both = Both::start().await;
    for (kind, mime_type) in spellings("audio").iter().zip(spellings("audio/opus")) {
        let shown = both.produce(kind, &audio(&mime_type)).await;
        assert_eq!(shown["kind"], "audio");
    }
    for ((kind, vp8), rtx) in spellings("video")
        .iter()
        .zip(spellings("video/VP8"))
        .zip(spellings("video/rtx"))
    {
        let shown = both.produce(kind, &video([&vp8, &rtx], ["nack", "pli"], "apt")).await;
        assert_eq!(shown["kind"], "video");
    }
    for name in spellings("VP8") {
        for kind in spellings("video") {
            let codecs = json!([
                {"kind": kind, "name": name, "clockRate": 90000},
                {"mimeType": format!("{}/OPUS", "AUDIO"), "clockRate": 48000, "channels": 2}
            ]);
            let room = both
                .http
                .post("/rooms", json!({"mediaCodecs": codecs}))
                .await
                .expect(201);
            let shown = both
                .http
                .get(&format!("/rooms/{}/rtp-capabilities", room["id"]))
                .await
                .expect(200);
            assert_eq!(shown["codecs"][0]["mimeType"], "video/VP8");
        }
    }
    both.close().await;
}

/// RFC 4855 §3: names of format parameters have no case; RFC 6184 §8.1: a profile is hexadecimal digits.
#[tokio::test(flavor = "multi_thread")]
async fn format_parameters() {
    let mut both = Both::start().await;
    for apt in spellings("apt") {
        let shown = both
            .produce("video", &video(["video/VP8", "video/rtx"], ["nack", "pli"], &apt))
            .await;
        assert_eq!(
            shown["rtpParameters"]["codecs"][1]["parameters"],
            json!({apt: 96}),
            "as it was said"
        );
    }
    let names = spellings("packetization-mode")
        .into_iter()
        .zip(spellings("profile-level-id"));
    for ((mode, profile), value) in names.zip(spellings("42e01f")) {
        let rtp = json!({
            "muxId": "2",
            "codecs": [{"mimeType": "video/H264", "payloadType": 98, "clockRate": 90000,
                        "parameters": {mode.clone(): 1, profile.clone(): value}}],
            "headerExtensions": [], "encodings": [{"ssrc": 1_000}], "rtcp": {"cname": "someone"}
        });
        both.produce("video", &rtp).await;
        let codecs = json!([{"mimeType": "video/H264", "clockRate": 90000, "parameters": {mode: 1, profile: value}}]);
        let room = both
            .http
            .post("/rooms", json!({"mediaCodecs": codecs}))
            .await
            .expect(201);
        let shown = both
            .http
            .get(&format!("/rooms/{}/rtp-capabilities", room["id"]))
            .await
            .expect(200);
        let parameters = shown["codecs"][0]["parameters"].as_object().unwrap();
        let named = |wanted: &str| {
            parameters
                .keys()
                .filter(|name| name.eq_ignore_ascii_case(wanted))
                .count()
        };
        assert_eq!(
            (named("packetization-mode"), named("profile-level-id")),
            (1, 1),
            "{parameters:?}"
        );
    }
    both.close().await;
}

/// RFC 4585 §4.2 with RFC 5234 §2.3: the words of `a=rtcp-fb` have no case.
#[tokio::test(flavor = "multi_thread")]
async fn feedback() {
    let mut both = Both::start().await;
    for (nack, pli) in spellings("nack").iter().zip(spellings("pli")) {
        both.produce("video", &video(["video/VP8", "video/rtx"], [nack, &pli], "apt"))
            .await;
    }
    both.close().await;
}

/// RFC 3986 §6.2.2.1, RFC 8141 §3.1: schemes, hosts and namespaces of URNs have no case; mediasoup v2 looked at none of the rest.
#[tokio::test(flavor = "multi_thread")]
async fn extension_uris() {
    let mut both = Both::start().await;
    for uri in spellings("urn:ietf:params:rtp-hdrext:ssrc-audio-level") {
        let mut rtp = audio("audio/opus");
        rtp["headerExtensions"] = json!([{"uri": uri, "id": 1}]);
        both.produce("audio", &rtp).await;
        // The same one twice is a mistake, however it is written.
        let other = "URN:ietf:params:rtp-hdrext:SSRC-audio-level";
        rtp["headerExtensions"] = json!([{"uri": uri, "id": 1}, {"uri": other, "id": 2}]);
        let target = format!("/rooms/{}/transports", both.room);
        let transport = both.http.post(&target, json!({"comedia": true})).await.expect(201);
        let target = format!("/transports/{}/producers", transport["id"]);
        let body = json!({"kind": "audio", "rtpParameters": rtp});
        both.http
            .post(&target, body)
            .await
            .refuses(400, "invalidParameters", "is listed twice");
    }
    both.close().await;
}
