//! What strangers and broken peers may cost.

use std::time::Duration;

use weir_worker::time::Time;
use weir_worker::webrtc::budget::Budgets;
use weir_worker::webrtc::dtls::{DtlsRole, Settings, State};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::{self, Credentials};
use weir_worker::webrtc::stun::{BINDING, Class, Writer, attribute};
use weir_worker::webrtc::transport::{Dropped, Received, WebRtcTransport};

use crate::network::Random;
use crate::world::{CLIENT, Outbox, Setup, World, clock, context, tuple};

/// A check by somebody who does not know the password.
fn guess(number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut transaction = [0; 12];
    transaction[..4].copy_from_slice(&number.to_be_bytes());
    let stranger = Credentials::restore("guessed0guessed0", "0123456789abcdef0123456789abcdef").unwrap();
    Writer::new(&mut bytes, Class::Request, BINDING, transaction)
        .attribute(attribute::USERNAME, b"guessed0guessed0:mine")
        .attribute(attribute::PRIORITY, &[0; 4])
        .integrity(stranger.key())
        .fingerprint();
    bytes
}

#[test]
fn wrong_checks_are_answered_a_few_times_a_second() {
    let mut world = World::new(Setup::default());
    let mut outbox = Outbox::default();
    let (mut asked, mut suppressed) = (0, 0);
    // 5,000 a second, for ten seconds, from everywhere.
    for number in 0..50_000_u32 {
        let now = Time(u64::from(number) * 200_000);
        let bytes = guess(number);
        let from = tuple(
            format!("203.0.113.{}:{}", number % 250, 1 + number % 60_000)
                .parse()
                .unwrap(),
        );
        let received = world
            .server
            .handle_datagram(now, from, &bytes, &mut world.worker, &mut outbox);
        asked += bytes.len();
        suppressed += usize::from(received == Received::Dropped(Dropped::StunFlood));
    }
    assert_eq!(outbox.sent.len() + suppressed, 50_000);
    assert!((100..=130).contains(&outbox.sent.len()), "{}", outbox.sent.len());
    let answered: usize = outbox.sent.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(answered < asked);
    assert!(outbox.events.is_empty());
    assert_eq!(world.server.ice_state(), ice::State::New);
    assert_eq!(world.server.counters().refusals, 50_000);
}

#[test]
fn all_transports_together_are_bounded_too() {
    let context = context(clock(), Settings::default());
    let mut transports: Vec<_> = (0..200)
        .map(|_| {
            let credentials = Credentials::generate(&mut SystemEntropy::new());
            WebRtcTransport::new(credentials, context.clone())
        })
        .collect();
    let mut worker = Budgets::of_a_worker();
    let mut outbox = Outbox::default();
    for transport in &mut transports {
        for number in 0..20 {
            let from = tuple(CLIENT.parse().unwrap());
            transport.handle_datagram(Time(0), from, &guess(number), &mut worker, &mut outbox);
        }
    }
    assert_eq!(outbox.sent.len(), 1_000);
}

#[test]
fn a_flood_of_handshakes_is_bounded_and_leaves_room_for_one() {
    let mut world = World::new(Setup::default());
    world.network.filter = |flight| flight.bytes[0] >= 20;
    world.set_remote(DtlsRole::Client).unwrap();
    world.run(Duration::from_secs(1));
    assert_eq!(world.server.ice_state(), ice::State::Completed);
    let ours = tuple(CLIENT.parse().unwrap());
    let mut random = Random(5);
    let mut looked_at = 0;
    for _ in 0..10_000 {
        // Handshake records with random bodies, as good as a parser sees.
        let len = 12 + random.below(200) as usize;
        let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, len as u8];
        record.extend((0..len).map(|_| random.next() as u8));
        match world.deliver(ours, &record) {
            Received::Control => looked_at += 1,
            received => assert_eq!(received, Received::Dropped(Dropped::DtlsFlood)),
        }
    }
    assert!(looked_at <= 101, "{looked_at}");
}

#[test]
fn a_stranger_costs_no_memory() {
    let mut world = World::new(Setup::default());
    let mut random = Random(9);
    for number in 0..100_000_u32 {
        let len = random.below(120) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        if let Some(first) = bytes.first_mut()
            && number % 3 != 0
        {
            *first %= 64;
        }
        let from = tuple(format!("203.0.113.{}:9", number % 256).parse().unwrap());
        let received = world.deliver(from, &bytes);
        assert!(matches!(received, Received::Dropped(_)), "{bytes:?}");
    }
    assert!(world.events.is_empty());
    assert_eq!(world.server.poll_timeout(), None);
    assert_eq!(world.server.dtls_state(), State::New);
    // What is behind it in boxes comes with a handshake. Most of this are the contexts of two HMAC keys.
    assert!(
        size_of::<WebRtcTransport>() <= 4_096,
        "{}",
        size_of::<WebRtcTransport>()
    );
}
