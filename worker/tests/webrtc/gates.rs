//! What is let through: nothing from strangers, no media before the peer has proven who it is, and nothing forged.

use std::time::Duration;

use proptest::prelude::*;
use weir_worker::webrtc::dtls::{DtlsRole, Role, State};
use weir_worker::webrtc::ice;
use weir_worker::webrtc::srtp::KeyingMaterial;
use weir_worker::webrtc::transport::{Dropped, Received};

use crate::network::{Flight, Random};
use crate::world::{CLIENT, SERVER, Setup, World, tuple};

const RTP: [u8; 12] = [0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
const RTCP: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 3];
const STRANGER: &str = "203.0.113.66:6666";

#[test]
fn media_waits_for_every_gate() {
    let (ours, stranger) = (tuple(CLIENT.parse().unwrap()), tuple(STRANGER.parse().unwrap()));
    let mut world = World::new(Setup::default());
    let dropped = Received::Dropped;
    assert_eq!(world.deliver(ours, &RTP), dropped(Dropped::UnknownTuple));
    world.set_remote(DtlsRole::Client).unwrap();
    assert!(world.run_until(Duration::from_secs(1), |world| world.server.ice_state()
        != ice::State::New));
    assert_eq!(world.deliver(ours, &RTP), dropped(Dropped::NotConnected));
    assert_eq!(world.deliver(ours, &RTCP), dropped(Dropped::NotConnected));
    assert_eq!(world.deliver(stranger, &RTP), dropped(Dropped::UnknownTuple));
    assert_eq!(world.server.media_tuple(), None);
    assert!(
        world.run_until(Duration::from_secs(9), |world| world.server.dtls_state()
            == State::Connected)
    );
    assert_eq!(world.deliver(ours, &RTP), Received::Rtp);
    assert_eq!(world.deliver(ours, &RTCP), Received::Rtcp);
    assert_eq!(world.deliver(stranger, &RTP), dropped(Dropped::UnknownTuple));
    assert_eq!(world.deliver(ours, &[200; 20]), dropped(Dropped::Unrecognised));
}

#[test]
fn neither_media_nor_dtls_selects_a_tuple() {
    let mut world = World::new(Setup::default());
    world.set_remote(DtlsRole::Client).unwrap();
    // A handshake from where no check came from is not even looked at.
    let hello = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    let stranger = tuple(STRANGER.parse().unwrap());
    let received = world.deliver(stranger, &hello);
    assert_eq!(received, Received::Dropped(Dropped::UnknownTuple));
    assert!(world.events.is_empty());
    assert!(world.run_until(Duration::from_secs(9), |world| {
        world.server.dtls_state() == State::Connected && world.peer.dtls.connected
    }));
    let selected = world.server.selected_tuple().copied();
    world.deliver(stranger, &RTP);
    let now = world.now;
    let data = world
        .peer
        .dtls
        .send_application_data(now, b"data channels are not for us");
    assert_eq!(
        world.deliver(stranger, &data[0]),
        Received::Dropped(Dropped::UnknownTuple)
    );
    assert_eq!(
        world.deliver(tuple(CLIENT.parse().unwrap()), &data[0]),
        Received::Control
    );
    assert_eq!(world.server.selected_tuple().copied(), selected);
    assert_eq!(world.server.dtls_state(), State::Connected);
}

#[test]
fn what_is_sent_in_the_clear_cannot_end_a_connected_session() {
    let mut world = World::new(Setup::default());
    world.set_remote(DtlsRole::Client).unwrap();
    assert!(world.run_until(Duration::from_secs(9), |world| {
        world.server.dtls_state() == State::Connected && world.peer.dtls.connected
    }));
    let ours = tuple(CLIENT.parse().unwrap());
    let mut random = Random(3);
    for number in 0..20_000_u32 {
        let kind = 20 + (number % 6) as u8;
        let epoch = (number / 6 % 3) as u8;
        let len = random.below(40) as u8;
        let mut record = vec![
            kind,
            0xfe,
            0xfd,
            0,
            epoch,
            0,
            0,
            0,
            0,
            (number >> 8) as u8,
            number as u8,
            0,
            len,
        ];
        record.extend((0..len).map(|_| random.next() as u8));
        if number % 7 == 0 {
            record[13..].fill(2); // a fatal alert, if it is one
        }
        world.deliver(ours, &record);
        world.now = world.now + Duration::from_millis(25);
    }
    assert_eq!(world.server.dtls_state(), State::Connected);
}

/// What is done to one of the datagrams between the two.
#[derive(Clone, Debug)]
enum Damage {
    Flip { byte: usize, bit: u8 },
    Cut { len: usize },
    Repeat,
    Insert { bytes: Vec<u8> },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 0_u8..8).prop_map(|(byte, bit)| Damage::Flip { byte, bit }),
        any::<usize>().prop_map(|len| Damage::Cut { len }),
        Just(Damage::Repeat),
        prop::collection::vec(any::<u8>(), 1..80).prop_map(|bytes| Damage::Insert { bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is done to what the peer sends: nothing panics, and there are the right keys or none.
    #[test]
    fn a_damaged_handshake_ends_well_or_not_at_all(
        damages in prop::collection::vec((0_u64..14, damage()), 1..5),
        server in any::<bool>(),
    ) {
        let mut world = World::new(Setup {
            peer_role: if server { Role::Client } else { Role::Server },
            ..Setup::default()
        });
        world.set_remote(if server { DtlsRole::Client } else { DtlsRole::Server }).unwrap();
        let mut seen = 0;
        let end = world.now + Duration::from_secs(5);
        while world.now < end && !(world.server.dtls_state() == State::Connected && world.peer.dtls.connected) {
            // What is under way is taken out, damaged, and delivered by hand.
            let mut arrived = Vec::new();
            while let Some(at) = world.network.poll_timeout() {
                world.now = world.now.max(at);
                let Some(flight) = world.network.receive(at) else { break };
                arrived.push(flight);
            }
            for flight in arrived {
                if flight.to != SERVER.parse().unwrap() {
                    world.peer.handle(world.now, flight, &mut world.network);
                    continue;
                }
                let from = tuple(flight.from);
                let mut bytes = flight.bytes.clone();
                for (number, damage) in &damages {
                    if *number != seen || bytes.is_empty() {
                        continue;
                    }
                    match damage {
                        Damage::Flip { byte, bit } => {
                            let at = byte % bytes.len();
                            bytes[at] ^= 1 << bit;
                        }
                        Damage::Cut { len } => bytes.truncate(len % bytes.len()),
                        Damage::Repeat => {
                            world.deliver(from, &bytes);
                        }
                        Damage::Insert { bytes } => {
                            world.deliver(from, bytes);
                        }
                    }
                }
                seen += 1;
                world.deliver(from, &bytes);
            }
            world.now = world.now + Duration::from_millis(20);
            world.with_server(|server, now, outbox| server.handle_timeout(now, outbox));
            world.peer.tick(world.now, &mut world.network);
        }
        if let Some(established) = world.established() {
            if let Some((_, material)) = &world.peer.dtls.keys {
                let profile = established.keys.inbound.profile();
                let theirs = KeyingMaterial::split(profile, material, world.server.dtls_role().unwrap());
                prop_assert_eq!(Some(&established.keys), theirs.as_ref());
            }
            let certificate = pem::parse(&established.remote_certificate).unwrap();
            prop_assert_eq!(certificate.contents(), &world.peer.dtls.certificate[..]);
        } else {
            prop_assert_eq!(world.server.media_tuple(), None);
        }
    }
}

/// The simulation itself: what is filtered does not arrive.
#[test]
fn the_network_can_be_cut() {
    let mut world = World::new(Setup::default());
    world.network.filter = |flight: &Flight| flight.bytes[0] >= 20;
    world.set_remote(DtlsRole::Client).unwrap();
    world.run(Duration::from_secs(3));
    assert_eq!(world.server.dtls_state(), State::Connecting);
    assert_eq!(world.server.counters().dtls, 0);
}
