//! The repository as text: its files, and Rust sources without comments, literals and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
pub(crate) struct File {
    /// From the repository's root, with slashes.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

impl File {
    /// A made-up file, to show that a rule can fail.
    #[cfg(test)]
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// Whether it is code that ships: not a test, a bench, an example or a fuzz target.
    pub(crate) fn ships(&self) -> bool {
        let root = self.path.split('/').next().unwrap_or_default();
        self.is_rust()
            && matches!(root, "src" | "channel" | "recordings" | "worker")
            && !self.path.ends_with("/tests.rs")
            && !self.path.contains("/tests/")
            && !self.path.contains("/benches/")
    }

    /// Whether it is a Rust source.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is a page of documentation.
    pub(crate) fn is_page(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// Its lines down to the tests at its end.
    pub(crate) fn lines_without_tests(&self) -> usize {
        without_tests(&self.text).lines().count()
    }

    /// Its code alone: no tests, no comments, nothing between quotes. Line numbers stay what they are.
    pub(crate) fn code(&self) -> String {
        strip(without_tests(&self.text))
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository, in order of its path.
pub(crate) fn repository() -> Vec<File> {
    const NOT_OURS: [&str; 7] = [
        ".git",
        "target",
        "corpus",
        "artifacts",
        "coverage",
        "node_modules",
        ".venv",
    ];
    const TEXT: [&str; 9] = ["rs", "md", "toml", "sh", "json", "html", "js", "css", "yml"];
    const TEXT_NAMES: [&str; 4] = ["justfile", "run", ".gitignore", ".gitattributes"];
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the repository can be read") {
            let path = entry.expect("its entries too").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() && !path.is_symlink() {
                if !NOT_OURS.contains(&name) {
                    walk(&path, files);
                }
            } else if extension.is_some_and(|extension| TEXT.contains(&extension)) || TEXT_NAMES.contains(&name) {
                files.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let relative = path.strip_prefix(&root).expect("it is below the root");
            let text = fs::read_to_string(&path).ok()?;
            Some(File {
                path: relative.to_string_lossy().replace('\\', "/"),
                text,
            })
        })
        .collect()
}

/// The text before `#[cfg(test)] mod …`, which stands last in a file.
fn without_tests(text: &str) -> &str {
    let end = text
        .match_indices("#[cfg(test)]\n")
        .find(|(at, mark)| {
            let rest = text[at + mark.len()..].trim_start();
            rest.starts_with("mod ")
                || rest.starts_with("#[path")
                || rest.starts_with("#[expect")
                || rest.starts_with("#[allow")
        })
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Blanks out comments and literals; keeps line breaks.
fn strip(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = at
            + if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                block_comment(rest)
            } else if let Some(len) = raw_string(rest, code.chars().next_back()) {
                len
            } else if rest.starts_with('"') {
                quoted(rest, '"')
            } else if let Some(len) = character(rest) {
                len
            } else {
                let kept = rest.chars().next().expect("there is a rest");
                code.push(kept);
                at += kept.len_utf8();
                continue;
            };
        code.extend(text[at..end].chars().filter(|kept| *kept == '\n'));
        code.push(' ');
        at = end;
    }
    code
}

/// Length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of a raw string, if one begins here.
fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|before| before.is_alphanumeric() || before == '_') {
        return None; // the end of an identifier
    }
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| text.starts_with(prefix))?;
    let hashes = text[prefix.len()..].bytes().take_while(|byte| *byte == b'#').count();
    let body = prefix.len() + hashes;
    text[body..].starts_with('"').then(|| {
        let close = format!("\"{}", "#".repeat(hashes));
        text[body + 1..]
            .find(&close)
            .map_or(text.len(), |found| body + 1 + found + close.len())
    })
}

/// Length of a literal between `quote`s.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal, if one begins here; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    if !text.starts_with('\'') {
        return None;
    }
    let (_, first) = characters.next()?;
    let (_, second) = characters.next()?;
    (first == '\\' || second == '\'').then(|| quoted(text, '\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &[&str]) {
        let file = File::sample("src/a.rs", source);
        let code = file.code();
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), expected, "{source}");
        assert_eq!(code.matches('\n').count(), without_tests(source).matches('\n').count());
    }

    #[test]
    fn code_alone() {
        check("let a = 1; // unsafe\nb", &["let", "a", "=", "1;", "b"]);
        check("a /* b /* c */ d\n */ e", &["a", "e"]);
        check(r#"f("x // \" y", 'z', '\'', 'ä') g"#, &["f(", ",", ",", ",", ")", "g"]);
        check("fn f<'a>(x: &'a str) {}", &["fn", "f<'a>(x:", "&'a", "str)", "{}"]);
        check("r\"a\" r#\"b\" c\"# br\"d\" for\"e\" x", &["for", "x"]);
        check("a\n#[cfg(test)]\nmod tests {\n unsafe\n}\n", &["a"]);
        check("#[cfg(test)]\nfn kept() {}\n", &["#[cfg(test)]", "fn", "kept()", "{}"]);
    }

    #[test]
    fn what_ships() {
        let ships = |path: &str| File::sample(path, "").ships();
        assert!(ships("src/lib.rs") && ships("worker/src/relay/mod.rs") && ships("channel/src/id.rs"));
        assert!(!ships("tests/a.rs") && !ships("channel/tests/a.rs") && !ships("worker/src/relay/tests.rs"));
        assert!(!ships("fuzz/fuzz_targets/a.rs") && !ships("src/a.md"));
    }

    #[test]
    fn the_repository_is_read() {
        let files = repository();
        assert!(files.iter().any(|file| file.path == "tests/tidy/source.rs"));
        assert!(files.iter().any(|file| file.path == "worker/src/lib.rs"));
        assert!(files.iter().all(|file| !file.path.starts_with("target/")));
    }
}
