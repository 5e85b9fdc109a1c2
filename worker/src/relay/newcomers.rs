//! From where `comedia` learns a remote, if the SSRC alone does not say whose a packet is.
//!
//! MIDs, RIDs and payload types are short, and anybody guesses them. So a sender that is known by nothing else has to show a stream: packets of
//! one SSRC and one payload type with consecutive numbers, all from one address. Until then they are held, and counted as
//! [`UnroutedReason::Unproven`]; then they are relayed as if they had just come. Memory is bounded for each transport, and given back
//! when a remote is learned.

use std::net::SocketAddr;
use std::ops::Range;

use weir_channel::message::UnroutedReason;

use crate::rtp::packet::Header;

use super::Relay;
use super::limits::TRAIN_BYTES_MAX;
use super::packet::Rtp;
use super::receive::Routed;
use super::sink::Sink;
use super::transport::{Origin, SourceCheck};

/// Packets that show a stream.
pub(super) const PACKETS_MIN: usize = 4;

/// Streams of which packets are held. One more takes the place of a stream of the address with the most, of the one that has brought nothing
/// for the longest time.
const NEWCOMERS_MAX: usize = 8;

/// Bytes that are held of each. What does not fit is lost; it shows a stream all the same.
const BYTES_MAX: usize = 1_500 * (PACKETS_MIN - 1);

/// What may be streams, the last heard last.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Vec<Newcomer>);

/// Packets of one SSRC from one address, which may be a stream.
#[derive(Debug)]
struct Newcomer {
    source: SocketAddr,
    ssrc: u32,
    payload_type: u8,
    /// The number that goes on with it.
    next: u16,
    /// Packets in a row.
    packets: usize,
    held: HeldRun,
}

/// Packets laid end to end.
#[derive(Debug, Default)]
pub(super) struct HeldRun {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Newcomers {
    /// Takes a packet. When it is the one that shows a stream: the held ones that came before it, and those of other streams from
    /// the same address.
    fn on_packet(&mut self, source: SocketAddr, header: &Header, packet: &[u8]) -> Option<HeldRun> {
        let (ssrc, payload_type) = (header.ssrc, header.payload_type);
        let known = self.0.iter().position(|one| (one.source, one.ssrc) == (source, ssrc));
        if known.is_none() && self.0.len() == NEWCOMERS_MAX {
            self.0.remove(self.least());
        }
        let known = known.map(|index| self.0.remove(index));
        let goes_on = |one: &Newcomer| (one.ssrc, one.payload_type, one.next) == (ssrc, payload_type, header.seq);
        let mut newcomer = known.filter(goes_on).unwrap_or_else(|| Newcomer {
            source,
            ssrc,
            payload_type,
            next: header.seq,
            packets: 0,
            held: HeldRun::default(),
        });
        newcomer.packets += 1;
        newcomer.next = header.seq.wrapping_add(1);
        if newcomer.packets == PACKETS_MIN {
            let mut held = newcomer.held;
            for other in self.0.iter().filter(|other| other.source == source) {
                held.append(&other.held);
            }
            return Some(held);
        }
        newcomer.held.push(packet);
        self.0.push(newcomer);
        None
    }

    /// The oldest stream of the address that has the most.
    fn least(&self) -> usize {
        let of_address = |one: &Newcomer| self.0.iter().filter(|other| other.source == one.source).count();
        let most = self.0.iter().map(of_address).max();
        self.0.iter().position(|one| Some(of_address(one)) == most).unwrap_or(0)
    }
}

impl HeldRun {
    fn push(&mut self, packet: &[u8]) {
        if self.bytes.len() + packet.len() <= BYTES_MAX {
            self.bytes.extend_from_slice(packet);
            self.ends.push(self.bytes.len());
        }
    }

    fn append(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }
}

impl Relay {
    /// Takes RTP from an address that is not the remote's: the first that is heard, or another port of the remote's IP, at which a
    /// sender may have started over.
    #[cold]
    pub(super) fn handle_newcomer(
        &mut self,
        origin: &mut Origin,
        bytes: &mut [u8],
        range: Range<usize>,
        sink: &mut impl Sink,
    ) -> Routed {
        let is_moved = origin.check == SourceCheck::Neighbour;
        if is_moved && !self.may_relearn(origin.now, origin.transport) {
            return Err(UnroutedReason::ForeignSource);
        }
        let reason = |reason| {
            if is_moved {
                UnroutedReason::ForeignSource
            } else {
                reason
            }
        };
        let mut held = None;
        {
            let packet = bytes.get_mut(range.clone()).unwrap_or_default();
            let packet = Rtp::parse(packet, range.start).map_err(|_| reason(UnroutedReason::Malformed))?;
            let transport = &self.transports[origin.transport];
            let is_rtx = transport.rtx_ssrcs.contains_key(&packet.header.ssrc);
            if is_moved && is_rtx {
                return Err(UnroutedReason::ForeignSource);
            }
            if !is_rtx && !transport.ssrcs.contains_key(&packet.header.ssrc) {
                if packet.bytes.len() > TRAIN_BYTES_MAX {
                    return Err(reason(UnroutedReason::TooLong));
                }
                self.check_newcomer(origin, &packet).map_err(reason)?;
                let newcomers = &mut self.transports[origin.transport].newcomers;
                let newcomers = newcomers.get_or_insert_default();
                held = newcomers.on_packet(origin.source, &packet.header, packet.bytes);
                if held.is_none() {
                    return Err(UnroutedReason::Unproven);
                }
            }
        }
        if is_moved {
            origin.check = SourceCheck::Candidate;
        }
        if let Some(held) = held {
            self.fan_out(origin.now, bytes, sink);
            self.relay_held_run(origin, held, sink);
        }
        let packet = bytes.get_mut(range.clone()).unwrap_or_default();
        let handled = match Rtp::parse(packet, range.start) {
            Ok(packet) => self.handle_rtp(origin, packet, sink),
            Err(_) => Err(UnroutedReason::Malformed),
        };
        if is_moved && origin.check == SourceCheck::Candidate {
            origin.check = SourceCheck::Neighbour; // it made no sense, and the next one must pass the same gate
            return handled.map_err(reason);
        }
        handled
    }

    /// Relays what was held of a newcomer that has shown a stream.
    fn relay_held_run(&mut self, origin: &mut Origin, held: HeldRun, sink: &mut impl Sink) {
        let HeldRun { mut bytes, ends } = held;
        let mut start = 0;
        for end in ends {
            let range = start..end;
            start = end;
            let len = range.len() as u64;
            let Some(Ok(packet)) = bytes
                .get_mut(range.clone())
                .map(|packet| Rtp::parse(packet, range.start))
            else {
                continue;
            };
            if self.handle_rtp(origin, packet, sink).is_ok() {
                let transport = &mut self.transports[origin.transport];
                transport.counters.unrouted[UnroutedReason::Unproven as usize] -= 1;
                transport.received.0 += 1;
                transport.received.1 += len;
            }
            self.release_held(origin.now, &mut bytes, sink);
        }
        self.fan_out(origin.now, &mut bytes, sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(ssrc: u32, seq: u16) -> Header {
        let mut packet = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        packet[2..4].copy_from_slice(&seq.to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        Header::parse(&packet).unwrap()
    }

    fn source(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    /// How many packets were held when these, as (port, SSRC, number), had shown a stream.
    fn held_after(packets: &[(u16, u32, u16)]) -> Option<usize> {
        let mut newcomers = Newcomers::default();
        let mut shown = packets
            .iter()
            .filter_map(|(port, ssrc, seq)| newcomers.on_packet(source(*port), &header(*ssrc, *seq), b"packet"));
        shown.next().map(|held| held.ends.len())
    }

    #[test]
    fn a_stream_is_consecutive_packets_of_one_ssrc_from_one_address() {
        assert_eq!(
            held_after(&[(1, 7, 65_534), (1, 7, 65_535), (1, 7, 0), (1, 7, 1)]),
            Some(3)
        );
        // Two that send at once.
        let both = [
            (1, 7, 1),
            (2, 8, 1),
            (1, 7, 2),
            (2, 8, 2),
            (1, 7, 3),
            (2, 8, 3),
            (1, 7, 4),
        ];
        assert_eq!(held_after(&both), Some(3));
        // Sound and picture by one address, and what was held of the one when the other is known.
        let interleaved = [
            (1, 7, 1),
            (1, 8, 1),
            (1, 7, 2),
            (1, 8, 2),
            (1, 7, 3),
            (1, 8, 3),
            (1, 7, 4),
        ];
        assert_eq!(held_after(&interleaved), Some(6));
        // Somebody who makes up streams displaces himself.
        let mut crowd: Vec<(u16, u32, u16)> = vec![(1, 7, 1), (1, 7, 2)];
        crowd.extend((100..200).map(|ssrc| (2, ssrc, 1)));
        crowd.extend([(1, 7, 3), (1, 7, 4)]);
        assert_eq!(held_after(&crowd), Some(3));
        for none in [
            [(1, 7, 1), (1, 7, 2), (1, 7, 3), (1, 7, 5)],
            [(1, 7, 1), (1, 7, 2), (1, 7, 3), (1, 8, 4)],
            [(1, 7, 1), (1, 7, 2), (1, 7, 3), (2, 7, 4)],
            [(1, 7, 1), (1, 7, 1), (1, 7, 1), (1, 7, 1)],
        ] {
            assert_eq!(held_after(&none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut newcomers = Newcomers::default();
        for port in 1..60_000 {
            for seq in 0..3 {
                newcomers.on_packet(source(port), &header(7, seq), &[0; 1_500]);
            }
        }
        assert_eq!(newcomers.0.len(), NEWCOMERS_MAX);
        assert!(newcomers.0.iter().all(|one| one.held.bytes.len() <= BYTES_MAX));
    }
}
