//! WebRTC transports: what clients are told of them, what they and workers tell, and what becomes of them (differences
//! §9).

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use weir_channel::id::{TransportId, WorkerId};
use weir_channel::message::{
    DtlsParameters, DtlsRole, DtlsState, Fingerprint, FingerprintAlgorithm, IceProtocol, IceState, IceTuple, Method,
    Notification, Reply, WorkerError,
};

use super::stage::{Stage, audio, told, video};
use crate::protocol::ErrorClass;
use crate::server::fake::{fingerprint, server, settings, soon};
use crate::server::{
    Direction, EnableOptions, Family, MirrorOptions, Peer, RoomOptions, Server, Settings, Side, TransportKind,
    WebRtcTransport, WebRtcTransportOptions, lock,
};

async fn webrtc(peer: &Peer) -> WebRtcTransport {
    let made = peer.create_webrtc_transport(WebRtcTransportOptions::default(), Some(Direction::Send));
    soon(made).await.unwrap()
}

fn of_peer(role: DtlsRole) -> DtlsParameters {
    DtlsParameters {
        role,
        fingerprints: vec![fingerprint()],
    }
}

fn tuple(transport: &WebRtcTransport, port: u16) -> IceTuple {
    let listener = transport.tuple();
    IceTuple {
        protocol: IceProtocol::Udp,
        local: (listener.bound_ip, listener.local_port).into(),
        remote: ([192, 0, 2, 2], port).into(),
    }
}

fn ports_taken(server: &Server) -> u32 {
    server.shared().sockets.ports_taken()
}

#[tokio::test]
async fn a_client_is_told_what_mediasoup_tells() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    let transport = webrtc(&alice).await;
    let parameters = serde_json::to_value(transport.ice_parameters()).unwrap();
    assert_eq!(parameters["iceLite"], true);
    for (member, len) in [("usernameFragment", 16), ("password", 32)] {
        let text = parameters[member].as_str().unwrap();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        assert!(text.len() == len && text.chars().all(fits), "{member} {text}");
    }
    let mut candidates = serde_json::to_value(transport.ice_candidates()).unwrap();
    for candidate in candidates.as_array_mut().unwrap() {
        let port = candidate.as_object_mut().unwrap().remove("port").unwrap();
        assert!((10_000..60_000).contains(&port.as_u64().unwrap()));
    }
    let expected = json!([
        {"family": "ipv4", "foundation": "1", "ip": "127.0.0.1", "priority": 1_078_862_079,
         "protocol": "udp", "type": "host"},
        {"family": "ipv4", "foundation": "2", "ip": "127.0.0.1", "priority": 1_078_861_823,
         "protocol": "tcp", "tcpType": "passive", "type": "host"},
    ]);
    assert_eq!(candidates, expected);
    let dtls = serde_json::to_value(transport.dtls_local_parameters()).unwrap();
    let ours = json!({"role": "auto", "fingerprints": [
        {"algorithm": "sha-256", "value": fingerprint().value}
    ]});
    assert_eq!(dtls, ours);
    assert_eq!(
        (transport.ice_state(), transport.dtls_state()),
        (IceState::New, DtlsState::New)
    );
    assert_eq!(
        (transport.ice_selected_tuple(), transport.dtls_remote_cert()),
        (None, None)
    );
    assert_eq!((transport.kind(), transport.rtcp_mux()), (TransportKind::WebRtc, true));
    assert_eq!(transport.peer().unwrap().name(), "alice");
    let first = &transport.ice_candidates()[0];
    assert_eq!(
        (transport.tuple().local_port, transport.tuple().remote),
        (first.port, None)
    );

    // What the worker was asked for is what the client is told.
    let [Method::CreateWebRtcTransport(request)] = &stage.requests()[..] else {
        panic!("one request");
    };
    assert_eq!(request.listeners, [IceProtocol::Udp, IceProtocol::Tcp]);
    assert_eq!(
        json!(request.ice.password),
        parameters["password"],
        "the same credentials"
    );
    let shown = format!("{:?} {:?} {request:?}", transport, transport.ice_parameters());
    assert!(
        !shown.contains(request.ice.password.as_str()),
        "no password in what is printed"
    );

    // A handle of the general kind is one of these, a plain one is not.
    let same = stage.server.transport(transport.id()).unwrap().webrtc().unwrap();
    assert_eq!(same.ice_parameters(), transport.ice_parameters());
    let plain = super::stage::transport(&alice, Direction::Recv).await;
    assert!(plain.webrtc().is_none());
    assert_eq!(plain.kind(), TransportKind::Plain);
}

#[tokio::test]
async fn descriptors_come_in_the_order_of_the_listeners() {
    let (server, mut fake) = server(Settings {
        rtc_ipv6: Family::Address(std::net::Ipv6Addr::LOCALHOST.into()),
        rtc_announced_ipv4: Some(Ipv4Addr::new(203, 0, 113, 9)),
        ..settings()
    })
    .await;
    let room = fake
        .accepting(server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let options = WebRtcTransportOptions {
        prefer_ipv6: true,
        prefer_tcp: true,
        ..WebRtcTransportOptions::default()
    };
    let create = room.create_webrtc_transport(options);
    let answer = async {
        let (request, descriptors) = fake.request().await.unwrap();
        let reply = fake.oblige(&request.method);
        fake.answer(&request, Ok(reply)).await;
        (request.method, descriptors)
    };
    let (transport, (method, descriptors)) = soon(async { tokio::join!(create, answer) }).await;
    let transport = transport.unwrap();
    let Method::CreateWebRtcTransport(request) = method else {
        panic!("{method:?}");
    };
    use IceProtocol::{Tcp, Udp};
    assert_eq!(request.listeners, [Udp, Udp, Tcp, Tcp]);
    let bound: Vec<_> = descriptors
        .into_iter()
        .map(|fd| {
            socket2::Socket::from(fd)
                .local_addr()
                .unwrap()
                .as_socket()
                .unwrap()
                .port()
        })
        .collect();
    let ports: Vec<u16> = transport.ice_candidates().iter().map(|each| each.port).collect();
    assert_eq!(bound, [ports[0], ports[0], ports[1], ports[1], ports[2], ports[3]]);
    let ips: Vec<String> = transport
        .ice_candidates()
        .iter()
        .map(|each| each.ip.to_string())
        .collect();
    assert_eq!(ips, ["203.0.113.9", "::1", "203.0.113.9", "::1"]);
    let order: Vec<u32> = transport.ice_candidates().iter().map(|each| each.priority).collect();
    assert!(
        order[3] > order[1] && order[1] > order[2] && order[2] > order[0],
        "{order:?}"
    );
    assert_eq!(ports_taken(&server), 4);

    // Copies leave from the transport's address of their own family.
    let start = transport.start_mirroring(MirrorOptions::everything_to("[::1]:9".parse().unwrap()));
    fake.accepting(start).await.unwrap();
    assert_eq!(transport.mirroring().unwrap().local.ip().to_string(), "::1");
    fake.accepting(transport.close(Value::Null)).await.unwrap();
    assert_eq!(ports_taken(&server), 0);
}

#[tokio::test]
async fn what_the_server_switches_off_stays_off() {
    let (server, mut fake) = server(Settings {
        rtc_tcp: false,
        ..settings()
    })
    .await;
    let room = fake
        .accepting(server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let made = room.create_webrtc_transport(WebRtcTransportOptions::default());
    let transport = fake.accepting(made).await.unwrap();
    let protocols: Vec<_> = transport.ice_candidates().iter().map(|each| each.protocol).collect();
    assert_eq!(protocols, [IceProtocol::Udp]);
    let nothing = WebRtcTransportOptions {
        udp: false,
        ..WebRtcTransportOptions::default()
    };
    let error = soon(room.create_webrtc_transport(nothing)).await.unwrap_err();
    assert_eq!(error.code(), "invalidParameters", "{error}");
    assert_eq!(ports_taken(&server), 1);

    // A refused one leaves nothing.
    let refused = room.create_webrtc_transport(WebRtcTransportOptions::default());
    let refuse = async {
        let (request, _) = fake.request().await.unwrap();
        let error = WorkerError::TooMany {
            noun: "transports".to_owned(),
            limit: 1,
        };
        fake.answer(&request, Err(error)).await;
    };
    let (refused, ()) = soon(async { tokio::join!(refused, refuse) }).await;
    assert_eq!(refused.unwrap_err().code(), "tooMany");
    assert_eq!((ports_taken(&server), room.transports().len()), (1, 1));

    // A worker that answers something else has not made one that can be used.
    let odd = room.create_webrtc_transport(WebRtcTransportOptions::default());
    let answer = async {
        let (request, _) = fake.request().await.unwrap();
        fake.answer(&request, Ok(Reply::Done)).await;
        fake.accept().await
    };
    let (odd, close) = soon(async { tokio::join!(odd, answer) }).await;
    assert_eq!(odd.unwrap_err().code(), "protocol");
    assert!(matches!(close, Method::CloseTransport { .. }), "{close:?}");
}

#[tokio::test]
async fn states_and_tuples_are_told_once_each() {
    let mut stage = Stage::new().await;
    let alice = stage.join("alice");
    let transport = webrtc(&alice).await;
    let id = transport.id();
    let selected = tuple(&transport, 45_669);
    stage.forget(&[&alice]);
    let mut events = stage.server.events();
    let pem = "-----BEGIN CERTIFICATE-----".to_owned();
    let dtls = |state, remote_certificate_pem| Notification::DtlsStateChanged {
        transport: id,
        state,
        remote_certificate_pem,
        failure: None,
    };
    let ice = |state| Notification::IceStateChanged {
        transport: id,
        state,
        failure: None,
    };
    let told_by_worker = [
        Notification::IceSelectedTupleChanged {
            transport: id,
            tuple: Some(selected),
        },
        ice(IceState::Connected),
        // No news, not for WebRTC, nobody's.
        ice(IceState::Connected),
        ice(IceState::Closed),
        Notification::IceStateChanged {
            transport: TransportId(99),
            state: IceState::Completed,
            failure: None,
        },
        dtls(DtlsState::Connecting, None),
        dtls(DtlsState::Connected, Some(pem.clone())),
        ice(IceState::Completed),
        ice(IceState::Disconnected),
        Notification::IceSelectedTupleChanged {
            transport: id,
            tuple: None,
        },
        dtls(DtlsState::Closed, None),
    ];
    for (index, notification) in told_by_worker.into_iter().enumerate() {
        stage.say(notification);
        if index == 5 {
            // By now the first are in.
            while transport.dtls_state() != DtlsState::Connecting {
                soon(events.next()).await.unwrap();
            }
            let shown = serde_json::to_value(transport.ice_selected_tuple()).unwrap();
            let port = transport.tuple().local_port;
            let expected = json!({"localIP": "127.0.0.1", "localPort": port, "protocol": "udp",
                "remoteIP": "192.0.2.2", "remotePort": 45_669});
            assert_eq!(shown, expected);
            assert_eq!(transport.tuple().remote, Some(selected.remote));
        }
    }
    while transport.dtls_state() != DtlsState::Closed {
        soon(events.next()).await.unwrap();
    }
    assert_eq!(transport.dtls_remote_cert(), Some(pem));
    assert_eq!(transport.ice_state(), IceState::Disconnected);
    assert_eq!(transport.ice_selected_tuple(), None);
    assert_eq!(
        stage.events(),
        [
            "iceSelectedTupleChanged transport=1",
            "iceStateChanged transport=1 connected",
            "dtlsStateChanged transport=1 connecting",
            "dtlsStateChanged transport=1 connected",
            "iceStateChanged transport=1 completed",
            "iceStateChanged transport=1 disconnected",
            "iceSelectedTupleChanged transport=1",
            "dtlsStateChanged transport=1 closed",
        ]
    );
    assert!(told(&alice).is_empty(), "clients see their own side of it");

    // Another worker's word does not count.
    let strange = ice(IceState::Completed);
    lock(&stage.server.shared().state).apply_notification(WorkerId(2), strange);
    assert_eq!(transport.ice_state(), IceState::Disconnected);

    // Closing says so itself, and by one event.
    soon(transport.close(json!("bye"))).await.unwrap();
    assert_eq!(stage.events(), [r#"transportClosed transport=1 local "bye""#]);
    assert_eq!(told(&alice), [r#"alice: transportClosed 1 "bye""#]);
    assert_eq!(
        (transport.ice_state(), transport.dtls_state()),
        (IceState::Closed, DtlsState::Closed)
    );
    for call in [
        soon(transport.restart_ice()).await.map(drop),
        soon(transport.set_remote_dtls_parameters(of_peer(DtlsRole::Client))).await,
    ] {
        assert_eq!(call.unwrap_err().code(), "invalidState");
    }
}

#[tokio::test]
async fn the_peer_is_introduced_once_and_with_something_that_can_be_trusted() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    for (theirs, ours) in [
        (DtlsRole::Server, DtlsRole::Client),
        (DtlsRole::Client, DtlsRole::Server),
        (DtlsRole::Auto, DtlsRole::Server),
    ] {
        let transport = webrtc(&alice).await;
        soon(transport.set_remote_dtls_parameters(of_peer(theirs)))
            .await
            .unwrap();
        assert_eq!(transport.dtls_local_parameters().role, ours, "{theirs:?}");
    }
    let transport = webrtc(&alice).await;
    stage.requests();
    let print = |algorithm, value: &str| Fingerprint {
        algorithm,
        value: value.to_owned(),
    };
    let sha1 = print(FingerprintAlgorithm::Sha1, &["00"; 20].join(":"));
    let hostile = [
        vec![],
        vec![fingerprint(); 20],
        vec![sha1],
        vec![print(FingerprintAlgorithm::Sha256, "")],
        vec![print(FingerprintAlgorithm::Sha512, &fingerprint().value)],
        vec![print(FingerprintAlgorithm::Sha256, &"A".repeat(1_000_000))],
        vec![fingerprint(), print(FingerprintAlgorithm::Sha1, "zz")],
    ];
    for fingerprints in hostile {
        let parameters = DtlsParameters {
            role: DtlsRole::Auto,
            fingerprints,
        };
        let error = soon(transport.set_remote_dtls_parameters(parameters))
            .await
            .unwrap_err();
        assert_eq!(error.code(), "invalidParameters", "{error}");
        assert!(error.to_string().len() < 300, "{error}");
    }
    assert!(stage.requests().is_empty(), "no worker is bothered");
    stage.refuse(WorkerError::DtlsParametersSet(transport.id()));
    let error = soon(transport.set_remote_dtls_parameters(of_peer(DtlsRole::Auto)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "conflict");
    assert_eq!(transport.dtls_local_parameters().role, DtlsRole::Auto);
}

#[tokio::test]
async fn credentials_change_when_the_worker_has_taken_them() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    let transport = webrtc(&alice).await;
    let first = transport.ice_parameters();
    stage.refuse(WorkerError::DeadlinePassed);
    soon(transport.restart_ice()).await.unwrap_err();
    assert_eq!(transport.ice_parameters(), first);
    let second = soon(transport.restart_ice()).await.unwrap();
    assert_eq!(transport.ice_parameters(), second);
    assert_ne!(first.username_fragment, second.username_fragment);
    assert_ne!(first.password, second.password);
    let plain = super::stage::transport(&alice, Direction::Recv).await;
    let remote = weir_channel::message::Remote {
        rtp: ([127, 0, 0, 1], 9).into(),
        rtcp: None,
    };
    soon(plain.set_remote(remote)).await.unwrap();
    let error = soon(transport.set_remote(remote)).await.unwrap_err();
    assert_eq!(error.code(), "invalidParameters", "{error}");
}

#[tokio::test]
async fn a_clients_own_credentials_are_checked_and_told_until_ice_is_restarted() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    let transport = webrtc(&alice).await;
    stage.requests();
    let password = || "0123456789abcdefghijkl".to_owned();
    let error = soon(transport.set_remote_ice("ab:d".to_owned(), password())).await;
    assert_eq!(error.unwrap_err().code(), "invalidParameters");
    assert_eq!(stage.requests(), []);
    soon(transport.set_remote_ice("abcd".to_owned(), password()))
        .await
        .unwrap();
    soon(transport.restart_ice()).await.unwrap();
    assert!(matches!(
        &stage.requests()[..],
        [Method::SetRemoteIce { .. }, Method::RestartIce { .. }]
    ));
}

#[tokio::test]
async fn media_is_the_same_on_either_kind() {
    let mut stage = Stage::new().await;
    let [alice, bob] = ["alice", "bob"].map(|name| stage.join(name));
    let sending = webrtc(&alice).await;
    let receiving = webrtc(&bob).await;
    for options in [audio(1), video(2)] {
        soon(sending.produce(options)).await.unwrap();
    }
    let of_bob = bob.consumers();
    for consumer in &of_bob {
        soon(consumer.enable(&receiving, EnableOptions::default()))
            .await
            .unwrap();
    }
    stage.forget(&[&alice, &bob]);
    soon(receiving.close_by(Side::Remote, Value::Null)).await.unwrap();
    assert_eq!(
        stage.events(),
        [
            "transportClosed transport=2 remote",
            "consumerUnhandled consumer=1",
            "consumerUnhandled consumer=2"
        ]
    );
    assert!(of_bob.iter().all(|consumer| consumer.transport().is_none()));
    soon(alice.leave(Value::Null)).await.unwrap();
    assert!(sending.closed() && stage.room.transports().is_empty());
    assert_eq!(ports_taken(&stage.server), 0);
}

fn ask(method: &str, more: Value) -> Value {
    let mut message = json!({"method": method, "target": "peer"});
    for (name, value) in more.as_object().unwrap() {
        message[name] = value.clone();
    }
    message
}

#[tokio::test]
async fn clients_make_restart_and_introduce_themselves_through_the_protocol() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    let dtls = json!({"role": "server", "fingerprints": [
        {"algorithm": "sha-256", "value": fingerprint().value}
    ]});
    let request = ask(
        "createTransport",
        json!({"id": 21_686_038, "direction": "send", "options": {"preferUdp": true, "ip": "8.8.8.8", "port": 25},
            "appData": {"media": "SEND"}, "dtlsParameters": dtls}),
    );
    let answer = soon(alice.receive_request(request.clone())).await.unwrap();
    let members: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(members, ["dtlsParameters", "iceCandidates", "iceParameters"]);
    assert_eq!(answer["dtlsParameters"]["role"], "client", "opposite to the client's");
    assert_eq!(
        answer["iceCandidates"][0]["ip"], "127.0.0.1",
        "no client names addresses"
    );
    assert!(answer["iceCandidates"][0]["priority"].as_u64() > answer["iceCandidates"][1]["priority"].as_u64());
    let transport = alice.transports().remove(0);
    assert_eq!(transport.app_data(), &json!({"media": "SEND"}));
    assert_eq!(transport.direction(), Some(Direction::Send));
    let twice = soon(alice.receive_request(request)).await.unwrap_err();
    assert_eq!(
        twice.to_string(),
        "Error: a Transport with same transportId already exists"
    );

    let restart = |id: i64| ask("restartTransport", json!({ "id": id }));
    let answer = soon(alice.receive_request(restart(21_686_038))).await.unwrap();
    let now = serde_json::to_value(transport.webrtc().unwrap().ice_parameters()).unwrap();
    assert_eq!(answer, json!({ "iceParameters": now }));
    let unknown = soon(alice.receive_request(restart(5))).await.unwrap_err();
    assert_eq!(unknown.to_string(), "Error: Transport not found");

    // Those that receive are introduced later.
    let request = ask(
        "createTransport",
        json!({"id": 2, "direction": "recv", "options": {"tcp": false}}),
    );
    let answer = soon(alice.receive_request(request)).await.unwrap();
    assert_eq!(answer["dtlsParameters"]["role"], "auto");
    assert_eq!(answer["iceCandidates"].as_array().unwrap().len(), 1);
    let mut update = ask("updateTransport", json!({"id": 2, "dtlsParameters": dtls}));
    update["notification"] = json!(true);
    stage.requests();
    soon(alice.receive_notification(update.clone())).await.unwrap();
    assert!(matches!(&stage.requests()[..], [Method::SetDtlsParameters { .. }]));
    update["dtlsParameters"] = Value::Null;
    let error = soon(alice.receive_notification(update)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::TypeError, "{error}");
}

#[tokio::test]
async fn a_transport_whose_client_cannot_be_introduced_is_not_made() {
    let mut stage = Stage::new().await;
    let alice = stage.join("alice");
    stage.forget(&[&alice]);
    let request = |fingerprints: Value| {
        ask(
            "createTransport",
            json!({"id": 778, "direction": "send", "options": {},
                "dtlsParameters": {"role": "server", "fingerprints": fingerprints}}),
        )
    };
    let unknown = request(json!([{"algorithm": "sha-999", "value": "AA"}]));
    let error = soon(alice.receive_request(unknown)).await.unwrap_err();
    assert_eq!(error.to_string(), "Error: unsupported remote fingerprint algorithm");
    assert!(stage.events().is_empty());
    // What is found out later takes the transport along, as the client's own doing.
    let sha1 = ["00"; 20].join(":");
    let weak = request(json!([{"algorithm": "sha-1", "value": sha1}]));
    let error = soon(alice.receive_request(weak)).await.unwrap_err();
    assert!(error.message.contains("sha-256"), "{error}");
    assert_eq!(
        stage.events(),
        [
            "transportOpened peer=alice transport=1",
            "transportClosed transport=1 remote"
        ]
    );
    assert!(alice.transports().is_empty() && told(&alice).is_empty());
    let nowhere = ask(
        "createTransport",
        json!({"id": 778, "options": {"udp": false, "tcp": false}}),
    );
    let error = soon(alice.receive_request(nowhere)).await.unwrap_err();
    assert!(error.message.starts_with("neither UDP nor TCP"), "{error}");
    // The number is free again.
    let good = request(json!([{"algorithm": "sha-256", "value": fingerprint().value}]));
    soon(alice.receive_request(good)).await.unwrap();
    assert_eq!(ports_taken(&stage.server), 2);
}
