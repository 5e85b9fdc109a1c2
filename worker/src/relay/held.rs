//! Packets that go on with nothing that their stream has sent: kept until it is known what they are, and then relayed as if
//! they had just come, or refused.
//!
//! Until then they are counted as what they would be without what follows: as duplicates, or as not believed. A command that
//! changes who is sent what gives them up, so that nobody is sent what came before. Memory is bounded and reserved once for the whole relay: a restart is
//! rare, and waits for a packet or two.

use std::time::Duration;

use crate::rtp::continuity::Verdict;
use crate::rtp::packet::Header;
use crate::rtp::seq::distance;
use crate::time::Time;

use super::Relay;
use super::keys::ProducerKey;
use super::packet::{Route, Rtp};
use super::sink::Sink;

/// Streams of which something is held at a time. One more takes the place of the oldest.
const RUNS_MAX: usize = 64;

/// Packets held of one stream.
const PACKETS_MAX: usize = 4;

/// Their bytes.
const BYTES_MAX: usize = 8 << 10;

/// So many packets may be missing behind them, when it is known what they are.
const HELD_GAP: i32 = 16;

/// How long a packet waits that goes on with its stream by its number: a sender of slides may not send another for minutes.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What is held of all streams.
#[derive(Debug)]
pub(super) struct HeldPackets {
    runs: Box<[Run]>,
    /// The bytes of the runs, [`BYTES_MAX`] for each.
    bytes: Box<[u8]>,
    /// Counts runs.
    serial: u64,
    /// What the last packet means for what is held of its stream.
    resolution: Option<Resolution>,
    /// When something will have waited for long enough.
    next: Option<Time>,
}

/// What is held of one stream.
#[derive(Clone, Debug, Default)]
struct Run {
    /// Ascends from run to run; 0: empty.
    serial: u64,
    owner: Option<(ProducerKey, u8)>,
    packets: Vec<HeldPacket>,
    len: usize,
    /// Until when it waits; `None`: for whatever comes.
    until: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct HeldPacket {
    route: Route,
    header: Header,
    /// Where it lies in the bytes of all.
    start: usize,
    len: usize,
    /// Something has come under its number.
    is_known: bool,
}

/// A packet by which it is known what the held ones are. It lies in the batch.
#[derive(Clone, Copy, Debug)]
struct Resolution {
    verdict: Verdict,
    packet: HeldPacket,
}

impl HeldPackets {
    pub(super) fn new() -> Self {
        let run = || Run {
            packets: Vec::with_capacity(PACKETS_MAX),
            ..Run::default()
        };
        Self {
            runs: (0..RUNS_MAX).map(|_| run()).collect(),
            bytes: vec![0; RUNS_MAX * BYTES_MAX].into_boxed_slice(),
            serial: 0,
            resolution: None,
            next: None,
        }
    }

    /// When [`Relay::release_waiting`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.next
    }

    /// The place that has been empty or full for the longest time.
    fn oldest(&self) -> usize {
        let by_serial = |index: &usize| self.runs[*index].serial;
        (0..RUNS_MAX).min_by_key(by_serial).unwrap_or(0)
    }

    /// Whether so long a packet more can be held in a place.
    fn has_capacity(&self, index: usize, len: usize) -> bool {
        let run = &self.runs[index];
        run.packets.len() < PACKETS_MAX && len <= BYTES_MAX - run.len
    }

    /// Keeps a packet for which there is capacity.
    fn push(&mut self, index: usize, route: Route, packet: &Rtp<'_>, is_known: bool) {
        let run = &mut self.runs[index];
        let start = index * BYTES_MAX + run.len;
        self.bytes[start..start + packet.bytes.len()].copy_from_slice(packet.bytes);
        run.len += packet.bytes.len();
        run.packets.push(HeldPacket {
            route,
            header: packet.header,
            start,
            len: packet.bytes.len(),
            is_known,
        });
    }
}

impl Relay {
    /// A packet does not simply go on with its stream.
    pub(super) fn hold_or_resolve(&mut self, now: Time, route: Route, packet: Rtp<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Hold => self.hold(now, route, packet),
            Verdict::Refuse => {
                let producer = &mut self.producers[route.key];
                let is_known = producer.streams[usize::from(route.encoding)].has_come(packet.header.seq);
                producer.count_refused(route.encoding, is_known, 1);
            }
            // The fan-out comes first, and needs all of the batch.
            _ => {
                self.held.resolution = Some(Resolution {
                    verdict,
                    packet: HeldPacket {
                        route,
                        header: packet.header,
                        start: packet.start,
                        len: packet.bytes.len(),
                        is_known: false,
                    },
                });
            }
        }
    }

    fn hold(&mut self, now: Time, route: Route, packet: Rtp<'_>) {
        let stream = &mut self.producers[route.key].streams[usize::from(route.encoding)];
        let is_known = stream.has_come(packet.header.seq);
        let held = stream.held;
        let index = held.map_or_else(|| self.held.oldest(), usize::from);
        if held.is_none() {
            self.discard_run(index);
            self.producers[route.key].streams[usize::from(route.encoding)].held = Some(index as u8);
            self.held.serial += 1;
            let run = &mut self.held.runs[index];
            (run.serial, run.owner) = (self.held.serial, Some((route.key, route.encoding)));
            run.until = Some(now + WAIT_MAX);
            self.held.next.get_or_insert(now + WAIT_MAX);
        }
        if self.held.has_capacity(index, packet.bytes.len()) {
            self.held.push(index, route, &packet, is_known);
            self.producers[route.key].count_refused(route.encoding, is_known, 1);
        } else if is_known {
            self.accept_packet(now, route, packet, true);
        } else {
            self.producers[route.key].count_refused(route.encoding, false, 1);
        }
    }

    /// A producer's packets go to others from now on: to none of them goes what came before.
    pub(super) fn discard_held(&mut self, key: ProducerKey) {
        for encoding in 0..self.producers[key].streams.len() {
            if let Some(index) = self.producers[key].streams[encoding].held {
                self.discard_run(usize::from(index));
            }
        }
    }

    /// Empties a place. What was there stays counted as it is.
    fn discard_run(&mut self, index: usize) {
        let run = &mut self.held.runs[index];
        let owner = run.owner.take();
        run.packets.clear();
        (run.serial, run.len, run.until) = (0, 0, None);
        if let Some((key, encoding)) = owner
            && let Some(producer) = self.producers.get_mut(key)
            && let stream = &mut producer.streams[usize::from(encoding)]
            // Another SSRC may carry it since.
            && stream.held == Some(index as u8)
        {
            stream.held = None;
        }
    }

    /// Releases what is held, if the last packet has shown what it is, and then accepts that packet. `bytes` are those of
    /// its batch.
    #[inline]
    pub(super) fn release_held(&mut self, now: Time, bytes: &mut [u8], sink: &mut impl Sink) {
        if let Some(resolution) = self.held.resolution.take() {
            self.release(now, resolution, bytes, sink);
        }
    }

    /// Releases what has waited for long enough, if it is known what it is.
    pub(super) fn release_waiting(&mut self, now: Time, sink: &mut impl Sink) {
        if self.held.next.is_none_or(|next| next > now) {
            return;
        }
        self.held.next = None;
        for index in 0..RUNS_MAX {
            let run = &mut self.held.runs[index];
            let (Some((key, encoding)), Some(until), Some(last)) = (run.owner, run.until, run.packets.last().copied())
            else {
                continue;
            };
            if until > now {
                self.held.next = Some(self.held.next.map_or(until, |next| next.min(until)));
                continue;
            }
            run.until = None;
            let Some(producer) = self.producers.get_mut(key) else {
                continue;
            };
            let stream = &mut producer.streams[usize::from(encoding)];
            if stream.held.map(usize::from) != Some(index) {
                continue;
            }
            if let Some(verdict) = stream.resolve_after_wait(last.route.codec.clock_rate) {
                self.release_run(now, verdict, last, sink);
            }
        }
    }

    #[cold]
    fn release(
        &mut self,
        now: Time,
        Resolution { verdict, packet }: Resolution,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) {
        // What came before all of it.
        self.fan_out(now, bytes, sink);
        self.release_run(now, verdict, packet, sink);
        let HeldPacket { route, header, .. } = packet;
        let start = packet.start;
        let Some(bytes) = bytes.get_mut(start..start + packet.len) else {
            return;
        };
        let packet = Rtp { header, bytes, start };
        if verdict == Verdict::Displaced {
            self.hold(now, route, packet);
        } else {
            self.accept_packet(now, route, packet, false);
        }
    }

    /// Accepts what is held of a stream, as the verdict says. `packet` is the last one of it, or the one that has shown it.
    fn release_run(&mut self, now: Time, verdict: Verdict, packet: HeldPacket, sink: &mut impl Sink) {
        let HeldPacket { route, header, .. } = packet;
        let stream = &mut self.producers[route.key].streams[usize::from(route.encoding)];
        let is_believed = matches!(verdict, Verdict::Restart | Verdict::Clock(_));
        let mut run = Vec::new();
        let index = stream.held.take().map(usize::from);
        if let Some(index) = index {
            let place = &mut self.held.runs[index];
            run = std::mem::take(&mut place.packets);
            (place.serial, place.owner, place.len, place.until) = (0, None, 0, None);
            run.sort_unstable_by_key(|held| distance(header.seq, held.header.seq));
            // What came between has not been held: then it begins here.
            let is_far = |last: &HeldPacket| distance(last.header.seq, header.seq) > HELD_GAP;
            if is_believed && run.last().is_some_and(is_far) {
                run.clear();
            }
        }
        match verdict {
            Verdict::Restart => stream.start_over(run.first().map_or(header.seq, |first| first.header.seq)),
            Verdict::Clock(by) => stream.change_clock(by),
            _ => {}
        }
        if verdict == Verdict::Restart && stream.is_rtx_learned {
            // Its retransmissions may have another SSRC now, which nobody has declared either.
            stream.is_rtx_learned = false;
            if let Some(rtx) = stream.rtx_ssrc.take() {
                let transport = self.producers[route.key].transport;
                self.transports[transport].rtx_ssrcs.remove(&rtx);
            }
        }
        let mut held_bytes = std::mem::take(&mut self.held.bytes);
        for held in &run {
            let stream = &self.producers[route.key].streams[usize::from(route.encoding)];
            let has_place = stream.ahead(held.header.seq).is_some_and(|ahead| match verdict {
                // It lies between the newest packet and the one that has passed it by.
                Verdict::Passed => ahead <= 0 || distance(held.header.seq, header.seq) > 0,
                _ => ahead <= 1,
            });
            if is_believed || has_place {
                let packet = Rtp {
                    header: held.header,
                    bytes: &mut held_bytes[held.start..held.start + held.len],
                    start: held.start,
                };
                self.producers[route.key].count_refused(route.encoding, held.is_known, -1);
                self.accept_packet(now, held.route, packet, !is_believed);
            }
        }
        self.fan_out(now, &mut held_bytes, sink);
        self.held.bytes = held_bytes;
        if let Some(index) = index {
            run.clear();
            self.held.runs[index].packets = run;
        }
    }
}
