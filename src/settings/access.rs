//! Who is served besides the owner of the control socket: operators on TCP, and clients of rooms.
//!
//! Operators and clients have tokens of their own, because a client's token ends up in pages and apps. What would let
//! strangers in is refused unless it is asked for in so many words.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{SettingsError, SettingsFlags};
use crate::http::{
    AccessToken, ClientsFrom, Guard, SignallingOptions, TokenKeys, WebhookSecrets, Webhooks, WhipOptions,
};

/// The longest time that makes sense for a client: a page that sleeps for a day.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The shortest silence that is one: a third of it lies between two pings.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// The longest message of a client that may be permitted; each of them may have one in memory.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// Who is served, and how.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where TCP is served, and for whom; `None`: nowhere.
    pub tcp: Option<TcpAccess>,
    /// Where monitoring systems ask, without a token; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// How clients of rooms are served, wherever they come from.
    pub signalling: SignallingOptions,
    /// How publishers and players are served that speak WHIP and WHEP.
    pub whip: WhipOptions,
    /// The keys of access tokens, for whoever wants to have them read again.
    pub token_keys: Option<TokenKeys>,
    /// Where events are sent.
    pub webhooks: Webhooks,
}

/// Where the control interface is served beside its Unix socket, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpAccess {
    /// The address.
    pub listen: SocketAddr,
    /// What callers must know.
    pub guard: Guard,
}

impl SettingsFlags {
    /// Who is served, and how. Ignores `config`.
    ///
    /// # Errors
    /// When strangers could come in without anybody having said so, when there are two tokens for the same, or one for
    /// both; when a token's file cannot be used, or a limit makes no sense.
    pub fn access(&self) -> Result<Access, SettingsError> {
        let operators = token("http_token", self.http_token.as_ref(), self.http_token_file.as_deref())?;
        let clients = token(
            "client_token",
            self.client_token.as_ref(),
            self.client_token_file.as_deref(),
        )?;
        let token_keys = self.token_keys.as_deref().map(TokenKeys::read).transpose();
        let token_keys = token_keys.map_err(|error| SettingsError(format!("token_keys: {error}")))?;
        let signalling = self.signalling(clients, token_keys.clone())?;
        let tcp = match self.http_listen {
            Some(listen) => Some(TcpAccess {
                listen,
                guard: self.guard(listen, operators, &signalling)?,
            }),
            None => None,
        };
        Ok(Access {
            tcp,
            metrics: self.metrics_listen,
            signalling,
            whip: self.whip(),
            token_keys,
            webhooks: self.webhooks()?,
        })
    }

    fn webhooks(&self) -> Result<Webhooks, SettingsError> {
        let urls = self.webhook_urls.clone().unwrap_or_default();
        let secrets = match &self.webhook_secret_file {
            Some(path) => {
                WebhookSecrets::read(path).map_err(|error| SettingsError(format!("webhook_secret_file: {error}")))?
            }
            None if urls.is_empty() => WebhookSecrets::default(),
            None => {
                return Err(SettingsError(
                    "webhook_urls needs webhook_secret_file: without a signature, who receives events cannot know whose \
                     they are"
                        .to_owned(),
                ));
            }
        };
        let events = self.webhook_events.as_deref().unwrap_or_default();
        Webhooks::new(urls, secrets, events).map_err(|error| SettingsError(format!("webhooks: {error}")))
    }

    fn whip(&self) -> WhipOptions {
        let default = WhipOptions::default();
        WhipOptions {
            sessions: self
                .whip_sessions_max
                .map_or(default.sessions, |max| usize::try_from(max.get()).unwrap_or(usize::MAX)),
            ice_servers: self.ice_servers.clone().unwrap_or_default(),
            ..default
        }
    }

    fn guard(
        &self,
        listen: SocketAddr,
        operators: Option<AccessToken>,
        signalling: &SignallingOptions,
    ) -> Result<Guard, SettingsError> {
        let clients = signalling.token.as_ref();
        let token_keys = signalling.token_keys.clone();
        let everybody = self.clients_without_token == Some(true);
        if everybody && clients.is_some() {
            return Err(SettingsError(
                "there is a client_token, and clients_without_token = true; leave one out".to_owned(),
            ));
        }
        if everybody && token_keys.is_some() {
            return Err(SettingsError(
                "there are token_keys, and clients_without_token = true, so that who has no access token could do more \
                 than who has one; leave one out"
                    .to_owned(),
            ));
        }
        if operators.is_some() && operators.as_ref() == clients {
            return Err(SettingsError(
                "http_token and client_token are the same, so that every client could command the server; \
                 give them different ones"
                    .to_owned(),
            ));
        }
        if operators.is_none() && clients.is_none() && token_keys.is_none() && !everybody {
            return Err(SettingsError(format!(
                "http_listen = {listen} needs a token, because whoever reaches that address could command the server; \
                 set http_token_file or http_token for operators, or client_token_file or client_token to serve clients \
                 of rooms only, or token_keys for both"
            )));
        }
        let clients = match clients {
            _ if token_keys.is_some() => ClientsFrom::Anywhere,
            None if !everybody && listen.ip().to_canonical().is_loopback() => ClientsFrom::ThisMachine,
            None if !everybody => {
                return Err(SettingsError(format!(
                    "http_listen = {listen} needs a token for clients, because whoever reaches that address could join \
                     rooms; set client_token_file, client_token or token_keys, or clients_without_token = true if everybody may"
                )));
            }
            _ => ClientsFrom::Anywhere,
        };
        Ok(Guard {
            operators,
            token_keys,
            origins: signalling.origins.clone(),
            clients,
        })
    }

    fn signalling(
        &self,
        token: Option<AccessToken>,
        token_keys: Option<TokenKeys>,
    ) -> Result<SignallingOptions, SettingsError> {
        let default = SignallingOptions::default();
        let grace = self.client_grace.unwrap_or(default.grace);
        let idle = self.client_idle_timeout.unwrap_or(default.idle);
        let message_bytes_max = self.client_message_size.map_or(default.message_bytes_max, |size| {
            // It has 32 bits.
            size.0 as usize
        });
        let check = |holds: bool, complaint: &str| match holds {
            true => Ok(()),
            false => Err(SettingsError(complaint.to_owned())),
        };
        check(grace <= CLIENT_TIME_MAX, "client_grace is at most 24h")?;
        check(
            (IDLE_MIN..=CLIENT_TIME_MAX).contains(&idle),
            "client_idle_timeout is at least 1s and at most 24h",
        )?;
        check(
            (1_024..=MESSAGE_BYTES_MAX as usize).contains(&message_bytes_max),
            "client_message_size is at least 1K and at most 1M",
        )?;
        Ok(SignallingOptions {
            token,
            token_keys,
            origins: self.http_origins.clone().unwrap_or(default.origins),
            clients: self.clients_max.map_or(default.clients, |max| {
                // As many as a semaphore can count, on a machine where that is less.
                usize::try_from(max.get()).unwrap_or(usize::MAX)
            }),
            message_bytes_max,
            messages_per_second: self.client_rate.map_or(default.messages_per_second, |rate| rate.get()),
            messages_at_once: self.client_burst.map_or(default.messages_at_once, |burst| burst.get()),
            // One that is lost does not make the client so.
            ping: default.ping.min(idle / 3),
            idle,
            grace,
            plain_remotes: self.client_plain_remotes.unwrap_or_default(),
            takeover: self.client_takeover.unwrap_or_default(),
            ..default
        })
    }
}

/// The token that is given, itself or by its file.
fn token(name: &str, itself: Option<&AccessToken>, file: Option<&Path>) -> Result<Option<AccessToken>, SettingsError> {
    match (itself, file) {
        (Some(_), Some(_)) => Err(SettingsError(format!(
            "{name} and {name}_file are both set; leave one out"
        ))),
        (Some(token), None) => Ok(Some(token.clone())),
        (None, Some(path)) => token_in(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// The token in a file, which may end its line.
fn token_in(path: &Path) -> Result<AccessToken, SettingsError> {
    let named = |error: &dyn fmt::Display| SettingsError(format!("{}: {error}", path.display()));
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| named(&error))?);
    text.trim_end().parse().map_err(|error: String| named(&error))
}
