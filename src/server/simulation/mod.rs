//! The simulation of the whole: the supervisor as it is, its channels as they are, and workers that are whole processes but for the
//! kernel, in one thread, on a virtual clock, from one seed.
//!
//! A [`story`] is a server's life: calls at random, remotes that send and listen ([`media`]), workers that die and freeze
//! ([`worker`]) over a network of its own ([`network`]). What must always hold is judged as it goes. The same seed plays the same story, byte for
//! byte ([`trace`]).

mod calls;
mod client;
#[path = "../../../tests/counters/mod.rs"]
mod counters;
mod faults;
mod judge;
mod media;
mod network;
#[path = "../../../worker/tests/sim/mod.rs"]
mod sim;
mod story;
mod trace;
mod worker;

use std::panic::catch_unwind;
use std::time::Duration;

use weir_channel::id::WorkerId;

use self::faults::Blow;

/// Seeds that are always played.
const SEEDS: u64 = 300;

/// Plays the stories of some seeds, each `step`th from the `first`.
fn play(first: u64, step: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let from = number("SEED").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(if number("SEED").is_some() { 1 } else { SEEDS });
    let mut failed = Vec::new();
    let (mut played, mut deaths, mut calls, mut packets, mut time) = (0, 0, 0, 0, Duration::ZERO);
    let mut protected = 0;
    for seed in (from..from + count).skip(first as usize).step_by(step) {
        match catch_unwind(|| story::play(seed)) {
            Ok(outcome) => {
                deaths += outcome.deaths;
                calls += outcome.calls;
                packets += outcome.packets;
                protected += outcome.protected;
                time += outcome.time;
            }
            Err(_) => failed.push(seed),
        }
        played += 1;
        if played % 1_000 == 0 || seed + step as u64 >= from + count {
            println!(
                "{played} stories of {} minutes: {calls} calls, {deaths} deaths, {packets} packets, {protected} of them \
                 protected; {} failed",
                time.as_secs() / 60,
                failed.len(),
            );
        }
    }
    assert_eq!(failed, [0; 0], "seeds whose stories go wrong");
    assert!(protected > 0 || count < 100, "nobody was sent anything by WebRTC");
}

// Two halves, for two cores.

#[test]
fn whatever_happens_to_workers_every_call_ends_well_and_everybody_is_sent_what_they_should_be() {
    play(0, 2);
}

#[test]
fn whatever_happens_to_workers_every_call_ends_well_and_everybody_is_sent_what_they_should_be_again() {
    play(1, 2);
}

#[test]
fn a_seed_plays_the_same_story_byte_for_byte() {
    for seed in 0..20 {
        let first = story::play(seed);
        assert_eq!(story::play(seed), first, "seed {seed}");
    }
}

/// Of the frames that a worker was sending, any number of bytes may have come.
#[test]
fn a_worker_may_die_at_every_byte_of_what_it_says() {
    let mut longest = 0;
    for seed in 0..4 {
        // All of a frame's header and of short frames, and some places of long ones.
        for bytes in (0..16).chain((16..).step_by(64)) {
            let outcome = story::play_short(seed, Blow::Cut(bytes));
            longest = longest.max(outcome.cut_of);
            if bytes >= outcome.cut_of {
                break;
            }
        }
    }
    assert!(longest > 16, "{longest} bytes are no frame of any length");
}

#[test]
fn a_worker_may_die_whatever_its_supervisor_is_about_to_do() {
    for times in 0..60 {
        for seed in 0..2 {
            story::play_short(seed, Blow::Await(times));
        }
    }
}

/// For less than it takes to notice, and for longer: then it is replaced.
#[test]
fn each_worker_may_freeze() {
    for seed in 0..4 {
        for worker in [1, 2] {
            for (time, in_turn) in [(500, true), (500, false), (4_000, true), (4_000, false)] {
                story::play_short(seed, Blow::Freeze(WorkerId(worker), sim::ms(time), in_turn));
            }
        }
    }
}
