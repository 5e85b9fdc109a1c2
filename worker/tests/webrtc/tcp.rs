//! The same over TCP: frames in two streams of bytes that are cut anywhere.

use std::time::Duration;

use weir_worker::time::Time;
use weir_worker::webrtc::dtls::{DtlsRole, State};
use weir_worker::webrtc::framing::{each_whole, prefix};
use weir_worker::webrtc::ice::{self, Protocol, Tuple};
use weir_worker::webrtc::transport::Event;

use crate::network::{Flight, Network, PERFECT, Random};
use crate::world::{CLIENT, Outbox, SERVER, Setup, World};

fn framed(stream: &mut Vec<u8>, packet: &[u8]) {
    stream.extend_from_slice(&prefix(packet.len()).unwrap());
    stream.extend_from_slice(packet);
}

#[test]
fn a_session_over_a_connection() {
    for seed in 0..6 {
        let mut world = World::new(Setup::default());
        world.set_remote(DtlsRole::Client).unwrap();
        let tuple = Tuple {
            protocol: Protocol::Tcp,
            local: SERVER.parse().unwrap(),
            remote: CLIENT.parse().unwrap(),
        };
        let mut random = Random(seed);
        let (mut to_server, mut to_peer) = (Vec::new(), Vec::new());
        let (mut at_server, mut at_peer) = (Vec::new(), Vec::new());
        let mut outgoing = Network::new(0, PERFECT);
        let mut events = Vec::new();
        while !(world.server.dtls_state() == State::Connected && world.peer.dtls.connected) {
            assert!(world.now < Time::from_millis(20_000), "{events:?}");
            world.now = world.now + Duration::from_millis(5);
            let mut outbox = Outbox::default();
            // A few bytes of each stream arrive.
            let cut = random.below(700) as usize;
            at_server.extend(to_server.drain(..cut.min(to_server.len())));
            let cut = each_whole(&at_server, |packet| {
                world
                    .server
                    .handle_datagram(world.now, tuple, packet, &mut world.worker, &mut outbox);
            });
            at_server.drain(..cut.unwrap().whole);
            world.server.handle_timeout(world.now, &mut outbox);
            for (to, packet) in &outbox.sent {
                assert_eq!(*to, tuple);
                framed(&mut to_peer, packet);
            }
            events.extend(outbox.events);
            let cut = random.below(700) as usize;
            at_peer.extend(to_peer.drain(..cut.min(to_peer.len())));
            let mut packets = Vec::new();
            let cut = each_whole(&at_peer, |packet| packets.push(packet.to_vec()));
            at_peer.drain(..cut.unwrap().whole);
            for bytes in packets {
                let flight = Flight {
                    from: tuple.local,
                    to: tuple.remote,
                    bytes,
                };
                world.peer.handle(world.now, flight, &mut outgoing);
            }
            world.peer.tick(world.now, &mut outgoing);
            while let Some(flight) = outgoing.receive(Time(u64::MAX)) {
                framed(&mut to_server, &flight.bytes);
            }
        }
        assert_eq!(world.server.media_tuple(), Some(&tuple));

        // The connection is all there is.
        let mut outbox = Outbox::default();
        world.server.handle_connection_closed(world.now, &tuple, &mut outbox);
        assert_eq!(
            outbox.events,
            [Event::SelectedTuple(None), Event::Ice(ice::State::Disconnected)]
        );
    }
}
