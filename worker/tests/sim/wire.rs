//! RTP and RTCP as bytes, written and read without the relay's own parsers: the judge must not repeat the mistakes of the
//! judged.

/// How header extensions are written (RFC 8285 §4.2, §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    OneByte,
    TwoByte,
}

/// Header extension elements: (id, value).
pub type Elements = Vec<(u8, Vec<u8>)>;

/// An RTP packet in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rtp {
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub csrcs: Vec<u32>,
    /// `None`: no extension block at all.
    pub extensions: Option<(Form, Elements)>,
    pub payload: Vec<u8>,
    /// Padding bytes, the count included; 0: none.
    pub padding: u8,
}

impl Rtp {
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![
            0x80 | u8::from(self.padding > 0) << 5
                | u8::from(self.extensions.is_some()) << 4
                | self.csrcs.len() as u8 & 15,
            u8::from(self.marker) << 7 | self.payload_type,
        ];
        out.extend(self.seq.to_be_bytes());
        out.extend(self.timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        for csrc in &self.csrcs {
            out.extend(csrc.to_be_bytes());
        }
        if let Some((form, elements)) = &self.extensions {
            let mut block = Vec::new();
            for (id, value) in elements {
                match form {
                    Form::OneByte => block.push(id << 4 | (value.len() as u8 - 1)),
                    Form::TwoByte => block.extend([*id, value.len() as u8]),
                }
                block.extend(value);
            }
            block.resize(block.len().next_multiple_of(4), 0);
            out.extend(match form {
                Form::OneByte => [0xbe, 0xde],
                Form::TwoByte => [0x10, 0x00],
            });
            out.extend((block.len() as u16 / 4).to_be_bytes());
            out.extend(block);
        }
        out.extend(&self.payload);
        if self.padding > 0 {
            out.resize(out.len() + usize::from(self.padding), 0);
            *out.last_mut().expect("padding was added") = self.padding;
        }
        out
    }

    /// Reads a packet that is known to be well formed; panics on any other.
    pub fn read(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 12 && bytes[0] >> 6 == 2, "no RTP packet: {bytes:02x?}");
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let csrcs: Vec<u32> = (0..usize::from(bytes[0] & 15))
            .map(|index| word(12 + 4 * index))
            .collect();
        let mut at = 12 + 4 * csrcs.len();
        let mut extensions = None;
        if bytes[0] & 0x10 != 0 {
            let profile = word(at) >> 16;
            let end = at + 4 + 4 * (word(at) & 0xffff) as usize;
            let form = if profile == 0xbede {
                Form::OneByte
            } else {
                Form::TwoByte
            };
            extensions = Some((form, read_elements(form, &bytes[at + 4..end])));
            at = end;
        }
        let padding = if bytes[0] & 0x20 != 0 {
            bytes[bytes.len() - 1]
        } else {
            0
        };
        Self {
            marker: bytes[1] & 0x80 != 0,
            payload_type: bytes[1] & 0x7f,
            seq: (word(0) & 0xffff) as u16,
            timestamp: word(4),
            ssrc: word(8),
            csrcs,
            extensions,
            payload: bytes[at..bytes.len() - usize::from(padding)].to_vec(),
            padding,
        }
    }

    /// The value of an extension element.
    pub fn extension(&self, id: u8) -> Option<&[u8]> {
        let (_, elements) = self.extensions.as_ref()?;
        let (_, value) = elements.iter().find(|element| element.0 == id)?;
        Some(value)
    }
}

fn read_elements(form: Form, mut block: &[u8]) -> Elements {
    let mut elements = Vec::new();
    while let [first, rest @ ..] = block {
        if *first == 0 {
            block = rest;
            continue;
        }
        let (id, len, rest) = match form {
            Form::OneByte => (first >> 4, usize::from(first & 15) + 1, rest),
            Form::TwoByte => (*first, usize::from(rest[0]), &rest[1..]),
        };
        elements.push((id, rest[..len].to_vec()));
        block = &rest[len..];
    }
    elements
}

/// A VP8 payload descriptor's counters (RFC 7741 §4.2): (picture id and its bits, TL0PICIDX).
pub fn vp8_ids(payload: &[u8]) -> (Option<(u16, u32)>, Option<u8>) {
    let (mut picture_id, mut tl0) = (None, None);
    if payload[0] & 0x80 != 0 {
        let flags = payload[1];
        let mut at = 2;
        if flags & 0x80 != 0 {
            if payload[at] & 0x80 != 0 {
                picture_id = Some((u16::from_be_bytes([payload[at] & 0x7f, payload[at + 1]]), 15));
                at += 2;
            } else {
                picture_id = Some((u16::from(payload[at]), 7));
                at += 1;
            }
        }
        if flags & 0x40 != 0 {
            tl0 = Some(payload[at]);
        }
    }
    (picture_id, tl0)
}

/// A picture loss indication, alone (RFC 5506 lets it be).
pub fn pli(sender: u32, media: u32) -> Vec<u8> {
    let mut out = vec![0x81, 206, 0, 2];
    out.extend(sender.to_be_bytes());
    out.extend(media.to_be_bytes());
    out
}

/// A full intra request for each of `entries`: (SSRC, command number). The media SSRC of the header is 0, as RFC 5104
/// §4.3.1.2 wants it.
pub fn fir(sender: u32, entries: &[(u32, u8)]) -> Vec<u8> {
    let mut out = vec![0x84, 206, 0, 2 + 2 * entries.len() as u8];
    out.extend(sender.to_be_bytes());
    out.extend([0; 4]);
    for (ssrc, seq) in entries {
        out.extend(ssrc.to_be_bytes());
        out.extend([*seq, 0, 0, 0]);
    }
    out
}

/// A sender report without report blocks.
pub fn sender_report(ssrc: u32, ntp: u64, rtp: u32) -> Vec<u8> {
    let mut out = vec![0x80, 200, 0, 6];
    out.extend(ssrc.to_be_bytes());
    out.extend(ntp.to_be_bytes());
    out.extend(rtp.to_be_bytes());
    out.extend([0; 8]);
    out
}

/// A receiver report without report blocks.
pub fn receiver_report(ssrc: u32) -> Vec<u8> {
    let mut out = vec![0x80, 201, 0, 1];
    out.extend(ssrc.to_be_bytes());
    out
}

/// A generic negative acknowledgement for the packets with these numbers, which ascend.
pub fn nack(sender: u32, media: u32, seqs: &[u16]) -> Vec<u8> {
    let mut pairs: Vec<(u16, u16)> = Vec::new();
    for seq in seqs {
        match pairs.last_mut().map(|(pid, blp)| (seq.wrapping_sub(*pid), blp)) {
            Some((distance @ 1..=16, blp)) => *blp |= 1 << (distance - 1),
            _ => pairs.push((*seq, 0)),
        }
    }
    let mut out = vec![0x81, 205];
    out.extend((2 + pairs.len() as u16).to_be_bytes());
    out.extend(sender.to_be_bytes());
    out.extend(media.to_be_bytes());
    for (pid, blp) in pairs {
        out.extend(pid.to_be_bytes());
        out.extend(blp.to_be_bytes());
    }
    out
}

/// What a compound packet says is missing: (SSRC, sequence number).
pub fn nacked(compound: &[u8]) -> Vec<(u32, u16)> {
    let mut missing = Vec::new();
    let mut rest = compound;
    while !rest.is_empty() {
        let len = 4 * (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1);
        let (packet, after) = rest.split_at(len);
        rest = after;
        if (packet[1], packet[0] & 31) != (205, 1) {
            continue;
        }
        let media = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        for pair in packet[12..].chunks(4) {
            let (pid, blp) = (
                u16::from_be_bytes([pair[0], pair[1]]),
                u16::from_be_bytes([pair[2], pair[3]]),
            );
            missing.push((media, pid));
            missing.extend(
                (0..16)
                    .filter(|bit| blp >> bit & 1 == 1)
                    .map(|bit| (media, pid.wrapping_add(bit + 1))),
            );
        }
    }
    missing
}

/// A retransmission (RFC 4588) of a packet, which keeps its own header but for what is given here.
pub fn rtx(original: &[u8], ssrc: u32, payload_type: u8, seq: u16) -> Vec<u8> {
    let read = Rtp::read(original);
    Rtp {
        ssrc,
        payload_type,
        seq,
        payload: [&read.seq.to_be_bytes()[..], &read.payload].concat(),
        padding: 0,
        ..read
    }
    .write()
}

/// The value of abs-send-time at this moment: seconds in 6.18 fixed point.
pub fn send_time(now: weir_worker::time::Time) -> [u8; 3] {
    let value = (u128::from(now.0) << 18) / 1_000_000_000;
    [(value >> 16) as u8, (value >> 8) as u8, value as u8]
}

/// How a key frame was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    Pli,
    /// With its command number.
    Fir(u8),
}

/// The packets of a compound packet. Panics on what is neither a compound packet nor feedback of reduced size.
pub fn rtcp_packets(compound: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    let mut rest = compound;
    while !rest.is_empty() {
        assert_eq!(rest[0] >> 6, 2, "RTCP version");
        let len = 4 * (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1);
        let (packet, after) = rest.split_at(len);
        packets.push(packet);
        rest = after;
    }
    // RFC 3550 §6.1: a report comes first, and an SDES packet with a CNAME is in it. RFC 5506 §3.4.2: or it is feedback
    // alone.
    let is_feedback = packets.iter().all(|packet| matches!(packet[1], 205 | 206));
    if !is_feedback {
        assert!(
            matches!(compound[1], 200 | 201),
            "a compound packet begins with a report"
        );
        let is_named = packets.iter().any(|packet| packet[1] == 202);
        assert!(is_named, "a compound packet has an SDES packet");
    }
    assert!(compound.len() <= 1_200, "{} bytes", compound.len());
    packets
}

/// The key frame requests in a compound packet, as (SSRC asked, means).
pub fn key_frame_requests(compound: &[u8]) -> Vec<(u32, Means)> {
    let mut asked = Vec::new();
    for packet in rtcp_packets(compound) {
        let word = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        match (packet[1], packet[0] & 31) {
            (206, 1) => asked.push((word(8), Means::Pli)),
            (206, 4) => {
                for entry in (12..packet.len()).step_by(8) {
                    asked.push((word(entry), Means::Fir(packet[entry + 4])));
                }
            }
            _ => {}
        }
    }
    asked
}
