//! What is done alike with rooms, transports, producers and consumers: they are listed, shown, measured, paused, closed.

use std::fmt;

use axum::http::Method;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::input::parse_json;
use super::output::Output;
use super::table::{Cell, Table};

/// One of the server's objects: `producer 7`, which is at `/producers/7`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    noun: &'static str,
    id: u64,
}

/// Which one to close, and what its event carries.
#[derive(Debug, Args)]
pub(super) struct Closing<Which: Args> {
    #[command(flatten)]
    pub(super) which: Which,
    /// Any JSON, which is sent with the event
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    pub(super) app_data: Option<Value>,
}

/// What to keep with something new.
#[derive(Debug, Args)]
pub(super) struct Attached {
    /// Any JSON, which is kept with it
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    app_data: Option<Value>,
}

impl Attached {
    /// Adds it to what a new thing is made from.
    pub(super) fn add_to(self, body: &mut Value) {
        if let Some(app_data) = self.app_data {
            body["appData"] = app_data;
        }
    }
}

/// Which one to pause or resume, for whom, and what its event carries.
#[derive(Debug, Args)]
pub(super) struct Pausing<Which: Args> {
    #[command(flatten)]
    pub(super) which: Which,
    /// The side that acts: local is the application, remote is the peer's client; no side can resume what the other has
    /// paused
    #[arg(long, value_name = "SIDE", value_parser = ["local", "remote"], default_value = "local")]
    side: String,
    /// Any JSON, which is sent with the event
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    app_data: Option<Value>,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.noun, self.id)
    }
}

impl Object {
    /// The one with this id among those of its kind.
    pub(super) fn new(noun: &'static str, id: u64) -> Self {
        Self { noun, id }
    }

    /// Where it is, and there what `rest` names.
    pub(super) fn target(self, rest: &str) -> String {
        format!("/{}s/{}{rest}", self.noun, self.id)
    }

    /// Prints it, a line for each pair.
    pub(super) async fn show<V: DeserializeOwned, P: AsRef<[(&'static str, Cell)]>>(
        self,
        client: &mut Client,
        output: &Output,
        pairs: impl FnOnce(&V) -> P,
    ) -> Result<(), Failure> {
        let print = |shown: V| output.pairs(pairs(&shown).as_ref());
        print_one(client, output, &self.target(""), print).await
    }

    /// Prints its counters, or `none`.
    pub(super) async fn stats<S: DeserializeOwned>(
        self,
        client: &mut Client,
        output: &Output,
        table: fn(&[S]) -> Table,
        none: &str,
    ) -> Result<(), Failure> {
        let print = |stats: S| output.table(&table(&[stats]), none);
        print_one(client, output, &self.target("/stats"), print).await
    }

    /// Prints all that the worker knows of it.
    pub(super) async fn dump(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        output.json(&client.get::<Value>(&self.target("/dump")).await?)
    }

    pub(super) async fn pause(self, client: &mut Client, output: &Output, body: &Value) -> Result<(), Failure> {
        let answer = client.post(&self.target("/pause"), body).await?;
        output.done(&answer, format_args!("{self} paused"))
    }

    pub(super) async fn resume(self, client: &mut Client, output: &Output, body: &Value) -> Result<(), Failure> {
        let answer = client.post(&self.target("/resume"), body).await?;
        let still = ["locallyPaused", "remotelyPaused", "sourcePaused"].map(|name| answer[name] == true);
        let still = match still {
            [true, ..] => "; the application still holds it paused",
            [_, true, _] => "; its client still holds it paused",
            [.., true] => "; its producer is still paused",
            [false, false, false] => "",
        };
        output.done(&answer, format_args!("{self} resumed{still}"))
    }

    pub(super) async fn prefer(self, client: &mut Client, output: &Output, profile: &str) -> Result<(), Failure> {
        let body = json!({"profile": profile});
        let line = format!("{self} prefers profile {profile}");
        self.put(client, output, "/preferred-profile", &body, line).await
    }

    /// Changes something of it, and says so in a line.
    pub(super) async fn put(
        self,
        client: &mut Client,
        output: &Output,
        rest: &str,
        body: &Value,
        line: impl fmt::Display,
    ) -> Result<(), Failure> {
        let answer = client.send(Method::PUT, &self.target(rest), Some(body)).await?;
        output.done(&answer, line)
    }

    pub(super) async fn close(
        self,
        client: &mut Client,
        output: &Output,
        app_data: Option<Value>,
    ) -> Result<(), Failure> {
        let answer = client.close(&self.target(""), app_data).await?;
        output.done(&answer, format_args!("{self} closed"))
    }
}

impl<Which: Args> Pausing<Which> {
    /// What the server is sent.
    pub(super) fn body(self) -> Value {
        let mut body = json!({"side": self.side});
        if let Some(app_data) = self.app_data {
            body["appData"] = app_data;
        }
        body
    }
}

/// Prints what is at a target: as JSON if that is asked for, else as `print` does.
pub(super) async fn print_one<V: DeserializeOwned>(
    client: &mut Client,
    output: &Output,
    target: &str,
    print: impl FnOnce(V) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let answer: Value = client.get(target).await?;
    match output.is_json() {
        true => output.json(&answer),
        false => print(client.read(answer)?),
    }
}

/// Prints a list as a table, a row for each thing in it, or `none`.
pub(super) fn print_list<V: DeserializeOwned, const N: usize>(
    client: &Client,
    output: &Output,
    items: Vec<Value>,
    none: &str,
    row: impl Fn(&V) -> [(&'static str, Cell); N],
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&items);
    }
    let mut table = Table::default();
    for item in items {
        table.row(row(&client.read(item)?));
    }
    output.table(&table, none)
}
