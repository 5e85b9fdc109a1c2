//! The contract between Weir's supervisor and its workers.
//!
//! A supervisor and a worker hold the two ends of a Unix stream socketpair. Everything they say is a
//! [`message::Message`], encoded by [`codec`], framed by [`frame`], carried by [`endpoint`]; file descriptors
//! travel beside the frame that needs them ([`descriptors`]).
//!
//! This crate owns: the messages, their identifiers, the frame format, the limits. It never knows what a message
//! does: neither the supervisor's objects nor the worker's relay appear here. Deliberately absent: threads, clocks
//! other than [`message::Deadline`], any reading of the environment.

pub mod id;
pub mod message;
