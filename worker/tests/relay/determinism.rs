//! The same input gives the same output, byte for byte.

use weir_channel::message::{CodecName, Notification, Profile};
use weir_worker::relay::sink::TransportIx;
use weir_worker::time::Time;

use crate::sim::live::Live;
use crate::sim::network::Network;
use crate::sim::recorder::Train;
use crate::sim::{Sim, ms};

/// Everything that came out of a relay.
type Output = (Vec<Train>, Vec<(Time, TransportIx, Vec<u8>)>, Vec<Notification>);

/// A conference over bad networks: everybody sends and receives, some come and go.
fn conference(seed: u64) -> Output {
    let mut sim = Sim::new(seed);
    let room = sim.room();
    let mut tracks = Vec::new();
    for index in 0..4 {
        let transport = sim.transport(room);
        tracks.push(sim.microphone(transport));
        tracks.push(if index % 2 == 0 {
            sim.simulcast(transport)
        } else {
            sim.camera(transport, CodecName::H264)
        });
    }
    let mut consumers = Vec::new();
    for track in &tracks {
        for other in &tracks {
            if track.transport() != other.transport() && track.request.kind == other.request.kind {
                consumers.push(sim.consumer(other.transport(), track));
            }
        }
    }
    let mut live = Live::new(sim);
    for track in tracks {
        live.start(track, Network::BAD);
    }
    let mut asks = Vec::new();
    for round in 0..60 {
        live.run(ms(100));
        let consumer = consumers[round % consumers.len()];
        match round % 5 {
            0 => live.sim.pause(consumer),
            1 => live.sim.prefer(consumer, Profile::Low),
            2 => live.sim.pli(consumer),
            3 => live.sim.resume(consumers[(round - 3) % consumers.len()]),
            _ => {
                let producer = live.senders[round % live.senders.len()].track.id();
                live.sim.pause_producer(producer);
                live.sim.resume_producer(producer);
            }
        }
        asks.extend(live.sim.sink.rtcp.iter().cloned());
    }
    live.sim.check_accounts();
    (std::mem::take(&mut live.sim.sink.trains), asks, live.sim.told())
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..3 {
        let (first, second) = (conference(seed), conference(seed));
        assert!(first.0.len() > 5_000 && !first.1.is_empty() && !first.2.is_empty());
        assert!(first == second, "seed {seed} gave two different outputs");
    }
    assert!(conference(0) != conference(1), "the seed means nothing");
}
