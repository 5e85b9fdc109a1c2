//! One consumer's stream, packet by packet.

use std::sync::Arc;

use weir_channel::message::{CodecName, MediaKind};

use super::{Catalogue, Check, Faults, SentLog};
use crate::replay::Origin;
use crate::rtp::Packet;
use crate::vp8::{self, Descriptor, PictureId, Resolution};

/// Judges what arrives for one consumer.
#[derive(Debug)]
pub struct StreamCheck {
    catalogue: Arc<Catalogue>,
    ssrc: u32,
    payload_type: u8,
    last: Option<Last>,
    pauses: Vec<Pause>,
    packets: u64,
    bytes: u64,
    frames: u64,
    switches: u64,
    resolution: Option<Resolution>,
    faults: [Faults; Check::ALL.len()],
}

/// A time in which nothing may be relayed, as marks of the [`SentLog`]: what was sent from the first mark on and before the
/// second must not arrive. As long as there is no second, nothing may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// The mark when the pause was confirmed.
    pub from: u64,
    /// The mark up to which the relay has received everything while it was still paused.
    pub to: Option<u64>,
}

impl Pause {
    fn forbids(self, ordinal: u64) -> bool {
        ordinal >= self.from && self.to.is_none_or(|to| ordinal < to)
    }

    /// Whether the pause lies between two packets that were not sent during it.
    fn separates(self, before: u64, after: u64) -> bool {
        self.to.is_some_and(|to| before < to && to <= after)
    }
}

/// What a packet was to its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// The next packet of the profile that flows.
    Continued,
    /// The first packet of all, or the first after a pause.
    Started {
        /// Which recording of the source flows now.
        track: usize,
    },
    /// The first packet of another profile.
    Switched {
        /// Which recording of the source flowed before.
        from: usize,
        /// Which one flows now.
        to: usize,
    },
    /// A packet that should not have come, or not like this; the faults say why.
    Wrong,
}

/// The last packet that took its place in the stream.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: u16,
    timestamp: u32,
    picture_id: Option<PictureId>,
    tl0_picture_index: Option<u8>,
    origin: Origin,
    ordinal: u64,
}

/// What VP8 adds to a packet.
#[derive(Clone, Copy, Debug)]
struct Vp8Packet {
    descriptor: Descriptor,
    key_frame: Option<Resolution>,
}

impl StreamCheck {
    /// For a consumer that is sent under this SSRC and payload type.
    pub fn new(catalogue: Arc<Catalogue>, ssrc: u32, payload_type: u8) -> Self {
        Self {
            catalogue,
            ssrc,
            payload_type,
            last: None,
            pauses: Vec::new(),
            packets: 0,
            bytes: 0,
            frames: 0,
            switches: 0,
            resolution: None,
            faults: Default::default(),
        }
    }

    /// A pause was confirmed at this mark: nothing sent later may arrive, until [`StreamCheck::resume`] says otherwise.
    pub fn pause(&mut self, from: u64) {
        self.pauses.push(Pause { from, to: None });
    }

    /// The pause is about to end, and the relay has received everything before this mark.
    pub fn resume(&mut self, to: u64) {
        if let Some(pause) = self.pauses.iter_mut().rev().find(|pause| pause.to.is_none()) {
            pause.to = Some(to);
        }
    }

    /// Takes a datagram, which is not RTCP.
    pub fn receive(&mut self, datagram: &[u8], sent: &SentLog) -> Arrival {
        self.packets += 1;
        self.bytes += datagram.len() as u64;
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            Err(error) => return self.wrong(Check::WellFormed, || error.to_string()),
        };
        let expected = (self.ssrc, self.payload_type);
        if (packet.ssrc, packet.payload_type) != expected {
            return self.wrong(Check::WellFormed, || {
                let (ssrc, payload_type) = expected;
                format!(
                    "SSRC {:#010x} and payload type {}, not {ssrc:#010x} and {payload_type}",
                    packet.ssrc, packet.payload_type
                )
            });
        }
        if let Some(last) = self.last {
            let expected = last.seq.wrapping_add(1);
            let ahead = packet.seq.wrapping_sub(expected);
            if ahead != 0 {
                self.fault(Check::SequenceUnbroken, || match ahead {
                    0x8000.. => format!("sequence number {} again or late, after {}", packet.seq, last.seq),
                    _ => format!("sequence number {} after {}: {ahead} missing", packet.seq, last.seq),
                });
            }
            if ahead >= 0x8000 {
                return Arrival::Wrong;
            }
        }

        let vp8 = match self.parse_vp8(&packet) {
            Ok(vp8) => vp8,
            Err(error) => return self.wrong(Check::ContentIntact, || format!("packet {}: {error}", packet.seq)),
        };
        let Some((origin, ordinal)) = self.recognise(&packet, vp8, sent) else {
            return self.wrong(Check::ContentIntact, || {
                format!(
                    "packet {} carries {} bytes that were not sent",
                    packet.seq,
                    packet.payload.len()
                )
            });
        };
        if self.pauses.iter().any(|pause| pause.forbids(ordinal)) {
            self.fault(Check::SilentWhilePaused, || {
                format!(
                    "packet {} was sent as number {ordinal} of its source, during a pause",
                    packet.seq
                )
            });
        }
        self.check_marks(&packet, vp8, origin);
        let arrival = self.check_place(&packet, vp8, origin, ordinal);
        if arrival != Arrival::Wrong {
            // What follows a hole has no numbers to be held to.
            self.check_numbers(&packet, vp8, (origin, ordinal), arrival);
        }

        if vp8.is_none_or(|vp8| vp8.descriptor.starts_frame) {
            self.frames += 1;
        }
        if let Some(resolution) = vp8.and_then(|vp8| vp8.key_frame) {
            self.resolution = Some(resolution);
        }
        self.last = Some(Last {
            seq: packet.seq,
            timestamp: packet.timestamp,
            picture_id: vp8.and_then(|vp8| vp8.descriptor.picture_id),
            tl0_picture_index: vp8
                .and_then(|vp8| vp8.descriptor.tl0_picture_index)
                .map(|tl0| tl0.value),
            origin,
            ordinal,
        });
        arrival
    }

    /// Packets that arrived, whatever they were.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The bytes of these packets, with RTP headers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frames that began to arrive.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Switches from one recording to another.
    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// Which recording flowed last.
    pub fn track(&self) -> Option<usize> {
        self.last.map(|last| last.origin.track)
    }

    /// The size in the last key frame's header.
    pub fn resolution(&self) -> Option<Resolution> {
        self.resolution
    }

    /// The pauses so far.
    pub fn pauses(&self) -> &[Pause] {
        &self.pauses
    }

    /// Violations of a check.
    pub fn faults(&self, check: Check) -> &Faults {
        &self.faults[check as usize]
    }

    fn parse_vp8(&self, packet: &Packet<'_>) -> Result<Option<Vp8Packet>, vp8::Vp8Error> {
        if self.catalogue.codec() != Some(CodecName::Vp8) {
            return Ok(None);
        }
        let descriptor = Descriptor::parse(packet.payload)?;
        let key_frame = match descriptor.starts_frame {
            true => vp8::key_frame(&packet.payload[descriptor.len..])?,
            false => None,
        };
        Ok(Some(Vp8Packet { descriptor, key_frame }))
    }

    /// Which packet this is and under which ordinal it was sent. Where a source repeats itself, the one that fits.
    fn recognise(&self, packet: &Packet<'_>, vp8: Option<Vp8Packet>, sent: &SentLog) -> Option<(Origin, u64)> {
        let media = &packet.payload[vp8.map_or(0, |vp8| vp8.descriptor.len)..];
        let candidates = self.catalogue.find(media);
        let expected = self.last.map(|last| self.catalogue.next(last.origin));
        let continued = candidates.iter().find(|&&origin| Some(origin) == expected);
        let latest = || candidates.iter().max_by_key(|&&origin| sent.ordinal(origin));
        let origin = *continued.or_else(latest)?;
        Some((origin, sent.ordinal(origin)?))
    }

    /// What a relay leaves as it is, besides the media.
    fn check_marks(&mut self, packet: &Packet<'_>, vp8: Option<Vp8Packet>, origin: Origin) {
        let recording = &self.catalogue.tracks()[origin.track];
        let recorded = &recording.packets()[origin.packet];
        let original = Packet::parse(recording.bytes_of(recorded)).ok();
        let original_vp8 = original.and_then(|original| Descriptor::parse(original.payload).ok());
        let kept = |descriptor: Descriptor| (descriptor.starts_frame, descriptor.temporal_layer);
        let same = packet.marker == recorded.marker
            && vp8.is_none_or(|vp8| original_vp8.map(kept) == Some(kept(vp8.descriptor)));
        if !same {
            self.fault(Check::ContentIntact, || {
                format!(
                    "packet {} lost its marker, start of frame or temporal layer",
                    packet.seq
                )
            });
        }
    }

    /// Whether the packet may follow the last one.
    fn check_place(&mut self, packet: &Packet<'_>, vp8: Option<Vp8Packet>, origin: Origin, ordinal: u64) -> Arrival {
        let arrival = match self.last {
            Some(last)
                if self.catalogue.next(last.origin) == origin
                    && ordinal.abs_diff(last.ordinal) < self.catalogue.round_len() =>
            {
                return Arrival::Continued;
            }
            Some(last) if self.pauses.iter().any(|pause| pause.separates(last.ordinal, ordinal)) => {
                Arrival::Started { track: origin.track }
            }
            Some(last) if last.origin.track == origin.track => {
                return self.wrong(Check::NothingMissing, || {
                    format!(
                        "packet {} is number {} of its recording, after number {}",
                        packet.seq, origin.packet, last.origin.packet
                    )
                });
            }
            Some(last) => {
                self.switches += 1;
                let frames = self.catalogue.tracks()[origin.track].frames().len();
                let frame_before = self.catalogue.packet(last.origin).frame;
                let frame = self.catalogue.packet(origin).frame;
                // The layers of one picture: a switch may show the last one again in its new size, but skip none.
                if frame != frame_before && frame != (frame_before + 1) % frames {
                    self.fault(Check::NothingMissing, || {
                        format!("packet {} switches from picture {frame_before} to {frame}", packet.seq)
                    });
                }
                Arrival::Switched {
                    from: last.origin.track,
                    to: origin.track,
                }
            }
            None => Arrival::Started { track: origin.track },
        };
        let recording = &self.catalogue.tracks()[origin.track];
        let is_video = recording.codec().kind() == MediaKind::Video;
        let shown = vp8.and_then(|vp8| vp8.key_frame);
        if is_video && (shown.is_none() || shown != recording.resolution()) {
            self.fault(Check::KeyFrameFirst, || {
                let what = shown.map_or("is not the start of a key frame".to_owned(), |size| {
                    format!("is of {size}")
                });
                format!("packet {}, the first after a {arrival:?}, {what}", packet.seq)
            });
        }
        arrival
    }

    /// Timestamp, picture id and TL0PICIDX, by those of the last packet.
    fn check_numbers(
        &mut self,
        packet: &Packet<'_>,
        vp8: Option<Vp8Packet>,
        (origin, ordinal): (Origin, u64),
        arrival: Arrival,
    ) {
        let Some(last) = self.last else { return };
        let catalogue = Arc::clone(&self.catalogue);
        let recorded = catalogue.packet(origin);
        let recorded_last = catalogue.packet(last.origin);
        let continued = arrival == Arrival::Continued;
        let new_frame = !continued || recorded.frame != recorded_last.frame;

        // From frame to frame, timestamps are as far apart as they were sent. Where a flow starts or switches, a sender's
        // reports tell how its streams lie to each other; a hundredth of a second is for their rounding. Time never stands
        // still or goes back, not even when a switch shows the same picture again.
        let step = packet.timestamp.wrapping_sub(last.timestamp) as i32;
        let sent_step = catalogue
            .media_time(origin, ordinal)
            .wrapping_sub(catalogue.media_time(last.origin, last.ordinal)) as i64;
        let tolerance = i64::from(catalogue.tracks()[origin.track].clock_rate() / 100);
        let plausible = match continued {
            true => i64::from(step) == sent_step,
            false => step > 0 && (i64::from(step) - sent_step.max(1)).abs() <= tolerance,
        };
        if !plausible {
            self.fault(Check::TimestampsAdvance, || {
                format!(
                    "packet {} has timestamp {} after {}",
                    packet.seq, packet.timestamp, last.timestamp
                )
            });
        }

        let Some(vp8) = vp8 else { return };
        let id = vp8.descriptor.picture_id;
        let wanted = last.picture_id.map(|id| (id.bits, id.advanced(u64::from(new_frame))));
        if id.map(|id| (id.bits, id.value)) != wanted || id.is_some() != recorded.picture_id.is_some() {
            self.fault(Check::PictureIdsContinuous, || {
                let value = |id: Option<PictureId>| id.map_or("none".to_owned(), |id| id.value.to_string());
                format!(
                    "packet {} has picture id {} after {}",
                    packet.seq,
                    value(id),
                    value(last.picture_id)
                )
            });
        }
        let tl0 = vp8.descriptor.tl0_picture_index.map(|tl0| tl0.value);
        let base = new_frame && vp8.descriptor.temporal_layer.unwrap_or(0) == 0;
        let wanted = last.tl0_picture_index.map(|value| value.wrapping_add(u8::from(base)));
        if tl0 != wanted || tl0.is_some() != recorded.tl0_picture_index.is_some() {
            self.fault(Check::PictureIdsContinuous, || {
                format!(
                    "packet {} has TL0PICIDX {tl0:?} after {:?}",
                    packet.seq, last.tl0_picture_index
                )
            });
        }
    }

    fn fault(&mut self, check: Check, example: impl FnOnce() -> String) {
        self.faults[check as usize].add(example);
    }

    fn wrong(&mut self, check: Check, example: impl FnOnce() -> String) -> Arrival {
        self.fault(check, example);
        Arrival::Wrong
    }
}
