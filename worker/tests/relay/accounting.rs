//! Every packet ends in one counter of each consumer: `packets_in = packets_forwarded + Σ dropped`, at every moment, and
//! both agree with what really came and went.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{CodecName, DropReason, Method, Profile, Remote, WorkerStats};
use weir_worker::relay::sink::Port;

use crate::sim::random::Random;
use crate::sim::stream::Packet;
use crate::sim::track::Track;
use crate::sim::wire::Rtp;
use crate::sim::{Sim, for_each_seed, ms, single, train};

/// Rooms full of everything, and an independent count.
struct World {
    sim: Sim,
    random: Random,
    tracks: Vec<Track>,
    /// Transports of each room: connected, waiting for a remote, learning it.
    transports: Vec<Vec<TransportId>>,
    consumers: BTreeMap<ConsumerId, ProducerId>,
    /// Packets routed to its producer while a consumer existed.
    routed: BTreeMap<ConsumerId, u64>,
    newest: BTreeMap<ProducerId, Vec<Packet>>,
    /// Packets offered to consumers that are closed, and picture losses that they told of.
    gone: (u64, u64),
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            sim: Sim::new(seed),
            random: Random::new(seed),
            tracks: Vec::new(),
            transports: Vec::new(),
            consumers: BTreeMap::new(),
            routed: BTreeMap::new(),
            newest: BTreeMap::new(),
            gone: (0, 0),
        };
        // What is kept for those who come later is more than what came while they were there.
        world.sim.relay.set_gops_max(u32::from(seed % 2 == 1));
        world.sim.sink.refusals = Some((Random::new(seed + 1), 100));
        for _ in 0..3 {
            let room = world.sim.room();
            let sender = world.sim.transport(room);
            world.tracks.push(world.sim.microphone(sender));
            world.tracks.push(world.sim.simulcast(sender));
            let other = world.sim.transport(room);
            let codec = world
                .random
                .pick(&[CodecName::Vp9, CodecName::H264, CodecName::H265, CodecName::Av1]);
            world.tracks.push(world.sim.camera(other, codec));
            let learning = world.sim.address();
            world.transports.push(vec![
                sender,
                world.sim.transport(room),
                world.sim.transport(room),
                world.sim.unconnected_transport(room),
                world
                    .sim
                    .transport_with(room, learning, |request| request.comedia = true),
            ]);
        }
        world
    }

    fn consumer(&mut self) -> Option<ConsumerId> {
        let consumers: Vec<_> = self.consumers.keys().copied().collect();
        (!consumers.is_empty()).then(|| self.random.pick(&consumers))
    }

    fn step(&mut self) {
        let track = self.random.below(self.tracks.len());
        let producer = self.tracks[track].id();
        match self.random.below(100) {
            0..60 => self.packets(track),
            60..66 => self.add_consumer(track),
            66..68 => self.sim.pause_producer(producer),
            68..72 => self.sim.resume_producer(producer),
            72 => {
                let profile = self.random.pick(&[Profile::Default, Profile::Low, Profile::High]);
                self.sim
                    .command(Method::SetProducerPreferredProfile { producer, profile });
            }
            73..85 => self.change_consumer(),
            85 => {
                // Somebody who waited for a remote gets one.
                let room = self.random.below(self.transports.len());
                let transport = self.transports[room][3];
                let rtp = self.sim.addresses[&transport];
                self.sim.command(Method::SetRemote {
                    transport,
                    remote: Remote { rtp, rtcp: None },
                });
            }
            86 => {
                let room = self.random.below(self.transports.len());
                let transport = self.transports[room][4];
                self.sim.send_rtcp(transport, &crate::sim::wire::receiver_report(1));
            }
            _ => {
                let by = self.random.pick(&[0, 1, 20, 33, 300, 1_100]);
                self.sim.advance(ms(by));
            }
        }
    }

    /// A batch for the transport of a track: frames of it and of others there, old packets, and packets of nobody.
    fn packets(&mut self, track: usize) {
        let transport = self.tracks[track].transport();
        let source = self.sim.addresses[&transport];
        let mut batch: Vec<Packet> = Vec::new();
        let mut counts: BTreeMap<ProducerId, u64> = BTreeMap::new();
        for _ in 0..self.random.range(1..5) {
            let here: Vec<_> = (0..self.tracks.len())
                .filter(|other| self.tracks[*other].transport() == transport)
                .collect();
            let other = self.random.pick(&here);
            let producer = self.tracks[other].id();
            let streams = self.tracks[other].streams.len();
            let layer = self.random.below(streams);
            let (packets, key) = (self.random.range(1..6), self.random.chance(200));
            let stream = &mut self.tracks[other].streams[layer];
            let mut frame = match self.random.below(20) {
                // Seen before.
                0 => self.newest.get(&producer).cloned().unwrap_or_default(),
                // Nothing but padding.
                2 => {
                    let mut frame = stream.frame_of(packets, false);
                    for packet in &mut frame {
                        let mut rtp = Rtp::read(&packet.bytes);
                        (rtp.payload, rtp.padding) = (Vec::new(), 99);
                        packet.bytes = rtp.write();
                    }
                    frame
                }
                // Far away: dropped, or a restart.
                1 => {
                    stream.seq += 10_000;
                    stream.frame_of(packets, key)
                }
                _ => stream.frame_of(packets, key),
            };
            *counts.entry(producer).or_default() += frame.len() as u64;
            self.newest.insert(producer, frame.clone());
            if self.random.chance(50) {
                // Of no codec, and of no stream or of one: nobody's.
                for packet in &mut frame {
                    packet.bytes[1] = 0x7e;
                    packet.bytes[8] = self.random.pick(&[0x99, packet.bytes[8]]);
                    packet.mark.stream = u32::MAX;
                }
                *counts.entry(producer).or_default() -= frame.len() as u64;
            }
            if self.random.chance(300) {
                self.random.shuffle(&mut frame);
            }
            batch.extend(frame);
        }
        if self.random.chance(300) {
            self.random.shuffle(&mut batch);
        }
        for (consumer, producer) in &self.consumers {
            *self.routed.entry(*consumer).or_default() += counts.get(producer).copied().unwrap_or(0);
        }
        // Joined where sizes allow.
        let mut arrivals = Vec::new();
        let mut rest = &batch[..];
        while let Some(first) = rest.first() {
            let equal = rest
                .iter()
                .take_while(|packet| packet.bytes.len() == first.bytes.len())
                .count();
            let take = if self.random.chance(700) { equal } else { 1 };
            if take > 1 {
                arrivals.push(train(source, &rest[..take]));
            } else {
                arrivals.push(single(source, &first.bytes));
            }
            rest = &rest[take..];
        }
        self.sim.deliver(transport, Port::Rtp, &arrivals);
    }

    fn add_consumer(&mut self, track: usize) {
        if self.consumers.len() >= 40 {
            return;
        }
        let room = track / 3;
        let transport = self.random.pick(&self.transports[room]);
        let track = self.tracks[track].clone();
        let paused = self.random.chance(300);
        let profile = self
            .random
            .pick(&[Profile::Default, Profile::Low, Profile::Medium, Profile::High]);
        let supports = !self.random.chance(100);
        let consumer = self.sim.consumer_with(transport, &track, |request| {
            request.paused = paused;
            request.preferred_profile = profile;
            if !supports {
                request.payload_types = vec![(33, 33)];
            }
        });
        self.consumers.insert(consumer, track.id());
        self.routed.insert(consumer, 0);
    }

    fn change_consumer(&mut self) {
        let Some(consumer) = self.consumer() else { return };
        match self.random.below(12) {
            0..3 => self.sim.pause(consumer),
            3..7 => self.sim.resume(consumer),
            7..9 => {
                let profile = self
                    .random
                    .pick(&[Profile::Default, Profile::Low, Profile::Medium, Profile::High]);
                self.sim.prefer(consumer, profile);
            }
            9 => self.sim.pli(consumer),
            10 => {
                // The kernel says later that it could not send some after all.
                let forwarded = self.sim.stats(consumer).packets_forwarded as usize;
                if forwarded > 0 {
                    let packets = self.random.range(1..forwarded.min(5) + 1) as u32;
                    let reason = self.random.pick(&[DropReason::BacklogFull, DropReason::SendFailed]);
                    self.sim.lose(consumer, reason, packets);
                }
            }
            _ => {
                let stats = self.sim.stats(consumer);
                self.gone.0 += stats.packets_in;
                self.gone.1 += stats.pli_count;
                self.sim.command(Method::CloseConsumer { consumer });
                self.consumers.remove(&consumer);
                self.sim.consumers.remove(&consumer);
                self.sim.sink.forget_owners();
            }
        }
    }

    #[track_caller]
    fn check(&mut self) {
        self.sim.check_accounts();
        for consumer in self.consumers.keys().copied().collect::<Vec<_>>() {
            let stats = self.sim.stats(consumer);
            let routed = self.routed[&consumer];
            let is_more = self.sim.seed % 2 == 1 && stats.packets_in > routed;
            assert!(stats.packets_in == routed || is_more, "{routed}: {stats:?}");
        }
    }
}

/// What all consumers have counted together never goes back, whoever closes in the middle of a round, and is the sum of what each of
/// them says.
#[test]
fn totals_are_the_sum_over_all_consumers_there_ever_were() {
    for_each_seed(6, |seed| {
        let mut world = World::new(seed);
        let mut told_before = WorkerStats::default();
        for step in 0..3_000 {
            world.step();
            world.sim.relay.count_together(world.sim.now);
            if step % 50 == 49 {
                world.sim.relay.count_together_if_few(world.sim.now);
                let (mut offered, mut plis) = world.gone;
                for consumer in world.consumers.keys().copied().collect::<Vec<_>>() {
                    let stats = world.sim.stats(consumer);
                    offered += stats.packets_in;
                    plis += stats.pli_count;
                }
                let told = world.sim.relay.media_totals();
                assert_eq!((told.packets_offered, told.plis_received), (offered, plis));
            }
            let told = world.sim.relay.media_totals();
            let went_back = told_before.to_words().into_iter().zip(told.to_words());
            assert!(went_back.into_iter().all(|(before, now)| before <= now));
            told_before = told;
        }
        assert!(
            told_before.packets_forwarded > 5_000 && world.gone.0 > 1_000,
            "{told_before:?}"
        );
        assert!(told_before.transports_unrouted.total() > 0, "{told_before:?}");
    });
}

/// A successor counts what came since: what its predecessor has told is added by the supervisor.
#[test]
fn what_was_taken_over_is_not_counted_again() {
    let mut sim = Sim::new(4);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.camera(sender, CodecName::Vp8);
    let receiver = sim.transport(room);
    let consumers = [sim.consumer(receiver, &track), sim.consumer(receiver, &track)];
    let send = |sim: &mut Sim, track: &mut Track| {
        let packets = track.stream().frame_of(5, true);
        sim.send(sender, &packets);
    };
    send(&mut sim, &mut track);
    sim.pli(consumers[0]);
    sim.relay.count_together_if_few(sim.now);
    let told = sim.relay.media_totals();
    assert_eq!(
        (told.packets_offered, told.packets_forwarded, told.plis_received),
        (10, 10, 1)
    );
    assert_eq!(told.key_frames_received, 1);

    for deaths in 1..3 {
        // What somebody has seen is in the page.
        for consumer in consumers {
            sim.stats(consumer);
        }
        sim.die();
        sim.succeed();
        sim.relay.count_together_if_few(sim.now);
        let told = sim.relay.media_totals();
        assert_eq!((told.packets_offered, told.plis_received), (0, 0), "{told:?}");
        send(&mut sim, &mut track);
        sim.relay.count_together_if_few(sim.now);
        let told = sim.relay.media_totals();
        assert_eq!((told.packets_offered, told.packets_forwarded), (10, 10));
        assert_eq!(sim.stats(consumers[1]).packets_in, 5 + 5 * deaths, "a consumer goes on");
    }
    sim.command(Method::CloseConsumer { consumer: consumers[0] });
    sim.relay.count_together_if_few(sim.now);
    assert_eq!(sim.relay.media_totals().packets_offered, 10);
}

#[test]
fn ledgers_add_up_at_every_checkpoint() {
    let met = RefCell::new(BTreeSet::new());
    for_each_seed(12, |seed| {
        let mut world = World::new(seed);
        for step in 0..3_000 {
            world.step();
            // Often enough to see states that only last a moment, seldom enough to let ledgers grow unseen.
            if step % 7 == 0 || step > 2_900 {
                world.check();
            }
        }
        let forwarded: u64 = world.sim.sink.taken.values().sum();
        assert!(forwarded > 5_000, "{forwarded} are too few to mean something");
        for consumer in world.consumers.keys().copied().collect::<Vec<_>>() {
            let dropped = world.sim.stats(consumer).dropped;
            met.borrow_mut().extend(dropped.into_iter().map(|(reason, _)| reason));
        }
    });
    // Over all stories, every reason there is was met.
    if std::env::var("SEED").is_err() {
        assert_eq!(met.into_inner(), BTreeSet::from(DropReason::ALL));
    }
}

#[test]
fn a_sink_that_refuses_tails_is_believed() {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    sim.sink.refusals = Some((Random::new(3), 500));
    for _ in 0..200 {
        let packets: Vec<_> = (0..8).map(|_| track.stream().sound()).collect();
        sim.send_train(sender, &packets);
    }
    let stats = sim.stats(consumer);
    assert_eq!(stats.packets_in, 1_600);
    assert!(stats.packets_forwarded < 1_600);
    let received = sim.received(consumer);
    let bytes: usize = received.iter().map(|packet| packet.bytes.len()).sum();
    assert_eq!(stats.bytes_forwarded, bytes as u64);
    // What was refused is a gap for the receiver, as if the network had lost it.
    let first = received[0].rtp.seq.wrapping_sub(received[0].mark().seq as u16);
    assert!(
        received
            .iter()
            .all(|packet| packet.rtp.seq.wrapping_sub(packet.mark().seq as u16) == first)
    );
    sim.check_accounts();
}

#[test]
fn what_is_lost_later_moves_from_one_counter_to_the_other() {
    let mut sim = Sim::new(2);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    let packets: Vec<_> = (0..10).map(|_| track.stream().sound()).collect();
    sim.send(sender, &packets);
    sim.lose(consumer, DropReason::SendFailed, 3);
    sim.lose(consumer, DropReason::BacklogFull, 2);
    let stats = sim.stats(consumer);
    assert_eq!((stats.packets_in, stats.packets_forwarded), (10, 5));
    assert_eq!(
        stats.dropped,
        [(DropReason::BacklogFull, 2), (DropReason::SendFailed, 3)]
    );
    sim.check_accounts();
}

#[test]
fn bitrates_are_those_of_the_last_second() {
    let mut sim = Sim::new(3);
    let room = sim.room();
    let sender = sim.transport(room);
    let mut track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    track.stream().payload_len = 88; // 100 bytes with the header, every 10 ms: 80 kbit/s
    for _ in 0..500 {
        sim.advance(ms(10));
        let packet = track.stream().sound();
        sim.send(sender, &[packet]);
    }
    let (sent, received) = (
        sim.stats(consumer).bitrate,
        sim.producer_stats(track.id()).streams[0].bitrate,
    );
    assert!(
        (79_000..=81_000).contains(&sent) && sent == received,
        "{sent} {received}"
    );
    sim.pause(consumer);
    sim.advance(ms(2_500));
    assert_eq!(sim.stats(consumer).bitrate, 0);
}
