//! The vectors of RFC 5769, and another implementation as second opinion.

use super::*;
use proptest::prelude::*;
use stun_types::attribute::{RawAttribute, Username, XorMappedAddress};
use stun_types::message::{
    BINDING as THEIR_BINDING, IntegrityAlgorithm, Message as Oracle, MessageClass, MessageIntegrityCredentials,
    MessageType, MessageWrite, MessageWriteExt, MessageWriteVec, ShortTermCredentials,
};

/// RFC 5769 §2: the password of its messages, and their transaction.
const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
const TRANSACTION: TransactionId = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

/// RFC 5769 §2.1, a request. Its username is padded with spaces.
const REQUEST: &str = "\
    000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff\
    80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249\
    c1b571a280280004e57a3bcf";

/// RFC 5769 §2.2, a response over IPv4.
const RESPONSE_V4: &str = "\
    0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";

/// RFC 5769 §2.3, a response over IPv6.
const RESPONSE_V6: &str = "\
    010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa\
    a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

#[test]
fn the_request_of_rfc_5769() {
    let bytes = unhex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Request, BINDING));
    assert_eq!(message.transaction, TRANSACTION);
    assert_eq!(message.username, Some(&b"evtj:h6vY"[..]));
    assert_eq!(message.priority, Some(0x6e00_01ff));
    assert!(message.controlled && !message.controlling && !message.use_candidate && message.is_intact());
    assert!(message.unknown().is_empty());
    assert!(message.is_authentic(&Key::new(PASSWORD)));
    assert!(!message.is_authentic(&Key::new("VOkJxbRl1RmTxUk/WvJxBT")));
}

#[test]
fn the_responses_of_rfc_5769() {
    for (vector, address) in [
        (RESPONSE_V4, "192.0.2.1:32853"),
        (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let bytes = unhex(vector);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class, message.method), (Class::Success, BINDING));
        assert!(message.is_intact() && message.is_authentic(&Key::new(PASSWORD)));

        // The vector pads "test vector" with a space, and padding is part of what is authenticated, so an answer of our
        // own is compared without that attribute.
        let mut ours = Vec::new();
        let address: SocketAddr = address.parse().unwrap();
        let written = Writer::new(&mut ours, Class::Success, BINDING, TRANSACTION)
            .xor_mapped_address(address)
            .integrity(&Key::new(PASSWORD))
            .fingerprint();
        let at = HEADER_LEN + 16; // SOFTWARE, "test vector"
        let len = if address.is_ipv4() { 12 } else { 24 };
        assert_eq!(written[HEADER_LEN..HEADER_LEN + len], bytes[at..at + len]);
        assert!(Message::parse(written).unwrap().is_authentic(&Key::new(PASSWORD)));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = unhex(REQUEST);
    let key = Key::new(PASSWORD);
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let accepted = Message::parse(&changed).is_ok_and(|message| message.is_intact() && message.is_authentic(&key));
        assert!(!accepted, "bit {bit}");
    }
}

/// What reads all of a message comes last, so that a wrong fingerprint does not keep it from being read.
#[test]
fn a_wrong_fingerprint_is_found_when_it_is_asked_for() {
    let mut bytes = unhex(REQUEST);
    bytes[107] ^= 1;
    let message = Message::parse(&bytes).unwrap();
    assert!(message.has_fingerprint() && !message.is_intact());
    assert_eq!(message.username, Some(&b"evtj:h6vY"[..]));
}

#[test]
fn what_is_not_a_message() {
    let good = unhex(REQUEST);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Message::parse(&bytes).map(|_| ())
    };
    assert_eq!(with(&|bytes| bytes.truncate(19)), Err(Malformed::Header));
    assert_eq!(with(&|bytes| bytes[0] |= 0x80), Err(Malformed::Header));
    assert_eq!(with(&|bytes| bytes[7] ^= 1), Err(Malformed::Header));
    assert_eq!(with(&|bytes| bytes.truncate(100)), Err(Malformed::Length));
    assert_eq!(with(&|bytes| bytes.push(0)), Err(Malformed::Length));
    assert_eq!(with(&|bytes| bytes[23] = 0xff), Err(Malformed::Attribute));
    assert_eq!(with(&|bytes| bytes[43] = 3), Err(Malformed::Attribute)); // a priority of three bytes
    assert_eq!(
        with(&|bytes| bytes.resize(MESSAGE_BYTES_MAX + 1, 0)),
        Err(Malformed::TooLong)
    );
    let more = |bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(&[0x80, 0x22, 0, 0]);
        bytes[3] += 4;
    };
    assert_eq!(with(&more), Err(Malformed::Fingerprint));
}

#[test]
fn what_follows_the_integrity_does_not_count() {
    let key = Key::new(PASSWORD);
    let mut buffer = Vec::new();
    let bytes = Writer::new(&mut buffer, Class::Request, BINDING, TRANSACTION)
        .attribute(attribute::USERNAME, b"a:b")
        .integrity(&key)
        .attribute(attribute::USE_CANDIDATE, &[])
        .attribute(attribute::PRIORITY, &[0; 4])
        .attribute(0x7777, &[1])
        .fingerprint();
    let message = Message::parse(bytes).unwrap();
    assert!(message.is_authentic(&key) && message.is_intact());
    assert!(!message.use_candidate && message.priority.is_none() && message.unknown().is_empty());
}

#[test]
fn of_two_the_first_counts_and_few_unknown_are_remembered() {
    let mut buffer = Vec::new();
    let mut writer = Writer::new(&mut buffer, Class::Request, 0xabc, TRANSACTION)
        .attribute(attribute::USERNAME, b"first")
        .attribute(attribute::USERNAME, b"second");
    for kind in 0x7000..0x7010 {
        writer = writer.attribute(kind, &[0; 3]);
    }
    let message = Message::parse(writer.fingerprint()).unwrap();
    assert_eq!(message.username, Some(&b"first"[..]));
    assert_eq!(message.method, 0xabc);
    assert_eq!(message.unknown(), [0x7000, 0x7001, 0x7002, 0x7003]);
    assert!(!message.has_integrity() && !message.is_authentic(&Key::new("")));
}

fn credentials(password: &str) -> MessageIntegrityCredentials {
    ShortTermCredentials::new(password.to_owned()).into()
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_their_bounds(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = Message::parse(&bytes) {
            message.is_authentic(&Key::new("x"));
        }
    }

    #[test]
    fn any_attributes_are_read_within_their_bounds(
        attributes in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        chosen in prop::collection::vec(prop::sample::select(&[6_u16, 8, 0x24, 0x25, 0x8028, 0x8029, 0x802a, 0xc001]), 12),
    ) {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer, Class::Request, BINDING, TRANSACTION);
        for ((kind, value), chosen) in attributes.iter().zip(&chosen) {
            writer = writer.attribute(if kind % 2 == 0 { *chosen } else { *kind }, value);
        }
        if let Ok(message) = Message::parse(writer.fingerprint()) {
            prop_assert!(message.is_intact());
            prop_assert!(!message.is_authentic(&Key::new("x")));
        }
    }

    /// Another implementation reads what is written here.
    #[test]
    fn another_reads_what_we_write(address: SocketAddr, transaction: TransactionId, password in "[0-9a-z]{32}") {
        let mut buffer = Vec::new();
        let bytes = Writer::new(&mut buffer, Class::Success, BINDING, transaction)
            .xor_mapped_address(address)
            .integrity(&Key::new(&password))
            .fingerprint();
        let theirs = Oracle::from_bytes(bytes).unwrap();
        prop_assert_eq!(theirs.get_type(), MessageType::from_class_method(MessageClass::Success, THEIR_BINDING));
        prop_assert!(theirs.validate_integrity(&credentials(&password)).is_ok());
        prop_assert!(theirs.validate_integrity(&credentials("other")).is_err());
        let mapped = theirs.attribute::<XorMappedAddress>().unwrap().addr(theirs.transaction_id());
        prop_assert_eq!(mapped, SocketAddr::new(address.ip().to_canonical(), address.port()));
    }

    /// What another implementation writes is read here.
    #[test]
    fn we_read_what_another_writes(priority: u32, transaction in 0_u128..1 << 96, password in "[0-9a-z]{32}") {
        let kind = MessageType::from_class_method(MessageClass::Request, THEIR_BINDING);
        let mut builder = Oracle::builder(kind, transaction.into(), MessageWriteVec::new());
        builder.add_attribute(&Username::new("abcd:efgh").unwrap()).unwrap();
        builder.add_attribute(&RawAttribute::new(attribute::PRIORITY.into(), &priority.to_be_bytes())).unwrap();
        builder.add_message_integrity(&credentials(&password), IntegrityAlgorithm::Sha1).unwrap();
        builder.add_fingerprint().unwrap();
        let bytes = builder.finish();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.username, Some(&b"abcd:efgh"[..]));
        prop_assert_eq!(message.priority, Some(priority));
        prop_assert_eq!(&message.transaction[..], &transaction.to_be_bytes()[4..]);
        prop_assert!(message.is_intact() && message.is_authentic(&Key::new(&password)));
    }
}
