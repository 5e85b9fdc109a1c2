//! `weir serve` without descriptors: it says so and what to do, lets operators in, keeps its workers, and is well again when there are some.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod control;
mod loopback;

use command::{Scratch, Serve, in_shell};
use control::{Client, soon};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// A server that may have so many.
async fn with_descriptors(scratch: &Scratch, limit: usize) -> Serve {
    let command = in_shell(&format!("ulimit -n {limit}"), &scratch.serve());
    Serve::start(command, &scratch.socket).await
}

/// Makes transports of a kind until there are no more; how many.
async fn use_up(client: &mut Client, room: u64, (kind, body): (&str, Value)) -> usize {
    let mut made = 0;
    loop {
        let answer = client.post(&format!("/rooms/{room}/{kind}"), body.clone()).await;
        if answer.status != 201 {
            answer.refuses(503, "descriptorsExhausted", "LimitNOFILE");
            assert!(answer.text.contains("limit is 256"), "{}", answer.text);
            return made;
        }
        made += 1;
    }
}

#[tokio::test]
async fn without_descriptors_transports_are_refused_with_503_and_health_says_so_until_there_are_some() {
    let scratch = Scratch::new();
    let serve = with_descriptors(&scratch, 256).await;
    let mut client = Client::connect(&scratch.socket).await;
    let room = client.room().await;
    for (kind, body) in [
        ("transports", json!({})),
        ("transports", json!({"rtcpMux": false})),
        ("webrtc-transports", json!({})),
    ] {
        let health = client.get("/health").await.expect(200);
        assert_eq!(health, json!({"status": "ok", "reasons": []}));
        let made = use_up(&mut client, room, (kind, body.clone())).await;
        assert!(made > 10, "{made}");

        let health = client.get("/health").await.expect(200);
        assert_eq!(health["status"], "degraded");
        let reason = health["reasons"][0].as_str().unwrap();
        assert!(
            reason.contains("LimitNOFILE") && reason.contains("limit is 256"),
            "{reason}"
        );
        // Operators are let in, and told in words.
        let told = serve.ctl("health").await;
        assert_eq!(told.code, 1);
        assert!(
            told.stdout.starts_with("degraded\nthe server has no descriptors left"),
            "{told:?}"
        );
        // A smaller one may find its place, or one where descriptors on their way to the worker were a moment ago.
        let mut refused = serve.ctl(&format!("transport create {room}")).await;
        while refused.code == 0 {
            refused = serve.ctl(&format!("transport create {room}")).await;
        }
        refused.failed(1, "LimitNOFILE");

        let transports = client
            .get(&format!("/transports?room={room}&limit=1000"))
            .await
            .expect(200);
        for transport in transports["items"].as_array().unwrap() {
            let target = format!("/transports/{}", transport["id"]);
            client.delete(&target).await.expect(200);
        }
        let health = client.get("/health").await.expect(200);
        assert_eq!(health, json!({"status": "ok", "reasons": []}), "{kind} {body}");
        assert_eq!(serve.say("health").await, "ok\n");
        let answer = client.post(&format!("/rooms/{room}/{kind}"), body).await;
        let id = answer.expect(201)["id"].as_u64().unwrap();
        client.delete(&format!("/transports/{id}")).await.expect(200);
    }
    serve.stop().await;
}

#[tokio::test]
async fn without_descriptors_a_worker_that_dies_is_replaced() {
    let scratch = Scratch::new();
    let serve = with_descriptors(&scratch, 256).await;
    let mut client = Client::connect(&scratch.socket).await;
    // On the other worker, so that the death frees none.
    let room = client.post("/rooms", json!({"worker": 1})).await.expect(201);
    use_up(&mut client, room["id"].as_u64().unwrap(), ("transports", json!({}))).await;
    let mut events = serve.follow("--kind workerStarted").await;
    let workers = serve.workers().await;
    kill(workers[1], Signal::SIGKILL).unwrap();
    let started = events.next().await.unwrap();
    assert!(started.starts_with("worker 2 started"), "{started}");
    let shown = serve.ask("worker show 2").await;
    assert_eq!(
        (&shown["restarts"], &shown["lastExit"]["name"]),
        (&1.into(), &"SIGKILL".into())
    );
    serve.stop().await;
}

#[tokio::test]
async fn operators_that_take_the_last_descriptors_are_let_in_when_others_leave() {
    let scratch = Scratch::new();
    let serve = with_descriptors(&scratch, 80).await;
    let mut crowd = Vec::new();
    for _ in 0..80 {
        // Those that find no descriptor wait in the kernel's queue.
        crowd.push(soon("a place", UnixStream::connect(&scratch.socket)).await.unwrap());
    }
    // Some rounds of letting nobody in.
    serve.ctl("--timeout 500ms health").await.failed(3, "");
    drop(crowd);
    assert_eq!(serve.say("health").await, "ok\n");
    serve.signal(Signal::SIGTERM);
    let (status, said) = serve.end().await;
    assert!(status.success(), "{status}: {said}");
    assert_eq!(said.matches("cannot accept control connections").count(), 1, "{said}");
}

#[tokio::test]
async fn strangers_that_take_descriptors_leave_some_for_operators() {
    let scratch = Scratch::new();
    // A port that is free a moment later, too.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = scratch.serve();
    command.arg("--demo-page").arg(address.to_string());
    let serve = Serve::start(in_shell("ulimit -n 128", &command), &scratch.socket).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(soon("a place", TcpStream::connect(address)).await.unwrap());
    }
    for _ in 0..3 {
        assert_eq!(serve.say("health").await, "ok\n");
        serve.say("room create").await;
    }
    serve.stop().await;
}
