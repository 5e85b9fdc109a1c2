//! The settings of a server (differences §6.1), and those of them that can be changed while it runs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weir_channel::message::{Coalescing, LogLevel, SandboxMode, Zoned};
use weir_channel::words;
use weir_worker::switches::Switches;

use super::log_settings::{LogSettings, LogTag};

/// The settings of a server, each declared once: its documentation, which is also its option's help, its name, its type and
/// its default; in braces the attributes with which it is shown in JSON; in brackets those of its option, and the type that is
/// read from the command line, the environment or a file, if need be with what makes the setting of it. `$then` makes something
/// of the list.
macro_rules! server_settings {
    ($then:ident $($with:tt)*) => {
        $then! {
            $($with)*
            /// How many workers to run [default: one for each CPU that this process may use, by its affinity mask and cgroup
            /// quota].
            workers: Option<NonZeroU32> = None;
            [#[arg(env = "WEIR_WORKERS", value_name = "N")] NonZeroU32]

            /// The lowest level that workers log: error, warn, info, debug, trace [default: warn].
            log_level: LogLevel = LogSettings::default().level;
            [#[arg(env = "WEIR_LOG_LEVEL", value_name = "LEVEL")] LogLevel]

            /// The parts of the workers that log below the level error: process, channel, net, rtp, relay [default: none named,
            /// which means all].
            log_tags: Vec<LogTag> = LogSettings::default().tags;
            [#[arg(env = "WEIR_LOG_TAGS", value_name = "TAG,…", value_delimiter = ',')] Vec<LogTag>]

            /// The local IPv4 address for media: auto, off, or an address [default: auto].
            rtc_ipv4: Family<Ipv4Addr> = Family::Auto;
            { #[schemars(with = "String")] }
            [#[arg(env = "WEIR_RTC_IPV4", value_name = "IP")] Family<Ipv4Addr>]

            /// The local IPv6 address for media: auto, off, or an address; write a link-local one with its zone, fe80::1%eth0
            /// [default: auto].
            rtc_ipv6: Family<Zoned<Ipv6Addr>> = Family::Auto;
            { #[schemars(with = "String")] }
            [#[arg(env = "WEIR_RTC_IPV6", value_name = "IP")] Family<Zoned<Ipv6Addr>>]

            /// The IPv4 address that remotes should send to, e.g. that of a NAT in front of the server [default: the local
            /// one].
            rtc_announced_ipv4: Option<Ipv4Addr> = None;
            [#[arg(env = "WEIR_RTC_ANNOUNCED_IPV4", value_name = "IP")] Ipv4Addr]

            /// The IPv6 address that remotes should send to [default: the local one].
            rtc_announced_ipv6: Option<Ipv6Addr> = None;
            [#[arg(env = "WEIR_RTC_ANNOUNCED_IPV6", value_name = "IP")] Ipv6Addr]

            /// The range of UDP and TCP ports for media [default: 10000-59999].
            rtc_ports: PortRange = PortRange::default();
            { #[schemars(with = "String")] }
            [#[arg(env = "WEIR_RTC_PORTS", value_name = "MIN-MAX")] PortRange]

            /// Serve WebRTC clients over UDP [default: true].
            rtc_udp: bool = true;
            [#[arg(env = "WEIR_RTC_UDP", value_name = "BOOL")] bool]

            /// Serve WebRTC clients over TCP, for networks that block UDP [default: true].
            rtc_tcp: bool = true;
            [#[arg(env = "WEIR_RTC_TCP", value_name = "BOOL")] bool]

            /// The UDP and TCP port that all WebRTC clients of the first worker share; each further worker uses the next port
            /// [default: each WebRTC transport has its own ports of the range for media].
            webrtc_port: Option<NonZeroU16> = None;
            [#[arg(env = "WEIR_WEBRTC_PORT", value_name = "PORT")] u16 => NonZeroU16::new]

            /// When to give each WebRTC client on a shared port its own connected socket: auto (if the kernel is fast at it,
            /// Linux 6.13 or later) or never [default: auto].
            webrtc_connected: ConnectedSockets = ConnectedSockets::Auto;
            { #[schemars(with = "String")] }
            [#[arg(env = "WEIR_WEBRTC_CONNECTED", value_name = "WHEN")] ConnectedSockets]

            /// Use DTLS 1.3 with WebRTC clients that offer it, instead of DTLS 1.2 with all [default: false].
            dtls_13: bool = false;
            [#[arg(env = "WEIR_DTLS_13", value_name = "BOOL")] bool]

            /// Accept WebRTC clients whose only fingerprints are SHA-1 or SHA-224 [default: false].
            dtls_weak_fingerprints: bool = false;
            [#[arg(env = "WEIR_DTLS_WEAK_FINGERPRINTS", value_name = "BOOL")] bool]

            /// Keep the last group of pictures of video senders that ignore key frame requests (cameras, ffmpeg), so that new
            /// viewers see a picture at once. A worker keeps up to 64 groups, each of up to 8 MiB and 20 s [default: true].
            gop_cache: bool = true;
            [#[arg(env = "WEIR_GOP_CACHE", value_name = "BOOL")] bool]

            /// Pad packets of video that are up to 16 bytes shorter than others of their frame to the same size (RTP padding), so
            /// that the kernel sends a frame in one call [default: true].
            equalize_packets: bool = true;
            [#[arg(env = "WEIR_EQUALIZE_PACKETS", value_name = "BOOL")] bool]

            /// The PEM file with the certificate for DTLS, which may be self-signed; needs the file of its private key, too
            /// [default: the server makes one when it starts].
            dtls_certificate_file: Option<PathBuf> = None;
            [#[arg(env = "WEIR_DTLS_CERTIFICATE_FILE", value_name = "FILE")] PathBuf]

            /// The PEM file with the private key of that certificate: ECDSA over P-256 or P-384, or RSA.
            dtls_private_key_file: Option<PathBuf> = None;
            { #[serde(skip)] }
            [#[arg(env = "WEIR_DTLS_PRIVATE_KEY_FILE", value_name = "FILE")] PathBuf]

            /// The receive buffer of each media socket (SO_RCVBUF), in bytes; the kernel accounts for twice as many [default:
            /// 4M].
            // One second of 32 Mbit/s; the kernel books twice as many, and skbs cost more than their payload.
            socket_receive_buffer: u32 = 4 << 20;
            [#[arg(env = "WEIR_SOCKET_RECEIVE_BUFFER", value_name = "SIZE")] ByteSize]

            /// The send buffer of each media socket (SO_SNDBUF), in bytes [default: 4M].
            socket_send_buffer: u32 = 4 << 20;
            [#[arg(env = "WEIR_SOCKET_SEND_BUFFER", value_name = "SIZE")] ByteSize]

            /// The worker program, `weir` or `weir-worker` [default: this program if it can be a worker, else the `weir-worker`
            /// beside it or in the folders above].
            worker_binary: Option<PathBuf> = None;
            [#[arg(env = "WEIR_WORKER_BINARY", value_name = "FILE")] PathBuf]

            /// How much of the sandbox around each worker must hold: require (all of it, or the server does not start), auto (as
            /// much as this system can do), or off [default: auto].
            sandbox: SandboxMode = SandboxMode::Auto;
            { #[schemars(with = "String")] }
            [#[arg(env = "WEIR_SANDBOX", value_name = "MODE")] SandboxMode]

            /// The user that workers run as: a name, or UID:GID [default: nobody if the server is started as root, else the
            /// server's own].
            sandbox_user: Option<String> = None;
            [#[arg(env = "WEIR_SANDBOX_USER", value_name = "USER")] String]

            /// How long a worker may take to start [default: 10s].
            start_timeout: Duration = Duration::from_secs(10);
            { #[serde(serialize_with = "as_text")] #[schemars(with = "String")] }
            [
                #[arg(env = "WEIR_START_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
                #[serde(deserialize_with = "duration")]
                Duration
            ]

            /// The time between two pings to a worker [default: 1s].
            ping_interval: Duration = Duration::from_secs(1);
            { #[serde(serialize_with = "as_text")] #[schemars(with = "String")] }
            [
                #[arg(env = "WEIR_PING_INTERVAL", value_name = "TIME", value_parser = humantime::parse_duration)]
                #[serde(deserialize_with = "duration")]
                Duration
            ]

            /// How long a worker may take to answer a ping; then it is killed and replaced [default: 5s].
            ping_timeout: Duration = Duration::from_secs(5);
            { #[serde(serialize_with = "as_text")] #[schemars(with = "String")] }
            [
                #[arg(env = "WEIR_PING_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
                #[serde(deserialize_with = "duration")]
                Duration
            ]

            /// How long a worker may take to answer a request [default: 20s].
            request_timeout: Duration = Duration::from_secs(20);
            { #[serde(serialize_with = "as_text")] #[schemars(with = "String")] }
            [
                #[arg(env = "WEIR_REQUEST_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
                #[serde(deserialize_with = "duration")]
                Duration
            ]

            /// How long workers may take to end when the server stops, before they are killed [default: 5s].
            close_timeout: Duration = Duration::from_secs(5);
            { #[serde(serialize_with = "as_text")] #[schemars(with = "String")] }
            [
                #[arg(env = "WEIR_CLOSE_TIMEOUT", value_name = "TIME", value_parser = humantime::parse_duration)]
                #[serde(deserialize_with = "duration")]
                Duration
            ]

            /// How long a packet may wait under load, so that it is sent together with others, in microseconds, at most 1000. In many
            /// small rooms it saves some CPU time for some delay; 0 sends each at once [default: 0].
            coalescing_us_max: u32 = 0;
            [#[arg(env = "WEIR_COALESCING_US_MAX", value_name = "US")] u32]

            /// How long a worker looks for packets before it goes to sleep, while they come that often, in microseconds, at most 1000.
            /// It costs the time of a CPU, and saves packets the time that a CPU needs to wake up; 0 sleeps at once [default: 0].
            spin_us_max: u32 = 0;
            [#[arg(env = "WEIR_SPIN_US_MAX", value_name = "US")] u32]
        }
    };
}

#[cfg(feature = "cli")]
pub(crate) use server_settings;

macro_rules! declare_settings {
    (
        $($(#[doc = $doc:tt])+ $name:ident: $type:ty = $default:expr; $({ $($shown:tt)+ })? [$($flag:tt)+])+
    ) => {
        /// How a server runs. Start from [`Settings::default`] and change what matters:
        ///
        /// ```
        /// use weir::{Family, Settings};
        ///
        /// let settings = Settings {
        ///     rtc_ipv4: Family::Address("127.0.0.1".parse()?),
        ///     rtc_ipv6: Family::Off,
        ///     ..Settings::default()
        /// };
        /// # Ok::<(), std::net::AddrParseError>(())
        /// ```
        ///
        /// A program can be its own worker if it calls
        /// [`run_worker_if_started_as_one`](crate::run_worker_if_started_as_one) at its start.
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct Settings { $($(#[doc = $doc])+ $($($shown)+)? pub $name: $type,)+ }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }
    };
}

server_settings!(declare_settings);

fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// When to give a WebRTC transport on a shared port its own connected socket, once its peer has proven who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectedSockets {
    /// If the kernel finds the connected sockets of a port by both addresses: Linux 6.13 or later.
    #[default]
    Auto,
    /// Never: all packets use the shared sockets.
    Never,
}

words!(ConnectedSockets { Auto = "auto", Never = "never" });

/// The local address of an IP family for media, if any. Written `auto`, `off`, or an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Family<A> {
    /// The first address of the family that is neither loopback nor link-local; `Off` if there is none.
    #[default]
    Auto,
    /// The family is not used.
    Off,
    /// This address; it must not be the wildcard.
    Address(A),
}

impl<A: FromStr> FromStr for Family<A> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::Address)
                .map_err(|_| format!("{text:?} is neither auto, off, nor an address of this family")),
        }
    }
}

impl<A: fmt::Display> fmt::Display for Family<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl<A: fmt::Display> Serialize for Family<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, A: FromStr> Deserialize<'de> for Family<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

/// A range of ports, with both ends. Written `10000-59999`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    min: u16,
    max: u16,
}

impl PortRange {
    /// The ports from `min` to `max`. Ports below 1024 are reserved. The range must contain an even port and the next
    /// one, because a transport with separate RTCP needs such a pair.
    pub fn new(min: u16, max: u16) -> Result<Self, String> {
        if min < 1024 {
            return Err(format!("ports below 1024 are reserved; start the range above {min}"));
        }
        // The first even port, and the one above it.
        if u32::from(min) + u32::from(min % 2) + 1 > u32::from(max) {
            return Err(format!(
                "{min}-{max} holds no even port with the one above it; widen the range"
            ));
        }
        Ok(Self { min, max })
    }

    /// The lowest port.
    pub fn min(self) -> u16 {
        self.min
    }

    /// The highest port.
    pub fn max(self) -> u16 {
        self.max
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            min: 10_000,
            max: 59_999,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text
            .split_once('-')
            .and_then(|(min, max)| Some((min.trim().parse().ok()?, max.trim().parse().ok()?)))
            .ok_or_else(|| format!("{text:?} is not a port range; write it like 10000-59999"))?;
        Self::new(min, max)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(serde::de::Error::custom)
}

/// What to do about a link-local address without its zone.
pub(crate) fn needs_zone(address: impl fmt::Display) -> String {
    format!(
        "{address} is link-local, the same on every network: say which one, by its interface or the interface's index, as in \
         fe80::1%eth0 or fe80::1%2"
    )
}

impl Settings {
    /// Checks what the types do not: that the settings make sense together.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.rtc_ipv4 == Family::Off && self.rtc_ipv6 == Family::Off {
            return Err("rtc_ipv4 and rtc_ipv6 are both off; media needs one of them".to_owned());
        }
        for (name, unspecified) in [
            (
                "rtc_ipv4",
                matches!(self.rtc_ipv4, Family::Address(ip) if ip.is_unspecified()),
            ),
            (
                "rtc_ipv6",
                matches!(self.rtc_ipv6, Family::Address(zoned) if zoned.ip.is_unspecified()),
            ),
        ] {
            if unspecified {
                return Err(format!("{name} must name one address, not the wildcard; try auto"));
            }
        }
        if let Family::Address(ipv6) = self.rtc_ipv6
            && ipv6.lacks_zone()
        {
            return Err(format!("rtc_ipv6: {}", needs_zone(ipv6)));
        }
        if self.webrtc_port.is_some() && !self.rtc_udp && !self.rtc_tcp {
            return Err("webrtc_port needs rtc_udp or rtc_tcp; switch one of them on".to_owned());
        }
        if self.dtls_certificate_file.is_some() != self.dtls_private_key_file.is_some() {
            return Err(
                "dtls_certificate_file and dtls_private_key_file belong together; give both or neither".to_owned(),
            );
        }
        for (name, us, most) in [
            ("coalescing_us_max", self.coalescing_us_max, Coalescing::WINDOW_US_MAX),
            ("spin_us_max", self.spin_us_max, Coalescing::SPIN_US_MAX),
        ] {
            if us > most {
                return Err(format!("{name} is at most {most}, not {us}"));
            }
        }
        for (name, duration) in [
            ("start_timeout", self.start_timeout),
            ("ping_interval", self.ping_interval),
            ("ping_timeout", self.ping_timeout),
            ("request_timeout", self.request_timeout),
        ] {
            if duration < Duration::from_millis(10) {
                return Err(format!("{name} is too short; give it at least 10ms"));
            }
        }
        if let Some(workers) = self.workers
            && workers.get() > 1_024
        {
            return Err(format!("workers is at most 1024, not {workers}"));
        }
        Ok(())
    }

    /// How much the workers log, and about what.
    pub fn log(&self) -> LogSettings {
        LogSettings {
            level: self.log_level,
            tags: self.log_tags.clone(),
        }
    }

    /// What a worker starts with.
    pub(crate) fn switches(&self) -> Switches {
        Switches {
            dtls_13: self.dtls_13,
            dtls_weak_fingerprints: self.dtls_weak_fingerprints,
            gop_cache: self.gop_cache,
            equalize_packets: self.equalize_packets,
        }
    }

    /// The address that remotes should send to, instead of a local one.
    pub(crate) fn announced(&self, local: IpAddr) -> IpAddr {
        match local {
            IpAddr::V4(ip) => self.rtc_announced_ipv4.unwrap_or(ip).into(),
            IpAddr::V6(ip) => self.rtc_announced_ipv6.unwrap_or(ip).into(),
        }
    }
}

/// The settings that can change while the server runs; `None` leaves a setting as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SettingsUpdate {
    /// See [`LogSettings::level`].
    pub log_level: Option<LogLevel>,
    /// See [`LogSettings::tags`].
    pub log_tags: Option<Vec<LogTag>>,
}
