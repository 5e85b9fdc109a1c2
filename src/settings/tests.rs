//! Settings on the command line, in the environment and in files.

use clap::Parser;

use super::*;
use crate::http::ClientsFrom;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    flags: SettingsFlags,
}

/// As if started with these options. The tests' own environment has no `WEIR_` variable.
fn flags(line: &str) -> SettingsFlags {
    let program = Program::try_parse_from(format!("weir {line}").split_whitespace());
    program.unwrap_or_else(|error| panic!("{error}")).flags
}

const EVERYTHING: &str = r#"
    workers = 3
    log_level = "debug"
    log_tags = ["rtp", "net"]
    rtc_ipv4 = "127.0.0.1"
    rtc_ipv6 = "off"
    rtc_announced_ipv4 = "192.0.2.1"
    rtc_announced_ipv6 = "2001:db8::1"
    rtc_ports = "20000-20099"
    rtc_udp = true
    rtc_tcp = false
    webrtc_port = 8443
    webrtc_connected = "never"
    dtls_13 = true
    dtls_weak_fingerprints = true
    gop_cache = false
    equalize_packets = false
    dtls_certificate_file = "/etc/weir/certificate.pem"
    dtls_private_key_file = "/etc/weir/key.pem"
    socket_receive_buffer = 65536
    socket_send_buffer = "64K"
    worker_binary = "/usr/libexec/weir-worker"
    sandbox = "require"
    sandbox_user = "1000:1000"
    start_timeout = "1s"
    ping_interval = "2s"
    ping_timeout = "3s"
    request_timeout = "4s"
    close_timeout = "5s"
    coalescing_us_max = 7
    spin_us_max = 8
    http_listen = "127.0.0.1:8080"
    http_token = "0123456789abcdef"
    http_token_file = "/etc/weir/token"
    metrics_listen = "127.0.0.1:9464"
    http_origins = ["https://app.example", "*"]
    client_token = "fedcba9876543210"
    client_token_file = "/etc/weir/client-token"
    token_keys = "/etc/weir/keys"
    clients_without_token = true
    clients_max = 6
    client_grace = "7s"
    client_idle_timeout = "8s"
    client_rate = 9
    client_burst = 10
    client_message_size = "11K"
    client_plain_remotes = "none"
    client_takeover = "any"
    whip_sessions_max = 12
    ice_servers = ["stun:stun.example.org:3478"]
    webhook_urls = ["https://app.example/hook", "http://127.0.0.1:9000"]
    webhook_secret_file = "/etc/weir/webhook-secret"
    webhook_events = ["peerJoined", "peerClosed"]
"#;

const EVERYTHING_AS_OPTIONS: &str = "--workers 3 --log-level debug --log-tags rtp,net --rtc-ipv4 127.0.0.1 \
    --rtc-ipv6 off --rtc-announced-ipv4 192.0.2.1 --rtc-announced-ipv6 2001:db8::1 --rtc-ports 20000-20099 --rtc-udp true --rtc-tcp false --webrtc-port 8443 --webrtc-connected never \
    --dtls-13 true --dtls-weak-fingerprints true --gop-cache false --equalize-packets false --dtls-certificate-file /etc/weir/certificate.pem --dtls-private-key-file /etc/weir/key.pem \
    --socket-receive-buffer 65536 --socket-send-buffer 64K --worker-binary /usr/libexec/weir-worker \
    --sandbox require --sandbox-user 1000:1000 --start-timeout 1s --ping-interval 2s --ping-timeout 3s --request-timeout 4s --close-timeout 5s \
    --coalescing-us-max 7 --spin-us-max 8 --http-listen 127.0.0.1:8080 --http-token 0123456789abcdef \
    --http-token-file /etc/weir/token --metrics-listen 127.0.0.1:9464 --http-origins https://app.example,* \
    --client-token fedcba9876543210 --client-token-file /etc/weir/client-token --token-keys /etc/weir/keys --clients-without-token --clients-max 6 \
    --client-grace 7s --client-idle-timeout 8s --client-rate 9 --client-burst 10 --client-message-size 11K --client-plain-remotes none --client-takeover any --whip-sessions-max 12 --ice-servers stun:stun.example.org:3478 \
    --webhook-urls https://app.example/hook,http://127.0.0.1:9000 --webhook-secret-file /etc/weir/webhook-secret --webhook-events peerJoined,peerClosed";

#[test]
fn a_file_and_the_command_line_say_the_same_things() {
    let file = SettingsFlags::from_toml(EVERYTHING).unwrap();
    assert_eq!(file, flags(EVERYTHING_AS_OPTIONS));
    // Each setting is among them, and each is taken over.
    assert_eq!(EVERYTHING.matches('=').count(), names().len());
    let settings = file.clone().settings().unwrap();
    assert_eq!((settings.workers.unwrap().get(), settings.coalescing_us_max), (3, 7));
    assert_eq!((settings.rtc_udp, settings.rtc_tcp), (true, false));
    assert_eq!(settings.webrtc_port.map(u16::from), Some(8443));
    assert_eq!(settings.webrtc_connected, ConnectedSockets::Never);
    assert!(settings.dtls_13 && settings.dtls_weak_fingerprints);
    assert!(!settings.gop_cache && !settings.equalize_packets);
    let off = flags("--webrtc-port 0").settings().unwrap();
    assert_eq!(off.webrtc_port, None, "a port for each transport");
    assert_eq!(
        settings.dtls_private_key_file.as_ref().unwrap().to_str(),
        Some("/etc/weir/key.pem")
    );
    assert_eq!(
        settings.log().directives(),
        "error,weir_worker::rtp=debug,weir_worker::net=debug"
    );
    assert_eq!(SettingsFlags::default().overlaid_with(file.clone()), file);
    assert_eq!(file.clone().overlaid_with(SettingsFlags::default()), file);
}

#[test]
fn the_help_names_the_true_defaults() {
    let command = SettingsFlags::augment_args(Command::new("weir"));
    let mut named = Vec::new();
    for arg in command.get_arguments() {
        let help = arg.get_help().unwrap().to_string();
        let Some((_, default)) = help.strip_suffix(']').and_then(|help| help.split_once("[default: ")) else {
            continue;
        };
        // Those in several words describe what cannot be written.
        if !default.contains(' ') {
            named.push(format!("--{}={default}", arg.get_long().unwrap()));
        }
    }
    assert!(named.len() > 20, "{named:?}");
    let named = flags(&named.join(" "));
    assert_eq!(named.clone().settings(), Ok(Settings::default()));
    // What is not for the server but for its interfaces.
    let access = |flags: SettingsFlags| format!("{:?}", flags.access().unwrap());
    assert_eq!(access(named), access(SettingsFlags::default()));
}

#[test]
fn the_command_line_beats_the_file_and_the_file_beats_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    std::fs::write(&path, "workers = 3\nping_interval = \"2s\"\n").unwrap();
    let settings = flags(&format!("--config {} --workers 5", path.display()))
        .load()
        .unwrap();
    assert_eq!(settings.workers, NonZeroU32::new(5));
    assert_eq!(settings.ping_interval, Duration::from_secs(2));
    assert_eq!(settings.ping_timeout, Settings::default().ping_timeout);
    assert_eq!(flags("").load().unwrap(), Settings::default());
}

#[test]
fn mistakes_in_a_file_are_named_with_their_line() {
    let rows = [
        ("\nworkers = 0", "line 2: "),
        ("workers = \"two\"", "line 1: "),
        (
            "\n\nrtc_port = \"1-2\"",
            "line 3: unknown key \"rtc_port\"; did you mean \"rtc_ports\"?",
        ),
        ("rtc-ipv4 = \"auto\"", "did you mean \"rtc_ipv4\"?"),
        (
            "colour = 1",
            "line 1: unknown key \"colour\"; the keys are workers, log_level",
        ),
        ("rtc_ports = \"80-90\"", "line 1: ports below 1024 are reserved"),
        (
            "rtc_ipv4 = \"::1\"",
            "\"::1\" is neither auto, off, nor an address of this family",
        ),
        ("log_tags = [\"rtx\"]", "line 1: unknown variant `rtx`"),
        ("ping_timeout = \"5 lightyears\"", "not a time like 500ms or 5s"),
        ("ping_timeout = 5", "line 1: "),
        ("socket_send_buffer = \"4G\"", "line 1: \"4G\" is not a size"),
        ("workers = 1\nworkers = 2", "line 2: duplicate key"),
        ("workers", "line 1: "),
    ];
    for (text, complaint) in rows {
        let error = SettingsFlags::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(complaint), "{text:?}: {error}");
    }
}

#[test]
fn settings_that_make_no_sense_together_are_refused() {
    let rows = [
        ("--rtc-ipv4 off --rtc-ipv6 off", "both off"),
        ("--rtc-ipv4 0.0.0.0", "not the wildcard"),
        ("--coalescing-us-max 1001", "at most 1000"),
        ("--spin-us-max 1001", "at most 1000"),
        ("--ping-timeout 0s", "ping_timeout is too short"),
        ("--workers 1025", "at most 1024"),
    ];
    for (line, complaint) in rows {
        let error = flags(line).load().unwrap_err().to_string();
        assert!(error.contains(complaint), "{line}: {error}");
    }
}

const OPERATORS: &str = "--http-token 0123456789abcdef";
const CLIENTS: &str = "--client-token fedcba9876543210";

fn tcp(line: &str) -> Result<Option<TcpAccess>, String> {
    let access = flags(line).access().map_err(|error| error.to_string())?;
    Ok(access.tcp)
}

#[test]
fn tcp_is_served_with_a_token_only() {
    assert_eq!(tcp(""), Ok(None));
    assert_eq!(tcp(OPERATORS), Ok(None));
    let error = tcp("--http-listen 127.0.0.1:8080").unwrap_err();
    assert!(error.contains("127.0.0.1:8080 needs a token"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "fedcba9876543210\n").unwrap();
    let file = format!("--http-listen [::1]:80 --http-token-file {}", path.display());
    let error = tcp(&format!("{file} {OPERATORS}")).unwrap_err();
    assert!(error.contains("http_token and http_token_file are both set"), "{error}");
    let found = tcp(&file).unwrap().unwrap();
    assert_eq!(found.listen, "[::1]:80".parse().unwrap());
    assert!(found.guard.operators.unwrap().is(b"fedcba9876543210"));
    let error = tcp(&format!("{file} {CLIENTS}")).unwrap_err();
    assert!(error.contains("are the same"), "{error}");
    std::fs::write(&path, "short").unwrap();
    let error = tcp(&file).unwrap_err();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(tcp(&file).is_err());
    let error = SettingsFlags::from_toml("http_token = \"short\"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("16 to 1024 characters"), "{error}");
}

#[test]
fn strangers_join_rooms_only_when_somebody_has_said_so() {
    let guard = |line: &str| tcp(line).map(|tcp| tcp.unwrap().guard);
    for local in [
        "127.0.0.1:8080",
        "127.9.9.9:8080",
        "[::1]:8080",
        "[::ffff:127.0.0.1]:8080",
    ] {
        let found = guard(&format!("--http-listen {local} {OPERATORS}")).unwrap();
        assert_eq!(found.clients, ClientsFrom::ThisMachine, "{local}");
    }
    for reachable in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "[::ffff:192.0.2.1]:8080"] {
        let listen = format!("--http-listen {reachable}");
        let error = guard(&format!("{listen} {OPERATORS}")).unwrap_err();
        for part in [reachable, "client_token_file", "clients_without_token = true"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(guard(&format!("{listen} {OPERATORS} --clients-without-token=false")).is_err());
        for enough in [CLIENTS, "--clients-without-token"] {
            let found = guard(&format!("{listen} {enough}")).unwrap();
            assert_eq!(
                (found.clients, found.operators),
                (ClientsFrom::Anywhere, None),
                "{enough}"
            );
            let found = guard(&format!("{listen} {enough} {OPERATORS}")).unwrap();
            assert!(found.operators.is_some());
        }
        let error = guard(&format!("{listen} {CLIENTS} --clients-without-token")).unwrap_err();
        assert!(error.contains("leave one out"), "{error}");
    }
}

#[test]
fn clients_are_limited_as_is_said() {
    let options = |line: &str| flags(line).access().map(|access| access.signalling);
    let default = options("").unwrap();
    assert_eq!((default.token, default.grace), (None, Duration::from_secs(15)));
    let line = "--client-token fedcba9876543210 --clients-max 6 --client-grace 0s --client-idle-timeout 3s \
        --client-rate 9 --client-burst 10 --client-message-size 11K --http-origins https://app.example";
    let given = options(line).unwrap();
    assert!(given.token.unwrap().is(b"fedcba9876543210"));
    assert_eq!(given.origins, ["https://app.example"]);
    assert_eq!((given.clients, given.message_bytes_max), (6, 11 * 1_024));
    assert_eq!((given.messages_per_second, given.messages_at_once), (9, 10));
    assert_eq!((given.grace, given.idle), (Duration::ZERO, Duration::from_secs(3)));
    assert_eq!(
        given.ping,
        Duration::from_secs(1),
        "three pings before it counts as lost"
    );
    for (line, complaint) in [
        ("--client-grace 25h", "client_grace is at most"),
        ("--client-idle-timeout 999ms", "client_idle_timeout is at least"),
        ("--client-idle-timeout 25h", "client_idle_timeout is at least"),
        ("--client-message-size 1023", "client_message_size is at least"),
        ("--client-message-size 2M", "client_message_size is at least"),
    ] {
        let error = options(line).unwrap_err().to_string();
        assert!(error.contains(complaint), "{line}: {error}");
    }
}

#[test]
fn webhooks_are_signed_and_of_types_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "a-secret-that-is-long-enough\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let secret = format!("--webhook-secret-file {}", path.display());
    let webhooks = |line: &str| flags(line).access().map(|access| format!("{:?}", access.webhooks));
    let url = "--webhook-urls http://127.0.0.1:9000/hook?key=secret";
    assert_eq!(
        webhooks(&format!("{url} {secret}")).unwrap(),
        "[http://127.0.0.1:9000/…]"
    );
    assert_eq!(webhooks("").unwrap(), "[]");
    for (line, complaint) in [
        (url.to_owned(), "needs webhook_secret_file"),
        (
            format!("{url} {secret} --webhook-events roomOpenned"),
            "no type of event",
        ),
        (format!("{url}{} {secret}", ",http://a".repeat(8)), "at most 8 URLs"),
        (format!("{url} {secret}x"), "secretx: "),
    ] {
        let error = webhooks(&line).unwrap_err().to_string();
        assert!(error.contains(complaint), "{line}: {error}");
    }
}

#[test]
fn keys_of_access_tokens_let_in_who_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.key");
    let keys = format!("--token-keys {}", path.display());
    let listen = "--http-listen 0.0.0.0:8080";
    let error = tcp(&format!("{listen} {keys}")).unwrap_err();
    assert!(
        error.starts_with("token_keys: ") && error.contains("main.key"),
        "{error}"
    );
    std::fs::write(&path, "a-secret-of-forty-characters-and-no-less\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for listen in [listen, "--http-listen 127.0.0.1:8080"] {
        let found = tcp(&format!("{listen} {keys} --http-origins https://app.example"))
            .unwrap()
            .unwrap()
            .guard;
        assert_eq!(
            found.clients,
            ClientsFrom::Anywhere,
            "they need a token, wherever they are"
        );
        assert_eq!(found.token_keys.unwrap().names(), ["main"]);
        assert_eq!(
            (found.operators, found.origins),
            (None, vec!["https://app.example".to_owned()])
        );
    }
    let error = tcp(&format!("{listen} {keys} --clients-without-token")).unwrap_err();
    assert!(error.contains("leave one out"), "{error}");
    // Also without TCP, for clients on the control socket.
    let access = flags(&keys).access().unwrap();
    assert!(access.tcp.is_none() && access.signalling.token_keys.is_some());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = flags("--config /nowhere/weir.toml").load().unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/weir.toml: "), "{error}");
}

#[test]
fn unknown_variables_are_told_with_what_was_meant() {
    let command = SettingsFlags::augment_args(
        Command::new("weir")
            .subcommand(Command::new("ctl").arg(clap::Arg::new("control").long("control").env("WEIR_CONTROL"))),
    );
    let names = ["HOME", "WEIR_WORKERS", "WEIR_CONTROL", "WEIR_WORKER", "WEIR_XYZZY"];
    assert_eq!(
        unknown_variables(&command, names.map(str::to_owned)),
        [
            "unknown environment variable WEIR_WORKER; did you mean WEIR_WORKERS?",
            "unknown environment variable WEIR_XYZZY"
        ]
    );
}
