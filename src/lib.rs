//! Weir: an SFU media server.

pub mod media;
