//! One recorded stream, validated and measured, so that it can be replayed without end and recognised on arrival.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use weir_channel::message::CodecName;

use super::rtp::{Packet, RtpError};
use super::rtpdump::{RecordKind, Rtpdump, RtpdumpError};
use super::vp8::{self, Descriptor, PictureId, Resolution, Tl0PictureIndex, Vp8Error};

/// The most packets a recording may hold; at 1,000 packets/s, more than 15 minutes.
const PACKETS_MAX: usize = 1_000_000;

/// A whole recorded stream of one SSRC, in memory.
#[derive(Clone, Debug)]
pub struct Recording {
    codec: CodecName,
    clock_rate: u32,
    ssrc: u32,
    payload_type: u8,
    packets: Vec<RecordedPacket>,
    frames: Vec<Frame>,
    bytes: Vec<u8>,
    timestamp_span: u32,
    tl0_span: u8,
    start: Duration,
}

/// A packet of a recording.
#[derive(Clone, Debug)]
pub struct RecordedPacket {
    /// When it was sent, counted from the file's start; never less than that of the packet before.
    pub offset: Duration,
    /// Which frame it belongs to; an audio packet is a frame.
    pub frame: usize,
    /// The marker bit.
    pub marker: bool,
    /// Its sequence number.
    pub seq: u16,
    /// Its timestamp.
    pub timestamp: u32,
    /// Where the media begins in the packet: behind the RTP header and the parts of the payload that a relay rewrites.
    pub media_at: usize,
    /// VP8 only, where the packet has one.
    pub picture_id: Option<PictureId>,
    /// VP8 only, where the packet has one.
    pub tl0_picture_index: Option<Tl0PictureIndex>,
    /// Where the payload starts in the packet; the positions in the VP8 fields count from here.
    pub payload_at: usize,
    range: Range<usize>,
}

/// A frame of a recording.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its packets.
    pub packets: Range<usize>,
    /// VP8 key frames tell their size.
    pub key_frame: Option<Resolution>,
    /// Its timestamp, counted from that of the first frame.
    pub timestamp_offset: u32,
}

/// Why a file is no recording that can be replayed. Packets are counted from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file's format.
    #[error(transparent)]
    Rtpdump(#[from] RtpdumpError),
    /// Fewer than two frames: how long one lasts cannot be told.
    #[error("{0} frames are too few for a recording")]
    TooFewFrames(usize),
    /// More than is sensible to keep in memory.
    #[error("more than {PACKETS_MAX} packets")]
    TooManyPackets,
    /// The recorder kept less than the whole packet.
    #[error("packet {0} was not kept whole")]
    Incomplete(usize),
    /// A packet is no RTP.
    #[error("packet {0}: {1}")]
    Rtp(usize, RtpError),
    /// A packet is no VP8.
    #[error("packet {0}: {1}")]
    Vp8(usize, Vp8Error),
    /// A second stream.
    #[error("packet {packet} has SSRC {ssrc:#010x} and payload type {payload_type}, unlike the first")]
    OtherStream {
        /// Which packet.
        packet: usize,
        /// Its SSRC.
        ssrc: u32,
        /// Its payload type.
        payload_type: u8,
    },
    /// A packet is missing, or they are out of order: there would be nothing to hold a relay to.
    #[error("packet {packet} has sequence number {seq}, not {expected}")]
    Sequence {
        /// Which packet.
        packet: usize,
        /// Its number.
        seq: u16,
        /// The one after its predecessor's.
        expected: u16,
    },
    /// Timestamps that go backwards, or more than ten seconds ahead.
    #[error("packet {0}: the timestamp does not follow that of the packet before")]
    Timestamp(usize),
    /// VP8 that does not start with the first packet of a key frame could not be replayed in a loop.
    #[error("the recording does not start with a key frame")]
    NoKeyFrameFirst,
    /// Picture ids that come and go or do not count frames.
    #[error("packet {0}: the picture id does not follow that of the packet before")]
    PictureId(usize),
}

impl Recording {
    /// Reads an rtpdump file that holds one whole, unbroken stream. RTCP in it is passed over.
    ///
    /// # Errors
    /// When it holds anything else; see [`RecordingError`].
    pub fn from_rtpdump(file: &[u8], codec: CodecName, clock_rate: u32) -> Result<Self, RecordingError> {
        let dump = Rtpdump::parse(file)?;
        let mut recording = Self {
            codec,
            clock_rate,
            ssrc: 0,
            payload_type: 0,
            packets: Vec::new(),
            frames: Vec::new(),
            bytes: Vec::with_capacity(file.len()),
            timestamp_span: 0,
            tl0_span: 0,
            start: dump.start,
        };
        for record in dump.records() {
            let record = record?;
            let index = recording.packets.len();
            match record.kind {
                RecordKind::Rtcp => continue,
                RecordKind::Rtp { len_original } if record.packet.len() < usize::from(len_original) => {
                    return Err(RecordingError::Incomplete(index));
                }
                RecordKind::Rtp { .. } if index == PACKETS_MAX => return Err(RecordingError::TooManyPackets),
                RecordKind::Rtp { .. } => recording.add(index, record.offset, record.packet)?,
            }
        }
        recording.measure()?;
        Ok(recording)
    }

    /// Which codec.
    pub fn codec(&self) -> CodecName {
        self.codec
    }

    /// RTP clock, in Hz.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// The SSRC it is recorded and replayed under.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The payload type it is recorded and replayed under.
    pub fn payload_type(&self) -> u8 {
        self.payload_type
    }

    /// Its packets, in order.
    pub fn packets(&self) -> &[RecordedPacket] {
        &self.packets
    }

    /// Its frames, in order.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The bytes of a packet.
    pub fn bytes_of(&self, packet: &RecordedPacket) -> &[u8] {
        &self.bytes[packet.range.clone()]
    }

    /// How long it lasts by its own clock, the last frame included: what a loop adds to its timestamps.
    pub fn timestamp_span(&self) -> u32 {
        self.timestamp_span
    }

    /// How long it lasts, by [`Recording::timestamp_span`].
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(u64::from(self.timestamp_span) * 1_000_000_000 / u64::from(self.clock_rate.max(1)))
    }

    /// What a loop adds to its TL0PICIDX: the frames of the base temporal layer.
    pub fn tl0_span(&self) -> u8 {
        self.tl0_span
    }

    /// When the file was started, since 1970. Recordings with the same start have comparable offsets.
    pub fn start(&self) -> Duration {
        self.start
    }

    /// The size of its picture, if it is VP8.
    pub fn resolution(&self) -> Option<Resolution> {
        self.frames.first().and_then(|frame| frame.key_frame)
    }

    fn add(&mut self, index: usize, offset: Duration, bytes: &[u8]) -> Result<(), RecordingError> {
        let packet = Packet::parse(bytes).map_err(|error| RecordingError::Rtp(index, error))?;
        let mut media_at = packet.payload_at;
        let (mut picture_id, mut tl0_picture_index, mut key_frame) = (None, None, None);
        if self.codec == CodecName::Vp8 {
            let vp8_error = |error| RecordingError::Vp8(index, error);
            let descriptor = Descriptor::parse(packet.payload).map_err(vp8_error)?;
            media_at += descriptor.len;
            picture_id = descriptor.picture_id;
            tl0_picture_index = descriptor.tl0_picture_index;
            if descriptor.starts_frame {
                key_frame = vp8::key_frame(&packet.payload[descriptor.len..]).map_err(vp8_error)?;
            }
        }

        let starts_frame = match self.packets.last() {
            None => {
                (self.ssrc, self.payload_type) = (packet.ssrc, packet.payload_type);
                true
            }
            Some(before) => {
                if (packet.ssrc, packet.payload_type) != (self.ssrc, self.payload_type) {
                    return Err(RecordingError::OtherStream {
                        packet: index,
                        ssrc: packet.ssrc,
                        payload_type: packet.payload_type,
                    });
                }
                let expected = before.seq.wrapping_add(1);
                if packet.seq != expected {
                    return Err(RecordingError::Sequence {
                        packet: index,
                        seq: packet.seq,
                        expected,
                    });
                }
                let step = packet.timestamp.wrapping_sub(before.timestamp);
                if step > self.clock_rate.saturating_mul(10) {
                    return Err(RecordingError::Timestamp(index));
                }
                let frames = u64::from(step != 0);
                let expected_id = before.picture_id.map(|id| (id.bits, id.advanced(frames)));
                if picture_id.map(|id| (id.bits, id.value)) != expected_id
                    || tl0_picture_index.is_some() != before.tl0_picture_index.is_some()
                {
                    return Err(RecordingError::PictureId(index));
                }
                step != 0
            }
        };
        if self.codec == CodecName::Vp8 && index == 0 && key_frame.is_none() {
            return Err(RecordingError::NoKeyFrameFirst);
        }

        if starts_frame {
            let first_timestamp = self.packets.first().map_or(packet.timestamp, |first| first.timestamp);
            self.frames.push(Frame {
                packets: index..index,
                key_frame,
                timestamp_offset: packet.timestamp.wrapping_sub(first_timestamp),
            });
        }
        let frame = self.frames.len() - 1;
        self.frames[frame].packets.end = index + 1;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.packets.push(RecordedPacket {
            offset: offset.max(self.packets.last().map_or(Duration::ZERO, |before| before.offset)),
            frame,
            marker: packet.marker,
            seq: packet.seq,
            timestamp: packet.timestamp,
            media_at,
            picture_id,
            tl0_picture_index,
            payload_at: packet.payload_at,
            range: start..start + bytes.len(),
        });
        Ok(())
    }

    /// Finds what a loop adds to the numbers.
    fn measure(&mut self) -> Result<(), RecordingError> {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else {
            return Err(RecordingError::TooFewFrames(0));
        };
        // The last frame lasts as long as most of them do.
        let mut steps: HashMap<u32, usize> = HashMap::new();
        for pair in self.frames.windows(2) {
            *steps
                .entry(pair[1].timestamp_offset - pair[0].timestamp_offset)
                .or_default() += 1;
        }
        let frame_span = steps
            .into_iter()
            .max_by_key(|&(step, count)| (count, step))
            .map(|(step, _)| step)
            .ok_or(RecordingError::TooFewFrames(self.frames.len()))?;
        self.timestamp_span = last.timestamp_offset.wrapping_add(frame_span);
        let tl0_of = |frame: &Frame| self.packets[frame.packets.start].tl0_picture_index.map(|tl0| tl0.value);
        if let (Some(first), Some(last)) = (tl0_of(first), tl0_of(last)) {
            // The next loop's first frame is a key frame, and so one of the base layer.
            self.tl0_span = last.wrapping_sub(first).wrapping_add(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;
    use crate::rtp;
    use crate::rtpdump::RtpdumpWriter;

    const HIGH: &[u8] = include_bytes!("../../tests/media/high.rtpdump");

    fn rewritten(file: &[u8], mut edit: impl FnMut(usize, &mut Vec<u8>) -> bool) -> Vec<u8> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5004);
        let mut writer = RtpdumpWriter::new(Vec::new(), address, Duration::ZERO).unwrap();
        for (index, record) in Rtpdump::parse(file).unwrap().records().enumerate() {
            let record = record.unwrap();
            let mut packet = record.packet.to_vec();
            if edit(index, &mut packet) {
                writer.write_rtp(record.offset, &packet).unwrap();
            }
        }
        writer.finish().unwrap()
    }

    fn load(file: &[u8]) -> Result<Recording, RecordingError> {
        Recording::from_rtpdump(file, CodecName::Vp8, 90_000)
    }

    #[test]
    fn the_recordings_are_what_their_readme_says() {
        let video = [
            (include_bytes!("../../tests/media/low.rtpdump").as_slice(), 160, 90),
            (include_bytes!("../../tests/media/medium.rtpdump"), 320, 180),
            (HIGH, 640, 360),
        ];
        let layers: Vec<Recording> = video.iter().map(|(file, ..)| load(file).unwrap()).collect();
        for (layer, (_, width, height)) in layers.iter().zip(video) {
            assert_eq!(layer.resolution(), Some(Resolution { width, height }));
            assert_eq!(layer.frames().len(), 300);
            assert_eq!((layer.duration(), layer.tl0_span()), (Duration::from_secs(10), 150));
            assert_eq!(layer.start(), layers[0].start());
            // One picture: the same timestamps, and key frames at the same moments.
            for (index, (frame, other)) in layer.frames().iter().zip(layers[0].frames()).enumerate() {
                assert_eq!(frame.timestamp_offset, other.timestamp_offset);
                assert_eq!(frame.key_frame.is_some(), index % 60 == 0, "frame {index}");
            }
            assert_eq!(layer.packets()[0].timestamp, layers[0].packets()[0].timestamp);
            for packet in layer.packets() {
                let last = packet.seq == layer.packets()[layer.frames()[packet.frame].packets.end - 1].seq;
                assert_eq!(packet.marker, last, "the marker is on the last packet of each frame");
                assert_eq!(packet.picture_id.map(|id| id.bits), Some(15));
            }
        }
        // Trains: most frames of the highest layer are several packets.
        let long = layers[2]
            .frames()
            .iter()
            .filter(|frame| frame.packets.len() >= 3)
            .count();
        assert!(long > 200, "{long}");

        let others = [
            (
                include_bytes!("../../tests/media/vp9.rtpdump").as_slice(),
                CodecName::Vp9,
                90_000,
                300,
            ),
            (
                include_bytes!("../../tests/media/h264.rtpdump"),
                CodecName::H264,
                90_000,
                300,
            ),
            (
                include_bytes!("../../tests/media/opus.rtpdump"),
                CodecName::Opus,
                48_000,
                500,
            ),
        ];
        let mut all = layers;
        for (file, codec, clock_rate, frames) in others {
            let recording = Recording::from_rtpdump(file, codec, clock_rate).unwrap();
            assert_eq!(
                (recording.frames().len(), recording.duration()),
                (frames, Duration::from_secs(10))
            );
            all.push(recording);
        }
        let ends = |recording: &Recording| (recording.packets[0].clone(), recording.packets.last().unwrap().clone());
        assert!(all.iter().filter(|one| ends(one).1.seq < ends(one).0.seq).count() >= 3);
        assert!(
            all.iter()
                .filter(|one| ends(one).1.timestamp < ends(one).0.timestamp)
                .count()
                >= 3
        );
        let wrap = |id: Option<PictureId>| id.map(|id| id.value);
        assert!(wrap(ends(&all[0]).1.picture_id) < wrap(ends(&all[0]).0.picture_id));
    }

    #[test]
    fn every_fault_has_its_error() {
        use RecordingError as E;
        let keep = |_: usize, _: &mut Vec<u8>| true;
        assert!(load(&rewritten(HIGH, keep)).is_ok());
        assert_eq!(load(b"RIFF").unwrap_err(), E::Rtpdump(RtpdumpError::NotRtpdump));
        assert!(matches!(
            load(&HIGH[..HIGH.len() - 1]),
            Err(E::Rtpdump(RtpdumpError::RecordCut { .. }))
        ));
        assert_eq!(load(&rewritten(HIGH, |_, _| false)).unwrap_err(), E::TooFewFrames(0));
        assert_eq!(load(&rewritten(HIGH, |at, _| at < 10)).unwrap_err(), E::TooFewFrames(1));
        assert_eq!(load(&rewritten(HIGH, |at, _| at != 0)).unwrap_err(), E::NoKeyFrameFirst);
        assert!(matches!(
            load(&rewritten(HIGH, |at, _| at != 20)),
            Err(E::Sequence { packet: 20, .. })
        ));

        let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
            let file = rewritten(HIGH, |at, packet| {
                if at == 20 {
                    edit(packet);
                }
                true
            });
            load(&file).unwrap_err()
        };
        assert_eq!(
            edited(&|packet| packet.truncate(11)),
            E::Rtp(20, RtpError::TooShort { len: 11 })
        );
        assert_eq!(
            edited(&|packet| packet.truncate(13)),
            E::Vp8(20, Vp8Error::DescriptorCut { len: 1 })
        );
        assert!(matches!(
            edited(&|packet| packet[8] ^= 1),
            E::OtherStream { packet: 20, .. }
        ));
        assert!(matches!(
            edited(&|packet| packet[1] ^= 1),
            E::OtherStream { packet: 20, .. }
        ));
        assert_eq!(
            edited(&|packet| rtp::write_timestamp(packet, 1 << 31)),
            E::Timestamp(20)
        );
        assert_eq!(edited(&|packet| packet[15] ^= 1), E::PictureId(20));
        // A descriptor without a picture id in the middle of the first frame.
        let without_id = rewritten(HIGH, |at, packet| {
            packet[13] &= if at == 5 { !0x80 } else { 0xff };
            true
        });
        assert_eq!(load(&without_id).unwrap_err(), E::PictureId(5));
        let mut cut = HIGH.to_vec();
        let at = cut.iter().position(|&byte| byte == b'\n').unwrap() + 17;
        cut[at + 2] += 1;
        assert_eq!(load(&cut).unwrap_err(), E::Incomplete(0));
    }
}
