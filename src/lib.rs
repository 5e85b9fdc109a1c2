//! Weir: an SFU media server.
