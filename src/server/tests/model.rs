//! `docs/model.md` against the code: the table has everything that the objects have, and nothing else. And what of it no
//! other test touches.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_channel::message::{ComediaPolicy, Method, Remote};

use super::stage::{Stage, Trio, told};
use crate::protocol::ErrorClass;
use crate::server::fake::soon;
use crate::server::{Direction, MirrorOptions, PlainTransportOptions};

/// Of the two sides of what a client may do as well, the page explains the second form once.
const SIDES: &str = "_by";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of Rust below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The public methods of each type, as they are formatted: `impl` at the margin, a method four spaces in. Those that a macro
/// gives to several types are twelve spaces in, and it is called as `name! { Type,`.
fn methods() -> BTreeMap<String, BTreeSet<String>> {
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let files = ["src/server", "src/protocol"].map(|directory| sources(&root().join(directory)));
    for file in files.iter().flatten() {
        let text = fs::read_to_string(file).unwrap();
        let (mut of, mut hidden) = (None, false);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("impl ").and_then(|rest| rest.strip_suffix(" {")) {
                of = Some(name.to_owned());
            } else if let Some(name) = line
                .strip_prefix("macro_rules! ")
                .and_then(|rest| rest.strip_suffix(" {"))
            {
                of = Some(format!("{name}!"));
            } else if let Some((name, arguments)) = line.split_once("! { ")
                && let Some(given) = methods.get(&format!("{name}!")).cloned()
                && let Some((to, _)) = arguments.split_once(',')
            {
                methods.entry(to.to_owned()).or_default().extend(given);
            } else if line == "}" {
                of = None;
            }
            hidden |= line.contains("#[doc(hidden)]");
            let public = line.strip_prefix("            pub ").or(line.strip_prefix("    pub "));
            let method = public.and_then(|rest| rest.strip_prefix("async ").unwrap_or(rest).strip_prefix("fn "));
            if let (Some(of), Some(method)) = (&of, method) {
                let name: String = method
                    .chars()
                    .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                    .collect();
                if !std::mem::take(&mut hidden) && !name.ends_with(SIDES) {
                    methods.entry(of.clone()).or_default().insert(name);
                }
            }
        }
    }
    methods
}

/// The variants of `EventKind` as they are named in JSON.
fn events() -> BTreeSet<String> {
    let text = include_str!("../model/event.rs");
    let body = text.split_once("pub enum EventKind {").unwrap().1;
    let body = body.split_once("\n}").unwrap().0;
    let variants = body.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?;
        let name: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
        let mut letters = name.chars();
        let first = letters.next().filter(char::is_ascii_uppercase)?;
        Some(format!("{}{}", first.to_ascii_lowercase(), letters.as_str()))
    });
    variants.collect()
}

/// The names in backticks.
fn names(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn the_page_lists_what_the_objects_have() {
    let page = include_str!("../../../docs/model.md");
    let (methods, events) = (methods(), events());
    let mut tests = [include_str!("../tests.rs"), include_str!("../api/active_speaker.rs")].concat();
    for directory in ["src/server/tests", "tests"] {
        for file in sources(&root().join(directory)) {
            tests += &fs::read_to_string(file).unwrap();
        }
    }
    let mut told = BTreeSet::new();
    let mut objects = 0;
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        let object = names(cells[1]).remove(0);
        let listed: BTreeSet<String> = names(cells[2]).into_iter().chain(names(cells[3])).collect();
        assert_eq!(Some(&listed), methods.get(&object), "{object}");
        for method in listed {
            let is_called = [".", "::"]
                .iter()
                .any(|dots| tests.contains(&format!("{dots}{method}(")));
            assert!(is_called, "no test calls {object}::{method}");
        }
        for event in names(cells[4]).iter().filter(|name| !name.contains(' ')) {
            assert!(events.contains(event), "{object}: {event}");
            told.insert(event.clone());
        }
        let holders: Vec<String> = names(cells[5]).into_iter().filter(|name| !name.contains('/')).collect();
        assert!(!holders.is_empty(), "{object} is held by no test");
        for holder in holders {
            assert!(tests.contains(&format!("fn {holder}(")), "{object}: {holder}");
        }
        objects += 1;
    }
    assert_eq!(objects, 9);
    let unsaid: Vec<&String> = events.difference(&told).collect();
    assert_eq!(unsaid, ["lagged"], "events of no object");
}

#[tokio::test]
async fn small_facts() {
    let trio = Trio::new().await;
    let server = &trio.stage.server;
    assert_eq!((server.num_workers(), server.workers().len()), (1, 1));
    assert_eq!(trio.stage.room.worker(), server.workers()[0].id);
    assert_eq!(server.coalescing().window_us_max, server.settings().coalescing_us_max);
    assert_eq!(trio.of_bob.source().id(), trio.producer.id());
    assert_eq!(
        (trio.sending.direction(), trio.receiving.direction()),
        (Some(Direction::Send), Some(Direction::Recv))
    );
}

#[tokio::test]
async fn a_transport_knows_what_it_was_made_with_and_told_since() {
    let mut stage = Stage::new().await;
    let options = PlainTransportOptions {
        comedia: true,
        rtcp_mux: false,
        comedia_from: Some("::ffff:192.0.2.7".parse().unwrap()),
        ..PlainTransportOptions::default()
    };
    let transport = soon(stage.room.create_plain_transport(options)).await.unwrap();
    assert_eq!(transport.comedia_policy(), Some(ComediaPolicy::Relearn));
    assert_eq!(transport.comedia_from(), Some("192.0.2.7".parse().unwrap()));
    assert!(transport.comedia() && !transport.rtcp_mux() && transport.rtcp_tuple().is_some());
    assert_eq!((transport.direction(), transport.max_bitrate()), (None, None));
    assert!(transport.mirroring().is_none());
    stage.forget(&[]);
    for bitrate in [Some(500_000), None] {
        soon(transport.set_max_bitrate(bitrate)).await.unwrap();
        assert_eq!(transport.max_bitrate(), bitrate);
        let told = stage.requests();
        assert!(
            matches!(told[..], [Method::SetMaxBitrate { bitrate_bps, .. }] if bitrate_bps == bitrate),
            "{told:?}"
        );
    }
    assert_eq!(
        soon(transport.set_max_bitrate(Some(9_999))).await.unwrap_err().code(),
        "invalidParameters"
    );
    let mirror = MirrorOptions::everything_to("127.0.0.1:9".parse().unwrap());
    soon(transport.start_mirroring(mirror)).await.unwrap();
    assert!(transport.mirroring().is_some());
    soon(transport.stop_mirroring()).await.unwrap();
    assert!(transport.mirroring().is_none());
    let remote = Remote {
        rtp: "127.0.0.1:5004".parse().unwrap(),
        rtcp: None,
    };
    soon(transport.set_remote(remote)).await.unwrap();
    assert_eq!(transport.tuple().remote, Some(remote.rtp));
    soon(transport.dump()).await.unwrap();
    soon(transport.close(Value::Null)).await.unwrap();
    let late = [
        soon(transport.set_max_bitrate(None)).await.unwrap_err(),
        soon(transport.stop_mirroring()).await.unwrap_err(),
        soon(transport.dump()).await.unwrap_err(),
        soon(transport.get_stats()).await.unwrap_err(),
    ];
    for error in late {
        assert_eq!(error.code(), "invalidState");
    }
}

/// An application that carries the client protocol by itself.
#[tokio::test]
async fn clients_are_served_without_the_servers_own_signalling() {
    let stage = Stage::new().await;
    let asked = json!({"method": "queryRoom", "target": "room"});
    let room = soon(stage.room.receive_request(asked)).await.unwrap();
    assert!(room.joined.is_none());
    let capabilities = room.body["rtpCapabilities"].clone();
    let mut clients = Vec::new();
    for name in ["ann", "ben"] {
        let join = json!({
            "method": "join", "target": "room", "peerName": name, "rtpCapabilities": capabilities, "spy": false
        });
        let answer = soon(stage.room.receive_request(join)).await.unwrap();
        let peer = answer.joined.unwrap();
        assert_eq!(peer.name(), name);
        let transport = json!({
            "method": "createTransport", "target": "peer", "id": 5, "direction": "send", "options": {},
            "plainRtpParameters": {"ip": "127.0.0.1", "port": 5004}
        });
        let made = soon(peer.receive_request(transport)).await.unwrap();
        assert_eq!(made["plainRtpParameters"]["ip"], "127.0.0.1");
        clients.push(peer);
    }
    let [ann, ben] = &clients[..] else { panic!("two joined") };
    told(ann);
    let produce = json!({
        "method": "createProducer", "target": "peer", "id": 6, "kind": "audio", "transportId": 5,
        "rtpParameters": {
            "codecs": [{"name": "opus", "mimeType": "audio/opus", "clockRate": 48000, "channels": 2, "payloadType": 111}],
            "encodings": [{"ssrc": 1}]
        }
    });
    assert_eq!(soon(ann.receive_request(produce)).await.unwrap(), Value::Null);
    let introduced = soon(ben.notifications().next()).await.unwrap();
    let message = ben.client_message(&introduced);
    assert_eq!(
        (&message["method"], &message["target"], &message["notification"]),
        (&json!("newConsumer"), &json!("peer"), &json!(true))
    );
    let enable = json!({"method": "enableConsumer", "target": "peer", "id": message["id"], "transportId": 5});
    let enabled = soon(ben.receive_request(enable.clone())).await.unwrap();
    assert_eq!(
        enabled,
        json!({"paused": false, "preferredProfile": "default", "effectiveProfile": null})
    );
    let again = soon(ben.receive_request(enable)).await.unwrap_err();
    assert_eq!(again.class, ErrorClass::InvalidStateError);
    let pause = json!({"method": "pauseProducer", "target": "peer", "notification": true, "id": 6});
    soon(ann.receive_notification(pause)).await.unwrap();
    assert!(ann.producers()[0].remotely_paused());
    let paused = soon(ben.notifications().next()).await.unwrap();
    assert_eq!(ben.client_message(&paused)["method"], "consumerPaused");
    // Statistics speak of the client's transports by its own numbers, too.
    let resume = json!({"method": "resumeProducer", "target": "peer", "notification": true, "id": 6});
    soon(ann.receive_notification(resume)).await.unwrap();
    for (client, what, id) in [
        (ben, "Consumer", &message["id"]),
        (ben, "Transport", &json!(5)),
        (ann, "Transport", &json!(5)),
    ] {
        told(client);
        for word in ["enable", "disable"] {
            let ask = json!({
                "method": format!("{word}{what}Stats"), "target": "peer", "notification": true, "id": id, "interval": 1
            });
            soon(client.receive_notification(ask)).await.unwrap();
            if word == "enable" {
                let report = client.client_message(&soon(client.notifications().next()).await.unwrap());
                assert_eq!(&report["id"], id, "{report}");
                let stats = &report["stats"][0];
                let of_transport = if what == "Transport" {
                    &stats["id"]
                } else {
                    &stats["transportId"]
                };
                assert_eq!(of_transport, 5, "{report}");
            }
        }
    }
    let leave = json!({"method": "leave", "target": "peer", "notification": true});
    soon(ann.receive_notification(leave.clone())).await.unwrap();
    let late = soon(ann.receive_notification(leave)).await.unwrap_err();
    assert_eq!(late.class, ErrorClass::InvalidStateError);
}
