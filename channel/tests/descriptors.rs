//! File descriptors arrive with the frame they were sent with, wherever the stream is cut; they are closed when the frame is
//! refused; and none survives an exec.

mod common;

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use common::{assert_close_on_exec, pipe, socketpair, wait_for};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::fstat;
use proptest::prelude::*;
use weir_channel::descriptors::{Arrivals, DescriptorError, MAX_DESCRIPTORS, receive, send, send_with_descriptors};
use weir_channel::frame::{Decoder, PREFIX};

/// A frame whose body says how many descriptors it has and which number the first of them is.
#[derive(Clone, Debug)]
struct Sent {
    descriptors: usize,
    len: usize,
}

/// Which pipe it is, whatever its number here.
fn identity(descriptor: &OwnedFd) -> u64 {
    fstat(descriptor).expect("open").st_ino
}

fn frame_of(body_len: usize) -> Vec<u8> {
    [&(body_len as u32).to_le_bytes()[..], &vec![0x5a; body_len]].concat()
}

/// Sends the frames as the endpoints do: those with descriptors alone, from their first byte; the rest of what the socket did
/// not take, and everything else, together, in pieces of at most `piece` bytes. Returns the identities sent with each frame.
fn send_all(socket: &OwnedFd, frames: &[Sent], piece: usize, mut drain: impl FnMut()) -> Vec<Vec<u64>> {
    let mut identities = Vec::new();
    let mut plain: Vec<u8> = Vec::new();
    let mut drained = |result: Result<usize, Errno>| match result {
        Ok(count) => count,
        Err(Errno::EAGAIN) => {
            drain();
            0
        }
        Err(errno) => panic!("{errno}"),
    };
    for frame in frames {
        let bytes = frame_of(frame.len);
        let descriptors: Vec<OwnedFd> = (0..frame.descriptors).map(|_| pipe().0).collect();
        identities.push(descriptors.iter().map(identity).collect());
        if descriptors.is_empty() {
            plain.extend_from_slice(&bytes);
            continue;
        }
        while !plain.is_empty() {
            let count = drained(send(socket.as_fd(), &[IoSlice::new(&plain[..piece.min(plain.len())])]));
            plain.drain(..count);
        }
        let sent = loop {
            // What the kernel may do with a full buffer, the length limit does at any byte.
            let count = drained(send_with_descriptors(
                socket.as_fd(),
                &bytes[..piece.min(bytes.len())],
                &descriptors,
            ));
            if count > 0 {
                break count;
            }
        };
        plain.extend_from_slice(&bytes[sent..]);
    }
    while !plain.is_empty() {
        let count = drained(send(socket.as_fd(), &[IoSlice::new(&plain[..piece.min(plain.len())])]));
        plain.drain(..count);
    }
    identities
}

/// Reads what there is, `piece` bytes at a time, and matches descriptors to frames.
struct Reader {
    decoder: Decoder,
    arrivals: Arrivals,
    piece: usize,
    frames: Vec<(usize, Vec<u64>)>,
}

impl Reader {
    fn new(piece: usize) -> Self {
        Self {
            decoder: Decoder::new(),
            arrivals: Arrivals::new(),
            piece,
            frames: Vec::new(),
        }
    }

    fn read_available(&mut self, socket: &OwnedFd) {
        let mut buffer = vec![0; self.piece];
        loop {
            let received = match receive(socket.as_fd(), &mut buffer) {
                Err(Errno::EAGAIN) => return,
                received => received.expect("readable"),
            };
            if received.bytes == 0 {
                return;
            }
            received.descriptors.iter().for_each(assert_close_on_exec);
            let start = self.decoder.offset();
            self.arrivals
                .push(start, start + received.bytes as u64, received.descriptors)
                .expect("a sender that keeps the rule");
            let mut input = &buffer[..received.bytes];
            while let Some(frame) = self.decoder.next_frame(&mut input).expect("valid") {
                let descriptors = self
                    .arrivals
                    .take(frame.start, frame.end)
                    .expect("they belong to a frame");
                self.frames
                    .push((frame.body.len(), descriptors.iter().map(identity).collect()));
            }
        }
    }
}

fn check(frames: &[Sent], sent_piece: usize, read_piece: usize, small_buffer: bool) {
    let (ours, theirs) = socketpair();
    if small_buffer {
        setsockopt(&ours, sockopt::SndBuf, &1).expect("the kernel rounds up");
    }
    let mut reader = Reader::new(read_piece);
    let identities = send_all(&ours, frames, sent_piece, || reader.read_available(&theirs));
    reader.read_available(&theirs);
    let expected: Vec<_> = frames.iter().map(|frame| frame.len).zip(identities).collect();
    assert_eq!(reader.frames, expected, "sent by {sent_piece}, read by {read_piece}");
}

/// Every way to cut a short conversation, at both ends.
#[test]
fn every_piece_size_of_a_short_conversation() {
    let frame = |descriptors, len| Sent { descriptors, len };
    let frames = [
        frame(0, 3),
        frame(2, 5),
        frame(1, 0),
        frame(4, 2),
        frame(0, 1),
        frame(0, 7),
        frame(1, 9),
    ];
    let total = frames.iter().map(|frame| PREFIX + frame.len).sum();
    for sent_piece in (1..=14).chain([total]) {
        for read_piece in 1..=total {
            check(&frames, sent_piece, read_piece, false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_frames_and_any_pieces(
        frames in prop::collection::vec(
            (prop_oneof![2 => Just(0), 3 => 1..=MAX_DESCRIPTORS], prop_oneof![3 => 0_usize..40, 1 => 0_usize..9000])
                .prop_map(|(descriptors, len)| Sent { descriptors, len }),
            1..20,
        ),
        sent_piece in prop_oneof![1_usize..60, 1_usize..10_000],
        read_piece in prop_oneof![1_usize..60, 1_usize..70_000],
        small_buffer in any::<bool>(),
    ) {
        check(&frames, sent_piece, read_piece, small_buffer);
    }
}

/// What the pairing rule rests on. Should a kernel ever read on past bytes with descriptors, this is the test that says so.
#[test]
fn a_read_never_goes_on_past_bytes_with_descriptors() {
    let (ours, theirs) = socketpair();
    let (read, _write) = pipe();
    let plain = |bytes: &[u8]| assert_eq!(send(ours.as_fd(), &[IoSlice::new(bytes)]), Ok(bytes.len()));
    plain(b"before");
    send_with_descriptors(ours.as_fd(), b"with", std::slice::from_ref(&read)).expect("sent");
    plain(b"after");
    send_with_descriptors(ours.as_fd(), b"again", &[read]).expect("sent");
    let mut buffer = [0; 100];
    let mut seen = Vec::new();
    while let Ok(received) = receive(theirs.as_fd(), &mut buffer) {
        seen.push((
            String::from_utf8_lossy(&buffer[..received.bytes]).into_owned(),
            received.descriptors.len(),
        ));
    }
    assert_eq!(seen, [(String::from("beforewith"), 1), (String::from("afteragain"), 1)]);
}

/// The writing end of a pipe that was passed on is closed everywhere once the reading end sees the end of the file.
fn assert_closed(read: &OwnedFd) {
    assert!(wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP));
}

#[test]
fn too_many_descriptors_are_refused_and_closed() {
    let (ours, theirs) = socketpair();
    let (reads, writes): (Vec<_>, Vec<_>) = (0..=MAX_DESCRIPTORS).map(|_| pipe()).unzip();
    send_with_descriptors(ours.as_fd(), &frame_of(1), &writes).expect("sent");
    drop(writes);
    let received = receive(theirs.as_fd(), &mut [0; 100]).expect("readable");
    assert_eq!(
        received.descriptors.len(),
        MAX_DESCRIPTORS + 1,
        "all are seen, none leaks"
    );
    let error = Arrivals::new().push(0, 5, received.descriptors).expect_err("too many");
    assert_eq!(
        error,
        DescriptorError::TooMany {
            count: MAX_DESCRIPTORS + 1
        }
    );
    reads.iter().for_each(assert_closed);
}

#[test]
fn more_than_the_kernel_passes_at_once_cannot_be_sent() {
    let (ours, _theirs) = socketpair();
    let (read, _write) = pipe();
    let many: Vec<OwnedFd> = (0..254).map(|_| read.try_clone().expect("a number")).collect();
    assert_eq!(send_with_descriptors(ours.as_fd(), b"x", &many), Err(Errno::EINVAL));
}

#[test]
fn a_read_of_all_that_the_kernel_passes_at_once_sees_all() {
    let (ours, theirs) = socketpair();
    let (read, write) = pipe();
    let many: Vec<OwnedFd> = (0..253).map(|_| write.try_clone().expect("a number")).collect();
    send_with_descriptors(ours.as_fd(), b"x", &many).expect("sent");
    drop((many, write));
    let received = receive(theirs.as_fd(), &mut [0; 10]).expect("readable");
    assert_eq!(received.descriptors.len(), 253);
    received.descriptors.iter().for_each(assert_close_on_exec);
    drop(received);
    assert_closed(&read);
}

#[test]
fn descriptors_without_a_frame_are_refused_and_closed() {
    let case = |reads: &[(u64, u64, usize)], frames: &[(u64, u64)]| {
        let mut arrivals = Arrivals::new();
        let mut pipes = Vec::new();
        let mut outcome = Ok(());
        for &(start, end, count) in reads {
            let (read, write): (Vec<_>, Vec<_>) = (0..count).map(|_| pipe()).unzip();
            pipes.extend(read);
            outcome = outcome.and(arrivals.push(start, end, write));
        }
        for &(start, end) in frames {
            outcome = outcome.and_then(|()| arrivals.take(start, end).map(drop));
        }
        drop(arrivals);
        pipes.iter().for_each(assert_closed);
        outcome
    };
    // A frame begins at 0 and descriptors come with its tail only.
    assert_eq!(case(&[(10, 20, 1)], &[(0, 20)]), Err(DescriptorError::Astray));
    // The read ends exactly with the frame that began before it: the next frame must not get them.
    assert_eq!(
        case(&[(0, 10, 1), (10, 20, 1)], &[(0, 20), (20, 30)]),
        Err(DescriptorError::Astray)
    );
    // One frame, and descriptors at three places.
    assert_eq!(
        case(&[(0, 5, 1), (5, 6, 1), (6, 7, 1)], &[]),
        Err(DescriptorError::Astray)
    );
    // Two frames with descriptors, the first of them cut.
    assert_eq!(case(&[(0, 5, 2), (5, 30, 2)], &[(0, 9), (9, 30)]), Ok(()));
    // Frames before the one with descriptors, in the same read.
    assert_eq!(case(&[(0, 30, 4)], &[(0, 9), (9, 20), (20, 31)]), Ok(()));
}

#[test]
fn descriptors_that_nobody_reads_are_closed_with_the_socket() {
    let (ours, theirs) = socketpair();
    let (read, write) = pipe();
    send_with_descriptors(ours.as_fd(), &frame_of(1), &[write]).expect("sent");
    drop((ours, theirs));
    assert_closed(&read);
}
