//! What is done with packets: the program's side of the cores.

use crossbeam_queue::ArrayQueue;

use super::counters::WorkerStats;
use crate::engine::steering::{Connection, ReversePath};
use crate::packet::{OwnedPacket, Packet};
use crate::Offload;

/// Where a packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The number of its queue.
    pub queue: usize,
    /// What it belongs to, for a worker; an event core that works on packets itself does not look
    /// ([`Connection::of`] does). `None` also for what is no IP.
    pub connection: Option<Connection>,
}

/// What is done with packets. Each worker has one; without workers each event core.
pub trait Work: Send {
    /// Works on a packet. Those of one connection come one after the other, in their order.
    fn work(&mut self, packet: OwnedPacket, origin: &Origin, desk: &mut Desk<'_>);

    /// Works on a packet in the event core that received it, where there are no workers. It is lent: to keep it,
    /// [`Packet::detach`] it, as this does unless it is written otherwise.
    fn deliver(&mut self, packet: &mut Packet<'_>, origin: &Origin, desk: &mut Desk<'_>) {
        self.work(packet.detach(), origin, desk);
    }

    /// The packets of a turn have been worked on.
    fn finish(&mut self, desk: &mut Desk<'_>) {
        let _ = desk;
    }

    /// Packets that were worked on and wait for whoever takes them. Without workers, from a number on
    /// ([`Limits::high`](crate::engine::pressure::Limits)) the next ones are left in the ring. A worker that is behind
    /// simply does not return.
    fn waiting(&self) -> usize {
        0
    }
}

/// A frame to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// By which queue.
    pub queue: usize,
    /// From the Ethernet header on, without FCS. In a buffer of [`Desk::buffer`] they cost no allocation.
    pub bytes: Vec<u8>,
    /// What is not in the bytes.
    pub offload: Offload,
}

/// Takes frames to be sent, from a [`Work`].
///
/// Of a worker they go to the event core that has the queue, which alone may touch its ring (K-13). One that finds the ring
/// full is dropped, and counted, as a network does.
#[derive(Debug)]
pub struct Desk<'d> {
    way: Way<'d>,
    buffers: &'d Buffers,
}

#[derive(Debug)]
enum Way<'d> {
    /// The queue that is being received from: its frames are sent after the visit.
    Here(&'d mut Vec<Frame>, usize),
    Back(&'d mut ReversePath<Frame>, &'d WorkerStats),
}

impl<'d> Desk<'d> {
    pub(super) fn here(frames: &'d mut Vec<Frame>, queue: usize, buffers: &'d Buffers) -> Self {
        let way = Way::Here(frames, queue);
        Self { way, buffers }
    }

    pub(super) fn worker(
        back: &'d mut ReversePath<Frame>,
        stats: &'d WorkerStats,
        buffers: &'d Buffers,
    ) -> Self {
        let way = Way::Back(back, stats);
        Self { way, buffers }
    }

    /// An empty buffer for [`Frame::bytes`]: that of a frame which was sent, if there is one, so that in the long run none is
    /// allocated.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.buffers.take()
    }

    /// Sends a frame that is given in pieces, without an allocation in the long run.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_slices(
        &mut self,
        queue: usize,
        slices: &[&[u8]],
        offload: Offload,
    ) -> Result<(), Frame> {
        let mut bytes = self.buffer();
        slices
            .iter()
            .for_each(|slice| bytes.extend_from_slice(slice));
        self.send(Frame {
            queue,
            bytes,
            offload,
        })
    }

    /// Sends a frame, soon.
    ///
    /// # Errors
    /// The frame: there is no such queue, the way back is full, or, without workers, it is another queue than that of the
    /// packet.
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        match &mut self.way {
            Way::Here(frames, queue) if frame.queue == *queue => {
                frames.push(frame);
                Ok(())
            }
            Way::Here(..) => Err(frame),
            Way::Back(back, stats) => match back.send(frame.queue, frame) {
                Ok(_) => {
                    stats.frames.add(1);
                    Ok(())
                }
                Err(frame) => {
                    stats.frames_refused.add(1);
                    Err(frame)
                }
            },
        }
    }
}

/// Buffers of frames that were sent, for the next ones. Threads meet here once a frame, without a lock. Each stays as large as the
/// largest frame that it held.
#[derive(Debug)]
pub(super) struct Buffers(ArrayQueue<Vec<u8>>);

impl Buffers {
    /// For so many at most; those beyond are freed.
    pub fn new(most: usize) -> Self {
        Self(ArrayQueue::new(most.max(1)))
    }

    /// That of a frame which was sent, emptied; a new one if there is none.
    pub fn take(&self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// The frame was sent.
    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let _ = self.0.push(buffer);
    }
}

/// A packet on its way from an event core to a worker.
#[derive(Debug)]
pub(super) struct Arrived {
    pub queue: usize,
    /// Its number among those of its queue.
    pub number: u64,
    /// It came after a later one of its queue, as its worker has seen when it took it.
    pub is_late: bool,
    pub packet: OwnedPacket,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_a_frame_that_was_sent_is_that_of_the_next() {
        let buffers = Buffers::new(1);
        let mut frames = Vec::new();
        let mut desk = Desk::here(&mut frames, 0, &buffers);
        desk.send_slices(0, &[&[1; 60], &[2; 40]], Offload::default())
            .expect("its own queue");
        let refused = desk.send_slices(1, &[&[3; 60]], Offload::default());
        assert_eq!(refused.expect_err("another queue").queue, 1);
        let sent = frames.pop().expect("a frame").bytes;
        assert_eq!((sent.len(), sent[0], sent[60]), (100, 1, 2));
        let place = sent.as_ptr();
        buffers.give(sent);
        buffers.give(vec![0; 9]);
        let mut desk = Desk::here(&mut frames, 0, &buffers);
        let buffer = desk.buffer();
        assert!(buffer.is_empty());
        assert_eq!(buffer.as_ptr(), place);
        assert_eq!(desk.buffer().capacity(), 0, "there is room for one");
    }
}
