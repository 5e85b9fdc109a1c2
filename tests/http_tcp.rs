//! The control interface on TCP: for those who know the token, and for nobody else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod control;

use command::{Scratch, outcome};
use control::{Client, Control, soon};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weir::http::{ControlOptions, Limits, app, guarded, serve};

const TOKEN: &str = "0123456789abcdefghijklmnop";

async fn client(address: &str) -> Client {
    Client::over(TcpStream::connect(address).await.unwrap()).await
}

#[tokio::test]
async fn without_the_token_there_is_nothing_and_with_it_everything() {
    let control = Control::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = guarded(
        app(control.server.clone(), ControlOptions::default()),
        TOKEN.parse().unwrap(),
    );
    let (close, closing) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, app, Limits::default(), closing));

    let mut client = client(&address).await;
    let bearer = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {}", TOKEN.to_uppercase());
    for headers in [&[][..], &[("authorization", wrong.as_str())]] {
        for (method, target) in [
            ("GET", "/"),
            ("GET", "/health"),
            ("POST", "/rooms"),
            ("GET", "/nothing"),
        ] {
            let answer = client.say(method, target, headers, "").await;
            answer.refuses(401, "unauthorized", "authorization: Bearer");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert!(control.server.rooms().is_empty(), "nothing was done");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let room = client
        .say("POST", "/rooms", &headers, r#"{"appData": 7}"#)
        .await
        .expect(201);
    // The same server as on its socket.
    let seen = control.client().await.get("/rooms/1").await.expect(200);
    assert_eq!((&room, &seen["appData"]), (&seen, &json!(7)));
    client
        .say("GET", "/nothing", &headers, "")
        .await
        .refuses(404, "unknownRoute", "/nothing");

    close.send_replace(true);
    soon("the end of serving", serving).await.unwrap();
    control.close().await;
}

#[tokio::test]
async fn weir_serve_listens_with_a_token_only() {
    let scratch = Scratch::new();
    let mut command = scratch.serve();
    command.args(["--http-listen", "127.0.0.1:0"]);
    outcome(command).await.failed(2, "needs a token");
    let mut command = scratch.serve();
    command.args(["--http-listen", "127.0.0.1:0", "--http-token", "guess"]);
    outcome(command).await.failed(2, "16 to 1024 characters");

    let token_file = scratch.dir.path().join("token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    let mut command = scratch.serve();
    command
        .args(["--http-listen", "127.0.0.1:0", "--http-token-file"])
        .arg(&token_file);
    let mut serve = command.spawn().unwrap();
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let line = soon("the server", lines.next_line()).await.unwrap().unwrap();
    let address = line.rsplit(" and ").next().unwrap();
    let mut client = client(address).await;
    client.get("/health").await.refuses(401, "unauthorized", "Bearer");
    let bearer = format!("Bearer {TOKEN}");
    let health = client.say("GET", "/health", &[("authorization", &bearer)], "").await;
    assert_eq!(health.expect(200)["status"], "ok");
    kill(Pid::from_raw(serve.id().unwrap() as i32), Signal::SIGTERM).unwrap();
    let status = soon("its end", serve.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}
