//! What a session believes, and what it does not.

use std::time::Duration;

use super::*;
use crate::webrtc::dtls::FingerprintAlgorithm;
use crate::webrtc::dtls::settings::MTU_BYTES;
use crate::webrtc::entropy::SeededEntropy;
use crate::webrtc::srtp::{MasterKey, Profile};

fn session() -> Session {
    let now = Duration::from_secs(1_795_000_000);
    let certificate = Certificate::generate(&mut SeededEntropy(1), now).unwrap();
    Session::new(Arc::new(Context::new(
        certificate,
        Clock::virtual_time(),
        Settings::default(),
    )))
}

fn keys() -> KeyingMaterial {
    let key = MasterKey::new(Profile::AeadAes128Gcm, &[1; 16], &[2; 12]).unwrap();
    KeyingMaterial {
        outbound: key.clone(),
        inbound: key,
    }
}

fn of(message: &[u8]) -> Expected {
    Expected::new(&[Fingerprint::of(FingerprintAlgorithm::Sha256, message)], false).unwrap()
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// What the end of a handshake comes to, whatever the peer was like.
#[test]
fn verdicts() {
    struct Row {
        finished: bool,
        peer: Option<&'static [u8]>,
        keys: bool,
        expected: Option<&'static [u8]>,
        state: State,
        failure: Option<Failure>,
    }
    let good = Row {
        finished: true,
        peer: Some(b"peer"),
        keys: true,
        expected: Some(b"peer"),
        state: State::Connected,
        failure: None,
    };
    let rows = [
        Row { ..good },
        Row {
            finished: false,
            state: State::Connecting,
            ..good
        },
        Row {
            expected: None,
            state: State::Connecting,
            ..good
        },
        Row {
            expected: Some(b"somebody"),
            state: State::Failed,
            failure: Some(Failure::Fingerprint),
            ..good
        },
        Row {
            keys: false,
            state: State::Failed,
            failure: Some(Failure::NoSrtpProfile),
            ..good
        },
        Row {
            peer: None,
            state: State::Failed,
            failure: Some(Failure::NoSrtpProfile),
            ..good
        },
    ];
    for (at, row) in rows.iter().enumerate() {
        let mut session = session();
        session.start(Time(0), &mut |_| {});
        assert_eq!(events(&mut session), [Event::Connecting]);
        session.finished = row.finished;
        session.peer = row.peer.map(<[u8]>::to_vec);
        session.keys = row.keys.then(keys);
        session.expected = row.expected.map(of);
        session.judge(&mut |_| {});
        assert_eq!(session.state(), row.state, "row {at}");
        let expected = match (row.state, row.failure) {
            (State::Connected, _) => vec![Event::Connected(Box::new(Established {
                keys: keys(),
                remote_certificate: certificate::to_pem(b"peer"),
                remote_certificate_der: b"peer".to_vec(),
            }))],
            (_, Some(failure)) => vec![Event::Failed(failure)],
            _ => vec![],
        };
        assert_eq!(events(&mut session), expected, "row {at}");
        // Keys leave once, and a failed session has none.
        session.judge(&mut |_| {});
        assert_eq!(events(&mut session), []);
        assert_eq!(session.keys.is_some(), row.state == State::Connecting, "row {at}");
    }
}

#[test]
fn parameters_are_taken_once_and_only_if_they_are_good() {
    let mut session = session();
    let mut set = |role, fingerprints: Vec<Fingerprint>| {
        session.set_remote(Time(0), &RemoteParameters { role, fingerprints }, &mut |_| {})
    };
    let good = vec![Fingerprint::of(FingerprintAlgorithm::Sha512, b"peer")];
    assert_eq!(
        set(DtlsRole::Auto, vec![]),
        Err(RefusedParameters::Fingerprints(Unusable::Count))
    );
    let weak = vec![Fingerprint::of(FingerprintAlgorithm::Sha1, b"peer")];
    assert_eq!(
        set(DtlsRole::Auto, weak),
        Err(RefusedParameters::Fingerprints(Unusable::Weak))
    );
    assert_eq!(set(DtlsRole::Server, good.clone()), Ok(Role::Client));
    assert_eq!(set(DtlsRole::Server, good.clone()), Err(RefusedParameters::AlreadySet));
    session.close(Time(0), &mut |_| {});
    let parameters = RemoteParameters {
        role: DtlsRole::Auto,
        fingerprints: good,
    };
    let set = session.set_remote(Time(0), &parameters, &mut |_| {});
    assert_eq!(set, Err(RefusedParameters::Ended));
    assert_eq!(events(&mut session), [Event::Closed]);
}

#[test]
fn the_client_begins_and_the_server_waits() {
    for (role, begins) in [
        (DtlsRole::Server, true),
        (DtlsRole::Client, false),
        (DtlsRole::Auto, false),
    ] {
        let mut session = session();
        let fingerprints = vec![Fingerprint::of(FingerprintAlgorithm::Sha256, b"peer")];
        session
            .set_remote(Time(0), &RemoteParameters { role, fingerprints }, &mut |_| {
                panic!("not before ICE");
            })
            .unwrap();
        let mut sent = 0;
        let mut send = |datagram: &[u8]| {
            assert!(datagram.len() <= MTU_BYTES);
            sent += 1;
        };
        session.start(Time(0), &mut send);
        session.start(Time(0), &mut send);
        // Retransmissions come further and further apart.
        for ms in (0..10_000).step_by(10) {
            session.handle_timeout(Time::from_millis(ms), &mut send);
        }
        if begins {
            assert!((5..=8).contains(&sent), "{sent}");
        } else {
            assert_eq!((sent, session.poll_timeout()), (0, None));
        }
        assert_eq!(events(&mut session), [Event::Connecting]);
    }
}

#[test]
fn what_still_matters_after_the_handshake() {
    let record = |kind: u8, epoch: u8| [kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 1, 0, 0];
    for (datagram, expected) in [
        (record(20, 0), false), // a change of ciphers
        (record(21, 0), false), // an alert
        (record(22, 0), true),  // a last flight, once more
        (record(23, 0), false), // data
        (record(21, 1), true),
        (record(22, 1), true),
        (record(23, 1), true),
        ([47; 13], true), // DTLS 1.3 protects what this looks like
    ] {
        assert_eq!(is_late(&datagram), expected, "{datagram:?}");
    }
}

#[test]
fn an_alert_has_two_bytes() {
    let mut session = session();
    session.start(Time(0), &mut |_| {});
    let mut datagram = vec![0; 4_097];
    datagram[..3].copy_from_slice(&[21, 0xfe, 0xfd]);
    datagram[11..13].copy_from_slice(&4_084_u16.to_be_bytes());
    datagram[13] = 2; // a fatal alert
    session.handle_datagram(Time(0), &datagram, &mut |_| {});
    assert_eq!(session.state(), State::Connecting);
    datagram.truncate(15);
    datagram[11..13].copy_from_slice(&[0, 2]);
    datagram[14] = 40;
    session.handle_datagram(Time(0), &datagram, &mut |_| {});
    assert_eq!(session.state(), State::Failed);
    assert_eq!(
        events(&mut session),
        [Event::Connecting, Event::Failed(Failure::Alert(40))]
    );
}

#[test]
fn a_debug_print_has_no_secrets() {
    let session = session();
    let printed = format!("{session:?}").to_lowercase();
    assert!(!printed.contains("private"), "{printed}");
}

/// No mistake of an engine's ends more than its session, wherever it is made.
#[test]
fn an_engine_that_panics_fails_its_session_alone() {
    let begin = |session: &mut Session| session.start(Time(0), &mut |_| {});
    let hello = {
        let mut client = session();
        let parameters = RemoteParameters {
            role: DtlsRole::Server,
            fingerprints: vec![Fingerprint::of(FingerprintAlgorithm::Sha256, b"peer")],
        };
        client.set_remote(Time(0), &parameters, &mut |_| {}).unwrap();
        let mut sent = Vec::new();
        client.start(Time(0), &mut |datagram| sent = datagram.to_vec());
        sent
    };
    let before = boundary::panics(Parser::Dtls);
    type Call<'a> = &'a dyn Fn(&mut Session, Wire<'_>);
    let calls: [(&str, Call<'_>); 2] = [
        ("a datagram", &|session, send| {
            session.handle_datagram(Time(0), &hello, send)
        }),
        ("time", &|session, send| session.handle_time(Time(1), send)),
    ];
    for (name, call) in calls {
        let mut session = session();
        begin(&mut session);
        let mut sent = Vec::new();
        let poison = boundary::poison(Parser::Dtls);
        call(&mut session, &mut |datagram| sent.push(datagram.to_vec()));
        drop(poison);
        assert_eq!(session.state(), State::Failed, "{name}");
        assert_eq!(
            events(&mut session),
            [Event::Connecting, Event::Failed(Failure::Internal)],
            "{name}"
        );
        // The peer is told: internal_error.
        assert_eq!(sent, [plain_alert(80)], "{name}");
        // Whatever comes now finds nobody.
        session.handle_datagram(Time(2), &hello, &mut |_| panic!("{name}: an answer"));
        session.handle_timeout(Time(2), &mut |_| panic!("{name}: an answer"));
    }
    let mut session = session();
    let poison = boundary::poison(Parser::Dtls);
    begin(&mut session);
    drop(poison);
    assert_eq!(
        events(&mut session),
        [Event::Connecting, Event::Failed(Failure::Internal)],
        "made anew"
    );
    assert!(boundary::panics(Parser::Dtls) >= before + 3);
}

/// When the keys are agreed on, what an engine is worth is a goodbye.
#[test]
fn an_engine_that_panics_when_all_is_agreed_on_takes_no_keys_away() {
    let mut session = session();
    session.start(Time(0), &mut |_| {});
    session.finished = true;
    session.peer = Some(b"peer".to_vec());
    session.keys = Some(keys());
    session.expected = Some(of(b"peer"));
    session.judge(&mut |_| {});
    assert_eq!(session.state(), State::Connected);
    let late = [22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0];
    let poison = boundary::poison(Parser::Dtls);
    session.handle_datagram(Time(0), &late, &mut |_| panic!("an answer"));
    drop(poison);
    assert_eq!(session.state(), State::Connected);
    session.close(Time(0), &mut |_| panic!("an engine that is gone says goodbye"));
    assert_eq!(session.state(), State::Closed);
}

/// RFC 5246 §7.2.2: the peer need not wait for its own timeout.
#[test]
fn every_failure_that_the_peer_can_hear_of_is_said_to_it_and_has_words() {
    for failure in [
        Failure::Fingerprint,
        Failure::NoCertificate,
        Failure::CertificateTooLong,
        Failure::UnsupportedCertificate,
        Failure::Signature,
        Failure::NoSrtpProfile,
        Failure::NothingInCommon,
        Failure::Version,
        Failure::Timeout,
        Failure::Alert(40),
        Failure::Protocol,
        Failure::Internal,
    ] {
        let mut session = session();
        session.start(Time(0), &mut |_| {});
        let mut sent = Vec::new();
        session.fail(failure, &mut |datagram| sent.push(datagram.to_vec()));
        let knows = matches!(failure, Failure::Timeout | Failure::Alert(_));
        assert_eq!(sent.len(), usize::from(!knows), "{failure:?}");
        assert!(
            sent.iter()
                .all(|alert| alert[0] == 21 && alert.len() == 15 && alert[13] == 2)
        );
        let words = failure.to_string();
        assert!(words.len() > 15 && !words.ends_with('.'), "{words}");
    }
    assert_eq!(
        Failure::Alert(46).to_string(),
        "the peer refused with alert 46 (certificate_unknown)"
    );
}
