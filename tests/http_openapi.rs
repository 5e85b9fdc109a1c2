//! The OpenAPI document says what the server does: all its routes, and its answers as they are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;
mod schema;

use std::collections::BTreeSet;

use control::{Answer, Client, Control, camera};
use serde_json::{Value, json};

/// A client that holds every answer to the document.
struct Session {
    client: Client,
    document: Value,
    /// What was asked for: method and path of the document.
    seen: BTreeSet<(String, String)>,
}

impl Session {
    async fn start(control: &Control) -> Self {
        let mut client = control.client().await;
        let document = client.get("/openapi.json").await.expect(200);
        Self {
            client,
            document,
            seen: BTreeSet::new(),
        }
    }

    /// Sends a request and returns the answer, if it has this status and is as described.
    #[track_caller]
    fn say(&mut self, method: &str, target: &str, body: Option<Value>, status: u16) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let method = method.to_owned();
        let target = target.to_owned();
        async move {
            let answer = self.client.send(&method, &target, body.clone()).await;
            assert_eq!(answer.status, status, "{method} {target} ({caller}): {}", answer.text);
            self.check(&method, &target, body.as_ref(), &answer);
            answer.body
        }
    }

    fn check(&mut self, method: &str, target: &str, body: Option<&Value>, answer: &Answer) {
        let path = self.path_of(target);
        let operation = &self.document["paths"][&path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not described");
        let responses = &operation["responses"];
        let response = responses.get(answer.status.to_string());
        let response = response.or_else(|| responses.get("default"));
        let response = response.unwrap_or_else(|| panic!("{method} {path} does not describe {}", answer.status));
        let response = match response["$ref"].as_str() {
            Some(target) => self.document.pointer(&target[1..]).unwrap(),
            None => response,
        };
        let schema = &response["content"]["application/json"]["schema"];
        let faults = schema::faults(&self.document, schema, &answer.body);
        assert!(faults.is_empty(), "{method} {target}: {faults:#?} in {}", answer.text);
        // A body that the server takes must be one that it says it takes.
        if let Some(body) = body.filter(|_| answer.status < 400) {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let faults = schema::faults(&self.document, schema, body);
            assert!(faults.is_empty(), "{method} {target}: {faults:#?} in {body}");
        }
        self.seen.insert((method.to_lowercase(), path));
    }

    /// Sends text and returns the answer, if it has this status and is as described: text, nothing, or a problem.
    async fn write(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str, status: u16) -> Answer {
        let answer = self.client.say(method, target, headers, body.to_owned()).await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text);
        let path = self.path_of(target);
        let operation = &self.document["paths"][&path][method.to_lowercase()];
        if let Some((_, content_type)) = headers.iter().find(|(name, _)| *name == "content-type") {
            let described = operation["requestBody"]["content"].as_object().unwrap();
            assert!(
                described.keys().eq([content_type]),
                "{method} {target} takes {content_type}"
            );
        }
        let responses = &operation["responses"];
        let response = responses.get(answer.status.to_string());
        let content = &response.unwrap_or(&responses["default"])["content"];
        match content.as_object().filter(|_| !answer.text.is_empty()) {
            None => assert_eq!(answer.text, "", "{method} {target}"),
            Some(content) => {
                let content_type = answer.headers["content-type"].to_str().unwrap();
                let described = content.get(content_type);
                let described =
                    described.unwrap_or_else(|| panic!("{method} {target} does not describe {content_type}"));
                if content_type.ends_with("json") {
                    let faults = schema::faults(&self.document, &described["schema"], &answer.body);
                    assert!(faults.is_empty(), "{method} {target}: {faults:#?} in {}", answer.text);
                }
            }
        }
        self.seen.insert((method.to_lowercase(), path));
        answer
    }

    /// The path of the document that a target is an instance of. A path without parameters goes before one with.
    fn path_of(&self, target: &str) -> String {
        let target = target.split('?').next().unwrap();
        let paths = self.document["paths"].as_object().unwrap();
        let fits = |path: &&String| {
            let same = |(pattern, part): (&str, &str)| pattern == part || pattern.starts_with('{');
            path.split('/').count() == target.split('/').count() && path.split('/').zip(target.split('/')).all(same)
        };
        let found = paths.keys().filter(fits).min_by_key(|path| path.matches('{').count());
        found.unwrap_or_else(|| panic!("{target} is not described")).clone()
    }
}

/// Every method and path of the document.
fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

/// Asks for everything once.
async fn whole_session(session: &mut Session) {
    for target in [
        "/",
        "/openapi.json",
        "/dump",
        "/health",
        "/stats",
        "/settings",
        "/workers",
        "/workers/1",
    ] {
        session.say("GET", target, None, 200).await;
    }
    let change = json!({"measureResidence": true});
    session.say("PATCH", "/settings", Some(change), 200).await;
    session.say("GET", "/workers/1/stats", None, 200).await;

    let codecs = json!([{"kind": "audio", "name": "opus", "clockRate": 48000, "channels": 2}]);
    let room = json!({"mediaCodecs": codecs, "appData": {"name": "lobby"}});
    session.say("POST", "/rooms", Some(room), 201).await;
    session.say("GET", "/rooms/1", None, 200).await;
    let transport = json!({"comedia": true, "rtcpMux": false});
    session.say("POST", "/rooms/1/transports", Some(transport), 201).await;
    session.say("POST", "/rooms/1/transports", Some(json!({})), 201).await;
    session.say("GET", "/transports/1", None, 200).await;
    let remote = json!({"rtp": "127.0.0.1:5004"});
    session.say("PUT", "/transports/2/remote", Some(remote), 200).await;
    session
        .say("POST", "/transports/1/producers", Some(camera()), 201)
        .await;
    let consumer = json!({"producer": 1, "rtp": {"ssrc": 7777, "payloadTypes": {"96": 100}}});
    session
        .say("POST", "/transports/2/consumers", Some(consumer), 201)
        .await;
    for (what, id) in [("transports", 1), ("producers", 1), ("consumers", 1)] {
        session.say("GET", &format!("/{what}"), None, 200).await;
        session.say("GET", &format!("/{what}/{id}"), None, 200).await;
        session.say("GET", &format!("/{what}/{id}/stats"), None, 200).await;
        session.say("GET", &format!("/{what}/{id}/dump"), None, 200).await;
        session.say("GET", &format!("/{what}/77"), None, 404).await;
    }
    for what in ["producers", "consumers"] {
        session
            .say("POST", &format!("/{what}/1/pause"), Some(json!({"appData": 7})), 200)
            .await;
        session.say("POST", &format!("/{what}/1/resume"), None, 200).await;
        for side in ["remote", "local"] {
            let side = Some(json!({"side": side}));
            session
                .say("POST", &format!("/{what}/1/pause"), side.clone(), 200)
                .await;
            session.say("POST", &format!("/{what}/1/resume"), side, 200).await;
        }
        let profile = json!({"profile": "low"});
        session
            .say("PUT", &format!("/{what}/1/preferred-profile"), Some(profile), 200)
            .await;
    }
    session.say("POST", "/consumers/1/key-frame", None, 200).await;
    session.say("GET", "/rooms", None, 200).await;
    session.say("GET", "/rooms/1/stats", None, 200).await;
    session.say("GET", "/rooms/1/dump", None, 200).await;
    session.say("GET", "/events/recent", None, 200).await;
    session.say("GET", "/rooms/1/stats?x=1", None, 200).await;
    session.say("GET", "/rooms?limit=many", None, 400).await;
    for target in ["/consumers/1", "/producers/1", "/transports/1", "/rooms/1"] {
        session.say("DELETE", target, Some(json!({"appData": null})), 200).await;
    }
}

/// A transport of nobody's and one of a peer's, both for browsers that do not come.
async fn webrtc_session(session: &mut Session) {
    let room = session.say("POST", "/rooms", None, 201).await["id"].clone();
    let options = json!({
        "udp": true, "tcp": true, "preferIPv4": true, "preferIPv6": false, "preferUdp": false, "preferTcp": true, "appData": 7
    });
    let target = format!("/rooms/{room}/webrtc-transports");
    let made = session.say("POST", &target, Some(options), 201).await["id"].clone();
    let peer = json!({"name": "carol", "rtpCapabilities": {"codecs": []}});
    session
        .say("POST", &format!("/rooms/{room}/peers"), Some(peer), 201)
        .await;
    let options = json!({"direction": "recv", "tcp": false, "preferIPv4": true});
    let target = format!("/rooms/{room}/peers/carol/webrtc-transports");
    session.say("POST", &target, Some(options), 201).await;
    let value = vec!["AB"; 32].join(":");
    let dtls = json!({"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": value}]});
    let target = format!("/transports/{made}/dtls");
    session.say("PUT", &target, Some(dtls.clone()), 200).await;
    session.say("PUT", &target, Some(dtls), 409).await;
    let ice = json!({"usernameFragment": "a/+8", "password": "0123456789abcdefghij+/"});
    session
        .say("PUT", &format!("/transports/{made}/ice"), Some(ice), 200)
        .await;
    session
        .say("POST", &format!("/transports/{made}/ice-restart"), None, 200)
        .await;
    // As mediasoup 3's clients say it.
    let microphone = json!({"kind": "audio", "rtpParameters": {
        "mid": "0", "msid": "a b", "rtcp": {"cname": ""},
        "codecs": [{"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": 2}],
        "headerExtensions": [{"uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 4, "parameters": {}}],
        "encodings": [{"ssrc": 7, "dtx": true}],
    }});
    let target = format!("/transports/{made}/producers");
    let producer = session.say("POST", &target, Some(microphone), 201).await["id"].to_string();
    let target = format!("/rooms/{room}/rtp-capabilities");
    let capabilities = session.say("GET", &target, None, 200).await;
    let consumer = json!({"producer": producer, "rtpCapabilities": capabilities});
    let target = format!("/transports/{made}/consumers");
    session.say("POST", &target, Some(consumer), 201).await;
    for what in ["", "/stats", "/rtc-stats", "/dump"] {
        session
            .say("GET", &format!("/transports/{made}{what}"), None, 200)
            .await;
    }
    session.say("GET", &format!("/rooms/{room}/stats"), None, 200).await;
    session.say("GET", &format!("/transports?room={room}"), None, 200).await;
    // Transports have opened, of both kinds.
    session.say("GET", "/events/recent", None, 200).await;
}

/// Somebody publishes, and somebody watches.
async fn whip_session(session: &mut Session) {
    let [publishes, watches] = ["whip-ffmpeg-8.1.2.sdp", "whep-chromium-whip-whep.sdp"].map(|name| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/whip");
        std::fs::read_to_string(folder.join(name)).unwrap()
    });
    let sdp = ("content-type", "application/sdp");
    let fragment = ("content-type", "application/trickle-ice-sdpfrag");
    for (protocol, offer) in [("whip", publishes), ("whep", watches)] {
        for target in [format!("/{protocol}/stage/alice"), format!("/{protocol}/stage")] {
            session.write("OPTIONS", &target, &[], "", 200).await;
            session.write("GET", &target, &[], "", 200).await;
            session.write("POST", &target, &[], &offer, 415).await;
            let opened = session.write("POST", &target, &[sdp], &offer, 201).await;
            let own = opened.headers["location"].to_str().unwrap().to_owned();
            session.write("OPTIONS", &own, &[], "", 200).await;
            session.write("GET", &own, &[], "", 200).await;
            let restart = "a=ice-ufrag:another\r\na=ice-pwd:0123456789012345678901\r\n";
            session.write("PATCH", &own, &[fragment], restart, 428).await;
            session
                .write("PATCH", &own, &[fragment, ("if-match", "*")], restart, 200)
                .await;
            session.write("PATCH", &own, &[fragment], restart, 204).await;
            if protocol == "whep" {
                let json = ("content-type", "application/json");
                let layer = format!("{own}/layer");
                session.write("OPTIONS", &layer, &[], "", 200).await;
                session.write("POST", &layer, &[json], r#"{"rid":"low"}"#, 200).await;
                session.write("POST", &layer, &[json], r#"{"rid":"none"}"#, 422).await;
                let events = format!("{own}/sse");
                session.write("OPTIONS", &events, &[], "", 200).await;
                session.write("POST", &events, &[json], r#"["unknown"]"#, 400).await;
                let made = session.write("POST", &events, &[json], r#"["active"]"#, 201).await;
                let stream = made.headers["location"].to_str().unwrap().to_owned();
                session.write("OPTIONS", &stream, &[], "", 200).await;
                session.write("DELETE", &stream, &[], "", 200).await;
                session.write("GET", &stream, &[], "", 404).await;
                session.write("DELETE", &own, &[], "", 200).await;
                session.write("DELETE", &own, &[], "", 404).await;
            }
        }
    }
    let opened = session.write("POST", "/whip/stage", &[sdp], OFFER, 201).await;
    let own = opened.headers["location"].to_str().unwrap().to_owned();
    session.write("DELETE", &own, &[], "", 200).await;
}

const OFFER: &str = include_str!("data/whip/whip-obs-shape-1-layer-a.sdp");

/// Two peers, one of which hears the other.
async fn peers_session(session: &mut Session) {
    let room = session.say("POST", "/rooms", None, 201).await["id"].clone();
    let capabilities = session
        .say("GET", &format!("/rooms/{room}/rtp-capabilities"), None, 200)
        .await;
    let peers = format!("/rooms/{room}/peers");
    for name in ["alice", "bob"] {
        let peer = json!({"name": name, "rtpCapabilities": capabilities});
        session.say("POST", &peers, Some(peer.clone()), 201).await;
        session.say("POST", &peers, Some(peer), 409).await;
        let transport = json!({"direction": "send", "remote": {"rtp": "127.0.0.1:5004"}});
        session
            .say("POST", &format!("{peers}/{name}/transports"), Some(transport), 201)
            .await;
    }
    session.say("GET", &format!("{peers}?limit=1"), None, 200).await;
    let second = session.say("GET", &format!("{peers}?after=alice"), None, 200).await;
    assert_eq!(second["items"][0]["name"], "bob");
    let all = session
        .say("GET", &format!("/transports?room={room}&peer=alice"), None, 200)
        .await;
    let sends = all["items"][0]["id"].clone();
    let opus = capabilities["codecs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|codec| codec["name"] == "opus")
        .unwrap();
    let microphone = json!({"kind": "audio", "rtpParameters": {
        "codecs": [{"mimeType": "audio/opus", "payloadType": opus["preferredPayloadType"], "clockRate": 48000, "channels": 2}],
        "encodings": [{"ssrc": 1}],
    }});
    let producer = session
        .say("POST", &format!("/transports/{sends}/producers"), Some(microphone), 201)
        .await;
    assert_eq!(producer["peer"], "alice");
    let producer = producer["id"].clone();
    let app_data = json!({"appData": "loud"});
    session
        .say(
            "PUT",
            &format!("/producers/{producer}/app-data"),
            Some(app_data.clone()),
            200,
        )
        .await;
    session
        .say("PUT", &format!("{peers}/alice/app-data"), Some(app_data), 200)
        .await;
    let heard = session
        .say("GET", &format!("/consumers?room={room}&peer=bob"), None, 200)
        .await;
    let consumer = heard["items"][0].clone();
    assert_eq!(
        (&consumer["peer"], &consumer["receiver"], &consumer["enabled"]),
        (&json!("alice"), &json!("bob"), &json!(false))
    );
    let consumer = consumer["id"].clone();
    let stats = format!("/consumers/{consumer}/rtc-stats");
    assert_eq!(
        session.say("GET", &stats, None, 200).await,
        json!([]),
        "nothing before it is enabled"
    );
    let receives = session
        .say("GET", &format!("/transports?room={room}&peer=bob"), None, 200)
        .await;
    let enable = json!({"transport": receives["items"][0]["id"]});
    session
        .say("POST", &format!("/consumers/{consumer}/enable"), Some(enable), 200)
        .await;
    for stats in [
        stats,
        format!("/producers/{producer}/rtc-stats"),
        format!("/transports/{sends}/rtc-stats"),
    ] {
        let stats = session.say("GET", &stats, None, 200).await;
        assert!(
            stats[0]["timestamp"].as_u64().unwrap() > 1_600_000_000_000,
            "a wall clock's time"
        );
    }
    let streamer = json!({"producer": producer, "remoteIp": "127.0.0.1", "remotePort": 5010});
    session
        .say("POST", &format!("/rooms/{room}/rtp-streamers"), Some(streamer), 201)
        .await;
    let limit = json!({"bitrateBps": 5});
    session
        .say("PUT", &format!("/transports/{sends}/max-bitrate"), Some(limit), 400)
        .await;
    let limit = json!({"bitrateBps": 500_000});
    let limited = session
        .say("PUT", &format!("/transports/{sends}/max-bitrate"), Some(limit), 200)
        .await;
    assert_eq!(limited["maxBitrateBps"], 500_000);
    let mirror = json!({"remoteIp": "127.0.0.1", "remotePort": 5012, "recvRtcp": false});
    let mirroring = format!("/transports/{sends}/mirroring");
    session.say("PUT", &mirroring, Some(mirror.clone()), 200).await;
    session.say("PUT", &mirroring, Some(mirror), 409).await;
    session.say("DELETE", &mirroring, None, 200).await;
    session.say("GET", &format!("{peers}/bob/dump"), None, 200).await;
    session.say("GET", &format!("{peers}/bob"), None, 200).await;
    session.say("DELETE", &format!("{peers}/bob"), None, 200).await;
    session.say("GET", &format!("{peers}/bob"), None, 404).await;
    session.say("GET", "/transports?peer=alice", None, 400).await;
}

#[tokio::test]
async fn answers_are_as_described_and_every_route_is_tried() {
    let control = Control::start().await;
    let mut session = Session::start(&control).await;
    whole_session(&mut session).await;
    peers_session(&mut session).await;
    webrtc_session(&mut session).await;
    whip_session(&mut session).await;
    let mut untried = operations(&session.document);
    untried.retain(|operation| !session.seen.contains(operation));
    // Streams are not JSON; tests/http_events.rs reads them.
    untried.retain(|(_, path)| {
        session.document["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"].is_null()
    });
    assert!(untried.is_empty(), "add to the session: {untried:?}");
    control.close().await;
}

#[tokio::test]
async fn every_described_route_is_served_and_no_other_method_is() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let document = weir::http::openapi();
    assert_eq!(client.get("/openapi.json").await.expect(200), document);
    for (path, methods) in document["paths"].as_object().unwrap() {
        let target = path
            .replace("{id}", "7")
            .replace("{name}", "nobody")
            .replace("{room}", "7")
            .replace("{peer}", "nobody")
            .replace("{session}", "none")
            .replace("{stream}", "none");
        // With no such room or thing, nothing happens.
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let described = methods.get(method.to_lowercase()).is_some();
            let answer = client.begin(method, &target, &[], "").await;
            let unserved = answer.status() == 405;
            assert_eq!(described, !unserved, "{method} {path}: {}", answer.status());
            // A stream would not end: the connection is given up.
            client = control.client().await;
        }
    }
    control.close().await;
}

#[test]
fn every_route_is_entered_where_it_is_described() {
    let routes = include_str!("../src/http/routes.rs");
    assert!(!routes.contains(".route("), "use Api, which describes what it serves");
}

#[test]
fn the_document_is_whole() {
    let document = weir::http::openapi();
    let mut ids = BTreeSet::new();
    for (method, path) in operations(&document) {
        let operation = &document["paths"][&path][&method];
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(ids.insert(id), "{method} {path}: its id is another's, too");
        let parameters = operation["parameters"].as_array().unwrap();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
        assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
        assert!(!operation["summary"].as_str().unwrap().is_empty());
    }
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let target = part.split('"').next().unwrap();
        assert!(document.pointer(target).is_some(), "{target} leads nowhere");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(
            !name.ends_with(|last: char| last.is_ascii_digit()),
            "two types are called {name}"
        );
    }
}

/// All descriptions in `value`, with what they are of.
fn descriptions(value: &Value, of: &str) -> Vec<(String, String)> {
    let inside = |name: &str, value: &Value| match value {
        Value::String(text) if name == "description" => vec![(of.to_owned(), text.clone())],
        value => descriptions(value, &format!("{of}/{name}")),
    };
    match value {
        Value::Object(members) => members.iter().flat_map(|(name, value)| inside(name, value)).collect(),
        Value::Array(items) => items.iter().flat_map(|value| descriptions(value, of)).collect(),
        _ => Vec::new(),
    }
}

/// A member's description says what it is: "The consumer.", not "Whose."
#[test]
fn descriptions_are_not_fragments() {
    let document = weir::http::openapi();
    let all = descriptions(&document["components"]["schemas"], "");
    assert!(all.len() > 100);
    for (of, text) in all {
        let first = text.split([' ', '.']).next().unwrap();
        assert!(
            !["Whose", "Of", "So", "Where", "And", "They"].contains(&first),
            "{of}: {text}"
        );
        assert!(text.ends_with(['.', '`']), "{of}: {text}");
    }
}

#[test]
fn a_wrong_answer_is_found() {
    let document = weir::http::openapi();
    let schema = json!({"$ref": "#/components/schemas/RoomView"});
    let check = |value: Value, needle: &str| {
        let faults = schema::faults(&document, &schema, &value).join("; ");
        assert!(faults.contains(needle), "{faults:?} does not say {needle:?}");
    };
    check(json!({}), "id is missing");
    check(json!({"id": "one"}), "/id: \"one\" is not of type");
    check(json!({"id": -1}), "beyond the minimum");
    check(json!({"colour": 1}), "colour is not described");
}

/// Faults of a schema and of those in it: one that is a boolean. Generators of clients stop at such.
fn boolean_schemas(schema: &Value, path: &str, found: &mut Vec<String>) {
    match schema {
        Value::Bool(_) => found.push(path.to_owned()),
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{path}/{name}");
                match (name.as_str(), member) {
                    ("properties" | "patternProperties" | "$defs", Value::Object(schemas)) => {
                        for (name, schema) in schemas {
                            boolean_schemas(schema, &format!("{path}/{name}"), found);
                        }
                    }
                    ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(schemas)) => {
                        for (index, schema) in schemas.iter().enumerate() {
                            boolean_schemas(schema, &format!("{path}/{index}"), found);
                        }
                    }
                    ("items" | "not" | "if" | "then" | "else", schema) => boolean_schemas(schema, &path, found),
                    ("additionalProperties", Value::Object(_)) => boolean_schemas(member, &path, found),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// The same for every `schema` and every named schema of a document.
fn boolean_schemas_of_document(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{path}/{name}");
                match (name.as_str(), member) {
                    ("schema", schema) => boolean_schemas(schema, &path, found),
                    ("schemas", Value::Object(schemas)) => {
                        for (name, schema) in schemas {
                            boolean_schemas(schema, &format!("{path}/{name}"), found);
                        }
                    }
                    _ => boolean_schemas_of_document(member, &path, found),
                }
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                boolean_schemas_of_document(value, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn no_schema_is_a_boolean() {
    let mut found = Vec::new();
    boolean_schemas_of_document(&weir::http::openapi(), "", &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
