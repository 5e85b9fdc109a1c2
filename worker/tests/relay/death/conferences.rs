//! The same of relays whose turns have several batches, with sound, learned addresses, packets that are gathered, packets that are
//! withheld, retransmissions and simulcast.

use weir_channel::message::{CodecName, Method, Profile};

use super::LAYERS;
use crate::sim::conference::{Conference, Dies};

/// So often a relay dies that dies now and then, of a thousand batches.
const OFTEN: usize = 200;

/// A microphone whose sound comes with what some do not receive, from an address that has to be learned. Of its receivers two are on
/// one transport and one is alone.
fn talk(seed: u64) -> Conference {
    let mut talk = Conference::new(seed);
    let from = talk.comedia();
    let sender = talk.sender(from, CodecName::Opus, &[Profile::Default], false, true);
    let room = talk.room;
    let (shared, own) = (talk.sim.transport(room), talk.sim.transport(room));
    talk.receiver(shared, sender, false, true);
    talk.receiver(shared, sender, false, false);
    talk.receiver(own, sender, false, true);
    talk
}

/// A camera with layers, a camera and a microphone of one sender, from a learned address. One transport receives all three, another one the
/// layers, with retransmissions.
fn meeting(seed: u64) -> Conference {
    let mut meeting = Conference::new(seed);
    let from = meeting.comedia();
    let senders = [
        meeting.sender(from, CodecName::Vp8, LAYERS, true, false),
        meeting.sender(from, CodecName::Vp8, &[Profile::Default], true, false),
        meeting.sender(from, CodecName::Opus, &[Profile::Default], false, false),
    ];
    let room = meeting.room;
    let (shared, own) = (meeting.sim.transport(room), meeting.sim.transport(room));
    for (sender, rtx) in senders.into_iter().zip([true, true, false]) {
        meeting.receiver(shared, sender, rtx, false);
    }
    meeting.receiver(own, senders[0], true, false);
    meeting
}

/// As of one that has gone on for some time.
fn after_a_while(mut conference: Conference) -> Conference {
    conference.run(300);
    conference
}

/// The stores of a scenario are counted, and it is played as often: each time the relay dies before another one of them.
fn at_every_store(
    conference: impl Fn() -> Conference,
    settles_ms: u64,
    scenario: impl Fn(&mut Conference),
    judge: impl Fn(&mut Conference),
) {
    let play = |dies_after: Option<u64>| {
        let mut conference = conference();
        let before = conference.sim.page.stores();
        if let Some(stores) = dies_after {
            conference.sim.page.kill_after(before + stores);
        }
        let first = conference.sim.page.clone();
        scenario(&mut conference);
        (conference, first.stores() - before)
    };
    let (_, stores) = play(None);
    assert!(stores > 100, "{stores}");
    for dies_after in 0..stores {
        let (mut conference, stored) = play(Some(dies_after));
        assert_eq!((stored, conference.sim.deaths), (dies_after, 1), "it dies once");
        conference.run(settles_ms);
        conference.judge(1);
        judge(&mut conference);
    }
}

/// Nothing is lost for good by those who can be sent something again, and by others what was in hand.
fn judge_losses(conference: &mut Conference) {
    for receiver in 0..conference.receivers.len() {
        let lacks = conference.lacks(receiver);
        let rtx = conference.receivers[receiver].request.rtx.is_some();
        assert!(lacks <= if rtx { 0 } else { 3 }, "receiver {receiver} lacks {lacks}");
    }
}

#[test]
fn a_relay_may_die_at_every_store_of_a_talk() {
    at_every_store(|| after_a_while(talk(1)), 300, |talk| talk.run(45), judge_losses);
}

#[test]
fn a_relay_may_die_at_every_store_before_it_knows_who_talks() {
    at_every_store(|| talk(2), 300, |talk| talk.run(45), |_| ());
}

#[test]
fn a_relay_may_die_at_every_store_of_a_meeting() {
    at_every_store(
        || after_a_while(meeting(3)),
        400,
        |meeting| meeting.run(40),
        judge_losses,
    );
}

#[test]
fn a_relay_may_die_at_every_store_of_a_meeting_that_begins() {
    at_every_store(|| meeting(4), 1_400, |meeting| meeting.run(20), |_| ());
}

#[test]
fn a_relay_may_die_at_every_store_of_commands_about_what_is_gathered() {
    let scenario = |meeting: &mut Conference| {
        let [layers, camera, sound] = [0, 1, 2].map(|index| meeting.receivers[index].consumer);
        meeting.run(10);
        for consumer in [camera, sound] {
            meeting.order(Method::SetConsumerPaused { consumer, paused: true });
            meeting.silenced.insert(consumer);
        }
        meeting.order(Method::SetConsumerPreferredProfile {
            consumer: layers,
            profile: Profile::Low,
        });
        meeting.run(40);
        for consumer in [camera, sound] {
            meeting.silenced.remove(&consumer);
            meeting.order(Method::SetConsumerPaused {
                consumer,
                paused: false,
            });
        }
        meeting.run(40);
        let producer = meeting.senders[1].track.id();
        meeting.order(Method::SetProducerPaused { producer, paused: true });
        meeting.silenced.insert(camera);
        meeting.run(20);
        meeting.silenced.remove(&camera);
        meeting.order(Method::SetProducerPaused {
            producer,
            paused: false,
        });
        meeting.run(20);
    };
    at_every_store(|| after_a_while(meeting(5)), 1_300, scenario, |_| ());
}

#[test]
fn a_relay_may_die_after_every_turn() {
    for conference in [talk(6), meeting(6)] {
        let mut conference = after_a_while(conference);
        let asked = conference.key_frames_asked;
        conference.dies = Dies::AfterTurns;
        conference.run(600);
        conference.dies = Dies::Never;
        assert_eq!(conference.sim.deaths, 120);
        // Nothing was under way, so nothing was lost, and no start was needed.
        assert_eq!(conference.key_frames_asked, asked);
        conference.judge(0);
        for receiver in 0..conference.receivers.len() {
            assert_eq!(conference.lacks(receiver), 0, "receiver {receiver}");
        }
    }
}

/// Also when its predecessor has left nothing of a turn.
#[test]
fn a_relay_may_die_after_any_batch() {
    for seed in 0..4 {
        for conference in [talk(seed), meeting(seed)] {
            let mut conference = after_a_while(conference);
            conference.dies = Dies::AfterBatches(OFTEN);
            conference.run(1_000);
            conference.dies = Dies::Never;
            let deaths = conference.sim.deaths;
            assert!(deaths > 10, "{deaths}");
            conference.run(1_400);
            conference.judge(i128::from(deaths));
        }
    }
}
