//! Text from outside as it may be shown.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Cuts `text` to `max` bytes, between two characters; nor does it take more memory than that.
pub fn cut(text: &mut String, max: usize) {
    let mut len = max.min(text.len());
    while !text.is_char_boundary(len) {
        len -= 1; // zero is a boundary
    }
    text.truncate(len);
    text.shrink_to(max);
}

/// Whether a character changes how other text is shown instead of being shown itself: control characters (which end lines and
/// drive terminals), and the invisible ones that reorder or separate text (Unicode's bidirectional controls, separators and
/// tags). Joiners stay: words of several scripts need them.
pub fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with its misleading characters escaped, so that no name can move a cursor, forge a line of a log, or turn the
/// words around it.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_misleading) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_misleading(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// The JSON with its misleading characters written as JSON's own escapes (RFC 8259 §7), which every reader reads as the same
/// text. JSON has no control characters but the white space between its values; that stays.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let is_hidden = |character: char| is_misleading(character) && !character.is_ascii_control();
    if !json.contains(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_hidden(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // A `String` takes all that is written to it.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_escaped_and_nothing_else() {
        let rows = [
            ("a\r\nb\tc", r"a\r\nb\tc"),
            ("\u{1b}[2J\u{9b}31m\u{7f}", r"\u{1b}[2J\u{9b}31m\u{7f}"),
            ("nimda\u{202e}x", r"nimda\u{202e}x"),
            ("\u{2066}a\u{2069}\u{200f}\u{61c}", r"\u{2066}a\u{2069}\u{200f}\u{61c}"),
            ("a\u{2028}b\u{feff}c\u{e0041}", r"a\u{2028}b\u{feff}c\u{e0041}"),
            (
                "naïve ☃ עברית می\u{200c}خواهم 👩\u{200d}👧",
                "naïve ☃ עברית می\u{200c}خواهم 👩\u{200d}👧",
            ),
        ];
        for (text, shown) in rows {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"name": "a\u{202e}b\r\n\u{e0041}\u{9b}c", "☃": [1, "\u{2028}"]});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = visible_json(&json);
            assert!(!shown.contains(|c| is_misleading(c) && c != '\n'), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
