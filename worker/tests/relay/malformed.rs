//! Bytes that are not what they should be: never a panic, and every packet counted in one place.

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, CreateProducer, ExtensionUri, HeaderExtension, Profile};
use weir_worker::relay::sink::Port;

use crate::sim::random::Random;
use crate::sim::rtpdump::{RECORDINGS, packets};
use crate::sim::track::{ABS_SEND_TIME, MID, RID, Track, codec};
use crate::sim::wire::{self, Form, Rtp};
use crate::sim::{Arrival, Sim, for_each_seed, ms, single};

/// A producer of everything, with a consumer that calls all by other names.
struct Target {
    sim: Sim,
    transport: TransportId,
    receiver: TransportId,
    track: Track,
    consumer: ConsumerId,
}

impl Target {
    /// Its producer takes the packets of one recorded stream, under whatever SSRC they have.
    fn new(seed: u64, name: CodecName, sample: &[u8]) -> Self {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let transport = sim.transport(room);
        let recorded = Rtp::read(sample);
        let track = sim.track(transport, name, &[Profile::Default], |request: &mut CreateProducer| {
            request.mid = Some("0".into());
            request.codecs[0].payload_type = recorded.payload_type;
            request.encodings[0].ssrc = Some(recorded.ssrc);
            request.encodings[0].rid = Some("r".into());
            let others = CodecName::ALL
                .into_iter()
                .filter(|other| other.kind() == name.kind() && *other != name);
            request.codecs.extend(
                others
                    .map(codec)
                    .filter(|codec| codec.payload_type != recorded.payload_type),
            );
        });
        let receiver = sim.transport(room);
        let consumer = sim.consumer_with(receiver, &track, |request| {
            request.header_extensions = vec![HeaderExtension {
                id: 14,
                uri: ExtensionUri::AbsSendTime,
            }];
        });
        Self {
            sim,
            transport,
            receiver,
            track,
            consumer,
        }
    }

    /// (received by the transport, of these RTCP, unrouted, of the producer's streams)
    fn counts(&mut self) -> (u64, u64, u64, u64) {
        let stats = self.sim.transport_stats(self.transport);
        let unrouted = stats.unrouted.iter().map(|(_, count)| count).sum();
        let streams = self.sim.producer_stats(self.track.id()).streams;
        let routed = streams
            .iter()
            .map(|stream| stream.packets + stream.packets_discarded)
            .sum();
        (stats.packets_received, stats.rtcp_received, unrouted, routed)
    }

    /// Every packet that was delivered is in one of the counts, and every one that was routed in the consumer's ledger.
    #[track_caller]
    fn check(&mut self, delivered: u64) {
        let (received, rtcp, unrouted, routed) = self.counts();
        assert_eq!(received + unrouted, delivered);
        assert_eq!(received - rtcp, routed);
        assert_eq!(self.sim.stats(self.consumer).packets_in, routed);
        self.sim.check_accounts();
        self.sim.received(self.consumer);
    }
}

/// Some packets of each recording: the first ones, which have a key frame, and others here and there.
fn samples() -> Vec<(CodecName, Vec<Vec<u8>>)> {
    RECORDINGS
        .into_iter()
        .map(|(codec, file)| {
            let packets = packets(file);
            assert!(packets.len() > 100);
            let step = packets.len() / 12;
            let some = packets.iter().take(4).chain(packets.iter().step_by(step)).cloned();
            (codec, some.collect())
        })
        .collect()
}

/// With what a WebRTC sender adds: extensions, contributing sources, padding.
fn adorned(bytes: &[u8], form: Form) -> Vec<u8> {
    Rtp {
        csrcs: vec![1, 2],
        extensions: Some((
            form,
            vec![
                (MID, b"0".to_vec()),
                (ABS_SEND_TIME, vec![1, 2, 3]),
                (RID, b"r".to_vec()),
                (13, vec![9; 7]),
            ],
        )),
        padding: 4,
        ..Rtp::read(bytes)
    }
    .write()
}

#[test]
fn real_packets_cut_at_every_length() {
    for (codec, packets) in samples() {
        let mut target = Target::new(1, codec, &packets[0]);
        let mut delivered = 0;
        // Whole ones first, so that a consumer of a codec with parameter sets has started.
        for packet in &packets {
            let mut packet = packet.clone();
            packet[2..4].copy_from_slice(&(delivered as u16).to_be_bytes());
            target.sim.send_bytes(target.transport, &packet);
            delivered += 1;
        }
        for packet in &packets {
            for packet in [
                packet.clone(),
                adorned(packet, Form::OneByte),
                adorned(packet, Form::TwoByte),
            ] {
                let mut packet = packet;
                for len in 0..=packet.len() {
                    // New numbers, or all but the shortest would be duplicates.
                    packet[2..4].copy_from_slice(&(delivered as u16).to_be_bytes());
                    target.sim.send_bytes(target.transport, &packet[..len]);
                    delivered += 1;
                    if len % 64 == 0 {
                        target.check(delivered);
                    }
                }
            }
        }
        target.check(delivered);
        let stats = target.sim.stats(target.consumer);
        assert!(stats.packets_forwarded > 0, "{stats:?}");
    }
}

/// Turns over some bits.
fn damage(random: &mut Random, packet: &mut [u8]) {
    for _ in 0..random.range(1..9) {
        // Most of them where they matter: in the header.
        let end = if random.chance(700) {
            packet.len().min(48)
        } else {
            packet.len()
        };
        packet[random.below(end)] ^= 1 << random.below(8);
    }
}

#[test]
fn real_packets_with_bits_turned_over() {
    for_each_seed(8, |seed| {
        let mut random = Random::new(seed);
        for (codec, packets) in samples() {
            let mut target = Target::new(seed, codec, &packets[0]);
            let source = target.sim.addresses[&target.transport];
            let mut delivered = 0;
            for round in 0..300 {
                // A batch of a few, as single packets and as trains that were joined at any length.
                let arrivals: Vec<_> = (0..random.range(1..6))
                    .map(|_| {
                        let mut bytes = Vec::new();
                        for _ in 0..random.range(1..4) {
                            let packet = &packets[random.below(packets.len())];
                            let mut packet = match random.below(3) {
                                0 => packet.clone(),
                                1 => adorned(packet, Form::OneByte),
                                _ => adorned(packet, Form::TwoByte),
                            };
                            // New numbers, so that not all are duplicates.
                            packet[2..4].copy_from_slice(&(round as u16).to_be_bytes());
                            if random.chance(900) {
                                damage(&mut random, &mut packet);
                            }
                            bytes.extend(packet);
                        }
                        let segment = if random.chance(500) {
                            bytes.len()
                        } else {
                            random.range(1..bytes.len() + 9)
                        };
                        Arrival { source, segment, bytes }
                    })
                    .collect();
                delivered += arrivals
                    .iter()
                    .map(|arrival| arrival.bytes.len().div_ceil(arrival.segment) as u64)
                    .sum::<u64>();
                target.sim.deliver(target.transport, Port::Rtp, &arrivals);
                target.sim.advance(ms(random.below(40) as u64));
                if round % 20 == 0 {
                    target.check(delivered);
                }
            }
            target.check(delivered);
        }
    });
}

#[test]
fn noise() {
    for_each_seed(4, |seed| {
        let mut random = Random::new(seed);
        let (codec, packets) = samples().remove(1);
        let mut target = Target::new(seed, codec, &packets[0]);
        for round in 1..=20_000 {
            let mut bytes: Vec<u8> = (0..random.below(90)).map(|_| random.next() as u8).collect();
            // Version 2, or nothing would come far; often the right payload type and SSRC.
            if let Some(first) = bytes.first_mut() {
                *first = 0x80 | *first & 0x3f;
            }
            if bytes.len() > 12 && random.chance(600) {
                bytes[1] = packets[0][1];
                bytes[8..12].copy_from_slice(&packets[0][8..12]);
            }
            target.sim.send_bytes(target.transport, &bytes);
            if round % 500 == 0 {
                target.sim.advance(ms(10));
                target.check(round);
            }
        }
    });
}

#[test]
fn rtcp_cut_and_damaged() {
    for_each_seed(4, |seed| {
        let mut random = Random::new(seed);
        let (codec, packets) = samples().remove(1);
        let mut target = Target::new(seed, codec, &packets[0]);
        target.sim.send_bytes(target.transport, &packets[0]);
        let media = wire_ssrc(&packets[0]);
        let own = target.sim.consumers[&target.consumer].request.ssrc;
        let compounds = [
            [wire::receiver_report(1), wire::pli(1, own)].concat(),
            [wire::receiver_report(1), wire::fir(1, &[(own, 1), (2, 2), (own, 3)])].concat(),
            [
                wire::sender_report(media, 1, 2),
                wire::pli(1, own),
                wire::receiver_report(3),
            ]
            .concat(),
        ];
        let (mut to_sender, mut to_receiver) = (1, 0);
        for compound in &compounds {
            for len in 0..=compound.len() {
                target.sim.send_rtcp(target.receiver, &compound[..len]);
                to_receiver += 1;
            }
        }
        for _ in 0..2_000 {
            let mut compound = random.pick(&[&compounds[0], &compounds[1], &compounds[2]]).clone();
            damage(&mut random, &mut compound);
            if random.chance(500) {
                target.sim.send_rtcp(target.receiver, &compound);
                to_receiver += 1;
            } else {
                target.sim.send_rtcp(target.transport, &compound);
                to_sender += 1;
            }
        }
        target.check(to_sender);
        let stats = target.sim.transport_stats(target.receiver);
        let unrouted: u64 = stats.unrouted.iter().map(|(_, count)| count).sum();
        assert_eq!(stats.packets_received + unrouted, to_receiver);
        assert!(target.sim.stats(target.consumer).pli_count > 0);
    });
}

fn wire_ssrc(packet: &[u8]) -> u32 {
    crate::sim::ssrc_of(packet)
}

/// What the shell should never hand over: it does no harm.
#[test]
fn datagrams_that_lie_about_themselves() {
    let (codec, packets) = samples().remove(1);
    let mut target = Target::new(1, codec, &packets[0]);
    let source = target.sim.addresses[&target.transport];
    let index = target.sim.index(target.transport);
    let mut bytes = packets[0].clone();
    let len = bytes.len() as u32;
    let lies = [
        (0, 0, 0),
        (0, len + 1, len),
        (len, 10, 10),
        (len + 9, 10, 0),
        (0, len, 1),
        (u32::MAX, u32::MAX, u32::MAX),
    ];
    for (start, len, segment) in lies {
        let datagram = weir_worker::relay::datagram::Datagram {
            start,
            len,
            segment,
            source,
        };
        let sim = &mut target.sim;
        sim.relay
            .handle_datagrams(sim.now, index, Port::Rtp, &mut bytes, &[datagram], &mut sim.sink);
    }
    target.sim.deliver(target.transport, Port::Rtp, &[single(source, b"")]);
    target.sim.check_accounts();
}
