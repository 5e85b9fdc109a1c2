//! Consumers that outlive their producers: one stream for their receivers, whoever sends it.

use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{CodecName, ConsumerRtx, CreateConsumer, Method, Profile, Reply, WorkerError};

use crate::sim::judge::judge_numbers_with;
use crate::sim::reports::{Said, said};
use crate::sim::track::Track;
use crate::sim::wire::{self, Rtp};
use crate::sim::{Received, Sim, ms};

/// The payload type of what is sent again.
const RTX: u8 = 98;

/// A room in which somebody watches whoever sends.
struct Stage {
    sim: Sim,
    viewer: TransportId,
    /// As it was asked for last.
    request: CreateConsumer,
    consumer: ConsumerId,
}

impl Stage {
    /// A viewer of what this track is.
    fn new(seed: u64, codec: CodecName) -> (Self, Track) {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let viewer = sim.transport(room);
        let sender = sim.transport(room);
        let track = sim.camera(sender, codec);
        let consumer = sim.consumer_with(viewer, &track, outlives);
        let request = sim.consumers[&consumer].request.clone();
        let stage = Self {
            sim,
            viewer,
            request,
            consumer,
        };
        (stage, track)
    }

    /// Somebody else sends, on a transport of their own.
    fn another(&mut self, codec: CodecName, profiles: &[Profile], payload_type: u8) -> Track {
        let sender = self.sim.transport(self.request.room);
        self.sim.track(sender, codec, profiles, |request| {
            request.codecs[0].payload_type = payload_type;
        })
    }

    /// The request for this source, whose payload type is the viewer's 96.
    fn request_for(&self, track: &Track) -> CreateConsumer {
        let source = track.request.codecs[0].payload_type;
        CreateConsumer {
            producer: track.id(),
            payload_types: vec![(source, 96)],
            ..self.request.clone()
        }
    }

    fn follow(&mut self, track: &Track) {
        let request = self.request_for(track);
        let reply = self.sim.command(Method::SetConsumerSource(request.clone()));
        if !self.sim.page.is_dead() {
            assert_eq!(reply, Reply::ConsumerCreated { source_paused: false });
        }
        self.request = request;
    }

    /// Frames of two packets, 33 ms apart, the first of them a key frame.
    fn show(&mut self, track: &mut Track, frames: usize) {
        for index in 0..frames {
            for stream in 0..track.streams.len() {
                let packets = track.streams[stream].frame_of(2, index == 0);
                let transport = track.transport();
                self.sim.send(transport, &packets);
            }
            self.sim.advance(ms(33));
        }
    }

    fn leave(&mut self, track: &Track) {
        let transport = track.transport();
        self.sim.command(Method::CloseTransport { transport });
    }

    fn received(&mut self) -> Vec<Received> {
        self.sim.received(self.consumer)
    }
}

fn outlives(request: &mut CreateConsumer) {
    request.lasting_cname = Some("stage".to_owned());
    request.nack = true;
    request.payload_types = vec![(request.payload_types[0].0, 96)];
    request.rtx = Some(ConsumerRtx {
        ssrc: request.ssrc | 1 << 30,
        payload_types: vec![(96, RTX)],
    });
}

#[test]
fn an_encoder_that_restarts_is_one_stream_for_its_viewers() {
    for codec in [CodecName::Vp8, CodecName::H264] {
        let (mut stage, mut first) = Stage::new(1, codec);
        stage.show(&mut first, 20);
        stage.leave(&first);
        stage.sim.advance(ms(2_000));
        let before = stage.received();
        assert_eq!(before.len(), 40);
        let mut second = stage.another(codec, &[Profile::Default], 103);
        stage.sim.asked();
        stage.follow(&second);
        stage.show(&mut second, 20);
        let after = stage.received();
        assert_eq!(after.len(), 40);
        assert!(
            after
                .iter()
                .all(|packet| packet.rtp.ssrc == stage.request.ssrc && packet.rtp.payload_type == 96)
        );
        let (last, next) = (&before[39].rtp, &after[0].rtp);
        assert_eq!(next.seq, last.seq.wrapping_add(1));
        // Its clock goes on with the time: 2,033 ms.
        assert_eq!(next.timestamp.wrapping_sub(last.timestamp), 2_033 * 90);
        let all: Vec<_> = before.into_iter().chain(after).collect();
        let segments = judge_numbers_with(&all, codec, 0);
        assert_eq!(segments.len(), 2, "{segments:?}");
        stage.sim.check_accounts();
    }
}

#[test]
fn a_source_is_changed_while_both_send() {
    let (mut stage, mut first) = Stage::new(2, CodecName::Vp8);
    let profiles = [Profile::Low, Profile::Medium, Profile::High];
    let mut second = stage.another(CodecName::Vp8, &profiles, 103);
    stage.show(&mut first, 5);
    stage.show(&mut second, 5);
    stage.follow(&second);
    // At first it is sent nothing.
    let told = [Some(Profile::Default), None].map(|profile| (stage.consumer, profile));
    assert_eq!(stage.sim.changes(), told);
    stage.show(&mut second, 5);
    stage.show(&mut first, 5);
    let request = stage.request.ssrc;
    stage.follow(&first);
    stage.show(&mut second, 5);
    stage.show(&mut first, 5);
    stage.sim.advance(ms(200));
    assert_eq!(stage.request.ssrc, request);
    let received = stage.received();
    let segments = judge_numbers_with(&received, CodecName::Vp8, 0);
    assert_eq!(segments.len(), 3, "{segments:?}");
    let streams: Vec<u32> = segments.iter().map(|segment| segment.first.stream).collect();
    assert_eq!(
        streams,
        [
            first.streams[0].number,
            second.streams[2].number,
            first.streams[0].number
        ]
    );
    let told: Vec<_> = stage.sim.changes().into_iter().map(|(_, profile)| profile).collect();
    assert_eq!(told.last(), Some(&Some(Profile::Default)), "{told:?}");
    assert!(told.contains(&Some(Profile::High)), "{told:?}");
    stage.sim.check_accounts();
}

#[test]
fn who_waits_is_neither_gone_nor_sent_anything() {
    let (mut stage, mut first) = Stage::new(3, CodecName::Vp8);
    stage.show(&mut first, 5);
    stage.sim.sink.rtcp.clear();
    stage.leave(&first);
    stage.sim.advance(ms(20_000));
    let viewer = stage.sim.index(stage.viewer);
    let said: Vec<Said> = stage
        .sim
        .sink
        .rtcp
        .iter()
        .filter(|(_, transport, _)| *transport == viewer)
        .flat_map(|(_, _, packet)| said(packet))
        .collect();
    assert!(!said.iter().any(|said| matches!(said, Said::Bye { .. })), "{said:?}");
    assert_eq!(stage.sim.changes().last(), Some(&(stage.consumer, None)));
    assert_eq!(stage.received().len(), 10);
    let (_, _, producers, consumers) = stage.sim.relay.counts();
    assert_eq!((producers, consumers), (0, 1));
    // What it is told to do meanwhile counts later.
    stage.sim.pause(stage.consumer);
    stage.sim.prefer(stage.consumer, Profile::Low);
    let mut second = stage.another(CodecName::Vp8, &[Profile::Low, Profile::High], 104);
    stage.follow(&second);
    stage.show(&mut second, 5);
    assert_eq!(stage.received().len(), 0);
    stage.sim.resume(stage.consumer);
    stage.show(&mut second, 5);
    let received = stage.received();
    assert_eq!(received.len(), 10);
    assert_eq!(received[0].mark().stream, second.streams[0].number);
    stage.sim.check_accounts();
    // Whoever closes what is waiting leaves nothing.
    stage.leave(&second);
    let transport = stage.viewer;
    stage.sim.command(Method::CloseTransport { transport });
    assert_eq!(stage.sim.relay.counts(), (1, 0, 0, 0));
}

#[test]
fn it_may_wait_from_the_beginning() {
    let (mut stage, first) = Stage::new(4, CodecName::Vp8);
    let consumer = ConsumerId(stage.sim.id());
    let request = CreateConsumer {
        producer: ProducerId(999),
        consumer,
        ssrc: 77,
        rtx: None,
        ..stage.request.clone()
    };
    let refused = stage.sim.attempt(Method::CreateConsumer(CreateConsumer {
        lasting_cname: None,
        ..request.clone()
    }));
    assert_eq!(refused, Err(WorkerError::UnknownProducer(ProducerId(999))));
    stage.sim.command(Method::CreateConsumer(request.clone()));
    stage.sim.know_consumer(request.clone());
    stage.sim.stats(consumer);
    stage.sim.advance(ms(10_000));
    (stage.consumer, stage.request) = (consumer, request);
    let mut first = first;
    stage.follow(&first);
    stage.show(&mut first, 3);
    assert_eq!(stage.received().len(), 6);
}

#[test]
fn what_is_no_new_source_is_refused_and_changes_nothing() {
    let (mut stage, mut first) = Stage::new(5, CodecName::Vp8);
    let second = stage.another(CodecName::Vp8, &[Profile::Default], 103);
    let other_room = stage.sim.room();
    let sender = stage.sim.transport(other_room);
    let foreign = stage.sim.camera(sender, CodecName::Vp8);
    let short = stage.sim.consumer(stage.viewer, &first);
    let good = stage.request_for(&second);
    let wrong = [
        CreateConsumer {
            producer: ProducerId(999),
            ..good.clone()
        },
        CreateConsumer {
            producer: foreign.id(),
            ..good.clone()
        },
        CreateConsumer {
            consumer: ConsumerId(999),
            ..good.clone()
        },
        CreateConsumer {
            consumer: short,
            ..good.clone()
        },
        CreateConsumer {
            ssrc: 5,
            ..good.clone()
        },
        CreateConsumer {
            rtx: None,
            ..good.clone()
        },
        CreateConsumer {
            transport: first.transport(),
            ..good.clone()
        },
        CreateConsumer {
            payload_types: vec![],
            ..good
        },
    ];
    for wrong in wrong {
        let shown = format!("{wrong:?}");
        assert!(stage.sim.attempt(Method::SetConsumerSource(wrong)).is_err(), "{shown}");
    }
    stage.show(&mut first, 3);
    assert_eq!(stage.received().len(), 6);
    let gone = first.id();
    stage.sim.command(Method::CloseProducer { producer: gone });
    assert!(
        stage
            .sim
            .attempt(Method::Stats(weir_channel::message::Scope::Consumer(short)))
            .is_err()
    );
}

#[test]
fn what_is_sent_again_goes_on_too_and_what_is_gone_is_not_sent_again() {
    let (mut stage, mut first) = Stage::new(6, CodecName::Vp8);
    let mut again = Vec::new();
    let mut second = None;
    for round in 0..2 {
        if round == 1 {
            stage.leave(&first);
            let next = stage.another(CodecName::Vp8, &[Profile::Default], 103);
            stage.follow(&next);
            second = Some(next);
        }
        let track = second.as_mut().unwrap_or(&mut first);
        for index in 0..5 {
            let packets = track.streams[0].frame_of(2, index == 0);
            stage.sim.send(track.request.transport, &packets);
            stage.sim.advance(ms(33));
        }
        let received = stage.received();
        let mut lost: Vec<u16> = vec![received[3].rtp.seq, received[4].rtp.seq];
        if round == 1 {
            // The last of the first source.
            lost.push(received[0].rtp.seq.wrapping_sub(1));
        }
        let nack = wire::nack(1, stage.request.ssrc, &lost);
        let viewer = stage.viewer;
        stage.sim.send_rtcp(viewer, &nack);
        for (_, _, packet) in std::mem::take(&mut stage.sim.sink.resent) {
            let rtp = Rtp::read(&packet);
            assert_eq!((rtp.payload_type, rtp.ssrc), (RTX, stage.request.ssrc | 1 << 30));
            again.push(rtp.seq);
        }
    }
    assert_eq!(again.len(), 4);
    assert!(
        again.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)),
        "{again:?}"
    );
}

/// It dies before every store of a change of the source, with or without a pause between the two.
#[test]
fn a_relay_may_die_at_every_store_of_a_change() {
    for waits in [true, false] {
        let play = |dies_after: Option<u64>| {
            let (mut stage, mut first) = Stage::new(7, CodecName::Vp8);
            let mut second = stage.another(CodecName::Vp8, &[Profile::Low, Profile::High], 103);
            stage.show(&mut first, 5);
            let before = stage.sim.page.stores();
            if let Some(stores) = dies_after {
                stage.sim.page.kill_after(before + stores);
            }
            let page = stage.sim.page.clone();
            if waits {
                stage.leave(&first);
                stage.sim.succeed_if_dead();
                stage.sim.advance(ms(500));
            }
            stage.sim.succeed_if_dead();
            stage.follow(&second);
            stage.sim.succeed_if_dead();
            stage.show(&mut second, 3);
            let stored = page.stores() - before;
            stage.sim.succeed_if_dead();
            stage.show(&mut second, 8);
            let received = stage.received();
            judge_numbers_with(&received, CodecName::Vp8, 4);
            let newest = received.last().unwrap().mark();
            assert_eq!(newest.stream, second.streams[1].number);
            assert_eq!(newest.seq + 1, second.streams[1].seq, "it flows to the end");
            (stored, stage.sim.deaths)
        };
        let (stores, _) = play(None);
        assert!(stores > 50, "{stores}");
        for dies_after in 0..stores {
            let (_, deaths) = play(Some(dies_after));
            assert_eq!(deaths, 1);
        }
    }
}

/// A relay that dies while somebody waits, and another one after it.
#[test]
fn who_waits_goes_on_behind_what_it_was_sent_whoever_dies_meanwhile() {
    let (mut stage, mut first) = Stage::new(8, CodecName::Vp8);
    stage.show(&mut first, 5);
    stage.leave(&first);
    for _ in 0..2 {
        stage.sim.die();
        stage.sim.succeed();
        stage.sim.advance(ms(1_000));
    }
    let mut second = stage.another(CodecName::Vp8, &[Profile::Default], 103);
    stage.follow(&second);
    stage.show(&mut second, 5);
    let received = stage.received();
    let segments = judge_numbers_with(&received, CodecName::Vp8, 0);
    assert_eq!(segments.len(), 2);
    let (last, next) = (&received[9].rtp, &received[10].rtp);
    assert_eq!(next.timestamp.wrapping_sub(last.timestamp), 2_033 * 90);
}

/// It dies when the new source flows already, but nobody has read its answer: the change is asked for again, of a successor that knows
/// the old source.
#[test]
fn a_flow_is_not_taken_for_one_of_another_source() {
    let (mut stage, mut first) = Stage::new(9, CodecName::Vp8);
    let mut second = stage.another(CodecName::Vp8, &[Profile::Low, Profile::High], 103);
    stage.show(&mut first, 5);
    let method = Method::SetConsumerSource(stage.request_for(&second));
    stage.sim.relay.handle_command(stage.sim.now, &method).unwrap();
    stage.show(&mut second, 5);
    stage.sim.die();
    stage.sim.succeed();
    stage.show(&mut first, 2);
    stage.follow(&second);
    stage.show(&mut second, 5);
    let received = stage.received();
    judge_numbers_with(&received, CodecName::Vp8, 0);
    let newest = received.last().unwrap().mark();
    assert_eq!(
        (newest.stream, newest.seq + 1),
        (second.streams[1].number, second.streams[1].seq)
    );
}
