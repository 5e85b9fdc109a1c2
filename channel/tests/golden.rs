//! The bytes of every message are frozen: two builds of one protocol version understand each other. A change here is a change
//! of the protocol, and moves `PROTOCOL_VERSION`.

use std::collections::BTreeSet;
use std::fmt::Write;

use proptest::prelude::*;
use weir_channel::codec::{self, CodecError};
use weir_channel::message::{CodecName, DropReason, ExtensionUri, Message, PROTOCOL_VERSION, UnroutedReason};

#[path = "common/messages.rs"]
mod messages;

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes).expect("every message can be encoded");
    bytes
}

/// A line for each message: what it is, then its bytes in hex.
fn golden<'a>(messages: impl IntoIterator<Item = (String, &'a Message)>) -> String {
    let mut text = String::new();
    for (name, message) in messages {
        let bytes = encoded(message);
        assert_eq!(codec::decode(&bytes).as_ref(), Ok(message));
        writeln!(text, "{name}").expect("a String takes all");
        for line in bytes.chunks(32) {
            let hex: Vec<String> = line.chunks(4).map(hex).collect();
            writeln!(text, "    {}", hex.join(" ")).expect("a String takes all");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first word of a value's debug form: the variant's name.
fn name(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
        .split([' ', '('])
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn hello() {
    assert_eq!(PROTOCOL_VERSION, 13, "a new version needs new golden bytes");
    insta::assert_snapshot!(golden([(String::from("Hello"), &messages::hello())]));
}

#[test]
fn requests() {
    let requests: Vec<_> = messages::methods()
        .into_iter()
        .map(|method| (name(&method), messages::request(method)))
        .chain([("Requests".to_owned(), messages::together())])
        .collect();
    insta::assert_snapshot!(golden(requests.iter().map(|(name, message)| (name.clone(), message))));
}

#[test]
fn replies() {
    let responses: Vec<_> = messages::replies()
        .into_iter()
        .map(|reply| (name(&reply), messages::response(Ok(reply))))
        .collect();
    insta::assert_snapshot!(golden(responses.iter().map(|(name, message)| (name.clone(), message))));
}

#[test]
fn worker_errors() {
    let responses: Vec<_> = messages::worker_errors()
        .into_iter()
        .map(|error| (name(&error), messages::response(Err(error))))
        .collect();
    insta::assert_snapshot!(golden(responses.iter().map(|(name, message)| (name.clone(), message))));
}

#[test]
fn notifications() {
    let notifications: Vec<_> = messages::notifications()
        .into_iter()
        .map(|notification| (name(&notification), Message::Notification(notification)))
        .collect();
    insta::assert_snapshot!(golden(
        notifications.iter().map(|(name, message)| (name.clone(), message))
    ));
}

/// The number of variants of the enum that comes after `prefix`, from what the decoder says about a variant that does not exist.
fn variants_after(prefix: &[u8]) -> usize {
    let mut bytes = prefix.to_vec();
    bytes.push(250); // the greatest variant index of one byte
    match codec::decode(&bytes) {
        Err(CodecError::Garbage(text)) => {
            let count = text
                .rsplit("i < ")
                .next()
                .and_then(|count| count.split(['`', ' ']).next());
            count
                .and_then(|count| count.parse().ok())
                .unwrap_or_else(|| panic!("after {prefix:02x?}: {text}"))
        }
        other => panic!("after {prefix:02x?}: {other:?}"),
    }
}

/// So that nobody adds a variant without adding its bytes above.
#[test]
fn the_golden_bytes_cover_every_variant() {
    let all: Vec<Vec<u8>> = messages::all().iter().map(encoded).collect();
    let seen_after = |prefix: &[u8]| -> BTreeSet<usize> {
        let variant = |bytes: &Vec<u8>| bytes.strip_prefix(prefix).map(|rest| usize::from(rest[0]));
        all.iter().filter_map(variant).collect()
    };
    for (what, prefix) in [
        ("Message", &[][..]),
        ("Method", &[1, 1, 2]),
        ("Reply", &[2, 1, 0]),
        ("WorkerError", &[2, 1, 1]),
        ("Notification", &[3]),
        ("LogLevel", &[3, 6]),
    ] {
        let expected: BTreeSet<usize> = (0..variants_after(prefix)).collect();
        assert_eq!(seen_after(prefix), expected, "variants of {what}");
    }
    // The other enums are listed whole in the messages above, by constants that must be whole.
    let producer = [1, 1, 2, 17, 7, 8, 9];
    for (what, prefix, count) in [
        ("MediaKind", &producer[..], 2),
        (
            "CodecName",
            &[&producer[..], &[1, 0, 1, 96]].concat(),
            CodecName::ALL.len() + CodecName::OPAQUE.len(),
        ),
        (
            "ExtensionUri",
            &[&producer[..], &[1, 0, 0, 0, 1, 1]].concat(),
            ExtensionUri::ALL.len(),
        ),
        ("Profile", &[3, 4, 10, 1], messages::PROFILES.len()),
        (
            "UnroutedReason",
            &[2, 1, 0, 5, 1, 8, 0, 1, 2, 3, 4, 5, 6, 1],
            UnroutedReason::ALL.len(),
        ),
        (
            "DropReason",
            &[2, 1, 0, 5, 0, 0, 1, 10, 0, 0, 0, 0, 1, 2, 3, 4, 1],
            DropReason::ALL.len(),
        ),
    ] {
        assert_eq!(variants_after(prefix), count, "variants of {what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn round_trip(message in messages::any_message()) {
        let bytes = encoded(&message);
        prop_assert_eq!(codec::decode(&bytes), Ok(message.clone()));
        // The decoder knows where the message ends.
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(codec::decode(&longer), Err(CodecError::Trailing { used: bytes.len(), len: bytes.len() + 1 }));
        for len in 0..bytes.len() {
            let cut = codec::decode(&bytes[..len]);
            prop_assert!(matches!(cut, Err(CodecError::Truncated { .. })), "{} of {} bytes: {:?}", len, bytes.len(), cut);
        }
    }

    #[test]
    fn histograms_survive_the_wire(histogram in messages::any_histogram(), quantile in 0.0..=1.0) {
        let message = messages::response(Ok(weir_channel::message::Reply::WorkerStats(Box::new(weir_channel::message::WorkerStats {
            residence: Some(histogram.clone()),
            ..Default::default()
        }))));
        let Ok(Message::Response(response)) = codec::decode(&encoded(&message)) else { panic!("a response") };
        let Ok(weir_channel::message::Reply::WorkerStats(stats)) = response.result else { panic!("counters") };
        let arrived = stats.residence.expect("a histogram");
        prop_assert_eq!(arrived.quantile(quantile), histogram.quantile(quantile));
        prop_assert_eq!(arrived, histogram);
    }
}

/// A page of small counters claims up to eight times the bytes it has, when it is decoded.
#[test]
fn a_full_frame_of_small_numbers_is_decoded() {
    let mut page = weir_channel::message::DumpPage::default();
    page.producers.push(weir_channel::message::ProducerDump {
        producer: weir_channel::id::ProducerId(1),
        transport: weir_channel::id::TransportId(1),
        kind: weir_channel::message::MediaKind::Audio,
        paused: false,
        preferred_profile: weir_channel::message::Profile::Default,
        available_profiles: Vec::new(),
        consumers: vec![weir_channel::id::ConsumerId(1); weir_channel::frame::MAX_FRAME - 100],
    });
    let message = messages::response(Ok(weir_channel::message::Reply::Dump(page)));
    let frame = weir_channel::frame::encode(&message).expect("it fits");
    assert!(
        codec::decode(&frame[weir_channel::frame::PREFIX..]) == Ok(message),
        "what fits a frame is understood"
    );
}
