//! Once a room is set up, relaying allocates nothing: not for the first packet, not at a start, a switch, a layer's death or
//! return, a new SSRC, a key frame request or a timer.
//!
//! What is measured: this thread's allocations during the calls of `Relay::handle_datagrams`, `Relay::handle_timeout`,
//! `Relay::poll_action` and `Relay::poll_notification`. Commands may allocate; they are not in it.

#[path = "../../tests/allocator/mod.rs"]
mod allocator;
mod sim;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, DropReason, Method, Notification, Profile, Reply, StreamStats};
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::sink::{ConsumerIx, Padded, Port, Sent, Sink, TransportIx};

use allocator::ALLOCATIONS;
use sim::feedback::number;
use sim::random::Random;
use sim::repair::{RTX, repairing};
use sim::track::{REPAIRED_RID, RID, TRANSPORT_CC, Track};
use sim::wire;
use sim::{Sim, ms};

/// Takes everything and keeps nothing.
#[derive(Default)]
struct Drain {
    packets: u64,
    rtcp: u64,
    /// Of those, transport-wide feedback.
    feedback: u64,
    resent: u64,
    /// Packets that were padded to be as long as others.
    padded: u64,
}

impl Sink for Drain {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        let count = train.len().div_ceil(segment);
        self.packets += count as u64;
        // Now and then the socket is full.
        if self.packets.is_multiple_of(97) {
            return Sent {
                accepted: count / 2,
                reason: DropReason::BacklogFull,
            };
        }
        Sent::all(count)
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, packet: &[u8]) {
        self.rtcp += 1;
        self.feedback += u64::from(packet[..2] == [0x8f, 205]);
    }

    fn resend(&mut self, _: TransportIx, _: &[u8]) -> bool {
        self.resent += 1;
        !self.resent.is_multiple_of(97)
    }

    fn note_padded(&mut self, padded: Padded) {
        self.padded += padded.packets;
    }
}

/// A relay whose allocations are counted.
struct Counted {
    sim: Sim,
    sink: Drain,
    allocations: u64,
    /// What was told: streams that began to flow, streams that died.
    told: (u64, u64),
}

impl Counted {
    /// One receive batch: every packet a datagram of its own, or all one train.
    fn deliver(&mut self, transport: TransportIx, source: SocketAddr, packets: &[&[u8]], joined: bool) {
        let mut bytes = packets.concat();
        let mut datagrams = Vec::new();
        let mut start = 0;
        for packet in packets {
            datagrams.push(Datagram {
                start,
                len: packet.len() as u32,
                segment: packet.len() as u32,
                source,
            });
            start += packet.len() as u32;
        }
        if joined {
            datagrams.truncate(1);
            datagrams[0].len = start;
        }
        let (relay, sink) = (&mut self.sim.relay, &mut self.sink);
        let before = ALLOCATIONS.get();
        relay.handle_datagrams(self.sim.now, transport, Port::Rtp, &mut bytes, &datagrams, sink);
        self.drain();
        self.allocations += ALLOCATIONS.get() - before;
    }

    fn advance(&mut self, by: u64) {
        let end = self.sim.now + ms(by);
        while let Some(due) = self.sim.relay.next_timeout().filter(|due| *due <= end) {
            self.sim.now = self.sim.now.max(due);
            let before = ALLOCATIONS.get();
            self.sim.relay.handle_timeout(self.sim.now, &mut self.sink);
            self.drain();
            self.allocations += ALLOCATIONS.get() - before;
        }
        self.sim.now = end;
    }

    fn drain(&mut self) {
        self.sim.relay.keep_positions();
        self.sim.relay.send_pending_byes(&mut self.sink);
        while self.sim.relay.poll_action().is_some() {}
        while let Some(notification) = self.sim.relay.poll_notification() {
            match notification {
                Notification::EffectiveProfileChanged { profile: Some(_), .. } => self.told.0 += 1,
                Notification::EffectiveProfileChanged { profile: None, .. } => self.told.1 += 1,
                _ => {}
            }
        }
    }

    /// Not counted.
    fn command(&mut self, method: &Method) {
        let reply = self.sim.relay.handle_command(self.sim.now, method);
        assert!(matches!(reply, Ok(Reply::Done)), "{reply:?}");
    }
}

#[test]
fn a_million_packets_without_an_allocation() {
    const ROOMS: usize = 8;
    let mut sim = Sim::new(1);
    let mut tracks: Vec<Track> = Vec::new();
    let mut consumers: Vec<ConsumerId> = Vec::new();
    for _ in 0..ROOMS {
        let room = sim.room();
        let mut here = Vec::new();
        for index in 0..4 {
            // Two learn their remote, and all learn the SSRCs of their cameras.
            let address = sim.address();
            let transport = sim.transport_with(room, address, |request| request.comedia = index % 2 == 0);
            if index % 2 == 1 {
                let remote = weir_channel::message::Remote {
                    rtp: address,
                    rtcp: None,
                };
                sim.command(Method::SetRemote { transport, remote });
            }
            here.push(sim.track(transport, CodecName::Opus, &[Profile::Default], |request| {
                request.codecs[0].nack = true; // sent again as it was
            }));
            let profiles = [Profile::Low, Profile::Medium, Profile::High];
            let mut camera = sim.track(transport, CodecName::Vp8, &profiles, |request| {
                request.mid = Some("1".into());
                request.codecs[0].nack = true;
                request.codecs[0].rtx = Some(RTX);
                for (encoding, rid) in request.encodings.iter_mut().zip(["l", "m", "h"]) {
                    (encoding.ssrc, encoding.rid) = (None, Some(rid.into()));
                }
            });
            camera.announce();
            camera.streams[1].picture_id_bits = 7; // to be widened
            here.push(camera);
        }
        let shared = sim.transport(room);
        for (index, track) in here.iter().enumerate() {
            for place in 0..8 {
                let receiver = if place < 2 { shared } else { sim.transport(room) };
                consumers.push(sim.consumer_with(receiver, track, |request| {
                    request.paused = place == 7;
                    if place % 4 != 0 {
                        repairing(request, place % 2 == 0);
                    }
                    // Some call the extensions by other names.
                    if (place + index) % 3 == 0 {
                        request
                            .header_extensions
                            .iter_mut()
                            .for_each(|extension| extension.id = 15 - extension.id);
                    }
                }));
            }
        }
        tracks.extend(here);
    }

    let mut random = Random::new(2);
    let infos = sim.consumers.clone();
    let mut counted = Counted {
        sim,
        sink: Drain::default(),
        allocations: 0,
        told: (0, 0),
    };
    let mut round = 0;
    let mut numbers: BTreeMap<TransportId, u16> = BTreeMap::new();
    let mut jumps = Random::new(3);
    while counted.sink.packets < 1_000_000 {
        round += 1;
        for track in &mut tracks {
            let transport = counted.sim.index(track.request.transport);
            let source = counted.sim.addresses[&track.request.transport];
            for place in 0..track.streams.len() {
                // Each layer rests now and then for longer than a second, so that it dies and comes back.
                if place > 0 && (round / 60 + place) % 5 == 0 {
                    continue;
                }
                let stream = &mut track.streams[place];
                if place == 1 && round % 150 == 0 {
                    stream.ssrc = random.next() as u32; // known by its RID
                    stream.seq += 17_000;
                }
                let packets = [1, 2, 5, 8][random.below(4)];
                let mut frame = stream.frame_of(packets, random.chance(60));
                if random.chance(50) {
                    random.shuffle(&mut frame);
                }
                let next = numbers.entry(track.request.transport).or_default();
                number(&mut frame, TRANSPORT_CC, next);
                if jumps.chance(5) {
                    *next = next.wrapping_add(jumps.next() as u16);
                }
                let mut bytes: Vec<&[u8]> = frame.iter().map(|packet| &packet.bytes[..]).collect();
                if random.chance(30) {
                    bytes.push(&frame[0].bytes); // twice
                }
                if bytes.len() > 1 && random.chance(200) {
                    bytes.remove(random.below(bytes.len())); // lost
                }
                let equal = bytes.windows(2).all(|pair| pair[0].len() == pair[1].len());
                counted.deliver(transport, source, &bytes, equal && random.chance(500));
            }
        }
        // An unknown SSRC, noise.
        let (track, noise) = (random.below(tracks.len()), random.next().to_be_bytes());
        let transport = counted.sim.index(tracks[track].request.transport);
        let source = counted.sim.addresses[&tracks[track].request.transport];
        counted.deliver(transport, source, &[&noise], false);
        // Retransmissions of the last packets, under SSRCs that only their RID tells of.
        let track = &mut tracks[track];
        if let [.., stream] = &mut track.streams[..]
            && stream.seq > 20
        {
            let mut again = stream.clone();
            again.seq -= 1 + random.below(10) as u64;
            again.extensions.retain(|(id, _)| *id != RID);
            if let Some(rid) = track.request.encodings.last().and_then(|encoding| encoding.rid.clone()) {
                again.extensions.push((REPAIRED_RID, rid.into_bytes()));
            }
            let original = again.frame_of(1, false).remove(0);
            let ssrc = stream.ssrc ^ (round as u32 / 100) << 20 ^ 1 << 31;
            let rtx = wire::rtx(&original.bytes, ssrc, RTX, round as u16);
            counted.deliver(transport, source, &[&rtx], false);
        }
        // Receivers lose packets…
        for _ in 0..20 {
            let consumer = random.pick(&consumers);
            let info = &infos[&consumer];
            let Some(newest) = counted.sim.stats(consumer).last_seq else {
                continue;
            };
            let source = counted.sim.addresses[&info.request.transport];
            let first = (newest as u16).wrapping_sub(random.below(40) as u16);
            let seqs: Vec<u16> = (0..random.range(1..30) as u16)
                .map(|seq| first.wrapping_add(seq))
                .collect();
            let nack = wire::nack(1, info.request.ssrc, &seqs);
            counted.deliver(info.transport, source, &[&nack], false);
        }
        // …and pictures.
        for _ in 0..5 {
            let info = &infos[&random.pick(&consumers)];
            let source = counted.sim.addresses[&info.request.transport];
            let pli = wire::pli(1, info.request.ssrc);
            counted.deliver(info.transport, source, &[&pli], false);
        }
        // Commands, in between.
        for _ in 0..4 {
            let consumer = random.pick(&consumers);
            let producer = tracks[random.below(tracks.len())].id();
            let profile = random.pick(&[Profile::Default, Profile::Low, Profile::Medium, Profile::High]);
            let command = match random.below(6) {
                0 => Method::SetConsumerPaused { consumer, paused: true },
                1 | 2 => Method::SetConsumerPaused {
                    consumer,
                    paused: false,
                },
                3 => Method::SetConsumerPreferredProfile { consumer, profile },
                4 => Method::SetProducerPaused { producer, paused: true },
                _ => Method::SetProducerPaused {
                    producer,
                    paused: false,
                },
            };
            counted.command(&command);
            if matches!(command, Method::SetProducerPaused { paused: true, .. }) && random.chance(800) {
                counted.command(&Method::SetProducerPaused {
                    producer,
                    paused: false,
                });
            }
        }
        counted.advance(33);
    }
    assert_eq!(
        counted.allocations, 0,
        "in {round} rounds, {} packets",
        counted.sink.packets
    );
    // And it was no easy life.
    assert!(
        counted.told.0 > 1_000 && counted.told.1 > 100,
        "{:?} starts and deaths",
        counted.told
    );
    assert!(counted.sink.padded > 1_000, "{} packets padded", counted.sink.padded);
    assert!(counted.sink.rtcp > 1_000, "{} requests to senders", counted.sink.rtcp);
    assert!(
        counted.sink.feedback > 1_000,
        "{} of them feedback",
        counted.sink.feedback
    );
    assert!(counted.sink.resent > 1_000, "{} sent again", counted.sink.resent);
    let streams: Vec<_> = tracks
        .iter()
        .flat_map(|track| counted.sim.producer_stats(track.id()).streams)
        .collect();
    let sum = |count: fn(&StreamStats) -> u64| streams.iter().map(count).sum::<u64>();
    assert!(sum(|stream| stream.packets_nacked) > 1_000);
    let (repaired, useless) = (sum(|stream| stream.packets_repaired), sum(|stream| stream.rtx_useless));
    assert!(
        repaired > 20 && useless > 50,
        "{repaired} repaired, {useless} for nothing"
    );
}

/// With all streams known, protecting and unprotecting allocates nothing either, whatever comes. (The allocator of the C library, by
/// which aws-lc goes, is not counted; it is asked for memory when a key is made.)
#[test]
fn protecting_and_unprotecting_allocate_nothing() {
    use weir_worker::webrtc::srtp::{Inbound, MasterKey, Outbound, Profile, Repeats};

    const SSRCS: u32 = 4;
    for profile in Profile::ALL {
        let key = MasterKey::new(profile, &vec![1; profile.key_len()], &vec![2; profile.salt_len()]).unwrap();
        let (mut outbound, mut inbound) = (Outbound::new(&key), Inbound::new(&key, SSRCS as usize));
        let streams: Vec<_> = (0..SSRCS)
            .map(|ssrc| outbound.add_stream(ssrc, Repeats::Identical).unwrap())
            .collect();
        let mut train = vec![0x80; 3 * 500];
        let mut room = vec![0; 3 * (500 + profile.rtp_overhead())];
        let mut report = vec![0x80; 28 + profile.rtcp_overhead()];
        let (mut unprotected, mut refused, mut allocations) = (0, 0, 0);
        for round in 0..400_u64 {
            let before = ALLOCATIONS.get();
            for (ssrc, stream) in (0..SSRCS).zip(&streams) {
                // Gaps, and wraps.
                let first = 65_000 + round * 700;
                for (index, packet) in (first..).zip(train.chunks_mut(500)) {
                    packet[..2].copy_from_slice(&[0x80, 96]);
                    packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
                    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
                }
                for _ in 0..2 {
                    let protected = outbound.protect_train(*stream, first, &train, 500, &mut room);
                    assert_eq!(protected.packets, 3);
                    for packet in room.chunks_mut(500 + profile.rtp_overhead()) {
                        match inbound.unprotect_rtp(packet) {
                            Ok(_) => unprotected += 1,
                            Err(_) => refused += 1,
                        }
                    }
                }
                report[..8].copy_from_slice(&[0x80, 200, 0, 6, 0, 0, 0, ssrc as u8]);
                let len = outbound.protect_rtcp(&mut report, 28).unwrap();
                assert_eq!(
                    inbound
                        .unprotect_rtcp(&mut report[..len])
                        .map(|unprotected| unprotected.len),
                    Ok(28)
                );
                room[0] = 0x80;
                assert!(inbound.unprotect_rtp(&mut room[..100]).is_err());
            }
            // The first packet of an SSRC is where its state is made.
            allocations += if round == 0 { 0 } else { ALLOCATIONS.get() - before };
        }
        assert_eq!(allocations, 0, "{profile:?}");
        assert_eq!((unprotected, refused), (3 * 400 * SSRCS, 3 * 400 * SSRCS));
    }
}

/// The counter counts: a relay whose rooms are not set up yet does allocate.
#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    let mut sim = Sim::new(1);
    let room = sim.room();
    sim.transport(room);
    assert!(ALLOCATIONS.get() > before);
}
