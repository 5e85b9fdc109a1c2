//! The coalescing window, as the command line has it.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use weir::{Coalescing, Settings};

/// The longest window that can be set, in microseconds.
const US_MAX: u32 = Coalescing::WINDOW_US_MAX;

/// How long a packet may wait, so that it is sent together with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Window {
    /// As servers have it if nobody says otherwise.
    Auto,
    /// At most so many microseconds; 0 is off.
    Us(u32),
}

impl Window {
    /// The longest wait, in microseconds.
    pub(super) fn us_max(self) -> u32 {
        match self {
            Self::Auto => Settings::default().coalescing_us_max,
            Self::Us(us) => us,
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(us @ 0..=US_MAX) => Ok(Self::Us(us)),
            _ => Err(format!("a window is `auto`, or microseconds in 0..={US_MAX}")),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Us(us) => us.fmt(f),
        }
    }
}

/// A number, or `"auto"`.
impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Us(us) => serializer.serialize_u32(*us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_time_or_auto() {
        for (text, window, us_max, json) in [
            ("0", Window::Us(0), 0, "0"),
            ("1000", Window::Us(1_000), 1_000, "1000"),
            ("auto", Window::Auto, 0, "\"auto\""),
        ] {
            let parsed: Window = text.parse().expect(text);
            assert_eq!((parsed, parsed.us_max()), (window, us_max));
            assert_eq!(parsed.to_string(), text);
            assert_eq!(serde_json::to_string(&parsed).expect("JSON"), json);
        }
        for text in ["", "1001", "-1", "Auto", "10us", "1.5"] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}
