//! Attacks on a running server, one after the other, each beside an innocent call and an operator.
//!
//! `cargo test --test attacks` runs the short form: little traffic, and only what does not depend on how busy the machine is
//! must hold (nobody innocent loses a packet, memory is bounded, a stranger gets nothing). `just attacks` runs the long form on
//! a release build: full floods, the delay of the innocent call and CPU time must hold, too, and the figures are printed as a
//! table, and with `--json FILE` written down; `--page FILE` puts them into `docs/security.md`. Words among the arguments choose the attacks whose names contain them.
//!
//! The program brings its own runner, because attacks are measured and so must not run beside each other, and because it is
//! also what a worker that has been taken over runs ([`hostile`]).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the runner's output")]

#[path = "../browser/mod.rs"]
mod browser;
#[path = "../control/mod.rs"]
mod control;
#[path = "../loopback/mod.rs"]
mod loopback;
#[path = "../signalling/mod.rs"]
mod signalling;

mod arena;
mod call;
mod comedia;
mod feedback;
mod flood;
mod hostile;
mod http;
mod ice;
mod ice_tcp;
mod innocents;
mod meters;
mod networks;
mod over_ipv6;
mod report;
mod srtp;
mod websocket;
mod worker;

use std::process::ExitCode;

use futures::StreamExt;
use futures::future::BoxFuture;

use arena::Figures;

/// How much of an attack is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    /// A second or two of it, in a debug build, on a machine that does other things, too.
    Short,
    /// All of it, in a release build, on a machine that does nothing else.
    Long,
}

impl Scale {
    /// How often, or for how many seconds, something is done.
    pub(crate) fn of(self, short: usize, long: usize) -> usize {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

/// One attack.
pub(crate) struct Attack {
    /// By which it is chosen.
    pub(crate) name: &'static str,
    /// What is tried.
    pub(crate) what: &'static str,
    pub(crate) run: fn(Scale) -> BoxFuture<'static, Figures>,
}

/// What attacks on the media plane may cost the supervisor, in percent of a CPU, the operator's questions included.
const SUPERVISOR_CPU_MAX: f64 = 25.0;

impl Attack {
    /// What did not hold.
    fn complaints(&self, figures: &Figures, scale: Scale) -> Vec<String> {
        let mut complaints = figures.complaints.clone();
        let on_control = [
            "http::",
            "websocket::",
            "worker::",
            "over_ipv6::heads_",
            "over_ipv6::guessing_",
        ];
        let on_media = !on_control.iter().any(|start| self.name.starts_with(start));
        if scale == Scale::Long && on_media && figures.supervisor_cpu > SUPERVISOR_CPU_MAX {
            complaints.push(format!("the supervisor used {:.0} % of a CPU", figures.supervisor_cpu));
        }
        complaints
    }
}

/// Lists attacks: the function, and what it tries.
macro_rules! attacks {
    ($($module:ident::$name:ident: $what:literal,)+) => {
        &[$($crate::Attack {
            name: concat!(stringify!($module), "::", stringify!($name)),
            what: $what,
            run: |scale| Box::pin($module::$name(scale)),
        },)+]
    };
}

/// All attacks, in the order in which they run.
const ATTACKS: &[Attack] = attacks! {
    comedia::reports_that_name_nobody: "8 bytes of RTCP claim the media of a consumer-only transport",
    comedia::spraying_ports: "the same bytes at every port",
    comedia::guessing_mids: "packets with guessed MIDs claim a producer's transport",
    comedia::reflecting_to_a_third_party: "one packet with another's address claims a client's media",
    comedia::garbage_beside_a_call: "a stranger floods the ports of a call with garbage",
    feedback::garbage_as_rtcp: "the receiver sends RTCP that is broken in every way",
    feedback::a_storm_of_requests: "the receiver asks for everything again, and for key frames",
    feedback::bandwidth_that_is_no_bandwidth: "the receiver sends REMB and transport-wide feedback with absurd values",
    ice::amplifying_to_a_victim: "a client's check with a victim's address has its media sent there",
    ice::a_flood_of_valid_checks: "a client sends nothing but connectivity checks",
    ice::enormous_checks: "STUN of 65,000 bytes at many ports",
    ice::wrong_passwords: "checks with guessed credentials, of which each could be answered",
    ice::replayed_checks: "a client's recorded checks from another address",
    ice::garbage_as_dtls: "broken records, and first messages without end",
    ice_tcp::crowding_out_a_port: "connections without end at the port of a transport",
    ice_tcp::crowding_out_a_shared_port: "connections without end at the port of all transports",
    ice_tcp::garbage_as_frames: "frames that are broken in every way",
    srtp::forging_and_replaying: "recorded and forged packets to a client's transport, from its own address and others",
    http::heads_that_do_not_end: "slow connections that never finish a request's head",
    http::bodies_that_do_not_end: "slow connections that never finish a request's body",
    http::guessing_tokens: "one wrong token after the other",
    http::two_lengths_at_once: "Content-Length with chunked, and other ways to smuggle a request",
    http::too_deep_and_too_large: "JSON that is nested too deeply, or too large",
    http::requests_in_a_row: "requests without end on one connection, whose answers nobody reads",
    http::followers_that_never_read: "streams of events that nobody reads",
    http::cursors_that_make_no_sense: "positions in the log of events that never were",
    http::paths_that_are_not_what_they_seem: "dots, double slashes and percent signs in paths, without a token",
    http::rooms_without_end: "rooms and transports up to the limits",
    over_ipv6::reports_that_name_nobody: "8 bytes of RTCP claim the media of a consumer-only transport",
    over_ipv6::garbage_beside_a_call: "a stranger floods the ports of a call with garbage",
    over_ipv6::amplifying_to_a_victim: "a client's check with a victim's address has its media sent there",
    over_ipv6::a_flood_of_valid_checks: "a client sends nothing but connectivity checks",
    over_ipv6::wrong_passwords: "checks with guessed credentials, of which each could be answered",
    over_ipv6::crowding_out_a_port: "connections without end from all addresses of a network",
    over_ipv6::heads_that_do_not_end: "slow connections from all addresses of a network",
    over_ipv6::guessing_tokens: "wrong tokens from all addresses of a network",
    websocket::idle_connections: "connections that say nothing",
    websocket::peers_that_never_read: "peers with large appData that never read what they are told",
    websocket::answers_that_nobody_reads: "peers that ask on and on and never read an answer",
    websocket::connections_that_do_not_join: "connections with the clients' token on which nobody joins, as many as there are places",
    websocket::names_that_write_on_terminals: "names and appData with what drives terminals, in logs and in weir ctl",
    websocket::frames_that_are_no_frames: "huge, endless, unmasked and reserved frames, and pings without end",
    worker::counters_without_end: "a worker that always has one more page of counters",
    worker::pages_without_end: "a worker that always has one more page with one counter",
    worker::a_log_without_end: "a worker that logs without end",
    worker::an_error_output_without_end: "a worker that writes to its standard error without end",
    worker::events_without_end: "a worker with one event after the other",
    worker::events_within_bounds: "a worker that serves much, and tells as much of it as it may",
    worker::a_huge_certificate: "a worker that passes on 900 KB as a peer's certificate",
    worker::connections_without_end: "a worker that hands over connections without end",
    worker::descriptors_that_nobody_wants: "a worker that sends descriptors with what has none",
    worker::things_of_others: "a worker that speaks of another worker's rooms",
    worker::answering_pings_only: "a worker that is alive and does nothing",
};

/// In which attacks everybody has IPv6.
const OVER_IPV6: &str = "over_ipv6::";

/// Attacks that something is still to be done about: they run only if `--awaited` asks for them.
const AWAITED: &[&str] = &[];

/// How many run beside each other in the short form, which measures nothing that they could disturb.
const AT_ONCE: usize = 3;

/// How the program was called.
struct Arguments {
    scale: Scale,
    list: bool,
    /// Only ignored tests are asked for, of which there are none.
    ignored_only: bool,
    exact: bool,
    awaited: bool,
    json: Option<String>,
    /// Nothing is to be run, but the page on security to have the figures of these files.
    page: Vec<String>,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Arguments {
    /// Understands what cargo and its users pass to a test program.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut parsed = Self {
            scale: Scale::Short,
            list: false,
            ignored_only: false,
            exact: false,
            awaited: false,
            json: None,
            page: Vec::new(),
            filters: Vec::new(),
            skip: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--long" => parsed.scale = Scale::Long,
                "--json" => parsed.json = arguments.next(),
                "--page" => parsed.page.extend(arguments.next()),
                "--list" => parsed.list = true,
                "--ignored" => parsed.ignored_only = true,
                "--exact" => parsed.exact = true,
                "--awaited" => parsed.awaited = true,
                "--skip" => parsed.skip.extend(arguments.next()),
                "--test-threads" | "--color" | "--format" | "--logfile" => _ = arguments.next(),
                option if option.starts_with('-') => {}
                _ => parsed.filters.push(argument),
            }
        }
        parsed
    }

    fn chooses(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        if AWAITED.contains(&name) && !self.awaited {
            return false;
        }
        !self.ignored_only && (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

/// The page on security.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");

/// Attacks that the page on security does not list.
fn unlisted() -> Vec<&'static str> {
    let page = include_str!("../../docs/security.md");
    let attacks = ATTACKS.iter().map(|attack| attack.name);
    attacks
        .filter(|name| !AWAITED.contains(name) && !page.contains(&format!("| `{name}` |")))
        .collect()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|first| first == hostile::PROGRAM).is_some() {
        return hostile::main(arguments);
    }
    let has_ipv6 = networks::enter(&mut arguments);
    let arguments = Arguments::parse(arguments);
    let (chosen, impossible): (Vec<&Attack>, Vec<&Attack>) = ATTACKS
        .iter()
        .filter(|attack| arguments.chooses(attack.name))
        .partition(|attack| has_ipv6 || arguments.list || !attack.name.starts_with(OVER_IPV6));
    if arguments.list {
        chosen.iter().for_each(|attack| println!("{}: test", attack.name));
        return ExitCode::SUCCESS;
    }
    if !arguments.page.is_empty() {
        let read = |path: &String| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let runs: Vec<serde_json::Value> = arguments.page.iter().map(read).collect();
        let page = std::fs::read_to_string(PAGE).unwrap();
        std::fs::write(PAGE, report::page(&page, &runs)).unwrap();
        return ExitCode::SUCCESS;
    }
    let unlisted = unlisted();
    if !unlisted.is_empty() {
        println!("docs/security.md does not list {}", unlisted.join(", "));
        return ExitCode::FAILURE;
    }
    println!("\nrunning {} attacks", chosen.len());
    for attack in &impossible {
        println!("test {} ... ignored, it needs root, unshare and ip", attack.name);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let began = meters::now();
    let at_once = match arguments.scale {
        Scale::Short => AT_ONCE,
        Scale::Long => 1,
    };
    let scale = arguments.scale;
    let outcomes = futures::stream::iter(&chosen).map(|attack| async move {
        let began = meters::now();
        // A panic ends the task, and with it the server that the attack was made on.
        let outcome = tokio::spawn((attack.run)(scale)).await.ok();
        let seconds = (meters::now() - began).as_secs_f64();
        let (verdict, said) = match &outcome {
            None => ("FAILED", attack.what.to_owned()),
            Some(figures) => {
                let complaints = attack.complaints(figures, scale);
                match complaints.is_empty() {
                    true => ("ok", figures.brief()),
                    false => ("FAILED", format!("{}; {}", complaints.join("; "), figures.brief())),
                }
            }
        };
        println!("test {} ... {verdict} in {seconds:.1} s ({said})", attack.name);
        (*attack, verdict == "ok", outcome)
    });
    let outcomes: Vec<_> = runtime.block_on(outcomes.buffered(at_once).collect());
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|(_, ok, _)| !ok)
        .map(|(attack, ..)| attack.name)
        .collect();
    let passed = outcomes.len() - failed.len();
    let rows: Vec<_> = outcomes
        .into_iter()
        .filter_map(|(attack, _, figures)| Some((attack, figures?)))
        .collect();
    if arguments.scale == Scale::Long {
        println!("\n{}", report::table(&rows));
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, report::json(&rows)).unwrap();
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        passed,
        failed.len(),
        impossible.len(),
        ATTACKS.len() - chosen.len() - impossible.len(),
        (meters::now() - began).as_secs_f64(),
    );
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
