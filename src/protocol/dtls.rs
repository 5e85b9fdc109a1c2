//! What clients say of their DTLS: `dtlsParameters` of `createTransport` and `updateTransport`.

use serde_json::Value;
use weir_channel::message::{DtlsParameters, DtlsRole, FINGERPRINTS_MAX, Fingerprint};

use super::ProtocolError;

/// How many fingerprints are looked at; clients send one to five.
const ENTRIES_MAX: usize = 16;

/// Longer than any fingerprint, which has 191 characters at most.
const VALUE_BYTES_MAX: usize = 256;

/// Reads a client's parameters. Fingerprints made with functions that nobody here knows are passed over (RFC 8122 §5), as
/// long as there are others. Whether one can be trusted is checked where they are used.
pub(super) fn parse(parameters: &Value) -> Result<DtlsParameters, ProtocolError> {
    let wrong = |text: &str| Err(ProtocolError::type_error(text));
    let Value::Object(parameters) = parameters else {
        return wrong("dtlsParameters must be an object");
    };
    let role = match parameters.get("role") {
        None | Some(Value::Null) => DtlsRole::Auto,
        Some(role) => match role.as_str() {
            Some("auto") => DtlsRole::Auto,
            Some("client") => DtlsRole::Client,
            Some("server") => DtlsRole::Server,
            _ => return wrong("dtlsParameters.role must be auto, client or server"),
        },
    };
    let entries = match parameters.get("fingerprints") {
        Some(Value::Array(entries)) if (1..=ENTRIES_MAX).contains(&entries.len()) => entries,
        Some(Value::Array(entries)) => {
            return Err(ProtocolError::type_error(format!(
                "dtlsParameters.fingerprints must have 1 to {ENTRIES_MAX} entries, not {}",
                entries.len()
            )));
        }
        _ => return wrong("dtlsParameters.fingerprints must be an array"),
    };
    let mut fingerprints = Vec::new();
    for entry in entries {
        let (Some(algorithm), Some(value)) = (entry["algorithm"].as_str(), entry["value"].as_str()) else {
            return wrong("dtlsParameters.fingerprints must have an algorithm and a value each, both strings");
        };
        if value.len() > VALUE_BYTES_MAX {
            return wrong("dtlsParameters.fingerprints: the value is longer than any fingerprint");
        }
        // The names of RFC 8122 §5 have no case.
        if let Ok(algorithm) = algorithm.to_ascii_lowercase().parse() {
            let value = value.to_owned();
            fingerprints.push(Fingerprint { algorithm, value });
        }
    }
    match fingerprints.len() {
        // v2's words.
        0 => Err(ProtocolError::error("unsupported remote fingerprint algorithm")),
        1..=FINGERPRINTS_MAX => Ok(DtlsParameters { role, fingerprints }),
        more => Err(ProtocolError::type_error(format!(
            "dtlsParameters.fingerprints must be {FINGERPRINTS_MAX} at most, not {more}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_channel::message::FingerprintAlgorithm;

    use super::*;
    use crate::protocol::ErrorClass;

    fn fingerprint(algorithm: &str) -> Value {
        json!({"algorithm": algorithm, "value": "AB:CD"})
    }

    #[test]
    fn what_browsers_say_is_understood() {
        for (role, expected) in [
            (json!("client"), DtlsRole::Client),
            (json!("server"), DtlsRole::Server),
            (json!("auto"), DtlsRole::Auto),
            (Value::Null, DtlsRole::Auto),
        ] {
            let parsed = parse(&json!({"role": role, "fingerprints": [fingerprint("sha-256")]})).unwrap();
            assert_eq!(parsed.role, expected);
            assert_eq!(parsed.fingerprints.len(), 1);
        }
        let parsed = parse(&json!({"fingerprints": [fingerprint("SHA-512"), fingerprint("sha-999")]})).unwrap();
        assert_eq!(parsed.role, DtlsRole::Auto);
        assert_eq!(
            parsed.fingerprints,
            [Fingerprint {
                algorithm: FingerprintAlgorithm::Sha512,
                value: "AB:CD".to_owned()
            }]
        );
    }

    #[test]
    fn hostile_values_are_refused_in_a_sentence() {
        let one = fingerprint("sha-256");
        let type_errors = [
            (json!(null), "dtlsParameters must be an object"),
            (json!("sha-256"), "dtlsParameters must be an object"),
            (json!({}), "dtlsParameters.fingerprints must be an array"),
            (
                json!({"fingerprints": {"sha-256": "AB"}}),
                "dtlsParameters.fingerprints must be an array",
            ),
            (
                json!({"fingerprints": []}),
                "dtlsParameters.fingerprints must have 1 to 16 entries, not 0",
            ),
            (
                json!({"fingerprints": vec![one.clone(); 20]}),
                "dtlsParameters.fingerprints must have 1 to 16 entries, not 20",
            ),
            (
                json!({"fingerprints": vec![one.clone(); 6]}),
                "dtlsParameters.fingerprints must be 5 at most, not 6",
            ),
            (
                json!({"role": "active", "fingerprints": [one]}),
                "dtlsParameters.role must be auto, client or server",
            ),
            (
                json!({"role": ["client"], "fingerprints": [one]}),
                "dtlsParameters.role must be auto, client or server",
            ),
            (
                json!({"fingerprints": ["sha-256 AB"]}),
                "dtlsParameters.fingerprints must have an algorithm and a value each, both strings",
            ),
            (
                json!({"fingerprints": [{"algorithm": "sha-256", "value": 7}]}),
                "dtlsParameters.fingerprints must have an algorithm and a value each, both strings",
            ),
            (
                json!({"fingerprints": [{"algorithm": "sha-256", "value": "A".repeat(1_000_000)}]}),
                "dtlsParameters.fingerprints: the value is longer than any fingerprint",
            ),
        ];
        for (value, expected) in type_errors {
            let error = parse(&value).unwrap_err();
            assert_eq!((error.class, error.message.as_str()), (ErrorClass::TypeError, expected));
        }
        let long = json!({"algorithm": "x".repeat(1_000_000), "value": "AB"});
        for unknown in [fingerprint("sha-999"), fingerprint("md5"), fingerprint(""), long] {
            let error = parse(&json!({"fingerprints": [unknown]})).unwrap_err();
            assert_eq!(error.to_string(), "Error: unsupported remote fingerprint algorithm");
        }
    }
}
