//! Key frame requests: who may ask, who is asked, how often, and that nobody waits for ever.

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, Method, Profile, Remote};
use weir_worker::relay::sink::Port;

use crate::sim::live::Live;
use crate::sim::network::Network;
use crate::sim::track::Track;
use crate::sim::wire::{self, Means};
use crate::sim::{Sim, ms, single};

const HIGH: Profile = Profile::High;
const LOW: Profile = Profile::Low;

/// A room with a simulcast camera, all of whose layers flow, and `consumers` that get the highest. Nothing is asked.
fn conference(sim: &mut Sim, consumers: usize) -> (Track, Vec<ConsumerId>) {
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.simulcast(sender);
    let consumers = (0..consumers)
        .map(|_| {
            let receiver = sim.transport(room);
            sim.consumer(receiver, &track)
        })
        .collect();
    send_all(sim, &mut track, true);
    quiet(sim, &mut track);
    (track, consumers)
}

/// A frame of every layer.
fn send_all(sim: &mut Sim, track: &mut Track, key: bool) {
    for stream in &mut track.streams {
        let frame = stream.frame_of(2, key);
        sim.send(track.request.transport, &frame);
    }
}

/// Two seconds in which packets go on and no request is due.
fn quiet(sim: &mut Sim, track: &mut Track) {
    for _ in 0..20 {
        sim.advance(ms(100));
        send_all(sim, track, false);
    }
    sim.asked();
}

/// The requests since the last time, as (milliseconds since `start`, SSRC).
fn asked(sim: &mut Sim, start: weir_worker::time::Time) -> Vec<(u64, u32)> {
    sim.asked()
        .iter()
        .map(|ask| (ask.at.since(start).as_millis() as u64, ask.ssrc))
        .collect()
}

fn consumer_transport(sim: &Sim, consumer: ConsumerId) -> (TransportId, u32) {
    let request = &sim.consumers[&consumer].request;
    (request.transport, request.ssrc)
}

#[test]
fn pli_and_fir_reach_the_sender_of_what_flows() {
    let mut sim = Sim::new(1);
    let (mut track, consumers) = conference(&mut sim, 2);
    let high = track.layer(HIGH).ssrc;
    let (receiver, ssrc) = consumer_transport(&sim, consumers[0]);
    let sender = sim.index(track.transport());
    let requests = [
        wire::pli(1, ssrc),
        // As browsers do it: behind a report.
        [wire::receiver_report(1), wire::pli(1, ssrc)].concat(),
        // RFC 5104 §4.3.1.2: the SSRC stands in the entry. Several entries, one of them ours.
        wire::fir(1, &[(ssrc, 7)]),
        wire::fir(1, &[(4, 1), (ssrc, 8), (5, 2)]),
    ];
    for (count, request) in requests.into_iter().enumerate() {
        sim.send_rtcp(receiver, &request);
        let asked = sim.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(
            (asked[0].transport, asked[0].ssrc, asked[0].means),
            (sender, high, Means::Pli)
        );
        let stats = sim.stats(consumers[0]);
        assert_eq!(stats.pli_count + stats.fir_count, count as u64 + 1);
        quiet(&mut sim, &mut track);
    }
    let streams = sim.producer_stats(track.id()).streams;
    assert_eq!(streams[2].pli_count - streams[0].pli_count, 4, "{streams:?}");
    assert_eq!(sim.stats(consumers[1]).pli_count, 0);
    assert_eq!(sim.transport_stats(receiver).rtcp_received, 4);
}

#[test]
fn requests_for_strangers_reach_nobody() {
    let mut sim = Sim::new(2);
    let (track, consumers) = conference(&mut sim, 2);
    let (receiver, ssrc) = consumer_transport(&sim, consumers[0]);
    let (_, others_ssrc) = consumer_transport(&sim, consumers[1]);
    // Another transport's consumer, the producer's own SSRC, nobody's; and a FIR that means our SSRC only in the header.
    for media in [others_ssrc, track.streams[2].ssrc, 0] {
        sim.send_rtcp(receiver, &wire::pli(1, media));
        sim.send_rtcp(receiver, &wire::fir(1, &[(media, 1)]));
    }
    let mut header_only = wire::fir(1, &[(99, 1)]);
    header_only[8..12].copy_from_slice(&ssrc.to_be_bytes());
    sim.send_rtcp(receiver, &header_only);
    // And one that comes from somewhere else.
    let stranger = sim.address();
    sim.deliver(receiver, Port::Rtp, &[single(stranger, &wire::pli(1, ssrc))]);
    assert_eq!(sim.asked(), []);
    assert_eq!(sim.stats(consumers[0]).pli_count, 0);
}

#[test]
fn one_a_second_and_encoding_and_none_forgotten() {
    let mut sim = Sim::new(3);
    let (mut track, consumers) = conference(&mut sim, 3);
    sim.prefer(consumers[2], LOW);
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);
    let (high, low) = (track.layer(HIGH).ssrc, track.layer(LOW).ssrc);
    let start = sim.now;
    for _ in 0..25 {
        sim.pli(consumers[0]);
        sim.pli(consumers[1]);
        sim.advance(ms(100));
    }
    sim.pli(consumers[2]); // another encoding: not held back by the others
    sim.advance(ms(3_000));
    assert_eq!(
        asked(&mut sim, start),
        [(0, high), (1_000, high), (2_000, high), (2_500, low), (3_000, high)]
    );
}

#[test]
fn a_key_frame_answers_what_was_asked_before() {
    let mut sim = Sim::new(4);
    let (mut track, consumers) = conference(&mut sim, 2);
    sim.pli(consumers[0]);
    sim.advance(ms(300));
    sim.pli(consumers[1]); // held back
    assert_eq!(sim.asked().len(), 1);
    send_all(&mut sim, &mut track, true);
    sim.advance(ms(3_000));
    assert_eq!(sim.asked(), [], "the key frame served both");
}

/// The loop may be late with a timer: a request that comes first must not bury the one that was remembered.
#[test]
fn a_late_timer_loses_no_request() {
    let mut sim = Sim::new(5);
    let (mut track, consumers) = conference(&mut sim, 2);
    let high = track.layer(HIGH).ssrc;
    let start = sim.now;
    sim.pli(consumers[0]);
    sim.advance(ms(500));
    sim.pli(consumers[0]); // remembered until 1,000
    sim.now = sim.now + ms(700); // 1,200: packets were handled before timers
    sim.pli(consumers[0]);
    assert_eq!(asked(&mut sim, start), [(0, high), (1_200, high)]);
    sim.advance(ms(300));
    sim.pli(consumers[0]); // 1,500: held back until 2,200
    sim.advance(ms(1_000));
    assert_eq!(asked(&mut sim, start), [(2_200, high)]);
    send_all(&mut sim, &mut track, true);
}

#[test]
fn new_consumers_resumed_ones_and_switches_ask() {
    let mut sim = Sim::new(6);
    let (mut track, consumers) = conference(&mut sim, 1);
    let (low, medium, high) = (track.streams[0].ssrc, track.streams[1].ssrc, track.streams[2].ssrc);
    let room = track.request.room;

    let receiver = sim.transport(room);
    let newcomer = sim.consumer(receiver, &track);
    assert_eq!(sim.asked_ssrcs(), [high], "a new consumer");
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);

    let receiver = sim.transport(room);
    let modest = sim.consumer_with(receiver, &track, |request| request.preferred_profile = LOW);
    assert_eq!(sim.asked_ssrcs(), [low], "a new consumer with a wish");
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);

    sim.pause(consumers[0]);
    quiet(&mut sim, &mut track);
    sim.resume(consumers[0]);
    assert_eq!(sim.asked_ssrcs(), [high], "a resumed consumer");
    sim.resume(consumers[0]);
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);

    sim.prefer(newcomer, Profile::Medium);
    assert_eq!(sim.asked_ssrcs(), [medium], "a switch");
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);

    sim.command(Method::SetProducerPreferredProfile {
        producer: track.id(),
        profile: LOW,
    });
    assert_eq!(
        sim.asked_ssrcs(),
        [low],
        "the producer's wish moves those without one of their own"
    );
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);

    sim.command(Method::RequestKeyFrame { consumer: modest });
    assert_eq!(sim.asked_ssrcs(), [low], "a command");
}

#[test]
fn a_resumed_producer_is_asked_for_what_is_watched() {
    let mut sim = Sim::new(7);
    let (mut track, consumers) = conference(&mut sim, 2);
    let (low, high) = (track.layer(LOW).ssrc, track.layer(HIGH).ssrc);
    sim.prefer(consumers[1], LOW);
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);
    sim.pause_producer(track.id());
    for consumer in &consumers {
        sim.pli(*consumer);
        sim.command(Method::RequestKeyFrame { consumer: *consumer });
        sim.pause(*consumer);
        sim.resume(*consumer);
    }
    quiet(&mut sim, &mut track);
    assert_eq!(sim.producer_stats(track.id()).streams.len(), 3);
    sim.advance(ms(2_000));
    assert_eq!(sim.asked(), [], "a paused producer is not asked");
    sim.resume_producer(track.id());
    let mut ssrcs = sim.asked_ssrcs();
    ssrcs.sort_unstable();
    assert_eq!(ssrcs, [low, high], "both that are watched, the third is not");
    sim.resume_producer(track.id());
    send_all(&mut sim, &mut track, true);
    sim.advance(ms(3_000));
    assert_eq!(sim.asked(), []);
}

#[test]
fn a_request_from_before_a_pause_is_not_sent_in_it() {
    let mut sim = Sim::new(8);
    let (track, consumers) = conference(&mut sim, 1);
    sim.pli(consumers[0]);
    sim.advance(ms(100));
    sim.pli(consumers[0]); // remembered
    assert_eq!(sim.asked().len(), 1);
    sim.pause_producer(track.id());
    sim.advance(ms(5_000));
    assert_eq!(sim.asked(), []);
}

#[test]
fn paused_consumers_do_not_ask() {
    let mut sim = Sim::new(9);
    let (mut track, consumers) = conference(&mut sim, 1);
    sim.pause(consumers[0]);
    sim.pli(consumers[0]);
    sim.command(Method::RequestKeyFrame { consumer: consumers[0] });
    sim.prefer(consumers[0], LOW);
    let receiver = sim.transport(track.request.room);
    sim.consumer_with(receiver, &track, |request| request.paused = true);
    quiet(&mut sim, &mut track);
    sim.advance(ms(3_000));
    assert_eq!(
        sim.producer_stats(track.id())
            .streams
            .iter()
            .map(|stream| stream.pli_count)
            .sum::<u64>(),
        0
    );
}

#[test]
fn audio_is_never_asked() {
    let mut sim = Sim::new(10);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    let packet = track.stream().sound();
    sim.send(sender, &[packet]);
    sim.pli(consumer);
    sim.pause(consumer);
    sim.resume(consumer);
    sim.pause_producer(track.id());
    sim.resume_producer(track.id());
    sim.command(Method::RequestKeyFrame { consumer });
    sim.advance(ms(3_000));
    assert_eq!(sim.asked(), []);
}

#[test]
fn a_sender_is_asked_by_the_means_it_understands() {
    for (pli, fir) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut sim = Sim::new(11);
        let room = sim.room();
        let sender = sim.transport(room);
        let mut track = sim.track(sender, CodecName::H264, &[Profile::Default], |request| {
            (request.codecs[0].pli, request.codecs[0].fir) = (pli, fir);
        });
        let receiver = sim.transport(room);
        let consumer = sim.consumer(receiver, &track);
        let frame = track.stream().key_frame(2);
        sim.send(sender, &frame);
        sim.asked();
        let mut means = Vec::new();
        for _ in 0..3 {
            sim.advance(ms(2_000));
            sim.pli(consumer);
            means.extend(sim.asked().iter().map(|ask| ask.means));
        }
        match (pli, fir) {
            (true, _) => assert_eq!(means, [Means::Pli; 3]),
            // RFC 5104 §4.3.1.1: each new request has a new number.
            (false, true) => {
                let numbers: Vec<_> = means
                    .iter()
                    .map(|means| match means {
                        Means::Fir(number) => *number,
                        Means::Pli => panic!("it does not understand PLI"),
                    })
                    .collect();
                assert_eq!(
                    numbers,
                    [numbers[0], numbers[0].wrapping_add(1), numbers[0].wrapping_add(2)]
                );
            }
            (false, false) => assert_eq!(means, []),
        }
    }
}

#[test]
fn a_consumer_that_cannot_be_reached_asks_when_it_can() {
    let mut sim = Sim::new(12);
    let (mut track, _) = conference(&mut sim, 1);
    let (low, high) = (track.layer(LOW).ssrc, track.layer(HIGH).ssrc);
    let receiver = sim.unconnected_transport(track.request.room);
    let consumer = sim.consumer(receiver, &track);
    quiet(&mut sim, &mut track);
    let before: u64 = sim
        .producer_stats(track.id())
        .streams
        .iter()
        .map(|stream| stream.pli_count)
        .sum();
    assert_eq!(before, 0, "a key frame would be wasted");
    let mut remote = Remote {
        rtp: sim.addresses[&receiver],
        rtcp: None,
    };
    sim.command(Method::SetRemote {
        transport: receiver,
        remote,
    });
    assert_eq!(sim.asked_ssrcs(), [high], "its remote is known");
    send_all(&mut sim, &mut track, true);
    assert!(!sim.marks(consumer).is_empty());
    quiet(&mut sim, &mut track);
    sim.prefer(consumer, LOW);
    assert_eq!(sim.asked_ssrcs(), [low]);
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);
    // Told the same again, nothing changes; told another, whoever is there has seen nothing yet.
    sim.marks(consumer);
    for (rtp, asked) in [(remote.rtp, vec![]), (sim.address(), vec![low])] {
        remote.rtp = rtp;
        sim.command(Method::SetRemote {
            transport: receiver,
            remote,
        });
        sim.addresses.insert(receiver, rtp);
        assert_eq!(sim.asked_ssrcs(), asked);
    }
    send_all(&mut sim, &mut track, false);
    assert_eq!(sim.marks(consumer), [], "it starts on a key frame");
    send_all(&mut sim, &mut track, true);
    assert!(sim.marks(consumer)[0].key);
}

#[test]
fn a_stream_that_begins_with_a_key_frame_needs_no_request() {
    let mut sim = Sim::new(13);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    let frame = track.stream().key_frame(3);
    sim.send(sender, &frame);
    assert_eq!(sim.marks(consumer).len(), 3);
    sim.advance(ms(3_000));
    assert_eq!(sim.asked(), []);
}

#[test]
fn a_stream_that_begins_otherwise_is_asked_at_once() {
    let mut sim = Sim::new(14);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let receiver = sim.transport(room);
    sim.consumer(receiver, &track);
    let mut frame = track.stream().key_frame(3);
    frame.remove(0); // lost
    sim.send(sender, &frame);
    assert_eq!(sim.asked_ssrcs(), [track.stream().ssrc]);
}

/// Requests and key frames get lost like anything else. As long as somebody waits, the sender is asked again.
#[test]
fn a_lost_request_or_key_frame_is_asked_for_again() {
    let mut sim = Sim::new(15);
    let (mut track, consumers) = conference(&mut sim, 1);
    let low = track.layer(LOW).ssrc;
    sim.prefer(consumers[0], LOW);
    let start = sim.now;
    for _ in 0..35 {
        sim.advance(ms(100)); // nobody hears the requests
        send_all(&mut sim, &mut track, false);
    }
    assert_eq!(
        asked(&mut sim, start),
        [(0, low), (1_000, low), (2_000, low), (3_000, low)]
    );
    let mut key = track.layer(LOW).key_frame(3);
    key.remove(0); // and when one answers, the packet that matters is lost
    sim.send(track.transport(), &key);
    for _ in 0..10 {
        sim.advance(ms(100));
        send_all(&mut sim, &mut track, false);
    }
    assert_eq!(asked(&mut sim, start), [(4_000, low)]);
    send_all(&mut sim, &mut track, true);
    assert_eq!(sim.changes().last(), Some(&(consumers[0], Some(LOW))));
    sim.advance(ms(5_000));
    assert_eq!(sim.asked(), [], "nobody waits any more");
}

/// A static screen: the request is lost, and nothing comes by which the relay could see that it still waits (RFC 4585 §6.3.1:
/// feedback is not reliable).
#[test]
fn a_lost_request_is_repeated_though_the_sender_sends_nothing() {
    let mut sim = Sim::new(17);
    let (mut track, consumers) = conference(&mut sim, 1);
    let high = track.layer(HIGH).ssrc;
    let receiver = sim.transport(track.request.room);
    let start = sim.now;
    let newcomer = sim.consumer(receiver, &track);
    sim.advance(ms(20_500));
    let expected = [0, 1_000, 2_000, 3_000, 4_000, 6_000, 9_000, 14_000, 19_000];
    assert_eq!(asked(&mut sim, start), expected.map(|at| (at, high)));
    // Who is new is not made to wait: neither another consumer, nor a receiver that lost a picture.
    let receiver = sim.transport(track.request.room);
    sim.consumer(receiver, &track);
    sim.advance(ms(3_200));
    sim.pli(consumers[0]);
    sim.advance(ms(3_100));
    let expected = [20_500, 21_500, 22_500, 23_500, 24_500, 25_500, 26_500];
    assert_eq!(asked(&mut sim, start), expected.map(|at| (at, high)));
    // One layer alone shows that it is heard; nobody waits any more.
    let frame = track.layer(HIGH).key_frame(2);
    sim.send(track.transport(), &frame);
    assert_eq!(sim.marks(newcomer).len(), 2);
    sim.advance(ms(20_000));
    assert_eq!(sim.asked(), []);
}

/// The same while packets come that nobody can start on: no more often, and no less.
#[test]
fn a_sender_that_ignores_requests_is_asked_less_and_less_often() {
    let mut sim = Sim::new(18);
    let (mut track, _) = conference(&mut sim, 1);
    let high = track.layer(HIGH).ssrc;
    let receiver = sim.transport(track.request.room);
    let start = sim.now;
    sim.consumer(receiver, &track);
    for _ in 0..205 {
        send_all(&mut sim, &mut track, false);
        sim.advance(ms(100));
    }
    let expected = [0, 1_000, 2_000, 3_000, 4_000, 6_000, 9_000, 14_000, 19_000];
    assert_eq!(asked(&mut sim, start), expected.map(|at| (at, high)));
}

/// Whoever cannot be sent anything, or whom no key frame would help, is nobody who waits.
#[test]
fn nothing_is_repeated_for_nobody() {
    let mut sim = Sim::new(19);
    let (mut track, _) = conference(&mut sim, 1);
    let high = track.layer(HIGH).ssrc;
    let room = track.request.room;
    let start = sim.now;
    // A wait that ends by itself: with the consumer's pause, its end, the producer's pause.
    for end in 0..3 {
        let receiver = sim.transport(room);
        let consumer = sim.consumer(receiver, &track);
        sim.advance(ms(1_500));
        assert_eq!(asked(&mut sim, start).len(), 2, "{end}");
        match end {
            0 => sim.pause(consumer),
            1 => {
                sim.command(Method::CloseConsumer { consumer });
                sim.consumers.remove(&consumer);
            }
            _ => sim.pause_producer(track.id()),
        }
        sim.advance(ms(20_000));
        assert_eq!(sim.asked(), [], "{end}");
    }
    let resumed = sim.now;
    sim.resume_producer(track.id());
    sim.advance(ms(1_500));
    assert_eq!(asked(&mut sim, resumed), [(0, high), (1_000, high)]);
    send_all(&mut sim, &mut track, true);
    quiet(&mut sim, &mut track);
    // One without an address, and one that knows none of the sender's codecs.
    let receiver = sim.unconnected_transport(room);
    sim.consumer(receiver, &track);
    let receiver = sim.transport(room);
    sim.consumer_with(receiver, &track, |request| request.payload_types = vec![(1, 120)]);
    sim.advance(ms(1_500));
    sim.asked();
    sim.advance(ms(20_000));
    assert_eq!(sim.asked(), []);
}

/// A sender that starts over sends whatever it sends; the consumers wait for a key frame, so it is asked for.
#[test]
fn a_stream_that_starts_over_is_asked() {
    let mut sim = Sim::new(16);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
        request.mid = Some("0".into());
    });
    track.announce();
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    let send = |sim: &mut Sim, track: &mut Track, key| {
        let frame = track.stream().frame_of(2, key);
        sim.send(sender, &frame);
    };
    send(&mut sim, &mut track, true);
    sim.advance(ms(2_000));
    sim.asked();
    // Another SSRC under the same MID.
    track.stream().ssrc += 1;
    send(&mut sim, &mut track, false);
    assert_eq!(sim.asked_ssrcs(), [track.stream().ssrc]);
    send(&mut sim, &mut track, true);
    sim.advance(ms(2_000));
    assert_eq!(sim.asked(), []);
    // The same SSRC, at other sequence numbers.
    track.stream().seq += 30_000;
    send(&mut sim, &mut track, false);
    send(&mut sim, &mut track, false);
    assert_eq!(sim.asked_ssrcs(), [track.stream().ssrc]);
    sim.marks(consumer);
    send(&mut sim, &mut track, true);
    assert_eq!(sim.marks(consumer).len(), 2);
}

/// With senders that answer and a network that loses a fifth of the requests, everybody sees a picture.
#[test]
fn everybody_sees_a_picture_in_the_end() {
    crate::sim::for_each_seed(10, |seed| {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let track = sim.simulcast(sender);
        let consumers: Vec<_> = [Profile::Default, LOW, Profile::Medium, HIGH]
            .into_iter()
            .map(|profile| {
                let receiver = sim.transport(room);
                sim.consumer_with(receiver, &track, |request| request.preferred_profile = profile)
            })
            .collect();
        let mut live = Live::new(sim);
        live.start(track, Network::BAD);
        live.senders[0].key_every = 0;
        for round in 0..6 {
            let consumer = consumers[round % consumers.len()];
            live.sim.pause(consumer);
            live.run(ms(700));
            live.sim.resume(consumer);
            // A request is lost one time in five, a key frame's first packet one time in fifty.
            live.run(ms(10_000));
            for consumer in &consumers {
                let stats = live.sim.stats(*consumer);
                assert_eq!(stats.effective_profile, stats.target_profile, "{stats:?}");
                assert!(stats.bitrate > 0, "{stats:?}");
            }
        }
        live.sim.check_accounts();
    });
}

/// A storm: many join in a short time. They cost the sender one key frame a second, and nobody waits for longer than that
/// and the way to the sender and back.
#[test]
fn late_joiners_are_served_within_the_budget() {
    let mut sim = Sim::new(30);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut camera = sim.camera(sender, CodecName::Vp8);
    let start = sim.now;
    let mut joined = Vec::new();
    let mut answer_at = None;
    let mut asks = 0;
    for tick in 0..240 {
        if tick < 200 {
            let receiver = sim.transport(room);
            joined.push((sim.now, sim.consumer(receiver, &camera)));
        }
        let answers = sim.asked().len();
        asks += answers;
        if answers > 0 {
            answer_at = Some(sim.now + ms(100)); // there and back, and encoding
        }
        let key = answer_at.take_if(|at| *at <= sim.now).is_some();
        let frame = camera.stream().frame_of(2, key);
        sim.send(sender, &frame);
        sim.advance(ms(50));
    }
    assert!(asks <= 11, "{asks} key frames in ten seconds");
    for (at, consumer) in joined {
        let first = sim
            .received(consumer)
            .first()
            .map(|packet| packet.at)
            .expect("a picture");
        assert!(first.since(at) <= ms(1_200), "{:?}", (at.since(start), first.since(at)));
    }
}
