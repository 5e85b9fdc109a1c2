//! Words that were given up for the terms of the field stay given up.

use crate::source::File;

/// What nobody but its author understood, and what to say instead. The glossary of ARCHITECTURE.md has the words in use.
pub(crate) const GIVEN_UP: [(&str, &str); 6] = [
    ("guest", "what it is"),
    ("hearsay", "incoming reports"),
    ("retarget", "select a layer"),
    ("retune", "select a layer"),
    ("steering", "pause state"),
    ("teller", "reporter"),
];

/// Every given-up word in the code that ships, in names and in comments.
pub(crate) fn given_up(file: &File) -> Vec<String> {
    if !file.ships() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for word in line.split(|letter: char| !letter.is_ascii_alphabetic()) {
            let word = word.to_ascii_lowercase();
            let singular = word.strip_suffix('s').unwrap_or(&word);
            if let Some((_, instead)) = GIVEN_UP.iter().find(|(old, _)| [word.as_str(), singular].contains(old)) {
                problems.push(format!("{}:{}: {word}: say {instead}", file.path, number + 1));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_up_words_are_found_in_names_and_comments() {
        let check = |path, text| given_up(&File::sample(path, text)).len();
        assert_eq!(check("src/a.rs", "fn retune_all() {} // the Guests' own"), 2);
        assert_eq!(check("src/a.rs", "fn select(best: Guess) {}"), 0);
        assert_eq!(check("tests/a.rs", "// hearsay"), 0, "a test's words are its own");
    }
}
