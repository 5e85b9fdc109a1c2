//! Sending one event to one URL: the signature, the connection, and what is made of the answer.
//!
//! The signature is that of Standard Webhooks, for which there are libraries: an HMAC-SHA256 of the id, the time and the body.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{HeaderValue, Request, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::token_keys::{KeyError, failed, read_file};
use crate::server::wall_clock_ms;

/// What an endpoint says is not read, but a connection can be used again only after it was taken.
const ANSWER_BYTES_MAX: usize = 16 * 1_024;

/// The longest URL.
const URL_BYTES_MAX: usize = 2_048;

/// As many secrets as one needs to go from one to the next.
const SECRETS_MAX: usize = 4;

/// A shorter secret could be guessed.
const SECRET_BYTES_MIN: usize = 24;

/// What secrets of Standard Webhooks begin with, before their base64.
const SECRET_PREFIX: &str = "whsec_";

/// What is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Webhook {
    /// The same whenever it is sent.
    pub(super) id: String,
    /// JSON.
    pub(super) body: Bytes,
}

/// How events are sent.
pub(super) trait Post: Send + 'static {
    /// Sends one, and returns the status that it is answered with, or why there is none.
    fn post(&mut self, webhook: &Webhook) -> impl Future<Output = Result<u16, String>> + Send;
}

/// Where events are sent: `http` or `https`. Shown and logged without what follows the host, which may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    host: String,
    port: u16,
    authority: HeaderValue,
    is_encrypted: bool,
    path: PathAndQuery,
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the text itself: it may be a secret.
        let wrong =
            |what: &str| format!("the URL of a webhook {what}; write https://HOST/PATH or http://HOST:PORT/PATH");
        if text.len() > URL_BYTES_MAX {
            return Err(wrong("is longer than 2048 bytes"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is none"))?;
        let is_encrypted = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong("begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user's name or password, which are not sent"));
        }
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if bare.is_empty() {
            return Err(wrong("has no host"));
        }
        let port = match authority.as_str() == host {
            true => Some(if is_encrypted { 443 } else { 80 }),
            false => authority.port_u16(),
        };
        Ok(Self {
            host: bare.to_owned(),
            port: port.ok_or_else(|| wrong("has a port that there cannot be"))?,
            authority: HeaderValue::try_from(authority.as_str()).map_err(|_| wrong("has no host"))?,
            is_encrypted,
            path: uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
        })
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority.to_str().unwrap_or_default())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/…")
    }
}

impl WebhookUrl {
    /// Whether it is `https`.
    pub(super) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Whether this system knows authorities whose certificates can be believed.
    pub(super) fn check_authorities(&self) -> Result<(), String> {
        tls().map(drop).map_err(|error| format!("{self}: {error}"))
    }
}

/// What webhooks are signed with. While there are several, each webhook has a signature of each.
#[derive(Clone, Default)]
pub struct WebhookSecrets {
    keys: Vec<hmac::Key>,
}

impl WebhookSecrets {
    /// The secrets in a file, one in each line: at least 24 visible ASCII characters, or `whsec_` and base64.
    ///
    /// # Errors
    /// The file cannot be read, others could read it, or it has no secret.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = failed(path);
        let (text, mode) = read_file(path)?;
        if mode & 0o007 != 0 {
            let message = "this is a secret, and every user of this machine can read or change it; \
                           take that away from them (chmod o= FILE)";
            return Err(failed(&message));
        }
        Self::parse(&text).map_err(|reason| failed(&reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<hmac::Key> = lines.map(key_of).collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err("there is no secret in it".to_owned()),
            1..=SECRETS_MAX => Ok(Self { keys }),
            _ => Err(format!("it has more than {SECRETS_MAX} secrets")),
        }
    }

    /// `v1,` and base64 for each secret, with blanks between.
    fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let signatures = self.keys.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{seconds}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({})", self.keys.len())
    }
}

/// The key in one line of a file.
fn key_of(line: &str) -> Result<hmac::Key, String> {
    let bytes = match line.strip_prefix(SECRET_PREFIX) {
        Some(encoded) => STANDARD
            .decode(encoded)
            .map_err(|_| format!("what follows {SECRET_PREFIX} is no base64"))?,
        None if line.bytes().all(|byte| byte.is_ascii_graphic()) => line.as_bytes().to_vec(),
        None => return Err("a secret has visible ASCII characters only, no blanks".to_owned()),
    };
    let bytes = Zeroizing::new(bytes);
    match bytes.len() {
        ..SECRET_BYTES_MIN => Err(format!(
            "a secret has at least {SECRET_BYTES_MIN} bytes, not {}",
            bytes.len()
        )),
        _ => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
    }
}

/// Sends events to a URL, on one connection as long as that lasts.
pub(super) struct Sender {
    url: WebhookUrl,
    secrets: WebhookSecrets,
    connection: Option<Connection>,
}

/// A connection; it ends when it is dropped.
struct Connection {
    requests: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Sender {
    pub(super) fn new(url: WebhookUrl, secrets: WebhookSecrets) -> Self {
        Self {
            url,
            secrets,
            connection: None,
        }
    }

    fn request(&self, webhook: &Webhook) -> Result<Request<Full<Bytes>>, String> {
        let seconds = wall_clock_ms() / 1_000;
        let signature = self.secrets.sign(&webhook.id, seconds, &webhook.body);
        Request::post(self.url.path.as_str())
            .header(header::HOST, self.url.authority.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &webhook.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(Full::new(webhook.body.clone()))
            .map_err(|error| error.to_string())
    }

    /// Sends on a connection, and keeps it if it can be used again.
    async fn exchange(&mut self, mut connection: Connection, request: Request<Full<Bytes>>) -> Result<u16, String> {
        connection.requests.ready().await.map_err(|error| error.to_string())?;
        let response = connection.requests.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        if body.collect().await.is_ok() {
            self.connection = Some(connection);
        }
        Ok(status)
    }
}

impl Post for Sender {
    async fn post(&mut self, webhook: &Webhook) -> Result<u16, String> {
        // Who closes idle connections has closed it perhaps; then it is tried once more at once.
        if let Some(kept) = self.connection.take().filter(|kept| !kept.requests.is_closed())
            && let Ok(status) = self.exchange(kept, self.request(webhook)?).await
        {
            return Ok(status);
        }
        let connection = connect(&self.url).await?;
        self.exchange(connection, self.request(webhook)?).await
    }
}

async fn connect(url: &WebhookUrl) -> Result<Connection, String> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    // A failure costs nothing but a little time.
    let _ = stream.set_nodelay(true);
    if !url.is_encrypted {
        return speak(stream).await;
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
    // It reads files.
    let tls = tokio::task::spawn_blocking(tls)
        .await
        .map_err(|error| error.to_string())?;
    let stream = tls?.connect(name, stream).await.map_err(|error| error.to_string())?;
    speak(stream).await
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection, String> {
    let spoken = http1::handshake(TokioIo::new(stream)).await;
    let (requests, connection) = spoken.map_err(|error| error.to_string())?;
    Ok(Connection {
        requests,
        driver: tokio::spawn(connection),
    })
}

/// TLS with servers whose certificates the system's authorities have signed (`SSL_CERT_FILE`, `SSL_CERT_DIR`: others). They are read
/// for each connection, so that nobody has to restart the server for a new authority.
fn tls() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("this system has no certificates of authorities (Debian's package ca-certificates)".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_two_kinds_and_shown_without_what_may_be_secret() {
        for (text, shown, host, port, path) in [
            (
                "https://app.example/hook?key=secret",
                "https://app.example",
                "app.example",
                443,
                "/hook?key=secret",
            ),
            (
                "http://127.0.0.1:9000",
                "http://127.0.0.1:9000",
                "127.0.0.1",
                9_000,
                "/",
            ),
            ("http://[::1]:80/a", "http://[::1]:80", "::1", 80, "/a"),
            ("HTTPS://App.example/", "https://App.example", "App.example", 443, "/"),
        ] {
            let url: WebhookUrl = text.parse().unwrap();
            assert_eq!(
                (url.to_string(), url.host.as_str(), url.port, url.path.as_str()),
                (shown.to_owned(), host, port, path)
            );
            assert!(!format!("{url:?}").contains("secret"));
        }
        let long = format!("http://a/{}", "x".repeat(2_048));
        for wrong in [
            "",
            "app.example",
            "/hook",
            "ftp://a/secret",
            "file:///etc/passwd",
            "http://",
            "http:///x",
            "http://:80/",
            "https://alice:secret@a/",
            "http://a b/",
            "unix:///run/x",
            "http://a:99999/",
            "http://a:/",
            &long,
        ] {
            let error = wrong.parse::<WebhookUrl>().unwrap_err();
            assert!(
                error.contains("the URL of a webhook") && !error.contains("secret"),
                "{wrong}: {error}"
            );
        }
    }

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secrets = WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = secrets.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\n a-secret-that-is-long-enough \n")
            .unwrap();
        let signed = two.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert!(signed.starts_with(&format!("{signature} v1,")), "{signed}");
        assert_eq!(format!("{two:?}"), "WebhookSecrets(2)");
    }

    #[test]
    fn secrets_that_could_be_guessed_or_read_are_refused() {
        for (text, complaint) in [
            ("", "no secret"),
            ("\n \n", "no secret"),
            ("short", "at least 24 bytes, not 5"),
            ("whsec_c2hvcnQ=", "at least 24 bytes, not 5"),
            ("whsec_!", "no base64"),
            ("with a blank in it, long enough", "no blanks"),
            (&"a-secret-that-is-long-enough\n".repeat(5), "more than 4"),
        ] {
            let error = WebhookSecrets::parse(text).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "a-secret-that-is-long-enough\n").unwrap();
        for (mode, is_good) in [(0o600, true), (0o640, true), (0o644, false)] {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(WebhookSecrets::read(&path).is_ok(), is_good, "{mode:o}");
        }
    }
}
