//! The thin shell around the core: sockets in batches, readiness, the clock. All of the worker's `unsafe` is here.
#![allow(unsafe_code)]
