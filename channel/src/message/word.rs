//! Words that have no case where people and clients write them.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer};

/// Reads a word of an enum whose words are in lower case, whatever its case where it was written: in JSON and the like. In the
/// bytes between processes it is what the enum is there.
///
/// # Errors
///
/// As the enum's own reading of the word in lower case.
pub fn any_case<'de, D: Deserializer<'de>, T: DeserializeOwned>(reader: D) -> Result<T, D::Error> {
    if !reader.is_human_readable() {
        return T::deserialize(reader);
    }
    let mut word = String::deserialize(reader)?;
    word.make_ascii_lowercase();
    T::deserialize(IntoDeserializer::<D::Error>::into_deserializer(word))
}

/// As [`any_case`], of a word that may be `null` or, with `#[serde(default)]`, left out.
///
/// # Errors
///
/// As [`any_case`].
pub fn any_case_if_any<'de, D: Deserializer<'de>, T: DeserializeOwned>(reader: D) -> Result<Option<T>, D::Error> {
    if !reader.is_human_readable() {
        return Option::deserialize(reader);
    }
    let word = Option::<String>::deserialize(reader)?;
    let read = |mut word: String| {
        word.make_ascii_lowercase();
        T::deserialize(IntoDeserializer::<D::Error>::into_deserializer(word))
    };
    word.map(read).transpose()
}
