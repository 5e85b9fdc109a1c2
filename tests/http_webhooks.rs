//! Webhooks: what endpoints of all kinds get, and that nobody waits for them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod control;
mod loopback;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, body};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use command::Scratch;
use control::{Control, settings, soon};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use weir::http::{ControlOptions, Limits, WebhookSecrets, WebhookStats, Webhooks};

const SECRET: &str = "a-secret-that-is-long-enough";

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answers(u16),
    Redirects,
    Hangs,
}

/// What an endpoint was sent.
#[derive(Clone, Debug)]
struct Heard {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Checks what a receiver would check.
    #[track_caller]
    fn check_signature(&self) {
        let signed = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let signed = [signed.as_bytes(), &self.body].concat();
        let signature = self.header("webhook-signature").strip_prefix("v1,").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::verify(&key, &signed, &STANDARD.decode(signature).unwrap()).unwrap();
    }
}

/// An endpoint: does as it is told, and takes everything after that.
#[derive(Clone, Default)]
struct Hook {
    does: Arc<Mutex<VecDeque<Does>>>,
    heard: Arc<Mutex<Vec<Heard>>>,
    news: Arc<Notify>,
}

impl Hook {
    fn new(does: &[Does]) -> Self {
        Self {
            does: Arc::new(Mutex::new(does.iter().copied().collect())),
            ..Self::default()
        }
    }

    fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// Serves on a port of its own.
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve(listener);
        address
    }

    fn serve(&self, listener: TcpListener) {
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// What it was sent, as soon as it is so much.
    async fn heard(&self, count: usize) -> Vec<Heard> {
        let enough = async {
            loop {
                let news = self.news.notified();
                let heard = self.heard.lock().unwrap().clone();
                if heard.len() >= count {
                    return heard;
                }
                news.await;
            }
        };
        soon("webhooks", enough).await
    }
}

async fn answer(State(hook): State<Hook>, request: Request) -> Response {
    let (head, content) = request.into_parts();
    let heard = Heard {
        path: head.uri.to_string(),
        headers: head.headers,
        body: body::to_bytes(content, 1 << 20).await.unwrap(),
    };
    assert_eq!(head.method, "POST");
    hook.heard.lock().unwrap().push(heard);
    hook.news.notify_waiters();
    let does = hook.does.lock().unwrap().pop_front();
    match does {
        Some(Does::Answers(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Does::Redirects) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response(),
        Some(Does::Hangs) => std::future::pending().await,
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

fn secret_file() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

/// A server that sends these events to these URLs.
async fn start(urls: &[String], events: &[&str]) -> (Control, Webhooks) {
    let (_folder, path) = secret_file();
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    let events: Vec<String> = events.iter().map(|event| (*event).to_owned()).collect();
    let webhooks = Webhooks::new(urls, WebhookSecrets::read(&path).unwrap(), &events).unwrap();
    let options = ControlOptions {
        webhooks: webhooks.clone(),
        ..ControlOptions::default()
    };
    (
        Control::start_with(settings(1), Limits::default(), options).await,
        webhooks,
    )
}

async fn stats(control: &Control) -> Vec<WebhookStats> {
    let stats = control.client().await.get("/stats").await.expect(200);
    serde_json::from_value(stats["webhooks"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_signed_and_as_the_stream_tells_them() {
    let hook = Hook::default();
    let address = hook.start().await;
    let (control, webhooks) = start(&[format!("http://{address}/hook?key=1")], &[]).await;
    let mut client = control.client().await;
    let room = client
        .post("/rooms", json!({"appData": {"för": "uns"}}))
        .await
        .expect(201);
    client.delete(&format!("/rooms/{}", room["id"])).await.expect(200);
    let heard = hook.heard(2).await;
    let told = client
        .get("/events/recent?kind=roomOpened,roomClosed")
        .await
        .expect(200);
    for (heard, told) in heard.iter().zip(told["items"].as_array().unwrap()) {
        heard.check_signature();
        assert_eq!(heard.json(), *told);
        assert_eq!(
            (heard.path.as_str(), heard.header("webhook-id")),
            ("/hook?key=1", told["id"].as_str().unwrap())
        );
        assert_eq!(heard.header("content-type"), "application/json");
        assert_eq!(heard.header("host"), address.to_string());
    }
    let [stats] = stats(&control).await.try_into().unwrap();
    assert_eq!(
        (stats.endpoint, stats.delivered, stats.given_up),
        (format!("http://{address}"), 2, 0)
    );
    // The last events come, too.
    control.close().await;
    soon("the last webhooks", webhooks.finish(Duration::from_secs(60))).await;
    assert_eq!(hook.heard(3).await.last().unwrap().json()["type"], "serverClosed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_was_away_gets_everything_in_order() {
    // A port at which nobody listens yet, and which nobody else gets.
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = reserved.local_addr().unwrap();
    let (control, webhooks) = start(&[format!("http://{address}/")], &["roomOpened"]).await;
    let mut client = control.client().await;
    for _ in 0..3 {
        client.post("/rooms", json!({})).await.expect(201);
    }
    soon("a failure", async {
        while webhooks.stats()[0].failed == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let hook = Hook::new(&[Does::Answers(500), Does::Answers(204), Does::Answers(503)]);
    hook.serve(reserved.listen(16).unwrap());
    let heard = hook.heard(5).await;
    let rooms: Vec<u64> = heard
        .iter()
        .map(|heard| heard.json()["room"].as_u64().unwrap())
        .collect();
    assert_eq!(rooms, [1, 1, 2, 2, 3], "the same again, then the next");
    assert_eq!(heard[0].header("webhook-id"), heard[1].header("webhook-id"));
    for heard in heard {
        heard.check_signature();
    }
    control.close().await;
    soon("the last webhooks", webhooks.finish(Duration::from_secs(60))).await;
    assert_eq!(webhooks.stats()[0].given_up, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_or_redirects_delays_nobody_and_leads_nowhere() {
    let (hangs, redirects, good) = (
        Hook::new(&[Does::Hangs; 100]),
        Hook::new(&[Does::Redirects; 100]),
        Hook::default(),
    );
    let mut urls = Vec::new();
    for hook in [&hangs, &redirects, &good] {
        urls.push(format!("http://{}/hook", hook.start().await));
    }
    let (control, webhooks) = start(&urls, &["*"]).await;
    let mut client = control.client().await;
    for _ in 0..100 {
        let room = client.post("/rooms", json!({})).await.expect(201);
        client.delete(&format!("/rooms/{}", room["id"])).await.expect(200);
    }
    // Everything was answered while one endpoint has answered nothing.
    good.heard(200).await;
    hangs.heard(1).await;
    redirects.heard(1).await;
    let stats = stats(&control).await;
    assert!(stats[0].behind > 100 && stats[0].delivered == 0, "{stats:?}");
    assert!(stats[2].delivered >= 200, "{stats:?}");
    // The server's end does not wait for it, either.
    control.close().await;
    soon("the end", webhooks.finish(Duration::from_millis(10))).await;
    let paths = redirects
        .heard
        .lock()
        .unwrap()
        .iter()
        .map(|heard| heard.path.clone())
        .collect::<Vec<_>>();
    assert!(paths.iter().all(|path| path == "/hook"), "{paths:?}");
}

/// An endpoint with TLS, and the file with the certificate by which it is known.
async fn start_encrypted(hook: &Hook, folder: &TempDir) -> (u16, std::path::PathBuf) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = hook.router();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                // Who does not believe the certificate ends it here.
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = TowerToHyperService::new(router);
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (port, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn weir_serve_sends_them_over_tls_to_the_end_and_logs_no_secret() {
    let (folder, secret) = secret_file();
    let (known, unknown) = (Hook::default(), Hook::default());
    let (port, authority) = start_encrypted(&known, &folder).await;
    let (other_port, _) = start_encrypted(&unknown, &tempfile::tempdir().unwrap()).await;
    let scratch = Scratch::new();
    let mut command = scratch.serve();
    let urls = format!("https://localhost:{port}/hook/very-secret,https://localhost:{other_port}/hook/very-secret");
    command
        .args(["--log-level", "trace", "--webhook-urls", &urls, "--webhook-secret-file"])
        .arg(&secret)
        .env("SSL_CERT_FILE", &authority);
    let mut serve = command.spawn().unwrap();
    let mut stderr = serve.stderr.take().unwrap();
    let log = tokio::spawn(async move {
        let mut log = String::new();
        stderr.read_to_string(&mut log).await.unwrap();
        log
    });
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    soon("the server", lines.next_line()).await.unwrap().unwrap();
    assert_eq!(scratch.ctl("room create").await.code, 0);
    let heard = known.heard(1).await;
    heard[0].check_signature();
    assert_eq!(heard[0].json()["type"], "roomOpened");
    kill(Pid::from_raw(serve.id().unwrap() as i32), Signal::SIGTERM).unwrap();
    assert!(soon("its end", serve.wait()).await.unwrap().success());
    let heard = known.heard(3).await;
    let last: Vec<Value> = heard.iter().map(|heard| heard.json()["type"].clone()).collect();
    assert_eq!(last, ["roomOpened", "roomClosed", "serverClosed"]);
    assert!(unknown.heard.lock().unwrap().is_empty(), "who it is was not shown");
    let log = soon("its log", log).await.unwrap();
    assert!(log.contains("a webhook was not delivered"), "{log}");
    assert!(
        log.contains("the server ends before all webhooks are delivered"),
        "{log}"
    );
    for secret in [SECRET, "very-secret"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
