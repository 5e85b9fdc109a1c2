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
mod loaded;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Command};
use serde::{Deserialize, Deserializer};
use toml::de::DeTable;
use weir_channel::message::{LogLevel, SandboxMode, Zoned};

use crate::http::{AccessToken, ClientPlainRemotes, ClientTakeover, IceServer, WebhookUrl};
use crate::server::{ConnectedSockets, Family, LogTag, PortRange, Settings, server_settings};

pub use access::{Access, TcpAccess};
pub use loaded::Loaded;

/// Names further apart than this are not taken for typing errors of each other.
const SIMILARITY_MIN: f64 = 0.75;

/// Makes an option of each setting: the server's, and those of who is served beside the control socket.
macro_rules! declare_flags {
    (
        { $($(#[$access:meta])* $other:ident: $other_type:ty,)+ }
        $($(#[doc = $doc:tt])+ $name:ident: $type:ty = $default:expr; $({ $($shown:tt)+ })?
          [$(#[$flag:meta])+ $given:ty $(=> $convert:path)?])+
    ) => {
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

            $($(#[doc = $doc])+ #[arg(long)] $(#[$flag])+ pub $name: Option<$given>,)+
            $($(#[$access])* pub $other: Option<$other_type>,)+
        }

        impl SettingsFlags {
            /// The settings, with the defaults where nothing was given. Ignores `config`.
            ///
            /// # Errors
            /// When the settings make no sense together.
            pub fn settings(self) -> Result<Settings, SettingsError> {
                let default = Settings::default();
                let settings = Settings {
                    $($name: self.$name.map_or(default.$name, |given| setting!(given $(, $convert)?)),)+
                };
                settings.check().map_err(SettingsError)?;
                Ok(settings)
            }

            /// The names of the settings that differ between two servers: of what was given, and what it comes to.
            fn differences(one: (&Self, &Settings), other: (&Self, &Settings)) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if one.1.$name != other.1.$name {
                    names.push(stringify!($name));
                })+
                $(if one.0.$other != other.0.$other {
                    names.push(stringify!($other));
                })+
                names
            }

            /// These, except where `above` says something else.
            fn overlaid_with(self, above: Self) -> Self {
                Self {
                    config: above.config.or(self.config),
                    $($name: above.$name.or(self.$name),)+
                    $($other: above.$other.or(self.$other),)+
                }
            }
        }
    };
}

macro_rules! setting {
    ($given:ident) => {
        $given.into()
    };
    ($given:ident, $convert:path) => {
        $convert($given)
    };
}

server_settings! {
    declare_flags
    {
        /// Also serve the control interface and clients of rooms on this TCP address; needs a token
        #[arg(long, env = "WEIR_HTTP_LISTEN", value_name = "IP:PORT")]
        http_listen: SocketAddr,

        /// The token that operators must send over TCP; without it, operators can use only the control socket. Other users
        /// of this machine can read command lines: prefer the environment or a file
        #[arg(long, env = "WEIR_HTTP_TOKEN", value_name = "TOKEN", hide_env_values = true)]
        #[serde(deserialize_with = "parsed")]
        http_token: AccessToken,

        /// The file that contains this token
        #[arg(long, env = "WEIR_HTTP_TOKEN_FILE", value_name = "FILE")]
        http_token_file: PathBuf,

        /// The keys of access tokens (JSON Web Tokens), which operators and clients may send instead of these tokens: a file, or a
        /// directory with `*.key` and `*.pem`
        #[arg(long, env = "WEIR_TOKEN_KEYS", value_name = "PATH")]
        token_keys: PathBuf,
        /// Serve /metrics, /health and /ready on this address, to everybody who reaches it [default: nowhere; without an address:
        /// 127.0.0.1:9464]
        #[arg(long, env = "WEIR_METRICS_LISTEN", value_name = "IP:PORT", num_args = 0..=1,
              default_missing_value = "127.0.0.1:9464")]
        metrics_listen: SocketAddr,

        /// The origins whose web pages may connect as clients of rooms, e.g. `https://app.example`; `*` allows all
        /// [default: the server's own]
        #[arg(long, env = "WEIR_HTTP_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
        http_origins: Vec<String>,

        /// The token that clients of rooms must send
        #[arg(long, env = "WEIR_CLIENT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
        #[serde(deserialize_with = "parsed")]
        client_token: AccessToken,

        /// The file that contains this token
        #[arg(long, env = "WEIR_CLIENT_TOKEN_FILE", value_name = "FILE")]
        client_token_file: PathBuf,

        /// Accept clients from other machines without a token: everybody who can reach the server may join its rooms
        #[arg(long, env = "WEIR_CLIENTS_WITHOUT_TOKEN", value_name = "BOOL", num_args = 0..=1, require_equals = true,
              default_missing_value = "true")]
        clients_without_token: bool,

        /// The maximum number of clients that are connected at the same time [default: 10000]
        #[arg(long, env = "WEIR_CLIENTS_MAX", value_name = "N")]
        clients_max: NonZeroU32,

        /// How long a peer stays after its client has lost the connection [default: 15s]
        #[arg(long, env = "WEIR_CLIENT_GRACE", value_name = "TIME", value_parser = humantime::parse_duration)]
        #[serde(deserialize_with = "duration")]
        client_grace: Duration,

        /// How long a client may send nothing, not even answers to pings, before its connection counts as lost [default:
        /// 30s]
        #[arg(long, env = "WEIR_CLIENT_IDLE_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
        #[serde(deserialize_with = "duration")]
        client_idle_timeout: Duration,

        /// How many messages per second a client may send on average; more than that wait [default: 100]
        #[arg(long, env = "WEIR_CLIENT_RATE", value_name = "N")]
        client_rate: NonZeroU32,

        /// How many messages a client may send at once after it has been quiet [default: 1000]
        #[arg(long, env = "WEIR_CLIENT_BURST", value_name = "N")]
        client_burst: NonZeroU32,

        /// The maximum size of a client's message, in bytes, e.g. 64K [default: 64K]
        #[arg(long, env = "WEIR_CLIENT_MESSAGE_SIZE", value_name = "SIZE")]
        client_message_size: ByteSize,

        /// The addresses to which clients may have plain RTP sent: own (the address that the client connects from; every
        /// address for clients on the control socket), any, or none [default: own]
        #[arg(long, env = "WEIR_CLIENT_PLAIN_REMOTES", value_name = "WHERE")]
        #[serde(deserialize_with = "parsed")]
        client_plain_remotes: ClientPlainRemotes,

        /// Who may join under a name that is in use, which ends the earlier connection: own (the same client, known by its
        /// resume token or its browser's cookie) or any [default: own]
        #[arg(long, env = "WEIR_CLIENT_TAKEOVER", value_name = "WHO")]
        #[serde(deserialize_with = "parsed")]
        client_takeover: ClientTakeover,

        /// The maximum number of WHIP and WHEP sessions at the same time [default: 10000]
        #[arg(long, env = "WEIR_WHIP_SESSIONS_MAX", value_name = "N")]
        whip_sessions_max: NonZeroU32,

        /// The STUN and TURN servers that WHIP and WHEP clients are told of, e.g. `stun:stun.example.org:3478` or
        /// `turn:turn.example.org?transport=udp NAME CREDENTIAL`
        #[arg(long, env = "WEIR_ICE_SERVERS", value_name = "SERVER,…", value_delimiter = ',', hide_env_values = true)]
        #[serde(deserialize_with = "all_parsed")]
        ice_servers: Vec<IceServer>,

        /// Send events to these URLs, signed, e.g. `https://app.example/hook`
        #[arg(long, env = "WEIR_WEBHOOK_URLS", value_name = "URL,…", value_delimiter = ',', hide_env_values = true)]
        #[serde(deserialize_with = "all_parsed")]
        webhook_urls: Vec<WebhookUrl>,

        /// The file that contains the secret that they are signed with
        #[arg(long, env = "WEIR_WEBHOOK_SECRET_FILE", value_name = "FILE")]
        webhook_secret_file: PathBuf,

        /// The types of events to send; `*` for all [default: those of rooms, peers and producers that open and close, and
        /// workers' deaths]
        #[arg(long, env = "WEIR_WEBHOOK_EVENTS", value_name = "TYPE,…", value_delimiter = ',')]
        webhook_events: Vec<String>,
    }
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

impl From<ByteSize> for u32 {
    fn from(size: ByteSize) -> Self {
        size.0
    }
}

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

fn all_parsed<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let values: Result<Vec<T>, String> = texts.iter().map(|text| text.parse()).collect();
    values.map(Some).map_err(serde::de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let complain = |error| serde::de::Error::custom(format!("{text:?} is not a time like 500ms or 5s: {error}"));
    humantime::parse_duration(&text).map(Some).map_err(complain)
}

#[cfg(test)]
mod tests;
