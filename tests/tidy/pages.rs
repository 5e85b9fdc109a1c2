//! Rules for the pages of documentation: links lead somewhere, decisions are listed, promises are held by something.

use std::path::Path;

use crate::source::File;

/// Every link of a page leads to a file, and to a heading if it names one.
pub(crate) fn links(page: &File, files: &[File], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, target) in link_targets(&page.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
        let path = if path.is_empty() {
            page.path.clone()
        } else {
            resolve(&page.path, path)
        };
        if !exists(&path) {
            problems.push(format!("{}:{line}: {target} leads nowhere", page.path));
        } else if !heading.is_empty() {
            let there = files.iter().find(|file| file.path == path);
            if !there.is_some_and(|file| headings(&file.text).any(|slug| slug == heading)) {
                problems.push(format!("{}:{line}: {path} has no heading #{heading}", page.path));
            }
        }
    }
    problems
}

/// Every page that code or a page names by its path is there: from the root, or from the file's own folder.
pub(crate) fn named_pages(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let part_of_path = |character: char| character.is_alphanumeric() || "_-./".contains(character);
        for word in line.split(|character| !part_of_path(character)) {
            let word = word
                .trim_end_matches('.')
                .trim_start_matches("./")
                .trim_start_matches('/');
            if word.len() > 3
                && word.ends_with(".md")
                && !word.contains("//")
                && !exists(word)
                && !exists(&resolve(&file.path, word))
            {
                problems.push(format!("{}:{}: there is no {word}", file.path, number + 1));
            }
        }
    }
    problems
}

/// Every source file that a page names in a code span is there: `relay/mod.rs` is the end of some file's path.
pub(crate) fn named_sources(page: &File, files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in page.text.lines().enumerate() {
        for span in code_spans(line) {
            let name = span.split("::").next().unwrap_or_default();
            let is_path = |part: char| part.is_ascii_alphanumeric() || "_-./".contains(part);
            let ends = |file: &File| file.path == name || file.path.ends_with(&format!("/{name}"));
            if name.len() > 3 && name.ends_with(".rs") && name.chars().all(is_path) && !files.iter().any(ends) {
                problems.push(format!("{}:{}: there is no {name}", page.path, number + 1));
            }
        }
    }
    problems
}

/// The decisions are numbered without a gap, each says what was decided and what was not, and the index lists them all.
pub(crate) fn decisions(files: &[File]) -> Vec<String> {
    const FOLDER: &str = "docs/decisions/";
    let mut problems = Vec::new();
    let index = files
        .iter()
        .find(|file| file.path == format!("{FOLDER}README.md"))
        .map_or("", |file| &file.text);
    let decisions = files.iter().filter_map(|file| {
        let name = file.path.strip_prefix(FOLDER)?;
        (name.ends_with(".md") && name != "README.md").then_some((name, file))
    });
    for (place, (name, file)) in decisions.enumerate() {
        if !name.starts_with(&format!("{:04}-", place + 1)) {
            problems.push(format!("{}: should be number {:04}", file.path, place + 1));
        }
        if !index.contains(&format!("]({name})")) {
            problems.push(format!("{FOLDER}README.md does not list {name}"));
        }
        for part in ["## Context", "## Decision", "## Not taken"] {
            if !file.text.lines().any(|line| line == part) {
                problems.push(format!("{}: no part '{part}'", file.path));
            }
        }
    }
    problems
}

/// Every section that code cites (as "differences", the sign, the number) is a section of `page`. "spec" would not say
/// of which page.
pub(crate) fn cited_sections(file: &File, page: &File) -> Vec<String> {
    let known: Vec<String> = page
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("##"))
        .flat_map(|heading| {
            let numbers = heading.trim_start_matches('#').split_whitespace();
            numbers
                .map(|number| number.trim_end_matches(',').to_owned())
                .take_while(|number| number.starts_with(|first: char| first.is_ascii_digit()))
        })
        .collect();
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        if line.to_lowercase().contains("spec §") {
            problems.push(format!("{}:{}: of which page?", file.path, number + 1));
        }
        for (at, mark) in line.match_indices("differences §") {
            let cited: String = line[at + mark.len()..]
                .chars()
                .take_while(|character| character.is_ascii_digit() || *character == '.')
                .collect();
            let cited = cited.trim_end_matches('.');
            if !known.iter().any(|known| known == cited) {
                problems.push(format!(
                    "{}:{}: {} has no section {cited}",
                    file.path,
                    number + 1,
                    page.path
                ));
            }
        }
    }
    problems
}

/// The folders in the first column of the page's tables are there, and every folder of code that ships is one of them.
/// The folder of a file with the same name (`egress.rs`, `egress/`) may go without.
pub(crate) fn folders(page: &File, files: &[File]) -> Vec<String> {
    let rows: Vec<String> = first_cells(page)
        .flat_map(code_spans)
        .filter(|span| span.ends_with('/'))
        .collect();
    let gone = rows
        .iter()
        .filter(|row| !files.iter().any(|file| file.path.starts_with(row.as_str())))
        .map(|row| format!("{}: there is no {row}", page.path));
    let mut sources: Vec<&str> = files
        .iter()
        .filter(|file| file.ships())
        .filter_map(|file| file.path.rsplit_once('/').map(|(folder, _)| folder))
        .filter(|folder| !files.iter().any(|file| file.path == format!("{folder}.rs")))
        .collect();
    sources.dedup();
    let missing = sources
        .iter()
        .filter(|folder| !rows.contains(&format!("{folder}/")))
        .map(|folder| format!("{} does not say what {folder}/ is", page.path));
    gone.chain(missing).collect()
}

/// The glossary is at most 60 lines long, in order, and what it says of where a word lives is there.
pub(crate) fn glossary(page: &File, files: &[File]) -> Vec<String> {
    let Some((_, glossary)) = page.text.split_once("\n## Glossary\n") else {
        return vec![format!("{} has no glossary", page.path)];
    };
    let glossary = glossary.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = glossary.lines().filter(|line| line.starts_with("| **")).collect();
    let mut problems = Vec::new();
    if rows.len() > 60 {
        problems.push(format!("{}: a glossary of {} lines", page.path, rows.len()));
    }
    let words: Vec<String> = rows.iter().map(|row| row.to_lowercase()).collect();
    if let Some(pair) = words.windows(2).find(|pair| pair[0] > pair[1]) {
        problems.push(format!("{}: out of order: {}", page.path, pair[1]));
    }
    for row in rows {
        let last = row
            .trim_end()
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .unwrap_or_default();
        for span in code_spans(last) {
            if !files
                .iter()
                .any(|file| file.path == span || file.path.starts_with(&format!("{}/", span.trim_end_matches('/'))))
            {
                problems.push(format!("{}: there is no {span}: {row}", page.path));
            }
        }
    }
    problems
}

/// Every name is a code span in the first column of the page's tables, and every such code span is a name.
pub(crate) fn listed(page: &File, names: &[&str]) -> Vec<String> {
    let rows: Vec<String> = first_cells(page)
        .filter_map(|cell| code_spans(cell).into_iter().next())
        .collect();
    let missing = names.iter().filter(|name| !rows.iter().any(|row| row == *name));
    let gone = rows.iter().filter(|row| !names.contains(&row.as_str()));
    missing
        .map(|name| format!("{} does not list {name}", page.path))
        .chain(gone.map(|row| format!("{}: there is no {row}", page.path)))
        .collect()
}

/// What holds each promise of SPECIFICATION.md: the code spans in the last cell of each row of its tables.
pub(crate) fn promises(page: &File) -> Vec<(usize, Vec<String>)> {
    let mut rows = Vec::new();
    let mut below_header = false;
    for (number, line) in page.text.lines().enumerate() {
        let Some(cells) = line.strip_prefix('|') else {
            below_header = false;
            continue;
        };
        if cells.starts_with("--") || cells.starts_with(" --") || cells.starts_with(":-") {
            below_header = true;
        } else if below_header {
            let last = cells
                .trim_end()
                .trim_end_matches('|')
                .rsplit('|')
                .next()
                .unwrap_or_default();
            rows.push((number + 1, code_spans(last)));
        }
    }
    rows
}

/// Whether a promise's holder is there: `file.rs::function`, or a file of its own. Commands are another rule's.
pub(crate) fn holder(reference: &str, files: &[File]) -> Option<String> {
    let (path, function) = reference.split_once("::").unwrap_or((reference, ""));
    let Some(file) = files.iter().find(|file| file.path == path) else {
        return Some(format!("there is no {path}"));
    };
    let name = function.rsplit("::").next().unwrap_or_default();
    if !name.is_empty() && !file.text.contains(&format!("fn {name}(")) {
        return Some(format!("{path} has no fn {name}"));
    }
    None
}

/// The first cells of the page's tables, where they begin with a code span.
fn first_cells(page: &File) -> impl Iterator<Item = &str> {
    let rows = page.text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(" |").next())
        .filter(|cell| cell.starts_with('`'))
}

/// The code spans of a line.
pub(crate) fn code_spans(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(String::from).collect()
}

/// Inline links and images, with the line they are on; none inside code.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Code spans may stand inside a link's text; what they hold is no link.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("_");
        for (at, mark) in plain.match_indices("](") {
            if let Some(end) = plain[at..].find(')') {
                found.push((number + 1, plain[at + mark.len()..at + end].trim().into()));
            }
        }
    }
    found
}

/// The anchors of a page's headings.
fn headings(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        line.trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|kept| kept.is_alphanumeric() || matches!(kept, ' ' | '-' | '_'))
            .map(|kept| if kept == ' ' { '-' } else { kept })
            .collect()
    })
}

/// A path as seen from a page's folder.
fn resolve(page: &str, target: &str) -> String {
    let mut path: Vec<&str> = Path::new(page)
        .parent()
        .and_then(Path::to_str)
        .map(|folder| folder.split('/').filter(|part| !part.is_empty()).collect())
        .unwrap_or_default();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(path: &str) -> bool {
        ["README.md", "docs/a.md", "docs", "src/a.rs"].contains(&path)
    }

    #[test]
    fn links_lead_somewhere() {
        let files = [
            File::sample("README.md", "# Top part\n## The `x` of y\n"),
            File::sample("docs/a.md", ""),
        ];
        let check = |path, text| links(&File::sample(path, text), &files, exists).len();
        assert_eq!(
            check("README.md", "[a](docs/a.md) [`b`](docs/) [c](https://b.example/)"),
            0
        );
        assert_eq!(check("README.md", "[a](docs/b.md)"), 1);
        assert_eq!(
            check("docs/a.md", "[a](../README.md#top-part) [x](../README.md#the-x-of-y)"),
            0
        );
        assert_eq!(check("docs/a.md", "[a](README.md)\n[b](../README.md#bottom)"), 2);
        assert_eq!(check("README.md", "```\n[a](b)\n```\n`[a](b)`"), 0);
    }

    #[test]
    fn named_pages_exist() {
        let check = |path, text| named_pages(&File::sample(path, text), exists).len();
        assert_eq!(check("src/a.rs", "// docs/a.md, README.md."), 0);
        assert_eq!(check("docs/b.rs", "// a.md says why"), 0);
        assert_eq!(check("src/a.rs", "// docs/b.md (see)\n// \"*.md\" and .md"), 1);
    }

    #[test]
    fn named_sources_exist() {
        let files = [File::sample("src/a/mod.rs", ""), File::sample("src/b.rs", "")];
        let check = |text| named_sources(&File::sample("A.md", text), &files).len();
        assert_eq!(check("`a/mod.rs`, `src/b.rs`, `b.rs::tests::all`, `*.rs`, `.rs`"), 0);
        assert_eq!(check("`c.rs`\n`rc/b.rs`"), 2);
    }

    #[test]
    fn decisions_are_listed() {
        let page = "## Context\n## Decision\n## Not taken\n";
        let check = |index: &str, name: &str, page: &str| {
            decisions(&[
                File::sample(&format!("docs/decisions/{name}"), page),
                File::sample("docs/decisions/README.md", index),
            ])
            .len()
        };
        assert_eq!(check("[1](0001-a.md)", "0001-a.md", page), 0);
        assert_eq!(check("", "0001-a.md", page), 1);
        assert_eq!(check("[1](0002-a.md)", "0002-a.md", page), 1);
        assert_eq!(check("[1](0001-a.md)", "0001-a.md", "## Context\n"), 2);
    }

    #[test]
    fn cited_sections_exist() {
        let page = File::sample("d.md", "## 2 All\n### 2.5 One\n### 2.7, 2.8 Two\n");
        let check = |text: &str| cited_sections(&File::sample("src/a.rs", text), &page).len();
        assert_eq!(check("// differences §2 and (differences §2.5), differences §2.8."), 0);
        assert_eq!(check("// differences §2.6\n// differences §12"), 2);
        assert_eq!(check("// spec §2\n// RFC 3550 §6"), 1);
    }

    #[test]
    fn lists_are_complete_both_ways() {
        let page = File::sample("d.md", "| Name | |\n|---|---|\n| `a` | x |\n| `b` | `c` |\n");
        assert_eq!(listed(&page, &["a", "b"]).len(), 0);
        assert_eq!(listed(&page, &["a"]).len(), 1);
        assert_eq!(listed(&page, &["a", "b", "c"]).len(), 1);
    }

    #[test]
    fn every_folder_is_known() {
        let files = ["src/lib.rs", "src/a/mod.rs", "src/b.rs", "src/b/c.rs", "tests/d/mod.rs"];
        let files = files.map(|path| File::sample(path, ""));
        let check = |text| folders(&File::sample("A.md", text), &files).len();
        assert_eq!(check("| `src/` | all |\n| `src/a/`, `src/b/` | x |\n"), 0);
        assert_eq!(check("| `src/` | all |\n"), 1, "a folder without a row");
        assert_eq!(
            check("| `src/` | all |\n| `src/a/` | |\n| `src/e/` | |\n"),
            1,
            "a row without a folder"
        );
    }

    #[test]
    fn the_glossary_is_short_and_in_order() {
        let files = [File::sample("src/a/mod.rs", "")];
        let check = |text: &str| glossary(&File::sample("A.md", text), &files).len();
        let row = |word: &str, place: &str| format!("| **{word}** | x | `{place}` |\n");
        assert_eq!(
            check(&format!(
                "\n## Glossary\n{}{}",
                row("a", "src/a/"),
                row("b", "src/a/mod.rs")
            )),
            0
        );
        assert_eq!(
            check(&format!("\n## Glossary\n{}{}", row("b", "src/a"), row("a", "src/a"))),
            1
        );
        assert_eq!(check(&format!("\n## Glossary\n{}", row("a", "src/c.rs"))), 1);
        assert_eq!(check(&format!("\n## Glossary\n{}", row("a", "src/a").repeat(61))), 1);
        assert_eq!(check("## Words\n"), 1);
    }

    #[test]
    fn promises_are_held() {
        let page = File::sample(
            "SPECIFICATION.md",
            "|a|b|\n|---|---|\n| x | `t.rs::f`, `weir load` |\n| y | trust |\n\nend",
        );
        assert_eq!(
            promises(&page),
            [
                (3, vec!["t.rs::f".into(), "weir load".into()]),
                (4, Vec::<String>::new())
            ]
        );
        let files = [File::sample("t.rs", "#[test]\nfn f() {}")];
        assert_eq!(holder("t.rs::f", &files), None);
        assert_eq!(holder("t.rs::tests::f", &files), None);
        assert_eq!(holder("t.rs", &files), None);
        assert!(holder("t.rs::g", &files).is_some());
        assert!(holder("u.rs", &files).is_some());
    }
}
