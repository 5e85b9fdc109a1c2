//! Tests of the protocol with a server that has a made-up worker.
