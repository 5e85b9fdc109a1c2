//! The pure core: packets and commands in, packets, notifications and actions out. No socket, no clock, no thread.

pub mod sink;
