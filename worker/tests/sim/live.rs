//! Cameras and microphones that run by themselves: frames at their rate, key frames on request, over a network.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_channel::id::TransportId;
use weir_channel::message::MediaKind;
use weir_worker::relay::sink::Port;
use weir_worker::time::Time;

use super::network::Network;
use super::stream::Packet;
use super::track::Track;
use super::{Arrival, Sim, ms, single, train};

/// A simulation with senders that run by themselves.
#[derive(Debug)]
pub struct Live {
    pub sim: Sim,
    pub senders: Vec<Sender>,
    events: BTreeMap<(Time, u64), Event>,
    serial: u64,
}

/// Somebody who sends a track.
#[derive(Debug)]
pub struct Sender {
    pub track: Track,
    pub network: Network,
    pub interval: Duration,
    /// Frames between two key frames that nobody asked for; 0: never.
    pub key_every: u32,
    /// Packets of a frame at most, for each stream.
    pub packets_max: Vec<usize>,
    /// Streams that send.
    pub on: Vec<bool>,
    wants_key: Vec<bool>,
}

#[derive(Debug)]
enum Event {
    /// A sender's next frame, on all its streams.
    Frame(usize),
    Arrive(TransportId, Packet, bool),
    /// A key frame request reaches a sender.
    Ask(u32),
}

impl Live {
    pub fn new(sim: Sim) -> Self {
        Self {
            sim,
            senders: Vec::new(),
            events: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Starts to send a track: audio every 20 ms, video every 33 ms.
    pub fn start(&mut self, track: Track, network: Network) -> usize {
        let streams = track.streams.len();
        let video = track.request.kind == MediaKind::Video;
        self.senders.push(Sender {
            track,
            network,
            interval: if video { ms(33) } else { ms(20) },
            key_every: 300,
            packets_max: (0..streams)
                .map(|stream| if video { 2 + 3 * stream } else { 1 })
                .collect(),
            on: vec![true; streams],
            wants_key: vec![true; streams],
        });
        let sender = self.senders.len() - 1;
        let offset = self.sim.random.below(20) as u64;
        self.schedule(ms(offset), Event::Frame(sender));
        sender
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.sim.now + duration;
        while let Some(((at, _), _)) = self.events.first_key_value().filter(|((at, _), _)| *at <= end) {
            let at = *at;
            self.sim.advance(at.since(self.sim.now));
            self.hear_asks();
            let mut arrived: Vec<(TransportId, Packet, bool)> = Vec::new();
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 == at) {
                match entry.remove() {
                    Event::Frame(sender) => self.send_frame(sender),
                    Event::Ask(ssrc) => self.on_ask(ssrc),
                    Event::Arrive(transport, packet, joins) => arrived.push((transport, packet, joins)),
                }
            }
            self.deliver(arrived);
            self.hear_asks();
        }
        self.sim.advance(end.since(self.sim.now));
        self.hear_asks();
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.sim.now + after, self.serial), event);
    }

    fn send_frame(&mut self, index: usize) {
        let sender = &mut self.senders[index];
        let audio = sender.track.request.kind == MediaKind::Audio;
        let mut packets = Vec::new();
        for (place, stream) in sender.track.streams.iter_mut().enumerate() {
            if !sender.on[place] {
                // Its encoder rests, its clock does not.
                stream.timestamp += stream.step;
                continue;
            }
            let due = sender.key_every > 0 && stream.frame % sender.key_every == 0;
            let key = !audio && (std::mem::take(&mut sender.wants_key[place]) || due);
            let count = 1 + self.sim.random.below(sender.packets_max[place]);
            packets.extend(stream.frame_of(count, key));
        }
        let (network, transport, interval) = (sender.network, sender.track.transport(), sender.interval);
        for packet in packets {
            for delay in network.carry(&mut self.sim.random) {
                self.schedule(delay, Event::Arrive(transport, packet.clone(), network.joins));
            }
        }
        self.schedule(interval, Event::Frame(index));
    }

    /// What arrives at one moment: one receive batch for each transport, joined as a kernel would.
    fn deliver(&mut self, arrived: Vec<(TransportId, Packet, bool)>) {
        let mut rest = arrived;
        while let Some((transport, _, joins)) = rest.first() {
            let (transport, joins) = (*transport, *joins);
            let (ours, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(other, ..)| *other == transport);
            rest = others;
            let packets: Vec<_> = ours.into_iter().map(|(_, packet, _)| packet).collect();
            let source = self.sim.addresses[&transport];
            let mut arrivals: Vec<Arrival> = Vec::new();
            let mut at = 0;
            while at < packets.len() {
                let len = packets[at].bytes.len();
                let mut end = at + 1;
                while joins && end < packets.len() && end - at < 16 && packets[end - 1].bytes.len() == len {
                    if packets[end].bytes.len() > len {
                        break;
                    }
                    end += 1;
                }
                if end - at > 1 {
                    arrivals.push(train(source, &packets[at..end]));
                } else {
                    arrivals.push(single(source, &packets[at].bytes));
                }
                at = end;
            }
            self.sim.deliver(transport, Port::Rtp, &arrivals);
        }
    }

    /// Key frame requests travel back to their senders, if they are not lost.
    fn hear_asks(&mut self) {
        for ask in self.sim.asked() {
            let sender = self.senders.iter().position(|sender| {
                let streams = &sender.track.streams;
                self.sim.index(sender.track.transport()) == ask.transport
                    && streams.iter().any(|stream| stream.ssrc == ask.ssrc)
            });
            // A sender may have changed its SSRC since.
            let Some(sender) = sender else { continue };
            let lost = self.senders[sender].network.ask_loss;
            if !self.sim.random.chance(lost) {
                self.schedule(ms(10), Event::Ask(ask.ssrc));
            }
        }
    }

    fn on_ask(&mut self, ssrc: u32) {
        for sender in &mut self.senders {
            for (place, stream) in sender.track.streams.iter().enumerate() {
                if stream.ssrc == ssrc {
                    sender.wants_key[place] = true;
                }
            }
        }
    }

    /// A sender's stream goes on under the same SSRC, at other numbers.
    pub fn start_over(&mut self, sender: usize, place: usize) {
        let ssrc = self.senders[sender].track.streams[place].ssrc;
        self.change_ssrc(sender, place, ssrc);
    }

    /// A sender's stream goes on under another SSRC, at other numbers, with the same MID or RID.
    pub fn change_ssrc(&mut self, sender: usize, place: usize, ssrc: u32) {
        let number = self.sim.stream_number();
        let stream = &mut self.senders[sender].track.streams[place];
        self.sim.log.replaced.insert(number, stream.number);
        stream.number = number;
        stream.ssrc = ssrc;
        stream.seq += 20_000;
        stream.timestamp += 1_234_567_890;
        self.senders[sender].wants_key[place] = true;
    }
}
