//! RTP and RTCP packets, and the payloads of all codecs.

use weir_channel::message::CodecName;
use weir_worker::rtp::codec::vp8::{self, PictureId, Tl0};
use weir_worker::rtp::extension::{Walk, elements, erase, rename};
use weir_worker::rtp::{Header, Kind, Parts, classify, peek, rewrite, rtcp};

/// Any bytes as an RTP packet: all offsets lie within it, and rewriting changes what it should.
pub(crate) fn rtp_packet(data: &[u8]) {
    let kind = classify(data);
    let Ok(header) = Header::parse(data) else {
        return;
    };
    assert_ne!(kind, Kind::Other);
    let payload_end = usize::from(header.payload_start) + usize::from(header.payload_len);
    assert!(header.payload_start >= 12 && payload_end <= data.len());
    assert_eq!(header.payload(data).len(), usize::from(header.payload_len));

    let mut packet = data.to_vec();
    rewrite(&mut packet, 127, 0x1234, 0x5678_9abc, 0xdef0_1234);
    let rewritten = Header {
        payload_type: 127,
        seq: 0x1234,
        timestamp: 0x5678_9abc,
        ssrc: 0xdef0_1234,
        ..header
    };
    assert_eq!(Header::parse(&packet), Ok(rewritten));
    assert_eq!(packet[12..], data[12..]);

    let Some(block) = header.extension else {
        return;
    };
    let (start, end) = (
        usize::from(block.start),
        usize::from(block.start) + usize::from(block.len),
    );
    assert!(end <= usize::from(header.payload_start));
    let mut at = start;
    for element in elements(&packet, block) {
        assert!(usize::from(element.header) >= at);
        at = usize::from(element.value) + usize::from(element.len);
        assert!(at <= end);
    }
    // Every element moves to the next id; what has none becomes padding, and the rest is as it was.
    let renamed: Vec<u8> = elements(&packet, block)
        .map(|element| element.id.wrapping_add(1))
        .collect();
    let mut walk = Walk::through(block);
    while let Some(element) = walk.next(&packet) {
        rename(&mut packet, block.form, element, element.id.wrapping_add(1));
    }
    let expected: Vec<u8> = renamed.into_iter().filter(|id| !matches!(id, 0 | 15)).collect();
    let left = elements(&packet, block).map(|element| element.id);
    assert_eq!(left.filter(|id| *id != 15).collect::<Vec<_>>(), expected);
    let mut walk = Walk::through(block);
    while let Some(element) = walk.next(&packet) {
        erase(&mut packet, element);
    }
    assert_eq!(elements(&packet, block).count(), 0);
    assert_eq!(packet[12..start], data[12..start]);
    assert_eq!(packet[end..], data[end..]);
}

/// Any bytes as an RTCP compound packet: it says no more than fits into it.
pub(crate) fn rtcp(data: &[u8]) {
    let mut told = 0;
    // Whether it is well formed does not matter.
    let _ = rtcp::parse(data, |_| told += 1);
    // The shortest things that can be said: a packet of another type, and a source that leaves.
    assert!(told <= data.len() / 4);
}

/// Any bytes as a payload, of the codec that the first byte chooses: VP8's ids lie within it and can be written.
pub(crate) fn codec_peeks(data: &[u8]) {
    const CODECS: [CodecName; 11] = [
        CodecName::Vp8,
        CodecName::Vp9,
        CodecName::H264,
        CodecName::H265,
        CodecName::Av1,
        CodecName::Opus,
        CodecName::Pcmu,
        CodecName::Pcma,
        CodecName::G722,
        CodecName::OtherVideo,
        CodecName::VideoCompanion,
    ];
    let Some((&choice, payload)) = data.split_first() else {
        return;
    };
    let codec = CODECS[usize::from(choice) % CODECS.len()];
    let peeked = peek(codec, payload);
    assert!(peeked.key_frame || !peeked.parts.contains(Parts::PICTURE));
    let Some(ids) = peeked.vp8 else {
        return;
    };
    assert_eq!(codec, CodecName::Vp8);
    let mut written = payload.to_vec();
    let mut expected = ids;
    if let Some(id) = ids.picture_id {
        vp8::write_picture_id(&mut written[usize::from(id.offset)..], id.wide, 0x2a55);
        let value = if id.wide { 0x2a55 } else { 0x55 };
        expected.picture_id = Some(PictureId { value, ..id });
    }
    if let Some(tl0) = ids.tl0_pic_idx {
        written[usize::from(tl0.offset)] = 0xa5;
        expected.tl0_pic_idx = Some(Tl0 { value: 0xa5, ..tl0 });
    }
    let again = peek(codec, &written);
    assert_eq!((again.parts, again.vp8), (peeked.parts, Some(expected)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_packets() {
        rtp_packet(&[]);
        rtp_packet(&[0x80; 11]);
        rtp_packet(&[0x80; 12]);
        rtp_packet(&[0xbf; 255]);
        let mut packet = vec![0xb1, 0xe0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
        for (profile, elements) in [
            ([0xbe, 0xde], [0x10, 1, 0xe1, 2, 3, 0, 0xf0, 4]),
            ([0x10, 0x00], [14, 1, 1, 255, 0, 0, 15, 0]),
            ([0xab, 0xcd], [1; 8]),
        ] {
            packet.truncate(16);
            packet.extend(profile);
            packet.extend([0, 2]);
            packet.extend(elements);
            packet.extend([9, 9, 9, 2]);
            for len in 0..=packet.len() {
                rtp_packet(&packet[..len]);
            }
        }
    }

    #[test]
    fn rtcp_packets() {
        let mut compound = [0; rtcp::PLI_LEN + rtcp::FIR_LEN];
        rtcp::write_pli(&mut compound, 1, 2);
        rtcp::write_fir(&mut compound[rtcp::PLI_LEN..], 1, 2, 3);
        for len in 0..=compound.len() {
            rtcp(&compound[..len]);
        }
        let mut reports = [0; 64];
        let len = rtcp::xr::write_reference_time(&mut reports, 1, 2);
        rtcp::remb::write_remb(&mut reports[len..], 1, 1 << 40, &[3, 4]);
        for len in 0..=reports.len() {
            rtcp(&reports[..len]);
        }
        rtcp(&[0x9f, 203, 0, 31].iter().copied().chain([7; 124]).collect::<Vec<_>>());
        rtcp(&[0x80, 204, 0, 0].repeat(50));
    }

    #[test]
    fn payloads() {
        for codec in 0..9 {
            let payload = [codec, 0x90, 0xf0, 0x91, 0x22, 9, 0x40, 0x10, 0x65, 0x88];
            for len in 0..=payload.len() {
                codec_peeks(&payload[..len]);
            }
        }
    }
}
