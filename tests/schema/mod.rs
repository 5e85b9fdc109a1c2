//! Checks values against the JSON schemas of the OpenAPI document: as much of JSON Schema 2020-12 as the document uses.

use serde_json::Value;

/// Keywords that say nothing about what is valid.
const REMARKS: [&str; 5] = ["description", "title", "default", "format", "examples"];

/// The names of members that are numbers, such as payload types.
const NUMBERS: &str = "^\\d+$";

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is wrong with `value`, and where; empty if it fits. A keyword that this does not know is a fault, too: it must not
/// pass for a check that was made.
pub(crate) fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(document, schema, value, "", Others::Refused, &mut faults);
    faults
}

/// What becomes of members that a schema does not name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// They are faults, or the document says less than is so.
    Refused,
    /// Another schema for the same value names them.
    Elsewhere,
}

fn check(document: &Value, schema: &Value, value: &Value, place: &str, others: Others, faults: &mut Vec<String>) {
    let members = match schema {
        Value::Bool(true) => return,
        Value::Object(members) => members,
        _ => return faults.push(format!("{place}: nothing fits {schema}")),
    };
    // For schemas of the same value.
    let inner = match members.contains_key("properties") {
        true => Others::Elsewhere,
        false => others,
    };
    for (keyword, rule) in members {
        match keyword.as_str() {
            remark if REMARKS.contains(&remark) => {}
            "$ref" => {
                let target = rule.as_str().and_then(|text| document.pointer(text.strip_prefix('#')?));
                match target {
                    Some(target) => check(document, target, value, place, inner, faults),
                    None => faults.push(format!("{place}: {rule} leads nowhere")),
                }
            }
            "type" => {
                let fits = match rule {
                    Value::Array(types) => types.iter().any(|one| is_of_type(value, one)),
                    one => is_of_type(value, one),
                };
                if !fits {
                    faults.push(format!("{place}: {value} is not of type {rule}"));
                }
            }
            "const" if rule == value => {}
            "const" => faults.push(format!("{place}: {value} is not {rule}")),
            "enum" if rule.as_array().is_some_and(|all| all.contains(value)) => {}
            "enum" => faults.push(format!("{place}: {value} is none of {rule}")),
            "minimum" | "maximum" => {
                if let (Some(number), Some(limit)) = (value.as_f64(), rule.as_f64())
                    && (keyword == "minimum" && number < limit || keyword == "maximum" && number > limit)
                {
                    faults.push(format!("{place}: {number} is beyond the {keyword} {limit}"));
                }
            }
            "required" => {
                let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                faults.extend(missing.map(|name| format!("{place}: {name} is missing")));
            }
            "properties" => {
                for (name, rule) in rule.as_object().into_iter().flatten() {
                    if let Some(member) = value.get(name) {
                        check(
                            document,
                            rule,
                            member,
                            &format!("{place}/{name}"),
                            Others::Refused,
                            faults,
                        );
                    }
                }
            }
            "patternProperties" => {
                for (pattern, rule) in rule.as_object().into_iter().flatten() {
                    assert_eq!(pattern, NUMBERS, "the only pattern in use");
                    for (name, member) in value.as_object().into_iter().flatten() {
                        if is_number(name) {
                            check(
                                document,
                                rule,
                                member,
                                &format!("{place}/{name}"),
                                Others::Refused,
                                faults,
                            );
                        }
                    }
                }
            }
            "additionalProperties" => {
                let numbers = members.contains_key("patternProperties");
                for (name, member) in value.as_object().into_iter().flatten() {
                    if numbers && is_number(name) {
                        continue;
                    }
                    if members.get("properties").is_none_or(|known| known.get(name).is_none()) {
                        check(
                            document,
                            rule,
                            member,
                            &format!("{place}/{name}"),
                            Others::Refused,
                            faults,
                        );
                    }
                }
            }
            "prefixItems" => {
                let items = rule.as_array().into_iter().flatten();
                for (index, (rule, item)) in items.zip(value.as_array().into_iter().flatten()).enumerate() {
                    check(
                        document,
                        rule,
                        item,
                        &format!("{place}/{index}"),
                        Others::Refused,
                        faults,
                    );
                }
            }
            "minItems" | "maxItems" => {
                let len = value.as_array().map_or(0, |items| items.len() as u64);
                let limit = rule.as_u64().unwrap_or_default();
                if keyword == "minItems" && len < limit || keyword == "maxItems" && len > limit {
                    faults.push(format!("{place}: {len} items are beyond {keyword} {limit}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(
                        document,
                        rule,
                        item,
                        &format!("{place}/{index}"),
                        Others::Refused,
                        faults,
                    );
                }
            }
            "allOf" => {
                for rule in rule.as_array().into_iter().flatten() {
                    check(document, rule, value, place, inner, faults);
                }
            }
            "anyOf" | "oneOf" => {
                let tried = rule.as_array().into_iter().flatten();
                let tried: Vec<Vec<String>> = tried
                    .map(|rule| {
                        let mut faults = Vec::new();
                        check(document, rule, value, "", inner, &mut faults);
                        faults
                    })
                    .collect();
                let fitting = tried.iter().filter(|faults| faults.is_empty()).count();
                if fitting == 0 || keyword == "oneOf" && fitting > 1 {
                    faults.push(format!("{place}: {fitting} of {keyword} fit {value}: {tried:?}"));
                }
            }
            _ => faults.push(format!("{place}: {keyword} is not understood here")),
        }
    }
    let closed = others == Others::Refused && !members.contains_key("additionalProperties") && !open(members);
    if closed && members.contains_key("properties") {
        let known = |name: &str| members["properties"].get(name).is_some();
        let unknown = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
        faults.extend(unknown.map(|(name, _)| format!("{place}: {name} is not described")));
    }
}

/// Whether other members are described elsewhere in the same schema.
fn open(members: &serde_json::Map<String, Value>) -> bool {
    ["$ref", "allOf", "anyOf", "oneOf"]
        .iter()
        .any(|keyword| members.contains_key(*keyword))
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    }
}
