//! Other people's WebRTC stacks, whole, against a server that is told of them by HTTP.

pub(crate) mod person;
pub(crate) mod sdp;
pub(crate) mod stage;
pub(crate) mod whip;
