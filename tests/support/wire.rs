//! The other end of a vif's wire in a test's hands: it sees each frame that a guest sends with what is said of it, and sends
//! what it likes.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver, Sender};

use netback_sim::frame::{Frame, FrameBurst};
use netback_sim::Peer;
use netfront::Offload;

use crate::wait_for;

/// A frame with what is said of it.
pub type Said = (Vec<u8>, Offload);

/// The backend's end.
pub struct Wire {
    sent: Sender<Said>,
    given: Receiver<Said>,
    /// Found no room in the last burst.
    left: Option<Said>,
    /// Readable when something was given.
    bell: UnixStream,
}

/// The test's end.
pub struct WireEnd {
    sent: Receiver<Said>,
    given: Sender<Said>,
    bell: UnixStream,
}

/// Both ends of a wire.
///
/// # Panics
/// If the system has no descriptors left.
pub fn wire() -> (Wire, WireEnd) {
    let (bell, ear) = UnixStream::pair().expect("a pair of sockets");
    for end in [&bell, &ear] {
        end.set_nonblocking(true).expect("a setting of a socket");
    }
    let (sender, receiver) = channel();
    let (giver, taker) = channel();
    let backends = Wire {
        sent: sender,
        given: taker,
        left: None,
        bell: ear,
    };
    let tests = WireEnd {
        sent: receiver,
        given: giver,
        bell,
    };
    (backends, tests)
}

impl WireEnd {
    /// Sends a frame to the guest.
    ///
    /// # Panics
    /// If the backend is gone.
    pub fn send(&mut self, frame: &[u8], offload: Offload) {
        self.given
            .send((frame.to_vec(), offload))
            .expect("a backend");
        // Full is as loud.
        let _ = self.bell.write(&[1]);
    }

    /// The next frame of the guest's that is already there.
    pub fn received(&mut self) -> Option<Said> {
        self.sent.try_recv().ok()
    }

    /// Waits for the next frame of the guest's for which `wanted` is true; others are passed over.
    ///
    /// # Panics
    /// If none comes.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Said {
        wait_for(what, || {
            std::iter::from_fn(|| self.received()).find(|(frame, _)| wanted(frame))
        })
    }
}

impl Peer for Wire {
    fn receive(&mut self, frames: &mut [Frame<'_>], _: &mut FrameBurst) {
        for frame in frames {
            // A test that is over listens no more.
            let _ = self.sent.send((frame.bytes.to_vec(), frame.offload));
        }
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        let _ = self.bell.read(&mut [0; 64]);
        while let Some((frame, offload)) = self.left.take().or_else(|| self.given.try_recv().ok()) {
            if burst.space(frame.len()).is_none() {
                self.left = Some((frame, offload));
                break;
            }
            burst.push(&frame, offload);
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}
