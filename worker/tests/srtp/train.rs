//! Trains: protected on their way into the consumer's buffer, they are trains again, and the packets that they were.

use proptest::prelude::*;
use weir_worker::webrtc::srtp::{Profile, ProtectError, ProtectedTrain, Repeats};

use crate::packets::{SSRC, Shape, any_profile, inbound, outbound, pair, protect, room_for, rtp};

proptest! {
    /// The same bytes, whether protected one by one or as a train; and the receiver gets the packets.
    #[test]
    fn a_train_is_its_packets(
        profile in any_profile(),
        shape in Shape::any(),
        first in prop_oneof![0_u64..1_000, 65_500_u64..65_536],
        gaps in prop::collection::vec(1_u64..4, 1..50),
        payload_len in 1_usize..200,
        last_len in 0_usize..200,
    ) {
        let mut index = first;
        let mut packets = vec![];
        for (at, gap) in gaps.iter().enumerate() {
            let len = if at + 1 == gaps.len() { last_len.min(payload_len) } else { payload_len };
            packets.push((index, rtp(SSRC, index, shape, &vec![at as u8; len])));
            index += gap;
        }
        let segment = rtp(SSRC, 0, shape, &vec![0; payload_len]).len();
        let train: Vec<u8> = packets.iter().flat_map(|(_, packet)| packet.clone()).collect();

        let (mut one_by_one, stream, mut receiver) = pair(profile);
        let expected: Vec<Vec<u8>> = packets
            .iter()
            .map(|(index, packet)| protect(&mut one_by_one, stream, *index, packet))
            .collect();

        let (mut at_once, stream, _) = pair(profile);
        let mut room = [room_for(&train, segment, profile), vec![0xee; 5]].concat();
        let protected = at_once.protect_train(stream, first, &train, segment, &mut room);
        let bytes = room.len() - 5;
        prop_assert_eq!(protected, ProtectedTrain { packets: packets.len(), bytes, refused: None });
        prop_assert_eq!(&room[..bytes], &expected.concat()[..]);
        prop_assert_eq!(&room[bytes..], &[0xee; 5][..]);

        for (packet, (index, plain)) in room[..bytes].chunks_mut(segment + profile.rtp_overhead()).zip(&packets) {
            let unprotected = receiver.unprotect_rtp(packet).unwrap();
            prop_assert_eq!(unprotected.index, *index);
            prop_assert_eq!(&packet[..unprotected.len], &plain[..]);
        }
    }

    /// Any bytes, cut anywhere, into any room.
    #[test]
    fn no_train_panics(
        profile in any_profile(),
        first in prop_oneof![any::<u64>(), 0_u64..100_000],
        train in prop::collection::vec(any::<u8>(), 0..300),
        segment in 0_usize..100,
        room in 0_usize..400,
    ) {
        let (mut outbound, stream, _) = pair(profile);
        let protected = outbound.protect_train(stream, first, &train, segment, &mut vec![0; room]);
        prop_assert!(protected.bytes <= room);
    }
}

#[test]
fn a_train_ends_before_what_is_refused() {
    for profile in Profile::ALL {
        let (mut sender, stream, _) = pair(profile);
        let packets: Vec<_> = (10..15)
            .map(|index| rtp(SSRC, index, Shape::PLAIN, b"payload"))
            .collect();
        let (train, segment) = (packets.concat(), packets[0].len());
        protect(&mut sender, stream, 12, &packets[2]);
        let mut room = room_for(&train, segment, profile);
        let two = ProtectedTrain {
            packets: 2,
            bytes: 2 * (segment + profile.rtp_overhead()),
            refused: Some(ProtectError::IndexReused),
        };
        assert_eq!(sender.protect_train(stream, 10, &train, segment, &mut room), two);
        let rest = sender.protect_train(stream, 13, &train[3 * segment..], segment, &mut room[two.bytes..]);
        assert_eq!((rest.packets, rest.refused), (2, None));
        let mut receiver = inbound(profile);
        for packet in room[..two.bytes + rest.bytes].chunks_mut(segment + profile.rtp_overhead()) {
            assert!(receiver.unprotect_rtp(packet).is_ok());
        }

        let short = room.len() - 1;
        let (mut sender, stream, _) = pair(profile);
        let protected = sender.protect_train(stream, 10, &train, segment, &mut room[..short]);
        assert_eq!(
            (protected.packets, protected.refused),
            (4, Some(ProtectError::BufferTooSmall))
        );

        let mut other = outbound(profile);
        let foreign = other.add_stream(1, Repeats::Refused).unwrap();
        other.remove_stream(foreign);
        let protected = other.protect_train(foreign, 10, &train, segment, &mut room);
        assert_eq!(
            (protected.packets, protected.refused),
            (0, Some(ProtectError::UnknownStream))
        );
    }
}
