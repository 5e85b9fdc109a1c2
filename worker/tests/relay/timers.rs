//! What the relay does by the clock: nothing for those on whose transports nothing comes or leaves, and in small turns for all
//! others.

use std::collections::BTreeSet;

use weir_channel::id::ProducerId;
use weir_channel::message::{CodecName, Method, Notification, Profile};
use weir_worker::time::Time;

use crate::sim::track::Track;
use crate::sim::{Sim, for_each_seed, ms};

/// The next time at which the relay wants to be called.
fn next(sim: &Sim) -> Option<Time> {
    sim.relay.next_timeout()
}

/// RTCP packets that have left since the last time.
fn reports(sim: &mut Sim) -> usize {
    std::mem::take(&mut sim.sink.rtcp).len()
}

/// A packet of each layer, the first of a key frame.
fn send(sim: &mut Sim, track: &mut Track) {
    for layer in 0..track.streams.len() {
        let packet = track.streams[layer].key_frame(1).remove(0);
        sim.send(track.request.transport, &[packet]);
    }
}

/// Whoever they are, and whether they have ever sent or received: once nothing comes or leaves, the clock is of no interest.
#[test]
fn nobody_is_looked_at_of_whom_nothing_comes_or_leaves() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let transports: Vec<_> = (0..4).map(|_| sim.transport(room)).collect();
    let unconnected = sim.unconnected_transport(room);
    sim.advance(ms(10_000));
    assert_eq!(next(&sim), None, "transports alone");

    let mut simulcast = sim.simulcast(transports[0]);
    let mut sound = sim.microphone(transports[1]);
    sim.simulcast(transports[3]);
    for track in [&simulcast, &sound] {
        sim.consumer(transports[2], track);
        sim.consumer(unconnected, track);
    }
    sim.advance(ms(10_000));
    assert_eq!(next(&sim), None, "producers that have never sent, and their consumers");

    for _ in 0..50 {
        send(&mut sim, &mut simulcast);
        let packet = sound.stream().sound();
        sim.send(sound.request.transport, &[packet]);
        assert!(next(&sim).is_some());
        sim.advance(ms(100));
    }
    assert!(reports(&mut sim) > 10);
    sim.advance(ms(10_000));
    assert_eq!(next(&sim), None, "they have fallen silent");
    reports(&mut sim);
    sim.advance(ms(100_000));
    assert_eq!(reports(&mut sim), 0);
}

/// A limit is repeated as long as there is one, whatever comes or leaves.
#[test]
fn what_is_to_be_said_again_and_again_is_said_in_silence_too() {
    let mut sim = Sim::new(2);
    let room = sim.room();
    let transport = sim.transport(room);
    let mut track = sim.track(transport, CodecName::Vp8, &[Profile::Low, Profile::High], |request| {
        request.codecs[0].remb = true;
    });
    send(&mut sim, &mut track);
    sim.advance(ms(10_000));
    reports(&mut sim);
    for (bitrate_bps, least, most) in [(Some(100_000), 13, 42), (None, 3, 3)] {
        sim.command(Method::SetMaxBitrate { transport, bitrate_bps });
        sim.advance(ms(20_000));
        let said = reports(&mut sim);
        assert!((least..=most).contains(&said), "{said} times with {bitrate_bps:?}");
    }
    assert_eq!(next(&sim), None);
}

/// Who has been silent for however long is reported on as soon as one who has just come, and so is who receives it.
#[test]
fn after_a_silence_reports_are_as_soon_as_at_the_beginning() {
    for_each_seed(20, |seed| {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let (sender, receiver) = (sim.transport(room), sim.transport(room));
        let mut track = sim.simulcast(sender);
        let consumer = sim.consumer(receiver, &track);
        let (sender, receiver) = (sim.index(sender), sim.index(receiver));
        for silence in [0, 100, 1_900, 2_600, 30_000] {
            sim.advance(ms(silence));
            sim.sink.rtcp.clear();
            for _ in 0..20 {
                send(&mut sim, &mut track);
                sim.advance(ms(100));
            }
            for transport in [sender, receiver] {
                let of_it = |(_, other, _): &&(Time, _, Vec<u8>)| *other == transport;
                let said = sim.sink.rtcp.iter().filter(of_it).count();
                assert!(said >= 1, "{silence} ms of silence, transport {transport:?}");
            }
            assert!(!sim.received(consumer).is_empty());
        }
    });
}

/// However many fall silent at the same time, a call of the relay looks at few, and all are found at once.
#[test]
fn silences_of_thousands_are_found_in_small_turns() {
    const PRODUCERS: usize = 1_000;
    let mut sim = Sim::new(3);
    let room = sim.room();
    let mut tracks: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let transport = sim.transport(room);
            sim.microphone(transport)
        })
        .collect();
    for track in &mut tracks {
        for _ in 0..2 {
            let packet = track.stream().sound();
            sim.send(track.request.transport, &[packet]);
        }
    }
    sim.told();
    let mut silent: BTreeSet<ProducerId> = BTreeSet::new();
    let began = sim.now;
    while silent.len() < PRODUCERS {
        let due = next(&sim).expect("not all are known to be silent");
        sim.now = sim.now.max(due);
        assert!(sim.now.since(began) < ms(2_500), "{} are found", silent.len());
        sim.relay.handle_timeout(sim.now, &mut sim.sink);
        let mut found = 0;
        while let Some(notification) = sim.relay.poll_notification() {
            if let Notification::ProducerActivityChanged {
                producer,
                active: false,
            } = notification
            {
                found += 1;
                silent.insert(producer);
            }
        }
        assert!(found <= 256, "{found} in one turn");
    }
}
