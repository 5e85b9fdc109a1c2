//! Parameters and capabilities as clients write them.
//!
//! The library and the HTTP interface refuse members they do not know, so that a typo is not taken for a default. A browser
//! cannot be asked to mend its messages, and newer ones say more than older ones: in what clients of the mediasoup protocol
//! send, members that are not known, and those that are null, are left out before it is read. What is known is what the
//! schemas of the types have.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::server::model::rtp_capabilities::RtpCapabilities;
use crate::server::model::rtp_parameters::RtpParameters;

/// The RTP parameters that a client sent, without what is not known.
pub(crate) fn known_parameters(value: Value) -> Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<RtpParameters>);
    keep(value, &SCHEMA)
}

/// The RTP capabilities that a client sent, without what is not known.
pub(crate) fn known_capabilities(value: Value) -> Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<RtpCapabilities>);
    keep(value, &SCHEMA)
}

/// The schema by which a type is read, without references.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let inlined = settings.with(|settings| settings.inline_subschemas = true);
    inlined.into_generator().into_root_schema_for::<T>().to_value()
}

/// Without the members that are not among an object's `properties`. An object whose schema has none may have any.
fn keep(value: Value, schema: &Value) -> Value {
    // What may be null is described as one of two: itself, or null.
    let schema = schema["anyOf"].get(0).unwrap_or(schema);
    match (value, &schema["properties"], &schema["items"]) {
        (Value::Object(mut object), Value::Object(members), _) => {
            let known = members.iter().filter_map(|(name, schema)| {
                let (name, value) = object.remove_entry(name)?;
                (!value.is_null()).then(|| (name, keep(value, schema)))
            });
            Value::Object(known.collect())
        }
        (Value::Array(values), _, items) => values.into_iter().map(|value| keep(value, items)).collect(),
        (other, ..) => other,
    }
}
