//! Which index is protected and which is not: no two packets ever leave under one.

use std::collections::HashMap;

use proptest::prelude::*;
use weir_worker::webrtc::srtp::{
    IDENTICAL_WINDOW, INDEX_MAX, Outbound, Profile, ProtectError, Repeats, Spent, StreamKey, WINDOW,
};

use crate::packets::{
    self, SSRC, Shape, any_profile, inbound, master, outbound, pair, protect, protect_rtcp, room_for, rtcp, rtp,
};

/// Protects a packet of its own for each call with another `payload`.
fn try_protect(
    outbound: &mut Outbound,
    stream: StreamKey,
    index: u64,
    payload: &[u8],
) -> Result<Vec<u8>, ProtectError> {
    packets::try_protect(outbound, stream, index, &rtp(SSRC, index, Shape::PLAIN, payload))
}

#[test]
fn an_index_is_protected_once() {
    for profile in Profile::ALL {
        let (mut outbound, stream, _) = pair(profile);
        let newest = WINDOW + 4;
        assert!(try_protect(&mut outbound, stream, 3, b"a").is_ok());
        let reused = Err(ProtectError::IndexReused);
        // Not even for the same bytes.
        assert_eq!(try_protect(&mut outbound, stream, 3, b"a"), reused);
        assert_eq!(try_protect(&mut outbound, stream, 3, b"b"), reused);
        assert!(try_protect(&mut outbound, stream, newest, b"c").is_ok());
        // Late ones may go as long as the window reaches.
        assert!(try_protect(&mut outbound, stream, newest - WINDOW + 1, b"d").is_ok());
        assert_eq!(
            try_protect(&mut outbound, stream, newest - WINDOW, b"e"),
            Err(ProtectError::IndexTooOld)
        );
    }
}

#[test]
fn a_repetition_goes_out_only_as_it_was() {
    for profile in Profile::ALL {
        let mut outbound = outbound(profile);
        let stream = outbound.add_stream(SSRC, Repeats::Identical).unwrap();
        let first = try_protect(&mut outbound, stream, 10, b"once").unwrap();
        assert_eq!(try_protect(&mut outbound, stream, 10, b"once"), Ok(first.clone()));
        for other in [&b"Once"[..], b"onc", b"once more", b""] {
            let packet = rtp(SSRC, 10, Shape::PLAIN, other);
            let mut room = [0xee; 64];
            let protected = outbound.protect_train(stream, 10, &packet, packet.len(), &mut room);
            assert_eq!(protected.refused, Some(ProtectError::IndexReused));
            // What must not leave is gone.
            let len = packet.len() + profile.rtp_overhead();
            assert_eq!(room[..len], vec![0; len]);
        }
        // A header is part of it: an extension, the marker, the timestamp.
        let shape = Shape {
            csrcs: 0,
            extension_words: Some(1),
        };
        let mut others = vec![rtp(SSRC, 10, shape, b"once"); 1];
        for at in [1, 5] {
            let mut packet = rtp(SSRC, 10, Shape::PLAIN, b"once");
            packet[at] ^= 0x80;
            others.push(packet);
        }
        for packet in others {
            let refused = packets::try_protect(&mut outbound, stream, 10, &packet);
            assert_eq!(refused, Err(ProtectError::IndexReused));
        }
        // It still goes, until it is too long ago.
        assert!(try_protect(&mut outbound, stream, 9 + IDENTICAL_WINDOW, b"later").is_ok());
        assert_eq!(try_protect(&mut outbound, stream, 10, b"once"), Ok(first));
        assert!(try_protect(&mut outbound, stream, 10 + IDENTICAL_WINDOW, b"later").is_ok());
        assert_eq!(
            try_protect(&mut outbound, stream, 10, b"once"),
            Err(ProtectError::IndexTooOld)
        );
    }
}

#[test]
fn a_late_first_time_does_not_spoil_a_repetition() {
    let mut outbound = outbound(Profile::AeadAes128Gcm);
    let stream = outbound.add_stream(SSRC, Repeats::Identical).unwrap();
    let newest = 1_500;
    let first = try_protect(&mut outbound, stream, newest, b"new").unwrap();
    // Both have the same place among the last 1,024.
    assert!(try_protect(&mut outbound, stream, newest - IDENTICAL_WINDOW, b"old").is_ok());
    assert_eq!(try_protect(&mut outbound, stream, newest, b"new"), Ok(first));
}

#[test]
fn a_stream_that_comes_back_starts_where_it_ended() {
    let (mut outbound, stream, _) = pair(Profile::AeadAes128Gcm);
    assert!(try_protect(&mut outbound, stream, 70_000, b"a").is_ok());
    assert_eq!(
        outbound.add_stream(SSRC, Repeats::Identical),
        Err(ProtectError::DuplicateStream)
    );
    outbound.remove_stream(stream);
    assert_eq!(
        try_protect(&mut outbound, stream, 70_001, b"b"),
        Err(ProtectError::UnknownStream)
    );
    for repeats in [Repeats::Refused, Repeats::Identical] {
        let again = outbound.add_stream(SSRC, repeats).unwrap();
        assert_ne!(again, stream);
        for index in [0, 69_999, 70_000] {
            assert!(try_protect(&mut outbound, again, index, b"c").is_err(), "{index}");
        }
        outbound.remove_stream(again);
    }
    let again = outbound.add_stream(SSRC, Repeats::Refused).unwrap();
    assert!(try_protect(&mut outbound, again, 70_001, b"d").is_ok());
    // One that never protected leaves nothing behind.
    let idle = outbound.add_stream(5, Repeats::Refused).unwrap();
    outbound.remove_stream(idle);
    assert_eq!(
        outbound.spent().collect::<Vec<_>>(),
        [Spent {
            ssrc: SSRC,
            next: 70_002
        }]
    );
}

#[test]
fn a_successor_protects_nothing_again() {
    for profile in Profile::ALL {
        let (mut first, stream, mut receiver) = pair(profile);
        for index in 0..10 {
            let protected = try_protect(&mut first, stream, index, b"a").unwrap();
            receiver.unprotect_rtp(&mut protected.clone()).unwrap();
            let report = protect_rtcp(&mut first, &rtcp(SSRC, 0));
            receiver.unprotect_rtcp(&mut report.clone()).unwrap();
        }
        let mut second = Outbound::resume(&master(profile, 1), first.rtcp_next(), first.spent());
        let stream = second.add_stream(SSRC, Repeats::Identical).unwrap();
        for index in 0..10 {
            assert!(try_protect(&mut second, stream, index, b"a").is_err());
        }
        // And the receiver goes on with it.
        let protected = try_protect(&mut second, stream, 10, b"b").unwrap();
        assert!(receiver.unprotect_rtp(&mut protected.clone()).is_ok());
        let report = protect_rtcp(&mut second, &rtcp(SSRC, 0));
        assert!(receiver.unprotect_rtcp(&mut report.clone()).is_ok());
    }
}

#[test]
fn keys_end_with_their_last_index() {
    let (mut outbound, stream, _) = pair(Profile::AeadAes256Gcm);
    assert!(try_protect(&mut outbound, stream, INDEX_MAX, b"last").is_ok());
    for index in [INDEX_MAX + 1, u64::MAX] {
        assert_eq!(
            try_protect(&mut outbound, stream, index, b"beyond"),
            Err(ProtectError::Exhausted)
        );
    }
    for profile in Profile::ALL {
        let last = (1 << 31) - 1;
        let mut outbound = Outbound::resume(&master(profile, 1), last, []);
        let protected = protect_rtcp(&mut outbound, &rtcp(SSRC, 0));
        assert_eq!(
            inbound(profile)
                .unprotect_rtcp(&mut protected.clone())
                .map(|unprotected| unprotected.index),
            Ok(last)
        );
        assert_eq!(outbound.protect_rtcp(&mut [0x80; 64], 28), Err(ProtectError::Exhausted));
    }
}

#[test]
fn so_many_streams_and_no_more() {
    let mut outbound = outbound(Profile::AeadAes128Gcm);
    for ssrc in 0..1 << 16 {
        let stream = outbound.add_stream(ssrc, Repeats::Refused).unwrap();
        protect(&mut outbound, stream, 0, &rtp(ssrc, 0, Shape::PLAIN, &[]));
        outbound.remove_stream(stream);
    }
    assert_eq!(
        outbound.add_stream(1 << 16, Repeats::Refused),
        Err(ProtectError::TooManyStreams)
    );
    // Those that are known may come back.
    assert!(outbound.add_stream(7, Repeats::Refused).is_ok());
}

#[test]
fn what_is_no_such_packet_is_refused_and_uses_nothing_up() {
    for profile in Profile::ALL {
        let (mut outbound, stream, mut receiver) = pair(profile);
        let packet = rtp(SSRC, 5, Shape::PLAIN, b"payload");
        let (len, needed) = (packet.len(), packet.len() + profile.rtp_overhead());
        let foreign = outbound.add_stream(SSRC + 1, Repeats::Refused).unwrap();
        let rows = [
            (stream, 6, len, needed, ProtectError::Mismatch),
            (stream, 5 + (1 << 15), len, needed, ProtectError::Mismatch),
            (foreign, 5, len, needed, ProtectError::Mismatch),
            (stream, 5, len, needed - 1, ProtectError::BufferTooSmall),
            (stream, 5, len, 0, ProtectError::BufferTooSmall),
            (stream, 5, 11, needed, ProtectError::Malformed),
        ];
        let mut room = vec![0xee; needed];
        for (stream, index, len, available, refused) in rows {
            let protected = outbound.protect_train(stream, index, &packet[..len], len, &mut room[..available]);
            assert_eq!((protected.bytes, protected.refused), (0, Some(refused)));
            assert_eq!(room, vec![0xee; needed]);
        }
        let protected = protect(&mut outbound, stream, 5, &packet);
        assert!(receiver.unprotect_rtp(&mut protected.clone()).is_ok());

        let mut report = rtcp(SSRC, 0);
        let (len, room) = (report.len(), report.len() + profile.rtcp_overhead());
        report.resize(room, 0);
        assert_eq!(outbound.protect_rtcp(&mut report, 7), Err(ProtectError::Malformed));
        for len in [len + 1, usize::MAX] {
            assert_eq!(
                outbound.protect_rtcp(&mut report, len),
                Err(ProtectError::BufferTooSmall)
            );
        }
        assert_eq!(outbound.rtcp_next(), 0);
        assert_eq!(outbound.protect_rtcp(&mut report, len), Ok(room));
    }
}

/// Something that a sender does.
#[derive(Clone, Debug)]
enum Act {
    Protect { index: u64, payload: u8 },
    Train { first: u64, packets: u8, payload: u8 },
    Report,
    Reopen { repeats: bool },
    Succeed,
}

fn any_act() -> impl Strategy<Value = Act> {
    let index = || prop_oneof![0_u64..40, 2_030_u64..2_060, 65_500_u64..65_560];
    prop_oneof![
        10 => (index(), 0_u8..3).prop_map(|(index, payload)| Act::Protect { index, payload }),
        5 => (index(), 1_u8..6, 0_u8..3).prop_map(|(first, packets, payload)| Act::Train { first, packets, payload }),
        2 => Just(Act::Report),
        1 => any::<bool>().prop_map(|repeats| Act::Reopen { repeats }),
        1 => Just(Act::Succeed),
    ]
}

proptest! {
    /// Whatever is asked of a sender, no two different packets leave under one index, and under one nonce therefore.
    #[test]
    fn no_index_is_used_twice(profile in any_profile(), acts in prop::collection::vec(any_act(), 1..120)) {
        let mut outbound = outbound(profile);
        let mut stream = outbound.add_stream(SSRC, Repeats::Identical).unwrap();
        let mut receiver = inbound(profile);
        let mut left: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut reports: HashMap<u64, Vec<u8>> = HashMap::new();
        for act in acts {
            let mut leaving = Vec::new();
            match act {
                Act::Protect { index, payload } => {
                    if let Ok(protected) = try_protect(&mut outbound, stream, index, &[payload; 20]) {
                        leaving.push((index, protected));
                    }
                }
                Act::Train { first, packets, payload } => {
                    let packets: Vec<_> = (first..first + u64::from(packets))
                        .map(|index| rtp(SSRC, index, Shape::PLAIN, &[payload; 20]))
                        .collect();
                    let (train, segment) = (packets.concat(), packets[0].len());
                    let mut room = room_for(&train, segment, profile);
                    let protected = outbound.protect_train(stream, first, &train, segment, &mut room);
                    let protected = room[..protected.bytes].chunks(segment + profile.rtp_overhead());
                    leaving.extend((first..).zip(protected.map(<[u8]>::to_vec)));
                }
                Act::Report => {
                    let protected = protect_rtcp(&mut outbound, &rtcp(SSRC, 1));
                    let index = receiver.unprotect_rtcp(&mut protected.clone()).unwrap().index;
                    prop_assert!(reports.insert(index, protected).is_none());
                }
                Act::Reopen { repeats } => {
                    outbound.remove_stream(stream);
                    let repeats = if repeats { Repeats::Identical } else { Repeats::Refused };
                    stream = outbound.add_stream(SSRC, repeats).unwrap();
                }
                Act::Succeed => {
                    let spent: Vec<_> = outbound.spent().collect();
                    outbound = Outbound::resume(&master(profile, 1), outbound.rtcp_next(), spent);
                    stream = outbound.add_stream(SSRC, Repeats::Identical).unwrap();
                }
            }
            for (index, protected) in leaving {
                let before = left.entry(index).or_insert_with(|| protected.clone());
                prop_assert_eq!(&*before, &protected, "two packets under index {}", index);
            }
        }
    }
}
