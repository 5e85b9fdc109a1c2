//! A sender starts over: a new run of numbers and timestamps under the SSRC that it had (RFC 3550 §5.1, appendix A.1).
//!
//! ffmpeg, GStreamer and cameras begin again with numbers anywhere, also near the old ones, and with another clock. What is
//! received is one stream, whose numbers and clock go on without a break; and whatever is no new beginning is none.

use std::time::Duration;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, DropReason};
use weir_worker::rtp::seq::MAX_DROPOUT;

use crate::sim::random::Random;
use crate::sim::reports::{Said, said};
use crate::sim::stream::{Mark, Packet};
use crate::sim::track::{Track, codec};
use crate::sim::{Received, Sim, for_each_seed, ms, wire};

/// One sender whose packets come 20 ms (sound) or 33 ms (pictures) apart, and one consumer.
struct Call {
    sim: Sim,
    track: Track,
    sender: TransportId,
    receiver: TransportId,
    consumer: ConsumerId,
    interval: Duration,
    rate: u32,
}

impl Call {
    fn new(seed: u64, name: CodecName) -> Self {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.camera(sender, name);
        track.stream().seq = (1 << 32) + 1_000;
        let receiver = sim.transport(room);
        let consumer = sim.consumer(receiver, &track);
        let rate = codec(name).clock_rate;
        let interval = match name {
            CodecName::Opus => ms(20),
            _ => ms(33),
        };
        track.stream().step = interval.as_millis() as u64 * u64::from(rate) / 1_000;
        Self {
            sim,
            track,
            sender,
            receiver,
            consumer,
            interval,
            rate,
        }
    }

    fn is_sound(&self) -> bool {
        self.track.stream_codec() == CodecName::Opus
    }

    /// The next `frames`, the first of which is a key frame; nobody sends another one, whoever asks.
    fn frames(&mut self, frames: usize) -> Vec<Vec<Packet>> {
        let sound = self.is_sound();
        let stream = self.track.stream();
        (0..frames)
            .map(|index| match (sound, index) {
                (true, _) => vec![stream.sound()],
                (_, 0) => stream.key_frame(3),
                _ => stream.delta_frame(1 + index % 2),
            })
            .collect()
    }

    fn send(&mut self, packets: &[Packet]) {
        for packet in packets {
            self.sim.send(self.sender, std::slice::from_ref(packet));
        }
    }

    /// Sends frames as time goes by, and returns the marks of their packets.
    fn send_frames(&mut self, frames: &[Vec<Packet>]) -> Vec<Mark> {
        for frame in frames {
            self.sim.advance(self.interval);
            self.send(frame);
        }
        frames.iter().flatten().map(|packet| packet.mark).collect()
    }

    fn play(&mut self, frames: usize) -> Vec<Mark> {
        let frames = self.frames(frames);
        self.send_frames(&frames)
    }

    /// The sender is somebody else from now on, whose numbers are these; they and the clock begin where he likes.
    fn starts_over(&mut self, seq: u16, timestamp: u32) {
        let number = self.sim.stream_number();
        let stream = self.track.stream();
        stream.number = number;
        stream.seq = (7 << 32) + u64::from(seq);
        stream.timestamp = (7 << 40) + u64::from(timestamp);
        stream.picture_id += 7_777;
    }

    /// The number that comes next.
    fn next(&mut self) -> u16 {
        self.track.stream().seq as u16
    }

    /// The clock moves, whatever time it is.
    fn elsewhere(&mut self, ticks: u32) -> u32 {
        (self.track.stream().timestamp as u32).wrapping_add(ticks)
    }

    fn received(&mut self) -> Vec<Received> {
        self.sim.check_accounts();
        self.sim.received(self.consumer)
    }

    fn marks(&mut self) -> Vec<Mark> {
        self.received().iter().map(Received::mark).collect()
    }

    fn dropped(&mut self, reason: DropReason) -> u64 {
        self.sim.dropped(self.consumer, reason)
    }

    /// How many packets are taken for lost.
    fn lost(&mut self) -> u64 {
        self.sim.producer_stats(self.track.id()).streams[0].packets_lost
    }

    /// What came out is what went in, under numbers without a gap and a clock that goes as time does.
    #[track_caller]
    fn goes_on(&mut self, sent: &[Mark], what: &str) {
        let received = self.received();
        let marks: Vec<_> = received.iter().map(Received::mark).collect();
        assert_eq!(marks.len(), sent.len(), "{what}: packets relayed");
        assert!(
            marks == sent,
            "{what}: they are not those that were sent, or in another order"
        );
        goes_on(&received, self.rate, what);
    }
}

impl Track {
    fn stream_codec(&self) -> CodecName {
        self.request.codecs[0].name
    }
}

#[track_caller]
fn goes_on(received: &[Received], rate: u32, what: &str) {
    for pair in received.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        assert_eq!(
            next.rtp.seq,
            one.rtp.seq.wrapping_add(1),
            "{what}: a gap before {:?}",
            next.mark()
        );
        let ticks = i64::from(next.rtp.timestamp.wrapping_sub(one.rtp.timestamp).cast_signed());
        let went_by = next.at.since(one.at).as_millis() as i64 * i64::from(rate) / 1_000;
        assert!(
            ticks >= 0 && (ticks - went_by).abs() <= i64::from(rate) / 10,
            "{what}: the clock moves by {ticks} in {went_by} ticks before {:?}",
            next.mark()
        );
    }
}

const CODECS: [CodecName; 3] = [CodecName::Opus, CodecName::Vp8, CodecName::H264];

/// Two runs of 400 frames, of which the second begins `seq` and `timestamp` from where the first one began.
fn two_runs(name: CodecName, start: impl Fn(&mut Call) -> (u16, u32), what: &str) {
    let mut call = Call::new(1, name);
    let mut sent = call.play(400);
    let (seq, timestamp) = start(&mut call);
    call.starts_over(seq, timestamp);
    call.sim.advance(ms(700));
    sent.extend(call.play(400));
    let what = format!("{name:?}, {what}");
    call.goes_on(&sent, &what);
    assert_eq!(call.lost(), 0, "{what}");
    assert_eq!(call.dropped(DropReason::Duplicate), 0, "{what}");
    assert_eq!(call.dropped(DropReason::BadSequence), 0, "{what}");
}

#[test]
fn the_same_numbers_with_another_clock_are_a_restart() {
    for name in CODECS {
        for ticks in [1_234_567_890, 3_000_000_000, 53_000_000_u32.wrapping_neg(), 10_000_000] {
            two_runs(
                name,
                |call| (1_000, call.elsewhere(ticks)),
                &format!("{ticks} ticks away"),
            );
        }
    }
}

/// Numbers up to 3,000 ahead look like a loss, by themselves.
#[test]
fn numbers_a_little_ahead_with_another_clock_are_a_restart_and_no_loss() {
    for name in CODECS {
        for ahead in [0, 1, 2, 9, 100, 1_500, MAX_DROPOUT - 2] {
            for ticks in [1_234_567_890_u32, 53_000_000_u32.wrapping_neg(), 700_000_000] {
                let what = format!("{ahead} ahead, {ticks} ticks");
                two_runs(
                    name,
                    |call| (call.next().wrapping_add(ahead), call.elsewhere(ticks)),
                    &what,
                );
            }
        }
    }
}

#[test]
fn numbers_a_little_behind_with_another_clock_are_a_restart() {
    for name in CODECS {
        for behind in [1, 2, 5, 100, 399, 450, 1_000, 1_499, 1_500, 1_501] {
            for ticks in [1_234_567_890_u32, 53_000_000_u32.wrapping_neg()] {
                let what = format!("{behind} behind, {ticks} ticks");
                two_runs(
                    name,
                    |call| (call.next().wrapping_sub(behind), call.elsewhere(ticks)),
                    &what,
                );
            }
        }
    }
}

/// RFC 3550 appendix A.1 believes the second packet. The first one, with the head of the key frame in it, is not lost.
#[test]
fn the_first_packet_of_a_run_far_away_is_relayed_too() {
    for name in CODECS {
        for ahead in [MAX_DROPOUT, 10_000, 32_768, 50_000] {
            let what = format!("{ahead} ahead");
            two_runs(
                name,
                |call| (call.next().wrapping_add(ahead), call.elsewhere(1 << 30)),
                &what,
            );
            two_runs(name, |call| (call.next().wrapping_add(ahead), call.elsewhere(0)), &what);
        }
    }
}

#[test]
fn a_run_whose_first_packets_come_in_another_order_begins_with_the_first() {
    for name in [CodecName::Opus, CodecName::Vp8] {
        let mut call = Call::new(1, name);
        let mut sent = call.play(400);
        let elsewhere = call.elsewhere(1 << 30);
        call.starts_over(1_100, elsewhere);
        call.sim.advance(ms(700));
        let mut frames = call.frames(100);
        let first: Vec<_> = frames.drain(..3).flatten().collect();
        sent.extend(first.iter().map(|packet| packet.mark));
        for index in [1, 0, 2] {
            call.send(std::slice::from_ref(&first[index]));
        }
        call.send(&first[3..]);
        sent.extend(call.send_frames(&frames));
        call.goes_on(&sent, "the second packet first");
    }
}

/// ffmpeg draws its first number from 12 bits, and its clock from 32.
#[test]
fn restarts_as_ffmpeg_makes_them() {
    for name in CODECS {
        for_each_seed(20, |seed| {
            let mut random = Random::new(seed);
            let mut call = Call::new(seed, name);
            let (mut sent, mut runs) = (Vec::new(), 0);
            while runs < 6 {
                let (seq, timestamp) = (random.below(1 << 12) as u16, random.next() as u32);
                call.starts_over(seq, timestamp);
                let silence = ms(random.range(200..3_000) as u64);
                call.sim.advance(silence);
                let frames = random.range(30..500);
                sent.extend(call.play(frames));
                runs += 1;
            }
            call.goes_on(&sent, &format!("{name:?}, seed {seed}"));
        });
    }
}

/// With fixed offsets of numbers and clock (GStreamer has both), only the content tells.
#[test]
fn the_same_numbers_and_timestamps_with_other_content_are_a_restart() {
    for name in CODECS {
        for_each_seed(5, |seed| {
            let mut call = Call::new(seed, name);
            let (seq, timestamp) = (call.next(), call.elsewhere(0));
            let first = call.play(400);
            call.starts_over(seq, timestamp);
            call.sim.advance(ms(700));
            let second = call.play(400);
            let received = call.received();
            goes_on(&received, call.rate, "the same clock");
            let marks: Vec<_> = received.iter().map(Received::mark).collect();
            assert!(marks.starts_with(&first));
            let missing = second.iter().filter(|mark| !marks.contains(mark)).count();
            // A sixteenth of what is other content looks alike.
            assert!(missing <= 2, "{missing} of the second run");
        });
    }
}

/// RFC 3550 appendix A.1: what was received before is a duplicate, whenever it comes again, and however much of it.
#[test]
fn what_came_before_is_a_duplicate_when_it_comes_again() {
    for name in CODECS {
        for pause in [0, 50, 2_000] {
            let mut call = Call::new(1, name);
            let frames = call.frames(400);
            let sent = call.send_frames(&frames);
            call.sim.advance(ms(pause));
            // A burst, one old packet, and all of it at once.
            let all: Vec<Packet> = frames.into_iter().flatten().collect();
            let last = all.len() - 20;
            call.send(&all[last..]);
            call.send(&all[7..8]);
            call.send(&all);
            let again = all.len() + 21;
            let mut sent = sent;
            sent.extend(call.play(50));
            assert_eq!(call.marks(), sent);
            assert_eq!(call.dropped(DropReason::Duplicate), again as u64);
        }
    }
}

/// Without a stream of their own, retransmissions are late packets with the timestamps that they had.
#[test]
fn packets_sent_again_are_late_or_duplicates_and_no_restart() {
    for name in CODECS {
        let mut call = Call::new(1, name);
        let frames = call.frames(300);
        let (mut late, mut twice): (Vec<Packet>, Vec<Packet>) = (Vec::new(), Vec::new());
        let mut on_time = 0;
        for (index, frame) in frames.iter().enumerate() {
            call.sim.advance(call.interval);
            match index {
                // Twenty in a row are lost, twenty more come twice, all two seconds late.
                100..120 => late.extend(frame.iter().cloned()),
                _ => {
                    call.send(frame);
                    on_time += frame.len();
                }
            }
            if (120..140).contains(&index) {
                twice.extend(frame.iter().cloned());
            }
            if index == 180 {
                call.send(&late);
                call.send(&twice);
            }
        }
        let received = call.received();
        assert_eq!(received.len(), on_time + late.len(), "{name:?}");
        let offset = |packet: &Received| packet.rtp.seq.wrapping_sub(packet.mark().seq as u16);
        assert!(received.iter().all(|packet| offset(packet) == offset(&received[0])));
        assert_eq!(call.dropped(DropReason::Duplicate), twice.len() as u64);
        assert_eq!(call.lost(), 0);
    }
}

#[test]
fn one_stray_packet_is_not_what_the_others_are_measured_by() {
    for name in CODECS {
        // Before all others, with a clock that fits and with one that does not.
        for ticks in [0, 1_234_567_890] {
            let mut call = Call::new(1, name);
            call.track.stream().seq += 4_000;
            let timestamp = call.elsewhere(0);
            let stray = call.frames(1).remove(0);
            call.send(&stray[..1]);
            call.starts_over(4_000, timestamp.wrapping_add(ticks));
            let sent = call.play(400);
            let marks = call.marks();
            let (_, others): (Vec<_>, Vec<_>) = marks.into_iter().partition(|mark| *mark == stray[0].mark);
            assert_eq!(others.len(), sent.len(), "{name:?}, {ticks}");
            assert!(others == sent);
        }
        // Among the others.
        for (ahead, ticks) in [
            (1_000, 1_234_567_890),
            (20_000, 0),
            (65_036, 1_234_567_890),
            (2_999, 53_000_000),
        ] {
            let mut call = Call::new(1, name);
            let mut sent = call.play(50);
            let stream = call.track.stream();
            let (number, seq, timestamp) = (stream.number, stream.seq, stream.timestamp);
            let elsewhere = call.elsewhere(ticks);
            call.starts_over((seq as u16).wrapping_add(ahead), elsewhere);
            let stray = call.frames(1).remove(0);
            call.send(&stray[..1]);
            let stream = call.track.stream();
            (stream.number, stream.seq, stream.timestamp) = (number, seq, timestamp);
            stream.picture_id -= 7_778;
            sent.extend(call.play(1_200));
            call.goes_on(&sent, &format!("{name:?}, {ahead} ahead, {ticks} ticks"));
            let stray = [DropReason::BadSequence, DropReason::Duplicate, DropReason::BeforeSwitch];
            assert_eq!(stray.map(|reason| call.dropped(reason)).iter().sum::<u64>(), 1);
        }
    }
}

/// Nearly a whole cycle of numbers is missing: they go on behind the old ones.
#[test]
fn nothing_is_lost_of_what_comes_after_a_gap_of_65_000() {
    for name in CODECS {
        for gap in [64_100, 65_000, 65_500, 65_535] {
            for does_time_pass in [true, false] {
                let mut call = Call::new(2, name);
                let sent = call.play(600);
                let stream = call.track.stream();
                stream.seq += gap;
                if does_time_pass {
                    stream.timestamp += gap * stream.step;
                    let interval = call.interval;
                    call.sim.advance(interval * gap as u32);
                }
                let more = call.play(700);
                let marks = call.marks();
                let missing = sent.iter().chain(&more).filter(|mark| !marks.contains(mark)).count();
                assert_eq!(missing, 0, "{name:?}, a gap of {gap}, {does_time_pass}");
            }
        }
    }
}

/// A file that plays in a loop: numbers go on, timestamps go back. Nobody has to wait for a key frame.
#[test]
fn a_clock_that_goes_back_under_numbers_that_go_on_goes_on() {
    for name in CODECS {
        for seconds in [2, 10, 58] {
            let mut call = Call::new(1, name);
            let mut sent = Vec::new();
            let frames = seconds * 1_000 / call.interval.as_millis() as usize;
            let beginning = call.track.stream().timestamp;
            for round in 0..4 {
                let mut round = if round == 0 { call.play(1) } else { Vec::new() };
                // No key frame but the first of all.
                let mut more = Vec::new();
                for _ in round.len()..frames {
                    more.push(match name {
                        CodecName::Opus => vec![call.track.stream().sound()],
                        _ => call.track.stream().delta_frame(2),
                    });
                }
                round.extend(call.send_frames(&more));
                sent.extend(round);
                call.track.stream().timestamp = beginning;
            }
            call.send_last();
            sent.pop();
            let mut received = call.received();
            received.truncate(sent.len());
            let marks: Vec<_> = received.iter().map(Received::mark).collect();
            assert!(
                marks == sent,
                "{name:?}, {seconds} s: {} of {}",
                marks.len(),
                sent.len()
            );
            goes_on(&received, call.rate, &format!("{name:?}, {seconds} s"));
            assert_eq!(call.dropped(DropReason::AwaitingKeyFrame), 0);
        }
    }
}

impl Call {
    /// What is held at the end has nobody who bears it out.
    fn send_last(&mut self) {
        let frame = match self.is_sound() {
            true => vec![self.track.stream().sound()],
            false => self.track.stream().delta_frame(2),
        };
        self.send_frames(&[frame]);
    }
}

/// RFC 3550 §6.4.1: NTP and RTP timestamp of a sender report are the same instant, also after the file has begun again.
#[test]
fn reports_on_a_file_that_loops_tell_the_time_of_its_media() {
    let mut call = Call::new(1, CodecName::Opus);
    let beginning = call.track.stream().timestamp;
    let ssrc = call.track.stream().ssrc;
    let (mut newest, mut worst, mut reports) = (None, 0, 0);
    for index in 0..(58 + 20) * 50 {
        if index == 58 * 50 {
            call.track.stream().timestamp = beginning;
        }
        if index % 100 == 0 {
            let ntp = (3_900_000_000 << 32) + ((call.sim.now.0 as u128) << 32).div_euclid(1_000_000_000) as u64;
            let report = wire::sender_report(ssrc, ntp, call.track.stream().timestamp as u32);
            call.sim.send_rtcp(call.sender, &report);
        }
        let packet = call.track.stream().sound();
        call.send(&[packet]);
        newest = call
            .sim
            .received(call.consumer)
            .last()
            .map(|packet| (packet.at, packet.rtp.timestamp))
            .or(newest);
        call.sim.advance(call.interval);
        let index = call.sim.index(call.receiver);
        for (at, _, packet) in call
            .sim
            .sink
            .rtcp
            .drain(..)
            .filter(|(_, transport, _)| *transport == index)
        {
            for said in said(&packet) {
                if let (Said::SenderReport { rtp, .. }, Some((sent_at, timestamp))) = (said, newest) {
                    let expected = timestamp.wrapping_add((at.since(sent_at).as_millis() * 48) as u32);
                    worst = worst.max(rtp.wrapping_sub(expected).cast_signed().abs());
                    reports += 1;
                }
            }
        }
    }
    assert!(reports > 60, "{reports}");
    assert!(worst < 48 * 100, "{worst} ticks from the media");
}

/// One packet with timestamp 0 is relayed as it is, and moves nothing: what comes after it has the clock that it had.
#[test]
fn a_lone_timestamp_of_0_moves_nothing() {
    for name in CODECS {
        let mut call = Call::new(1, name);
        let mut zeroes = Vec::new();
        for round in 0..10 {
            call.play(20);
            let mut frame = call.frames(1).remove(0);
            frame[0].bytes[4..8].fill(0);
            zeroes.push(frame[0].mark);
            call.send_frames(&[frame]);
            call.play(20);
            if round == 4 {
                // Whoever starts again later starts from the right time.
                call.sim.pause(call.consumer);
                call.sim.resume(call.consumer);
            }
        }
        let received = call.received();
        let offset = |packet: &Received| {
            let sent = if zeroes.contains(&packet.mark()) {
                0
            } else {
                packet.mark().timestamp as u32
            };
            packet.rtp.timestamp.wrapping_sub(sent)
        };
        let odd = received
            .iter()
            .filter(|packet| offset(packet) != offset(&received[0]))
            .count();
        assert_eq!(odd, 0, "{name:?}");
        assert_eq!(received.len() as u64, call.sim.stats(call.consumer).packets_in);
        for pair in received.windows(2) {
            assert_eq!(pair[1].rtp.seq, pair[0].rtp.seq.wrapping_add(1));
        }
        let (newest, _) = (received.last().map(|packet| packet.rtp.timestamp), ());
        // A start of another run is put where time has got to.
        call.starts_over(9, 99);
        let sent = call.play(10);
        let again = call.received();
        assert_eq!(again.len(), sent.len());
        let step = again[0].rtp.timestamp.wrapping_sub(newest.unwrap_or(0));
        assert!(step < call.rate / 10, "{step}");
    }
}

/// What is lost stays lost, up to 3,000 in a row, also when time does not tell.
#[test]
fn losses_are_losses() {
    for name in CODECS {
        for lost in [1, 10, 500, 2_998] {
            for does_time_pass in [true, false] {
                let mut call = Call::new(1, name);
                // Shortly before the wrap of both.
                call.track.stream().seq = (1 << 40) - 100;
                call.track.stream().timestamp = (1 << 40) - 200_000;
                call.play(60);
                let before = call.track.stream().seq;
                while call.track.stream().seq < before + lost {
                    match name {
                        CodecName::Opus => drop(call.track.stream().sound()),
                        _ => drop(call.track.stream().delta_frame(1)),
                    }
                    if does_time_pass {
                        let interval = call.interval;
                        call.sim.advance(interval);
                    }
                }
                let lost = call.track.stream().seq - before;
                call.play(60);
                assert_eq!(call.lost(), lost, "{name:?}, {does_time_pass}");
                let received = call.received();
                let offset = |packet: &Received| {
                    let mark = packet.mark();
                    (
                        packet.rtp.seq.wrapping_sub(mark.seq as u16),
                        packet.rtp.timestamp.wrapping_sub(mark.timestamp as u32),
                    )
                };
                let odd = received
                    .iter()
                    .filter(|packet| offset(packet) != offset(&received[0]))
                    .count();
                assert_eq!(odd, 0, "{name:?}, {lost} lost, {does_time_pass}");
            }
        }
    }
}

/// Silence: some senders' clocks go on meanwhile, some stop (RFC 3550 §5.1 wants the first).
#[test]
fn a_long_pause_changes_nothing_whether_the_clock_goes_on_or_not() {
    for name in CODECS {
        for does_clock_go_on in [true, false] {
            for pause in [5, 60, 600, 3_600, 30_000, 100_000] {
                let mut call = Call::new(1, name);
                call.play(60);
                call.sim.advance(Duration::from_secs(pause));
                if does_clock_go_on {
                    call.track.stream().timestamp += pause * u64::from(call.rate);
                }
                call.play(60);
                let received = call.received();
                let offset = |packet: &Received| packet.rtp.timestamp.wrapping_sub(packet.mark().timestamp as u32);
                let odd = received
                    .iter()
                    .filter(|packet| offset(packet) != offset(&received[0]))
                    .count();
                assert_eq!(odd, 0, "{name:?}, {pause} s, {does_clock_go_on}");
                assert_eq!(received.len() as u64, call.sim.stats(call.consumer).packets_in);
            }
        }
    }
}

/// A fifth of the packets come up to 100 ms late, one in twenty twice.
#[test]
fn what_comes_in_another_order_is_only_late() {
    for name in CODECS {
        for_each_seed(10, |seed| {
            let mut random = Random::new(seed);
            let mut call = Call::new(seed, name);
            let frames = call.frames(1_000);
            let mut arrivals: Vec<(u64, Packet)> = Vec::new();
            for (index, frame) in frames.into_iter().enumerate() {
                for packet in frame {
                    let sent = index as u64 * call.interval.as_millis() as u64;
                    for _ in 0..if random.chance(50) { 2 } else { 1 } {
                        let late = if index > 0 && random.chance(200) {
                            random.below(100)
                        } else {
                            0
                        };
                        arrivals.push((sent + late as u64, packet.clone()));
                    }
                }
            }
            arrivals.sort_by_key(|(at, _)| *at);
            let start = call.sim.now;
            let mut sent = std::collections::BTreeSet::new();
            for (at, packet) in arrivals {
                call.sim.advance((start + ms(at)).since(call.sim.now));
                call.send(std::slice::from_ref(&packet));
                sent.insert(packet.mark);
            }
            let received = call.received();
            assert_eq!(received.len(), sent.len(), "{name:?}");
            let offset = |packet: &Received| packet.rtp.seq.wrapping_sub(packet.mark().seq as u16);
            assert!(received.iter().all(|packet| offset(packet) == offset(&received[0])));
        });
    }
}

/// Pictures are sent in the order of decoding (RFC 6184 §5.1), so timestamps go back by some frames.
#[test]
fn pictures_in_the_order_of_decoding_are_no_other_clock() {
    let mut call = Call::new(1, CodecName::H264);
    call.play(1);
    let beginning = call.track.stream().timestamp;
    let step = call.track.stream().step;
    for group in 0..100 {
        // P8 B4 b2 b1 b3 b6 b5 b7.
        for place in [8, 4, 2, 1, 3, 6, 5, 7] {
            call.track.stream().timestamp = beginning + (group * 8 + place) * step;
            let frame = call.track.stream().delta_frame(2);
            call.send_frames(&[frame]);
            // At once, held back by nobody.
            assert!(call.sim.received(call.consumer).len() >= 2);
        }
    }
}

/// What was held back and not believed is counted as what it would have been.
#[test]
fn what_is_not_believed_is_counted() {
    let mut call = Call::new(1, CodecName::Opus);
    call.play(100);
    for (ahead, ticks) in [(30_000, 0), (100, 1 << 30), (65_500, 1 << 30), (65_535, 1 << 29)] {
        let stream = call.track.stream();
        let mut stray = stream.clone();
        stray.number = 77;
        stray.seq += ahead;
        stray.timestamp += ticks;
        let packet = stray.sound();
        call.send(&[packet]);
        call.play(2);
    }
    let stats = call.sim.stats(call.consumer);
    assert_eq!(stats.packets_in, 112);
    assert_eq!(stats.packets_forwarded, 108);
    assert_eq!(call.dropped(DropReason::BadSequence), 2);
    assert_eq!(call.dropped(DropReason::Duplicate), 2);
    let stats = &call.sim.producer_stats(call.track.id()).streams[0];
    assert_eq!((stats.packets_discarded, stats.packets_duplicated), (2, 2));
}

/// Packets of the old run that come behind the new one are late, and not the next restart.
#[test]
fn stragglers_of_the_old_run_start_nothing() {
    for name in [CodecName::Opus, CodecName::Vp8] {
        for ahead in [20_000, 65_000, 1_000] {
            let mut call = Call::new(1, name);
            let frames = call.frames(100);
            let mut sent = call.send_frames(&frames[..95]);
            let elsewhere = call.elsewhere(1 << 30);
            let seq = call.next().wrapping_add(ahead);
            call.starts_over(seq, elsewhere);
            sent.extend(call.play(5));
            let stragglers: Vec<_> = frames[70..90].iter().flatten().cloned().collect();
            call.send(&stragglers);
            let more: Vec<_> = (0..50)
                .map(|_| match name {
                    CodecName::Opus => vec![call.track.stream().sound()],
                    _ => call.track.stream().delta_frame(2),
                })
                .collect();
            sent.extend(call.send_frames(&more));
            call.goes_on(&sent, &format!("{name:?}, {ahead} ahead"));
        }
    }
}

/// Streams by the dozen start over at once, more than are held at a time: each goes on, the first packets of some are missing.
#[test]
fn many_senders_start_over_at_once() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let receiver = sim.transport(room);
    let mut calls: Vec<_> = (0..100)
        .map(|_| {
            let sender = sim.transport(room);
            let track = sim.microphone(sender);
            let consumer = sim.consumer(receiver, &track);
            (sender, track, consumer)
        })
        .collect();
    for round in 0..100 {
        if round == 50 {
            for (_, track, _) in &mut calls {
                track.stream().seq += 30_000;
                track.stream().timestamp += 1 << 30;
            }
            sim.advance(ms(500));
        }
        for (sender, track, _) in &mut calls {
            let packet = track.stream().sound();
            sim.send(*sender, &[packet]);
        }
        sim.advance(ms(20));
    }
    sim.check_accounts();
    let mut all = 0;
    for (_, _, consumer) in calls {
        let received = sim.received(consumer);
        assert!((99..=100).contains(&received.len()), "{}", received.len());
        all += received.len();
        for pair in received.windows(2) {
            assert_eq!(pair[1].rtp.seq, pair[0].rtp.seq.wrapping_add(1));
        }
    }
    assert!(all >= 9_964, "{all}");
}

/// A packet too long to be held is lost, and the restart is believed all the same.
#[test]
fn a_run_of_packets_too_long_to_hold_is_believed() {
    let mut call = Call::new(1, CodecName::Vp8);
    call.track.stream().payload_len = 9_000;
    call.play(30);
    let elsewhere = call.elsewhere(1 << 30);
    call.starts_over(20_000, elsewhere);
    call.play(30);
    call.received();
    let frame = call.track.stream().key_frame(2);
    call.send(&frame);
    assert_eq!(call.marks().len(), 2);
    assert_eq!(call.dropped(DropReason::BadSequence), 1);
}

/// Who joins, pauses or resumes between the first packet of a run and the second is sent none of what came before.
#[test]
fn what_is_held_goes_to_nobody_who_comes_later() {
    let mut call = Call::new(1, CodecName::Opus);
    call.play(30);
    let elsewhere = call.elsewhere(1 << 30);
    call.starts_over(20_000, elsewhere);
    let frames = call.frames(20);
    call.send(&frames[0]);
    let late = call.sim.consumer(call.receiver, &call.track);
    let sent = call.send_frames(&frames[1..]);
    assert_eq!(call.sim.marks(late), sent);
    assert_eq!(call.sim.stats(late).packets_in, 19);
    assert_eq!(call.marks().len(), 30 + 19);
}

/// Fast streams send thousands of packets in a second: what is late by more than 1,500 is lost, and no restart.
#[test]
fn packets_beyond_the_misorder_window_harm_nothing() {
    for name in CODECS {
        let mut call = Call::new(1, name);
        call.interval = ms(1);
        let frames = call.frames(2_400);
        let mut sent = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            call.sim.advance(ms(1));
            if index == 2_300 {
                let late: Vec<_> = frames[600..620].iter().flatten().cloned().collect();
                call.send(&late);
            }
            call.send(frame);
            sent.extend(frame.iter().map(|packet| packet.mark));
        }
        assert!(call.marks() == sent, "{name:?}");
    }
}

/// What goes on by its number does not wait for ever for the next one: a sender of slides may not send another for minutes.
#[test]
fn a_packet_with_another_clock_goes_out_soon_without_a_next_one() {
    for name in [CodecName::Opus, CodecName::Vp8] {
        let mut call = Call::new(3, name);
        let frames = call.frames(50);
        call.send_frames(&frames);
        let before = call.sim.received(call.consumer);
        let newest = before.last().expect("packets came").rtp.timestamp;
        // Each comes a second after the one before, and each has its clock set back by a minute.
        for round in 0..5_u32 {
            call.sim.advance(ms(1_000));
            call.track.stream().timestamp -= u64::from(60 * call.rate);
            let packet = match call.is_sound() {
                true => vec![call.track.stream().sound()],
                false => call.track.stream().delta_frame(1),
            };
            call.send(&packet);
            assert!(call.sim.received(call.consumer).is_empty());
            assert_eq!(call.sim.dropped(call.consumer, DropReason::BadSequence), 1);
            call.sim.advance(ms(100));
            let received = call.sim.received(call.consumer);
            assert_eq!(received.len(), 1, "{name:?}");
            assert_eq!(received[0].mark(), packet[0].mark);
            let passed = received[0].rtp.timestamp.wrapping_sub(newest) / call.rate;
            assert!((round..=round + 3).contains(&passed), "{passed} s in round {round}");
            assert_eq!(call.sim.dropped(call.consumer, DropReason::BadSequence), 0);
        }
        call.sim.check_accounts();
        // A stray from far away waits, and is what it is.
        let mut stray = call.frames(1).remove(0);
        stray.truncate(1);
        stray[0].bytes[2..4].copy_from_slice(&[0x77, 0x77]);
        call.send(&stray);
        call.sim.advance(ms(5_000));
        assert!(call.sim.received(call.consumer).is_empty());
        assert_eq!(call.sim.dropped(call.consumer, DropReason::BadSequence), 1);
        call.sim.check_accounts();
    }
}
