//! Rules for code: who may know whom, what the pure core may not touch, where `unsafe` is, how long a file is.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::File;

/// Modules of the worker, and which others each may name. `rtp <- relay <- process -> net`; `net` knows of the relay only
/// the seam between them, and of WebRTC only what protects and frames packets on their way into the kernel's buffers.
const WORKER_LAYERS: [(&str, &[&str]); 9] = [
    ("rtp", &["rtp", "time"]),
    ("webrtc", &["boundary", "page", "webrtc", "rtp", "time"]),
    ("page", &["page", "time"]),
    ("relay", &["boundary", "page", "relay", "rtp", "switches", "time"]),
    (
        "net",
        &[
            "net",
            "page",
            "time",
            "relay::sink",
            "relay::datagram",
            "relay::limits",
            "webrtc::srtp",
            "webrtc::framing",
        ],
    ),
    ("sandbox", &["sandbox"]),
    ("switches", &["switches"]),
    ("time", &["time"]),
    ("boundary", &["boundary"]),
];

/// Floors of the server, and which modules each may name: those of its own and of the floors below.
const SERVER_FLOORS: [(&str, &[&str]); 3] = [
    ("src/server/model/", &["server::model"]),
    ("src/server/workers/", &["server::model", "server::workers", "embed"]),
    ("src/server/api/", &["server::model", "server::workers", "server::api"]),
];

/// What stands above the server, and what stands above that again, which it may not name.
const ABOVE: [(&str, &[&str]); 3] = [
    ("src/protocol/", &["http", "cli", "settings"]),
    ("src/sdp/", &["protocol", "http", "cli", "settings"]),
    ("src/http/", &["cli"]),
];

/// What the model may not name: tasks, sockets, processes, files, workers' channels. It is changed by those who have them.
const NOT_IN_MODEL: [&str; 15] = [
    "tokio::spawn",
    "tokio::task",
    "tokio::net",
    "tokio::time",
    "tokio::process",
    "AbortHandle",
    "JoinHandle",
    "OwnedFd",
    "BorrowedFd",
    "UdpSocket",
    "socket2",
    "weir_channel::endpoint",
    "std::fs",
    "std::thread",
    "std::process",
];

/// What the relay and the views over bytes may not name: clocks, sockets, files, threads, the environment, randomness.
const IMPURE: [&str; 22] = [
    "Instant",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "OwnedFd",
    "RawFd",
    "BorrowedFd",
    "nix",
    "libc",
    "tokio",
    "socket2",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
    "RandomState",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "getrandom",
];

/// Where `unsafe` is allowed, and what for.
pub(crate) const UNSAFE_ALLOWED: [(&str, &str); 5] = [
    ("worker/src/net/", "the kernel's door"),
    ("channel/src/descriptors.rs", "descriptors beside a frame"),
    ("worker/tests/net_egress.rs", "a socket option that nothing safe sets"),
    ("worker/tests/sandbox/inside.rs", "system calls by number"),
    ("tests/allocator/mod.rs", "an allocator that counts"),
];

/// Lines of a shipped file without its tests.
const LINES_MAX: usize = 600;

/// Files that are longer, how long each may be, and why. Shrink a bound when the file shrinks; raise none.
pub(crate) const LONG_FILES: [(&str, usize, &str); 0] = [];

/// Tests that look again and again, with a bound, because what they wait for cannot be waited on.
pub(crate) const SLEEPS_ALLOWED: [(&str, &str); 5] = [
    (
        "tests/media/programs.rs",
        "only a table of the kernel says that another program has its port",
    ),
    ("channel/tests/faults.rs", "time is virtual where it does"),
    ("src/server/tests/verdicts.rs", "time is virtual"),
    ("src/server/tests/bounds.rs", "time is virtual"),
    (
        "tests/ctl_service.rs",
        "that a server is stopped for seconds is the thing itself",
    ),
];

/// Words that say nothing of what is in a file.
const EMPTY_WORDS: [&str; 7] = ["util", "utils", "helper", "helpers", "manager", "misc", "stuff"];

/// Modules know only what their layer may know; the channel knows neither of its ends.
pub(crate) fn layers(file: &File) -> Vec<String> {
    if !file.ships() {
        return Vec::new();
    }
    let code = file.code();
    let mut problems = Vec::new();
    if file.path.starts_with("channel/") {
        for other in ["weir", "weir_worker"] {
            problems.extend(
                lines_naming(&code, other).map(|line| format!("{}:{line}: the channel names {other}", file.path)),
            );
        }
    }
    if let Some(inside) = file.path.strip_prefix("worker/src/") {
        problems.extend(
            lines_naming(&code, "weir").map(|line| format!("{}:{line}: the worker names the supervisor", file.path)),
        );
        let module = module_of(inside);
        let layer = module.first().map(String::as_str).unwrap_or_default();
        if let Some((_, allowed)) = WORKER_LAYERS.iter().find(|(name, _)| *name == layer) {
            for (line, path) in paths(&code, &module) {
                if path.starts_with('{') {
                    problems.push(format!("{}:{line}: spell out `crate::{path}`", file.path));
                } else if !allowed
                    .iter()
                    .any(|allowed| path == *allowed || path.starts_with(&format!("{allowed}::")))
                {
                    problems.push(format!("{}:{line}: {layer} names {path}", file.path));
                }
            }
        }
    }
    if let Some(inside) = file.path.strip_prefix("src/") {
        let named = paths(&code, &module_of(inside));
        let is_in = |path: &str, module: &str| path == module || path.starts_with(&format!("{module}::"));
        if let Some((floor, allowed)) = SERVER_FLOORS.iter().find(|(floor, _)| file.path.starts_with(floor)) {
            for (line, path) in &named {
                if !allowed.iter().any(|allowed| is_in(path, allowed)) {
                    problems.push(format!("{}:{line}: {floor} names {path}", file.path));
                }
            }
        }
        if let Some((folder, above)) = ABOVE.iter().find(|(folder, _)| file.path.starts_with(folder)) {
            for (line, path) in &named {
                if above.iter().any(|above| is_in(path, above)) {
                    problems.push(format!("{}:{line}: {folder} names {path}", file.path));
                }
            }
        }
        if file.path.starts_with(SERVER_FLOORS[0].0) {
            for name in NOT_IN_MODEL {
                problems
                    .extend(lines_naming(&code, name).map(|line| format!("{}:{line}: {name} in the model", file.path)));
            }
        }
    }
    problems
}

/// The modules right below `folder` do not name each other in a circle.
pub(crate) fn circles(files: &[File], folder: &str) -> Vec<String> {
    let depth = folder.split('/').filter(|part| !part.is_empty()).count();
    let inside = folder.strip_prefix("src/").unwrap_or_default().replace('/', "::");
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files
        .iter()
        .filter(|file| file.ships() && file.path.starts_with(folder))
    {
        let module = module_of(file.path.strip_prefix("src/").unwrap_or_default());
        let Some(own) = module.get(depth - 1) else {
            continue; // the folder's own `mod.rs`
        };
        let named = paths(&file.code(), &module).into_iter().filter_map(|(_, path)| {
            let other = path.strip_prefix(&inside)?.split("::").next()?.to_owned();
            (other != *own).then_some(other)
        });
        names.entry(own.clone()).or_default().extend(named);
    }
    // What names nothing that is left is in no circle.
    loop {
        let left: BTreeSet<String> = names.keys().cloned().collect();
        names
            .values_mut()
            .for_each(|named| named.retain(|name| left.contains(name)));
        names.retain(|_, named| !named.is_empty());
        if names.len() == left.len() {
            break;
        }
    }
    let circle = names.iter().map(|(name, named)| {
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        format!("{folder}{name} is in a circle, or names one: {}", named.join(", "))
    });
    circle.collect()
}

/// The relay and the views over bytes take time, bytes and seeds as arguments.
pub(crate) fn purity(file: &File) -> Vec<String> {
    let pure = [
        "worker/src/page/",
        "worker/src/relay/",
        "worker/src/rtp/",
        "worker/src/webrtc/",
        "worker/src/time.rs",
    ];
    // Translates between times and the library's instants, and reads no clock.
    let translates = "worker/src/webrtc/dtls/clock.rs";
    if !file.ships() || file.path == translates || !pure.iter().any(|pure| file.path.starts_with(pure)) {
        return Vec::new();
    }
    let code = file.code();
    IMPURE
        .iter()
        .flat_map(|name| lines_naming(&code, name).map(move |line| (name, line)))
        .map(|(name, line)| format!("{}:{line}: {name} in the pure core", file.path))
        .collect()
}

/// `unsafe` is where it is expected, and nowhere else is it permitted.
pub(crate) fn unsafety(file: &File) -> Vec<String> {
    if !file.is_rust() || UNSAFE_ALLOWED.iter().any(|(allowed, _)| file.path.starts_with(allowed)) {
        return Vec::new();
    }
    // With the tests: they have no business with it either.
    let whole = File {
        path: file.path.clone(),
        text: file.text.replace("#[cfg(test)]", ""),
    };
    let code = whole.code();
    ["unsafe", "unsafe_code"]
        .into_iter()
        .flat_map(|name| lines_naming(&code, name).collect::<Vec<_>>())
        .map(|line| format!("{}:{line}: `unsafe` is not allowed here", file.path))
        .collect()
}

/// A file is one noun. `long` are those that may be longer.
pub(crate) fn length(file: &File, long: &[(&str, usize, &str)]) -> Vec<String> {
    let lines = file.lines_without_tests();
    let bound = long.iter().find(|(path, ..)| *path == file.path);
    match bound {
        _ if !file.ships() => Vec::new(),
        None if lines > LINES_MAX => vec![format!(
            "{}: {lines} lines without tests, at most {LINES_MAX}; look for the second noun",
            file.path
        )],
        Some((_, bound, _)) if lines > *bound => {
            vec![format!("{}: {lines} lines without tests, at most {bound}", file.path)]
        }
        Some(_) if lines <= LINES_MAX => {
            vec![format!(
                "{}: short enough now, take it off the list of long files",
                file.path
            )]
        }
        _ => Vec::new(),
    }
}

/// A file's name says what is in it.
pub(crate) fn names(file: &File) -> Vec<String> {
    let empty = file
        .path
        .split('/')
        .flat_map(|part| part.split('.').next().unwrap_or_default().split('_'))
        .find(|word| EMPTY_WORDS.contains(word));
    empty
        .filter(|_| file.is_rust())
        .map(|word| format!("{}: '{word}' says nothing", file.path))
        .into_iter()
        .collect()
}

/// A test waits for the thing itself, with a bound; it does not sleep.
pub(crate) fn sleeps(file: &File) -> Vec<String> {
    if !file.is_rust() || file.ships() || SLEEPS_ALLOWED.iter().any(|(allowed, _)| *allowed == file.path) {
        return Vec::new();
    }
    lines_naming(&file.code(), "sleep")
        .map(|line| format!("{}:{line}: a test waits for the thing itself", file.path))
        .collect()
}

/// Nothing is left for later in the text.
pub(crate) fn unfinished(file: &File) -> Vec<String> {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    mentions(file, &marks, "is for an issue, not for the text")
}

/// Nothing depends on, or tells of, the machine it was written on.
pub(crate) fn places(file: &File) -> Vec<String> {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("crates-io", "-index"),
    ];
    mentions(file, &places, "is a place on one machine")
}

fn mentions(file: &File, marks: &[&str], complaint: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for mark in marks.iter().filter(|mark| line.contains(**mark)) {
            problems.push(format!("{}:{}: {mark} {complaint}", file.path, number + 1));
        }
    }
    problems
}

/// The module that a file below `src/` is.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Vec<String> = path.split('/').map(String::from).collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || last == "lib" || last == "main")
    {
        module.pop();
    }
    module
}

/// Lines on which an identifier or path stands by itself.
fn lines_naming<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    code.lines().enumerate().filter_map(move |(number, line)| {
        line.match_indices(name)
            .any(|(at, _)| !line[..at].ends_with(part_of_word) && !line[at + name.len()..].starts_with(part_of_word))
            .then_some(number + 1)
    })
}

/// Paths of this crate that `code` names, from the crate's root: `crate::a::b` and, seen from `module`, `super::b`.
fn paths(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            if !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
                found.push((number + 1, path_at(&line[at + "crate::".len()..])));
            }
        }
        for (at, _) in line.match_indices("super::") {
            if line[..at].ends_with("super::") || line[..at].ends_with(|before: char| before.is_alphanumeric()) {
                continue; // counted with the first one
            }
            let ups = line[at..].split("::").take_while(|part| *part == "super").count();
            let mut path = module[..module.len().saturating_sub(ups)].join("::");
            let rest = path_at(&line[at + ups * "super::".len()..]);
            if !path.is_empty() {
                path.push_str("::");
            }
            found.push((number + 1, path + &rest));
        }
    }
    found
}

/// The path that `text` begins with.
fn path_at(text: &str) -> String {
    let end = text
        .find(|character: char| !(character.is_alphanumeric() || character == '_' || character == ':'))
        .unwrap_or(text.len());
    if end == 0 {
        return text.trim_end().into(); // a brace
    }
    text[..end].trim_end_matches(':').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(rule: impl Fn(&File) -> Vec<String>, path: &str, text: &str) -> usize {
        rule(&File::sample(path, text)).len()
    }

    #[test]
    fn layers_hold() {
        let check = |path, text| complaints(layers, path, text);
        assert_eq!(
            check(
                "worker/src/rtp/a.rs",
                "use crate::rtp::b;\nuse crate::time::Time;\nuse super::c;"
            ),
            0
        );
        assert_eq!(check("worker/src/rtp/a.rs", "use crate::relay::Relay;"), 1);
        assert_eq!(
            check("worker/src/rtp/codec/a.rs", "use super::super::super::relay::Relay;"),
            1
        );
        assert_eq!(
            check("worker/src/relay/a.rs", "use crate::rtp::b;\nuse super::sink::Sink;"),
            0
        );
        assert_eq!(check("worker/src/relay/a.rs", "fn f() { crate::net::g() }"), 1);
        assert_eq!(check("worker/src/relay/a.rs", "use crate::{net, rtp};"), 1);
        assert_eq!(
            check("worker/src/relay/a.rs", "// see crate::net\n/// [`crate::process`]"),
            0
        );
        assert_eq!(
            check("worker/src/net/a.rs", "use crate::relay::sink::Sink;\nuse super::b;"),
            0
        );
        assert_eq!(check("worker/src/net/a.rs", "use crate::relay::Relay;"), 1);
        assert_eq!(
            check(
                "worker/src/process.rs",
                "use crate::relay::Relay;\nuse crate::net::Net;"
            ),
            0
        );
        assert_eq!(check("worker/src/process.rs", "use weir::Server;"), 1);
        assert_eq!(
            check("channel/src/a.rs", "use weir_worker::relay;\nuse weir::Server;"),
            2
        );
        assert_eq!(check("channel/src/a.rs", "use weir_channel::id; // weir_worker"), 0);
    }

    #[test]
    fn floors_hold() {
        let check = |path, text| complaints(layers, path, text);
        let model = "use crate::server::model::side::Side;\nuse super::Command;";
        assert_eq!(check("src/server/model/state/a.rs", model), 0);
        assert_eq!(check("src/server/workers/a.rs", model), 0);
        for (path, text) in [
            ("src/server/model/a.rs", "use crate::server::workers::link::Link;"),
            ("src/server/model/a.rs", "use super::super::api::peer::Peer;"),
            ("src/server/model/a.rs", "use crate::server::{lock, random};"),
            ("src/server/model/a.rs", "use crate::Error;"),
            ("src/server/model/a.rs", "use tokio::task::JoinSet;"),
            ("src/server/model/a.rs", "fn f(socket: OwnedFd) {}"),
            ("src/server/workers/a.rs", "use crate::server::api::room::Room;"),
            ("src/server/api/a.rs", "use crate::protocol::ErrorClass;"),
            ("src/server/api/a.rs", "use crate::http;"),
            ("src/protocol/a.rs", "use crate::http::view;"),
            ("src/http/a.rs", "use crate::cli::serve;"),
        ] {
            assert_eq!(check(path, text), 1, "{path}: {text}");
        }
        assert_eq!(check("src/server/workers/a.rs", "fn f(socket: OwnedFd) {}"), 0);
        assert_eq!(check("src/server/tests/a.rs", "use crate::protocol::ErrorClass;"), 0);
        assert_eq!(check("src/http/a.rs", "use crate::protocol::ErrorClass;"), 0);
    }

    #[test]
    fn circles_are_found() {
        let folder = "src/server/model/";
        let file = |name: &str, text: &str| File::sample(&format!("{folder}{name}.rs"), text);
        let line = [
            file("a", "use crate::server::model::b::B;"),
            file(
                "b",
                "use super::c;\n#[cfg(test)]\nmod tests { use crate::server::model::a; }",
            ),
            file("c/d", "use super::C;"),
            file("c", "use crate::server::model::lock;"),
            file("mod", "use self::a::A;"),
        ];
        assert_eq!(circles(&line, folder), Vec::<String>::new());
        let back = file("c/e", "use crate::server::model::a::A;");
        let circle: Vec<File> = line.into_iter().chain([back]).collect();
        assert_eq!(circles(&circle, folder).len(), 3);
        let floors = [
            File::sample("src/server/model/a.rs", "use crate::server::api::b;"),
            File::sample("src/server/api/b.rs", "use crate::server::model::a;"),
        ];
        assert_eq!(circles(&floors, "src/server/").len(), 2);
    }

    #[test]
    fn the_core_is_pure() {
        let check = |path, text| complaints(purity, path, text);
        assert_eq!(
            check("worker/src/relay/a.rs", "let now = std::time::Instant::now();"),
            1
        );
        assert_eq!(check("worker/src/rtp/a.rs", "use nix::sys::socket;"), 1);
        assert_eq!(check("worker/src/relay/a.rs", "use std::collections::HashMap;"), 1);
        assert_eq!(
            check(
                "worker/src/relay/a.rs",
                "use std::net::SocketAddr;\nuse std::time::Duration;"
            ),
            0
        );
        assert_eq!(check("worker/src/relay/a.rs", "/// An `Instant`.\nfn unixish() {}"), 0);
        assert_eq!(check("worker/src/net/a.rs", "use nix::sys::socket;"), 0);
    }

    #[test]
    fn unsafe_stays_where_it_is() {
        let check = |path, text| complaints(unsafety, path, text);
        assert_eq!(check("worker/src/relay/a.rs", "unsafe { f() }"), 1);
        assert_eq!(check("src/a.rs", "#![allow(unsafe_code)]"), 1);
        assert_eq!(check("src/a.rs", "#[cfg(test)]\nmod tests { unsafe {} }"), 1);
        assert_eq!(check("src/a.rs", "// nothing unsafe\nlet unsafety = \"unsafe\";"), 0);
        assert_eq!(check("worker/src/net/a.rs", "unsafe { f() }"), 0);
    }

    #[test]
    fn long_files_are_named() {
        let text = "\n".repeat(700);
        let check = |text: &str, long: &[(&str, usize, &str)]| length(&File::sample("src/a.rs", text), long).len();
        assert_eq!(check(&text, &[]), 1);
        assert_eq!(check(&text, &[("src/a.rs", 710, "")]), 0);
        assert_eq!(check(&text, &[("src/a.rs", 690, "")]), 1);
        assert_eq!(check("", &[("src/a.rs", 710, "")]), 1);
        let tested = format!("\n#[cfg(test)]\nmod tests {{\n{text}}}");
        assert_eq!(check(&tested, &[]), 0);
    }

    #[test]
    fn names_and_marks() {
        assert_eq!(complaints(names, "src/packet_utils.rs", ""), 1);
        assert_eq!(complaints(names, "src/helpers/a.rs", ""), 1);
        assert_eq!(complaints(names, "src/packet.rs", ""), 0);
        assert_eq!(complaints(sleeps, "tests/a.rs", "std::thread::sleep(d);"), 1);
        assert_eq!(complaints(sleeps, "tests/a.rs", "// no sleep\nlet asleep = 1;"), 0);
        assert_eq!(complaints(sleeps, "src/a.rs", "tokio::time::sleep(d).await;"), 0);
        assert_eq!(complaints(unfinished, "docs/a.md", concat!("later: TO", "DO")), 1);
        assert_eq!(complaints(unfinished, "src/a.rs", concat!("unimplemented", "!()")), 1);
        assert_eq!(complaints(unfinished, "src/a.rs", "done"), 0);
        assert_eq!(complaints(places, "README.md", concat!("see /ro", "ot/x")), 1);
        assert_eq!(complaints(places, "README.md", "see docs/x"), 0);
    }
}
