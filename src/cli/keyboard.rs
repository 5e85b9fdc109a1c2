//! The terminal's keys while something is shown live.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::read;
use tokio::sync::Notify;

/// How long the thread that reads keys may take to notice that it is over, in milliseconds.
const KEY_WAIT_MS: u8 = 100;

/// Whether there is a terminal that can be drawn on, and somebody at it.
pub(super) fn is_interactive() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && io::stdin().is_terminal() && !dumb
}

/// Reads keys as they are pressed, and shows none. Dropped, it leaves the terminal as it was.
#[derive(Debug)]
pub(super) struct Keyboard {
    enough: Arc<Notify>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    before: Termios,
}

impl Keyboard {
    pub(super) fn listen() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut now = before.clone();
        // Control and C is a signal as ever.
        now.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &now)?;
        let (enough, over) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (pressed, ended) = (Arc::clone(&enough), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let stdin = io::stdin();
            let mut keys = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
                match poll(&mut ready, PollTimeout::from(KEY_WAIT_MS)) {
                    Ok(0) | Err(nix::Error::EINTR) => continue,
                    Ok(_) => {}
                    Err(_) => return,
                }
                match read(&stdin, &mut keys) {
                    // A terminal that cannot be read has nobody at it.
                    Ok(0) | Err(_) => return,
                    Ok(len) if means_enough(&keys[..len]) => pressed.notify_one(),
                    Ok(_) => {}
                }
            }
        });
        Ok(Self {
            enough,
            over,
            thread: Some(thread),
            before,
        })
    }

    /// Ready when a key was pressed that means "enough".
    pub(super) async fn enough(&self) {
        self.enough.notified().await;
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic.
            let _ = thread.join();
        }
        // On the way out, there is nobody left to complain to.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// q, or Escape. Escape alone: keys that have no letter begin with it.
fn means_enough(keys: &[u8]) -> bool {
    keys == [0x1b] || keys.contains(&b'q')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_mean_enough() {
        assert!(means_enough(b"q"));
        assert!(means_enough(b"\x1b"));
        assert!(!means_enough(b"c"));
        assert!(!means_enough(b"\x1b[A"), "an arrow");
    }
}
