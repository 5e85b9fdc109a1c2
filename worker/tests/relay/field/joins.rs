//! Where the clock of a consumer goes on when the sender begins anew: behind all that was sent before (RFC 3550 §5.1: the timestamp
//! is the sampling instant of the packet's first octet, from a clock that goes up without a break).
//!
//! Senders of files (ffmpeg, GStreamer) send the first half second at once, so that a quick restart finds the clock ahead of the
//! time; and a packet of sound holds more than its timestamp says, up to 0.7 s of AAC. What a receiver has twice, it drops.

use std::time::Duration;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::CodecName;

use crate::sim::random::Random;
use crate::sim::reports::bye;
use crate::sim::track::{Track, codec};
use crate::sim::{Sim, for_each_seed, ms, wire};

/// How a sender begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Anew {
    /// Numbers and clock are elsewhere.
    SameSsrc,
    /// And the SSRC is another one.
    OtherSsrc,
    /// A file that plays in a loop: numbers go on, timestamps begin again.
    Loop,
}

const ANEW: [Anew; 3] = [Anew::SameSsrc, Anew::OtherSsrc, Anew::Loop];

/// So much is sent at once by a sender that begins.
const AHEAD: Duration = ms(500);

/// Some media of one sender.
#[derive(Clone, Copy, Debug)]
struct Media {
    name: CodecName,
    /// From one packet of sound, or picture, to the next.
    interval: Duration,
    /// Pictures come in the order of decoding (RFC 6184 §5.1), each third one before the two that it follows.
    is_reordered: bool,
}

const fn media(name: CodecName, interval: u64, is_reordered: bool) -> Media {
    Media {
        name,
        interval: ms(interval),
        is_reordered,
    }
}

const SOUND: [Media; 3] = [
    media(CodecName::Opus, 20, false),
    media(CodecName::OtherAudio, 64, false),
    media(CodecName::OtherAudio, 320, false),
];

const PICTURES: [Media; 3] = [
    media(CodecName::H264, 40, false),
    media(CodecName::H264, 40, true),
    media(CodecName::Vp8, 33, false),
];

impl Media {
    fn ticks(self, time: Duration) -> u64 {
        (time.as_nanos() * u128::from(codec(self.name).clock_rate) / 1_000_000_000) as u64
    }

    fn is_sound(self) -> bool {
        matches!(self.name, CodecName::Opus | CodecName::OtherAudio)
    }

    /// The place in time of what is sent as number `index`.
    fn place(self, index: u32) -> u32 {
        match (self.is_reordered, index % 3) {
            (false, _) | (true, 0) if index == 0 || !self.is_reordered => index,
            (_, 1) => index + 2,
            _ => index - 1,
        }
    }
}

struct Call {
    sim: Sim,
    sender: TransportId,
    track: Track,
    consumer: ConsumerId,
    media: Media,
    reports: bool,
}

impl Call {
    fn new(seed: u64, media: Media, reports: bool) -> Self {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let track = sim.camera(sender, media.name);
        let receiver = sim.transport(room);
        let consumer = sim.consumer(receiver, &track);
        Self {
            sim,
            sender,
            track,
            consumer,
            media,
            reports,
        }
    }

    /// A run that begins at once with what is due in the first half second, and goes on as time does.
    fn run(&mut self, packets: u32) {
        let base = self.track.stream().timestamp;
        let begin = self.sim.now;
        for index in 0..packets {
            let due = begin + (self.media.interval * index).saturating_sub(AHEAD);
            self.sim.advance(due.since(self.sim.now));
            if self.reports && index % 20 == 0 {
                // As ffmpeg has it: the timestamp of what would be sampled now.
                let (now, since) = (self.sim.now, self.sim.now.since(begin));
                let rtp = (base + self.media.ticks(since)) as u32;
                let ntp = (u64::from(u32::MAX / 2) << 32) + ((now.0 as u128) << 32).div_euclid(1_000_000_000) as u64;
                let report = wire::sender_report(self.track.stream().ssrc, ntp, rtp);
                self.sim.send_rtcp(self.sender, &report);
            }
            self.track.stream().timestamp = base + self.media.ticks(self.media.interval * self.media.place(index));
            let stream = self.track.stream();
            let frame = match (self.media.is_sound(), index) {
                (true, _) => vec![stream.sound()],
                (false, 0) => stream.key_frame(2),
                (false, _) => stream.delta_frame(1),
            };
            self.sim.send(self.sender, &frame);
        }
    }

    fn begin_anew(&mut self, how: Anew, began: u64) {
        let number = self.sim.stream_number();
        let old = self.track.stream().ssrc;
        if how == Anew::OtherSsrc {
            self.sim.send_rtcp(self.sender, &bye(&[old]));
        }
        let stream = self.track.stream();
        stream.number = number;
        match how {
            Anew::Loop => stream.timestamp = began,
            Anew::SameSsrc | Anew::OtherSsrc => {
                stream.seq += 20_000;
                stream.timestamp += 1 << 30;
                stream.picture_id += 7_777;
            }
        }
        if how == Anew::OtherSsrc {
            stream.ssrc ^= 0x7000;
        }
    }
}

/// The last run's newest timestamp at the consumer, and the least of the next one's, relative to it.
fn join(seed: u64, media: Media, reports: bool, how: Anew) -> i32 {
    let mut random = Random::new(seed);
    let mut call = Call::new(seed, media, reports);
    let began = call.track.stream().timestamp;
    // At least two seconds, so that a clock that begins again is no order of decoding.
    let packets = (2_500 / media.interval.as_millis()) as u32 + random.below(20) as u32;
    call.run(packets);
    let old = call.sim.received(call.consumer);
    assert!(!old.is_empty());
    let first = old[0].rtp.timestamp;
    let newest = old
        .iter()
        .map(|packet| packet.rtp.timestamp.wrapping_sub(first))
        .max()
        .expect("packets");
    call.begin_anew(how, began);
    call.sim.advance(ms(1 + random.below(400) as u64));
    call.run(packets);
    let new = call.sim.received(call.consumer);
    let sent = packets + u32::from(!media.is_sound());
    assert_eq!(new.len(), sent as usize, "{media:?} {how:?}: all of the new run");
    let after = |timestamp: u32| timestamp.wrapping_sub(first).wrapping_sub(newest).cast_signed();
    new.iter()
        .map(|packet| after(packet.rtp.timestamp))
        .min()
        .expect("packets")
}

#[test]
fn nothing_of_a_new_run_is_older_than_what_was_sent_of_the_old_one() {
    for_each_seed(10, |seed| {
        for media in SOUND.into_iter().chain(PICTURES) {
            for reports in [false, true] {
                for how in ANEW {
                    let step = join(seed, media, reports, how);
                    assert!(step > 0, "{media:?}, reports: {reports}, {how:?}: {step} ticks");
                }
            }
        }
    });
}

/// Sound goes on where the last packet ends, as far as that can be known, and not where it begins.
#[test]
fn sound_of_a_new_run_begins_behind_what_the_last_packet_holds() {
    for_each_seed(10, |seed| {
        for media in SOUND {
            for reports in [false, true] {
                for how in [Anew::SameSsrc, Anew::OtherSsrc] {
                    let step = join(seed, media, reports, how);
                    let held = media.ticks(media.interval) as i32;
                    assert!(
                        step >= held,
                        "{media:?}, reports: {reports}, {how:?}: {step} of {held} ticks"
                    );
                    let latest = media.ticks(media.interval.max(ms(500))) as i32;
                    assert!(step <= latest, "{media:?}, reports: {reports}, {how:?}: {step} ticks");
                }
            }
        }
    });
}
