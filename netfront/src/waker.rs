//! Waking a queue's thread from another: one eventfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{eventfd, EventfdFlags};

use crate::Error;

/// Wakes the thread that sleeps in a queue's poll.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    pub(crate) fn new() -> Result<Self, Error> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(|error| Error::io("making an eventfd")(error.into()))
    }

    /// Wakes the thread, or makes its next sleep end at once.
    pub fn wake(&self) {
        // The counter of an eventfd overflows only after 2^64 - 2 calls; then it is readable anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
