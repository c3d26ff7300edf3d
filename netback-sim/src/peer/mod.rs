//! Who is at the other end of the vif's wire: takes frames from the guest, makes frames for it.
//!
//! | peer | takes | makes |
//! | --- | --- | --- |
//! | [`Sink`] | verifies and forgets | nothing |
//! | [`Source`] | as the sink | verifiable frames |
//! | [`Echo`] | | what it took, with the MAC addresses swapped |
//! | [`Replay`] | as the sink | frames of a capture file |
//! | [`TapPeer`] | writes to a TAP | reads from it |
//! | [`Capture`] | writes to a file what another peer takes and makes | |

mod capture;
mod echo;
mod replay;
mod sink;
mod source;
mod tap;

use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::features::FrontFeatures;
use crate::frame::{Frame, FrameBurst};
use crate::traffic;

pub use capture::Capture;
pub use echo::Echo;
pub use replay::{Replay, ReplayError};
pub use sink::Sink;
pub use source::{Pace, Source};
pub use tap::TapPeer;

/// The other end of the wire. Called by the vif's one thread, a batch at a time; no method may
/// block.
pub trait Peer: Send {
    /// Takes a batch of frames from the guest. Answers that fit may be put into `reply`.
    fn receive(&mut self, frames: &mut [Frame<'_>], reply: &mut FrameBurst);

    /// Puts frames for the guest into an empty burst, as many as it has and fit.
    fn transmit(&mut self, burst: &mut FrameBurst);

    /// Readable when [`Peer::transmit`] has something.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When [`Peer::transmit`] will have something, if time is what it waits for.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// [`Peer::receive`] uses `reply`: then the guest's frames are taken only while the burst is
    /// empty, so that no answer is lost for want of room.
    fn replies(&self) -> bool {
        false
    }

    /// The guest is there, and this is what it can take.
    fn connected(&mut self, features: &FrontFeatures) {
        let _ = features;
    }

    /// The guest is gone.
    fn disconnected(&mut self) {}

    /// What was found out about the frames from the guest, by peers that look at them.
    fn verified(&self) -> Option<traffic::Counts> {
        None
    }

    /// It has made all the frames that it was to make.
    fn finished(&self) -> bool {
        false
    }

    /// Frames that were dropped here, for want of room or because nobody took them.
    fn dropped(&self) -> u64 {
        0
    }
}

impl Peer for Box<dyn Peer> {
    fn receive(&mut self, frames: &mut [Frame<'_>], reply: &mut FrameBurst) {
        (**self).receive(frames, reply);
    }
    fn transmit(&mut self, burst: &mut FrameBurst) {
        (**self).transmit(burst);
    }
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).fd()
    }
    fn due(&self) -> Option<Instant> {
        (**self).due()
    }
    fn replies(&self) -> bool {
        (**self).replies()
    }
    fn connected(&mut self, features: &FrontFeatures) {
        (**self).connected(features);
    }
    fn disconnected(&mut self) {
        (**self).disconnected();
    }
    fn verified(&self) -> Option<traffic::Counts> {
        (**self).verified()
    }
    fn finished(&self) -> bool {
        (**self).finished()
    }
    fn dropped(&self) -> u64 {
        (**self).dropped()
    }
}
