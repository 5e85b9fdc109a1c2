//! The contract between Weir's supervisor and its workers.
//!
//! A supervisor and a worker hold the two ends of a Unix stream socketpair. Everything they say is a
//! [`message::Message`], encoded by [`codec`], framed by [`frame`], queued in two [`lanes`], carried by [`endpoint`];
//! file descriptors travel beside the frame that needs them ([`descriptors`]).
//!
//! This crate owns: the messages, their identifiers, the frame format, the limits. It never knows what a message
//! does: neither the supervisor's objects nor the worker's relay appear here. Deliberately absent: threads, clocks
//! other than [`message::Deadline`] and the supervisor's [`own_time`], any reading of the environment.

pub mod codec;
pub mod descriptors;
pub mod endpoint;
pub mod error;
pub mod frame;
pub mod id;
pub mod lanes;
pub mod log;
pub mod message;
pub mod own_time;
pub mod page;
pub mod text;
