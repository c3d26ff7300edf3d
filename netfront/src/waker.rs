//! Waking a queue's thread from another: one eventfd.
//!
//! A page that comes home to a ring that has run dry wakes the thread too, and is no call: nobody has anything to tell.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{eventfd, EventfdFlags};

use crate::Error;

/// Wakes the thread that sleeps in a queue's poll.
#[derive(Debug)]
pub struct Waker {
    event: OwnedFd,
    called: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> Result<Self, Error> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(|event| Self {
                event,
                called: AtomicBool::new(false),
            })
            .map_err(|error| Error::io("making an eventfd")(error.into()))
    }

    /// Wakes the thread, or makes its next sleep end at once.
    pub fn wake(&self) {
        // Before the event: whoever sees that sees this.
        self.called.store(true, Ordering::Release);
        self.ring();
    }

    /// Wakes it to look at its own rings and pages.
    pub(crate) fn ring(&self) {
        // The counter of an eventfd overflows only after 2^64 - 2 calls; then it is readable anyway.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Takes the event. True if somebody called since the last time.
    pub(crate) fn clear(&self) -> bool {
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.called.swap(false, Ordering::Acquire)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_from_a_page_that_came_home_and_never_lost_beside_one() {
        let waker = Waker::new().expect("a waker");
        waker.ring();
        assert!(!waker.clear());
        waker.wake();
        waker.ring();
        assert!(waker.clear());
        assert!(!waker.clear(), "it was told once");
    }
}
