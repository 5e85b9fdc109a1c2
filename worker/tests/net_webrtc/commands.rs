//! What the supervisor asks of WebRTC transports, and what it is notified of.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rcgen::{CertificateParams, KeyPair};
use weir_channel::id::TransportId;
use weir_channel::message::{
    CreateWebRtcTransport, DtlsCertificate, DtlsParameters, DtlsRole, DtlsState, Fingerprint, FingerprintAlgorithm,
    IceCredentials, IceProtocol, IceState, Method, NotTakenUp, Notification, Reply, UnroutedReason,
    WebRtcFailureReason, WorkerError,
};
use weir_channel::page::Page;
use weir_worker::net::clock;
use weir_worker::webrtc::dtls;
use weir_worker::webrtc::stun::{BINDING, Class, Key, Writer, attribute};

use crate::client::{Client, Wire};
use crate::loopback::{Peer, address_of, port, remote, udp, udp_at};
use crate::room::{
    await_dtls, await_unrouted, connect, connected_client, create_webrtc, has_moved, ice_credentials, plain_transport,
    room, set_dtls_parameters, stats, transport_for_client, webrtc_stats,
};
use crate::supervisor::{ROOM, Supervisor, rtp};

fn create(supervisor: &mut Supervisor, transport: u64) -> Vec<Fingerprint> {
    let (unconnected, connected, _) = port();
    create_webrtc(supervisor, transport, &[IceProtocol::Udp], &[unconnected, connected]).unwrap()
}

#[test]
fn transports_show_the_workers_certificate_and_later_ones_another() {
    let mut supervisor = room();
    let first = create(&mut supervisor, 1);
    let algorithms: Vec<_> = first.iter().map(|one| one.algorithm).collect();
    assert_eq!(
        algorithms,
        [
            FingerprintAlgorithm::Sha1,
            FingerprintAlgorithm::Sha224,
            FingerprintAlgorithm::Sha256,
            FingerprintAlgorithm::Sha384,
            FingerprintAlgorithm::Sha512,
        ]
    );
    for (one, bytes) in first.iter().zip([20, 28, 32, 48, 64]) {
        assert_eq!(one.value.len(), 3 * bytes - 1);
        assert_eq!(one.value, one.value.to_uppercase());
    }
    assert_eq!(create(&mut supervisor, 2), first);

    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let given = Method::UseDtlsCertificate(DtlsCertificate {
        certificate_pem: certificate.pem(),
        private_key_pem: key.serialize_pem(),
    });
    assert_eq!(supervisor.request(given), Ok(Reply::Done));
    let expected = dtls::Fingerprint::of(FingerprintAlgorithm::Sha256, certificate.der());
    assert_eq!(create(&mut supervisor, 3)[2].value, expected.to_string());
    let garbage = Method::UseDtlsCertificate(DtlsCertificate {
        certificate_pem: certificate.pem(),
        private_key_pem: KeyPair::generate().unwrap().serialize_pem(),
    });
    let refused = WorkerError::InvalidParameters("the certificate belongs to another private key".to_owned());
    assert_eq!(supervisor.request(garbage), Err(refused));
    assert_eq!(create(&mut supervisor, 4)[2].value, expected.to_string());
    connected_client(&mut supervisor, 5);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut supervisor = room();
    plain_transport(&mut supervisor, 1, &Peer::new());
    let client = transport_for_client(&mut supervisor, 2, true);
    let (plain, webrtc, nobody) = (TransportId(1), TransportId(2), TransportId(3));
    let restart = |transport, ice| Method::RestartIce { transport, ice };
    let parameters = |transport, parameters| Method::SetDtlsParameters { transport, parameters };
    let good = client.parameters(DtlsRole::Auto);
    let with = |fingerprints: Vec<Fingerprint>| DtlsParameters {
        role: DtlsRole::Auto,
        fingerprints,
    };
    let short = IceCredentials {
        password: "too short".to_owned(),
        ..ice_credentials(2, 1)
    };
    let weak = Fingerprint {
        algorithm: FingerprintAlgorithm::Sha1,
        value: ["AB"; 20].join(":"),
    };
    let garbled = Fingerprint {
        algorithm: FingerprintAlgorithm::Sha256,
        value: "AB:CD".to_owned(),
    };
    for (method, expected) in [
        (restart(plain, ice_credentials(1, 1)), WorkerError::NotWebRtc(plain)),
        (
            restart(nobody, ice_credentials(1, 1)),
            WorkerError::UnknownTransport(nobody),
        ),
        (parameters(plain, good.clone()), WorkerError::NotWebRtc(plain)),
        (parameters(nobody, good.clone()), WorkerError::UnknownTransport(nobody)),
        (
            Method::SetRemote {
                transport: webrtc,
                remote: remote("127.0.0.1:9".parse().unwrap()),
            },
            WorkerError::NotPlain(webrtc),
        ),
    ] {
        assert_eq!(supervisor.request(method), Err(expected));
    }
    for method in [
        restart(webrtc, short),
        parameters(webrtc, with(vec![])),
        parameters(webrtc, with(vec![good.fingerprints[0].clone(); 6])),
        parameters(webrtc, with(vec![weak])),
        parameters(webrtc, with(vec![garbled])),
    ] {
        let refused = supervisor.request(method.clone());
        assert!(
            matches!(refused, Err(WorkerError::InvalidParameters(_))),
            "{method:?}: {refused:?}"
        );
    }
    // None of them has changed anything.
    connect(&mut supervisor, 2, client);
    assert_eq!(
        set_dtls_parameters(&mut supervisor, 2, good),
        Err(WorkerError::DtlsParametersSet(webrtc))
    );
}

fn port_at(local: &str) -> (OwnedFd, OwnedFd, SocketAddr) {
    let unconnected = udp(local);
    let address = address_of(&unconnected);
    (unconnected, udp_at(address), address)
}

#[test]
fn a_client_moves_between_ipv4_and_ipv6() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let (unconnected, connected, v4) = port_at("127.0.0.1:0");
    let (unconnected_6, connected_6, v6) = port_at("[::1]:0");
    let listeners = [IceProtocol::Udp; 2];
    create_webrtc(
        &mut supervisor,
        2,
        &listeners,
        &[unconnected, connected, unconnected_6, connected_6],
    )
    .unwrap();
    let wire = |at: SocketAddr| Wire::Udp(Peer::at(SocketAddr::new(at.ip(), 0)));
    let client = Client::over(wire(v6), v6, &ice_credentials(2, 0), true);
    let mut client = connect(&mut supervisor, 2, client);
    supervisor.create_producer(1, 2, 0xaaaa);
    supervisor.create_consumer(1, 1, 1, 0xbbbb);
    supervisor.create_producer(2, 1, 0xcccc);
    supervisor.create_consumer(2, 2, 2, 0xdddd);
    for (round, at) in (1..=6).zip([v4, v6, v6, v4, v4, v6]) {
        let ice = ice_credentials(2, round);
        let restart = Method::RestartIce {
            transport: TransportId(2),
            ice: ice.clone(),
        };
        assert_eq!(supervisor.request(restart), Ok(Reply::Done));
        client.move_to(wire(at), at, &ice);
        client.run_until(|client| client.nominated && has_moved(&mut supervisor, 2, client));
        let tuple = loop {
            let tuple = webrtc_stats(&mut supervisor, 2).ice_selected_tuple.unwrap();
            if tuple.remote == client.wire.address() {
                break tuple;
            }
        };
        assert_eq!(tuple.local, at);
        for number in 0..20 {
            let seq = round as u16 * 20 + number;
            client.send_rtp(&rtp(0xaaaa, seq, b"from elsewhere"));
            assert_eq!(&plain.receive_rtp()[12..], b"from elsewhere");
            plain.send_to(address, &rtp(0xcccc, seq, b"to elsewhere"));
            assert_eq!(&client.receive_rtp()[12..], b"to elsewhere");
        }
    }
    assert_eq!(stats(&mut supervisor, 2).unrouted, []);
}

#[test]
fn a_peer_that_cannot_make_up_its_mind_does_not_flood_the_supervisor() {
    let mut supervisor = room();
    let (unconnected, connected, address) = port();
    create_webrtc(&mut supervisor, 1, &[IceProtocol::Udp], &[unconnected, connected]).unwrap();
    let ice = ice_credentials(1, 0);
    let key = Key::new(&ice.password);
    let (one, other) = (Peer::new(), Peer::new());
    let began = clock::monotonic();
    for number in 0..302_u32 {
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&number.to_be_bytes());
        let mut check = Vec::new();
        Writer::new(&mut check, Class::Request, BINDING, transaction)
            .attribute(
                attribute::USERNAME,
                format!("{}:theirs", ice.username_fragment).as_bytes(),
            )
            .attribute(attribute::PRIORITY, &[1; 4])
            .attribute(attribute::ICE_CONTROLLING, &[2; 8])
            .attribute(attribute::USE_CANDIDATE, &[])
            .integrity(&key)
            .fingerprint();
        let from = if number % 2 == 0 { &one } else { &other };
        from.send_to(address, &check);
        from.receive();
    }
    // The last thing that is reported is so.
    let reported = loop {
        assert_eq!(supervisor.request(Method::Ping), Ok(Reply::Done));
        let reported = supervisor.notifications.iter().filter_map(|one| match one {
            Notification::IceSelectedTupleChanged { tuple, .. } => tuple.map(|tuple| tuple.remote),
            _ => None,
        });
        if reported.clone().next_back() == Some(other.address) {
            break reported.count() as u64;
        }
        assert!(clock::monotonic().since(began).as_secs() < 30, "it is not reported");
    };
    let webrtc = webrtc_stats(&mut supervisor, 1);
    assert_eq!((webrtc.checks, webrtc.ice_state), (302, IceState::Completed));
    assert_eq!(webrtc.ice_selected_tuple.unwrap().remote, other.address);
    let took = clock::monotonic().since(began);
    let allowed = 22 + 10 * (took.as_secs() + 1);
    assert!(reported <= allowed, "{reported} in {took:?}");
}

#[test]
fn wrong_checks_are_counted_and_beyond_some_not_answered() {
    let mut supervisor = room();
    let (unconnected, connected, address) = port();
    create_webrtc(&mut supervisor, 1, &[IceProtocol::Udp], &[unconnected, connected]).unwrap();
    let stranger = Peer::new();
    let key = Key::new("not/the/password/of/anybody");
    for number in 0..200_u32 {
        let mut transaction = [0; 12];
        transaction[..4].copy_from_slice(&number.to_be_bytes());
        let mut check = Vec::new();
        Writer::new(&mut check, Class::Request, BINDING, transaction)
            .attribute(attribute::USERNAME, b"whoever:me")
            .attribute(attribute::PRIORITY, &[1; 4])
            .integrity(&key)
            .fingerprint();
        stranger.send_to(address, &check);
    }
    stranger.send_to(address, &[0; 19]);
    await_unrouted(&mut supervisor, 1, UnroutedReason::Malformed, 1);
    let counted = stats(&mut supervisor, 1);
    let of = |reason| {
        let found = counted.unrouted.iter().find(|(other, _)| *other == reason);
        found.map_or(0, |(_, count)| *count)
    };
    assert_eq!(of(UnroutedReason::BadCheck) + of(UnroutedReason::Flood), 200);
    assert_eq!(of(UnroutedReason::BadCheck), stranger.drain().len() as u64);
    assert!(
        of(UnroutedReason::BadCheck) >= 20 && of(UnroutedReason::Flood) > 0,
        "{counted:?}"
    );
    let webrtc = counted.webrtc.unwrap();
    assert_eq!((webrtc.checks, webrtc.checks_refused), (0, 200));
    assert_eq!(webrtc.ice_state, IceState::New);
    // Told once, not two hundred times, and counted: at once the first, and the others when ten seconds have passed.
    let Notification::ChecksRefused { transport, failure } = supervisor.notification() else {
        panic!("something else was reported");
    };
    assert_eq!(
        (transport, failure.reason),
        (TransportId(1), WebRtcFailureReason::CheckUnauthenticated)
    );
    assert_eq!(webrtc.failures, [(WebRtcFailureReason::CheckUnauthenticated, 1)]);
    assert_eq!(
        supervisor.stats().webrtc_failures,
        [(WebRtcFailureReason::CheckUnauthenticated, 1)]
    );
}

#[test]
fn a_rehearsed_transport_is_taken_up_with_all_that_was_said_of_it() {
    let mut spare = Supervisor::with_worker();
    let done = |supervisor: &mut Supervisor, method| assert_eq!(supervisor.request(method), Ok(Reply::Done));
    for method in [Method::Rehearse, Method::CreateRouter { room: ROOM }] {
        done(&mut spare, method);
    }
    let mut clients = Vec::new();
    for transport in 1..3 {
        let (unconnected, connected, address) = port();
        let request = CreateWebRtcTransport {
            room: ROOM,
            transport: TransportId(transport),
            listeners: vec![IceProtocol::Udp],
            connected: Vec::new(),
            ice: ice_credentials(transport, 0),
        };
        let created = spare.request_with(Method::CreateWebRtcTransport(request), &[unconnected, connected]);
        assert_eq!(created, Ok(Reply::Done));
        // The second one was restarted since.
        let ice = ice_credentials(transport, transport - 1);
        let client = Client::new(address, &ice, true);
        if transport == 2 {
            let transport = TransportId(transport);
            done(&mut spare, Method::RestartIce { transport, ice });
        }
        let dtls = client.parameters(DtlsRole::Auto);
        assert_eq!(set_dtls_parameters(&mut spare, transport, dtls), Ok(Reply::Done));
        clients.push(client);
    }
    let unknown = TransportId(9);
    let restart = Method::RestartIce {
        transport: unknown,
        ice: ice_credentials(9, 0),
    };
    assert_eq!(spare.request(restart), Err(WorkerError::UnknownTransport(unknown)));
    done(&mut spare, Method::RehearsalEnded);
    // Its worker has died before it had begun anything.
    let page = Page::create().unwrap();
    let adopt = Method::Adopt { room: ROOM, pages: 1 };
    assert_eq!(spare.request_with(adopt, &[page.into()]), Ok(Reply::Done));
    let take_up = Method::TakeUp {
        room: ROOM,
        transports: vec![TransportId(1), TransportId(2)],
        producers: Vec::new(),
        consumers: Vec::new(),
    };
    assert_eq!(spare.request(take_up), Ok(Reply::TakenUp(NotTakenUp::default())));
    done(&mut spare, Method::AdoptionEnded { room: ROOM });
    for (transport, mut client) in (1..).zip(clients) {
        client.run_until(|client| client.is_connected());
        await_dtls(&mut spare, transport, DtlsState::Connected);
    }
}
