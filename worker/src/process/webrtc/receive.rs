//! From a receive batch of a WebRTC transport to packets for the relay: classified, answered, or unprotected in place.

use std::net::SocketAddr;
use std::ops::Range;

use weir_channel::message::{IceProtocol, IceTuple, UnroutedReason};

use crate::net::receive::Received;
use crate::net::shell::Shell;
use crate::relay::datagram::Datagram;
use crate::relay::sink::{Port, TransportIx};
use crate::time::Time;
use crate::webrtc::demux::{Kind, classify};
use crate::webrtc::srtp::UnprotectError;
use crate::webrtc::transport::{Dropped, Received as Verdict};

use super::{IoContext, UNPROTECTED_MAX, WebRtc};

impl WebRtc {
    /// Takes in what one of a transport's sockets, which is bound to `local`, has brought.
    pub(in crate::process) fn handle_batch(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        local: SocketAddr,
        received: Received<'_>,
    ) {
        let tuple = IceTuple {
            protocol: IceProtocol::Udp,
            local,
            remote: local, // each datagram has its own
        };
        io.egress.begin_batch(&received);
        self.handle_datagrams(now, io, transport, tuple, received.bytes, received.datagrams);
        io.egress.end_batch();
    }

    /// Takes in datagrams or frames that lie in `bytes`.
    pub(super) fn handle_datagrams(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        tuple: IceTuple,
        bytes: &mut [u8],
        datagrams: &[Datagram],
    ) {
        self.unprotected.clear();
        for datagram in datagrams {
            let tuple = IceTuple {
                remote: datagram.source,
                ..tuple
            };
            let range = datagram.range();
            let segment = (datagram.segment as usize).max(1);
            let mut start = range.start;
            // An empty datagram is one too.
            loop {
                let packet = start..range.end.min(start + segment);
                start = packet.end;
                self.handle_packet(now, io, transport, tuple, bytes, packet);
                if self.unprotected.len() == UNPROTECTED_MAX {
                    self.relay_unprotected(now, io, transport, bytes);
                }
                if start >= range.end {
                    break;
                }
            }
        }
        self.relay_unprotected(now, io, transport, bytes);
    }

    /// Takes in one datagram, or one frame of a connection, that lies in `bytes`.
    fn handle_packet(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        tuple: IceTuple,
        bytes: &mut [u8],
        range: Range<usize>,
    ) {
        let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) else {
            return;
        };
        let Some(packet) = bytes.get_mut(range.clone()) else {
            return;
        };
        let kind = classify(packet);
        let refused = match (kind, &mut entry.inbound) {
            (Kind::Rtp | Kind::Rtcp, inbound) => match (entry.transport.admit_media(&tuple), inbound) {
                (Ok(()), Some(inbound)) => {
                    let unprotected = match kind {
                        Kind::Rtp => inbound.unprotect_rtp(packet),
                        _ => inbound.unprotect_rtcp(packet),
                    };
                    match unprotected {
                        Ok(unprotected) => {
                            self.unprotected.push(Datagram {
                                start: range.start as u32,
                                len: unprotected.len as u32,
                                segment: (unprotected.len as u32).max(1),
                                // From whichever of its addresses it came, it is the peer's.
                                source: entry.peer.unwrap_or(tuple.remote),
                            });
                            let is_back = io.egress.note_heard(transport);
                            let has_moved = unprotected.is_newest && entry.transport.on_authentic_media(now, &tuple);
                            if is_back || has_moved {
                                self.with(now, io, transport, |entry, output, _| {
                                    entry.transport.handle_events(now, output);
                                });
                            }
                            return;
                        }
                        Err(error) => reason_of(error),
                    }
                }
                (Ok(()), None) => UnroutedReason::NotConnected,
                (Err(dropped), _) => unrouted(dropped),
            },
            _ => {
                let before = (entry.transport.counters().refusals, entry.transport.counters().checks);
                let verdict = self.with(now, io, transport, |entry, output, budgets| {
                    let verdict = entry.transport.handle_datagram(now, tuple, packet, budgets, output);
                    let counters = entry.transport.counters();
                    if counters.checks != before.1 {
                        output.egress.note_heard(transport);
                    }
                    (verdict, counters.refusals)
                });
                match verdict {
                    Some((Verdict::Dropped(dropped), _)) => unrouted(dropped),
                    // It was refused, and answered so.
                    Some((_, refusals)) if refusals != before.0 => UnroutedReason::BadCheck,
                    _ => return,
                }
            }
        };
        io.relay.count_unrouted(transport, refused, 1);
    }

    fn relay_unprotected(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        bytes: &mut [u8],
    ) {
        let Some(first) = self.unprotected.first() else { return };
        io.egress
            .mirror_unprotected(transport, first.source, bytes, &self.unprotected);
        io.relay
            .handle_datagrams(now, transport, Port::Rtp, bytes, &self.unprotected, io.egress);
        self.unprotected.clear();
        if let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize)
            && !std::mem::replace(&mut entry.is_unkept, true)
        {
            self.unkept.push(transport);
        }
    }
}

fn unrouted(dropped: Dropped) -> UnroutedReason {
    match dropped {
        Dropped::Unrecognised => UnroutedReason::Malformed,
        Dropped::Stun => UnroutedReason::BadCheck,
        Dropped::StunTooLong => UnroutedReason::TooLong,
        Dropped::StunReplayed => UnroutedReason::Replayed,
        Dropped::StunFlood | Dropped::DtlsFlood => UnroutedReason::Flood,
        Dropped::UnknownTuple => UnroutedReason::ForeignSource,
        Dropped::NotConnected => UnroutedReason::NotConnected,
    }
}

fn reason_of(error: UnprotectError) -> UnroutedReason {
    match error {
        UnprotectError::TooShort | UnprotectError::Malformed => UnroutedReason::Malformed,
        UnprotectError::NotAuthentic | UnprotectError::Exhausted => UnroutedReason::NotAuthentic,
        UnprotectError::Replayed | UnprotectError::TooOld => UnroutedReason::Replayed,
        UnprotectError::TooManyStreams => UnroutedReason::UnknownStream,
    }
}
