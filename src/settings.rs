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

mod access;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Command};
use serde::{Deserialize, Deserializer};
use toml::de::DeTable;
use weir_channel::message::{LogLevel, Zoned};

use crate::http::{AccessToken, ClientPlainRemotes, ClientTakeover};
use crate::server::{ConnectedSockets, Family, LogSettings, LogTag, PortRange, Settings};

pub use access::{Access, TcpAccess};

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

    /// The lowest level that workers log: error, warn, info, debug, trace [default: warn]
    #[arg(long, env = "WEIR_LOG_LEVEL", value_name = "LEVEL", value_parser = parse_level)]
    pub log_level: Option<LogLevel>,

    /// The parts of the workers that log below the level error: process, channel, net, rtp, relay [default: all parts]
    #[arg(long, env = "WEIR_LOG_TAGS", value_name = "TAG,…", value_delimiter = ',')]
    pub log_tags: Option<Vec<LogTag>>,

    /// The local IPv4 address for media: auto, off, or an address [default: auto]
    #[arg(long, env = "WEIR_RTC_IPV4", value_name = "IP")]
    pub rtc_ipv4: Option<Family<Ipv4Addr>>,

    /// The local IPv6 address for media: auto, off, or an address; write a link-local one with its zone, fe80::1%eth0
    /// [default: auto]
    #[arg(long, env = "WEIR_RTC_IPV6", value_name = "IP")]
    pub rtc_ipv6: Option<Family<Zoned<Ipv6Addr>>>,

    /// The IPv4 address that remotes should send to, e.g. that of a NAT in front of the server [default: the local one]
    #[arg(long, env = "WEIR_RTC_ANNOUNCED_IPV4", value_name = "IP")]
    pub rtc_announced_ipv4: Option<Ipv4Addr>,

    /// The IPv6 address that remotes should send to [default: the local one]
    #[arg(long, env = "WEIR_RTC_ANNOUNCED_IPV6", value_name = "IP")]
    pub rtc_announced_ipv6: Option<Ipv6Addr>,

    /// The range of UDP and TCP ports for media [default: 10000-59999]
    #[arg(long, env = "WEIR_RTC_PORTS", value_name = "MIN-MAX")]
    pub rtc_ports: Option<PortRange>,

    /// Serve browsers over UDP [default: true]
    #[arg(long, env = "WEIR_RTC_UDP", value_name = "BOOL")]
    pub rtc_udp: Option<bool>,

    /// Serve browsers over TCP, for networks that block UDP [default: true]
    #[arg(long, env = "WEIR_RTC_TCP", value_name = "BOOL")]
    pub rtc_tcp: Option<bool>,

    /// The UDP and TCP port that all browsers of the first worker share; each further worker uses the next port
    /// [default: each transport has its own ports from --rtc-ports]
    #[arg(long, env = "WEIR_WEBRTC_PORT", value_name = "PORT")]
    pub webrtc_port: Option<u16>,

    /// When to give each browser on a shared port its own connected socket: auto (if the kernel is fast at it, Linux
    /// 6.13 or later) or never [default: auto]
    #[arg(long, env = "WEIR_WEBRTC_CONNECTED", value_name = "WHEN")]
    pub webrtc_connected: Option<ConnectedSockets>,

    /// Use DTLS 1.3 with browsers that offer it [default: false]
    #[arg(long, env = "WEIR_DTLS_13", value_name = "BOOL")]
    pub dtls_13: Option<bool>,

    /// Accept clients whose only fingerprints are SHA-1 or SHA-224 [default: false]
    #[arg(long, env = "WEIR_DTLS_WEAK_FINGERPRINTS", value_name = "BOOL")]
    pub dtls_weak_fingerprints: Option<bool>,

    /// Keep the last group of pictures of senders that ignore key frame requests, so that new viewers see a picture at
    /// once [default: true]
    #[arg(long, env = "WEIR_GOP_CACHE", value_name = "BOOL")]
    pub gop_cache: Option<bool>,

    /// The PEM file with the certificate for DTLS; it may be self-signed [default: each worker makes its own]
    #[arg(long, env = "WEIR_DTLS_CERTIFICATE_FILE", value_name = "FILE")]
    pub dtls_certificate_file: Option<PathBuf>,

    /// The PEM file with the private key of that certificate: ECDSA over P-256 or P-384, or RSA
    #[arg(long, env = "WEIR_DTLS_PRIVATE_KEY_FILE", value_name = "FILE")]
    pub dtls_private_key_file: Option<PathBuf>,

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

    /// The time between two pings to a worker [default: 1s]
    #[arg(long, env = "WEIR_PING_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub ping_interval: Option<Duration>,

    /// How long a worker may take to answer a ping; then it is killed and replaced [default: 5s]
    #[arg(long, env = "WEIR_PING_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub ping_timeout: Option<Duration>,

    /// How long a worker may take to answer a request [default: 20s]
    #[arg(long, env = "WEIR_REQUEST_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Option<Duration>,

    /// How long workers may take to end when the server stops [default: 5s]
    #[arg(long, env = "WEIR_CLOSE_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub close_timeout: Option<Duration>,

    /// How long a packet may wait under load, so that it is sent together with others, in microseconds; 0 sends each at
    /// once [default: 200]
    #[arg(long, env = "WEIR_COALESCING_US_MAX", value_name = "US")]
    pub coalescing_us_max: Option<u32>,

    /// Also serve the control interface and clients of rooms on this TCP address; needs a token
    #[arg(long, env = "WEIR_HTTP_LISTEN", value_name = "IP:PORT")]
    pub http_listen: Option<SocketAddr>,

    /// The token that operators must send over TCP; without it, operators can use only the control socket. Other users
    /// of this machine can read command lines: prefer the environment or a file
    #[arg(long, env = "WEIR_HTTP_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[serde(deserialize_with = "parsed")]
    pub http_token: Option<AccessToken>,

    /// The file that contains this token
    #[arg(long, env = "WEIR_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// The origins whose web pages may connect as clients of rooms, e.g. `https://app.example`; `*` allows all
    /// [default: the server's own]
    #[arg(long, env = "WEIR_HTTP_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub http_origins: Option<Vec<String>>,

    /// The token that clients of rooms must send
    #[arg(long, env = "WEIR_CLIENT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[serde(deserialize_with = "parsed")]
    pub client_token: Option<AccessToken>,

    /// The file that contains this token
    #[arg(long, env = "WEIR_CLIENT_TOKEN_FILE", value_name = "FILE")]
    pub client_token_file: Option<PathBuf>,

    /// Accept clients from other machines without a token: everybody who can reach the server may join its rooms
    #[arg(long, env = "WEIR_CLIENTS_WITHOUT_TOKEN", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub clients_without_token: Option<bool>,

    /// The maximum number of clients that are connected at the same time [default: 10000]
    #[arg(long, env = "WEIR_CLIENTS_MAX", value_name = "N")]
    pub clients_max: Option<NonZeroU32>,

    /// How long a peer stays after its client has lost the connection [default: 15s]
    #[arg(long, env = "WEIR_CLIENT_GRACE", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub client_grace: Option<Duration>,

    /// How long a client may send nothing, not even answers to pings, before its connection counts as lost [default:
    /// 30s]
    #[arg(long, env = "WEIR_CLIENT_IDLE_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub client_idle_timeout: Option<Duration>,

    /// How many messages per second a client may send on average; more than that wait [default: 100]
    #[arg(long, env = "WEIR_CLIENT_RATE", value_name = "N")]
    pub client_rate: Option<NonZeroU32>,

    /// How many messages a client may send at once after it has been quiet [default: 1000]
    #[arg(long, env = "WEIR_CLIENT_BURST", value_name = "N")]
    pub client_burst: Option<NonZeroU32>,

    /// The maximum size of a client's message, in bytes, e.g. 64K [default: 64K]
    #[arg(long, env = "WEIR_CLIENT_MESSAGE_SIZE", value_name = "SIZE")]
    pub client_message_size: Option<ByteSize>,

    /// The addresses to which clients may have plain RTP sent: own (the address that the client connects from; every
    /// address for clients on the control socket), any, or none [default: own]
    #[arg(long, env = "WEIR_CLIENT_PLAIN_REMOTES", value_name = "WHERE")]
    #[serde(deserialize_with = "parsed")]
    pub client_plain_remotes: Option<ClientPlainRemotes>,

    /// Who may join under a name that is in use, which ends the earlier connection: own (the same client, known by its
    /// resume token or its browser's cookie) or any [default: own]
    #[arg(long, env = "WEIR_CLIENT_TAKEOVER", value_name = "WHO")]
    #[serde(deserialize_with = "parsed")]
    pub client_takeover: Option<ClientTakeover>,
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
            rtc_udp: self.rtc_udp.unwrap_or(default.rtc_udp),
            rtc_tcp: self.rtc_tcp.unwrap_or(default.rtc_tcp),
            webrtc_port: self.webrtc_port.and_then(NonZeroU16::new),
            webrtc_connected: self.webrtc_connected.unwrap_or(default.webrtc_connected),
            dtls_13: self.dtls_13.unwrap_or(default.dtls_13),
            dtls_weak_fingerprints: self.dtls_weak_fingerprints.unwrap_or(default.dtls_weak_fingerprints),
            gop_cache: self.gop_cache.unwrap_or(default.gop_cache),
            dtls_certificate_file: self.dtls_certificate_file,
            dtls_private_key_file: self.dtls_private_key_file,
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
            rtc_udp: above.rtc_udp.or(self.rtc_udp),
            rtc_tcp: above.rtc_tcp.or(self.rtc_tcp),
            webrtc_port: above.webrtc_port.or(self.webrtc_port),
            webrtc_connected: above.webrtc_connected.or(self.webrtc_connected),
            dtls_13: above.dtls_13.or(self.dtls_13),
            dtls_weak_fingerprints: above.dtls_weak_fingerprints.or(self.dtls_weak_fingerprints),
            gop_cache: above.gop_cache.or(self.gop_cache),
            dtls_certificate_file: above.dtls_certificate_file.or(self.dtls_certificate_file),
            dtls_private_key_file: above.dtls_private_key_file.or(self.dtls_private_key_file),
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
            client_token: above.client_token.or(self.client_token),
            client_token_file: above.client_token_file.or(self.client_token_file),
            clients_without_token: above.clients_without_token.or(self.clients_without_token),
            clients_max: above.clients_max.or(self.clients_max),
            client_grace: above.client_grace.or(self.client_grace),
            client_idle_timeout: above.client_idle_timeout.or(self.client_idle_timeout),
            client_rate: above.client_rate.or(self.client_rate),
            client_burst: above.client_burst.or(self.client_burst),
            client_plain_remotes: above.client_plain_remotes.or(self.client_plain_remotes),
            client_takeover: above.client_takeover.or(self.client_takeover),
            client_message_size: above.client_message_size.or(self.client_message_size),
        }
    }
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
mod tests;
