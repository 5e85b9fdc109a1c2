//! Relays that die, at every moment: their successors go on as if nothing had happened. No number is used twice, no receiver sees
//! another break than one of what was about to be sent, and nobody who is paused is sent anything.

mod conferences;

use std::collections::BTreeMap;
use std::time::Duration;

use weir_channel::id::TransportId;
use weir_channel::message::{Method, Profile};

use crate::sim::ms;
use crate::sim::repair::{Call, Link};
use crate::sim::wire::Rtp;

const LAYERS: &[Profile] = &[Profile::Low, Profile::Medium, Profile::High];

/// What a batch can have in it, on one layer.
const BATCH: i128 = 30;

/// A camera and its receivers, some time after they have met.
fn call(seed: u64, profiles: &[Profile], rtx: bool, loss: usize) -> Call {
    let mut call = call_before_it_begins(seed, profiles, rtx, loss);
    call.run(ms(300));
    call
}

/// The same before anything was sent.
fn call_before_it_begins(seed: u64, profiles: &[Profile], rtx: bool, loss: usize) -> Call {
    let link = Link {
        delay_ms: 5,
        loss,
        ..Link::default()
    };
    let mut call = Call::new(seed, profiles, 3, rtx, [link; 4]);
    call.batches = true;
    call
}

/// No number was used twice for different bytes, by whomever.
#[track_caller]
fn judge_indices(call: &Call) {
    let rtx: Vec<_> = call
        .receivers
        .iter()
        .filter_map(|receiver| Some(receiver.request.rtx.as_ref()?.ssrc))
        .collect();
    let mut used: BTreeMap<(TransportId, u32, u16), &[u8]> = BTreeMap::new();
    for (transport, packet) in &call.left {
        let rtp = Rtp::read(packet);
        if let Some(before) = used.insert((*transport, rtp.ssrc, rtp.seq), packet) {
            assert!(
                !rtx.contains(&rtp.ssrc),
                "a retransmission's number {} was used twice",
                rtp.seq
            );
            assert_eq!(before, packet, "number {} of {:#x} was used twice", rtp.seq, rtp.ssrc);
        }
    }
}

/// What came is forwarded or named.
#[track_caller]
fn judge_ledgers(call: &mut Call) {
    for index in 0..call.receivers.len() {
        let consumer = call.receivers[index].consumer;
        let stats = call.sim.stats(consumer);
        let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
        assert_eq!(stats.packets_in, stats.packets_forwarded + dropped, "{stats:?}");
    }
}

/// Everybody is sent what the camera sends now.
#[track_caller]
fn judge_flows(call: &mut Call) {
    let before = call.left.len();
    call.run(ms(150));
    for receiver in &call.receivers {
        let own = call.left[before..]
            .iter()
            .filter(|(to, _)| *to == receiver.request.transport);
        assert!(own.count() > 3, "{} gets nothing any more", receiver.consumer);
    }
}

#[track_caller]
fn judge(call: &mut Call, deaths: i128) {
    judge_flows(call);
    judge_indices(call);
    judge_ledgers(call);
    for receiver in 0..call.receivers.len() {
        call.judge_over_deaths(receiver, BATCH * deaths);
    }
}

#[test]
fn a_relay_may_die_after_every_batch() {
    for rtx in [true, false] {
        for profiles in [LAYERS, &[Profile::Default]] {
            let mut call = call(1, profiles, rtx, 0);
            let asked = call.key_frames_asked;
            call.dies_always = true;
            call.run(ms(600));
            call.dies_always = false;
            assert!(call.sim.deaths > 15, "{}", call.sim.deaths);
            // Nothing was under way, so nothing was lost, and no start was needed.
            assert_eq!(call.key_frames_asked, asked);
            call.run(ms(300));
            judge(&mut call, 0);
            for receiver in 0..3 {
                assert_eq!(
                    call.judge_over_deaths(receiver, 0).len(),
                    segments_before(rtx, profiles, receiver)
                );
            }
        }
    }
}

/// How often a receiver's flow starts when nobody dies.
fn segments_before(rtx: bool, profiles: &[Profile], receiver: usize) -> usize {
    let mut call = call(1, profiles, rtx, 0);
    call.run(ms(900));
    call.judge_over_deaths(receiver, 0).len()
}

#[test]
fn a_relay_may_die_after_every_batch_of_a_lossy_call() {
    for seed in 0..4 {
        let mut call = call(seed, LAYERS, seed % 2 == 0, 20);
        call.dies_always = true;
        call.run(ms(1_000));
        call.dies_always = false;
        call.run(ms(1_000));
        judge(&mut call, 0);
    }
}

/// The stores of a scenario are counted, and it is played as often: each time the relay dies before another one of them. After some
/// time everything is as it was: what was lost is repaired, or shown anew by a key frame, of which one may be asked for in a second.
fn at_every_store(seed: u64, profiles: &[Profile], rtx: bool, settles: Duration, scenario: impl Fn(&mut Call)) {
    at_every_store_of(|| call(seed, profiles, rtx, 0), settles, scenario);
}

fn at_every_store_of(call: impl Fn() -> Call, settles: Duration, scenario: impl Fn(&mut Call)) {
    let play = |dies_after: Option<u64>| {
        let mut call = call();
        let before = call.sim.page.stores();
        if let Some(stores) = dies_after {
            call.sim.page.kill_after(before + stores);
        }
        let first = call.sim.page.clone();
        scenario(&mut call);
        (call, first.stores() - before)
    };
    let (_, stores) = play(None);
    assert!(stores > 100, "{stores}");
    for dies_after in 0..stores {
        let (mut call, stored) = play(Some(dies_after));
        assert_eq!((stored, call.sim.deaths), (dies_after, 1), "it dies once");
        call.run(settles);
        judge(&mut call, 1);
    }
}

#[test]
fn a_relay_may_die_at_every_store_of_a_call_with_retransmissions() {
    at_every_store(1, &[Profile::Low, Profile::High], true, ms(400), |call| {
        call.run(ms(50))
    });
}

/// Who has had nothing before begins with a key frame, though the first one may have been counted as sent and never have left.
#[test]
fn a_relay_may_die_at_every_store_before_a_receiver_has_had_anything() {
    for (seed, profiles, rtx) in [
        (1, &[Profile::Low, Profile::High][..], true),
        (2, &[Profile::Default], false),
    ] {
        let set_paused = |call: &mut Call, paused| {
            let consumer = call.receivers[0].consumer;
            call.order(Method::SetConsumerPaused { consumer, paused });
        };
        let call = || {
            let mut call = call_before_it_begins(seed, profiles, rtx, 0);
            set_paused(&mut call, true);
            call.run(ms(1_100));
            assert!(call.receivers[0].packets.is_empty());
            call
        };
        at_every_store_of(call, ms(1_400), |call| {
            set_paused(call, false);
            call.run(ms(70));
        });
    }
}

#[test]
fn a_relay_may_die_at_every_store_of_a_plain_call() {
    at_every_store(2, &[Profile::Default], false, ms(400), |call| call.run(ms(70)));
}

#[test]
fn a_relay_may_die_at_every_store_of_commands() {
    at_every_store(3, &[Profile::Low, Profile::High], true, ms(1_300), |call| {
        let [paused, prefers, _] = [0, 1, 2].map(|index| call.receivers[index].consumer);
        let producer = call.track.id();
        call.run(ms(10));
        call.order(Method::SetConsumerPaused {
            consumer: paused,
            paused: true,
        });
        let quiet = call.left.len();
        call.order(Method::SetConsumerPreferredProfile {
            consumer: prefers,
            profile: Profile::Low,
        });
        call.run(ms(40));
        let transport = call.receivers[0].request.transport;
        let own = call.left[quiet..].iter().filter(|(to, _)| *to == transport).count();
        assert_eq!(own, 0, "a paused consumer was sent something");
        call.order(Method::SetConsumerPaused {
            consumer: paused,
            paused: false,
        });
        call.run(ms(40));
        call.order(Method::SetProducerPaused { producer, paused: true });
        let quiet = call.left.len();
        call.run(ms(40));
        assert_eq!(call.left.len(), quiet, "a paused producer was relayed");
        call.order(Method::SetProducerPaused {
            producer,
            paused: false,
        });
        call.run(ms(40));
    });
}
