//! Audio levels: who is told of, how loud, how often (differences §10, RFC 6464).

use weir_channel::id::{ProducerId, RoomId};
use weir_channel::message::{AUDIO_LEVELS_MAX, CodecName, Method, Notification, Profile, WorkerError};

use crate::sim::stream::Packet;
use crate::sim::track::{AUDIO_LEVEL, Track};
use crate::sim::wire::Form;
use crate::sim::{Sim, ms};

/// A packet of sound that is as loud as it says; of voice, or not.
fn sound(track: &mut Track, level: u8, voice: bool) -> Packet {
    track.stream().extensions = vec![(AUDIO_LEVEL, vec![level | u8::from(voice) << 7])];
    track.stream().sound()
}

fn listen(sim: &mut Sim, room: RoomId, enabled: bool) {
    sim.command(Method::SetAudioLevels { room, enabled });
}

/// What was told since the last time.
fn told(sim: &mut Sim) -> Vec<(RoomId, Vec<(ProducerId, i8)>)> {
    sim.told()
        .into_iter()
        .filter_map(|notification| match notification {
            Notification::AudioLevels { room, levels } => Some((room, levels)),
            _ => None,
        })
        .collect()
}

#[test]
fn averages_of_half_a_second_the_loudest_first_also_of_nobody() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let (mut quiet, mut loud, mut plain) = (sim.microphone(sender), sim.microphone(sender), sim.microphone(sender));
    // Before anybody wants to know.
    let early = sound(&mut quiet, 0, false);
    sim.send(sender, &[early]);
    sim.advance(ms(2_000));
    assert_eq!(told(&mut sim), []);

    listen(&mut sim, room, true);
    for (level, voice) in [(10, true), (11, false), (127, true)] {
        let packet = sound(&mut quiet, level, voice);
        sim.send(sender, &[packet]);
    }
    loud.stream().form = Form::TwoByte;
    let packet = sound(&mut loud, 49, false);
    // Twice is once.
    sim.send(sender, &[packet.clone(), packet]);
    let silent = plain.stream().sound();
    sim.send(sender, &[silent]);
    sim.advance(ms(499));
    assert_eq!(told(&mut sim), []);
    sim.advance(ms(1));
    // (10 + 11 + 127) / 3 = 49.3: they are equal, and so in the order of their making.
    assert_eq!(told(&mut sim), [(room, vec![(quiet.id(), -49), (loud.id(), -49)])]);
    let packet = sound(&mut loud, 3, true);
    sim.send(sender, &[packet]);
    let packet = sound(&mut quiet, 90, true);
    sim.send(sender, &[packet]);
    sim.advance(ms(1_000));
    assert_eq!(
        told(&mut sim),
        [(room, vec![(loud.id(), -3), (quiet.id(), -90)]), (room, vec![])]
    );
}

#[test]
fn who_is_paused_or_sends_no_sound_is_not_told_of() {
    let mut sim = Sim::new(2);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut tracks = [sim.microphone(sender), sim.microphone(sender)];
    let mut camera = sim.camera(sender, CodecName::Vp8);
    let mut other = sim.track(sender, CodecName::Opus, &[Profile::Default], |request| {
        request.header_extensions.clear();
    });
    listen(&mut sim, room, true);
    let mut say = |sim: &mut Sim, tracks: &mut [Track; 2]| {
        for track in tracks {
            let packet = sound(track, 20, true);
            sim.send(sender, &[packet]);
        }
        camera.stream().extensions = vec![(AUDIO_LEVEL, vec![1])];
        let frame = camera.stream().key_frame(1);
        sim.send(sender, &frame);
        let packet = sound(&mut other, 1, true);
        sim.send(sender, &[packet]);
        sim.advance(ms(500));
    };
    sim.pause_producer(tracks[0].id());
    say(&mut sim, &mut tracks);
    assert_eq!(told(&mut sim), [(room, vec![(tracks[1].id(), -20)])]);
    // Paused after it was heard.
    sim.resume_producer(tracks[0].id());
    let packet = sound(&mut tracks[0], 5, true);
    sim.send(sender, &[packet]);
    sim.pause_producer(tracks[0].id());
    say(&mut sim, &mut tracks);
    assert_eq!(told(&mut sim), [(room, vec![(tracks[1].id(), -20)])]);
    sim.resume_producer(tracks[0].id());
    say(&mut sim, &mut tracks);
    assert_eq!(told(&mut sim).remove(0).1.len(), 2);
}

#[test]
fn each_room_by_itself_and_as_often_as_it_is_asked() {
    let mut sim = Sim::new(3);
    let rooms = [sim.room(), sim.room()];
    let unknown = Method::SetAudioLevels {
        room: RoomId(99),
        enabled: true,
    };
    assert_eq!(sim.attempt(unknown), Err(WorkerError::UnknownRoom(RoomId(99))));
    listen(&mut sim, rooms[0], true);
    sim.advance(ms(100));
    listen(&mut sim, rooms[1], true);
    listen(&mut sim, rooms[1], true);
    sim.advance(ms(1_000));
    let order: Vec<_> = told(&mut sim).iter().map(|(room, _)| *room).collect();
    assert_eq!(order, [rooms[0], rooms[1], rooms[0], rooms[1]]);
    // Off and on again: half a second from then.
    listen(&mut sim, rooms[0], false);
    listen(&mut sim, rooms[0], false);
    sim.advance(ms(50));
    listen(&mut sim, rooms[0], true);
    let start = sim.now;
    sim.command(Method::CloseRouter { room: rooms[1] });
    while told(&mut sim).is_empty() {
        sim.advance(ms(1));
    }
    assert_eq!(sim.now.since(start), ms(500));
    listen(&mut sim, rooms[0], false);
    sim.advance(ms(5_000));
    assert_eq!(told(&mut sim), []);
}

/// A producer that is made while somebody listens is heard, and of very many the loudest are told.
#[test]
fn of_very_many_the_loudest() {
    let mut sim = Sim::new(4);
    let room = sim.room();
    listen(&mut sim, room, true);
    let mut expected = Vec::new();
    for index in 0..AUDIO_LEVELS_MAX + 20 {
        let sender = sim.transport(room);
        let mut track = sim.microphone(sender);
        let level = (index * 7 % 128) as u8;
        let packet = sound(&mut track, level, false);
        sim.send(sender, &[packet]);
        expected.push((track.id(), -(level as i8)));
    }
    expected.sort_by_key(|(producer, level)| (-i16::from(*level), *producer));
    expected.truncate(AUDIO_LEVELS_MAX);
    sim.advance(ms(500));
    assert_eq!(told(&mut sim), [(room, expected)]);
}

/// Late by minutes, it goes on from now instead of making up.
#[test]
fn who_was_stopped_does_not_make_up_for_it() {
    let mut sim = Sim::new(5);
    let room = sim.room();
    listen(&mut sim, room, true);
    sim.now = sim.now + ms(60_000);
    sim.advance(ms(499));
    assert_eq!(told(&mut sim).len(), 1);
    sim.advance(ms(1));
    assert_eq!(told(&mut sim).len(), 1);
}
