# Everyday commands; `just` lists them.

default:
    @just --list --unsorted

# Recorded media through real processes, live.
demo *args:
    cargo run --release -- demo {{args}}

# The server, to be driven with `just ctl …`.
serve *args:
    cargo run --release -- serve {{args}}

# The operator's command.
ctl *args:
    cargo run --release -- ctl {{args}}

# How close to the kernel's limit the relay runs.
load *args:
    cargo run --release -- load {{args}}

# Everything that needs no other program.
test *args:
    cargo test --workspace {{args}}

# The tests that drive ffmpeg, GStreamer and browsers; these need `npm ci` in tests/browser.
e2e:
    cargo test --workspace --tests -- --ignored

# Stories of a server whose workers die, on a virtual clock: `just sim 100000`, or `just sim 1000 5000` from another seed on.
sim seeds="10000" first="0":
    SEED={{first}} SEEDS={{seeds}} cargo test --release --lib server::simulation -- --nocapture

# Attacks in their long form, with figures: `just attacks ice --json FILE` runs those with "ice" in their names.
attacks *args:
    cargo test --release --test attacks -- --long {{args}}

# What a change must pass before review.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

# Formats everything.
fmt:
    cargo fmt --all

# Measures; benches/README.md says how to compare.
bench *args:
    cargo bench {{args}}

# One fuzz target, for a minute unless told otherwise; fuzz/README.md lists them.
fuzz target seconds="60":
    RUSTC_BOOTSTRAP=1 cargo fuzz run {{target}} -- -max_total_time={{seconds}}

# Licences, bans, sources.
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities; fetches the RustSec database.
advisories:
    cargo deny check advisories

# All of CI.
ci:
    .ci/run
