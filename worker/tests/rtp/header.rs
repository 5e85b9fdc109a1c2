//! The RTP header: RFC 3550 §5.1, §5.3.1 and appendix A.1, clause by clause, and against `rtp-types`.

use proptest::prelude::*;
use rtp_types::RtpPacket;
use weir_worker::rtp::{ExtensionBlock, Form, Header, Malformed, rewrite};

/// A packet with everything: padding, extension, two CSRCs, marker. Twelve bytes of payload.
const FULL: [u8; 48] = [
    0xb2, 0xe0, 0x12, 0x34, // V=2 P X CC=2, M, PT 96, number
    0xde, 0xad, 0xbe, 0xef, // timestamp
    0xca, 0xfe, 0xba, 0xbe, // SSRC
    0, 0, 0, 1, 0, 0, 0, 2, // CSRCs
    0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0, // extension of one word
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, // payload
    0, 0, 0, 0, 0, 0, 0, 8, // padding
];

/// A packet of the fixed header with this first byte, and what follows it.
fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
    packet.extend(rest);
    packet
}

#[test]
fn rfc3550_5_1_fixed_header_fields() {
    let header = Header::parse(&FULL).unwrap();
    let expected = Header {
        marker: true,
        payload_type: 96,
        seq: 0x1234,
        timestamp: 0xdead_beef,
        ssrc: 0xcafe_babe,
        extension: Some(ExtensionBlock {
            start: 24,
            len: 4,
            form: Form::OneByte,
        }),
        payload_start: 28,
        payload_len: 12,
    };
    assert_eq!(header, expected);
    assert_eq!(header.payload(&FULL), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn rfc3550_5_1_version_is_two() {
    for version in [0, 1, 3] {
        assert_eq!(Header::parse(&packet(version << 6, &[9])), Err(Malformed::Version));
    }
    assert!(Header::parse(&packet(2 << 6, &[9])).is_ok());
}

#[test]
fn rfc3550_5_1_the_first_twelve_octets_are_present_in_every_packet() {
    let packet = packet(0x80, &[]);
    assert_eq!(Header::parse(&packet).unwrap().payload_len, 0);
    for len in 0..packet.len() {
        assert_eq!(Header::parse(&packet[..len]), Err(Malformed::TooShort), "{len}");
    }
}

#[test]
fn rfc3550_5_1_csrc_list_has_up_to_fifteen_items() {
    for count in 0..=15 {
        let list = vec![7; 4 * usize::from(count)];
        let header = Header::parse(&packet(0x80 | count, &list)).unwrap();
        assert_eq!(
            (header.payload_start, header.payload_len),
            (12 + 4 * u16::from(count), 0)
        );
        if let Some((_, list)) = list.split_last() {
            assert_eq!(Header::parse(&packet(0x80 | count, list)), Err(Malformed::CsrcList));
        }
    }
}

#[test]
fn rfc3550_5_1_last_octet_of_the_padding_counts_itself() {
    let rows: &[(&[u8], Result<u16, Malformed>)] = &[
        (&[1, 2, 3, 1], Ok(3)),
        (&[1, 0, 0, 3], Ok(1)),
        (&[0, 0, 0, 4], Ok(0)), // nothing but padding
        (&[1, 2, 3, 0], Err(Malformed::Padding)),
        (&[0, 0, 0, 5], Err(Malformed::Padding)),
        (&[0, 0, 0, 255], Err(Malformed::Padding)),
        (&[], Err(Malformed::Padding)),
    ];
    for (rest, expected) in rows {
        let len = Header::parse(&packet(0xa0, rest)).map(|header| header.payload_len);
        assert_eq!(len, *expected, "{rest:?}");
    }
    // The count is of the padding alone: it may not reach into the extension.
    assert_eq!(
        Header::parse(&packet(0xb0, &[0xbe, 0xde, 0, 1, 0, 0, 0, 4])),
        Err(Malformed::Padding)
    );
}

#[test]
fn rfc3550_5_3_1_extension_length_counts_words_and_zero_is_valid() {
    let parse = |rest: &[u8]| Header::parse(&packet(0x90, rest));
    let block = |len, form| Some(ExtensionBlock { start: 16, len, form });
    assert_eq!(
        parse(&[0xbe, 0xde, 0, 0, 9]).unwrap().extension,
        block(0, Form::OneByte)
    );
    assert_eq!(
        parse(&[0x10, 0x05, 0, 1, 0, 0, 0, 0, 9]).unwrap().extension,
        block(4, Form::TwoByte)
    );
    assert_eq!(
        parse(&[0xab, 0xcd, 0, 1, 0, 0, 0, 0, 9]).unwrap().extension,
        block(4, Form::Unknown)
    );
    for rest in [
        &[] as &[u8],
        &[0xbe, 0xde, 0],
        &[0xbe, 0xde, 0, 1],
        &[0xbe, 0xde, 0, 1, 1, 2, 3],
        &[0xbe, 0xde, 0xff, 0xff, 1, 2, 3, 4],
    ] {
        assert_eq!(parse(rest), Err(Malformed::Extension), "{rest:?}");
    }
}

#[test]
fn nothing_longer_than_a_datagram() {
    let longest = packet(0x80, &vec![0; 65_535 - 12]);
    assert_eq!(Header::parse(&longest).unwrap().payload_len, 65_535 - 12);
    let longer = packet(0x80, &vec![0; 65_536 - 12]);
    assert_eq!(Header::parse(&longer), Err(Malformed::TooLong));
}

#[test]
fn every_truncation_of_a_packet_is_refused_or_consistent() {
    for len in 0..FULL.len() {
        let cut = &FULL[..len];
        match Header::parse(cut) {
            // The last byte of the payload happens to be a possible padding count.
            Ok(header) => {
                assert_eq!(
                    usize::from(header.payload_start + header.payload_len) + usize::from(cut[len - 1]),
                    len
                );
            }
            Err(reason) => {
                let expected = match len {
                    ..12 => Malformed::TooShort,
                    12..20 => Malformed::CsrcList,
                    20..28 => Malformed::Extension,
                    _ => Malformed::Padding,
                };
                assert_eq!(reason, expected, "{len}");
            }
        }
    }
}

prop_compose! {
    /// Bytes that are an RTP packet more often than chance would have it.
    fn nearly_rtp()(
        first in prop_oneof![4 => 0x80u8..=0xbf, 1 => any::<u8>()],
        words in prop_oneof![4 => 0u16..8, 1 => any::<u16>()],
        profile in prop_oneof![Just(0xbede), Just(0x1000), any::<u16>()],
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        padding in prop_oneof![4 => 0u8..40, 1 => any::<u8>()],
    ) -> Vec<u8> {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let extension = 12 + 4 * usize::from(first & 0x0f);
        if let Some(header) = bytes.get_mut(extension..extension + 4) {
            header[..2].copy_from_slice(&profile.to_be_bytes());
            header[2..].copy_from_slice(&words.to_be_bytes());
        }
        if let Some(byte) = bytes.last_mut() {
            *byte = padding;
        }
        bytes
    }
}

/// Says of a packet what `rtp-types` says of it.
fn agrees_with_rtp_types(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (Header::parse(bytes), RtpPacket::parse(bytes)) {
        (Ok(ours), Ok(theirs)) => {
            prop_assert_eq!(ours.marker, theirs.marker_bit());
            prop_assert_eq!(ours.payload_type, theirs.payload_type());
            prop_assert_eq!(ours.seq, theirs.sequence_number());
            prop_assert_eq!(ours.timestamp, theirs.timestamp());
            prop_assert_eq!(ours.ssrc, theirs.ssrc());
            prop_assert_eq!(usize::from(ours.payload_start), theirs.payload_offset());
            prop_assert_eq!(ours.payload(bytes), theirs.payload());
            let extension = ours.extension.map(|block| {
                let start = usize::from(block.start);
                (block.form, &bytes[start..start + usize::from(block.len)])
            });
            let expected = theirs
                .extension()
                .map(|(profile, data)| (Form::of_profile(profile), data));
            prop_assert_eq!(extension, expected);
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => prop_assert!(false, "we say {ours:?}, rtp-types says {theirs:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes_parse_as_rtp_types_parses_them(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        agrees_with_rtp_types(&bytes)?;
    }

    #[test]
    fn nearly_valid_bytes_parse_as_rtp_types_parses_them(bytes in nearly_rtp()) {
        agrees_with_rtp_types(&bytes)?;
    }

    #[test]
    fn rewrite_changes_four_fields_and_nothing_else(
        before in nearly_rtp(),
        payload_type in 0u8..=127,
        seq in any::<u16>(),
        timestamp in any::<u32>(),
        ssrc in any::<u32>(),
    ) {
        let Ok(header) = Header::parse(&before) else { return Ok(()) };
        let mut after = before.clone();
        rewrite(&mut after, payload_type, seq, timestamp, ssrc);
        prop_assert_eq!(Header::parse(&after), Ok(Header { payload_type, seq, timestamp, ssrc, ..header }));
        prop_assert_eq!(after[0], before[0]);
        prop_assert_eq!(&after[12..], &before[12..]);
    }
}
