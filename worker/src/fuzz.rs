//! Bodies of the fuzz targets. They live here so that they keep compiling, and so that ordinary tests run them too.

mod dtls;
mod relay_model;
mod webrtc;

use weir_channel::message::CodecName;

use crate::rtp::codec::vp8::{self, PictureId, Tl0};
use crate::rtp::extension::{Walk, elements, erase, rename};
use crate::rtp::{Header, Kind, Parts, classify, peek, rewrite, rtcp};
use crate::webrtc::srtp::{Inbound, MasterKey, Outbound, Profile, Repeats};

pub use dtls::dtls_handshake;
pub use webrtc::{stun, webrtc_transport};

/// Any bytes as an RTP packet: all offsets lie within it, and rewriting changes what it should.
pub fn rtp_packet(data: &[u8]) {
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
pub fn rtcp(data: &[u8]) {
    let mut told = 0;
    // Whether it is well formed does not matter.
    let _ = rtcp::parse(data, |_| told += 1);
    // The shortest things that can be said: a packet of another type, and a source that leaves.
    assert!(told <= data.len() / 4);
}

/// Any bytes as a payload, of the codec that the first byte chooses: VP8's ids lie within it and can be written.
pub fn codec_peeks(data: &[u8]) {
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
        vp8::write_tl0_pic_idx(&mut written[usize::from(tl0.offset)..], 0xa5);
        expected.tl0_pic_idx = Some(Tl0 { value: 0xa5, ..tl0 });
    }
    let again = peek(codec, &written);
    assert_eq!((again.parts, again.vp8), (peeked.parts, Some(expected)));
}

/// Any bytes as a datagram of a peer with keys, who protects it or not, and of somebody on the way who damages it: it is
/// unprotected once, as it was, and only if nobody did. The first byte chooses profile and protocol, the next two the damage.
pub fn srtp(data: &[u8]) {
    let Some((&[choice, place, damage], packet)) = data.split_first_chunk() else {
        return;
    };
    let profile = Profile::ALL[usize::from(choice) % Profile::ALL.len()];
    let control = choice & 0x10 != 0;
    let (key, salt) = ([7; 32], [9; 14]);
    let Some(key) = MasterKey::new(profile, &key[..profile.key_len()], &salt[..profile.salt_len()]) else {
        return;
    };
    let mut inbound = Inbound::new(&key, 2);
    let unprotect = |inbound: &mut Inbound, packet: &mut [u8]| {
        if control {
            inbound.unprotect_rtcp(packet)
        } else {
            inbound.unprotect_rtp(packet)
        }
    };
    // As it is. Nobody can guess a tag.
    assert!(unprotect(&mut inbound, &mut packet.to_vec()).is_err());

    let mut outbound = Outbound::new(&key);
    let mut room = packet.to_vec();
    room.resize(packet.len() + Profile::RTCP_OVERHEAD_MAX, 0);
    let protected = if control {
        outbound.protect_rtcp(&mut room, packet.len()).ok()
    } else {
        let number = |at: usize| {
            packet
                .get(at..at + 2)
                .map_or(0, |number| u16::from_be_bytes([number[0], number[1]]))
        };
        let ssrc = u32::from(number(8)) << 16 | u32::from(number(10));
        let Ok(stream) = outbound.add_stream(ssrc, Repeats::Refused) else {
            return;
        };
        let protected = outbound.protect_train(stream, u64::from(number(2)), packet, packet.len(), &mut room);
        (protected.packets == 1).then_some(protected.bytes)
    };
    let Some(len) = protected else {
        return;
    };
    room.truncate(len);
    let mut damaged = room.clone();
    damaged[usize::from(place) % len] ^= damage;
    let unprotected = unprotect(&mut inbound, &mut damaged);
    assert_eq!(unprotected.is_ok(), damage == 0);
    if damage != 0 {
        assert!(unprotect(&mut inbound, &mut room.clone()).is_ok());
    } else {
        assert_eq!(damaged[..packet.len()], *packet);
    }
    assert!(unprotect(&mut inbound, &mut room).is_err(), "it was unprotected twice");
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
    fn protected_packets() {
        let packet = [
            0xb1, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0xbe, 0xde, 0, 1, 0x10, 1, 0, 0, 8, 9, 9, 2,
        ];
        for choice in (0..4).chain(16..20) {
            for damage in [0, 1, 0x80] {
                for len in 0..=packet.len() {
                    let place = len as u8 * 2;
                    srtp(&[&[choice, place, damage], &packet[..len]].concat());
                }
            }
        }
        srtp(&[1, 2]);
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

/// One step of [`relay_ops`]. Numbers are taken modulo what exists, so that most steps mean something.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum Operation {
    /// A frame of a producer's stream: that many packets of one size, the first of a key frame or not.
    Frame {
        stream: u8,
        packets: u8,
        bytes: u8,
        key_frame: bool,
        seq_step: u16,
    },
    /// A packet that was not made by a sender of ours, from the remote or from a stranger.
    Noise {
        transport: u8,
        first: [u8; 16],
        foreign: bool,
    },
    /// A picture loss indication for a consumer.
    Pli { consumer: u8 },
    /// Time goes by, in milliseconds.
    Wait { ms: u16 },
    /// A consumer is made.
    Consume {
        transport: u8,
        producer: u8,
        profile: u8,
        paused: bool,
    },
    /// Pauses or resumes a consumer.
    PauseConsumer { consumer: u8, pause: bool },
    /// Pauses or resumes a producer.
    PauseProducer { producer: u8, pause: bool },
    /// A consumer prefers a profile.
    Prefer { consumer: u8, profile: u8 },
    /// A producer prefers a profile.
    PreferProducer { producer: u8, profile: u8 },
    /// Closes a consumer.
    CloseConsumer { consumer: u8 },
    /// Closes a producer and makes it anew.
    ReplaceProducer { producer: u8 },
    /// A negative acknowledgement for a consumer: so far back from the last packet it was sent.
    Nack { consumer: u8, back: u16, blp: u16 },
    /// A retransmission of a stream's packet, so far back from its last one.
    Rtx { stream: u8, back: u16, bytes: u8 },
    /// The sink takes no more than so many packets of each train.
    Jam { packets: u8 },
}

/// A list of operations on a relay with two producers. After each, every consumer's counters add up to what its producer
/// got, and nothing was sent twice under one sequence number.
pub fn relay_ops(operations: &[Operation]) {
    drop(relay_model::Model::run(operations));
}
