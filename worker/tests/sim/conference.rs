//! Several senders, and receivers that get several of them on one transport, so that what is for them is gathered. Time goes in
//! turns, each of several batches, as a worker's does. The relay may die at any moment of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use weir_channel::id::{ConsumerId, RoomId, TransportId};
use weir_channel::message::{Codec, CodecName, CreateConsumer, Encoding, Method, Notification, Profile};
use weir_worker::relay::sink::Port;
use weir_worker::time::Time;

use super::judge::{Segment, judge_numbers_with};
use super::repair::{RTX, Receiver, repairing};
use super::stream::{Packet, Stream};
use super::track::{Track, codec};
use super::wire::{self, Rtp};
use super::{Sim, ms, single};

/// How long a turn is.
const TURN_MS: u64 = 5;

/// Packets of a batch.
const BATCH: usize = 2;

/// What of a track goes along with its sound, for those who have it.
const COMPANION: u8 = 101;

/// What a turn can bring of one stream.
pub const TURN_PACKETS: i128 = 24;

/// When the relay dies without having been told at which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dies {
    /// It does not.
    Never,
    /// When a batch was relayed, before what was gathered leaves: so often in a thousand.
    AfterBatches(usize),
    /// Whenever a turn has ended.
    AfterTurns,
}

/// Somebody with a microphone or a camera.
#[derive(Debug)]
pub struct Sender {
    pub track: Track,
    codec: CodecName,
    next: Time,
    wants_key: bool,
    /// Some of its packets are of another payload type.
    has_companion: bool,
    history: BTreeMap<(u32, u16), (Vec<u8>, Option<Time>)>,
    rtx_seq: u16,
}

/// Packets that go along with a stream's, and nothing that a picture or its numbers depend on.
fn beside(stream: &mut Stream, count: usize, timestamp: u64) -> Vec<Packet> {
    let mut beside = stream.clone();
    beside.payload_type = COMPANION;
    beside.timestamp = timestamp;
    beside.codec = CodecName::AudioCompanion;
    let packets = beside.frame_of(count, false);
    stream.seq = beside.seq;
    packets
}

/// See the [module](self).
#[derive(Debug)]
pub struct Conference {
    pub sim: Sim,
    pub room: RoomId,
    pub senders: Vec<Sender>,
    pub receivers: Vec<Receiver>,
    /// What waits in the sockets, whoever reads them.
    sockets: BTreeMap<TransportId, VecDeque<Vec<u8>>>,
    pub dies: Dies,
    /// Nothing may be sent to them.
    pub silenced: BTreeSet<ConsumerId>,
    /// All that has left: the consumer's transport, the packet.
    pub left: Vec<(TransportId, Vec<u8>)>,
    pub key_frames_asked: usize,
}

impl Conference {
    pub fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        sim.has_turns = true;
        sim.sink.gathers = true;
        let room = sim.room();
        Self {
            sim,
            room,
            senders: Vec::new(),
            receivers: Vec::new(),
            sockets: BTreeMap::new(),
            dies: Dies::Never,
            silenced: BTreeSet::new(),
            left: Vec::new(),
            key_frames_asked: 0,
        }
    }

    /// A transport whose remote is not said: it is where the first packet comes from.
    pub fn comedia(&mut self) -> TransportId {
        let address = self.sim.address();
        self.sim
            .transport_with(self.room, address, |request| request.comedia = true)
    }

    /// Somebody begins to send on a transport. With `has_companion`, every third packet is of another codec, which not all receive.
    pub fn sender(
        &mut self,
        transport: TransportId,
        name: CodecName,
        profiles: &[Profile],
        rtx: bool,
        has_companion: bool,
    ) -> usize {
        let track = self.sim.track(transport, name, profiles, |request| {
            request.codecs[0].nack = true;
            request.codecs[0].rtx = rtx.then_some(RTX);
            if has_companion {
                request.codecs.push(Codec {
                    payload_type: COMPANION,
                    ..codec(match name {
                        CodecName::Opus => CodecName::AudioCompanion,
                        _ => CodecName::VideoCompanion,
                    })
                });
            }
            if rtx {
                for Encoding { ssrc, rtx_ssrc, .. } in &mut request.encodings {
                    *rtx_ssrc = ssrc.map(|ssrc| ssrc | 1 << 31);
                }
            }
        });
        self.senders.push(Sender {
            track,
            codec: name,
            next: self.sim.now,
            wants_key: true,
            has_companion,
            history: BTreeMap::new(),
            rtx_seq: 65_000,
        });
        self.senders.len() - 1
    }

    /// A consumer of a sender's on a transport. With `bare`, it is withheld what goes along.
    pub fn receiver(&mut self, transport: TransportId, sender: usize, rtx: bool, bare: bool) -> usize {
        let track = self.senders[sender].track.clone();
        let consumer = self.sim.consumer_with(transport, &track, |request| {
            if bare {
                request.payload_types.retain(|(from, _)| *from != COMPANION);
            }
            repairing(request, rtx);
        });
        let request = self.sim.consumers[&consumer].request.clone();
        self.receivers.push(Receiver::new(consumer, request));
        self.receivers.len() - 1
    }

    /// Does a command, also if the relay dies of it: then its successor does.
    pub fn order(&mut self, method: Method) {
        self.sim.attempt(method).expect("it is not refused");
        self.collect();
        self.succeed();
    }

    /// Lets time pass, in turns.
    pub fn run(&mut self, duration_ms: u64) {
        for _ in 0..duration_ms / TURN_MS {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.sim.advance(ms(TURN_MS));
        self.send_frames();
        let now = self.sim.now;
        for receiver in &mut self.receivers {
            if let Some(nack) = receiver.ask(now) {
                let socket = self.sockets.entry(receiver.request.transport).or_default();
                socket.push_back(nack);
            }
        }
        while !self.sim.page.is_dead() {
            let mut has_come = false;
            for transport in self.sockets.keys().copied().collect::<Vec<_>>() {
                let source: SocketAddr = self.sim.addresses[&transport];
                let socket = self.sockets.get_mut(&transport).expect("it is there");
                let batch: Vec<_> = socket.drain(..BATCH.min(socket.len())).collect();
                let batch: Vec<_> = batch.iter().map(|packet| single(source, packet)).collect();
                if batch.is_empty() {
                    continue;
                }
                has_come = true;
                self.sim.deliver(transport, Port::Rtp, &batch);
                if let Dies::AfterBatches(often) = self.dies
                    && self.sim.random.chance(often)
                {
                    self.sim.die();
                }
                if self.sim.page.is_dead() {
                    break;
                }
            }
            if !has_come {
                break;
            }
        }
        if !self.sim.page.is_dead() {
            self.sim.end_turn();
        }
        self.collect();
        if self.dies == Dies::AfterTurns {
            self.sim.die();
        }
        self.succeed();
    }

    fn succeed(&mut self) {
        if self.sim.page.is_dead() {
            self.sim.die();
            self.sim.succeed();
            // It is made between two turns.
            self.sim.end_turn();
            self.collect();
        }
    }

    fn send_frames(&mut self) {
        let now = self.sim.now;
        for sender in &mut self.senders {
            if sender.next > now {
                continue;
            }
            let (interval, is_sound) = match sender.codec {
                CodecName::Opus => (ms(20), true),
                _ => (ms(35), false),
            };
            sender.next = now + interval;
            let wanted = std::mem::take(&mut sender.wants_key);
            let has_companion = sender.has_companion;
            let mut packets = Vec::new();
            for stream in &mut sender.track.streams {
                // In turn none, before and behind the others.
                let place = if has_companion { stream.frame % 3 } else { 0 };
                if place == 1 {
                    packets.extend(beside(stream, 1, stream.timestamp));
                }
                if is_sound {
                    packets.push(stream.sound());
                } else {
                    let key = wanted || stream.frame % 100 == 0;
                    let count = 1 + self.sim.random.below(if key { 8 } else { 4 });
                    packets.extend(stream.frame_of(count, key));
                }
                if place == 2 {
                    packets.extend(beside(stream, 2, stream.timestamp - stream.step));
                }
            }
            let socket = self.sockets.entry(sender.track.transport()).or_default();
            for packet in packets {
                let rtp = Rtp::read(&packet.bytes);
                sender.history.insert((rtp.ssrc, rtp.seq), (packet.bytes.clone(), None));
                socket.push_back(packet.bytes);
            }
        }
    }

    /// What the relay sent arrives.
    fn collect(&mut self) {
        for (_, transport, rtcp) in std::mem::take(&mut self.sim.sink.rtcp) {
            for index in 0..self.senders.len() {
                let own = self.senders[index].track.transport();
                if self.sim.relay.transport_index(own) == Some(transport) {
                    self.on_feedback(index, &rtcp);
                }
            }
        }
        let sent = self.sim.take_sent();
        let now = self.sim.now;
        for (transport, packet) in sent {
            let ssrc = super::ssrc_of(&packet);
            let receiver = self.receivers.iter_mut().find(|receiver| {
                let rtx = receiver.request.rtx.as_ref().map(|rtx| rtx.ssrc);
                let is_own = receiver.request.ssrc == ssrc || rtx == Some(ssrc);
                is_own && self.sim.consumers[&receiver.consumer].transport == transport
            });
            let receiver = receiver.expect("every SSRC has its receiver");
            assert!(
                !self.silenced.contains(&receiver.consumer),
                "{} was sent something while it was paused",
                receiver.consumer
            );
            receiver.on_packet(now, &packet);
            self.left.push((receiver.request.transport, packet));
        }
    }

    fn on_feedback(&mut self, sender: usize, rtcp: &[u8]) {
        let sender = &mut self.senders[sender];
        let own = |ssrc: u32| {
            let mut encodings = sender.track.request.encodings.iter();
            encodings.find(|encoding| encoding.ssrc == Some(ssrc)).cloned()
        };
        let asked = wire::key_frame_requests(rtcp);
        let asked = asked.iter().filter(|(ssrc, _)| own(*ssrc).is_some()).count();
        self.key_frames_asked += asked;
        sender.wants_key |= asked > 0;
        let now = self.sim.now;
        for (ssrc, seq) in wire::nacked(rtcp) {
            let Some(encoding) = own(ssrc) else { continue };
            let (bytes, sent_again) = sender.history.get_mut(&(ssrc, seq)).expect("it was sent");
            if sent_again.is_some_and(|at| now.since(at) < ms(20)) {
                continue;
            }
            *sent_again = Some(now);
            let is_sound = bytes[1] & 0x7f == COMPANION;
            let again = match encoding.rtx_ssrc.filter(|_| !is_sound) {
                Some(rtx_ssrc) => {
                    sender.rtx_seq = sender.rtx_seq.wrapping_add(1);
                    wire::rtx(bytes, rtx_ssrc, RTX, sender.rtx_seq)
                }
                None => bytes.clone(),
            };
            let socket = self.sockets.entry(sender.track.transport()).or_default();
            socket.push_back(again);
        }
    }

    /// The sender that a consumer gets.
    fn sender_of(&self, request: &CreateConsumer) -> &Sender {
        let mut senders = self.senders.iter();
        senders
            .find(|sender| sender.track.id() == request.producer)
            .expect("somebody sends it")
    }

    /// Nothing was used twice, everybody is sent what they should be, numbers go on without a break but for what a turn had in hand
    /// when the relay died, and the books are in order.
    #[track_caller]
    pub fn judge(&mut self, deaths: i128) {
        self.judge_flows();
        self.judge_indices();
        let mut learned = BTreeSet::new();
        for notification in &self.sim.notifications {
            if let Notification::RemoteLearned { transport, .. } = notification {
                assert!(learned.insert(*transport), "{transport} has learned its remote again");
            }
        }
        for index in 0..self.receivers.len() {
            self.judge_numbers(index, TURN_PACKETS * deaths);
            let consumer = self.receivers[index].consumer;
            let stats = self.sim.stats(consumer);
            let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
            assert_eq!(stats.packets_in, stats.packets_forwarded + dropped, "{stats:?}");
        }
    }

    #[track_caller]
    fn judge_indices(&self) {
        let rtx: BTreeSet<_> = self
            .receivers
            .iter()
            .filter_map(|receiver| Some(receiver.request.rtx.as_ref()?.ssrc))
            .collect();
        let mut used: BTreeMap<(TransportId, u32, u16), &[u8]> = BTreeMap::new();
        for (transport, packet) in &self.left {
            let rtp = Rtp::read(packet);
            if let Some(before) = used.insert((*transport, rtp.ssrc, rtp.seq), packet) {
                assert!(!rtx.contains(&rtp.ssrc), "{} was used twice", rtp.seq);
                assert_eq!(before, packet, "number {} of {:#x} was used twice", rtp.seq, rtp.ssrc);
            }
        }
    }

    /// How many numbers have not come, though all was repaired that could be.
    pub fn lacks(&self, receiver: usize) -> u64 {
        let packets = &self.receivers[receiver].packets;
        match (packets.keys().next(), packets.keys().next_back()) {
            (Some(first), Some(last)) => last - first + 1 - packets.len() as u64,
            _ => 0,
        }
    }

    #[track_caller]
    pub fn judge_numbers(&self, receiver: usize, free_max: i128) -> Vec<Segment> {
        let receiver = &self.receivers[receiver];
        // What was lost, and came again as something that is withheld, has left a number, which is filled with padding.
        let received = receiver.packets.values().filter(|packet| packet.mark.is_some());
        let received: Vec<_> = received.cloned().collect();
        let codec = self.sender_of(&receiver.request).codec;
        judge_numbers_with(&received, codec, free_max)
    }

    #[track_caller]
    fn judge_flows(&mut self) {
        let before: Vec<_> = self.receivers.iter().map(|receiver| receiver.packets.len()).collect();
        self.run(200);
        for (receiver, before) in self.receivers.iter().zip(before) {
            if !self.silenced.contains(&receiver.consumer) {
                let more = receiver.packets.len() - before;
                assert!(more > 3, "{} gets {more} packets more", receiver.consumer);
            }
        }
    }
}
