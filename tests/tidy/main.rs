//! What the repository promises of itself, held by `cargo test`: layers, purity, `unsafe`, lengths, names, folders,
//! links, commands, decisions and promises.
//!
//! Each rule is a function from files to complaints, tested on small bad samples beside it; here they meet the repository.

mod code;
mod commands;
mod pages;
mod source;
mod words;

use std::fs;

use crate::source::{File, repository, root};

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn check_each(rule: impl Fn(&File) -> Vec<String>) {
    assert_none(repository().iter().flat_map(rule).collect());
}

fn page<'a>(files: &'a [File], path: &str) -> &'a File {
    let found = files.iter().find(|file| file.path == path);
    found.unwrap_or_else(|| panic!("there is no {path}"))
}

fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// The rules' own samples break the rules.
fn is_sample(file: &File) -> bool {
    file.path.starts_with("tests/tidy/")
}

#[test]
fn dependencies_point_one_way() {
    check_each(code::layers);
    let files = repository();
    for folder in ["src/server/", "src/server/model/", "src/server/workers/"] {
        assert_none(code::circles(&files, folder));
    }
}

#[test]
fn the_channel_depends_on_neither_side() {
    let manifest = fs::read_to_string(root().join("channel/Cargo.toml")).expect("the channel has a manifest");
    assert!(
        manifest.contains("[dependencies]"),
        "the manifest is the one that is meant"
    );
    for line in manifest.lines().filter(|line| !line.starts_with("name")) {
        assert!(!line.starts_with("weir"), "the channel depends on {line}");
    }
}

#[test]
fn no_clock_and_no_socket_in_the_core() {
    check_each(code::purity);
}

#[test]
fn unsafe_only_where_it_is_allowed() {
    check_each(|file| {
        if is_sample(file) {
            Vec::new()
        } else {
            code::unsafety(file)
        }
    });
    for (path, reason) in code::UNSAFE_ALLOWED.iter().chain(&code::SLEEPS_ALLOWED) {
        assert!(exists(path), "{path} ({reason}) is gone, take it off the list");
    }
}

#[test]
fn a_file_is_one_noun() {
    check_each(|file| code::length(file, &code::LONG_FILES));
    check_each(code::names);
    for (path, _, reason) in code::LONG_FILES {
        assert!(exists(path), "{path} is gone, take it off the list of long files");
        assert!(!reason.is_empty(), "{path} is long without a reason");
    }
}

#[test]
fn one_word_for_one_thing() {
    check_each(words::given_up);
}

#[test]
fn tests_do_not_sleep() {
    check_each(code::sleeps);
}

#[test]
fn nothing_is_left_for_later_or_tied_to_a_place() {
    check_each(|file| {
        if is_sample(file) {
            Vec::new()
        } else {
            code::unfinished(file)
        }
    });
    check_each(|file| {
        if is_sample(file) {
            Vec::new()
        } else {
            code::places(file)
        }
    });
}

#[test]
fn the_architecture_is_short_and_knows_every_folder() {
    let files = repository();
    let page = page(&files, "ARCHITECTURE.md");
    assert!(page.text.len() <= 20_000, "{} bytes, at most 20,000", page.text.len());
    assert_none(pages::folders(page, &files));
    assert_none(pages::glossary(page, &files));
}

#[test]
fn links_lead_somewhere() {
    let files = repository();
    let pages = files.iter().filter(|file| file.is_page());
    assert_none(
        pages
            .clone()
            .flat_map(|page| pages::links(page, &files, exists))
            .collect(),
    );
    // One tells of files as they were, the other of files of another project.
    let elsewhere = ["CHANGELOG.md", "docs/known-faults-of-dimpl.md"];
    let living = pages.filter(|page| !elsewhere.contains(&page.path.as_str()));
    assert_none(living.flat_map(|page| pages::named_sources(page, &files)).collect());
    check_each(|file| {
        if is_sample(file) {
            Vec::new()
        } else {
            pages::named_pages(file, exists)
        }
    });
}

#[test]
fn decisions_are_listed_and_whole() {
    let files = repository();
    assert!(files.iter().any(|file| file.path.starts_with("docs/decisions/0001")));
    assert_none(pages::decisions(&files));
}

#[test]
fn cited_sections_exist() {
    let files = repository();
    let page = page(&files, "docs/differences-from-mediasoup-v2.md");
    let citing = files.iter().filter(|file| !is_sample(file) && !file.is_page());
    assert_none(citing.flat_map(|file| pages::cited_sections(file, page)).collect());
}

#[test]
fn fuzz_targets_and_benches_are_listed() {
    let files = repository();
    for (folder, list) in [
        ("fuzz/fuzz_targets/", "fuzz/README.md"),
        ("benches/", "benches/README.md"),
    ] {
        let names: Vec<&str> = files
            .iter()
            .filter_map(|file| file.path.strip_prefix(folder)?.strip_suffix(".rs"))
            .filter(|name| !name.contains('/'))
            .collect();
        assert_none(pages::listed(page(&files, list), &names));
    }
}

#[test]
fn commands_in_the_pages_exist() {
    let files = repository();
    let mut problems = Vec::new();
    let mut checked = 0;
    for page in files.iter().filter(|file| file.is_page()) {
        for (line, command) in commands::shell_commands(page) {
            checked += 1;
            problems
                .extend(commands::check(&command, &files).map(|problem| format!("{}:{line}: {problem}", page.path)));
        }
    }
    assert!(checked >= 2, "the README alone has two commands");
    assert_none(problems);
}

#[test]
fn every_promise_is_held_by_something() {
    let files = repository();
    let page = files
        .iter()
        .find(|file| file.path == "SPECIFICATION.md")
        .expect("there is a SPECIFICATION.md");
    let promises = pages::promises(page);
    assert!(!promises.is_empty());
    let mut problems = Vec::new();
    for (line, holders) in promises {
        if holders.is_empty() {
            problems.push(format!("SPECIFICATION.md:{line}: nothing holds this promise"));
        }
        for holder in holders {
            let problem = match holder.split_whitespace().nth(1) {
                Some(_) => commands::check(&holder, &files),
                None => pages::holder(&holder, &files),
            };
            problems.extend(problem.map(|problem| format!("SPECIFICATION.md:{line}: {problem}")));
        }
    }
    assert_none(problems);
}
