//! Both ends of a lossy call: a sender that sends again what it is told is missing, the relay, and receivers that ask for
//! what they miss.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, ConsumerRtx, CreateConsumer, Encoding, Method, Profile};
use weir_worker::relay::sink::Port;
use weir_worker::time::Time;

use super::judge::{Segment, judge_numbers_with};
use super::random::Random;
use super::stream::Mark;
use super::track::Track;
use super::wire::{self, Rtp};
use super::{Received, Sim, ms, single};

/// Payload types of retransmissions, on the sender's side and on the receivers'.
pub const RTX: u8 = 97;
pub const RTX_OUT: u8 = 98;

/// One direction of a path. Chances in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    pub loss: usize,
    /// A packet is the first of a burst of losses…
    pub burst: usize,
    /// …which lasts so long at most.
    pub burst_ms: usize,
    pub duplicate: usize,
    /// A packet is late by up to `late_ms`.
    pub late: usize,
    pub late_ms: usize,
    pub delay_ms: u64,
    /// When the last burst is over.
    pub burst_end: Time,
}

impl Link {
    pub fn random(loss: usize) -> Self {
        Self {
            loss,
            delay_ms: 20,
            ..Self::default()
        }
    }

    /// When copies of a packet arrive.
    fn carry(&mut self, now: Time, random: &mut Random) -> Vec<Duration> {
        if now >= self.burst_end && random.chance(self.burst) {
            self.burst_end = now + ms(random.range(1..self.burst_ms + 1) as u64);
        }
        if now < self.burst_end || random.chance(self.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.chance(self.duplicate));
        (0..copies)
            .map(|_| {
                let late = if random.chance(self.late) {
                    random.below(self.late_ms + 1) as u64
                } else {
                    0
                };
                ms(self.delay_ms + late)
            })
            .collect()
    }
}

enum Event {
    Frame,
    ToRelay(Vec<u8>),
    ToSender(Vec<u8>),
    ToReceiver(usize, Vec<u8>),
    FromReceiver(usize, Vec<u8>),
    /// Receivers look for gaps.
    Look,
}

/// Somebody who asks for what is missing.
#[derive(Debug)]
pub struct Receiver {
    pub consumer: ConsumerId,
    pub request: CreateConsumer,
    /// By extended sequence number: what came, as the original packet.
    pub packets: BTreeMap<u64, Received>,
    /// Since when packets are missing, and when they were asked for.
    missing: BTreeMap<u64, (Time, Option<Time>)>,
    newest: u64,
    /// Packets that came again.
    pub repaired: u64,
}

/// See the [module](self).
pub struct Call {
    pub sim: Sim,
    pub track: Track,
    pub receivers: Vec<Receiver>,
    /// From the sender, to it, to receivers, from them.
    pub links: [Link; 4],
    events: BTreeMap<(Time, u64), Event>,
    serial: u64,
    /// What the sender has sent, by SSRC and number.
    history: BTreeMap<(u32, u16), (Vec<u8>, Option<Time>)>,
    /// By stream and number, as in their marks.
    pub originals: BTreeMap<(u32, u64), Vec<u8>>,
    rtx_seq: u16,
    wants_key: bool,
    pub key_every: u32,
    /// What arrives at one moment is one batch.
    pub batches: bool,
    /// The relay dies after every call.
    pub dies_always: bool,
    /// All that has left: the consumer's transport, the packet.
    pub left: Vec<(TransportId, Vec<u8>)>,
    /// Key frame requests that the sender was sent.
    pub key_frames_asked: usize,
}

impl Call {
    /// A camera (a simulcast one with several profiles), and receivers; with `rtx`, retransmissions are streams of their own
    /// on both sides.
    pub fn new(seed: u64, profiles: &[Profile], receivers: usize, rtx: bool, links: [Link; 4]) -> Self {
        let mut sim = Sim::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let track = sim.track(sender, CodecName::Vp8, profiles, |request| {
            request.codecs[0].nack = true;
            request.codecs[0].rtx = rtx.then_some(RTX);
            if rtx {
                for Encoding { ssrc, rtx_ssrc, .. } in &mut request.encodings {
                    *rtx_ssrc = ssrc.map(|ssrc| ssrc | 1 << 31);
                }
            }
        });
        let receivers = (0..receivers)
            .map(|_| {
                let transport = sim.transport(room);
                let consumer = sim.consumer_with(transport, &track, |request| repairing(request, rtx));
                Receiver::new(consumer, sim.consumers[&consumer].request.clone())
            })
            .collect();
        let mut call = Self {
            sim,
            track,
            receivers,
            links,
            events: BTreeMap::new(),
            serial: 0,
            history: BTreeMap::new(),
            originals: BTreeMap::new(),
            rtx_seq: 65_000,
            wants_key: true,
            key_every: 100,
            batches: false,
            dies_always: false,
            left: Vec::new(),
            key_frames_asked: 0,
        };
        call.schedule(ms(1), Event::Frame);
        call.schedule(ms(1), Event::Look);
        call
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.sim.now + after, self.serial), event);
    }

    fn carry(&mut self, link: usize, event: impl Fn() -> Event) {
        for delay in self.links[link].carry(self.sim.now, &mut self.sim.random) {
            self.schedule(delay, event());
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.sim.now + duration;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let timer = self.sim.relay.next_timeout().map(|due| due.max(self.sim.now));
            let Some(next) = event.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                break;
            };
            self.sim.advance(next.since(self.sim.now));
            if self.sim.page.is_dead() {
                self.take_out();
            }
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 == next) {
                let event = entry.remove();
                self.handle(event);
                self.take_out();
            }
            self.take_out();
        }
        self.sim.advance(end.since(self.sim.now));
        self.take_out();
    }

    /// Does a command, also if the relay dies of it: then its successor does.
    pub fn order(&mut self, method: Method) {
        self.sim.attempt(method).expect("it is not refused");
        self.take_out();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Frame => self.send_frame(),
            Event::ToRelay(bytes) => {
                let transport = self.track.transport();
                let source = self.sim.addresses[&transport];
                let mut arrivals = vec![single(source, &bytes)];
                let now = self.sim.now;
                while self.batches
                    && let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= now)
                    && let Event::ToRelay(bytes) = entry.get()
                {
                    arrivals.push(single(source, bytes));
                    entry.remove();
                }
                self.sim.deliver(transport, Port::Rtp, &arrivals);
            }
            Event::ToSender(rtcp) => self.on_feedback(&rtcp),
            Event::ToReceiver(receiver, bytes) => {
                let now = self.sim.now;
                self.receivers[receiver].on_packet(now, &bytes);
            }
            Event::FromReceiver(receiver, rtcp) => {
                let transport = self.receivers[receiver].request.transport;
                self.sim.send_rtcp(transport, &rtcp);
            }
            Event::Look => {
                let now = self.sim.now;
                for index in 0..self.receivers.len() {
                    if let Some(nack) = self.receivers[index].ask(now) {
                        self.carry(3, || Event::FromReceiver(index, nack.clone()));
                    }
                }
                self.schedule(ms(10), Event::Look);
            }
        }
    }

    fn send_frame(&mut self) {
        self.schedule(ms(33), Event::Frame);
        let wanted = std::mem::take(&mut self.wants_key);
        let mut packets = Vec::new();
        for stream in &mut self.track.streams {
            let key = wanted || stream.frame % self.key_every == 0;
            let count = 1 + self.sim.random.below(if key { 30 } else { 8 });
            packets.extend(stream.frame_of(count, key));
        }
        for packet in packets {
            let rtp = Rtp::read(&packet.bytes);
            self.history.insert((rtp.ssrc, rtp.seq), (packet.bytes.clone(), None));
            self.originals
                .insert((packet.mark.stream, packet.mark.seq), packet.bytes.clone());
            self.carry(0, || Event::ToRelay(packet.bytes.clone()));
        }
    }

    /// What the sender hears.
    fn on_feedback(&mut self, rtcp: &[u8]) {
        let asked = wire::key_frame_requests(rtcp).len();
        self.key_frames_asked += asked;
        self.wants_key |= asked > 0;
        let now = self.sim.now;
        for (ssrc, seq) in wire::nacked(rtcp) {
            let Some((bytes, sent_again)) = self.history.get_mut(&(ssrc, seq)) else {
                panic!("{seq} of {ssrc} was never sent");
            };
            // As senders do: not twice for one loss.
            if sent_again.is_some_and(|at| now.since(at) < ms(20)) {
                continue;
            }
            *sent_again = Some(now);
            let encoding = self
                .track
                .request
                .encodings
                .iter()
                .find(|encoding| encoding.ssrc == Some(ssrc));
            let again = match encoding.and_then(|encoding| encoding.rtx_ssrc) {
                Some(rtx_ssrc) => {
                    self.rtx_seq = self.rtx_seq.wrapping_add(1);
                    wire::rtx(bytes, rtx_ssrc, RTX, self.rtx_seq)
                }
                None => bytes.clone(),
            };
            self.carry(0, || Event::ToRelay(again.clone()));
        }
    }

    /// What the relay sent goes on its way.
    fn take_out(&mut self) {
        for (_, transport, rtcp) in std::mem::take(&mut self.sim.sink.rtcp) {
            if transport == self.sim.index(self.track.transport()) {
                self.carry(1, || Event::ToSender(rtcp.clone()));
            }
        }
        let sent = self.sim.take_sent();
        for (transport, packet) in sent {
            let receiver = self
                .receivers
                .iter()
                .position(|receiver| self.sim.consumers[&receiver.consumer].transport == transport);
            let receiver = receiver.expect("every transport with packets has its receiver");
            self.carry(2, || Event::ToReceiver(receiver, packet.clone()));
            self.left.push((self.receivers[receiver].request.transport, packet));
        }
        if self.sim.page.is_dead() || self.dies_always {
            self.sim.die();
            self.sim.succeed();
        }
    }

    /// The newest packet sent. Only for a camera without simulcast, as is what follows.
    pub fn newest(&self) -> u64 {
        self.originals.keys().map(|(_, seq)| *seq).max().unwrap_or(0)
    }

    /// How many packets a receiver got, and how many it should have: from the first one that it got to `last`.
    pub fn got_and_sent(&self, receiver: usize, last: u64) -> (usize, usize) {
        let got = self.receivers[receiver].packets.values();
        let got: BTreeSet<u64> = got.map(|packet| packet.mark().seq).filter(|seq| *seq <= last).collect();
        let first = got.first().copied().expect("it got something");
        let sent = self.originals.keys().filter(|(_, seq)| (first..=last).contains(seq));
        (got.len(), sent.count())
    }

    /// What left for a receiver is numbered without a break, but for what its relay was about to send when it died: so many
    /// packets at most.
    #[track_caller]
    pub fn judge_over_deaths(&self, receiver: usize, free_max: i128) -> Vec<Segment> {
        let received: Vec<_> = self.receivers[receiver].packets.values().cloned().collect();
        judge_numbers_with(&received, CodecName::Vp8, free_max)
    }

    /// All that a receiver has is byte for byte what it should be, under numbers that go on without a break.
    #[track_caller]
    pub fn judge(&self, receiver: usize) {
        let receiver = &self.receivers[receiver];
        let received: Vec<_> = receiver.packets.values().cloned().collect();
        // The very first packet may be lost: then nothing tells that it was there, and what it carried came later.
        let first_start = received.iter().position(|packet| packet.mark().key);
        super::judge::judge_numbers(&received[first_start.expect("a key frame")..], CodecName::Vp8);
        for packet in &received {
            let mark = packet.mark();
            let original = &self.originals[&(mark.stream, mark.seq)];
            let expected =
                super::judge::expected_bytes(original, packet.at, &packet.rtp, &self.track.request, &receiver.request);
            assert_eq!(packet.bytes, expected, "{mark:?}");
        }
    }
}

/// A consumer whose receiver asks for what it misses.
pub fn repairing(request: &mut CreateConsumer, rtx: bool) {
    request.nack = true;
    request.rtx = rtx.then(|| ConsumerRtx {
        ssrc: request.ssrc | 1 << 30,
        payload_types: vec![(request.payload_types[0].1, RTX_OUT)],
    });
}

impl Receiver {
    pub fn new(consumer: ConsumerId, request: CreateConsumer) -> Self {
        Self {
            consumer,
            request,
            packets: BTreeMap::new(),
            missing: BTreeMap::new(),
            newest: 0,
            repaired: 0,
        }
    }

    pub fn on_packet(&mut self, now: Time, bytes: &[u8]) {
        let mut rtp = Rtp::read(bytes);
        let is_rtx = self.request.rtx.as_ref().is_some_and(|rtx| rtx.ssrc == rtp.ssrc);
        if is_rtx {
            assert_eq!(rtp.payload_type, RTX_OUT);
            rtp.seq = u16::from_be_bytes([rtp.payload[0], rtp.payload[1]]);
            rtp.payload.drain(..2);
            rtp.ssrc = self.request.ssrc;
            rtp.payload_type = self.request.payload_types[0].1;
        }
        assert_eq!(rtp.ssrc, self.request.ssrc);
        let seq = if self.newest == 0 {
            (1 << 20) + u64::from(rtp.seq)
        } else {
            self.newest
                .wrapping_add_signed(i64::from(rtp.seq.wrapping_sub(self.newest as u16).cast_signed()))
        };
        if self.newest > 0 {
            for missing in self.newest + 1..seq {
                self.missing.insert(missing, (now, None));
            }
        }
        self.newest = self.newest.max(seq);
        if let Some((_, Some(_))) = self.missing.remove(&seq) {
            self.repaired += 1;
        }
        let bytes = rtp.write();
        let received = Received {
            at: now,
            mark: Mark::read(&rtp.payload),
            bytes,
            rtp,
            batch: 0,
            train: 0,
            place: 0,
        };
        if let Some(before) = self.packets.get(&seq) {
            assert_eq!(before.bytes, received.bytes, "one number, one packet");
            return;
        }
        self.packets.insert(seq, received);
    }

    /// What to ask for now.
    pub fn ask(&mut self, now: Time) -> Option<Vec<u8>> {
        self.missing.retain(|_, (since, _)| now.since(*since) < ms(2_000));
        let mut seqs = Vec::new();
        for (seq, (since, asked)) in &mut self.missing {
            let is_due = asked.map_or(now.since(*since) >= ms(5), |asked| now.since(asked) >= ms(100));
            if is_due {
                *asked = Some(now);
                seqs.push(*seq as u16);
            }
        }
        (!seqs.is_empty()).then(|| wire::nack(1, self.request.ssrc, &seqs))
    }
}
