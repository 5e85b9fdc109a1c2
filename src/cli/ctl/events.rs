//! `weir ctl events`.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;
use weir::http::path_segment;
use weir_channel::text::{visible, visible_json};

use super::client::{Client, Failure};
use super::output::Output;
use super::server::flat;
use crate::cli::palette::Tone;
use sse::{Decoder, Event};

mod sse;

/// A stream shows that it is alive every 15 s; one that does not for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// `weir ctl events`
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Keep showing events as they happen, until the server stops
    #[arg(long, short)]
    follow: bool,
    /// Only those in this room
    #[arg(long, value_name = "ROOM")]
    room: Option<u64>,
    /// Only events of these types, e.g. producerPaused,producerResumed
    #[arg(long, value_name = "TYPE,TYPE")]
    kind: Option<String>,
    /// Begin after the event with this id (the `id` in --json); `0` begins with the oldest event [default: with
    /// --follow new events only, else the oldest]
    #[arg(long, value_name = "ID")]
    since: Option<String>,
}

/// A stream of events.
struct Stream {
    body: Incoming,
    decoder: Decoder,
    /// What has been read already.
    ready: VecDeque<Event>,
}

impl Stream {
    async fn open(client: &mut Client, target: &str) -> Result<Self, Failure> {
        Ok(Self {
            body: client.open(target).await?,
            decoder: Decoder::default(),
            ready: VecDeque::new(),
        })
    }

    async fn next(&mut self, client: &Client) -> Result<Event, Failure> {
        let next = self.next_if_any(client).await?;
        next.ok_or_else(|| client.unreachable(anyhow!("the stream of events ended unexpectedly")))
    }

    /// The next event; `None` at the stream's end.
    async fn next_if_any(&mut self, client: &Client) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let frame = timeout(SILENCE_MAX, self.body.frame())
                .await
                .map_err(|_| client.unreachable(anyhow!("the server stopped sending on the stream of events")))?;
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(client.unreachable(error.into())),
                None => return Ok(None),
            };
            if let Some(bytes) = frame.data_ref() {
                let events = self.decoder.feed(bytes);
                self.ready
                    .extend(events.map_err(|error| client.unreachable(anyhow!(error)))?);
            }
        }
    }
}

/// Prints what a stream tells, a line for each, until what it tells of is closed.
pub(super) async fn follow_live(
    client: &mut Client,
    output: &Output,
    target: &str,
    line: fn(&Value) -> String,
) -> Result<(), Failure> {
    let mut stream = Stream::open(client, target).await?;
    while let Some(event) = stream.next_if_any(client).await? {
        let Event::Message(data) = event else {
            continue;
        };
        let event: Value = serde_json::from_str(&data)
            .map_err(|error| client.unreachable(anyhow!("the stream of events cannot be read: {error}")))?;
        match output.is_json() {
            true => output.painted(&event.to_string())?,
            false => output.line(line(&event))?,
        }
    }
    Ok(())
}

/// The answer of `GET /events/recent`.
#[derive(Debug, Deserialize)]
struct Recent {
    items: Vec<Value>,
    missed: u64,
    position: String,
    more: bool,
}

impl Events {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        if self.follow {
            self.follow(client, output).await
        } else {
            self.recent(client, output).await
        }
    }

    async fn recent(&self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let mut position = self.since.clone();
        loop {
            let recent: Recent = client.get(&self.target("/events/recent", position.as_deref())).await?;
            if recent.missed > 0 {
                print(output, &serde_json::json!({"type": "lagged", "count": recent.missed}))?;
            }
            for event in &recent.items {
                print(output, event)?;
            }
            if !recent.more {
                return Ok(());
            }
            position = Some(recent.position);
        }
    }

    async fn follow(&self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let mut position = self.since.clone();
        let mut announced = false;
        loop {
            let mut stream = Stream::open(client, &self.target("/events", position.as_deref())).await?;
            let mut alive = false;
            let broken = loop {
                let event = match stream.next(client).await {
                    Ok(event) => event,
                    Err(failure) => break failure,
                };
                alive = true;
                let Event::Message(data) = event else {
                    // The first comment says that from now on nothing is missed.
                    if !std::mem::replace(&mut announced, true) && !output.is_json() {
                        output.remark(format_args!("following the events of {}", client.path().display()));
                    }
                    continue;
                };
                let event: Value = serde_json::from_str(&data)
                    .map_err(|error| client.unreachable(anyhow!("an event cannot be read: {error}")))?;
                print(output, &event)?;
                if event["type"] == "serverClosed" {
                    return Ok(());
                }
            };
            position = stream.decoder.id().map(str::to_owned).or(position);
            // A server hangs up on who does not read for long, such as a pager. The stream goes on where it broke off, if
            // there still is a server, and if it says anything at all.
            if !alive {
                return Err(broken);
            }
        }
    }

    fn target(&self, path: &str, after: Option<&str>) -> String {
        let room = self.room.map(|room| room.to_string());
        let parameters = [
            ("room", room.as_deref()),
            ("kind", self.kind.as_deref()),
            ("after", after),
        ];
        let given = parameters
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", path_segment((*value)?))));
        let query: Vec<String> = given.collect();
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", query.join("&"))
        }
    }
}

fn print(output: &Output, event: &Value) -> Result<(), Failure> {
    if output.is_json() {
        return output.painted(&visible_json(&event.to_string()));
    }
    let Sentence {
        time,
        words,
        details,
        tone,
    } = Sentence::of(event);
    let palette = output.palette();
    let mut line = format!("{}  {}", palette.paint(Tone::Faint, &time), palette.paint(tone, &words));
    if !details.is_empty() {
        line += &format!("  {}", palette.paint(Tone::Faint, &details));
    }
    output.painted(&line)
}

/// An event for people: `12:03:04.123  producer 7 paused  room=1 originator=local`.
#[derive(PartialEq, Eq, Debug)]
struct Sentence {
    time: String,
    words: String,
    details: String,
    tone: Tone,
}

impl Sentence {
    /// Works for types that do not exist yet: a type is a noun and what happened to it, a member of the noun's name is its
    /// id, and the others are details.
    fn of(event: &Value) -> Self {
        let kind = event["type"].as_str().unwrap_or("unknown");
        let words = match kind {
            "lagged" => format!("… {} events were missed", event["count"]),
            "restarted" => "… the server was restarted; its events begin anew".to_owned(),
            _ => {
                let mut words = camel_case_words(kind);
                let noun = match words.remove(0).as_str() {
                    // `remoteSet` happens to a transport.
                    "remote" => {
                        words.insert(0, "remote".to_owned());
                        "transport".to_owned()
                    }
                    noun => noun.to_owned(),
                };
                let id = event.get(&noun).map(|id| format!(" {}", flat(id))).unwrap_or_default();
                format!("{noun}{id} {}", words.join(" "))
            }
        };
        let noun = words.split(' ').next().unwrap_or_default();
        let shown_already = ["id", "seq", "at", "type", "count", noun];
        let members = event.as_object().into_iter().flatten();
        let details = members.filter(|(name, value)| !shown_already.contains(&name.as_str()) && !value.is_null());
        let details: Vec<_> = details.map(|(name, value)| detail(name, value)).collect();
        Self {
            time: time(event["at"].as_str().unwrap_or_default()),
            tone: tone(kind, &words),
            details: visible(&details.join(" ")).into_owned(),
            words: visible(&words).into_owned(),
        }
    }
}

fn detail(name: &str, value: &Value) -> String {
    match value {
        // An application's own JSON is shown as JSON.
        _ if name == "appData" => format!("{name}={value}"),
        Value::Object(_) => format!("{name}=({})", flat(value)),
        _ => format!("{name}={}", flat(value)),
    }
}

fn tone(kind: &str, words: &str) -> Tone {
    match words.rsplit(' ').next() {
        Some("died" | "missed") => Tone::Bad,
        Some("paused") => Tone::Warning,
        Some("opened" | "started" | "resumed") => Tone::Good,
        _ if kind == "restarted" => Tone::Bad,
        _ => Tone::Normal,
    }
}

/// The time of day of `2026-11-22T12:03:04.123Z`.
fn time(at: &str) -> String {
    let time = at.split_once('T').map_or(at, |(_, time)| time.trim_end_matches('Z'));
    format!("{time:12}")
}

/// `producerPreferredProfileSet` → `producer`, `preferred`, `profile`, `set`
fn camel_case_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_read_as_sentences() {
        let check = |event: Value, words: &str, details: &str| {
            let sentence = Sentence::of(&event);
            assert_eq!((sentence.words.as_str(), sentence.details.as_str()), (words, details));
        };
        let at = "2026-11-22T12:03:04.123Z";
        let paused = json!({"id": "a-7", "seq": 7, "at": at, "type": "producerPaused", "producer": 3, "room": 1,
            "originator": "local", "appData": null});
        assert_eq!(Sentence::of(&paused).time, "12:03:04.123");
        check(paused, "producer 3 paused", "originator=local room=1");
        check(
            json!({"seq": 1, "at": at, "type": "consumerEffectiveProfileChanged", "consumer": 9, "room": 1, "profile": "low"}),
            "consumer 9 effective profile changed",
            "profile=low room=1",
        );
        check(
            json!({"type": "remoteLearned", "transport": 4, "room": 1, "remote": {"rtp": "127.0.0.1:5", "rtcp": null}}),
            "transport 4 remote learned",
            "remote=(rtp=127.0.0.1:5) room=1",
        );
        check(
            json!({"type": "workerDied", "worker": 2, "cause": {"kind": "signalled", "name": "SIGKILL", "signal": 9}}),
            "worker 2 died",
            "cause=(signalled name=SIGKILL signal=9)",
        );
        check(
            json!({"type": "roomOpened", "room": 1, "appData": {"a": "\u{1b}"}}),
            "room 1 opened",
            r#"appData={"a":"\u001b"}"#,
        );
        check(json!({"type": "serverClosed"}), "server closed", "");
        check(json!({"type": "lagged", "count": 3}), "… 3 events were missed", "");
        check(
            json!({"type": "somethingNewHappened", "something": 1, "x": "y"}),
            "something 1 new happened",
            "x=y",
        );
        check(json!({}), "unknown ", "");
        check(json!(null), "unknown ", "");
    }

    #[test]
    fn queries_are_escaped() {
        let events = Events {
            follow: false,
            room: Some(1),
            kind: Some("a,b&c".to_owned()),
            since: None,
        };
        assert_eq!(
            events.target("/events", Some("x-1")),
            "/events?room=1&kind=a%2Cb%26c&after=x-1"
        );
    }
}
