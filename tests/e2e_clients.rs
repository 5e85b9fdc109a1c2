//! Generators of clients read the OpenAPI document: openapi-typescript for TypeScript, openapi-python-client for Python. And
//! two people with mediasoup-client 3 in Chromium see and hear each other, though nobody translates what their clients say.
//!
//! `cargo test --test e2e_clients -- --ignored`; it needs `npm ci` in `tests/clients`, `python3 -m venv tests/clients/.venv` and
//! in it what `tests/clients/requirements.txt` names, and fails without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod control;
mod loopback;

use std::path::{Path, PathBuf};
use std::process::Command;

use command::Scratch;
use control::Control;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a program, which must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The document as it is served, in a file.
async fn document(scratch: &Scratch) -> PathBuf {
    let control = Control::start().await;
    let document = control.client().await.get("/openapi.json").await.expect(200);
    control.close().await;
    let path = scratch.dir.path().join("openapi.json");
    std::fs::write(&path, document.to_string()).unwrap();
    path
}

#[tokio::test]
#[ignore = "needs openapi-typescript"]
async fn types_for_typescript_are_generated_and_compile() {
    let scratch = Scratch::new();
    let document = document(&scratch).await;
    let types = scratch.dir.path().join("weir.ts");
    let programs = folder().join("node_modules/.bin");
    run(Command::new(programs.join("openapi-typescript"))
        .arg(&document)
        .arg("--output")
        .arg(&types));
    let use_of_them = "import type { components, operations } from './weir';\n\
        type Room = components['schemas']['RoomView'];\n\
        type Made = operations['postRooms']['responses'][201]['content']['application/json'];\n\
        export const id = (room: Room, made: Made): number[] => [room.id, made.id];\n";
    let using = scratch.dir.path().join("using.ts");
    std::fs::write(&using, use_of_them).unwrap();
    run(Command::new(programs.join("tsc"))
        .args(["--noEmit", "--strict", "--skipLibCheck", "false"])
        .arg(&using));
}

#[tokio::test]
#[ignore = "needs openapi-python-client"]
async fn a_client_for_python_is_generated_and_can_be_imported() {
    let scratch = Scratch::new();
    let document = document(&scratch).await;
    let client = scratch.dir.path().join("client");
    let programs = folder().join(".venv/bin");
    let path = std::env::join_paths(
        std::iter::once(programs.clone()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    run(Command::new(programs.join("openapi-python-client"))
        // It formats what it writes with ruff.
        .env("PATH", path.unwrap())
        .args(["generate", "--fail-on-warning", "--meta", "none", "--path"])
        .arg(&document)
        .arg("--config")
        .arg(folder().join("openapi-python-client.yml"))
        .arg("--output-path")
        .arg(&client));
    // All of it.
    let import = "import importlib, pkgutil, client\n\
        found = [importlib.import_module(name) for _, name, _ in pkgutil.walk_packages(client.__path__, 'client.')]\n\
        print(len(found))";
    let python = programs.join("python");
    let modules = run(Command::new(python)
        .current_dir(scratch.dir.path())
        .args(["-c", import]));
    assert!(modules.trim().parse::<usize>().unwrap() > 100, "{modules}");
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn people_with_mediasoup_3_see_each_other_pause_and_change_layers() {
    let control = Control::start().await;
    let path = control.path.clone();
    let said = tokio::task::spawn_blocking(move || {
        run(Command::new("node")
            .arg(folder().join("mediasoup3.mjs"))
            .arg("--control")
            .arg(path))
    });
    let said = said.await.unwrap();
    assert!(said.trim().ends_with("ok"), "{said}");
    control.close().await;
}
