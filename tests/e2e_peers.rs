//! Everybody's WebRTC: whole stacks of other people, each as the DTLS client and as the server, with the certificates that they
//! make themselves and with others; their media goes into a server and comes back.
//!
//! `cargo test --test e2e_peers -- --ignored`; it needs GStreamer with Debian's Python, `npm ci` in `tests/peers`, and what
//! `tests/aiortc/requirements.txt` names in `tests/aiortc/.venv`, and fails without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "dtls/certificates.rs"]
mod certificates;
mod control;
mod loopback;
mod peers;

use std::ffi::OsStr;
use std::path::Path;

use certificates::CERTIFICATES;
use control::soon;
use peers::person::{Person, tests};
use peers::sdp::PeerIs;
use peers::stage::Stage;
use peers::whip::Endpoint;
use serde_json::json;

/// Where Debian's GStreamer can be imported.
const DEBIANS_PYTHON: &str = "/usr/bin/python3";

/// A peer that sends and is sent its own media back. Returns what key it has shown, and its last report.
async fn sends_and_receives(mut person: Person, peer_is: PeerIs) -> (String, serde_json::Value) {
    let mut stage = Stage::start().await;
    let offer = person.says("offer").await;
    let published = stage.publish(offer["offer"].as_str().unwrap(), peer_is).await;
    person.hear(&json!({"answer": published.answer})).await;
    let key = stage.hears(&published).await;
    let report = stage.echo(&published, &mut person, peer_is).await;
    person.leave().await;
    stage.close().await;
    (key, report)
}

async fn gstreamer(peer_is: PeerIs) {
    let person = Person::start(Path::new(DEBIANS_PYTHON), "gstreamer.py", [""; 0]);
    let (key, report) = sends_and_receives(person, peer_is).await;
    assert!(key.contains("rsaEncryption") && key.contains("2048 bit"), "{key}");
    // A white ball on black.
    assert!(report["contrast"].as_u64() > Some(150), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs GStreamer"]
async fn gstreamer_with_its_rsa_certificate_is_seen_and_sees_as_the_client() {
    gstreamer(PeerIs::Client).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs GStreamer"]
async fn gstreamer_with_its_rsa_certificate_is_seen_and_sees_as_the_server() {
    gstreamer(PeerIs::Server).await;
}

/// With the certificate that it makes itself, or one of ours by its name.
async fn libdatachannel(peer_is: PeerIs, certificate: Option<&str>, key: &str) {
    let files = certificate.map(files).into_iter().flatten();
    let person = Person::start(Path::new("node"), "libdatachannel.mjs", files);
    let (shown, _) = sends_and_receives(person, peer_is).await;
    assert!(shown.contains(key), "{shown}");
}

fn files(certificate: &str) -> [&'static OsStr; 2] {
    let shown = CERTIFICATES
        .all()
        .iter()
        .find(|shown| shown.name == certificate)
        .unwrap();
    [shown.certificate.as_os_str(), shown.key.as_os_str()]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libdatachannel"]
async fn libdatachannel_is_heard_and_hears_as_the_client_and_as_the_server() {
    tokio::join!(
        libdatachannel(PeerIs::Client, None, "256 bit"),
        libdatachannel(PeerIs::Server, None, "256 bit"),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libdatachannel"]
async fn libdatachannel_with_an_rsa_certificate_is_heard_and_hears_as_the_client() {
    libdatachannel(PeerIs::Client, Some("RSA-2048"), "2048 bit").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libdatachannel"]
async fn libdatachannel_with_an_rsa_certificate_is_heard_and_hears_as_the_server() {
    libdatachannel(PeerIs::Server, Some("RSA-2048"), "2048 bit").await;
}

/// ffmpeg publishes; it cannot receive. It says itself which role it has, which is the server's unless asked for the other.
async fn ffmpeg(peer_is: PeerIs, certificate: Option<&str>, key: &str) {
    let mut stage = Stage::start().await;
    let mut endpoint = Endpoint::start().await;
    let mut args = vec![endpoint.url.clone()];
    if peer_is == PeerIs::Client {
        args.push("whip_flags=dtls_active".to_owned());
    }
    if let Some(certificate) = certificate {
        let [certificate, key] = files(certificate).map(|file| file.to_str().unwrap());
        args.extend([format!("cert_file={certificate}"), format!("key_file={key}")]);
    }
    let python = tests().join("aiortc/.venv/bin/python");
    let person = Person::start(&python, "whip.py", args);
    let (offer, waiting) = endpoint.offer().await;
    let published = stage.publish(&offer, peer_is).await;
    waiting.send(published.answer.clone()).unwrap();
    let shown = stage.hears(&published).await;
    assert!(shown.contains(key), "{shown}");
    soon("its end", person.leave()).await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PyAV"]
async fn ffmpeg_with_its_p224_certificate_publishes_by_whip_as_the_server() {
    ffmpeg(PeerIs::Server, None, "224 bit").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PyAV"]
async fn ffmpeg_with_its_p224_certificate_publishes_by_whip_as_the_client() {
    ffmpeg(PeerIs::Client, None, "224 bit").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PyAV"]
async fn ffmpeg_with_a_p256_certificate_publishes_by_whip_as_the_client_and_as_the_server() {
    tokio::join!(
        ffmpeg(PeerIs::Client, Some("P-256"), "256 bit"),
        ffmpeg(PeerIs::Server, Some("P-256"), "256 bit"),
    );
}
