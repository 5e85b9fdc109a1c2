//! A worker that has no descriptor numbers left loses the descriptors of a request, not the channel, and leaks none.
//!
//! Alone in its program, because it lowers the limit of the whole process.

mod common;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use common::{pipe, socketpair, wait_for};
use nix::poll::PollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use weir_channel::descriptors::{receive, send_with_descriptors};

#[test]
fn what_finds_no_number_is_closed_and_the_rest_arrives() {
    let (ours, theirs) = socketpair();
    let (reads, writes): (Vec<_>, Vec<OwnedFd>) = (0..4).map(|_| pipe()).unzip();
    send_with_descriptors(ours.as_fd(), b"frame", &writes).expect("sent");
    send_with_descriptors(ours.as_fd(), b"next", &writes).expect("sent");
    drop(writes);

    // Room for exactly two: the lowest free number and the one after it.
    let lowest = ours.try_clone().expect("a number");
    let second = ours.try_clone().expect("a number");
    let limit = lowest.as_raw_fd().max(second.as_raw_fd()) as u64 + 1;
    let free: Vec<OwnedFd> = std::iter::from_fn(|| {
        let number = ours.try_clone().expect("a number");
        (number.as_raw_fd() < limit as i32).then_some(number)
    })
    .collect();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("lowered");
    drop((lowest, second));

    let mut buffer = [0; 100];
    let received = receive(theirs.as_fd(), &mut buffer).expect("the bytes arrive");
    assert_eq!(
        (&buffer[..received.bytes], received.descriptors.len()),
        (&b"frame"[..], 2)
    );
    let full = receive(theirs.as_fd(), &mut buffer).expect("the bytes arrive");
    assert_eq!((&buffer[..full.bytes], full.descriptors.len()), (&b"next"[..], 0));
    drop((received, free));
    for read in &reads {
        let events = wait_for(read.as_fd(), PollFlags::POLLIN);
        assert!(
            events.contains(PollFlags::POLLHUP),
            "a copy of the writing end is still open"
        );
    }
}
