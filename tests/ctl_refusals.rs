//! `weir serve` where the kernel refuses something, as old kernels and sandboxes do: a seccomp filter refuses one thing after the
//! other. What Weir can do without is missed once, and media flows all the same, through real workers, by plain RTP and by
//! WebRTC, on ports of their own and on a shared one. What it cannot do without is told at the start.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod browser;
mod command;
mod control;
mod loopback;
mod signalling;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};

use browser::{Begins, Browser};
use command::{Scratch, Serve, weir};
use control::{Client, free_ports, soon};
use signalling::{Caller, create_microphone, enable_consumer};

/// What is refused: a system call, if these of its arguments (by number) are so.
#[derive(Clone, Copy)]
struct Refused {
    call: libc::c_long,
    arguments: &'static [(u8, libc::c_int)],
    errno: Errno,
}

const fn refused(call: libc::c_long, arguments: &'static [(u8, libc::c_int)], errno: Errno) -> Refused {
    Refused { call, arguments, errno }
}

impl Refused {
    fn filter(self) -> BpfProgram {
        let conditions = self.arguments.iter().map(|(number, value)| {
            let value = u64::from(value.cast_unsigned());
            SeccompCondition::new(*number, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
        });
        let conditions: Vec<SeccompCondition> = conditions.collect();
        let rules = match conditions.is_empty() {
            true => Vec::new(), // whatever its arguments
            false => vec![SeccompRule::new(conditions).unwrap()],
        };
        let action = SeccompAction::Errno((self.errno as i32).cast_unsigned());
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        SeccompFilter::new(
            BTreeMap::from([(self.call, rules)]),
            SeccompAction::Allow,
            action,
            architecture,
        )
        .unwrap()
        .try_into()
        .unwrap()
    }

    /// Starts a program to which this is refused, and to its children.
    async fn spawn(self, command: Command) -> Child {
        spawn_under(vec![self.filter()], command).await
    }

    async fn serve(self, scratch: &Scratch, command: Command) -> Serve {
        Serve::follow_start(self.spawn(command).await, &scratch.socket).await
    }

    async fn serve_on_shared_ports(self, scratch: &Scratch) -> Serve {
        for _ in 0..TRIES {
            let mut command = serve(scratch);
            command.args(["--webrtc-port", &free_ports(2).to_string()]);
            match Serve::try_follow_start(self.spawn(command).await, &scratch.socket).await {
                Ok(serve) => return serve,
                Err(said) => assert!(is_taken(&said), "the server did not start: {said}"),
            }
        }
        panic!("somebody was faster {TRIES} times");
    }
}

/// Starts a program under these filters, and its children.
async fn spawn_under(filters: Vec<BpfProgram>, mut command: Command) -> Child {
    let runtime = tokio::runtime::Handle::current();
    // A filter is a thread's, and its children's.
    let thread = std::thread::spawn(move || {
        for filter in &filters {
            apply_filter(filter).unwrap();
        }
        let _context = runtime.enter();
        command.spawn().unwrap()
    });
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap()
}

const SETSOCKOPT: libc::c_long = libc::SYS_setsockopt;
const GETSOCKOPT: libc::c_long = libc::SYS_getsockopt;

const fn socket_option(name: &'static [(u8, libc::c_int)]) -> Refused {
    refused(SETSOCKOPT, name, Errno::ENOPROTOOPT)
}

/// What Weir does without, and what the line says that it logs about it; `None`: nothing.
const OPTIONAL: [(Option<&str>, Refused); 22] = [
    (
        Some("UDP_GRO"),
        socket_option(&[(1, libc::SOL_UDP), (2, libc::UDP_GRO)]),
    ),
    (
        Some("UDP_SEGMENT"),
        socket_option(&[(1, libc::SOL_UDP), (2, libc::UDP_SEGMENT)]),
    ),
    (
        Some("SO_RXQ_OVFL"),
        socket_option(&[(1, libc::SOL_SOCKET), (2, libc::SO_RXQ_OVFL)]),
    ),
    (
        Some("SO_TIMESTAMPNS"),
        socket_option(&[(1, libc::SOL_SOCKET), (2, libc::SO_TIMESTAMPNS)]),
    ),
    (
        Some("SO_MEMINFO"),
        refused(
            GETSOCKOPT,
            &[(1, libc::SOL_SOCKET), (2, libc::SO_MEMINFO)],
            Errno::ENOPROTOOPT,
        ),
    ),
    // The usual case for those who are not root.
    (
        None,
        refused(
            SETSOCKOPT,
            &[(1, libc::SOL_SOCKET), (2, libc::SO_RCVBUFFORCE)],
            Errno::EPERM,
        ),
    ),
    (
        None,
        refused(
            SETSOCKOPT,
            &[(1, libc::SOL_SOCKET), (2, libc::SO_SNDBUFFORCE)],
            Errno::EPERM,
        ),
    ),
    (
        None,
        refused(
            GETSOCKOPT,
            &[(1, libc::SOL_SOCKET), (2, libc::SO_RCVBUF)],
            Errno::ENOPROTOOPT,
        ),
    ),
    (
        None,
        refused(
            GETSOCKOPT,
            &[(1, libc::SOL_SOCKET), (2, libc::SO_SNDBUF)],
            Errno::ENOPROTOOPT,
        ),
    ),
    (
        Some("TCP_NODELAY"),
        socket_option(&[(1, libc::IPPROTO_TCP), (2, libc::TCP_NODELAY)]),
    ),
    (
        Some("SO_REUSEADDR"),
        socket_option(&[(1, libc::SOL_SOCKET), (2, libc::SO_REUSEADDR)]),
    ),
    (
        Some("IPV6_V6ONLY"),
        socket_option(&[(1, libc::IPPROTO_IPV6), (2, libc::IPV6_V6ONLY)]),
    ),
    (
        Some("SO_ATTACH_REUSEPORT_CBPF"),
        socket_option(&[(1, libc::SOL_SOCKET), (2, libc::SO_ATTACH_REUSEPORT_CBPF)]),
    ),
    (
        Some("epoll_pwait2"),
        refused(libc::SYS_epoll_pwait2, &[], Errno::ENOSYS),
    ),
    (
        Some("epoll_pwait2"),
        refused(libc::SYS_epoll_pwait2, &[], Errno::EACCES),
    ),
    (
        Some("sched_setattr"),
        refused(libc::SYS_sched_setattr, &[], Errno::EPERM),
    ),
    (
        Some("sched_setattr"),
        refused(libc::SYS_sched_getattr, &[], Errno::ENOSYS),
    ),
    (
        Some("sched_setaffinity"),
        refused(libc::SYS_sched_setaffinity, &[], Errno::EPERM),
    ),
    (
        Some("PR_SET_TIMERSLACK"),
        refused(libc::SYS_prctl, &[(0, libc::PR_SET_TIMERSLACK)], Errno::EINVAL),
    ),
    (
        Some("PR_SET_PDEATHSIG"),
        refused(libc::SYS_prctl, &[(0, libc::PR_SET_PDEATHSIG)], Errno::EPERM),
    ),
    (
        Some("PR_SET_NO_NEW_PRIVS"),
        refused(libc::SYS_prctl, &[(0, libc::PR_SET_NO_NEW_PRIVS)], Errno::EINVAL),
    ),
    (None, refused(libc::SYS_pidfd_open, &[], Errno::ENOSYS)),
];

/// What no transport can do without, and what is said of it at the start.
const NEEDED: [(&str, Refused); 3] = [
    (
        "SO_REUSEPORT",
        socket_option(&[(1, libc::SOL_SOCKET), (2, libc::SO_REUSEPORT)]),
    ),
    ("recvmmsg", refused(libc::SYS_recvmmsg, &[], Errno::ENOSYS)),
    ("sendmmsg", refused(libc::SYS_sendmmsg, &[], Errno::EPERM)),
];

/// `weir serve` with IPv4 and IPv6.
fn serve(scratch: &Scratch) -> Command {
    let mut command = weir([
        "serve",
        "--workers",
        "2",
        "--rtc-ipv4",
        "127.0.0.1",
        "--rtc-ipv6",
        "::1",
    ]);
    command
        .args(["--start-timeout", "60s", "--ping-timeout", "60s", "--control"])
        .arg(&scratch.socket);
    command
}

const SSRC: u32 = 1_000;

/// Opus, as the sender has it, and as rooms have it.
const THEIRS: u8 = 111;
const ROOMS: u8 = 100;

fn create_transport(id: i64, direction: &str, dtls: &Value) -> Value {
    json!({
        "method": "createTransport", "target": "peer", "id": id, "direction": direction,
        "options": {"udp": true, "tcp": true, "preferIPv4": false}, "dtlsParameters": dtls, "appData": {}
    })
}

/// Alice speaks by WebRTC; Bob hears her by WebRTC, and somebody by plain RTP, which goes around once more by plain RTP.
async fn everybody_hears(socket: &Path) {
    let mut client = Client::connect(socket).await;
    let room = client.room().await;
    let mut alice = Caller::connect(socket, room, "alice").await;
    alice.join("alice", Value::Null).await;
    let mut sending = Browser::new(Begins::There, THEIRS).await;
    let dtls = sending.dtls_parameters();
    let answer = alice.request(create_transport(1, "send", &dtls)).await.unwrap();
    sending.connect(&answer);
    sending.declare_sent("0", SSRC);
    alice.request(create_microphone(5, 1, SSRC)).await.unwrap();

    let mut bob = Caller::connect(socket, room, "bob").await;
    bob.join("bob", Value::Null).await;
    let mut receiving = Browser::new(Begins::Here, ROOMS).await;
    let dtls = receiving.dtls_parameters();
    let answer = bob.request(create_transport(2, "recv", &dtls)).await.unwrap();
    receiving.connect(&answer);
    let consumers = client.get("/consumers").await.expect(200);
    let consumer = &consumers["items"][0];
    bob.request(enable_consumer(&consumer["id"], 2)).await.unwrap();
    let target = format!("/consumers/{}", consumer["id"]);
    let consumer = client.get(&target).await.expect(200);
    let encoding = &consumer["rtpParameters"]["encodings"][0];
    let ssrc = u32::try_from(encoding["ssrc"].as_u64().unwrap()).unwrap();
    receiving.declare_received("0", ssrc);
    sending.run_until("alice", |sending| sending.connected).await;
    receiving.run_until("bob", |receiving| receiving.connected).await;

    let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    plain_receiver(&mut client, room, &consumer["producer"], &listener).await;
    let microphone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let second = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = plain_sender(&mut client, room, &second).await;

    for seq in 1..=20_u8 {
        sending.send(SSRC, THEIRS, seq.into(), &[0xf8, 0xff, 0xfe, seq]);
        sending.run_until("what is in line", |_| true).await;
        receiving
            .run_until("the packet", |receiving| !receiving.packets.is_empty())
            .await;
        let heard: Vec<Option<u8>> = receiving
            .packets
            .drain(..)
            .map(|packet| packet.payload.last().copied())
            .collect();
        assert_eq!(heard, [Some(seq)]);
        assert_eq!(heard_at(&listener).await, seq);

        microphone.send_to(&packet(seq), ("127.0.0.1", port)).await.unwrap();
        assert_eq!(heard_at(&second).await, seq);
    }
}

/// An opus packet that ends with its number.
fn packet(seq: u8) -> Vec<u8> {
    let mut packet = vec![0x80, THEIRS, 0, seq];
    packet.extend((u32::from(seq) * 960).to_be_bytes());
    packet.extend(2_000_u32.to_be_bytes());
    packet.extend([0xf8, 0xff, 0xfe, seq]);
    packet
}

/// The number of the next packet of RTP; reports come in between.
async fn heard_at(socket: &UdpSocket) -> u8 {
    let mut packet = [0; 2_000];
    loop {
        let length = soon("a packet", socket.recv(&mut packet)).await.unwrap();
        if !(192..=223).contains(&packet[1]) {
            return packet[length - 1];
        }
    }
}

/// Sends a producer to a socket by plain RTP.
async fn plain_receiver(client: &mut Client, room: u64, producer: &Value, socket: &UdpSocket) {
    let remote = json!({"remote": {"rtp": socket.local_addr().unwrap().to_string()}});
    let transport = client
        .post(&format!("/rooms/{room}/transports"), remote)
        .await
        .expect(201);
    client
        .consumer(transport["id"].as_u64().unwrap(), producer.as_u64().unwrap())
        .await;
}

/// The port to send opus to, all of which comes to a socket.
async fn plain_sender(client: &mut Client, room: u64, socket: &UdpSocket) -> u16 {
    let body = json!({"comedia": true});
    let transport = client
        .post(&format!("/rooms/{room}/transports"), body)
        .await
        .expect(201);
    let producer = json!({"kind": "audio", "rtpParameters": {
        "codecs": [{"mimeType": "audio/opus", "payloadType": THEIRS, "clockRate": 48_000, "channels": 2}],
        "encodings": [{"ssrc": 2_000}],
    }});
    let target = format!("/transports/{}/producers", transport["id"]);
    let producer = client.post(&target, producer).await.expect(201);
    plain_receiver(client, room, &producer["id"], socket).await;
    u16::try_from(transport["tuple"]["localPort"].as_u64().unwrap()).unwrap()
}

/// Where clients are served.
enum Ports {
    /// Each transport on its own.
    Own,
    /// All of a worker on one.
    Shared,
}

/// Checks that media flows, and what was said about it.
async fn serves_without(refused: Refused, missed: Option<&str>, ports: Ports) {
    let scratch = Scratch::new();
    let serve = match ports {
        Ports::Own => refused.serve(&scratch, serve(&scratch)).await,
        Ports::Shared => refused.serve_on_shared_ports(&scratch).await,
    };
    everybody_hears(&scratch.socket).await;
    serve.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, said) = serve.end().await;
    assert!(status.success(), "{status}: {said}");
    let refusals: Vec<&str> = said.lines().filter(|line| line.contains(" refuses ")).collect();
    match missed {
        Some(name) => {
            let [line] = refusals[..] else {
                panic!("{name} is told once, not {} times: {said}", refusals.len());
            };
            assert!(line.contains(&format!("refuses {name}, so: ")), "{line}");
        }
        None => assert_eq!(refusals, [] as [&str; 0]),
    }
}

/// Whether this is why a server did not start: its ports went to somebody else first.
fn is_taken(said: &str) -> bool {
    said.contains("another program has it")
}

/// So often ports are chosen anew.
const TRIES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_done_without_is_missed_once_and_media_flows_on_ports_of_its_own() {
    for (missed, refused) in OPTIONAL {
        // There is no shared port, and so no filter for one.
        let missed = missed.filter(|name| *name != "SO_ATTACH_REUSEPORT_CBPF");
        serves_without(refused, missed, Ports::Own).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_done_without_is_missed_once_and_media_flows_on_a_shared_port() {
    for (missed, refused) in OPTIONAL {
        serves_without(refused, missed, Ports::Shared).await;
    }
}

#[tokio::test]
async fn the_doctor_names_what_is_refused_and_what_follows() {
    for (missed, refused) in OPTIONAL {
        let Some(name) = missed.filter(|name| ["UDP_GRO", "UDP_SEGMENT", "SO_RXQ_OVFL"].contains(name)) else {
            continue;
        };
        let args = [
            "doctor",
            "--json",
            "--rtc-ipv4",
            "127.0.0.1",
            "--rtc-ipv6",
            "off",
            "--start-timeout",
            "60s",
        ];
        let doctor = refused.spawn(weir(args)).await;
        let told = soon("the doctor", doctor.wait_with_output()).await.unwrap();
        assert!(told.status.success(), "{name}: {told:?}");
        let report: Value = serde_json::from_slice(&told.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let found = findings
            .iter()
            .find(|finding| finding["found"].as_str().unwrap().contains(name));
        let found = found.unwrap_or_else(|| panic!("{name}: {report}"));
        assert_eq!(found["verdict"], "warn");
        assert!(found["advice"].is_string(), "{found}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_without_fails_the_start_and_is_named() {
    for (name, refused) in NEEDED {
        for ports in [Ports::Own, Ports::Shared] {
            let scratch = Scratch::new();
            let mut tries = 0;
            let (output, said) = loop {
                let mut command = serve(&scratch);
                if let Ports::Shared = ports {
                    command.args(["--webrtc-port", &free_ports(2).to_string()]);
                }
                let output = soon("its end", refused.spawn(command).await.wait_with_output())
                    .await
                    .unwrap();
                let said = String::from_utf8(output.stderr.clone()).unwrap();
                tries += 1;
                if !is_taken(&said) || tries == TRIES {
                    break (output, said);
                }
            };
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains(name), "{name} is not named: {said}");
            assert!(!said.contains("choose another"), "{said}");
            assert_eq!(output.stdout, b"", "it is not ready");
            assert_eq!(scratch.files(), [] as [&str; 0]);
        }
    }
}

/// What the sandbox around workers needs, and the layers that are missing without it.
fn of_sandbox() -> Vec<(Refused, &'static [&'static str])> {
    let all = |call, errno| refused(call, &[], errno);
    let mut rows: Vec<(Refused, &[&str])> = vec![
        (all(libc::SYS_seccomp, Errno::ENOSYS), &["seccomp"]),
        (all(libc::SYS_landlock_create_ruleset, Errno::EOPNOTSUPP), &["landlock"]),
        (all(libc::SYS_capset, Errno::EPERM), &["no capabilities"]),
    ];
    if nix::unistd::geteuid().is_root() {
        rows.push((all(libc::SYS_setresuid, Errno::EPERM), &["own user"]));
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_of_the_sandbox_that_is_missing_is_told_once_and_media_flows() {
    for (refused, missing) in of_sandbox() {
        let scratch = Scratch::new();
        let serve = refused.serve(&scratch, serve(&scratch)).await;
        everybody_hears(&scratch.socket).await;
        let shown = serve.ask("worker show 1").await;
        assert_eq!(
            shown["sandbox"]["lacks"].as_array().unwrap().len(),
            missing.len(),
            "{shown}"
        );
        serve.signal(nix::sys::signal::Signal::SIGTERM);
        let (status, said) = serve.end().await;
        assert!(status.success(), "{status}: {said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("sandbox: ")).collect();
        let [line] = lines[..] else {
            panic!("{missing:?} are told once, not {} times: {said}", lines.len());
        };
        let (holds, lacks) = line.split_once("; not: ").unwrap();
        for name in missing {
            assert!(lacks.contains(name) && !holds.contains(name), "{name}: {line}");
        }
    }
}

#[tokio::test]
async fn a_layer_of_the_sandbox_that_is_required_and_missing_fails_the_start() {
    for (refused, missing) in of_sandbox() {
        let scratch = Scratch::new();
        let mut command = serve(&scratch);
        command.args(["--sandbox", "require"]);
        let child = refused.spawn(command).await;
        let output = soon("its end", child.wait_with_output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{missing:?}: {said}");
        assert!(said.contains("--sandbox require"), "{said}");
        missing
            .iter()
            .for_each(|name| assert!(said.contains(name), "{name}: {said}"));
        assert_eq!(scratch.files(), [] as [&str; 0]);
    }
}

// Where all of it can be had, it can be required.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_flows_through_the_whole_sandbox_and_through_none() {
    for mode in ["require", "off"] {
        let scratch = Scratch::new();
        let mut command = serve(&scratch);
        command.args(["--sandbox", mode, "--log-level", "info"]);
        let serve = Serve::start(command, &scratch.socket).await;
        let shown = serve.ask("worker show 1").await;
        assert_eq!(shown["sandbox"].is_null(), mode == "off", "{shown}");
        // The other commands of a running worker: what it logs, and what it counts.
        serve.say("log-level debug").await;
        serve.say("settings --measure-residence true").await;
        let stats = serve.ask("worker stats 1").await;
        assert!(stats["residentBytes"].as_u64().unwrap() > 1 << 20, "{stats}");
        everybody_hears(&scratch.socket).await;
        serve.signal(nix::sys::signal::Signal::SIGTERM);
        let (status, said) = serve.end().await;
        assert!(status.success(), "{status}: {said}");
        let told = said.lines().filter(|line| line.contains("sandbox: ")).count();
        assert_eq!(told, 1, "{said}");
    }
}

#[tokio::test]
async fn a_user_of_workers_that_does_not_exist_fails_the_start() {
    let scratch = Scratch::new();
    let mut command = serve(&scratch);
    command.args(["--sandbox-user", "nobody at all"]);
    let output = soon("its end", command.output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("sandbox_user \"nobody at all\": there is no such user"),
        "{said}"
    );
}

// Residence cannot be measured without time stamps: who asks is told, and nothing else suffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measuring_without_time_stamps_is_refused_and_costs_no_transport() {
    let scratch = Scratch::new();
    let (_, refused) = OPTIONAL[3];
    let serve = refused.serve(&scratch, serve(&scratch)).await;
    let mut client = Client::connect(&scratch.socket).await;
    let room = client.room().await;
    client.transport(room).await;
    let told = serve.ctl("settings --measure-residence true").await;
    told.failed(1, "SO_TIMESTAMPNS");
    client.transport(room).await;
    everybody_hears(&scratch.socket).await;
    serve.stop().await;
}

/// What `deploy/weir.service` lets the service call. As systemd does, later lines add to what earlier ones left.
fn system_calls_of_the_service() -> BTreeSet<String> {
    let unit = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/weir.service")).unwrap();
    let lines = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
    let mut allowed = BTreeSet::from(["execve", "exit", "exit_group", "rt_sigreturn"].map(str::to_owned));
    for line in lines {
        let (names, is_refused) = match line.strip_prefix('~') {
            Some(names) => (names, true),
            None => (line, false),
        };
        for name in names.split_whitespace().flat_map(calls_of_set) {
            match is_refused {
                true => allowed.remove(&name),
                false => allowed.insert(name),
            };
        }
    }
    allowed
}

/// The system calls of a set of systemd's (`@…`), or the one that is named.
fn calls_of_set(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let output = std::process::Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager", name])
        .output()
        .expect("systemd-analyze runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let members = text.lines().skip(1).map(str::trim);
    members
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(calls_of_set)
        .collect()
}

/// All but these are refused, with the service's `SystemCallErrorNumber`.
fn allow_only(calls: &BTreeSet<String>) -> BpfProgram {
    let compiled = |names: &[&String]| {
        let calls: Vec<Value> = names.iter().map(|name| json!({"syscall": name})).collect();
        let filter = json!({"all": {
            "mismatch_action": {"errno": Errno::EPERM as i32}, "match_action": "allow", "filter": calls
        }});
        seccompiler::compile_from_json(
            filter.to_string().as_bytes(),
            std::env::consts::ARCH.try_into().unwrap(),
        )
    };
    // The sets have calls of all architectures.
    let known: Vec<&String> = calls.iter().filter(|name| compiled(&[name]).is_ok()).collect();
    assert!(known.len() > 200, "{known:?}");
    compiled(&known).unwrap().remove("all").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs systemd-analyze"]
async fn media_flows_under_the_system_calls_of_the_service() {
    let filter = allow_only(&system_calls_of_the_service());
    for sockets in [Ports::Own, Ports::Shared] {
        let scratch = Scratch::new();
        let mut command = serve(&scratch);
        if let Ports::Shared = sockets {
            command.args(["--webrtc-port", &free_ports(2).to_string()]);
        }
        let serve = Serve::follow_start(spawn_under(vec![filter.clone()], command).await, &scratch.socket).await;
        everybody_hears(&scratch.socket).await;
        serve.signal(nix::sys::signal::Signal::SIGTERM);
        let (status, said) = serve.end().await;
        assert!(status.success(), "{status}: {said}");
        assert!(!said.contains(" refuses "), "{said}");
    }
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_service_is_rated_safe() {
    let output = std::process::Command::new("systemd-analyze")
        // Of 100; the network that it is there for counts about 10.
        .args([
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=15",
            "weir.service",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy"))
        .output()
        .expect("systemd-analyze runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
