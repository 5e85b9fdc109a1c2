//! The commands that the pages tell a reader to type: each is tried for its options, without being run.

use std::process::{Command, Stdio};

use crate::source::File;

/// Programs of others, which are not checked.
const FOREIGN: [&str; 7] = ["curl", "ffmpeg", "ffplay", "gst-launch-1.0", "git", "kill", "source"];

/// The commands in a page's shell blocks, with their lines.
pub(crate) fn shell_commands(page: &File) -> Vec<(usize, String)> {
    let mut commands = Vec::new();
    let mut shell = false;
    let mut begun: Option<(usize, String)> = None;
    for (number, line) in page.text.lines().enumerate() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            shell = matches!(language, "sh" | "bash");
            continue;
        }
        if !shell {
            continue;
        }
        let line = line.split(" #").next().unwrap_or_default().trim();
        let (number, line) = match begun.take() {
            Some((number, before)) => (number, format!("{before} {line}")),
            None => (number + 1, line.to_owned()),
        };
        if let Some(more) = line.strip_suffix('\\') {
            begun = Some((number, more.trim_end().into()));
        } else if line.matches('\'').count() % 2 == 1 {
            begun = Some((number, line)); // the quotation goes on
        } else if !line.is_empty() && !line.starts_with('#') {
            commands.push((number, line));
        }
    }
    commands
}

/// What is wrong with a command, if anything.
pub(crate) fn check(command: &str, files: &[File]) -> Option<String> {
    let command = command.split(['|', '>', '&', ';']).next().unwrap_or_default();
    let words: Vec<&str> = command
        .split_whitespace()
        .map(|word| word.trim_matches(['\'', '"']))
        .skip_while(|word| word.contains('=') && !word.starts_with('-'))
        .collect();
    let (program, arguments) = words.split_first()?;
    match *program {
        "weir" | "target/release/weir" => weir(arguments),
        "cargo" => cargo(arguments, files),
        "just" => recipe(arguments, files),
        ".ci/run" => arguments
            .iter()
            .find(|step| !file(files, ".ci/run").contains(&format!("{step}() {{")))
            .map(|step| format!(".ci/run has no step {step}")),
        foreign if FOREIGN.contains(&foreign) => None,
        unknown => Some(format!("{unknown} is no program that this repository knows")),
    }
}

/// Asks the program for help with the very arguments: it refuses what it does not know before it helps.
fn weir(arguments: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .arg("--help")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "weir {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
                .lines()
                .next()
                .unwrap_or_default()
        )),
        Err(error) => Some(format!("weir does not start: {error}")),
    }
}

fn cargo(arguments: &[&str], files: &[File]) -> Option<String> {
    let own_end = arguments
        .iter()
        .position(|argument| *argument == "--")
        .unwrap_or(arguments.len());
    let (own, passed) = arguments.split_at(own_end);
    let (subcommand, _) = own.split_first()?;
    let after = |flag: &str| {
        own.iter()
            .position(|argument| *argument == flag)
            .and_then(|at| own.get(at + 1))
    };
    let has = |path: String| files.iter().any(|file| file.path == path);
    let package = match after("-p") {
        Some(&"weir-worker") => "worker/",
        Some(&"weir-channel") => "channel/",
        _ => "",
    };
    if let Some(name) = after("--example").filter(|name| !has(format!("examples/{name}.rs"))) {
        return Some(format!("there is no example {name}"));
    }
    if let Some(name) = after("--test")
        .filter(|name| !has(format!("{package}tests/{name}.rs")) && !has(format!("{package}tests/{name}/main.rs")))
    {
        return Some(format!("there is no test {name}"));
    }
    if let Some(name) =
        after("--bench").filter(|name| !has(format!("benches/{name}.rs")) && !has(format!("benches/{name}/main.rs")))
    {
        return Some(format!("there is no bench {name}"));
    }
    match *subcommand {
        "run" if after("--example").is_none() => weir(passed.get(1..).unwrap_or_default()),
        "fuzz" => {
            let target = own.get(2).copied().unwrap_or_default();
            (own.get(1) == Some(&"run") && !has(format!("fuzz/fuzz_targets/{target}.rs")))
                .then(|| format!("there is no fuzz target {target}"))
        }
        "run" | "test" | "bench" | "build" | "check" | "clippy" | "fmt" | "doc" | "install" | "deny" => None,
        unknown => Some(format!("cargo {unknown} is not among the commands of this repository")),
    }
}

fn recipe(arguments: &[&str], files: &[File]) -> Option<String> {
    let name = arguments.first()?;
    let known = file(files, "justfile")
        .lines()
        .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([':', ' '])));
    (!known).then(|| format!("the justfile has no recipe {name}"))
}

fn file<'a>(files: &'a [File], path: &str) -> &'a str {
    files
        .iter()
        .find(|file| file.path == path)
        .map_or("", |file| &file.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_blocks() {
        let page = File::sample(
            "README.md",
            "```sh\na b   # why\n# only a comment\nc \\\n  d\ne \'{\n}\' f\n```\n```rust\nlet x;\n```\n",
        );
        assert_eq!(
            shell_commands(&page),
            [(2, "a b".into()), (4, "c d".into()), (6, "e '{ }' f".into())]
        );
    }

    #[test]
    fn wrong_commands_are_found() {
        let files = [
            File::sample("justfile", "test *args:\n    cargo test\n"),
            File::sample(".ci/run", "fmt() { cargo fmt; }\n"),
            File::sample("examples/one.rs", ""),
            File::sample("worker/tests/two/main.rs", ""),
            File::sample("fuzz/fuzz_targets/one.rs", ""),
        ];
        let check = |command: &str| check(command, &files);
        for right in [
            "weir",
            "cargo run --release",
            "cargo test --workspace",
            "cargo run --example one",
            "cargo check -p weir-worker",
            "cargo test -p weir-worker --test two",
            "just test",
            ".ci/run fmt",
            "RUSTC_BOOTSTRAP=1 cargo fuzz run one -- -max_total_time=5",
            "curl --fail x | tail",
            "weir --help > x",
        ] {
            assert_eq!(check(right), None, "{right}");
        }
        for wrong in [
            "weir no-such-command",
            "cargo run --release -- no-such-command",
            "weir --no-such-option",
            "cargo run --example two",
            "cargo test --test two",
            "cargo bench --bench two",
            "cargo fuzz run two",
            "just bake",
            ".ci/run bake",
            "bake",
            "cargo bake",
        ] {
            assert!(check(wrong).is_some(), "{wrong}");
        }
    }
}
