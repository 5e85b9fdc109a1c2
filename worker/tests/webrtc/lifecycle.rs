//! After the beginning: silence, restarts, goodbyes and handshakes that do not come to an end.

use std::time::Duration;

use weir_worker::time::Time;
use weir_worker::webrtc::dtls::failure::Failure;
use weir_worker::webrtc::dtls::session::Event as Dtls;
use weir_worker::webrtc::dtls::{DtlsRole, RefusedParameters, Role, State};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::{self, Credentials};
use weir_worker::webrtc::transport::{Dropped, Event, Received};

use crate::network::Flight;
use crate::world::{CLIENT, Setup, World, tuple};

fn connected() -> World {
    let mut world = World::new(Setup::default());
    world.set_remote(DtlsRole::Client).unwrap();
    assert!(world.run_until(Duration::from_secs(9), |world| {
        world.server.dtls_state() == State::Connected && world.peer.dtls.connected
    }));
    world.events.clear();
    world
}

#[test]
fn a_peer_that_goes_on_checking_stays() {
    let mut world = connected();
    world.run(Duration::from_secs(120));
    assert_eq!(world.server.ice_state(), ice::State::Completed);
    assert!(world.server.media_tuple().is_some());
    let changes: Vec<_> = world
        .reported()
        .into_iter()
        .filter(|event| **event != Event::Ice(ice::State::Completed))
        .cloned()
        .collect();
    assert_eq!(changes, []);
}

#[test]
fn a_silent_peer_is_sent_nothing_after_its_consent_expired() {
    let mut world = connected();
    world.network.is_cut = true;
    world.run(Duration::from_secs(20));
    assert!(world.server.media_tuple().is_some());
    world.run(Duration::from_secs(11));
    let ours = tuple(CLIENT.parse().unwrap());
    assert_eq!(
        world
            .reported()
            .into_iter()
            .filter(|event| **event != Event::Ice(ice::State::Completed))
            .collect::<Vec<_>>(),
        [
            &Event::ForgottenTuple(ours),
            &Event::SelectedTuple(None),
            &Event::Ice(ice::State::Disconnected)
        ]
    );
    assert_eq!(
        (world.server.media_tuple(), world.server.selected_tuple()),
        (None, None)
    );
    let rtp = [0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    assert_eq!(world.deliver(ours, &rtp), Received::Dropped(Dropped::UnknownTuple));
    assert_eq!(world.server.dtls_state(), State::Connected);

    // A restart brings it back, with the keys that it has.
    world.network.is_cut = false;
    let credentials = Credentials::generate(&mut SystemEntropy::new());
    world.server.restart_ice(credentials.clone());
    world.peer.restart(&credentials, "198.51.100.7:4001".parse().unwrap());
    assert!(world.run_until(Duration::from_secs(9), |world| world.server.media_tuple().is_some()));
    assert_eq!(world.established(), None, "no second handshake");
    assert_eq!(world.deliver(tuple(world.peer.address()), &rtp), Received::Rtp);
}

#[test]
fn a_restart_moves_media_when_the_peer_has_checked_the_new_path() {
    let mut world = connected();
    let old = tuple(CLIENT.parse().unwrap());
    let before = world.server.credentials().clone();
    let credentials = Credentials::generate(&mut SystemEntropy::new());
    world.server.restart_ice(credentials.clone());
    assert_ne!(before.username_fragment(), credentials.username_fragment());
    assert_ne!(before.password(), credentials.password());
    // The peer does not know yet: everything goes on, for as long as it takes.
    world.run(Duration::from_secs(60));
    assert_eq!(world.server.media_tuple(), Some(&old));
    world.peer.restart(&credentials, "198.51.100.99:4444".parse().unwrap());
    let new = tuple(world.peer.address());
    assert!(world.run_until(Duration::from_secs(9), |world| world.server.media_tuple() == Some(&new)));
    assert_eq!(world.server.admit_media(&old), Ok(()), "what is on its way is taken");
    world.run(Duration::from_secs(40));
    assert_eq!(world.server.admit_media(&old), Err(Dropped::UnknownTuple));
    assert_eq!(world.server.media_tuple(), Some(&new));
    assert!(world.reported().contains(&&Event::ForgottenTuple(old)));
}

#[test]
fn a_handshake_without_answers_fails_after_thirty_seconds() {
    // As the client we begin, and nobody answers.
    let mut world = World::new(Setup {
        peer_role: Role::Server,
        ..Setup::default()
    });
    world.network.filter = |flight: &Flight| flight.bytes[0] >= 20;
    world.set_remote(DtlsRole::Server).unwrap();
    world.run(Duration::from_secs(29));
    assert_eq!(world.server.dtls_state(), State::Connecting);
    world.run(Duration::from_secs(3));
    assert_eq!(world.server.dtls_state(), State::Failed);
    assert!(world.reported().contains(&&Event::Dtls(Dtls::Failed(Failure::Timeout))));

    // As the server we count from the first message.
    let mut world = World::new(Setup::default());
    world.network.filter = |flight: &Flight| flight.bytes[0] >= 20 && flight.to == CLIENT.parse().unwrap();
    world.set_remote(DtlsRole::Client).unwrap();
    world.run(Duration::from_secs(29));
    assert_eq!(world.server.dtls_state(), State::Connecting);
    world.run(Duration::from_secs(3));
    assert!(
        world.reported().contains(&&Event::Dtls(Dtls::Failed(Failure::Timeout))),
        "{:?}",
        world.reported()
    );
    assert_eq!(world.server.ice_state(), ice::State::Completed);
    assert_eq!(world.set_remote(DtlsRole::Client), Err(RefusedParameters::Ended));
}

#[test]
fn a_peer_that_never_begins_is_waited_for() {
    let mut world = World::new(Setup {
        peer_role: Role::Server,
        ..Setup::default()
    });
    world.set_remote(DtlsRole::Client).unwrap();
    world.run(Duration::from_secs(120));
    assert_eq!(world.server.dtls_state(), State::Connecting);
    assert_eq!(world.set_remote(DtlsRole::Server), Err(RefusedParameters::AlreadySet));
}

#[test]
fn the_peer_says_goodbye() {
    let mut world = connected();
    let goodbye = world.peer.dtls.close();
    let now = world.now;
    world.peer.send(now, goodbye, &mut world.network);
    assert!(
        world.run_until(Duration::from_secs(1), |world| world.server.dtls_state()
            == State::Closed)
    );
    let reported = world.reported();
    assert_eq!(reported.last(), Some(&&Event::Dtls(Dtls::Closed)));
    assert_eq!(world.server.media_tuple(), None);
    let received = world.deliver(
        tuple(CLIENT.parse().unwrap()),
        &[0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
    );
    assert_eq!(received, Received::Dropped(Dropped::NotConnected));
}

#[test]
fn we_say_goodbye() {
    let mut world = connected();
    world.with_server(|server, now, outbox| server.close(now, outbox));
    assert_eq!(
        world.reported(),
        [&Event::Ice(ice::State::Closed), &Event::Dtls(Dtls::Closed)]
    );
    world.run(Duration::from_secs(1));
    assert!(world.peer.dtls.goodbye);
    assert_eq!((world.server.media_tuple(), world.server.poll_timeout()), (None, None));
    // Nothing follows.
    world.events.clear();
    world.with_server(|server, now, outbox| server.close(now, outbox));
    world.with_server(|server, now, outbox| server.handle_timeout(now, outbox));
    world.run(Duration::from_secs(60));
    assert_eq!(world.reported(), Vec::<&Event>::new());
}

#[test]
fn an_unfinished_transport_closes_silently() {
    let mut world = World::new(Setup::default());
    world.set_remote(DtlsRole::Client).unwrap();
    world.with_server(|server, now, outbox| server.close(now, outbox));
    assert_eq!(
        world.reported(),
        [&Event::Ice(ice::State::Closed), &Event::Dtls(Dtls::Closed)]
    );
    while let Some(flight) = world.network.receive(Time(u64::MAX)) {
        assert_eq!(flight.from, CLIENT.parse().unwrap());
    }
}
