//! Packets that go on with nothing that their stream has sent: kept until it is known what they are, and then relayed as if
//! they had just come.
//!
//! They are counted when they are let go, not before. Memory is bounded and reserved once for the whole relay: a restart is
//! rare, and waits for a packet or two.

use crate::rtp::continuity::Verdict;
use crate::rtp::packet::Header;
use crate::rtp::seq::distance;
use crate::time::Time;

use super::Relay;
use super::receive::Route;
use super::sink::Sink;
use super::slots::ProducerKey;

/// Streams of which something is held at a time. Of one more, the oldest gives way.
const RUNS_MAX: usize = 64;

/// Packets held of one stream.
const PACKETS_MAX: usize = 4;

/// Their bytes.
const BYTES_MAX: usize = 8 << 10;

/// What is held of all streams.
#[derive(Debug)]
pub(super) struct Held {
    runs: Box<[Run]>,
    /// Of each run in turn, [`BYTES_MAX`].
    bytes: Box<[u8]>,
    /// Counts runs.
    serial: u64,
    /// What the last packet means for what is held of its stream.
    turn: Option<Turn>,
}

/// What is held of one stream.
#[derive(Clone, Debug, Default)]
struct Run {
    /// Ascends from run to run; 0: empty.
    serial: u64,
    owner: Option<(ProducerKey, u8)>,
    packets: Vec<HeldPacket>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct HeldPacket {
    route: Route,
    header: Header,
    /// Where it lies in the bytes of all.
    start: usize,
    len: usize,
}

/// A packet by which it is known what the held ones are. It lies in the batch.
#[derive(Clone, Copy, Debug)]
struct Turn {
    verdict: Verdict,
    packet: HeldPacket,
}

impl Held {
    pub(super) fn new() -> Self {
        let run = || Run {
            packets: Vec::with_capacity(PACKETS_MAX),
            ..Run::default()
        };
        Self {
            runs: (0..RUNS_MAX).map(|_| run()).collect(),
            bytes: vec![0; RUNS_MAX * BYTES_MAX].into_boxed_slice(),
            serial: 0,
            turn: None,
        }
    }

    /// The place that has been empty or full for the longest time.
    fn oldest(&self) -> usize {
        let by_serial = |index: &usize| self.runs[*index].serial;
        (0..RUNS_MAX).min_by_key(by_serial).unwrap_or(0)
    }

    /// Keeps a packet, if it is not too long.
    fn push(&mut self, index: usize, route: Route, header: Header, packet: &[u8]) -> bool {
        let run = &mut self.runs[index];
        if run.packets.len() == PACKETS_MAX || packet.len() > BYTES_MAX - run.len {
            return false;
        }
        let start = index * BYTES_MAX + run.len;
        self.bytes[start..start + packet.len()].copy_from_slice(packet);
        run.len += packet.len();
        run.packets.push(HeldPacket {
            route,
            header,
            start,
            len: packet.len(),
        });
        true
    }
}

impl Relay {
    /// A packet does not simply go on with its stream.
    pub(super) fn put_off(&mut self, route: Route, header: &Header, packet: &[u8], start: usize, verdict: Verdict) {
        match verdict {
            Verdict::Hold => self.hold(route, header, packet),
            Verdict::Refuse => self.refuse(route),
            // The fan-out comes first, and needs all of the batch.
            _ => {
                self.held.turn = Some(Turn {
                    verdict,
                    packet: HeldPacket {
                        route,
                        header: *header,
                        start,
                        len: packet.len(),
                    },
                });
            }
        }
    }

    fn hold(&mut self, route: Route, header: &Header, packet: &[u8]) {
        let held = self.producers[route.key].streams[usize::from(route.encoding)].held;
        let index = held.map_or_else(|| self.held.oldest(), usize::from);
        if held.is_none() {
            self.give_up(index);
            self.held.serial += 1;
            self.held.runs[index].serial = self.held.serial;
            self.held.runs[index].owner = Some((route.key, route.encoding));
            self.producers[route.key].streams[usize::from(route.encoding)].held = Some(index as u8);
        }
        if !self.held.push(index, route, *header, packet) {
            self.refuse(route);
        }
    }

    /// Empties a place, for another stream.
    fn give_up(&mut self, index: usize) {
        let owner = self.held.runs[index].owner.take();
        let stream = owner
            .and_then(|(key, encoding)| self.producers.get_mut(key)?.streams.get_mut(usize::from(encoding)))
            // Another SSRC may carry it since.
            .filter(|stream| stream.held == Some(index as u8));
        let is_owned = stream.map(|stream| stream.held = None).is_some();
        while let Some(packet) = self.held.runs[index].packets.pop() {
            if is_owned {
                self.refuse(packet.route);
            }
        }
        self.held.runs[index].len = 0;
    }

    /// Counts a packet that is not believed.
    fn refuse(&mut self, route: Route) {
        let producer = &mut self.producers[route.key];
        let stream = &mut producer.streams[usize::from(route.encoding)];
        producer.counters.received += 1;
        stream.refuse();
        if producer.paused {
            stream.counters.paused += 1;
            producer.counters.paused += 1;
        } else {
            producer.counters.bad_sequence += 1;
        }
    }

    /// Lets go what is held, if the last packet has told what it is, and then takes that packet in. `bytes` are those of
    /// its batch.
    #[inline]
    pub(super) fn release_held(&mut self, now: Time, bytes: &mut [u8], sink: &mut impl Sink) {
        if let Some(turn) = self.held.turn.take() {
            self.release(now, turn, bytes, sink);
        }
    }

    #[cold]
    fn release(&mut self, now: Time, Turn { verdict, packet }: Turn, bytes: &mut [u8], sink: &mut impl Sink) {
        // What came before all of it.
        self.fan_out(now, bytes, sink);
        let HeldPacket { route, header, .. } = packet;
        let stream = &mut self.producers[route.key].streams[usize::from(route.encoding)];
        let mut run = Vec::new();
        let index = stream.held.take().map(usize::from);
        if let Some(index) = index {
            let place = &mut self.held.runs[index];
            run = std::mem::take(&mut place.packets);
            (place.serial, place.owner, place.len) = (0, None, 0);
            run.sort_unstable_by_key(|held| distance(header.seq, held.header.seq));
        }
        match verdict {
            Verdict::Restart => stream.start_over(run.first().map_or(header.seq, |first| first.header.seq)),
            Verdict::Clock(by) => stream.change_clock(by),
            _ => {}
        }
        let mut held_bytes = std::mem::take(&mut self.held.bytes);
        for HeldPacket {
            route,
            header,
            start,
            len,
        } in &run
        {
            let stream = &self.producers[route.key].streams[usize::from(route.encoding)];
            let is_believed = matches!(verdict, Verdict::Restart | Verdict::Clock(_));
            let has_place = stream.ahead(header.seq).is_some_and(|ahead| match verdict {
                // It lies between the newest packet and the one that has passed it by.
                Verdict::Passed => ahead <= 0 || distance(header.seq, packet.header.seq) > 0,
                _ => ahead <= 1,
            });
            if is_believed || has_place {
                let packet = &mut held_bytes[*start..*start + *len];
                self.admit(now, *route, header, packet, *start, !is_believed);
            } else {
                self.refuse(*route);
            }
        }
        self.fan_out(now, &mut held_bytes, sink);
        self.held.bytes = held_bytes;
        if let Some(index) = index {
            run.clear();
            self.held.runs[index].packets = run;
        }
        let Some(bytes) = bytes.get_mut(packet.start..packet.start + packet.len) else {
            return;
        };
        if verdict == Verdict::Displaced {
            self.hold(route, &header, bytes);
        } else {
            self.admit(now, route, &header, bytes, packet.start, false);
        }
    }
}
