//! Frames of the TAP that are larger than the backend takes: cut in software, piece by piece as the ring has room.
//!
//! The TAP is told what the backend can cut, so this is for what was in its queue when the backend changed.

use xen_ring::{Gso, Offload};

use crate::offload::{NotSegments, Segments};
use crate::queue::Queue;
use crate::SendError;

/// One large frame on its way.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The frame; the room stays for the next one.
    frame: Vec<u8>,
    segments: Option<Segments>,
}

impl Cut {
    /// Takes a frame, given in pages of which it fills the first `len` bytes.
    pub fn take<'p>(
        &mut self,
        pages: impl Iterator<Item = &'p [u8]>,
        len: usize,
        gso: Gso,
    ) -> Result<(), NotSegments> {
        self.frame.clear();
        for page in pages {
            let left = len - self.frame.len();
            self.frame.extend_from_slice(&page[..left.min(page.len())]);
        }
        self.segments = Some(Segments::new(&self.frame, gso)?);
        Ok(())
    }

    /// Sends what is left of the frame, up to `budget` pieces. Returns how many; what finds no room waits.
    pub fn send(&mut self, queue: &mut Queue, budget: usize) -> usize {
        let mut sent = 0;
        while let Some(segments) = self.segments.as_mut().filter(|_| sent < budget) {
            let mut next = segments.clone();
            let Some(piece) = next.next(&self.frame) else {
                self.segments = None;
                break;
            };
            let payload = &self.frame[piece.payload.clone()];
            match queue.send(&[piece.headers(), payload], Offload::default()) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => break,
                // Counted by the queue; the others are not better for waiting.
                Err(_) => {}
            }
            *segments = next;
        }
        sent
    }

    /// Nothing waits to be sent.
    pub fn is_done(&self) -> bool {
        self.segments.is_none()
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests;
