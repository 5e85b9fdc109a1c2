//! Recordings of one source, played at their true pace for as long as one likes.
//!
//! A [`Replay`] is a schedule: it is told how much time has passed and yields what is due. At the end of the recordings
//! it starts over, and every number that a receiver watches goes on as if there had been no end: sequence numbers,
//! timestamps, VP8 picture ids and TL0PICIDX.

use std::sync::Arc;
use std::time::Duration;

use rtcp_types::{
    Compound, RtcpPacketWriter, RtcpPacketWriterExt, RtcpWriteError, Sdes, SdesChunk, SdesItem, SenderReport,
};

use super::recording::Recording;
use super::{rtp, vp8};

/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_EPOCH_OFFSET: u64 = 2_208_988_800;

/// The schedule. It is a pure function of the time handed in.
#[derive(Clone, Debug)]
pub struct Replay {
    tracks: Vec<Arc<Recording>>,
    /// All packets of one round, in the order of sending.
    round: Vec<Slot>,
    period: Duration,
    rounds_done: u64,
    next: usize,
    /// What was yielded of each track: packets, and bytes of payload.
    yielded: Vec<(u32, u32)>,
    buffer: Vec<u8>,
}

/// Which packet of a recording.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// Which recording of the replay.
    pub track: usize,
    /// Which of its packets.
    pub packet: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    due: Duration,
    origin: Origin,
}

/// A packet to send now.
#[derive(Debug)]
pub struct DuePacket<'a> {
    /// When it is due, counted from the start of the replay.
    pub due: Duration,
    /// Which packet this is.
    pub origin: Origin,
    /// How many were yielded before.
    pub ordinal: u64,
    /// The packet, numbered for this round.
    pub bytes: &'a [u8],
}

/// Why recordings cannot be replayed together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// Nothing to replay.
    #[error("a replay needs a recording")]
    Empty,
    /// Recordings that last differently would drift apart, round by round.
    #[error("recordings of {0:?} and {1:?} cannot be replayed together: they would drift apart")]
    Durations(Duration, Duration),
    /// Receivers could not tell them apart.
    #[error("two recordings have the SSRC {0:#010x}")]
    SameSsrc(u32),
    /// The offsets of different recordings count from different starts.
    #[error("the recordings were not made together")]
    Starts,
}

impl Replay {
    /// Plays recordings that were made together, such as the layers of a simulcast.
    ///
    /// # Errors
    /// When they do not fit together; see [`ReplayError`].
    pub fn new(tracks: Vec<Arc<Recording>>) -> Result<Self, ReplayError> {
        let first = tracks.first().ok_or(ReplayError::Empty)?;
        let (period, start) = (first.duration(), first.start());
        for (index, track) in tracks.iter().enumerate() {
            if track.duration() != period {
                return Err(ReplayError::Durations(period, track.duration()));
            }
            if track.start() != start {
                return Err(ReplayError::Starts);
            }
            if tracks[..index].iter().any(|other| other.ssrc() == track.ssrc()) {
                return Err(ReplayError::SameSsrc(track.ssrc()));
            }
        }

        let lead = tracks
            .iter()
            .filter_map(|track| Some(track.packets().first()?.offset))
            .min();
        let lead = lead.unwrap_or_default();
        let mut round: Vec<Slot> = Vec::new();
        for (track, recording) in tracks.iter().enumerate() {
            round.extend(recording.packets().iter().enumerate().map(|(packet, recorded)| Slot {
                due: recorded.offset - lead,
                origin: Origin { track, packet },
            }));
        }
        // What was sent in the same millisecond: frame by frame, and the tracks of each in their order.
        round.sort_by_key(|slot| (slot.due, media_time(&tracks, slot.origin), slot.origin.track));
        // A sender that fell behind may have sent its last packets after the recording's end by its own clock. In a loop
        // they must not come after the packets of the next round, so none is later than the end.
        for slot in &mut round {
            slot.due = slot.due.min(period);
        }
        Ok(Self {
            yielded: vec![(0, 0); tracks.len()],
            tracks,
            round,
            period,
            rounds_done: 0,
            next: 0,
            buffer: Vec::with_capacity(2048),
        })
    }

    /// The recordings, in the order of [`Origin::track`].
    pub fn tracks(&self) -> &[Arc<Recording>] {
        &self.tracks
    }

    /// How long one round lasts.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// When the next packet is due, counted from the start of the replay.
    pub fn next_due(&self) -> Duration {
        let rounds = u32::try_from(self.rounds_done).unwrap_or(u32::MAX);
        self.period.saturating_mul(rounds) + self.round[self.next].due
    }

    /// How many packets were yielded.
    pub fn ordinal(&self) -> u64 {
        self.rounds_done * self.round.len() as u64 + self.next as u64
    }

    /// The next packet, if `elapsed` since the start of the replay it is due. Call it until it yields nothing.
    pub fn poll(&mut self, elapsed: Duration) -> Option<DuePacket<'_>> {
        let due = self.next_due();
        if due > elapsed {
            return None;
        }
        let (ordinal, rounds) = (self.ordinal(), self.rounds_done);
        let origin = self.round[self.next].origin;
        self.next += 1;
        if self.next == self.round.len() {
            self.next = 0;
            self.rounds_done += 1;
        }
        let recording = &self.tracks[origin.track];
        write_packet(&mut self.buffer, recording, origin.packet, rounds);
        let (packets, octets) = &mut self.yielded[origin.track];
        *packets = packets.wrapping_add(1);
        let payload_len = self.buffer.len() - recording.packets()[origin.packet].payload_at;
        *octets = octets.wrapping_add(payload_len as u32);
        Some(DuePacket {
            due,
            origin,
            ordinal,
            bytes: &self.buffer,
        })
    }

    /// The report on a track that its sender makes now (RFC 3550 §6.4.1), with the canonical name that all tracks of one
    /// sender share. `elapsed` counts from the start of the replay, `wall_clock` from 1970; the two are the same moment.
    ///
    /// # Errors
    /// When `cname` is empty or longer than 255 bytes.
    pub fn sender_report(
        &self,
        track: usize,
        elapsed: Duration,
        wall_clock: Duration,
        cname: &str,
    ) -> Result<Vec<u8>, RtcpWriteError> {
        let recording = &self.tracks[track];
        let ntp_seconds = wall_clock.as_secs().wrapping_add(NTP_EPOCH_OFFSET);
        let ntp_fraction = (u64::from(wall_clock.subsec_nanos()) << 32) / 1_000_000_000;
        let ticks = elapsed.as_nanos() * u128::from(recording.clock_rate()) / 1_000_000_000;
        let first_timestamp = recording.packets().first().map_or(0, |packet| packet.timestamp);
        let (packets, octets) = self.yielded[track];
        let report = SenderReport::builder(recording.ssrc())
            .ntp_timestamp((ntp_seconds << 32) | ntp_fraction)
            .rtp_timestamp(first_timestamp.wrapping_add(ticks as u32))
            .packet_count(packets)
            .octet_count(octets);
        let name = SdesChunk::builder(recording.ssrc()).add_item(SdesItem::builder(SdesItem::CNAME, cname));
        let compound = Compound::builder()
            .add_packet(report)
            .add_packet(Sdes::builder().add_chunk(name));
        let mut bytes = vec![0; compound.calculate_size()?];
        let len = compound.write_into(&mut bytes)?;
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// When a packet's frame was captured, counted from the first.
fn media_time(tracks: &[Arc<Recording>], origin: Origin) -> Duration {
    let recording = &tracks[origin.track];
    let frame = &recording.frames()[recording.packets()[origin.packet].frame];
    Duration::from_nanos(u64::from(frame.timestamp_offset) * 1_000_000_000 / u64::from(recording.clock_rate().max(1)))
}

/// Puts packet `index` of a recording into `buffer` as it is in the round after `rounds` others.
fn write_packet(buffer: &mut Vec<u8>, recording: &Recording, index: usize, rounds: u64) {
    let packet = &recording.packets()[index];
    buffer.clear();
    buffer.extend_from_slice(recording.bytes_of(packet));
    // Truncation is meant: all these numbers wrap.
    let seq_shift = (recording.packets().len() as u64).wrapping_mul(rounds) as u16;
    let timestamp_shift = u64::from(recording.timestamp_span()).wrapping_mul(rounds) as u32;
    rtp::write_seq(buffer, packet.seq.wrapping_add(seq_shift));
    rtp::write_timestamp(buffer, packet.timestamp.wrapping_add(timestamp_shift));
    let payload = &mut buffer[packet.payload_at..];
    if let Some(id) = packet.picture_id {
        let frames = (recording.frames().len() as u64).wrapping_mul(rounds);
        vp8::write_picture_id(payload, id, id.advanced(frames));
    }
    if let Some(tl0) = packet.tl0_picture_index {
        let shift = u64::from(recording.tl0_span()).wrapping_mul(rounds) as u8;
        payload[tl0.at] = tl0.value.wrapping_add(shift);
    }
}

#[cfg(test)]
mod tests {
    use weir_channel::message::CodecName;

    use super::*;
    use crate::rtp::Packet;
    use crate::vp8::Descriptor;

    fn recording(file: &[u8], codec: CodecName, clock_rate: u32) -> Arc<Recording> {
        Arc::new(Recording::from_rtpdump(file, codec, clock_rate).unwrap())
    }

    fn camera() -> Vec<Arc<Recording>> {
        [
            include_bytes!("../../tests/media/low.rtpdump").as_slice(),
            include_bytes!("../../tests/media/medium.rtpdump"),
            include_bytes!("../../tests/media/high.rtpdump"),
        ]
        .map(|file| recording(file, CodecName::Vp8, 90_000))
        .to_vec()
    }

    fn microphone() -> Arc<Recording> {
        recording(
            include_bytes!("../../tests/media/opus.rtpdump"),
            CodecName::Opus,
            48_000,
        )
    }

    #[test]
    fn numbers_go_on_across_the_seam() {
        let mut replay = Replay::new(camera()).unwrap();
        let per_round = replay.round.len() as u64;
        let tracks = replay.tracks().to_vec();
        let mut last: Vec<Option<(u16, u32, u16, u8)>> = vec![None; 3];
        let (mut ordinal, mut last_due) = (0, Duration::ZERO);
        // Rounds enough for the numbers to wrap wherever they start: 50 rounds are 60,050 packets of the highest layer, 15,000
        // pictures and 7,500 of the base layer.
        while ordinal < 50 * per_round {
            let due = replay.next_due();
            assert!(due >= last_due, "{due:?} after {last_due:?}");
            last_due = due;
            assert!(due.is_zero() || replay.poll(due - Duration::from_nanos(1)).is_none());
            let packet = replay.poll(due).unwrap();
            assert_eq!((packet.ordinal, packet.due), (ordinal, due));
            ordinal += 1;
            let origin = packet.origin;
            let recorded = &tracks[origin.track].packets()[origin.packet];
            let view = Packet::parse(packet.bytes).unwrap();
            let descriptor = Descriptor::parse(view.payload).unwrap();
            let id = descriptor.picture_id.unwrap().value;
            let tl0 = descriptor.tl0_picture_index.unwrap().value;
            if let Some((seq, timestamp, last_id, last_tl0)) = last[origin.track] {
                let new_frame = view.timestamp != timestamp;
                assert_eq!(view.seq, seq.wrapping_add(1));
                assert_eq!(view.timestamp.wrapping_sub(timestamp), if new_frame { 3000 } else { 0 });
                assert_eq!(id, (last_id + u16::from(new_frame)) & 0x7fff);
                let base = new_frame && descriptor.temporal_layer == Some(0);
                assert_eq!(tl0, last_tl0.wrapping_add(u8::from(base)));
            }
            last[origin.track] = Some((view.seq, view.timestamp, id, tl0));
            // Nothing but the numbers changes.
            let original = tracks[origin.track].bytes_of(recorded);
            assert_eq!(view.payload[descriptor.len..], original[recorded.media_at..]);
            assert_eq!((view.ssrc, view.marker), (tracks[origin.track].ssrc(), recorded.marker));
        }
        assert_eq!(replay.ordinal(), ordinal);
        assert_eq!(replay.next_due(), Duration::from_secs(500));
    }

    #[test]
    fn the_pace_is_that_of_the_recording() {
        let mut replay = Replay::new(vec![microphone()]).unwrap();
        let mut sent: u32 = 0;
        let mut elapsed = Duration::ZERO;
        while elapsed < Duration::from_secs(30) {
            while replay.poll(elapsed).is_some() {
                sent += 1;
            }
            // 50 packets per second; the recorded sender was never more than 60 ms off.
            let ideal = elapsed.as_secs_f64() * 50.0;
            assert!(
                (f64::from(sent) - ideal).abs() < 5.0,
                "{sent} packets after {elapsed:?}"
            );
            elapsed += Duration::from_millis(3);
        }
        assert_eq!(
            replay.poll(Duration::MAX).map(|packet| packet.ordinal),
            Some(sent.into())
        );
    }

    #[test]
    fn sender_reports_put_all_layers_on_one_clock() {
        let mut replay = Replay::new(camera()).unwrap();
        // 26 seconds in, in the third round; the timestamps have wrapped.
        let elapsed = Duration::from_millis(26_000);
        while replay.poll(elapsed).is_some() {}
        let wall_clock = Duration::new(1_800_000_000, 500_000_000);
        for (track, recording) in replay.tracks().to_vec().iter().enumerate() {
            let bytes = replay.sender_report(track, elapsed, wall_clock, "camera@weir").unwrap();
            assert!(rtp::is_rtcp(&bytes));
            let mut packets = Compound::parse(&bytes).unwrap();
            let report = packets.next().unwrap().unwrap();
            let report = report.try_as::<SenderReport<'_>>().unwrap();
            assert_eq!(report.ssrc(), recording.ssrc());
            assert_eq!(
                report.ntp_timestamp(),
                (1_800_000_000 + NTP_EPOCH_OFFSET) << 32 | 1 << 31
            );
            let first = recording.packets()[0].timestamp;
            assert_eq!(report.rtp_timestamp(), first.wrapping_add(26 * 90_000));
            // All of two rounds and six seconds of the third.
            let count = recording.packets().len() as u32;
            assert!((count * 2 + count / 2..count * 3).contains(&report.packet_count()));
            let payload: usize = recording
                .packets()
                .iter()
                .map(|packet| recording.bytes_of(packet).len() - 12)
                .sum();
            assert!((payload as u32 * 2..payload as u32 * 3).contains(&report.octet_count()));
            let name = packets.next().unwrap().unwrap();
            let name = name.try_as::<Sdes<'_>>().unwrap();
            let value = name.chunks().next().unwrap().items().next().unwrap().get_value_string();
            assert_eq!(value.unwrap(), "camera@weir");
        }
        assert!(replay.sender_report(0, elapsed, wall_clock, &"x".repeat(256)).is_err());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let microphone = microphone();
        assert_eq!(Replay::new(Vec::new()).unwrap_err(), ReplayError::Empty);
        assert_eq!(
            Replay::new(vec![microphone.clone(), microphone.clone()]).unwrap_err(),
            ReplayError::SameSsrc(microphone.ssrc())
        );
        let file = include_bytes!("../../tests/media/opus.rtpdump");
        let slower = recording(file, CodecName::Opus, 24_000);
        assert!(matches!(
            Replay::new(vec![microphone.clone(), slower]),
            Err(ReplayError::Durations(..))
        ));
        let mut later = file.to_vec();
        let start_at = later.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        later[start_at + 3] ^= 1;
        let later = recording(&later, CodecName::Opus, 48_000);
        assert_eq!(Replay::new(vec![microphone, later]).unwrap_err(), ReplayError::Starts);
    }
}
