//! Statistics as JSON, looked at without knowing what they are of: a number is a counter unless it is known to say how something is at the
//! moment. So a counter that somebody adds is looked at, too.

use std::collections::BTreeMap;

use serde_json::Value;

/// Numbers that say what something is, or how it is at the moment.
const NO_COUNTERS: [&str; 33] = [
    "backlogPackets",
    "belowNs",
    "bitrate",
    "clockRate",
    "consumer",
    "consumers",
    "fractionLost",
    "fromNs",
    "id",
    "jitter",
    "jitterMs",
    "local",
    "localAvailableSendBw",
    "maxBitrate",
    "maxBitrateBps",
    "next",
    // What was lost may come after all.
    "packetsLost",
    "p50",
    "p99",
    "p999",
    "payloadType",
    "producer",
    "producers",
    "remoteBitrateBps",
    "residentBytes",
    "rooms",
    "roundTripTime",
    "roundTripUs",
    "ssrc",
    "timestamp",
    "transport",
    "transportId",
    "transports",
];

/// All counters of an answer, by where they stand in it.
pub(crate) fn counters(answer: &Value) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    collect("", answer, &mut found);
    found
}

/// Fails if a counter is less than before, or is not there any more.
#[allow(dead_code, reason = "the simulation compares by itself")]
pub(crate) fn assert_none_goes_back(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for (name, count) in before {
        let now = after.get(name).copied().unwrap_or(0);
        assert!(now >= *count, "{name}: {now} after {count}");
    }
}

fn collect(place: &str, value: &Value, found: &mut BTreeMap<String, u64>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let is_group = member.is_object() || member.is_array();
                if is_group || !NO_COUNTERS.contains(&name.as_str()) {
                    collect(&format!("{place}/{name}"), member, found);
                }
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                collect(&format!("{place}/{}", name_of(element, index)), element, found);
            }
        }
        Value::Number(number) => {
            if let Some(number) = number.as_u64() {
                found.insert(place.to_owned(), number);
            }
        }
        _ => {}
    }
}

/// What tells an element from others, wherever it stands: its own id, a profile, the lower end of a bucket.
fn name_of(element: &Value, index: usize) -> String {
    let own = ["consumer", "producer", "transport", "id", "profile", "fromNs"]
        .into_iter()
        .find_map(|name| element.get(name));
    own.map_or_else(|| index.to_string(), ToString::to_string)
}
