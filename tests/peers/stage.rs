//! A server that is driven by HTTP alone, and the transports on which other people's stacks meet it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Interval, interval};

use super::person::Person;
use super::sdp::{self, PeerIs};
use crate::control::{Client, Control, soon};

/// How often is looked at what cannot be waited on.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Packets that a producer must have got before anybody believes that media arrives.
const PACKETS: u64 = 50;

/// Connections to it are made where they are used: it hangs up on those that say nothing for as long as a peer's program may
/// take to start on a busy machine.
pub(crate) struct Stage {
    control: Control,
    room: u64,
    again: Interval,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let control = Control::start().await;
        let mut client = control.client().await;
        let room = client.room().await;
        Self {
            control,
            room,
            again: interval(LOOK_AGAIN),
        }
    }

    pub(crate) async fn close(self) {
        self.control.close().await;
    }

    async fn transport(&self, client: &mut Client) -> Value {
        let target = format!("/rooms/{}/webrtc-transports", self.room);
        client.post(&target, json!({})).await.expect(201)
    }

    async fn introduce(client: &mut Client, transport: &Value, sdp: &str, peer_is: PeerIs) {
        let target = format!("/transports/{}/dtls", transport["id"]);
        let parameters = sdp::dtls_parameters(sdp, peer_is);
        client.put(&target, parameters).await.expect(200);
    }

    /// Takes an offer: a transport, a producer of each section, and the answer.
    pub(crate) async fn publish(&self, offer: &str, peer_is: PeerIs) -> Published {
        let mut client = self.control.client().await;
        let transport = self.transport(&mut client).await;
        Self::introduce(&mut client, &transport, offer, peer_is).await;
        let mut producers = Vec::new();
        for section in sdp::sections(offer) {
            let target = format!("/transports/{}/producers", transport["id"]);
            let producer = client.post(&target, section.producer()).await.expect(201);
            producers.push(producer["id"].as_u64().expect("an id is a number"));
        }
        let answer = sdp::answer(offer, &transport, peer_is);
        Published {
            transport,
            producers,
            answer,
        }
    }

    /// Waits until a transport's peer is who it said it is. Returns what kind of key it has.
    async fn connected(&mut self, transport: &Value) -> String {
        let target = format!("/transports/{}", transport["id"]);
        let mut client = self.control.client().await;
        let webrtc = soon("the handshake", async {
            loop {
                self.again.tick().await;
                let mut now = client.get(&target).await.expect(200);
                match now["webrtc"]["dtlsState"].as_str() {
                    Some("connected") => return now["webrtc"].take(),
                    Some("failed" | "closed") => panic!("the handshake has failed: {now}"),
                    _ => {}
                }
            }
        })
        .await;
        key_of(webrtc["dtlsRemoteCert"].as_str().expect("a certificate was shown"))
    }

    /// Waits until the peer is connected and its media has come. Returns what kind of key it has.
    pub(crate) async fn hears(&mut self, published: &Published) -> String {
        let key = self.connected(&published.transport).await;
        let mut client = self.control.client().await;
        for producer in &published.producers {
            let target = format!("/producers/{producer}/stats");
            soon("media", async {
                loop {
                    self.again.tick().await;
                    let stats = client.get(&target).await.expect(200);
                    if stats["streams"][0]["packets"].as_u64() >= Some(PACKETS) {
                        return;
                    }
                }
            })
            .await;
        }
        key
    }

    /// Offers the peer its own media back on a second transport, and waits until it has it. Returns its last report.
    pub(crate) async fn echo(&mut self, published: &Published, person: &mut Person, peer_is: PeerIs) -> Value {
        let mut client = self.control.client().await;
        let transport = self.transport(&mut client).await;
        let target = format!("/transports/{}/consumers", transport["id"]);
        let consumer = json!({"producer": published.producers[0]});
        let consumer = client.post(&target, consumer).await.expect(201);
        person
            .hear(&json!({"offer": sdp::offer(&consumer, &transport, peer_is)}))
            .await;
        let answer = person.says("answer").await;
        let answer = answer["answer"].as_str().expect("an answer is text");
        let mut client = self.control.client().await;
        Self::introduce(&mut client, &transport, answer, peer_is).await;
        self.connected(&transport).await;
        person.receives().await
    }
}

/// What a peer sends.
pub(crate) struct Published {
    transport: Value,
    producers: Vec<u64>,
    pub(crate) answer: String,
}

/// What OpenSSL says of a certificate's key, in one line.
fn key_of(pem: &str) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let mut child = Command::new("openssl")
        .args(["x509", "-noout", "-text"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs the program openssl");
    let mut input = child.stdin.take().expect("its input is piped");
    input.write_all(pem.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_key = |line: &&str| line.contains("Public Key Algorithm") || line.contains("Public-Key:");
    text.lines().filter(of_key).map(str::trim).collect::<Vec<_>>().join(" ")
}
