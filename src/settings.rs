//! Settings as an operator gives them: options on the command line, variables in the environment, keys in a TOML file.
//!
//! One list serves all three: `--rtc-ports`, `WEIR_RTC_PORTS` and `rtc_ports` are the same setting. The command line beats
//! the environment, that beats the file, and that beats the defaults. What nobody knows is refused with its line and what
//! was probably meant; only an unknown variable is a warning ([`unknown_variables`]), because the environment belongs to
//! others too.
//!
//! ```
//! use weir::settings::SettingsFlags;
//!
//! let settings = SettingsFlags::from_toml("workers = 2\nrtc_ports = \"20000-20999\"")?.settings()?;
//! assert_eq!(settings.rtc_ports.min(), 20_000);
//!
//! let error = SettingsFlags::from_toml("worker = 2").unwrap_err().to_string();
//! assert_eq!(error, "line 1: unknown key \"worker\"; did you mean \"workers\"?");
//! # Ok::<(), weir::settings::SettingsError>(())
//! ```

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Command};
use serde::{Deserialize, Deserializer};
use toml::de::DeTable;
use weir_channel::message::LogLevel;

use crate::http::AccessToken;
use crate::server::{Family, LogSettings, LogTag, PortRange, Settings};

/// Names further apart than this are not taken for typing errors of each other.
const SIMILARITY_MIN: f64 = 0.75;

/// The settings that were given, and by that differ from [`Settings::default`]. Part of the command line of every
/// subcommand that runs a server.
#[derive(Clone, PartialEq, Debug, Default, Args, Deserialize)]
#[command(next_help_heading = "Server settings")]
#[serde(deny_unknown_fields, default)]
pub struct SettingsFlags {
    /// Read settings from this TOML file; the keys are these options with underscores
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// How many workers to run [default: one for each CPU this process may use]
    #[arg(long, env = "WEIR_WORKERS", value_name = "N")]
    pub workers: Option<NonZeroU32>,

    /// How much the workers log: error, warn, info, debug, trace [default: warn]
    #[arg(long, env = "WEIR_LOG_LEVEL", value_name = "LEVEL", value_parser = parse_level)]
    pub log_level: Option<LogLevel>,

    /// What they log about below error: process, channel, net, rtp, relay [default: everything]
    #[arg(long, env = "WEIR_LOG_TAGS", value_name = "TAG,…", value_delimiter = ',')]
    pub log_tags: Option<Vec<LogTag>>,

    /// The local IPv4 address for media: auto, off, or an address [default: auto]
    #[arg(long, env = "WEIR_RTC_IPV4", value_name = "IP")]
    pub rtc_ipv4: Option<Family<Ipv4Addr>>,

    /// The local IPv6 address for media: auto, off, or an address [default: auto]
    #[arg(long, env = "WEIR_RTC_IPV6", value_name = "IP")]
    pub rtc_ipv6: Option<Family<Ipv6Addr>>,

    /// The IPv4 address that remotes are told, e.g. that of the NAT in front
    #[arg(long, env = "WEIR_RTC_ANNOUNCED_IPV4", value_name = "IP")]
    pub rtc_announced_ipv4: Option<Ipv4Addr>,

    /// The IPv6 address that remotes are told
    #[arg(long, env = "WEIR_RTC_ANNOUNCED_IPV6", value_name = "IP")]
    pub rtc_announced_ipv6: Option<Ipv6Addr>,

    /// The UDP ports for media [default: 10000-59999]
    #[arg(long, env = "WEIR_RTC_PORTS", value_name = "MIN-MAX")]
    pub rtc_ports: Option<PortRange>,

    /// The receive buffer of each media socket, in bytes, e.g. 4M [default: 4M]
    #[arg(long, env = "WEIR_SOCKET_RECEIVE_BUFFER", value_name = "SIZE")]
    pub socket_receive_buffer: Option<ByteSize>,

    /// The send buffer of each media socket, in bytes, e.g. 4M [default: 4M]
    #[arg(long, env = "WEIR_SOCKET_SEND_BUFFER", value_name = "SIZE")]
    pub socket_send_buffer: Option<ByteSize>,

    /// The worker program [default: this program]
    #[arg(long, env = "WEIR_WORKER_BINARY", value_name = "FILE")]
    pub worker_binary: Option<PathBuf>,

    /// How long a worker may take to start [default: 10s]
    #[arg(long, env = "WEIR_START_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub start_timeout: Option<Duration>,

    /// How often each worker is pinged [default: 1s]
    #[arg(long, env = "WEIR_PING_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub ping_interval: Option<Duration>,

    /// A worker that does not answer a ping within this is killed and replaced [default: 5s]
    #[arg(long, env = "WEIR_PING_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub ping_timeout: Option<Duration>,

    /// How long a worker may take to answer a request [default: 20s]
    #[arg(long, env = "WEIR_REQUEST_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Option<Duration>,

    /// How long workers may take to end when the server closes [default: 5s]
    #[arg(long, env = "WEIR_CLOSE_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub close_timeout: Option<Duration>,

    /// How long packets may wait under load for others of their train, in microseconds; 0: not at all [default: 200]
    #[arg(long, env = "WEIR_COALESCING_US_MAX", value_name = "US")]
    pub coalescing_us_max: Option<u32>,

    /// Serve the control interface on this TCP address too; needs a token
    #[arg(long, env = "WEIR_HTTP_LISTEN", value_name = "IP:PORT")]
    pub http_listen: Option<SocketAddr>,

    /// The token that callers over TCP must send. Others of this machine see what is on a command line: better in the
    /// environment, or in a file
    #[arg(long, env = "WEIR_HTTP_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[serde(deserialize_with = "parsed")]
    pub http_token: Option<AccessToken>,

    /// The file that has this token
    #[arg(long, env = "WEIR_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// The origins whose pages may connect as clients of rooms, e.g. `https://app.example`; `*`: all [default: none]
    #[arg(long, env = "WEIR_HTTP_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub http_origins: Option<Vec<String>>,
}

/// Where the control interface is served beside its Unix socket, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpAccess {
    /// The address.
    pub listen: SocketAddr,
    /// What callers must know.
    pub token: AccessToken,
}

/// What is wrong with the settings, in a sentence that names the place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsFlags {
    /// The settings: these, then those of the file that `config` names, then the defaults.
    ///
    /// # Errors
    /// When the file cannot be read or understood, or when the settings make no sense together.
    pub fn load(self) -> Result<Settings, SettingsError> {
        self.with_file()?.settings()
    }

    /// These, then those of the file that `config` names.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn with_file(self) -> Result<Self, SettingsError> {
        match &self.config {
            None => Ok(self),
            Some(path) => Ok(Self::from_file(path)?.overlaid_with(self)),
        }
    }

    /// Whether to serve TCP, and for whom. Ignores `config`.
    ///
    /// # Errors
    /// When there is an address and no token, or two tokens, or when the token's file cannot be used.
    pub fn tcp_access(&self) -> Result<Option<TcpAccess>, SettingsError> {
        let token = match (&self.http_token, &self.http_token_file) {
            (Some(_), Some(_)) => {
                return Err(SettingsError(
                    "http_token and http_token_file are both set; leave one out".to_owned(),
                ));
            }
            (Some(token), None) => Some(token.clone()),
            (None, Some(path)) => Some(token_in(path)?),
            (None, None) => None,
        };
        match (self.http_listen, token) {
            (Some(listen), Some(token)) => Ok(Some(TcpAccess { listen, token })),
            (None, _) => Ok(None),
            (Some(listen), None) => Err(SettingsError(format!(
                "http_listen = {listen} needs a token, because whoever reaches that address could command the server; \
                 set http_token_file or http_token"
            ))),
        }
    }

    /// What a TOML file says.
    ///
    /// # Errors
    /// Names the file, and the line.
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let named = |error: &dyn fmt::Display| SettingsError(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        Self::from_toml(&text).map_err(|error| named(&error))
    }

    /// What a TOML document says.
    ///
    /// # Errors
    /// Names the line, and for an unknown key what was probably meant.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        let understood = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            SettingsError(format!("line {line}: {}", error.message()))
        };
        let table = DeTable::parse(text).map_err(understood)?;
        let known = names();
        for key in table.get_ref().keys() {
            let name = key.get_ref();
            if !known.iter().any(|known| known == name) {
                let line = line_of(text, key.span().start);
                let meant = suggestion(name, &known).map_or_else(
                    || format!("the keys are {}", known.join(", ")),
                    |meant| format!("did you mean {meant:?}?"),
                );
                return Err(SettingsError(format!("line {line}: unknown key {name:?}; {meant}")));
            }
        }
        toml::from_str(text).map_err(understood)
    }

    /// The settings, with the defaults where nothing was given. Ignores `config`.
    ///
    /// # Errors
    /// When the settings make no sense together.
    pub fn settings(self) -> Result<Settings, SettingsError> {
        let default = Settings::default();
        let settings = Settings {
            workers: self.workers,
            log: LogSettings {
                level: self.log_level.unwrap_or(default.log.level),
                tags: self.log_tags.unwrap_or(default.log.tags),
            },
            rtc_ipv4: self.rtc_ipv4.unwrap_or(default.rtc_ipv4),
            rtc_ipv6: self.rtc_ipv6.unwrap_or(default.rtc_ipv6),
            rtc_announced_ipv4: self.rtc_announced_ipv4,
            rtc_announced_ipv6: self.rtc_announced_ipv6,
            rtc_ports: self.rtc_ports.unwrap_or(default.rtc_ports),
            socket_receive_buffer: self
                .socket_receive_buffer
                .map_or(default.socket_receive_buffer, |size| size.0),
            socket_send_buffer: self
                .socket_send_buffer
                .map_or(default.socket_send_buffer, |size| size.0),
            worker_binary: self.worker_binary,
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            ping_interval: self.ping_interval.unwrap_or(default.ping_interval),
            ping_timeout: self.ping_timeout.unwrap_or(default.ping_timeout),
            request_timeout: self.request_timeout.unwrap_or(default.request_timeout),
            close_timeout: self.close_timeout.unwrap_or(default.close_timeout),
            coalescing_us_max: self.coalescing_us_max.unwrap_or(default.coalescing_us_max),
        };
        settings.check().map_err(SettingsError)?;
        Ok(settings)
    }

    /// These, except where `above` says something else.
    fn overlaid_with(self, above: Self) -> Self {
        Self {
            config: above.config.or(self.config),
            workers: above.workers.or(self.workers),
            log_level: above.log_level.or(self.log_level),
            log_tags: above.log_tags.or(self.log_tags),
            rtc_ipv4: above.rtc_ipv4.or(self.rtc_ipv4),
            rtc_ipv6: above.rtc_ipv6.or(self.rtc_ipv6),
            rtc_announced_ipv4: above.rtc_announced_ipv4.or(self.rtc_announced_ipv4),
            rtc_announced_ipv6: above.rtc_announced_ipv6.or(self.rtc_announced_ipv6),
            rtc_ports: above.rtc_ports.or(self.rtc_ports),
            socket_receive_buffer: above.socket_receive_buffer.or(self.socket_receive_buffer),
            socket_send_buffer: above.socket_send_buffer.or(self.socket_send_buffer),
            worker_binary: above.worker_binary.or(self.worker_binary),
            start_timeout: above.start_timeout.or(self.start_timeout),
            ping_interval: above.ping_interval.or(self.ping_interval),
            ping_timeout: above.ping_timeout.or(self.ping_timeout),
            request_timeout: above.request_timeout.or(self.request_timeout),
            close_timeout: above.close_timeout.or(self.close_timeout),
            coalescing_us_max: above.coalescing_us_max.or(self.coalescing_us_max),
            http_listen: above.http_listen.or(self.http_listen),
            http_token: above.http_token.or(self.http_token),
            http_token_file: above.http_token_file.or(self.http_token_file),
            http_origins: above.http_origins.or(self.http_origins),
        }
    }
}

/// The token in a file, which may end its line.
fn token_in(path: &Path) -> Result<AccessToken, SettingsError> {
    let named = |error: &dyn fmt::Display| SettingsError(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    text.trim_end().parse().map_err(|error: String| named(&error))
}

/// The variables among `names` that start with `WEIR_` but that no option of the command reads, each as a sentence.
pub fn unknown_variables(command: &Command, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut known = Vec::new();
    collect_variables(command, &mut known);
    let unknown = names
        .into_iter()
        .filter(|name| name.starts_with("WEIR_") && !known.contains(name));
    unknown
        .map(|name| match suggestion(&name, &known) {
            Some(meant) => format!("unknown environment variable {name}; did you mean {meant}?"),
            None => format!("unknown environment variable {name}"),
        })
        .collect()
}

fn collect_variables(command: &Command, known: &mut Vec<String>) {
    let variables = command.get_arguments().filter_map(|arg| arg.get_env());
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for subcommand in command.get_subcommands() {
        collect_variables(subcommand, known);
    }
}

/// The keys of a settings file.
fn names() -> Vec<String> {
    let command = SettingsFlags::augment_args(Command::new("settings"));
    let ids = command.get_arguments().map(|arg| arg.get_id().to_string());
    ids.filter(|id| id != "config").collect()
}

fn suggestion<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let similarity = |known: &str| strsim::jaro_winkler(&name.to_lowercase().replace('-', "_"), &known.to_lowercase());
    known
        .iter()
        .map(|known| (similarity(known), known.as_str()))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, known)| known)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// A number of bytes; `64K` and `4M` are times 1,024 and 1,048,576.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteSize(pub u32);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1_u32),
        };
        let size = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
        // The kernel books twice the size in a signed 32-bit number.
        size.filter(|size| *size <= 1 << 30)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a size; write bytes, or like 64K or 4M, up to 1024M"))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u32),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => bytes.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parsed<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let complain = |error| serde::de::Error::custom(format!("{text:?} is not a time like 500ms or 5s: {error}"));
    humantime::parse_duration(&text).map(Some).map_err(complain)
}

fn parse_level(text: &str) -> Result<LogLevel, String> {
    match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err("choose from error, warn, info, debug, trace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
        socket_receive_buffer = 65536
        socket_send_buffer = "64K"
        worker_binary = "/usr/libexec/weir-worker"
        start_timeout = "1s"
        ping_interval = "2s"
        ping_timeout = "3s"
        request_timeout = "4s"
        close_timeout = "5s"
        coalescing_us_max = 7
        http_listen = "127.0.0.1:8080"
        http_token = "0123456789abcdef"
        http_token_file = "/etc/weir/token"
        http_origins = ["https://app.example", "*"]
    "#;

    const EVERYTHING_AS_OPTIONS: &str = "--workers 3 --log-level debug --log-tags rtp,net --rtc-ipv4 127.0.0.1 \
        --rtc-ipv6 off --rtc-announced-ipv4 192.0.2.1 --rtc-announced-ipv6 2001:db8::1 --rtc-ports 20000-20099 \
        --socket-receive-buffer 65536 --socket-send-buffer 64K --worker-binary /usr/libexec/weir-worker \
        --start-timeout 1s --ping-interval 2s --ping-timeout 3s --request-timeout 4s --close-timeout 5s \
        --coalescing-us-max 7 --http-listen 127.0.0.1:8080 --http-token 0123456789abcdef \
        --http-token-file /etc/weir/token --http-origins https://app.example,*";

    #[test]
    fn a_file_and_the_command_line_say_the_same_things() {
        let file = SettingsFlags::from_toml(EVERYTHING).unwrap();
        assert_eq!(file, flags(EVERYTHING_AS_OPTIONS));
        // Each setting is among them, and each is taken over.
        assert_eq!(EVERYTHING.matches('=').count(), names().len());
        let settings = file.clone().settings().unwrap();
        assert_eq!((settings.workers.unwrap().get(), settings.coalescing_us_max), (3, 7));
        assert_eq!(
            settings.log.directives(),
            "error,weir_worker::rtp=debug,weir_worker::net=debug"
        );
        assert_eq!(SettingsFlags::default().overlaid_with(file.clone()), file);
        assert_eq!(file.clone().overlaid_with(SettingsFlags::default()), file);
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
            ("--ping-timeout 0s", "ping_timeout is too short"),
            ("--workers 1025", "at most 1024"),
        ];
        for (line, complaint) in rows {
            let error = flags(line).load().unwrap_err().to_string();
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }

    #[test]
    fn tcp_is_served_with_a_token_only() {
        let access = |line: &str| flags(line).tcp_access();
        assert_eq!(access("").unwrap(), None);
        assert_eq!(access("--http-token 0123456789abcdef").unwrap(), None);
        let error = access("--http-listen 127.0.0.1:8080").unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:8080 needs a token"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "fedcba9876543210\n").unwrap();
        let file = format!("--http-listen [::1]:80 --http-token-file {}", path.display());
        let both = format!("{file} --http-token 0123456789abcdef");
        assert!(access(&both).unwrap_err().to_string().contains("both set"));
        let found = access(&file).unwrap().unwrap();
        assert_eq!(found.listen, "[::1]:80".parse().unwrap());
        assert!(found.token.is(b"fedcba9876543210"));
        std::fs::write(&path, "short").unwrap();
        let error = access(&file).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(access(&file).is_err());
        let error = SettingsFlags::from_toml("http_token = \"short\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("16 to 1024 characters"), "{error}");
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
}
