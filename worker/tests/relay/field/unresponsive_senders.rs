//! Senders that answer no key frame request (RFC 4585 §6.3.1 leaves it to them): ffmpeg, most cameras. Who joins in the middle of
//! their group of pictures sees one at once, from what is kept of it, and is up to date soon.

use std::time::Duration;

use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, Method, Profile};

use crate::sim::repair::repairing;
use crate::sim::track::Track;
use crate::sim::wire;
use crate::sim::{Sim, ms};

const FRAME: Duration = ms(40);
/// Ten seconds of 25 frames.
const GOP: u32 = 250;

struct Camera {
    sim: Sim,
    track: Track,
    frames: u32,
}

impl Camera {
    fn new(seed: u64, codec: CodecName) -> Self {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, codec);
        track.stream().step = 3_600;
        Self { sim, track, frames: 0 }
    }

    /// So many frames, whatever anybody asks for; returns the newest mark.
    fn run(&mut self, frames: u32) {
        for _ in 0..frames {
            let key = self.frames.is_multiple_of(GOP);
            let frame = self.track.stream().frame_of(if key { 20 } else { 3 }, key);
            self.sim.send(self.track.transport(), &frame);
            self.frames += 1;
            self.sim.advance(FRAME);
        }
    }

    fn join(&mut self, rtx: bool) -> ConsumerId {
        let transport = self.sim.transport(self.track.request.room);
        self.sim.consumer_with(transport, &self.track, |request| {
            if rtx {
                repairing(request, true);
            }
        })
    }

    /// Somebody joins, waits for two requests that are not answered, and has the next group kept for all who come.
    fn prove_unresponsive(&mut self) -> ConsumerId {
        self.run(25);
        let first = self.join(false);
        self.run(2 * GOP - 25);
        first
    }
}

#[test]
fn who_joins_in_a_group_starts_with_it_at_once_and_catches_up() {
    for codec in [CodecName::Vp8, CodecName::H264, CodecName::H265, CodecName::Av1] {
        for seconds in [1, 5, 7] {
            let mut camera = Camera::new(1, codec);
            let first = camera.prove_unresponsive();
            camera.run(seconds * 25);
            camera.sim.received(first);
            let joined = camera.sim.now;
            let consumer = camera.join(true);
            camera.run(2);
            let received = camera.sim.received(consumer);
            assert!(received[0].mark().key, "{codec:?}");
            assert!(
                received[0].at.since(joined) <= FRAME + ms(10),
                "the first picture comes at once"
            );
            // Not all at once.
            assert!(received.len() < 20 + 3 * 25, "{}", received.len());
            // A third of the time that was missed, at most, and it is up to date.
            let rest = seconds * 25 / 3 + 3;
            camera.run(rest);
            let newest = camera.track.stream().seq - 1;
            let more = camera.sim.received(consumer);
            assert_eq!(
                more.last().expect("it goes on").mark().seq,
                newest,
                "{codec:?} {seconds}"
            );
            let all = [received, more].concat();
            let marks: Vec<_> = all.iter().map(|packet| packet.mark().seq).collect();
            let jump = marks.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!(jump, None, "every packet once, in order, {codec:?} {seconds}");
            let numbers = all.windows(2).map(|pair| pair[1].rtp.seq.wrapping_sub(pair[0].rtp.seq));
            assert!(numbers.into_iter().all(|step| step == 1));
            // It plays what it is sent when it is sent: timestamps go with the time that goes by, never back.
            let start = &all[0];
            let mut last = 0;
            for packet in &all {
                let shown = packet.rtp.timestamp.wrapping_sub(start.rtp.timestamp);
                assert!(shown >= last, "never back");
                last = shown;
                let passed = packet.at.since(start.at).as_millis() as i64;
                let ahead = i64::from(shown) / 90 - passed;
                assert!((-60..=60).contains(&ahead), "{ahead} ms at {passed} ms");
            }
            // From now on like everybody else.
            camera.run(25);
            let live = [camera.sim.received(first), camera.sim.received(consumer)];
            let newest = live.map(|received| received.last().map(|packet| packet.mark().seq));
            assert_eq!(newest[0], newest[1]);
            camera.sim.check_accounts();
        }
    }
}

#[test]
fn the_next_group_ends_what_is_left_of_the_old_one() {
    let mut camera = Camera::new(2, CodecName::Vp8);
    camera.prove_unresponsive();
    // 200 ms before the next key frame.
    camera.run(GOP - 5);
    let consumer = camera.join(false);
    camera.run(30);
    let received = camera.sim.received(consumer);
    let last = received.last().expect("something came").mark();
    assert_eq!(last.seq, camera.track.stream().seq - 1);
    let keys = received.iter().filter(|packet| packet.mark().key).count();
    assert_eq!(keys, 2);
    let numbers = received
        .windows(2)
        .map(|pair| pair[1].rtp.seq.wrapping_sub(pair[0].rtp.seq));
    assert!(numbers.into_iter().all(|step| step == 1));
    camera.sim.check_accounts();
}

#[test]
fn what_is_lost_of_a_group_is_repaired_as_it_was_sent() {
    let mut camera = Camera::new(3, CodecName::Vp8);
    camera.prove_unresponsive();
    camera.run(60);
    let consumer = camera.join(true);
    // In the middle of catching up, and when it has.
    for _ in 0..2 {
        camera.run(10);
        let received = camera.sim.received(consumer);
        let lost = &received[received.len() - 5..];
        let request = camera.sim.consumers[&consumer].request.clone();
        let seqs: Vec<_> = lost.iter().map(|packet| packet.rtp.seq).collect();
        camera
            .sim
            .send_rtcp(request.transport, &wire::nack(1, request.ssrc, &seqs));
        let again: Vec<_> = camera
            .sim
            .sink
            .resent
            .drain(..)
            .map(|(_, _, packet)| wire::Rtp::read(&packet))
            .collect();
        assert_eq!(again.len(), 5);
        for (again, lost) in again.iter().zip(lost) {
            assert_eq!(again.timestamp, lost.rtp.timestamp);
            assert_eq!(again.payload[2..], lost.rtp.payload);
        }
        camera.run(30);
        camera.sim.received(consumer);
    }
}

#[test]
fn pauses_closes_and_new_senders_in_the_middle_harm_nobody() {
    let mut camera = Camera::new(4, CodecName::H264);
    camera.prove_unresponsive();
    camera.run(100);
    let paused = camera.join(false);
    let closed = camera.join(false);
    let moved = camera.join(false);
    camera.run(3);
    camera.sim.pause(paused);
    camera.sim.command(Method::CloseConsumer { consumer: closed });
    camera.sim.received(closed);
    camera.sim.consumers.remove(&closed);
    camera.run(3);
    let before = camera.sim.received(paused).len();
    assert!(before > 0);
    camera.sim.resume(paused);
    camera.run(100);
    let received = camera.sim.received(paused);
    assert!(received[0].mark().key, "from the group's start again");
    let newest = camera.track.stream().seq - 1;
    assert_eq!(received.last().map(|packet| packet.mark().seq), Some(newest));
    assert_eq!(
        camera.sim.received(moved).last().map(|packet| packet.mark().seq),
        Some(newest)
    );
    // The producer pauses while somebody catches up: what is kept is of before.
    let late = camera.join(false);
    camera.run(2);
    camera.sim.pause_producer(camera.track.id());
    camera.run(5);
    camera.sim.resume_producer(camera.track.id());
    camera.run(GOP);
    let received = camera.sim.received(late);
    assert_eq!(
        received.last().map(|packet| packet.mark().seq),
        Some(camera.track.stream().seq - 1)
    );
    camera.sim.check_accounts();
}

/// Who answers has nothing kept, and neither has a worker that is told to keep nothing.
#[test]
fn a_sender_that_answers_is_only_asked() {
    let mut camera = Camera::new(5, CodecName::Vp8);
    let mut joined = Vec::new();
    for _ in 0..6 {
        camera.run(100);
        joined.push(camera.join(false));
        let asked = camera.sim.asked().len();
        assert!(asked > 0);
        camera.run(2);
        assert!(camera.sim.received(*joined.last().expect("somebody joined")).is_empty());
        let key = camera.track.stream().key_frame(4);
        camera.sim.send(camera.track.transport(), &key);
        assert!(!camera.sim.received(*joined.last().expect("somebody joined")).is_empty());
    }
    let mut camera = Camera::new(6, CodecName::Vp8);
    camera.sim.relay.set_gops_max(0);
    camera.prove_unresponsive();
    camera.run(50);
    let consumer = camera.join(false);
    camera.run(50);
    assert!(camera.sim.received(consumer).is_empty());
    // Layers of simulcast are no such senders.
    let mut sim = Sim::new(7);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Low, Profile::High], |_| {});
    let transport = sim.transport(room);
    sim.consumer(transport, &track);
    for round in 0..300 {
        for layer in 0..2 {
            let frame = track.streams[layer].frame_of(2, round == 0);
            sim.send(sender, &frame);
        }
        sim.advance(FRAME);
    }
    let transport = sim.transport(room);
    let late = sim.consumer(transport, &track);
    let frame = track.streams[1].frame_of(2, false);
    sim.send(sender, &frame);
    sim.advance(ms(100));
    assert!(sim.received(late).is_empty());
}
