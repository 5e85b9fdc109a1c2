//! What is taken and what is not: forgeries, replays, old packets, strangers, wraps.

use proptest::prelude::*;
use weir_worker::webrtc::srtp::{
    INDEX_MAX, Inbound, Outbound, Profile, Repeats, UnprotectError, Unprotected, WINDOW, WINDOWS_MAX,
};

use crate::packets::{SSRC, Shape, any_profile, inbound, master, outbound, pair, protect, protect_rtcp, rtcp, rtp};

const CYCLE: u64 = 1 << 16;

fn unprotect(inbound: &mut Inbound, protected: &[u8]) -> Result<Unprotected, UnprotectError> {
    inbound.unprotect_rtp(&mut protected.to_vec())
}

/// The protected packets of these indices, all protected by one sender.
fn protected(profile: Profile, indices: &[u64]) -> (Vec<Vec<u8>>, Inbound) {
    let (mut outbound, stream, inbound) = pair(profile);
    let packets = indices
        .iter()
        .map(|index| {
            protect(
                &mut outbound,
                stream,
                *index,
                &rtp(SSRC, *index, Shape::PLAIN, b"payload"),
            )
        })
        .collect();
    (packets, inbound)
}

#[test]
fn every_flipped_bit_is_refused() {
    for profile in Profile::ALL {
        let (mut outbound, stream, mut inbound) = pair(profile);
        let shape = Shape {
            csrcs: 1,
            extension_words: Some(2),
        };
        let first = protect(&mut outbound, stream, 9, &rtp(SSRC, 9, shape, b"before"));
        unprotect(&mut inbound, &first).unwrap();
        let packet = rtp(SSRC, 10, shape, b"Gallia est omnis");
        let protected = protect(&mut outbound, stream, 10, &packet);
        for bit in 0..8 * protected.len() {
            let mut forged = protected.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(inbound.unprotect_rtp(&mut forged).is_err(), "{profile:?}, bit {bit}");
        }
        // And nothing of it stays behind.
        let mut unprotected = protected.clone();
        let len = inbound.unprotect_rtp(&mut unprotected).unwrap().len;
        assert_eq!(unprotected[..len], packet);
        assert_eq!(inbound.rtp_positions().collect::<Vec<_>>(), [(SSRC, 11)]);
    }
}

#[test]
fn every_flipped_bit_of_a_control_packet_is_refused() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = (outbound(profile), inbound(profile));
        let packet = rtcp(SSRC, 3);
        let protected = protect_rtcp(&mut outbound, &packet);
        for bit in 0..8 * protected.len() {
            let mut forged = protected.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(inbound.unprotect_rtcp(&mut forged).is_err(), "{profile:?}, bit {bit}");
        }
        assert_eq!(inbound.rtcp_positions().count(), 0);
        let mut unprotected = protected.clone();
        let len = inbound.unprotect_rtcp(&mut unprotected).unwrap().len;
        assert_eq!(unprotected[..len], packet);
    }
}

#[test]
fn what_is_cut_or_lengthened_is_refused() {
    for profile in Profile::ALL {
        let (packets, mut inbound) = protected(profile, &[5]);
        let whole = &packets[0];
        for len in 0..whole.len() {
            assert!(
                unprotect(&mut inbound, &whole[..len]).is_err(),
                "{profile:?}, {len} bytes"
            );
        }
        assert!(unprotect(&mut inbound, &[&whole[..], &[0]].concat()).is_err());
        assert!(unprotect(&mut inbound, whole).is_ok());

        let whole = protect_rtcp(&mut outbound(profile), &rtcp(SSRC, 1));
        for len in 0..whole.len() {
            let error = inbound.unprotect_rtcp(&mut whole[..len].to_vec());
            assert!(error.is_err(), "{profile:?}, {len} bytes of SRTCP");
        }
        assert!(inbound.unprotect_rtcp(&mut whole.clone()).is_ok());
    }
}

#[test]
fn errors_say_what_was_wrong() {
    let (packets, mut inbound) = protected(Profile::AeadAes128Gcm, &[5, 5 + WINDOW]);
    assert_eq!(
        unprotect(&mut inbound, &packets[0][..27]),
        Err(UnprotectError::TooShort)
    );
    assert_eq!(unprotect(&mut inbound, &[]), Err(UnprotectError::Malformed));
    assert_eq!(unprotect(&mut inbound, &[0x40; 60]), Err(UnprotectError::Malformed));
    assert!(unprotect(&mut inbound, &packets[0]).is_ok());
    assert_eq!(unprotect(&mut inbound, &packets[0]), Err(UnprotectError::Replayed));
    assert!(unprotect(&mut inbound, &packets[1]).is_ok());
    assert_eq!(unprotect(&mut inbound, &packets[0]), Err(UnprotectError::TooOld));
    let (others, _) = protected(Profile::AeadAes256Gcm, &[6 + WINDOW]);
    assert_eq!(unprotect(&mut inbound, &others[0]), Err(UnprotectError::NotAuthentic));
    assert_eq!(
        inbound.unprotect_rtcp(&mut [0x80, 200, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]),
        Err(UnprotectError::TooShort)
    );
}

#[test]
fn every_packet_is_taken_once_in_any_order_within_the_window() {
    for profile in Profile::ALL {
        let newest = WINDOW + 9;
        let indices: Vec<u64> = (0..=newest).collect();
        let (packets, mut inbound) = protected(profile, &indices);
        assert!(unprotect(&mut inbound, &packets[newest as usize]).is_ok());
        for index in (0..newest).rev() {
            let first = unprotect(&mut inbound, &packets[index as usize]);
            assert_eq!(first.is_ok(), index > newest - WINDOW, "{profile:?}, {index}");
        }
        for packet in &packets {
            assert!(matches!(
                unprotect(&mut inbound, packet),
                Err(UnprotectError::Replayed | UnprotectError::TooOld)
            ));
        }
    }
}

#[test]
fn control_packets_are_taken_once_too() {
    for profile in Profile::ALL {
        let (mut outbound, mut inbound) = (outbound(profile), inbound(profile));
        let packets: Vec<_> = (0..200).map(|_| protect_rtcp(&mut outbound, &rtcp(SSRC, 0))).collect();
        for at in [0, 1, 5, 3, 150, 100, 149, 23] {
            assert_eq!(
                inbound
                    .unprotect_rtcp(&mut packets[at].clone())
                    .map(|unprotected| unprotected.index),
                Ok(at as u64)
            );
        }
        for at in [0, 1, 3, 5, 150, 100, 149, 23, 22, 2] {
            assert!(inbound.unprotect_rtcp(&mut packets[at].clone()).is_err(), "{at}");
        }
        // Another sender of the same index is another matter.
        assert!(
            inbound
                .unprotect_rtcp(&mut protect_rtcp(&mut outbound, &rtcp(SSRC + 1, 0)))
                .is_ok()
        );
    }
}

#[test]
fn the_rollover_counter_follows_over_wraps_losses_and_late_packets() {
    let order = [
        65_530,
        65_535,
        // Late, from before the wrap that has not come yet; then the wrap, with loss.
        65_533,
        CYCLE + 3,
        // Late, from before the wrap.
        65_534,
        CYCLE,
        // Losses of almost half a cycle, over wraps and between them.
        CYCLE + 32_767,
        2 * CYCLE - 2,
        2 * CYCLE + 32_765,
        2 * CYCLE + 65_532,
        3 * CYCLE + 32_763,
        3 * CYCLE + 65_530,
        4 * CYCLE + 10,
        4 * CYCLE + 3,
    ];
    for profile in Profile::ALL {
        let mut by_number = order.to_vec();
        by_number.sort_unstable();
        let (packets, mut inbound) = protected(profile, &by_number);
        for index in order {
            let packet = &packets[by_number.binary_search(&index).unwrap()];
            assert_eq!(
                unprotect(&mut inbound, packet).map(|unprotected| unprotected.index),
                Ok(index),
                "{profile:?}"
            );
        }
        let newest = 4 * CYCLE + 10;
        assert_eq!(inbound.rtp_positions().collect::<Vec<_>>(), [(SSRC, newest + 1)]);
    }
}

#[test]
fn a_loss_of_more_than_half_a_cycle_is_not_guessed_and_does_no_harm() {
    let (packets, mut inbound) = protected(Profile::AeadAes128Gcm, &[40_000, 40_001, CYCLE + 7_233]);
    assert!(unprotect(&mut inbound, &packets[0]).is_ok());
    // 32,769 ahead, over the wrap, is 32,767 behind.
    assert_eq!(unprotect(&mut inbound, &packets[2]), Err(UnprotectError::TooOld));
    assert!(unprotect(&mut inbound, &packets[1]).is_ok());
}

#[test]
fn a_forgery_does_not_move_the_rollover_counter() {
    let (packets, mut inbound) = protected(Profile::Aes128CmSha1_32, &[65_000, 65_001]);
    assert!(unprotect(&mut inbound, &packets[0]).is_ok());
    for seq in [0_u16, 100, 20_000] {
        let mut forged = packets[1].clone();
        forged[2..4].copy_from_slice(&seq.to_be_bytes());
        assert_eq!(unprotect(&mut inbound, &forged), Err(UnprotectError::NotAuthentic));
    }
    assert!(unprotect(&mut inbound, &packets[1]).is_ok());
}

#[test]
fn only_authentic_packets_take_memory_and_only_up_to_the_limit() {
    let profile = Profile::AeadAes128Gcm;
    let mut outbound = outbound(profile);
    let mut inbound = Inbound::new(&master(profile, 1), 3);
    let packet = |outbound: &mut Outbound, ssrc| {
        let stream = outbound.add_stream(ssrc, Repeats::Refused).unwrap();
        protect(outbound, stream, 1, &rtp(ssrc, 1, Shape::PLAIN, b"x"))
    };
    for ssrc in 100..200 {
        let mut forged = packet(&mut outbound, ssrc);
        forged[12] ^= 1;
        assert_eq!(unprotect(&mut inbound, &forged), Err(UnprotectError::NotAuthentic));
    }
    assert_eq!(inbound.rtp_positions().count(), 0);
    for ssrc in 0..3 {
        assert!(unprotect(&mut inbound, &packet(&mut outbound, ssrc)).is_ok());
    }
    let fourth = packet(&mut outbound, 3);
    let refused = UnprotectError::TooManyStreams;
    assert_eq!(unprotect(&mut inbound, &fourth), Err(refused));
    assert_eq!(inbound.resume_rtp(3, 1), Err(refused));
    // Not even when another one is retired: its index is kept.
    inbound.retire(1);
    assert_eq!(unprotect(&mut inbound, &fourth), Err(refused));
    let positions: Vec<_> = inbound.rtp_positions().collect();
    assert!(
        [0, 1, 2].iter().all(|ssrc| positions.contains(&(*ssrc, 2))),
        "{positions:?}"
    );
}

/// RFC 3711 §3.3.2: what was received, or is so old that nobody knows, is not taken, for as long as the key is.
#[test]
fn what_a_retired_ssrc_has_sent_is_not_taken_again_and_what_it_sends_then_is() {
    for profile in Profile::ALL {
        let indices = [10, 12, 13, 30_000, 60_000, 70_000, 70_002];
        let (packets, mut inbound) = protected(profile, &indices);
        let report = protect_rtcp(&mut outbound(profile), &rtcp(SSRC, 0));
        for packet in &packets[..6] {
            assert!(unprotect(&mut inbound, packet).is_ok());
            inbound.retire(SSRC);
            // Nothing more is known of it, so nothing more is forgotten.
            inbound.retire(SSRC);
            inbound.retire(SSRC + 1);
            for old in packets.iter().take_while(|old| *old != packet).chain([packet]) {
                let refused = unprotect(&mut inbound, old);
                assert!(
                    matches!(
                        refused,
                        Err(UnprotectError::Replayed | UnprotectError::TooOld | UnprotectError::NotAuthentic)
                    ),
                    "{profile:?}: {refused:?}"
                );
            }
        }
        // A replay brings nothing back either: only what is newer does, whatever the cycle it is in.
        assert_eq!(inbound.rtp_positions().collect::<Vec<_>>(), [(SSRC, 70_001)]);
        assert!(unprotect(&mut inbound, &packets[6]).is_ok());
        assert!(matches!(
            unprotect(&mut inbound, &packets[5]),
            Err(UnprotectError::Replayed)
        ));
        assert!(inbound.unprotect_rtcp(&mut report.clone()).is_ok());
        inbound.retire(SSRC);
        assert!(matches!(
            inbound.unprotect_rtcp(&mut report.clone()),
            Err(UnprotectError::Replayed)
        ));
    }
}

/// A camera that is turned on and off all day.
#[test]
fn many_more_ssrcs_than_are_in_use_at_a_time_are_understood_and_none_can_be_played_again() {
    let profile = Profile::AeadAes128Gcm;
    let mut outbound = outbound(profile);
    let mut inbound = Inbound::new(&master(profile, 1), 3 * WINDOWS_MAX);
    let count = 3 * WINDOWS_MAX as u32;
    let packets: Vec<_> = (0..count)
        .map(|ssrc| {
            let stream = outbound.add_stream(ssrc, Repeats::Refused).unwrap();
            [1, 2].map(|index| protect(&mut outbound, stream, index, &rtp(ssrc, index, Shape::PLAIN, b"x")))
        })
        .collect();
    for [first, _] in &packets {
        assert!(unprotect(&mut inbound, first).is_ok());
    }
    let stream = outbound.add_stream(count, Repeats::Refused).unwrap();
    let one_more = protect(&mut outbound, stream, 1, &rtp(count, 1, Shape::PLAIN, b"x"));
    assert!(matches!(
        unprotect(&mut inbound, &one_more),
        Err(UnprotectError::TooManyStreams)
    ));
    for [first, second] in &packets {
        assert!(matches!(unprotect(&mut inbound, first), Err(UnprotectError::Replayed)));
        assert!(unprotect(&mut inbound, second).is_ok());
        assert!(unprotect(&mut inbound, second).is_err());
    }
    assert_eq!(inbound.rtp_positions().count(), count as usize);
}

#[test]
fn a_successor_takes_neither_replays_nor_another_cycle() {
    for profile in Profile::ALL {
        let indices = [5 * CYCLE + 100, 5 * CYCLE + 101, 6 * CYCLE + 5];
        let (packets, _) = protected(profile, &indices);
        let mut successor = inbound(profile);
        // A stranger to the stream takes the rollover counter to be zero.
        assert_eq!(
            unprotect(&mut successor, &packets[0]),
            Err(UnprotectError::NotAuthentic)
        );
        successor.resume_rtp(SSRC, indices[0] + 1).unwrap();
        assert!(matches!(
            unprotect(&mut successor, &packets[0]),
            Err(UnprotectError::Replayed)
        ));
        assert!(unprotect(&mut successor, &packets[1]).is_ok());
        // Resuming never goes back.
        successor.resume_rtp(SSRC, 3).unwrap();
        assert!(matches!(
            unprotect(&mut successor, &packets[1]),
            Err(UnprotectError::Replayed)
        ));

        let mut outbound = outbound(profile);
        let reports: Vec<_> = (0..3).map(|_| protect_rtcp(&mut outbound, &rtcp(SSRC, 0))).collect();
        successor.resume_rtcp(SSRC, 2).unwrap();
        assert!(successor.unprotect_rtcp(&mut reports[1].clone()).is_err());
        assert!(successor.unprotect_rtcp(&mut reports[2].clone()).is_ok());
    }
}

#[test]
fn a_stream_ends_with_its_last_index() {
    let (packets, mut inbound) = protected(Profile::AeadAes128Gcm, &[INDEX_MAX - 1, INDEX_MAX]);
    inbound.resume_rtp(SSRC, INDEX_MAX - 1).unwrap();
    assert!(unprotect(&mut inbound, &packets[0]).is_ok());
    assert!(unprotect(&mut inbound, &packets[1]).is_ok());
    let mut after = packets[1].clone();
    after[2..4].copy_from_slice(&[0, 0]);
    assert_eq!(unprotect(&mut inbound, &after), Err(UnprotectError::Exhausted));
}

proptest! {
    /// Any bytes, as datagrams after some that are right: none panics, none is taken, and none changes anything.
    #[test]
    fn strangers_bytes_are_refused(profile in any_profile(), mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (packets, mut inbound) = protected(profile, &[3, 4]);
        prop_assert!(unprotect(&mut inbound, &packets[0]).is_ok());
        prop_assert!(inbound.unprotect_rtp(&mut bytes.clone()).is_err());
        prop_assert!(inbound.unprotect_rtcp(&mut bytes.clone()).is_err());
        // With a header that is known, so that it gets as far as the cipher.
        for (at, known) in packets[1].iter().take(12).enumerate() {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *known;
            }
        }
        prop_assert!(inbound.unprotect_rtp(&mut bytes.clone()).is_err());
        prop_assert!(unprotect(&mut inbound, &packets[1]).is_ok());
        prop_assert_eq!(inbound.rtp_positions().collect::<Vec<_>>(), vec![(SSRC, 5)]);
        prop_assert_eq!(inbound.rtcp_positions().count(), 0);
    }
}
