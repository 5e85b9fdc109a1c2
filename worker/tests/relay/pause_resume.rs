//! Pausing and resuming producers and consumers (differences §2.2, as a worker sees it: two booleans that any command
//! may set to what they are already).

use proptest::prelude::*;
use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, DropReason, Method, Notification, Profile, Reply};

use crate::sim::model::Model;
use crate::sim::stream::Packet;
use crate::sim::track::Track;
use crate::sim::{Sim, ms};

fn camera_and_viewer(sim: &mut Sim, codec: CodecName) -> (Track, ConsumerId) {
    let room = sim.room();
    let sender = sim.transport(room);
    let track = sim.camera(sender, codec);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    (track, consumer)
}

/// (the producer, the consumer)
type Paused = (bool, bool);

/// The four commands, by their place in the table below.
fn command(place: usize, track: &Track, consumer: ConsumerId) -> Method {
    let producer = track.id();
    match place {
        0 => Method::SetProducerPaused { producer, paused: true },
        1 => Method::SetProducerPaused {
            producer,
            paused: false,
        },
        2 => Method::SetConsumerPaused { consumer, paused: true },
        _ => Method::SetConsumerPaused {
            consumer,
            paused: false,
        },
    }
}

/// Every state, every command: what is paused then.
///
/// ```text
///   (producer, consumer) paused │ pause p │ resume p │ pause c │ resume c
///   no,  no                     │ yes, no │ no,  no  │ no, yes │ no,  no
///   yes, no                     │ yes, no │ no,  no  │ yes,yes │ yes, no
///   no,  yes                    │ yes,yes │ no,  yes │ no, yes │ no,  no
///   yes, yes                    │ yes,yes │ no,  yes │ yes,yes │ yes, no
/// ```
#[test]
fn every_command_in_every_state() {
    const TABLE: [(Paused, [Paused; 4]); 4] = [
        (
            (false, false),
            [(true, false), (false, false), (false, true), (false, false)],
        ),
        (
            (true, false),
            [(true, false), (false, false), (true, true), (true, false)],
        ),
        (
            (false, true),
            [(true, true), (false, true), (false, true), (false, false)],
        ),
        ((true, true), [(true, true), (false, true), (true, true), (true, false)]),
    ];
    for codec in [CodecName::Opus, CodecName::Vp8] {
        for ((producer_paused, consumer_paused), outcomes) in TABLE {
            for (place, expected) in outcomes.into_iter().enumerate() {
                let mut sim = Sim::new(1);
                let (mut track, consumer) = camera_and_viewer(&mut sim, codec);
                let frame = track.stream().key_frame(2);
                sim.send(track.transport(), &frame);
                if producer_paused {
                    sim.pause_producer(track.id());
                }
                if consumer_paused {
                    sim.pause(consumer);
                }
                sim.marks(consumer);
                sim.told();
                let reply = sim.command(command(place, &track, consumer));
                assert_eq!(reply, Reply::Done);
                assert_eq!(sim.told(), [], "the supervisor knows what it asked for");
                let stats = sim.stats(consumer);
                let case = format!("{codec:?}, command {place} in {producer_paused}, {consumer_paused}");
                assert_eq!((stats.source_paused, stats.paused), expected, "{case}");
                assert_eq!(sim.producer_stats(track.id()).paused, expected.0, "{case}");

                // A frame that is not a key frame, then one that is.
                let was_flowing = !producer_paused && !consumer_paused;
                let flows = expected == (false, false);
                let audio = codec == CodecName::Opus;
                let before = sim.stats(consumer).packets_in;
                for key in [false, true] {
                    let frame = track.stream().frame_of(2, key);
                    sim.send(track.transport(), &frame);
                    let expected = if flows && (key || was_flowing || audio) { 2 } else { 0 };
                    assert_eq!(sim.marks(consumer).len(), expected, "{case}, key frame {key}");
                }
                let stats = sim.stats(consumer);
                assert_eq!(stats.packets_in, before + 4, "{case}: accounting goes on");
                if !flows {
                    // The consumer's own pause is named first.
                    let reason = if stats.paused {
                        DropReason::ConsumerPaused
                    } else {
                        DropReason::ProducerPaused
                    };
                    assert_eq!(sim.dropped(consumer, reason), 4, "{case}");
                }
                sim.check_accounts();
            }
        }
    }
}

#[test]
fn a_paused_producer_is_received_and_counted() {
    let mut sim = Sim::new(2);
    let (mut track, consumer) = camera_and_viewer(&mut sim, CodecName::Vp8);
    let send = |sim: &mut Sim, track: &mut Track, key| {
        let frame = track.stream().frame_of(3, key);
        sim.send(track.transport(), &frame);
    };
    send(&mut sim, &mut track, true);
    sim.pause_producer(track.id());
    for index in 0..10 {
        send(&mut sim, &mut track, index % 5 == 0);
    }
    let stats = &sim.producer_stats(track.id()).streams[0];
    assert_eq!((stats.packets, stats.packets_paused, stats.key_frames), (33, 30, 3));
    assert!(stats.bitrate > 0 && stats.packets_lost == 0);
    assert_eq!(sim.marks(consumer).len(), 3);
    // What was lost in the pause is lost for the stream, and no gap for the consumer.
    track.stream().seq += 100;
    sim.resume_producer(track.id());
    assert_eq!(sim.asked_ssrcs(), [track.stream().ssrc]);
    send(&mut sim, &mut track, true);
    assert_eq!(sim.producer_stats(track.id()).streams[0].packets_lost, 100);
    let last = sim.stats(consumer).last_seq.expect("something was sent");
    let received = sim.received(consumer);
    assert_eq!(received.len(), 3);
    assert_eq!(received[2].rtp.seq, last as u16);
    assert_eq!(sim.stats(consumer).packets_forwarded, 6);
}

#[test]
fn consumers_begin_paused_if_asked_to() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.track(sender, CodecName::Vp8, &[Profile::Default], |request| {
        request.paused = true
    });
    let receiver = sim.transport(room);
    for paused in [true, false] {
        let request = sim.consumer_request(receiver, &track, |request| request.paused = paused);
        let reply = sim.command(Method::CreateConsumer(request.clone()));
        assert_eq!(reply, Reply::ConsumerCreated { source_paused: true });
        sim.know_consumer(request);
    }
    let consumers: Vec<_> = sim.consumers.keys().copied().collect();
    let frame = track.stream().key_frame(1);
    sim.send(sender, &frame);
    sim.resume_producer(track.id());
    let frame = track.stream().key_frame(1);
    sim.send(sender, &frame);
    assert_eq!(sim.marks(consumers[0]).len(), 0);
    assert_eq!(sim.marks(consumers[1]).len(), 1);
    sim.resume(consumers[0]);
    let frame = track.stream().key_frame(1);
    sim.send(sender, &frame);
    assert_eq!(sim.marks(consumers[0]).len(), 1);
    let reply = sim.command(Method::SetProducerPaused {
        producer: track.id(),
        paused: true,
    });
    assert_eq!(reply, Reply::Done);
    sim.check_accounts();
}

/// One step of a random story.
#[derive(Clone, Debug)]
enum Step {
    PauseProducer,
    ResumeProducer,
    Pause(usize),
    Resume(usize),
    Prefer(usize, Profile),
    SourcePrefers(Profile),
    Add {
        paused: bool,
        profile: Profile,
    },
    Close(usize),
    Frame {
        layer: usize,
        key: bool,
        packets: usize,
        joined: bool,
    },
    /// The newest frame of a layer again.
    Again {
        layer: usize,
    },
    Advance {
        ms: u64,
    },
}

fn profile() -> impl Strategy<Value = Profile> {
    prop_oneof![
        Just(Profile::Default),
        Just(Profile::Low),
        Just(Profile::Medium),
        Just(Profile::High)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::PauseProducer),
        3 => Just(Step::ResumeProducer),
        3 => (0..5_usize).prop_map(Step::Pause),
        4 => (0..5_usize).prop_map(Step::Resume),
        3 => (0..5_usize, profile()).prop_map(|(consumer, profile)| Step::Prefer(consumer, profile)),
        1 => profile().prop_map(Step::SourcePrefers),
        2 => (any::<bool>(), profile()).prop_map(|(paused, profile)| Step::Add { paused, profile }),
        1 => (0..5_usize).prop_map(Step::Close),
        25 => (0..3_usize, any::<bool>(), 1..4_usize, any::<bool>())
            .prop_map(|(layer, key, packets, joined)| Step::Frame { layer, key, packets, joined }),
        2 => (0..3_usize).prop_map(|layer| Step::Again { layer }),
        5 => prop_oneof![0..100_u64, 900..1_400_u64].prop_map(|ms| Step::Advance { ms }),
    ]
}

/// The relay and the model, side by side.
struct Pair {
    sim: Sim,
    model: Model,
    track: Track,
    newest: Vec<Vec<Packet>>,
}

impl Pair {
    fn new(codec: CodecName, profiles: &[Profile]) -> Self {
        let mut sim = Sim::new(7);
        let room = sim.room();
        let sender = sim.transport(room);
        let track = sim.track(sender, codec, profiles, |_| {});
        Self {
            model: Model::new(codec != CodecName::Opus, profiles, sim.now),
            newest: vec![Vec::new(); profiles.len()],
            sim,
            track,
        }
    }

    fn consumer(&self, place: usize) -> Option<ConsumerId> {
        let consumers: Vec<_> = self.model.consumers.keys().copied().collect();
        (!consumers.is_empty()).then(|| consumers[place % consumers.len()])
    }

    fn deliver(&mut self, layer: usize, frame: &[Packet], joined: bool) {
        for packet in frame {
            self.model.packet(self.sim.now, layer, packet.mark);
        }
        if joined {
            self.sim.send_train(self.track.transport(), frame);
        } else {
            self.sim.send(self.track.transport(), frame);
        }
    }

    fn step(&mut self, step: &Step) {
        let layers = self.newest.len();
        match step {
            Step::PauseProducer => {
                self.model.pause_producer();
                self.sim.pause_producer(self.track.id());
            }
            Step::ResumeProducer => {
                self.model.resume_producer();
                self.sim.resume_producer(self.track.id());
            }
            Step::Pause(place) => {
                if let Some(consumer) = self.consumer(*place) {
                    self.model.pause(consumer);
                    self.sim.pause(consumer);
                }
            }
            Step::Resume(place) => {
                if let Some(consumer) = self.consumer(*place) {
                    self.model.resume(consumer);
                    self.sim.resume(consumer);
                }
            }
            Step::Prefer(place, profile) => {
                if let Some(consumer) = self.consumer(*place) {
                    self.model.prefer(consumer, *profile);
                    self.sim.prefer(consumer, *profile);
                }
            }
            Step::SourcePrefers(profile) => {
                self.model.source_prefers(*profile);
                self.sim.command(Method::SetProducerPreferredProfile {
                    producer: self.track.id(),
                    profile: *profile,
                });
            }
            Step::Add { paused, profile } => {
                if self.model.consumers.len() < 5 {
                    let receiver = self.sim.transport(self.track.request.room);
                    let consumer = self.sim.consumer_with(receiver, &self.track, |request| {
                        request.paused = *paused;
                        request.preferred_profile = *profile;
                    });
                    self.model.add(consumer, *paused, *profile);
                }
            }
            Step::Close(place) => {
                if let Some(consumer) = self.consumer(*place) {
                    self.model.consumers.remove(&consumer);
                    self.sim.command(Method::CloseConsumer { consumer });
                }
            }
            Step::Frame {
                layer,
                key,
                packets,
                joined,
            } => {
                let layer = layer % layers;
                let frame = self.track.streams[layer].frame_of(*packets, *key);
                self.deliver(layer, &frame, *joined);
                self.newest[layer] = frame;
            }
            Step::Again { layer } => {
                let layer = layer % layers;
                let frame = self.newest[layer].clone();
                if !frame.is_empty() {
                    self.deliver(layer, &frame, false);
                }
            }
            Step::Advance { ms: by } => {
                let end = self.sim.now + ms(*by);
                loop {
                    let due = [self.model.next_check, self.model.next_rest()];
                    let Some(due) = due.into_iter().flatten().filter(|due| *due <= end).min() else {
                        break;
                    };
                    self.sim.advance(due.since(self.sim.now));
                    self.model.tick(due);
                    self.model.end_rests(due);
                }
                self.sim.advance(end.since(self.sim.now));
            }
        }
        self.check();
    }

    fn check(&mut self) {
        for notification in self.sim.told() {
            let Notification::EffectiveProfileChanged { consumer, profile } = notification else {
                if matches!(notification, Notification::ProducerActivityChanged { .. }) {
                    continue;
                }
                panic!("unexpected {notification:?}");
            };
            let expected = &mut self.model.consumers.get_mut(&consumer).expect("it exists").changes;
            assert_eq!(expected.first(), Some(&profile), "{consumer}: {expected:?}");
            expected.remove(0);
        }
        let mut received: Vec<_> = self
            .model
            .consumers
            .keys()
            .map(|consumer| (*consumer, Vec::new()))
            .collect();
        for (consumer, marks) in &mut received {
            *marks = self.sim.marks(*consumer);
            self.model.check_stats(&self.sim.stats(*consumer));
        }
        for (consumer, marks) in received {
            let expected = self.model.consumers.get_mut(&consumer).expect("it exists");
            assert_eq!(expected.changes, [], "{consumer}: changes that were not told");
            let new = expected.received.len() - marks.len();
            assert_eq!(marks, expected.received[new..], "{consumer}");
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 200,
        // The failing steps are printed whole; there is no file to keep them in.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn audio_does_as_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new(CodecName::Opus, &[Profile::Default]);
        steps.iter().for_each(|step| pair.step(step));
    }

    #[test]
    fn video_does_as_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new(CodecName::Vp9, &[Profile::Default]);
        steps.iter().for_each(|step| pair.step(step));
    }

    #[test]
    fn simulcast_does_as_the_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new(CodecName::Vp8, &[Profile::Low, Profile::Medium, Profile::High]);
        steps.iter().for_each(|step| pair.step(step));
    }
}
