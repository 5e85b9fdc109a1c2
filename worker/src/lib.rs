//! Weir's media plane: what runs in a worker process. One process, one thread, one core.
//!
//! [`rtp`] gives bytes their names, [`relay`] decides what goes where and rewrites it, [`net`] talks to the kernel, and
//! [`process`] is the loop around them. Dependencies point one way: `rtp <- relay <- process -> net`. [`webrtc`], beside the
//! relay, is what browsers need on top. [`page`], below the relay, is what a worker leaves to its successor. [`sandbox`] is
//! around all of it.

pub mod boundary;
pub mod exit;
pub mod log;
pub mod net;
pub mod page;
pub mod process;
pub mod relay;
pub mod rtp;
pub mod sandbox;
pub mod switches;
pub mod time;
pub mod webrtc;
