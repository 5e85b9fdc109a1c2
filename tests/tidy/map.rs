//! The code map of ARCHITECTURE.md: every source file under its folder, with the first sentence of its documentation.

use crate::source::File;

const BEGIN: &str = "<!-- code map: `just code-map` writes it from the first sentence of each file -->\n";
const END: &str = "<!-- end of the code map -->\n";

/// The order of a reader, who comes from the outside.
const FOLDERS: [&str; 8] = [
    "src",
    "channel",
    "worker",
    "recordings",
    "tests",
    "benches",
    "fuzz",
    "examples",
];

/// The map, and a complaint about every file that does not say what it is.
pub(crate) fn draw(files: &[File]) -> (String, Vec<String>) {
    let mut map = String::new();
    let mut problems = Vec::new();
    for top in FOLDERS {
        let mut folder = "";
        let mut sources: Vec<_> = files
            .iter()
            .filter(|file| file.is_rust() && file.path.split('/').next() == Some(top))
            .filter_map(|file| {
                file.path
                    .rsplit_once('/')
                    .map(|(folder, name)| (folder, rank(name), name, file))
            })
            .collect();
        sources.sort_by_key(|(folder, rank, name, _)| (*folder, *rank, *name));
        for (own_folder, _, name, file) in sources {
            if own_folder != folder {
                folder = own_folder;
                map.push_str(&format!("\n### `{folder}/`\n\n"));
            }
            match first_sentence(&file.text) {
                Some(sentence) => map.push_str(&format!("- `{name}`: {sentence}\n")),
                None => problems.push(format!("{}: no `//!` line says what it is", file.path)),
            }
        }
    }
    (map, problems)
}

/// A folder's own file comes first.
fn rank(name: &str) -> u8 {
    u8::from(!matches!(name, "lib.rs" | "main.rs" | "mod.rs"))
}

/// Whether `page` holds `map` between its marks.
pub(crate) fn check(page: &str, map: &str) -> Vec<String> {
    let Some((_, held, _)) = parts(page) else {
        return vec!["ARCHITECTURE.md: the marks of the code map are gone".into()];
    };
    let (held, map): (Vec<_>, Vec<_>) = (held.lines().collect(), map.lines().collect());
    let stale = held
        .iter()
        .filter(|line| !map.contains(line))
        .map(|line| format!("ARCHITECTURE.md: not so: {line}"));
    let missing = map
        .iter()
        .filter(|line| !held.contains(line))
        .map(|line| format!("ARCHITECTURE.md: missing: {line}"));
    let mut problems: Vec<_> = stale.chain(missing).collect();
    if problems.is_empty() && held != map {
        problems.push("ARCHITECTURE.md: the code map's lines are in another order".into());
    }
    if !problems.is_empty() {
        problems.push("`just code-map` writes the map anew".into());
    }
    problems
}

/// `page` with `map` between its marks.
pub(crate) fn put(page: &str, map: &str) -> Option<String> {
    let (before, _, after) = parts(page)?;
    Some(format!("{before}{map}{after}"))
}

/// What is before the map, the map, and what is after it, each with its marks.
fn parts(page: &str) -> Option<(&str, &str, &str)> {
    let begin = page.find(BEGIN)? + BEGIN.len();
    let end = begin + page[begin..].find(END)?;
    Some((&page[..begin], &page[begin..end], &page[end..]))
}

/// The first sentence of a module's documentation, as plain Markdown.
fn first_sentence(text: &str) -> Option<String> {
    let paragraph = text
        .lines()
        .skip_while(|line| !line.starts_with("//!"))
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if paragraph.is_empty() {
        return None;
    }
    let end = paragraph
        .match_indices(". ")
        .find(|(at, stop)| {
            let next = paragraph[at + stop.len()..].chars().next();
            next.is_some_and(|next| next.is_uppercase() || next == '[' || next == '`')
                && !paragraph[..*at].ends_with("e.g")
        })
        .map_or(paragraph.len(), |(at, _)| at + 1);
    Some(without_links(&paragraph[..end]))
}

/// `` [`Name`](path) `` and `` [`Name`] `` are links in rustdoc only.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(open) = rest.find("[`") {
        let Some(close) = rest[open..].find("`]").map(|close| open + close + 2) else {
            break;
        };
        plain.push_str(&rest[..open]);
        plain.push_str(&rest[open + 1..close - 1]);
        rest = &rest[close..];
        if rest.starts_with('(') {
            rest = rest.find(')').map_or(rest, |end| &rest[end + 1..]);
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(first_sentence(text).as_deref(), expected);
        check("//! One noun.\n//!\n//! More.\n", Some("One noun."));
        check(
            "//! One noun, e.g. This\n//! one. And more.\n",
            Some("One noun, e.g. This one."),
        );
        check("//! [`A`](crate::a::A) of [`B`]: 0.1. Then", Some("`A` of `B`: 0.1."));
        check("#![no_main]\n//! Target.\n", Some("Target."));
        check("use a;\n", None);
    }

    #[test]
    fn both_ways() {
        let files = [
            File::sample("src/lib.rs", "//! The library.\n"),
            File::sample("src/a.rs", "//! A thing.\n"),
            File::sample("worker/src/b.rs", "//! Another.\n"),
        ];
        let (map, problems) = draw(&files);
        assert_eq!(problems.len(), 0);
        assert_eq!(
            map,
            "\n### `src/`\n\n- `lib.rs`: The library.\n- `a.rs`: A thing.\n\n### `worker/src/`\n\n- `b.rs`: Another.\n"
        );
        let page = put(&format!("Top\n{BEGIN}old\n{END}Bottom\n"), &map).expect("the marks are there");
        assert!(page.starts_with("Top\n") && page.ends_with("Bottom\n"));
        assert!(check(&page, &map).is_empty());
        assert!(
            !check(&page.replace("- `a.rs`: A thing.\n", ""), &map).is_empty(),
            "a file is missing"
        );
        assert!(
            !check(&page.replace("Another.", "Another.\n- `c.rs`: Gone."), &map).is_empty(),
            "a file is gone"
        );
        assert!(!check("no marks", &map).is_empty());
        assert_eq!(
            draw(&[File::sample("src/a.rs", "fn a() {}")]).1.len(),
            1,
            "it does not say what it is"
        );
    }
}
