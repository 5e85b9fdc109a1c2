//! Words that stand for the variants of an enum, where people and clients write them.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer};

/// Writes and reads an enum by its words. The refusal of another word names them all.
#[macro_export]
macro_rules! words {
    ($name:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("choose from {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

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

#[cfg(test)]
mod tests {
    use crate::message::{IceProtocol, LogLevel, Profile};

    #[test]
    fn the_refusal_of_a_word_names_all_that_there_are() {
        for profile in [Profile::Default, Profile::Low, Profile::Medium, Profile::High] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        let refusal = |word: &str| word.parse::<IceProtocol>().unwrap_err();
        assert_eq!(refusal("sctp"), "choose from udp, tcp");
        assert_eq!(refusal(""), "choose from udp, tcp");
        assert!(
            "Error".parse::<LogLevel>().is_err(),
            "as in JSON, unless the field says otherwise"
        );
    }
}
