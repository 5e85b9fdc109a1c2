//! How long a meeting of 50 takes to set up: every peer with sound and pictures to all the others, 4,900 consumers.
//!
//! `cargo bench --bench meeting` prints the time of each step; `-- --peers N` and `-- --rounds N` change what is measured.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/meeting/mod.rs"]
mod meeting;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use weir::{Family, RoomOptions, Server, Settings};

fn main() -> ExitCode {
    // `cargo test --benches` runs benches to see that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("meeting: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meeting: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str, default: u32) -> Result<u32, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == name) {
        Some(at) => Ok(arguments.get(at + 1).ok_or("a number is missing")?.parse()?),
        None => Ok(default),
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (peers, rounds) = (number("--peers", 50)?, number("--rounds", 5)?);
    let server = Server::start(Settings {
        rtc_ipv4: Family::Address([127, 0, 0, 1].into()),
        rtc_ipv6: Family::Off,
        worker_binary: Some(env!("CARGO_BIN_EXE_weir-worker").into()),
        ..Settings::default()
    })
    .await?;
    println!(
        "{:>6} {:>9} {:>10} {:>12} {:>12}",
        "peers", "consumers", "set up ms", "torn down ms", "resident MB"
    );
    for _ in 0..rounds {
        let room = server.create_room(RoomOptions::default()).await?;
        let start = Instant::now();
        let (members, consumers) = meeting::convene(&room, peers).await?;
        let set_up = start.elapsed();
        let resident = server.worker_stats(room.worker()).await?.resident_bytes;
        let start = Instant::now();
        meeting::adjourn(members).await?;
        room.close(serde_json::Value::Null).await?;
        let torn_down = start.elapsed();
        println!(
            "{peers:>6} {consumers:>9} {:>10.0} {:>12.0} {:>12.1}",
            set_up.as_secs_f64() * 1e3,
            torn_down.as_secs_f64() * 1e3,
            resident as f64 / 1e6
        );
    }
    server.close().await;
    Ok(())
}
