//! What a backend does not do for a packet is done here before it is sent there: a large segment is cut, a blank checksum
//! filled in. Whoever forwards packets of another backend needs it, since the two may differ.

use arrayvec::ArrayVec;
use netfront::offload::{fill_checksum, takes_blank, takes_segments, to_vnet, Segments};
use netfront::packet::MAX_FRAGMENTS;
use netfront::{Checksum, Features, Offload, Queue, SendError};

/// What became of a packet.
pub enum Sent {
    /// It is in the ring, or its pieces will be: [`Finisher::go_on`].
    Gone,
    /// It is too long, or not what is said of it.
    Dropped,
    /// The ring is full: the same packet is to be sent again.
    NoRoom,
}

/// Sends packets to one queue, finished as far as its backend needs it.
#[derive(Default)]
pub struct Finisher {
    /// A packet that is being changed, in one piece. The room stays for the next one.
    whole: Vec<u8>,
    /// How far it is cut.
    segments: Option<Segments>,
}

impl Finisher {
    /// Sends a packet, given in slices, the first of which holds its headers. Not to be called while pieces of an earlier one wait.
    pub fn send<'p>(
        &mut self,
        out: &mut Queue,
        features: &Features,
        slices: impl Iterator<Item = &'p [u8]>,
        offload: Offload,
    ) -> Sent {
        let slices: ArrayVec<&[u8], { MAX_FRAGMENTS + 1 }> = slices.collect();
        // A hash is between a backend and its frontend: the other has not asked for one.
        let offload = Offload {
            hash: None,
            ..offload
        };
        let head = slices.first().copied().unwrap_or_default();
        // To fill it in, its place has to be known.
        let Ok(vnet) = to_vnet(&offload, head) else {
            return Sent::Dropped;
        };
        let finds = offload.checksum != Checksum::Blank || takes_blank(features, &vnet, head);
        let large = offload.gso;
        if let Some(gso) = large.filter(|gso| !finds || !takes_segments(features, gso.kind)) {
            self.take(&slices);
            self.segments = Segments::new(&self.whole, gso).ok();
            if self.segments.is_none() {
                return Sent::Dropped;
            }
            self.go_on(out);
            return Sent::Gone;
        }
        if finds {
            return sent(out.send(&slices, offload));
        }
        self.take(&slices);
        let (start, offset) = (vnet.csum_start.into(), vnet.csum_offset.into());
        let len = self.whole.len();
        fill_checksum(&mut [&mut self.whole[..]], len, start, offset);
        let filled = Offload {
            checksum: Checksum::None,
            ..offload
        };
        sent(out.send(&[&self.whole], filled))
    }

    fn take(&mut self, slices: &[&[u8]]) {
        self.whole.clear();
        slices
            .iter()
            .for_each(|slice| self.whole.extend_from_slice(slice));
    }

    /// Sends what is left of a packet that is cut, as far as there is room. True when nothing waits any more.
    pub fn go_on(&mut self, out: &mut Queue) -> bool {
        while let Some(segments) = &mut self.segments {
            let mut next = segments.clone();
            let Some(piece) = next.next(&self.whole) else {
                self.segments = None;
                break;
            };
            let payload = &self.whole[piece.payload.clone()];
            match out.send(&[piece.headers(), payload], Offload::default()) {
                Err(SendError::Full) => return false,
                // One that is too long is counted by the queue; the others are not better for waiting.
                Ok(()) | Err(SendError::Length(_)) => *segments = next,
            }
        }
        true
    }

    /// Pieces of a packet wait for room.
    pub fn is_waiting(&self) -> bool {
        self.segments.is_some()
    }
}

fn sent(result: Result<(), SendError>) -> Sent {
    match result {
        Ok(()) => Sent::Gone,
        Err(SendError::Full) => Sent::NoRoom,
        Err(SendError::Length(_)) => Sent::Dropped,
    }
}
