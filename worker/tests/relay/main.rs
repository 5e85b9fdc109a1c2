//! The relay as a whole, in the simulator: packets and commands in, packets and events out.

#[path = "../sim/mod.rs"]
mod sim;

mod accounting;
mod close;
mod comedia;
mod continuity;
mod death;
mod determinism;
mod echo;
mod equal_sizes;
mod fanout;
mod field;
mod keyframes;
mod levels;
mod lossy;
mod malformed;
mod pause_resume;
mod peer;
mod profiles;
mod repair;
mod reports;
mod routing;
mod sources;
mod timers;
mod twcc;
