//! Other people's publishers and players, by nothing but an address: ffmpeg publishes by WHIP, and aiortc, which is a stack of its own,
//! watches by WHEP and decodes what it gets; a page in Chromium does both; and what
//! GStreamer offers is published.
//!
//! `cargo test --test e2e_whip -- --ignored`; it needs what `tests/aiortc/requirements.txt` names in `tests/aiortc/.venv`, Chromium, GStreamer, and
//! `npm ci` in `tests/browser`, and fails without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "dtls/certificates.rs"]
mod certificates;
mod control;
mod loopback;
#[path = "peers/person.rs"]
mod person;

use std::path::Path;

use certificates::CERTIFICATES;
use control::{Client, Control, soon};
use person::{Person, tests};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weir::http::{ClientsFrom, ControlOptions, Guard, Limits, app, demo_page, guarded, serve};

/// A server whose clients need no token, and its address.
async fn start() -> (Control, String, watch::Sender<bool>) {
    let control = Control::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let guard = Guard {
        operators: None,
        clients: ClientsFrom::ThisMachine,
        ..Guard::default()
    };
    let app = guarded(app(control.server.clone(), ControlOptions::default()), guard);
    let (close, closing) = watch::channel(false);
    tokio::spawn(serve(listener, app, Limits::default(), closing));
    (control, address, close)
}

async fn watched(flags: &[String]) {
    let (control, address, close) = start().await;
    let python = tests().join("aiortc/.venv/bin/python");
    let url = format!("http://{address}/whip/stage/ffmpeg");
    let args = [url].into_iter().chain(flags.iter().cloned());
    let publisher = Person::start(&python, "whip.py", args);
    let mut events = control.server.events();
    let media = async {
        let sends = || {
            control
                .server
                .rooms()
                .first()
                .is_some_and(|room| room.producers().len() == 2)
        };
        while !sends() {
            events.next().await.unwrap();
        }
    };
    soon("the publisher", media).await;
    let mut player = Person::start(&python, "whep.py", [format!("http://{address}/whep/stage")]);
    let report = player.receives().await;
    assert_eq!(
        (report["width"].as_u64(), report["height"].as_u64()),
        (Some(320), Some(180)),
        "{report}"
    );
    assert!(report["sounds"].as_u64() > Some(10), "{report}");
    player.leave().await;
    // It sends DELETE, and nobody is left.
    soon("its end", publisher.leave()).await;
    let gone = async {
        while !control.server.rooms().is_empty() {
            events.next().await.unwrap();
        }
    };
    soon("the room's end", gone).await;
    close.send_replace(true);
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs GStreamer and aiortc"]
async fn what_gstreamer_publishes_with_its_rsa_certificate_a_player_decodes() {
    let (control, address, close) = start().await;
    let mut publisher = Person::start(Path::new("/usr/bin/python3"), "gstreamer.py", [""; 0]);
    let offer = publisher.says("offer").await;
    let mut client = Client::over(TcpStream::connect(&address).await.unwrap()).await;
    let headers = [("content-type", "application/sdp"), ("host", address.as_str())];
    let offer = offer["offer"].as_str().unwrap().to_owned();
    let published = client.say("POST", "/whip/stage", &headers, offer).await;
    assert_eq!(published.status, 201, "{}", published.text);
    publisher.hear(&json!({"answer": published.text})).await;
    let python = tests().join("aiortc/.venv/bin/python");
    let args = [format!("http://{address}/whep/stage"), "video".to_owned()];
    let mut player = Person::start(&python, "whep.py", args);
    let report = player.receives().await;
    assert_eq!(
        (report["width"].as_u64(), report["height"].as_u64()),
        (Some(320), Some(180)),
        "{report}"
    );
    player.leave().await;
    publisher.leave().await;
    close.send_replace(true);
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and Node.js"]
async fn a_page_publishes_layers_and_watches_them_over_a_restart_of_ice() {
    let (control, address, close) = start().await;
    let mut page = Person::start(
        Path::new("node"),
        "../browser/whip.mjs",
        ["/usr/bin/chromium", &address],
    );
    let report = page.says("done").await;
    assert!(report["layers"].as_array().unwrap().contains(&json!("q")), "{report}");
    page.leave().await;
    close.send_replace(true);
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium and Node.js"]
async fn who_watches_on_a_phone_waits_sees_what_is_published_and_chooses_its_quality() {
    let control = Control::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pages = demo_page(
        control.server.clone(),
        app(control.server.clone(), ControlOptions::default()),
    );
    let (close, closing) = watch::channel(false);
    tokio::spawn(serve(listener, pages, Limits::default(), closing));
    let args = ["/usr/bin/chromium", &address];
    let mut page = Person::start(Path::new("node"), "../browser/pages.mjs", args);
    let report = page.says("done").await;
    assert_eq!(report["problems"], json!([]), "{report}");
    assert_eq!(report["viewers"], "1 viewer", "{report}");
    assert_eq!(report["beyond"], json!([[], []]), "{report}");
    assert!(report["numbers"].as_str().unwrap().contains("fps"), "{report}");
    page.leave().await;
    close.send_replace(true);
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PyAV and aiortc"]
async fn what_ffmpeg_publishes_a_player_decodes() {
    watched(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PyAV and aiortc"]
async fn what_ffmpeg_publishes_as_the_dtls_client_a_player_decodes() {
    let shown = CERTIFICATES.all().iter().find(|shown| shown.name == "P-256").unwrap();
    let [certificate, key] = [&shown.certificate, &shown.key].map(|file| file.to_str().unwrap());
    watched(&[
        "whip_flags=dtls_active".to_owned(),
        format!("cert_file={certificate}"),
        format!("key_file={key}"),
    ])
    .await;
}
