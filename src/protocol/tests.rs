//! What is wrong with messages, of every kind.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_channel::message::WorkerError;

use super::message::{ClientNotification, PeerRequest, RoomRequest};
use super::{ErrorClass, ProtocolError};
use crate::{Error, Settings};

const REQUESTS: [&str; 6] = [
    "queryRoom",
    "join",
    "createTransport",
    "restartTransport",
    "createProducer",
    "enableConsumer",
];

const NOTIFICATIONS: [&str; 15] = [
    "leave",
    "updateTransport",
    "closeTransport",
    "enableTransportStats",
    "disableTransportStats",
    "pauseProducer",
    "resumeProducer",
    "closeProducer",
    "enableProducerStats",
    "disableProducerStats",
    "pauseConsumer",
    "resumeConsumer",
    "setConsumerPreferredProfile",
    "enableConsumerStats",
    "disableConsumerStats",
];

fn request(message: Value) -> Result<(), ProtocolError> {
    match RoomRequest::parse(message.clone()) {
        Err(error) if error.message.starts_with("unknown request") => PeerRequest::parse(message).map(drop),
        other => other.map(drop),
    }
}

fn notification(message: Value) -> Result<(), ProtocolError> {
    ClientNotification::parse(message).map(drop)
}

/// A message with everything that any of its kind needs.
fn whole(method: &str) -> Value {
    json!({
        "method": method, "target": "peer", "id": 7, "peerName": "a", "rtpCapabilities": {"codecs": []}, "kind": "audio",
        "transportId": 1, "rtpParameters": {}, "interval": 1000, "profile": "low", "appData": {"any": [1, null]},
        "plainRtpParameters": {"ip": "127.0.0.1", "port": 5004}, "direction": "send", "preferredProfile": "high",
        "of my own": {"is": "passed over"}
    })
}

fn told(method: &str) -> Value {
    let mut message = whole(method);
    message["notification"] = json!(true);
    message
}

#[test]
fn whole_messages_of_every_kind_are_read() {
    for method in REQUESTS {
        assert_eq!(request(whole(method)), Ok(()), "{method}");
    }
    for method in NOTIFICATIONS {
        assert_eq!(notification(told(method)), Ok(()), "{method}");
    }
}

#[test]
fn what_is_not_the_kind_of_message_it_should_be_is_a_type_error() {
    let check = |result: Result<(), ProtocolError>, message: &str| {
        let error = result.unwrap_err();
        assert_eq!((error.class, error.message.as_str()), (ErrorClass::TypeError, message));
    };
    for odd in [json!(null), json!(5), json!("join"), json!([{"method": "join"}])] {
        check(request(odd.clone()), "wrong/missing request");
        check(notification(odd), "wrong/missing notification");
    }
    for method in REQUESTS {
        check(request(told(method)), "not a request");
    }
    for method in NOTIFICATIONS {
        check(notification(whole(method)), "not a notification");
        let mut nearly = told(method);
        nearly["notification"] = json!("true");
        check(notification(nearly), "not a notification");
    }
    for method in [json!(null), json!(7), json!(["join"])] {
        check(request(json!({"method": method})), "wrong/missing request method");
        let message = json!({"method": method, "notification": true});
        check(notification(message), "wrong/missing notification method");
    }
}

#[test]
fn unknown_methods_are_errors_and_shown_only_in_part() {
    let error = request(whole("Join")).unwrap_err();
    assert_eq!(error.to_string(), "Error: unknown request method \"Join\"");
    // A notification's method is no request's, nor the other way round.
    assert_eq!(request(whole("leave")).unwrap_err().class, ErrorClass::Error);
    let error = notification(told(&"x".repeat(10_000))).unwrap_err();
    assert!(error.message.len() < 200, "{error}");
}

#[test]
fn members_of_the_wrong_kind_are_named() {
    let rows = [
        ("join", "spy", json!("yes"), "spy"),
        ("createTransport", "id", json!(1.5), "id"),
        ("createTransport", "id", json!("1"), "id"),
        ("createTransport", "direction", json!("both"), "direction"),
        ("createTransport", "options", json!(7), "options"),
        (
            "createTransport",
            "options",
            json!({"preferIPv4": 1}),
            "options.preferIPv4",
        ),
        (
            "createTransport",
            "plainRtpParameters",
            json!("127.0.0.1:5"),
            "plainRtpParameters",
        ),
        (
            "createTransport",
            "plainRtpParameters",
            json!({"port": 70_000}),
            "plainRtpParameters.port",
        ),
        ("restartTransport", "id", json!(null), "id"),
        ("restartTransport", "id", json!(9_223_372_036_854_775_808_u64), "id"),
        ("createProducer", "id", json!({}), "id"),
        ("createProducer", "paused", json!(0), "paused"),
        ("enableConsumer", "id", json!([]), "id"),
        ("enableConsumer", "preferredProfile", json!("none"), "preferredProfile"),
    ];
    for (method, member, value, named) in rows {
        let mut message = whole(method);
        message[member] = value.clone();
        let error = request(message).unwrap_err();
        assert_eq!(error.class, ErrorClass::TypeError, "{method} {member} = {value}");
        assert!(error.message.starts_with(named), "{method} {member} = {value}: {error}");
    }
    for method in NOTIFICATIONS.into_iter().filter(|method| *method != "leave") {
        let mut message = told(method);
        message["id"] = json!("7");
        assert_eq!(
            notification(message.clone()).unwrap_err().class,
            ErrorClass::TypeError,
            "{method}"
        );
        message.as_object_mut().unwrap().remove("id");
        let error = notification(message).unwrap_err();
        assert!(error.message.contains("missing field `id`"), "{method}: {error}");
    }
    let mut message = told("setConsumerPreferredProfile");
    message["profile"] = json!("bogus");
    assert!(notification(message).unwrap_err().message.starts_with("profile"));
    let mut message = told("enableProducerStats");
    message["interval"] = json!("often");
    assert!(notification(message).unwrap_err().message.starts_with("interval"));
}

/// Everybody in the room is told of it, so it must not be much.
#[test]
fn app_data_is_bounded_wherever_it_is_given() {
    let fits = json!("x".repeat(8_190));
    let long = json!("x".repeat(8_191));
    let many_small = json!(vec![0; 4_096]);
    for method in ["join", "createTransport", "createProducer"] {
        let mut message = whole(method);
        message["appData"] = fits.clone();
        assert_eq!(request(message.clone()), Ok(()), "{method}");
        for too_long in [&long, &many_small] {
            message["appData"] = too_long.clone();
            let error = request(message.clone()).unwrap_err();
            assert_eq!(error.class, ErrorClass::TypeError, "{method}");
            assert!(
                error.message.starts_with("appData: has 8193 bytes"),
                "{method}: {error}"
            );
        }
    }
    for method in [
        "leave",
        "closeTransport",
        "pauseProducer",
        "resumeProducer",
        "closeProducer",
        "pauseConsumer",
        "resumeConsumer",
    ] {
        let mut message = told(method);
        message["appData"] = fits.clone();
        assert_eq!(notification(message.clone()), Ok(()), "{method}");
        message["appData"] = long.clone();
        let error = notification(message).unwrap_err();
        assert_eq!(error.class, ErrorClass::TypeError, "{method}");
    }
}

/// In memory a value takes far more than its two bytes of JSON.
#[test]
fn app_data_has_few_values() {
    let nested = |depth: u32| (0..depth).fold(json!(0), |inner, _| json!({"in": [inner, 0]}));
    let join = |app_data: Value| {
        let mut message = whole("join");
        message["appData"] = app_data;
        request(message)
    };
    for fits in [json!(vec![0; 999]), json!([vec![0; 499], vec![0; 498]]), nested(30)] {
        assert_eq!(join(fits), Ok(()));
    }
    for too_many in [
        json!(vec![0; 1_000]),
        json!([vec![0; 499], vec![0; 499]]),
        json!(vec![nested(30); 11]),
    ] {
        let error = join(too_many).unwrap_err();
        assert_eq!(error.class, ErrorClass::TypeError);
        assert!(error.message.ends_with(" values; at most 1000 are kept"), "{error}");
    }
}

#[test]
fn a_client_is_not_told_how_the_server_works_inside() {
    let inside = [
        Error::Timeout {
            after: Duration::from_secs(3),
        },
        Error::NoWorker("worker 1 is dead".to_owned()),
        Error::PortsExhausted {
            ip: [10, 1, 2, 3].into(),
            range: Settings::default().rtc_ports,
        },
        Error::Worker(WorkerError::Os {
            call: "setsockopt".to_owned(),
            reason: "EPERM".to_owned(),
        }),
        Error::Worker(WorkerError::TooMany {
            noun: "transports".to_owned(),
            limit: 5,
        }),
        Error::Worker(WorkerError::DeadlinePassed),
    ];
    for error in inside {
        let told = ProtocolError::from(error);
        assert_eq!(told.to_string(), "Error: the server failed to do this; try again");
    }
    // What it did wrong itself it is told.
    let own = ProtocolError::from(Error::InvalidParameters("codecs: none".to_owned()));
    assert_eq!(own.to_string(), "Error: codecs: none");
}

#[test]
fn what_javascript_leaves_unsaid_is_nothing_said() {
    let mut message = whole("createTransport");
    for member in ["options", "direction", "plainRtpParameters", "id", "appData"] {
        message[member] = Value::Null;
    }
    assert_eq!(request(message), Ok(()));
    let mut message = whole("enableConsumer");
    message["paused"] = Value::Null;
    message["preferredProfile"] = Value::Null;
    assert_eq!(request(message), Ok(()));
    assert_eq!(request(json!({"method": "createTransport"})), Ok(()));
}

/// JSON that is mostly a message with something wrong in it.
fn any_message() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    let methods: Vec<&str> = REQUESTS.into_iter().chain(NOTIFICATIONS).collect();
    let members = prop::sample::select(vec![
        "method",
        "notification",
        "id",
        "peerName",
        "rtpCapabilities",
        "spy",
        "options",
        "plainRtpParameters",
        "kind",
        "transportId",
        "paused",
        "profile",
        "interval",
        "preferredProfile",
        "direction",
    ]);
    let spoil = prop::collection::vec((members, value), 0..4);
    (prop::sample::select(methods), any::<bool>(), spoil).prop_map(|(method, notifies, spoil)| {
        let mut message = whole(method);
        message["notification"] = json!(notifies);
        for (member, value) in spoil {
            message[member] = value;
        }
        message
    })
}

proptest! {
    #[test]
    fn no_message_makes_the_parser_panic(message in any_message()) {
        for result in [request(message.clone()), notification(message)] {
            if let Err(error) = result {
                prop_assert!(error.message.len() < 2_000);
            }
        }
    }
}
