//! Sends back what comes, to whom it came from.

use crate::frame::{Frame, FrameBurst};
use crate::peer::Peer;

/// Sends every frame back with its MAC addresses swapped, and with what was said about it.
#[derive(Debug, Default)]
pub struct Echo {
    dropped: u64,
}

impl Echo {
    /// A new one.
    pub fn new() -> Self {
        Echo::default()
    }
}

impl Peer for Echo {
    fn receive(&mut self, frames: &mut [Frame<'_>], reply: &mut FrameBurst) {
        for frame in frames {
            // Frames have 14 bytes at least; the ring sees to that.
            if let Some((destination, rest)) = frame.bytes.split_at_mut_checked(6) {
                if let Some(source) = rest.get_mut(..6) {
                    destination.swap_with_slice(source);
                }
            }
            if !reply.push(frame.bytes, frame.offload) {
                self.dropped += 1;
            }
        }
    }

    fn transmit(&mut self, _: &mut FrameBurst) {}

    fn replies(&self) -> bool {
        true
    }

    fn dropped(&self) -> u64 {
        self.dropped
    }
}
