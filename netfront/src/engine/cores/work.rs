//! What is done with packets: the program's side of the cores.

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
    /// From the Ethernet header on, without FCS.
    pub bytes: Vec<u8>,
    /// What is not in the bytes.
    pub offload: Offload,
}

/// Takes frames to be sent, from a [`Work`].
///
/// Of a worker they go to the event core that has the queue, which alone may touch its ring (K-13). One that finds the ring
/// full is dropped, and counted, as a network does.
#[derive(Debug)]
pub struct Desk<'d>(Way<'d>);

#[derive(Debug)]
enum Way<'d> {
    /// The queue that is being received from: its frames are sent after the visit.
    Here(&'d mut Vec<Frame>, usize),
    Back(&'d mut ReversePath<Frame>, &'d WorkerStats),
}

impl<'d> Desk<'d> {
    pub(super) fn here(frames: &'d mut Vec<Frame>, queue: usize) -> Self {
        Self(Way::Here(frames, queue))
    }

    pub(super) fn worker(back: &'d mut ReversePath<Frame>, stats: &'d WorkerStats) -> Self {
        Self(Way::Back(back, stats))
    }

    /// Sends a frame, soon.
    ///
    /// # Errors
    /// The frame: there is no such queue, the way back is full, or, without workers, it is another queue than that of the
    /// packet.
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        match &mut self.0 {
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

/// A packet on its way from an event core to a worker.
#[derive(Debug)]
pub(super) struct Arrived {
    pub queue: usize,
    /// Its number among those of its queue.
    pub number: u64,
    pub packet: OwnedPacket,
}
