//! Plain packets of all shapes, and a pair of contexts that share a key.

use proptest::prelude::*;
use weir_worker::webrtc::srtp::{
    Inbound, KeyingMaterial, MasterKey, Outbound, Profile, ProtectError, Repeats, Role, StreamKey,
};

pub(crate) const SSRC: u32 = 0x0a0b_0c0d;

/// An RTP packet of payload type 96.
pub(crate) fn rtp(ssrc: u32, index: u64, shape: Shape, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80 | shape.csrcs, 96];
    packet.extend((index as u16).to_be_bytes());
    packet.extend((index as u32).wrapping_mul(3_000).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    for csrc in 0..shape.csrcs {
        packet.extend([csrc; 4]);
    }
    if let Some(words) = shape.extension_words {
        packet[0] |= 0x10;
        packet.extend([0xbe, 0xde, 0, words]);
        // Elements of id 1 and three bytes each.
        for word in 0..words {
            packet.extend([0x12, word, index as u8, 7]);
        }
    }
    packet.extend(payload);
    packet
}

/// What is in front of the payload, apart from the fixed header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) csrcs: u8,
    pub(crate) extension_words: Option<u8>,
}

impl Shape {
    pub(crate) const PLAIN: Self = Self {
        csrcs: 0,
        extension_words: None,
    };

    pub(crate) fn any() -> impl Strategy<Value = Self> {
        (0_u8..=15, prop::option::of(1_u8..4)).prop_map(|(csrcs, extension_words)| Self {
            csrcs: csrcs.saturating_sub(10),
            extension_words,
        })
    }
}

/// A sender report of `ssrc` and as many words of other reports.
pub(crate) fn rtcp(ssrc: u32, words: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([5; 20]);
    packet.extend([0x80, 204, 0, words + 2]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(*b"name");
    packet.extend([words; 4].repeat(usize::from(words)));
    packet
}

pub(crate) fn any_profile() -> impl Strategy<Value = Profile> {
    prop::sample::select(Profile::ALL.to_vec())
}

pub(crate) fn master(profile: Profile, seed: u8) -> MasterKey {
    let byte = |at: usize| (at as u8).wrapping_mul(37) ^ seed;
    let key: Vec<u8> = (0..profile.key_len()).map(byte).collect();
    let salt: Vec<u8> = (100..100 + profile.salt_len()).map(byte).collect();
    MasterKey::new(profile, &key, &salt).unwrap()
}

pub(crate) fn inbound(profile: Profile) -> Inbound {
    Inbound::new(&master(profile, 1), 8)
}

pub(crate) fn outbound(profile: Profile) -> Outbound {
    Outbound::new(&master(profile, 1))
}

/// A sender with one stream, and its receiver.
pub(crate) fn pair(profile: Profile) -> (Outbound, StreamKey, Inbound) {
    let mut outbound = outbound(profile);
    let stream = outbound.add_stream(SSRC, Repeats::Refused).unwrap();
    (outbound, stream, inbound(profile))
}

/// The protected form of a packet, or why there is none.
pub(crate) fn try_protect(
    outbound: &mut Outbound,
    stream: StreamKey,
    index: u64,
    packet: &[u8],
) -> Result<Vec<u8>, ProtectError> {
    let mut room = vec![0xee; packet.len() + Profile::RTP_OVERHEAD_MAX];
    let protected = outbound.protect_train(stream, index, packet, packet.len(), &mut room);
    room.truncate(protected.bytes);
    protected.refused.map_or(Ok(room), Err)
}

/// The protected form of a packet.
pub(crate) fn protect(outbound: &mut Outbound, stream: StreamKey, index: u64, packet: &[u8]) -> Vec<u8> {
    let protected = try_protect(outbound, stream, index, packet).unwrap();
    assert_eq!(protected.len(), packet.len() + outbound.profile().rtp_overhead());
    protected
}

/// Space for the protected form of a train.
pub(crate) fn room_for(train: &[u8], segment: usize, profile: Profile) -> Vec<u8> {
    vec![0xee; train.len() + train.chunks(segment).count() * profile.rtp_overhead()]
}

pub(crate) fn protect_rtcp(outbound: &mut Outbound, packet: &[u8]) -> Vec<u8> {
    let mut room = packet.to_vec();
    room.resize(packet.len() + Profile::RTCP_OVERHEAD_MAX, 0xee);
    let len = outbound.protect_rtcp(&mut room, packet.len()).unwrap();
    assert_eq!(len, packet.len() + outbound.profile().rtcp_overhead());
    room.truncate(len);
    room
}

#[test]
fn both_ends_of_a_handshake_understand_each_other_and_nobody_else() {
    for profile in Profile::ALL {
        let exported: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
        let client = KeyingMaterial::split(profile, &exported, Role::Client).unwrap();
        let server = KeyingMaterial::split(profile, &exported, Role::Server).unwrap();
        for (sender, receiver, itself) in [
            (&client.outbound, &server.inbound, &client.inbound),
            (&server.outbound, &client.inbound, &server.inbound),
        ] {
            let mut outbound = Outbound::new(sender);
            let stream = outbound.add_stream(SSRC, Repeats::Refused).unwrap();
            let packet = rtp(SSRC, 7, Shape::PLAIN, b"hello");
            let protected = protect(&mut outbound, stream, 7, &packet);
            let mut unprotected = protected.clone();
            let len = Inbound::new(receiver, 1).unprotect_rtp(&mut unprotected).unwrap().len;
            assert_eq!(unprotected[..len], packet);
            assert!(Inbound::new(itself, 1).unprotect_rtp(&mut protected.clone()).is_err());
        }
    }
}
