//! The thin shell around the core: sockets in batches, readiness, the clock. All of the worker's `unsafe` is here.
//!
//! Packets come in through a [`ReceiveBatch`](receive::ReceiveBatch) and leave through an [`Egress`](egress::Egress), the
//! kernel-facing [`Sink`](crate::relay::sink::Sink). Both allocate when they are made and not per packet. Neither decides
//! anything about media; `process` joins them to the relay.
//!
//! The two ends are of use without a relay too: [`ReceiveBatch`](receive::ReceiveBatch) on any UDP socket that
//! [`sockets::prepare`] has set up, and [`KernelSend`](send::KernelSend) on any connected one.
//!
//! Deliberately absent: binding sockets and opening files (the supervisor does, and passes descriptors).

// The one place that talks to the kernel in ways that no safe interface offers: recvmmsg and sendmmsg with a control
// message per packet, and epoll_pwait2. Every block says why it is sound.
#![allow(unsafe_code)]

mod address;
pub mod backlog;
pub mod clock;
pub mod egress;
pub mod gather;
pub mod heap;
pub mod mirror;
pub mod optional;
pub mod page;
pub mod poll;
mod prefetch;
pub mod receive;
pub mod residence;
pub mod scheduling;
pub mod send;
pub mod shell;
pub mod sockets;
pub mod source;
mod transmit;
pub mod usage;
