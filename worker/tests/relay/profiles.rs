//! Simulcast: which layer a consumer gets, when it changes, and what its owner is told.

use std::time::Duration;

use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, DropReason, Method, Profile, Remote};

use Profile::{Default as D, High as H, Low as L, Medium as M};

use crate::sim::track::Track;
use crate::sim::{Sim, ms};

/// A simulcast camera with these layers, none of which has sent yet.
fn camera(sim: &mut Sim, profiles: &[Profile]) -> Track {
    let room = sim.room();
    let sender = sim.transport(room);
    sim.track(sender, CodecName::Vp8, profiles, |_| {})
}

fn viewer(sim: &mut Sim, track: &Track) -> ConsumerId {
    let receiver = sim.transport(track.request.room);
    sim.consumer(receiver, track)
}

/// A frame of one layer.
fn send(sim: &mut Sim, track: &mut Track, profile: Profile, key: bool) {
    let frame = track.layer(profile).frame_of(2, key);
    sim.send(track.request.transport, &frame);
}

/// A frame of each of some layers, every 100 ms, for a while.
fn run(sim: &mut Sim, track: &mut Track, profiles: &[Profile], duration: Duration) {
    for _ in 0..duration.as_millis() / 100 {
        sim.advance(ms(100));
        for profile in profiles {
            send(sim, track, *profile, false);
        }
    }
}

fn source_prefers(sim: &mut Sim, track: &Track, profile: Profile) {
    sim.command(Method::SetProducerPreferredProfile {
        producer: track.id(),
        profile,
    });
}

/// What flows to a consumer, by its statistics.
fn effective(sim: &mut Sim, consumer: ConsumerId) -> Option<Profile> {
    sim.stats(consumer).effective_profile
}

/// The documented rule (differences §4), one row for each case: on offer, the consumer's wish, the producer's, what
/// flows.
const RULE: [(&[Profile], Profile, Profile, Profile); 26] = [
    // Without simulcast every wish gets the only stream.
    (&[D], D, D, D),
    (&[D], L, D, D),
    (&[D], H, L, D),
    (&[D], D, L, D),
    // No wish: the highest.
    (&[L, M, H], D, D, H),
    (&[L, M], D, D, M),
    (&[M, H], D, D, H),
    (&[L], D, D, L),
    // The own wish is a cap.
    (&[L, M, H], L, D, L),
    (&[L, M, H], M, D, M),
    (&[L, M, H], H, D, H),
    (&[L, H], M, D, L),
    (&[L, M], H, D, M),
    // The producer's wish counts where the consumer has none (v2 sent the lowest instead).
    (&[L, M, H], D, L, L),
    (&[L, M, H], D, M, M),
    (&[L, M, H], D, H, H),
    (&[L, H], D, M, L),
    // The own wish wins over the producer's, both ways.
    (&[L, M, H], H, L, H),
    (&[L, M, H], L, H, L),
    (&[L, M, H], M, L, M),
    (&[L, M, H], M, H, M),
    // Everything lies above the cap: the lowest there is.
    (&[M, H], L, D, M),
    (&[H], L, D, H),
    (&[H], D, L, H),
    (&[M, H], D, L, M),
    (&[H], M, L, H),
];

#[test]
fn what_flows_is_what_the_rule_says() {
    for (available, own, source, expected) in RULE {
        // Whatever the order in which wishes are made, the stream appears, and the consumer comes.
        for order in 0..6 {
            let mut sim = Sim::new(order);
            let layers: &[Profile] = if available == [D] { &[D] } else { &[L, M, H] };
            let mut track = camera(&mut sim, layers);
            let mut consumer = None;
            let steps = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][order as usize];
            for step in steps {
                match step {
                    0 => {
                        let receiver = sim.transport(track.request.room);
                        let request = |request: &mut weir_channel::message::CreateConsumer| {
                            request.preferred_profile = if order % 2 == 0 { own } else { H };
                        };
                        consumer = Some(sim.consumer_with(receiver, &track, request));
                    }
                    1 => source_prefers(&mut sim, &track, source),
                    _ => {
                        for profile in available {
                            send(&mut sim, &mut track, *profile, true);
                        }
                    }
                }
            }
            let consumer = consumer.expect("one of the steps");
            sim.prefer(consumer, own);
            for profile in available.iter().chain(available) {
                send(&mut sim, &mut track, *profile, true);
            }
            // Changes that come one after the other are told together.
            sim.advance(ms(100));
            let case = format!("{available:?}, own {own}, source {source}, order {order}");
            let stats = sim.stats(consumer);
            assert_eq!(stats.effective_profile, Some(expected), "{case}");
            assert_eq!(stats.target_profile, Some(expected), "{case}");
            assert_eq!(sim.changes().last(), Some(&(consumer, Some(expected))), "{case}");
            // And it is not only said: these packets flow, the others do not.
            sim.marks(consumer);
            for profile in available {
                send(&mut sim, &mut track, *profile, false);
                let flowed = !sim.marks(consumer).is_empty();
                assert_eq!(flowed, *profile == expected, "{case}: {profile}");
            }
            sim.check_accounts();
        }
    }
}

#[test]
fn a_switch_waits_for_the_key_frame_of_its_target() {
    let mut sim = Sim::new(1);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    assert_eq!(sim.changes(), [(consumer, Some(H))]);
    for (wish, old, new) in [(L, H, L), (M, L, M), (H, M, H), (D, H, H)] {
        sim.settle();
        sim.marks(consumer);
        sim.prefer(consumer, wish);
        if old == new {
            assert_eq!(sim.stats(consumer).target_profile, Some(new));
            continue;
        }
        // The old one flows on, on its key frames too; those of a third layer change nothing.
        for key in [false, true, false] {
            for profile in [L, M, H] {
                send(&mut sim, &mut track, profile, key && profile != new);
            }
        }
        let stats = sim.stats(consumer);
        assert_eq!((stats.effective_profile, stats.target_profile), (Some(old), Some(new)));
        let old_stream = track.layer(old).number;
        let marks = sim.marks(consumer);
        assert_eq!(marks.len(), 6);
        assert!(marks.iter().all(|mark| mark.stream == old_stream));
        assert_eq!(sim.changes(), []);
        // A key frame whose first packet is lost does not do.
        let mut key = track.layer(new).key_frame(3);
        key.remove(0);
        sim.send(track.request.transport, &key);
        assert_eq!(effective(&mut sim, consumer), Some(old));
        // This one does: from its first packet on, and nothing of the old one behind it.
        send(&mut sim, &mut track, new, true);
        for profile in [L, M, H] {
            send(&mut sim, &mut track, profile, false);
        }
        let new_stream = track.layer(new).number;
        let marks = sim.marks(consumer);
        assert!(marks[0].key && marks.len() == 4, "{marks:?}");
        assert!(marks.iter().all(|mark| mark.stream == new_stream));
        assert_eq!(sim.changes(), [(consumer, Some(new))]);
    }
    assert_eq!(sim.stats(consumer).switches, 4);
    sim.check_accounts();
}

#[test]
fn changing_ones_mind_before_the_key_frame_changes_nothing() {
    let mut sim = Sim::new(2);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    sim.changes();
    sim.prefer(consumer, L);
    run(&mut sim, &mut track, &[L, M, H], ms(300));
    sim.prefer(consumer, H);
    sim.marks(consumer);
    for profile in [L, M, H] {
        send(&mut sim, &mut track, profile, profile == L);
    }
    let high = track.layer(H).number;
    assert!(sim.marks(consumer).iter().all(|mark| mark.stream == high));
    // From one target to another, without arriving at the first.
    sim.prefer(consumer, L);
    sim.prefer(consumer, M);
    for profile in [L, M] {
        send(&mut sim, &mut track, profile, true);
    }
    assert_eq!(sim.changes(), [(consumer, Some(M))]);
    sim.check_accounts();
}

#[test]
fn layers_that_appear_are_climbed_to() {
    let mut sim = Sim::new(3);
    let mut track = camera(&mut sim, &[L, M, H]);
    let unlimited = viewer(&mut sim, &track);
    let capped = viewer(&mut sim, &track);
    sim.prefer(capped, M);
    send(&mut sim, &mut track, L, true);
    assert_eq!(sim.changes().len(), 2);
    sim.settle();
    send(&mut sim, &mut track, M, true);
    let mut changes = sim.changes();
    changes.sort();
    assert_eq!(changes, [(unlimited, Some(M)), (capped, Some(M))]);
    sim.settle();
    // The highest begins in the middle of a picture: the lower one flows on until there is a key frame.
    send(&mut sim, &mut track, H, false);
    let stats = sim.stats(unlimited);
    assert_eq!((stats.effective_profile, stats.target_profile), (Some(M), Some(H)));
    sim.marks(unlimited);
    send(&mut sim, &mut track, M, false);
    assert_eq!(sim.marks(unlimited).len(), 2);
    send(&mut sim, &mut track, H, true);
    assert_eq!(sim.changes(), [(unlimited, Some(H))]);
    assert_eq!(effective(&mut sim, capped), Some(M));
}

/// What the relay says is on offer.
fn active(sim: &mut Sim, track: &Track) -> Vec<Profile> {
    let streams = sim.producer_stats(track.id()).streams;
    streams
        .iter()
        .filter(|stream| stream.active)
        .map(|stream| stream.profile)
        .collect()
}

#[test]
fn a_layer_that_falls_silent_is_taken_off_the_offer_after_a_second() {
    let mut sim = Sim::new(4);
    let mut track = camera(&mut sim, &[L, M, H]);
    let born = sim.now; // activity is looked at every 250 ms from here
    let consumer = viewer(&mut sim, &track);
    let low = viewer(&mut sim, &track);
    sim.prefer(low, L);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    run(&mut sim, &mut track, &[L, M, H], ms(2_000));
    sim.changes();
    sim.asked();
    let last = sim.now;
    assert_eq!(last.since(born), ms(2_000));
    // 900 ms of silence are nothing, and neither is more while the others have not gone on either.
    run(&mut sim, &mut track, &[L, M], ms(900));
    sim.advance(ms(99));
    assert_eq!(sim.changes(), []);
    assert_eq!(active(&mut sim, &track), [L, M, H]);
    // At the check at 3,000 the others are 900 ms ahead; at the next one more than a second.
    sim.advance(ms(51));
    send(&mut sim, &mut track, M, false);
    sim.advance(ms(199));
    assert_eq!(sim.changes(), []);
    sim.advance(ms(1));
    assert_eq!(sim.changes(), [(consumer, None)]);
    assert_eq!(active(&mut sim, &track), [L, M]);
    let stats = sim.stats(consumer);
    assert_eq!((stats.effective_profile, stats.target_profile), (None, Some(M)));
    assert_eq!(
        sim.asked_ssrcs(),
        [track.layer(M).ssrc],
        "its successor is asked for a key frame at once"
    );
    sim.marks(consumer);
    run(&mut sim, &mut track, &[L, M], ms(300));
    assert_eq!(sim.marks(consumer), [], "nothing flows until the key frame");
    send(&mut sim, &mut track, M, true);
    assert_eq!(sim.changes(), [(consumer, Some(M))]);
    // It comes back: with its first packet it is on offer, with its key frame it flows.
    run(&mut sim, &mut track, &[L, M], ms(5_000));
    send(&mut sim, &mut track, H, false);
    assert_eq!(active(&mut sim, &track), [L, M, H]);
    assert_eq!(sim.stats(consumer).target_profile, Some(H));
    send(&mut sim, &mut track, H, true);
    assert_eq!(sim.changes(), [(consumer, Some(H))]);
    assert_eq!(sim.stats(consumer).switches, 3);
    sim.check_accounts();
}

#[test]
fn silence_is_noticed_at_the_next_check() {
    for silent_at in [10, 100, 240, 250, 260, 490] {
        let mut sim = Sim::new(5);
        let mut track = camera(&mut sim, &[L, H]);
        let consumer = viewer(&mut sim, &track);
        for step in 1..=silent_at / 10 {
            sim.advance(ms(10));
            send(&mut sim, &mut track, H, step == 1);
            send(&mut sim, &mut track, L, step == 1);
        }
        sim.changes();
        let last = sim.now;
        while sim.notifications.is_empty() {
            sim.advance(ms(1));
            if sim.now.0.is_multiple_of(10_000_000) {
                send(&mut sim, &mut track, L, false);
            }
        }
        // The others' newest packet is up to 10 ms old when it is looked at.
        let expected = (silent_at + 1_010_u64).next_multiple_of(250) - silent_at;
        assert_eq!(sim.now.since(last), ms(expected), "silent at {silent_at}");
        assert_eq!(sim.changes(), [(consumer, None)]);
    }
}

#[test]
fn all_layers_silent_is_no_reason_to_change() {
    let mut sim = Sim::new(6);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    sim.changes();
    sim.advance(ms(60_000));
    assert_eq!(sim.changes(), []);
    assert_eq!(active(&mut sim, &track), [], "nothing is sent, and that is said");
    // All go on where they were: so does the consumer, without a key frame.
    sim.marks(consumer);
    for profile in [L, M, H] {
        send(&mut sim, &mut track, profile, false);
    }
    assert_eq!(sim.marks(consumer).len(), 2);
    run(&mut sim, &mut track, &[L, M, H], ms(2_000));
    assert_eq!(sim.changes(), []);
}

/// v2 looked at edges only: if all layers stopped and one resumed, the others stayed on offer, and consumers frozen.
#[test]
fn after_a_silence_of_all_only_those_that_resume_stay_on_offer() {
    let mut sim = Sim::new(7);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    sim.changes();
    sim.advance(ms(10_000));
    sim.told();
    run(&mut sim, &mut track, &[L], ms(300));
    assert_eq!(active(&mut sim, &track), [L]);
    assert_eq!(sim.changes(), [(consumer, None)]);
    sim.settle();
    send(&mut sim, &mut track, L, true);
    assert_eq!(sim.changes(), [(consumer, Some(L))]);
}

#[test]
fn a_target_that_dies_before_its_key_frame_is_given_up() {
    let mut sim = Sim::new(8);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    send(&mut sim, &mut track, L, true);
    send(&mut sim, &mut track, H, false);
    assert_eq!(sim.stats(consumer).target_profile, Some(H));
    sim.changes();
    run(&mut sim, &mut track, &[L], ms(2_000));
    let stats = sim.stats(consumer);
    assert_eq!((stats.effective_profile, stats.target_profile), (Some(L), Some(L)));
    assert_eq!(sim.changes(), [], "what flowed flows on");
    sim.marks(consumer);
    run(&mut sim, &mut track, &[L], ms(100));
    assert_eq!(sim.marks(consumer).len(), 2);
}

#[test]
fn a_layer_that_dies_under_a_switch_leaves_the_target() {
    let mut sim = Sim::new(9);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    sim.prefer(consumer, M);
    sim.changes();
    run(&mut sim, &mut track, &[L, M], ms(1_500));
    assert_eq!(sim.changes(), [(consumer, None)]);
    assert_eq!(sim.stats(consumer).target_profile, Some(M));
    send(&mut sim, &mut track, M, true);
    assert_eq!(sim.changes(), [(consumer, Some(M))]);
}

#[test]
fn a_paused_producers_layers_are_watched_too() {
    let mut sim = Sim::new(10);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    sim.changes();
    sim.pause_producer(track.id());
    run(&mut sim, &mut track, &[L, M], ms(2_000));
    assert_eq!(sim.changes(), [(consumer, None)]);
    assert_eq!(active(&mut sim, &track), [L, M]);
    sim.resume_producer(track.id());
    assert_eq!(sim.asked_ssrcs(), [track.layer(M).ssrc]);
    send(&mut sim, &mut track, M, true);
    assert_eq!(sim.changes(), [(consumer, Some(M))]);
}

/// Wishes that change while a consumer is paused are what it gets when it is resumed.
#[test]
fn wishes_made_in_a_pause_count_after_it() {
    let mut sim = Sim::new(11);
    let mut track = camera(&mut sim, &[L, M, H]);
    let consumer = viewer(&mut sim, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    run(&mut sim, &mut track, &[L, M, H], ms(2_000));
    sim.changes();
    sim.pause(consumer);
    sim.prefer(consumer, L);
    assert_eq!(sim.changes(), [], "nothing flows, nothing changes");
    sim.resume(consumer);
    sim.marks(consumer);
    send(&mut sim, &mut track, L, true);
    assert_eq!(sim.changes(), [(consumer, Some(L))]);
    assert!(sim.marks(consumer)[0].key);
    sim.check_accounts();
}

#[test]
fn audio_and_lone_streams_say_once_that_they_flow_and_never_fall_silent() {
    for codec in [CodecName::Opus, CodecName::Vp8] {
        let mut sim = Sim::new(12);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, codec);
        let consumer = viewer(&mut sim, &track);
        let frame = track.stream().key_frame(1);
        sim.send(sender, &frame);
        assert_eq!(sim.changes(), [(consumer, Some(D))]);
        sim.advance(ms(60_000));
        let frame = track.stream().delta_frame(1);
        sim.send(sender, &frame);
        assert_eq!(sim.marks(consumer).len(), 2);
        assert_eq!(sim.changes(), []);
        assert_eq!(sim.stats(consumer).switches, 1);
    }
}

#[test]
fn a_consumer_out_of_reach_gets_what_it_wants_when_it_is_in_reach() {
    let mut sim = Sim::new(13);
    let mut track = camera(&mut sim, &[L, M, H]);
    let receiver = sim.unconnected_transport(track.request.room);
    let consumer = sim.consumer(receiver, &track);
    for profile in [H, M, L] {
        send(&mut sim, &mut track, profile, true);
    }
    sim.prefer(consumer, M);
    run(&mut sim, &mut track, &[L, M, H], ms(500));
    assert_eq!(sim.changes(), []);
    let stats = sim.stats(consumer);
    assert_eq!((stats.effective_profile, stats.target_profile), (None, Some(M)));
    let rtp = sim.addresses[&receiver];
    sim.command(Method::SetRemote {
        transport: receiver,
        remote: Remote { rtp, rtcp: None },
    });
    for profile in [H, L, M] {
        send(&mut sim, &mut track, profile, true);
    }
    assert_eq!(sim.changes(), [(consumer, Some(M))]);
    assert!(sim.dropped(consumer, DropReason::NoRemote) > 0);
    sim.check_accounts();
}

/// A wish that changes all the time, and a stream that comes and goes, as a client can have it: a change is told at once, then no more
/// than one in 100 ms, and the last state always.
mod flapping {
    use proptest::prelude::*;

    use super::*;
    use weir_worker::time::Time;

    const REST: Duration = ms(100);

    #[derive(Clone, Debug)]
    enum Step {
        Wish(Profile),
        Key(Profile),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let profile = || prop_oneof![Just(L), Just(M), Just(H)];
        prop_oneof![
            profile().prop_map(Step::Wish),
            profile().prop_map(Step::Key),
            (1_u64..60).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn changes_that_flap_are_told_now_and_then_and_the_last_state_always(steps in prop::collection::vec(step(), 1..200)) {
            let mut sim = Sim::new(9);
            let mut track = camera(&mut sim, &[L, M, H]);
            let consumers = [viewer(&mut sim, &track), viewer(&mut sim, &track)];
            for profile in [L, M, H] {
                send(&mut sim, &mut track, profile, true);
            }
            let mut told: Vec<(Time, ConsumerId, Option<Profile>)> = Vec::new();
            let listen = |sim: &mut Sim, told: &mut Vec<_>| {
                let now = sim.now;
                told.extend(sim.changes().into_iter().map(|(consumer, profile)| (now, consumer, profile)));
            };
            listen(&mut sim, &mut told);
            for step in steps {
                match step {
                    Step::Wish(profile) => sim.prefer(consumers[0], profile),
                    Step::Key(profile) => send(&mut sim, &mut track, profile, true),
                    Step::Pass(time) => for _ in 0..time {
                        sim.advance(ms(1));
                        listen(&mut sim, &mut told);
                    },
                }
                listen(&mut sim, &mut told);
            }
            sim.advance(REST);
            listen(&mut sim, &mut told);
            for consumer in consumers {
                let own: Vec<_> = told.iter().filter(|(_, of, _)| *of == consumer).collect();
                for pair in own.windows(2) {
                    prop_assert!(pair[1].0.since(pair[0].0) >= REST, "{own:?}");
                    prop_assert_ne!(pair[0].2, pair[1].2, "no change is told: {:?}", own);
                }
                prop_assert_eq!(own.last().unwrap().2, effective(&mut sim, consumer));
            }
        }
    }

    #[test]
    fn a_change_is_told_at_once_and_one_that_was_undone_not_at_all() {
        let mut sim = Sim::new(1);
        let mut track = camera(&mut sim, &[L, H]);
        let consumer = viewer(&mut sim, &track);
        for profile in [L, H] {
            send(&mut sim, &mut track, profile, true);
        }
        sim.settle();
        sim.settle();
        let wish = |sim: &mut Sim, track: &mut Track, profile| {
            sim.prefer(consumer, profile);
            send(sim, track, profile, true);
        };
        wish(&mut sim, &mut track, L);
        assert_eq!(sim.changes(), [(consumer, Some(L))]);
        wish(&mut sim, &mut track, H);
        wish(&mut sim, &mut track, L);
        sim.advance(ms(1_000));
        assert_eq!(sim.changes(), []);
        // One that stays is told when it is time to.
        wish(&mut sim, &mut track, H);
        assert_eq!(sim.changes(), [(consumer, Some(H))]);
        wish(&mut sim, &mut track, L);
        sim.advance(ms(99));
        assert_eq!(sim.changes(), []);
        sim.advance(ms(1));
        assert_eq!(sim.changes(), [(consumer, Some(L))]);
    }
}
