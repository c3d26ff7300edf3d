//! Takes everything, verifies it, sends nothing.

use crate::frame::{Frame, FrameBurst};
use crate::peer::Peer;
use crate::traffic::{Counts, Verifier};

/// Verifies what comes, and makes nothing.
#[derive(Debug)]
pub struct Sink {
    verifier: Option<Verifier>,
}

impl Sink {
    /// Verifies every frame.
    pub fn new() -> Self {
        Sink {
            verifier: Some(Verifier::new()),
        }
    }

    /// Looks at nothing but the length: for measuring the way up to here.
    pub fn blind() -> Self {
        Sink { verifier: None }
    }

    pub(super) fn take(&mut self, frames: &[Frame<'_>]) {
        if let Some(verifier) = &mut self.verifier {
            for frame in frames {
                verifier.check(&[&*frame.bytes]);
            }
        }
    }
}

impl Default for Sink {
    fn default() -> Self {
        Sink::new()
    }
}

impl Peer for Sink {
    fn receive(&mut self, frames: &mut [Frame<'_>], _: &mut FrameBurst) {
        self.take(frames);
    }

    fn transmit(&mut self, _: &mut FrameBurst) {}

    fn verified(&self) -> Option<Counts> {
        self.verifier.as_ref().map(Verifier::counts)
    }
}
