//! Both sides agree on the same keys: in every combination of roles, in any order of signalling, over bad networks.

use std::time::Duration;

use dimpl::SrtpProfile as Theirs;
use weir_worker::boundary::{self, Parser};
use weir_worker::time::Time;
use weir_worker::webrtc::dtls::failure::Failure;
use weir_worker::webrtc::dtls::session::{Established, Event as Dtls};
use weir_worker::webrtc::dtls::settings::{CERTIFICATE_BYTES_MAX, Versions};
use weir_worker::webrtc::dtls::{DtlsRole, Fingerprint, FingerprintAlgorithm, Role, Settings, State};
use weir_worker::webrtc::ice;
use weir_worker::webrtc::srtp::{KeyingMaterial, Profile};
use weir_worker::webrtc::transport::Event;

use crate::network::Quality;
use crate::world::{CLIENT, Setup, World, tuple};

const LIMIT: Duration = Duration::from_secs(40);

fn both_connected(world: &World) -> bool {
    world.server.dtls_state() == State::Connected && world.peer.dtls.connected
}

/// Both ends have the same keys, and each the other's certificate.
fn agree(world: &World, local: Role) -> Established {
    let established = world.established().unwrap().clone();
    let (profile, material) = world.peer.dtls.keys.as_ref().unwrap();
    let expected = match profile {
        Theirs::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        Theirs::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        _ => Profile::Aes128CmSha1_80,
    };
    let theirs = KeyingMaterial::split(expected, material, local);
    assert_eq!(Some(&established.keys), theirs.as_ref());
    let theirs = pem::parse(&established.remote_certificate).unwrap();
    assert_eq!(theirs.contents(), world.peer.dtls.certificate);
    let seen = world.peer.dtls.remote_certificate.as_deref();
    assert_eq!(seen, Some(world.server.certificate().der()));
    established
}

#[test]
fn every_combination_of_roles_and_orders() {
    // What the signalling says the peer is, what it is, and what we become.
    let rows = [
        (DtlsRole::Client, Role::Client, Role::Server),
        (DtlsRole::Auto, Role::Client, Role::Server),
        (DtlsRole::Server, Role::Server, Role::Client),
    ];
    for (announced, is, local) in rows {
        // The signalling may come before ICE, between ICE and DTLS, or when the handshake is over.
        for after_ms in [0, 25, 5_000] {
            let mut world = World::new(Setup {
                peer_role: is,
                ..Setup::default()
            });
            world.run(Duration::from_millis(after_ms));
            assert_eq!(world.established(), None);
            assert_eq!(world.set_remote(announced), Ok(local));
            assert!(
                world.run_until(LIMIT, both_connected),
                "{announced:?} after {after_ms} ms: {:?}",
                world.reported()
            );
            let established = agree(&world, local);
            assert_eq!(world.server.dtls_role(), Some(local));
            assert_eq!(
                established.keys.inbound.profile(),
                Profile::AeadAes256Gcm,
                "the library's first choice"
            );
            assert_eq!(world.server.media_tuple(), Some(&tuple(CLIENT.parse().unwrap())));
        }
    }
}

#[test]
fn events_come_in_the_order_in_which_things_happen() {
    let mut world = World::new(Setup::default());
    world.set_remote(DtlsRole::Client).unwrap();
    assert!(world.run_until(LIMIT, both_connected));
    let reported = world.reported();
    let connected = reported.len() - 1;
    assert_eq!(reported[0], &Event::SelectedTuple(Some(tuple(CLIENT.parse().unwrap()))));
    let ice: Vec<_> = reported
        .iter()
        .filter_map(|event| match event {
            Event::Ice(state) => Some(*state),
            _ => None,
        })
        .collect();
    assert!(
        ice == [ice::State::Connected, ice::State::Completed] || ice == [ice::State::Completed],
        "{ice:?}"
    );
    let dtls: Vec<_> = reported
        .iter()
        .filter(|event| matches!(event, Event::Dtls(_)))
        .collect();
    assert_eq!(dtls.len(), 2);
    assert_eq!(*dtls[0], &Event::Dtls(Dtls::Connecting));
    assert!(matches!(reported[connected], Event::Dtls(Dtls::Connected(_))));
}

#[test]
fn bad_networks_only_take_longer() {
    let qualities = [
        Quality {
            lost: 0,
            doubled: 30,
            delay_ms: (1, 80),
        },
        Quality {
            lost: 10,
            doubled: 5,
            delay_ms: (5, 60),
        },
        Quality {
            lost: 30,
            doubled: 10,
            delay_ms: (5, 120),
        },
    ];
    for quality in qualities {
        for seed in 0..8 {
            let (announced, is, local) = if seed % 2 == 0 {
                (DtlsRole::Client, Role::Client, Role::Server)
            } else {
                (DtlsRole::Server, Role::Server, Role::Client)
            };
            let mut world = World::new(Setup {
                seed,
                quality,
                peer_role: is,
                ..Setup::default()
            });
            world.set_remote(announced).unwrap();
            assert!(
                world.run_until(LIMIT, both_connected),
                "seed {seed}, {quality:?}: {:?}, {:?}",
                world.reported(),
                world.peer.dtls.error
            );
            agree(&world, local);
        }
    }
}

#[test]
fn newer_versions_and_no_cookies() {
    for versions in [Versions::Dtls12, Versions::Dtls12And13] {
        for cookies in [true, false] {
            for peer_auto in [true, false] {
                for (announced, is, local) in [
                    (DtlsRole::Client, Role::Client, Role::Server),
                    (DtlsRole::Server, Role::Server, Role::Client),
                ] {
                    let mut world = World::new(Setup {
                        settings: Settings {
                            versions,
                            cookies,
                            ..Settings::default()
                        },
                        peer_role: is,
                        peer_auto,
                        ..Setup::default()
                    });
                    world.set_remote(announced).unwrap();
                    assert!(
                        world.run_until(LIMIT, both_connected),
                        "{versions:?}, {cookies}, {peer_auto}, {announced:?}: {:?}, {:?}",
                        world.reported(),
                        world.peer.dtls.error
                    );
                    agree(&world, local);
                }
            }
        }
    }
}

#[test]
fn a_handshake_takes_few_round_trips() {
    // 10 ms each way. With a cookie: check and answer, nomination, then three round trips of DTLS.
    let times: Vec<Time> = [true, false]
        .map(|cookies| {
            let mut world = World::new(Setup {
                settings: Settings {
                    cookies,
                    ..Settings::default()
                },
                ..Setup::default()
            });
            world.set_remote(DtlsRole::Client).unwrap();
            assert!(world.run_until(LIMIT, both_connected));
            let (at, _) = world.events.last().unwrap();
            *at
        })
        .to_vec();
    let saved = times[0].since(times[1]);
    assert!(
        saved >= Duration::from_millis(20) && saved < Duration::from_millis(40),
        "{times:?}"
    );
}

#[test]
fn another_certificate_gets_no_keys() {
    for (announced, is) in [(DtlsRole::Client, Role::Client), (DtlsRole::Server, Role::Server)] {
        for after_ms in [0, 5_000] {
            let mut world = World::new(Setup {
                peer_role: is,
                ..Setup::default()
            });
            world.run(Duration::from_millis(after_ms));
            let other = Fingerprint::of(FingerprintAlgorithm::Sha256, b"another certificate");
            world.set_remote_with(announced, vec![other]).unwrap();
            world.run(LIMIT);
            assert_eq!(world.server.dtls_state(), State::Failed);
            assert_eq!(world.established(), None);
            assert_eq!(world.server.media_tuple(), None);
            let failed = world
                .reported()
                .iter()
                .filter(|event| matches!(event, Event::Dtls(Dtls::Failed(_))))
                .count();
            assert_eq!(failed, 1);
            // It learns of it, and does not wait for its own timeout.
            let peer = &world.peer.dtls;
            assert!(
                peer.error.is_some() || peer.goodbye,
                "{announced:?} after {after_ms} ms"
            );
            assert!(!matches!(peer.error, Some(dimpl::Error::Timeout(_))));
        }
    }
}

#[test]
fn the_right_fingerprint_among_others() {
    let mut world = World::new(Setup::default());
    let certificate = world.peer.dtls.certificate.clone();
    let fingerprints = vec![
        Fingerprint::of(FingerprintAlgorithm::Sha1, b"anything"),
        Fingerprint::of(FingerprintAlgorithm::Sha256, b"an older certificate"),
        Fingerprint::of(FingerprintAlgorithm::Sha256, &certificate),
    ];
    world.set_remote_with(DtlsRole::Client, fingerprints).unwrap();
    assert!(world.run_until(LIMIT, both_connected));
    agree(&world, Role::Server);
}

#[test]
fn weak_fingerprints_only_where_allowed() {
    for weak_fingerprints in [false, true] {
        let mut world = World::new(Setup {
            settings: Settings {
                weak_fingerprints,
                ..Settings::default()
            },
            ..Setup::default()
        });
        let certificate = world.peer.dtls.certificate.clone();
        let weak = vec![Fingerprint::of(FingerprintAlgorithm::Sha1, &certificate)];
        let set = world.set_remote_with(DtlsRole::Client, weak);
        assert_eq!(set.is_ok(), weak_fingerprints);
        assert_eq!(world.run_until(LIMIT, both_connected), weak_fingerprints);
        assert_eq!(world.established().is_some(), weak_fingerprints);
    }
}

/// A peer chooses how long its certificate is. Whatever that is, and whichever version is spoken, it connects up to the limit, fails with
/// the reason beyond, and panics nobody.
#[test]
fn certificates_of_any_length_end_well_or_with_a_reason() {
    let before = boundary::panics(Parser::Dtls);
    let rows = [(DtlsRole::Client, Role::Client), (DtlsRole::Server, Role::Server)];
    for versions in [Versions::Dtls12, Versions::Dtls12And13] {
        for (announced, is) in rows {
            for (names, fits) in [
                (0, true),
                (45, true),
                (60, true),
                (380, true),
                (600, true),
                (730, true),
                (760, false),
            ] {
                // The peer, which is the library itself, panics when it has more than twelve records to send in this version.
                if versions == Versions::Dtls12And13 && names > 60 {
                    continue;
                }
                let mut world = World::new(Setup {
                    peer_role: is,
                    peer_auto: versions == Versions::Dtls12And13,
                    peer_names: names,
                    settings: Settings {
                        versions,
                        ..Settings::default()
                    },
                    ..Setup::default()
                });
                let bytes = world.peer.dtls.certificate.len();
                assert_eq!(bytes <= CERTIFICATE_BYTES_MAX, fits, "{names} names are {bytes} bytes");
                world.set_remote(announced).unwrap();
                let ended = |world: &World| both_connected(world) || world.server.dtls_state() == State::Failed;
                assert!(
                    world.run_until(LIMIT, ended),
                    "{versions:?}, {is:?}, {bytes} bytes: {:?}",
                    world.reported()
                );
                let reported = world.reported();
                if fits {
                    assert_eq!(
                        world.server.dtls_state(),
                        State::Connected,
                        "{versions:?}, {is:?}, {bytes} bytes"
                    );
                } else {
                    let failed = Event::Dtls(Dtls::Failed(Failure::CertificateTooLong));
                    assert_eq!(reported.last(), Some(&&failed), "{versions:?}, {is:?}, {bytes} bytes");
                }
            }
        }
    }
    assert_eq!(boundary::panics(Parser::Dtls), before);
}
