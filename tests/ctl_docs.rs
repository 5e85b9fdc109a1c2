//! docs/operations.md is true: its session is typed, in order, and compared with what comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use command::Scratch;

#[tokio::test]
async fn the_session_of_the_page_is_true() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let session = session(&page);
    assert!(session.len() > 10, "the page has a session");
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    for Typed { line, args, expected } in session {
        let printed = serve.say(&args).await;
        assert!(
            is_like(&printed, &expected),
            "docs/operations.md, line {line}: `weir ctl {args}` printed\n{printed}and not\n{expected}"
        );
    }
    serve.stop().await;
}

/// A command and what it prints, as the page has them.
struct Typed {
    line: usize,
    args: String,
    expected: String,
}

/// What is typed in the page's `console` blocks.
fn session(page: &str) -> Vec<Typed> {
    let mut session: Vec<Typed> = Vec::new();
    let mut in_console = false;
    for (index, text) in page.lines().enumerate() {
        if text.starts_with("```") {
            in_console = text == "```console";
        } else if let Some(command) = text.strip_prefix("$ ").filter(|_| in_console) {
            let args = command.strip_prefix("weir ctl ").expect("the session is with weir ctl");
            session.push(Typed {
                line: index + 1,
                args: args.to_owned(),
                expected: String::new(),
            });
        } else if in_console {
            let typed = session.last_mut().expect("a block begins with a command");
            typed.expected += &format!("{text}\n");
        }
    }
    session
}

/// Whether both have the same lines, `…` standing for any part of one.
fn is_like(printed: &str, expected: &str) -> bool {
    printed.lines().count() == expected.lines().count()
        && printed
            .lines()
            .zip(expected.lines())
            .all(|(printed, expected)| line_is_like(printed, expected))
}

fn line_is_like(printed: &str, expected: &str) -> bool {
    let Some((first, rest)) = expected.split_once('…') else {
        return printed == expected;
    };
    let Some(mut left) = printed.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[test]
fn lines_are_compared_around_what_differs() {
    for (printed, expected, like) in [
        ("a", "a", true),
        ("a", "b", false),
        ("port 5 open", "port … open", true),
        ("port 5 closed", "port … open", false),
        ("12:00 x", "… x", true),
        ("x 12:00", "x …", true),
        ("a 1 b 2 c", "a … b … c", true),
        ("a 1 c 2 b", "a … b … c", false),
        ("a\nb", "a", false),
    ] {
        assert_eq!(is_like(printed, expected), like, "{printed:?} {expected:?}");
    }
}
