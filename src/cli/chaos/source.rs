//! One sender: its packets, and those that it can send again.

use weir_channel::message::MediaKind;

/// A header of RTP without more.
const HEADER_BYTES: usize = 12;

/// The payload descriptor of VP8 (RFC 7741 §4.2) with a picture id of 15 bits, and the first byte of the payload's header.
const DESCRIPTOR_BYTES: usize = 5;

/// Where a packet's number lies, behind the header.
const NUMBER_AT: usize = HEADER_BYTES + DESCRIPTOR_BYTES;

/// Number, then filling.
const FILLING_AT: usize = NUMBER_AT + 8;

const FILLING: u8 = 0x5a;

/// So many packets are known as they were sent.
const KEPT: usize = 1_024;

/// So many times of sending are known.
const TIMES: usize = 1 << 14;

/// One sender.
#[derive(Debug)]
pub(super) struct Source {
    pub kind: MediaKind,
    pub ssrc: u32,
    interval_ns: u64,
    /// When the next packet is due.
    pub due_ns: u64,
    written: u64,
    /// The next picture is one that a decoder can begin with.
    is_key_frame_wanted: bool,
    kept: Box<[Vec<u8>]>,
    sent_at: Box<[u64]>,
    /// Key frame requests that came.
    pub key_frame_requests: u64,
}

impl Source {
    pub(super) fn new(kind: MediaKind, ssrc: u32, packet_bytes: usize) -> Self {
        Self {
            kind,
            ssrc,
            interval_ns: u64::MAX,
            due_ns: u64::MAX,
            written: 0,
            is_key_frame_wanted: true,
            kept: vec![vec![FILLING; packet_bytes.max(FILLING_AT)]; KEPT].into_boxed_slice(),
            // As in `Judge::new`.
            sent_at: vec![u64::MAX; TIMES].into_boxed_slice(),
            key_frame_requests: 0,
        }
    }

    pub(super) fn payload_type(kind: MediaKind) -> u8 {
        match kind {
            MediaKind::Audio => 111,
            MediaKind::Video => 96,
        }
    }

    /// Sends at another rate from now on, beginning after a share of the interval.
    pub(super) fn set_rate(&mut self, now_ns: u64, packets_per_second: f64, phase: f64) {
        self.interval_ns = (1e9 / packets_per_second.max(1e-3)) as u64;
        self.due_ns = now_ns + (self.interval_ns as f64 * phase) as u64;
    }

    /// Writes the next packet, which is due. Returns its index (RFC 3711 §3.3.1) and its bytes.
    pub(super) fn next_packet(&mut self, now_ns: u64) -> (u64, &[u8]) {
        let number = self.written;
        self.written += 1;
        // A sender that was kept from running goes on from now, and does not catch up.
        self.due_ns = match now_ns.saturating_sub(self.due_ns) > 10 * self.interval_ns {
            true => now_ns + self.interval_ns,
            false => self.due_ns + self.interval_ns,
        };
        self.sent_at[number as usize % TIMES] = now_ns;
        let is_key_frame = std::mem::take(&mut self.is_key_frame_wanted);
        let (payload_type, ssrc) = (Self::payload_type(self.kind), self.ssrc);
        let clock_rate = match self.kind {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        };
        let timestamp = (u128::from(now_ns) * clock_rate / 1_000_000_000) as u32;
        let packet = &mut self.kept[number as usize % KEPT];
        packet[0] = 0x80; // RFC 3550 §5.1: version 2
        packet[1] = 0x80 | payload_type; // each packet ends a picture
        packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        if self.kind == MediaKind::Video {
            packet[12..14].copy_from_slice(&[0x90, 0x80]); // X and S; I
            packet[14..16].copy_from_slice(&(0x8000 | number as u16 & 0x7fff).to_be_bytes());
            packet[16] = u8::from(!is_key_frame); // RFC 7741 §4.3: P is 0 on key frames
        }
        packet[NUMBER_AT..FILLING_AT].copy_from_slice(&number.to_be_bytes());
        (number, packet)
    }

    /// The receiver at the other end asks for a picture to begin with.
    pub(super) fn want_key_frame(&mut self) {
        self.key_frame_requests += 1;
        self.is_key_frame_wanted = true;
    }

    /// A packet that was sent before, by its sequence number, if it is still there: its index and bytes.
    pub(super) fn sent_before(&self, seq: u16) -> Option<(u64, &[u8])> {
        let back = u64::from((self.written as u16).wrapping_sub(seq));
        let number = self.written.checked_sub(back)?;
        ((1..=KEPT as u64).contains(&back)).then(|| (number, &self.kept[number as usize % KEPT][..]))
    }

    /// When a packet was sent, in nanoseconds of the monotonic clock. What is too long ago was sent long ago.
    pub(super) fn sent_at(&self, number: u64) -> u64 {
        match self.written.saturating_sub(number) {
            0 => u64::MAX,
            1..=16_384 => self.sent_at[number as usize % TIMES],
            _ => self.sent_at[self.written as usize % TIMES],
        }
    }
}

/// The number in a packet of a source.
pub(super) fn number_of(packet: &[u8]) -> Option<u64> {
    let filling = packet.get(FILLING_AT..)?;
    let number = packet.get(NUMBER_AT..FILLING_AT)?.try_into().ok()?;
    filling
        .iter()
        .all(|byte| *byte == FILLING)
        .then(|| u64::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use weir_channel::message::CodecName;
    use weir_worker::rtp::codec::peek;
    use weir_worker::rtp::packet::Header;

    use super::*;

    #[test]
    fn packets_are_numbered_pictures_and_begin_with_a_key_frame() {
        let mut source = Source::new(MediaKind::Video, 7, 200);
        source.set_rate(1_000, 100.0, 0.5);
        assert_eq!(source.due_ns, 5_001_000);
        for expected in 0..2_000_u64 {
            if expected == 1_000 {
                source.want_key_frame();
            }
            let due_ns = source.due_ns;
            let (index, packet) = source.next_packet(due_ns);
            let header = Header::parse(packet).expect("valid RTP");
            let peek = peek(CodecName::Vp8, header.payload(packet));
            assert_eq!((index, header.seq, header.ssrc), (expected, expected as u16, 7));
            assert_eq!(peek.key_frame, expected % 1_000 == 0, "{expected}");
            assert_eq!(
                peek.vp8.and_then(|ids| ids.picture_id).map(|id| u64::from(id.value)),
                Some(expected & 0x7fff)
            );
            assert_eq!(number_of(packet), Some(expected));
        }
        assert_eq!(source.sent_at(0), 5_001_000);
        assert_eq!(source.sent_at(2_000), u64::MAX, "not sent yet");
        assert_eq!(source.sent_before(1_999).map(|(index, _)| index), Some(1_999));
        assert_eq!(source.sent_before(976).map(|(index, _)| index), Some(976));
        assert_eq!(source.sent_before(975), None, "too old");
        assert_eq!(source.sent_before(2_000), None, "not sent yet");
    }

    #[test]
    fn whoever_was_kept_from_sending_does_not_catch_up() {
        let mut source = Source::new(MediaKind::Audio, 7, 100);
        source.set_rate(0, 100.0, 0.0);
        source.next_packet(1_000_000_000);
        assert_eq!(source.due_ns, 1_010_000_000);
    }
}
