//! The bodies of the fuzz targets. They are here so that they keep compiling, and so that ordinary tests run them too;
//! `fuzz/fuzz_targets` takes each file by its path.

mod dtls;
mod page;
mod relay;
mod rtp;
mod srtp;
mod webrtc;
