//! Protected packets.

use weir_worker::webrtc::srtp::{Inbound, MasterKey, Outbound, Profile, Repeats};

/// Any bytes as a datagram of a peer with keys, who protects it or not, and of somebody on the way who damages it: it is
/// unprotected once, as it was, and only if nobody did. The first byte chooses profile and protocol, the next two the damage.
pub(crate) fn srtp(data: &[u8]) {
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
}
