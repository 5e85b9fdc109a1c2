//! `weir token`: access tokens and their keys.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use weir::http::{Claims, KeyKind, RoomClaim, SigningKey, TOKEN_BYTES_MAX, TokenKeys, unverified};

/// As long as a server accepts tokens.
const EXPIRES_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Arguments of `weir token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an access token, and print it
    Create(CreateArgs),
    /// Show what an access token says
    Show(ShowArgs),
    /// Make keys that access tokens are signed with
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The key to sign with: a secret, or an Ed25519 private key in PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The name that the server has for the key [default: the file's name up to the first dot]
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,

    /// A room that the token is for, as it stands in the address: an id or a name; `*` for all
    #[arg(long = "room", value_name = "ROOM")]
    rooms: Vec<String>,

    /// The only name under which its bearer may be in a room [default: any]
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,

    /// Let its bearer send media
    #[arg(long)]
    publish: bool,

    /// Let its bearer receive media
    #[arg(long)]
    subscribe: bool,

    /// Let its bearer command the server
    #[arg(long)]
    admin: bool,

    /// How long from now on it holds, e.g. 10m, 8h or 30d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    expires: Duration,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The token; `-` reads it from standard input, so that other users of this machine do not see it
    token: String,

    /// Also check the token with these keys: a file or a directory, as in the setting `token_keys`
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a secret, or a pair of keys, in new files
    Generate {
        /// What the names of the files begin with; the last part is the key's name
        path: PathBuf,

        /// The algorithm
        #[arg(long, value_enum, default_value_t = Algorithm::Hs256)]
        algorithm: Algorithm,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Algorithm {
    /// One secret, `PATH.key`, for the server and whoever makes tokens
    Hs256,
    /// A private key, `PATH.pem`, for whoever makes tokens, and a public one, `PATH.pub.pem`, for the server
    #[value(name = "eddsa")]
    EdDsa,
}

impl TokenArgs {
    pub(crate) fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Create(create) => create.run(),
            Command::Show(show) => show.run(),
            Command::Key(KeyCommand::Generate { path, algorithm }) => generate(&path, algorithm),
        };
        done.unwrap_or_else(|error| {
            // There is nowhere to report that this failed.
            let _ = writeln!(std::io::stderr(), "weir: {error:#}");
            ExitCode::FAILURE
        })
    }
}

impl CreateArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let rooms = RoomClaim::from(self.rooms);
        if self.admin && !rooms.is_empty() && !rooms.is_all() {
            bail!("who has --admin commands the whole server, not one room; leave out --room");
        }
        if rooms.is_empty() && (!self.admin || self.publish || self.subscribe) {
            bail!("say for which room: --room stage, --room 7, or --room '*' for all");
        }
        if !self.admin && !self.publish && !self.subscribe {
            bail!("say what the token permits: --publish, --subscribe, or both");
        }
        if self.expires.is_zero() || self.expires > EXPIRES_MAX {
            bail!("--expires is at most 366 days, and more than nothing");
        }
        let key = SigningKey::read(&self.key)?;
        let claims = Claims {
            room: rooms,
            peer: self.peer,
            publish: self.publish,
            subscribe: self.subscribe,
            admin: self.admin,
            exp: Some(now().saturating_add(self.expires.as_secs().max(1))),
            nbf: None,
        };
        let token = key.sign(&claims, self.kid.as_deref().unwrap_or(key.name()));
        let token = token.context("cannot sign")?;
        if token.len() > TOKEN_BYTES_MAX {
            bail!("the token would be longer than {TOKEN_BYTES_MAX} bytes; name fewer rooms");
        }
        print(&[token])?;
        Ok(ExitCode::SUCCESS)
    }
}

impl ShowArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let token = match self.token.as_str() {
            "-" => {
                let mut text = String::new();
                let most = TOKEN_BYTES_MAX as u64 + 2;
                std::io::stdin().take(most).read_to_string(&mut text)?;
                text.trim_end().to_owned()
            }
            _ => self.token,
        };
        let said = unverified(&token)?;
        let claim = |name: &str| match &said.claims[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Array(items) => {
                let items = items
                    .iter()
                    .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                Some(items.collect::<Vec<_>>().join(", "))
            }
            other => Some(other.to_string()),
        };
        let may: Vec<&str> = ["publish", "subscribe", "admin"]
            .into_iter()
            .filter(|name| said.claims[*name] == Value::Bool(true))
            .collect();
        let date = |name: &str| said.claims[name].as_f64().map(shown_date);
        let key = said.key.as_deref().unwrap_or("(not named)");
        let mut rows = vec![("key", Some(format!("{key} ({})", said.algorithm)))];
        rows.extend([("room", claim("room")), ("peer", claim("peer"))]);
        rows.push((
            "may",
            Some(if may.is_empty() {
                "nothing".to_owned()
            } else {
                may.join(", ")
            }),
        ));
        rows.extend([("from", date("nbf")), ("expires", date("exp"))]);
        let verdict = match &self.key {
            Some(path) => {
                let keys = TokenKeys::read(path)?;
                let verified = keys.verify_signature(token.as_bytes());
                Some(verified.and_then(|(_, name)| keys.verify(token.as_bytes(), now()).map(|_| name)))
            }
            None => None,
        };
        match &verdict {
            Some(Ok(name)) => rows.push(("accepted", Some(format!("signed with {name}")))),
            Some(Err(error)) => rows.push(("refused", Some(error.to_string()))),
            None => {}
        }
        let lines = rows.into_iter().filter_map(|(name, value)| {
            // Whoever made the token decides what is in it, and not what the terminal does.
            let value = value?;
            let shown: String = value.chars().flat_map(shown_char).collect();
            Some(format!("{name:<9} {shown}"))
        });
        print(&lines.collect::<Vec<_>>())?;
        Ok(match verdict {
            Some(Err(_)) => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }
}

/// A character as it can be printed.
fn shown_char(character: char) -> Vec<char> {
    match character.is_control() {
        true => character.escape_default().collect(),
        false => vec![character],
    }
}

fn shown_date(seconds: f64) -> String {
    // Beyond the year 9999 there are no dates to print.
    const LAST: f64 = 253_402_300_799.0;
    let at = UNIX_EPOCH + Duration::from_secs_f64(seconds.clamp(0.0, LAST));
    humantime::format_rfc3339_seconds(at).to_string()
}

fn generate(path: &std::path::Path, algorithm: Algorithm) -> anyhow::Result<ExitCode> {
    let kind = match algorithm {
        Algorithm::Hs256 => KeyKind::Hs256,
        Algorithm::EdDsa => KeyKind::EdDsa,
    };
    let files = SigningKey::generate(kind, path)?;
    let lines = match files.as_slice() {
        [private, public] => vec![
            format!(
                "{}  private: sign tokens with it, and give it to nobody",
                private.display()
            ),
            format!("{}  public: for the server (token_keys)", public.display()),
        ],
        files => {
            let secret = |file: &PathBuf| {
                format!(
                    "{}  secret: for the server (token_keys), and to sign tokens with",
                    file.display()
                )
            };
            files.iter().map(secret).collect()
        }
    };
    print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "tokens say until when they hold")]
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}
