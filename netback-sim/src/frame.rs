//! Frames on their way between guest and peer, in the buffers from and into which they are copied.

use arrayvec::ArrayVec;
use hypervisor::LocalBuffer;
use xen_ring::Offload;

/// The most frames in a batch: enough to share one copy call and one notification, few enough to
/// stay in the cache.
pub const BATCH: usize = 32;
/// Room for the largest frame, with some to spare for a frame that a TAP pads.
pub const FRAME_ROOM: usize = 65_536 + 64;
/// Bytes in a buffer: several of the largest frames, or a batch of any others.
pub(crate) const BUFFER_SIZE: usize = 5 * FRAME_ROOM;
/// Frames begin at cache lines, one behind the other, so that their headers do not all fall into
/// the same cache set.
pub(crate) const LINE: usize = 64;

/// A frame that came from the guest. The bytes are ours: the guest cannot change them any more.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The whole frame. A peer may change it in place.
    pub bytes: &'a mut [u8],
    /// What the guest said about it.
    pub offload: Offload,
}

/// Where one frame lies in the burst's buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) offload: Offload,
}

/// Up to [`BATCH`] frames on their way to the guest. A peer writes them right into the buffer from
/// which they are copied into the guest's pages, so there is one copy in all.
#[derive(Debug)]
pub struct FrameBurst {
    pub(crate) buffer: LocalBuffer,
    pub(crate) spots: ArrayVec<Spot, BATCH>,
    /// The first frame that the guest has not got yet.
    pub(crate) next: usize,
    used: usize,
}

impl FrameBurst {
    /// An empty burst.
    ///
    /// # Errors
    /// When the system has no memory for the buffer.
    pub fn new() -> Result<Self, hypervisor::Error> {
        Ok(FrameBurst {
            buffer: LocalBuffer::new(BUFFER_SIZE)?,
            spots: ArrayVec::new(),
            next: 0,
            used: 0,
        })
    }

    /// Frames in it.
    pub fn len(&self) -> usize {
        self.spots.len()
    }

    /// There is no frame in it.
    pub fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }

    /// Space for one more frame of up to `len` bytes; None when there is none. Write the frame to
    /// its start, then [`commit`](Self::commit) it, or ask again to write another one instead.
    #[inline]
    pub fn space(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.spots.is_full() {
            return None;
        }
        self.buffer.as_mut_slice()[self.used..].get_mut(..len)
    }

    /// Takes the frame of `len` bytes that was written to [`space`](Self::space) into the burst.
    /// False when there is no such space, or the frame is too short or too long for netif.
    #[inline]
    pub fn commit(&mut self, len: usize, offload: Offload) -> bool {
        let fits = self.used + len <= self.buffer.len() && !self.spots.is_full();
        // Ethernet needs 14 bytes; the size of a packet has 16 bits.
        if !fits || !(14..=0xffff).contains(&len) {
            return false;
        }
        self.spots.push(Spot {
            at: self.used,
            len,
            offload,
        });
        self.used = (self.used + len)
            .next_multiple_of(LINE)
            .min(self.buffer.len());
        true
    }

    /// Copies a frame into the burst; false when there is no room for it.
    #[inline]
    pub fn push(&mut self, frame: &[u8], offload: Offload) -> bool {
        match self.space(frame.len()) {
            Some(space) => space.copy_from_slice(frame),
            None => return false,
        }
        self.commit(frame.len(), offload)
    }

    /// The frame with this index, and what is said about it.
    pub fn frame(&self, index: usize) -> Option<(&[u8], Offload)> {
        let spot = self.spots.get(index)?;
        let bytes = self.buffer.as_slice().get(spot.at..spot.at + spot.len)?;
        Some((bytes, spot.offload))
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.spots.clear();
        self.next = 0;
        self.used = 0;
    }
}
