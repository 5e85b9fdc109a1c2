//! OpenSSL as an engine: with dimpl and with itself, with certificates of either kind, over bad wires.
//!
//! It reads the system's clock, so what waits here waits for the thing itself, and lost datagrams take a second each.

use std::sync::Arc;

use super::*;
use crate::net::clock;
use crate::time::Time;
use crate::webrtc::dtls::session::{Context, Event as Told, RemoteParameters, RemoteRole, Session, State};
use crate::webrtc::dtls::{Clock, Fingerprint, HashFunction, Library};
use crate::webrtc::entropy::SeededEntropy;

const NOW: Duration = Duration::from_secs(1_795_000_000);

/// A bound on waiting; nothing comes near it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn ecdsa(seed: u64) -> Certificate {
    Certificate::generate(&mut SeededEntropy(seed), NOW).unwrap()
}

/// What GStreamer's elements make by themselves: RSA of 2,048 bits.
fn rsa() -> Certificate {
    let key = PKey::from_rsa(openssl::rsa::Rsa::generate(2_048).unwrap()).unwrap();
    let mut x509 = X509::builder().unwrap();
    x509.set_pubkey(&key).unwrap();
    let day = |days| openssl::asn1::Asn1Time::days_from_now(days).unwrap();
    x509.set_not_before(&day(0)).unwrap();
    x509.set_not_after(&day(365)).unwrap();
    x509.sign(&key, openssl::hash::MessageDigest::sha256()).unwrap();
    let pem = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Certificate::from_pem(
        &pem(x509.build().to_pem().unwrap()),
        &pem(key.private_key_to_pem_pkcs8().unwrap()),
    )
    .unwrap()
}

struct End {
    session: Session,
    fingerprint: Fingerprint,
    events: Vec<Told>,
    /// What it has sent and the other has not got.
    sent: VecDeque<Vec<u8>>,
}

impl End {
    fn new(library: Library, certificate: Certificate) -> Self {
        let fingerprint = Fingerprint::of(HashFunction::Sha256, certificate.der());
        let (instant, time) = clock::instant();
        let settings = Settings {
            library,
            ..Settings::default()
        };
        Self {
            session: Session::new(Arc::new(Context::new(certificate, Clock::new(instant, time), settings))),
            fingerprint,
            events: Vec::new(),
            sent: VecDeque::new(),
        }
    }

    fn meets(&mut self, fingerprint: Fingerprint, role: RemoteRole) {
        let parameters = RemoteParameters {
            role,
            fingerprints: vec![fingerprint],
        };
        let sent = &mut self.sent;
        let mut send = |datagram: &[u8]| sent.push_back(datagram.to_vec());
        self.session.set_remote(now(), &parameters, &mut send).unwrap();
        self.session.start(now(), &mut send);
    }

    fn takes(&mut self, datagram: &[u8]) {
        let sent = &mut self.sent;
        let mut send = |datagram: &[u8]| sent.push_back(datagram.to_vec());
        self.session.handle_datagram(now(), datagram, &mut send);
        self.hears();
    }

    fn waits(&mut self) {
        let sent = &mut self.sent;
        let mut send = |datagram: &[u8]| sent.push_back(datagram.to_vec());
        self.session.handle_timeout(now(), &mut send);
        self.hears();
    }

    fn hears(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.session.poll_event()));
    }

    fn keys(&self) -> &SrtpKeys {
        let established = self.events.iter().find_map(|event| match event {
            Told::Connected(established) => Some(established),
            _ => None,
        });
        &established.expect("it is connected").keys
    }
}

fn now() -> Time {
    clock::monotonic()
}

/// Introduces a client and a server to each other.
fn introduce(mut client: End, mut server: End) -> (End, End) {
    let fingerprints = (client.fingerprint, server.fingerprint);
    server.meets(fingerprints.0, RemoteRole::Client);
    client.meets(fingerprints.1, RemoteRole::Server);
    (client, server)
}

/// Carries datagrams, but for those that `is_lost` by their number, until both are as wanted.
fn carry(client: &mut End, server: &mut End, mut is_lost: impl FnMut(usize) -> bool, wanted: State) {
    let begun = now();
    let mut number = 0;
    while client.session.state() != wanted || server.session.state() != wanted {
        let mut is_quiet = true;
        for from_client in [true, false] {
            let (from, to) = if from_client {
                (&mut *client, &mut *server)
            } else {
                (&mut *server, &mut *client)
            };
            while let Some(datagram) = from.sent.pop_front() {
                assert!(datagram.len() <= MTU_BYTES, "{} bytes", datagram.len());
                is_quiet = false;
                if !is_lost(number) {
                    to.takes(&datagram);
                }
                number += 1;
            }
        }
        if is_quiet {
            assert!(
                now().since(begun) < PATIENCE,
                "{:?} and {:?}",
                client.events,
                server.events
            );
            std::thread::park_timeout(Duration::from_millis(5));
            client.waits();
            server.waits();
        }
    }
}

fn connected(client: End, server: End) -> (End, End) {
    let (mut client, mut server) = introduce(client, server);
    carry(&mut client, &mut server, |_| false, State::Connected);
    (client, server)
}

#[test]
fn every_pair_of_libraries_agrees_on_keys() {
    for (ours, theirs) in [
        (Library::OpenSsl, Library::OpenSsl),
        (Library::OpenSsl, Library::Dimpl),
        (Library::Dimpl, Library::OpenSsl),
    ] {
        let (client, server) = connected(End::new(ours, ecdsa(1)), End::new(theirs, ecdsa(2)));
        let (one, other) = (client.keys(), server.keys());
        assert_eq!(one.profile, SrtpProfile::AeadAes256Gcm, "{ours:?} {theirs:?}");
        assert!(one.outbound() == other.inbound() && one.inbound() == other.outbound());
        assert!(one.outbound() != one.inbound());
    }
}

#[test]
fn who_has_an_rsa_key_is_let_in_in_either_role() {
    let (client, server) = connected(End::new(Library::OpenSsl, rsa()), End::new(Library::OpenSsl, ecdsa(2)));
    assert!(client.keys().outbound() == server.keys().inbound());
    let (client, server) = connected(End::new(Library::OpenSsl, ecdsa(1)), End::new(Library::OpenSsl, rsa()));
    assert!(client.keys().outbound() == server.keys().inbound());
    let Some(Told::Connected(established)) = client.events.last() else {
        panic!("{:?}", client.events);
    };
    let shown = X509::from_pem(established.remote_certificate.as_bytes()).unwrap();
    assert!(shown.public_key().unwrap().rsa().is_ok());
    // What this library is there for.
    let (mut client, mut server) = introduce(End::new(Library::OpenSsl, rsa()), End::new(Library::Dimpl, ecdsa(2)));
    carry(&mut client, &mut server, |_| false, State::Failed);
}

#[test]
fn whoever_else_has_come_gets_no_keys() {
    for (library, other) in [(Library::OpenSsl, Library::Dimpl), (Library::OpenSsl, Library::OpenSsl)] {
        for we_begin in [false, true] {
            let (mut ours, mut theirs) = (End::new(library, ecdsa(1)), End::new(other, ecdsa(2)));
            let stranger = Fingerprint::of(HashFunction::Sha256, b"somebody else");
            theirs.meets(
                ours.fingerprint,
                if we_begin {
                    RemoteRole::Client
                } else {
                    RemoteRole::Server
                },
            );
            ours.meets(
                stranger,
                if we_begin {
                    RemoteRole::Server
                } else {
                    RemoteRole::Client
                },
            );
            let (client, server) = if we_begin {
                (&mut ours, &mut theirs)
            } else {
                (&mut theirs, &mut ours)
            };
            carry(client, server, |_| false, State::Failed);
            let expected = [Told::Connecting, Told::Failed(Failure::Fingerprint)];
            assert_eq!(ours.events, expected);
            assert!(
                matches!(theirs.events[..], [Told::Connecting, Told::Failed(Failure::Alert(42))]),
                "{:?}",
                theirs.events
            );
        }
    }
}

#[test]
fn lost_datagrams_are_sent_again() {
    for lost in [0, 2, 3, 5] {
        let (mut client, mut server) = introduce(
            End::new(Library::OpenSsl, ecdsa(1)),
            End::new(Library::OpenSsl, ecdsa(2)),
        );
        carry(&mut client, &mut server, |number| number == lost, State::Connected);
        assert!(client.keys().outbound() == server.keys().inbound());
    }
}

#[test]
fn the_first_answer_is_smaller_than_the_question() {
    let (client, mut server) = introduce(
        End::new(Library::OpenSsl, ecdsa(1)),
        End::new(Library::OpenSsl, ecdsa(2)),
    );
    let hello = &client.sent[0];
    server.takes(hello);
    let answered: usize = server.sent.iter().map(Vec::len).sum();
    assert!((1..hello.len()).contains(&answered), "{answered} for {}", hello.len());
    // A cookie of another session is not one of this.
    let mut other = End::new(Library::OpenSsl, ecdsa(3));
    other.meets(client.fingerprint, RemoteRole::Client);
    let mut client = client;
    client.sent.clear();
    let answer = server.sent.pop_front().unwrap();
    client.takes(&answer);
    for datagram in client.sent.drain(..) {
        other.takes(&datagram);
    }
    let answered: usize = other.sent.iter().map(Vec::len).sum();
    assert!(answered < 100, "{answered} bytes for a stranger's cookie");
}

#[test]
fn a_goodbye_is_heard_and_twice_is_no_harm() {
    let (mut client, mut server) = connected(
        End::new(Library::OpenSsl, ecdsa(1)),
        End::new(Library::OpenSsl, ecdsa(2)),
    );
    let sent = &mut client.sent;
    client
        .session
        .close(now(), &mut |datagram| sent.push_back(datagram.to_vec()));
    let goodbye = client.sent.pop_front().expect("a goodbye");
    server.takes(&goodbye);
    server.takes(&goodbye);
    assert_eq!(server.session.state(), State::Closed);
    assert_eq!(server.events.last(), Some(&Told::Closed));
}

/// Every datagram of a handshake, damaged in many ways, at every point of another handshake: never a panic, and never keys that
/// the other end does not have.
#[test]
fn damage_ends_well_or_not_at_all() {
    let mut entropy = SeededEntropy(7);
    let mut random = || {
        let mut bytes = [0; 4];
        crate::webrtc::entropy::Entropy::fill(&mut entropy, &mut bytes);
        u32::from_le_bytes(bytes) as usize
    };
    for _ in 0..40 {
        let (mut client, mut server) = introduce(
            End::new(Library::OpenSsl, ecdsa(1)),
            End::new(Library::OpenSsl, ecdsa(2)),
        );
        for _ in 0..40 {
            for from_client in [true, false] {
                let (from, to) = if from_client {
                    (&mut client, &mut server)
                } else {
                    (&mut server, &mut client)
                };
                while let Some(mut datagram) = from.sent.pop_front() {
                    match random() % 4 {
                        0 => datagram.truncate(random() % datagram.len()),
                        1 => {
                            let at = random() % datagram.len();
                            datagram[at] ^= 1 << (random() % 8);
                        }
                        _ => {}
                    }
                    to.takes(&datagram);
                }
            }
        }
        if client.session.state() == State::Connected && server.session.state() == State::Connected {
            assert!(client.keys().outbound() == server.keys().inbound());
        }
    }
}
