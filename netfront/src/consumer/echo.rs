//! A consumer that sends every packet back, with the Ethernet addresses swapped.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use super::Consumer;
use crate::device::Link;
use crate::packet::{OwnedPacket, Packet, MAX_FRAGMENTS};
use crate::pool::Lease;
use crate::queue::Queue;
use crate::{Error, SendError};

/// Packets that may wait for room in the transmit ring; more are dropped.
const WAITING: usize = 256;

/// Sends every packet back to where it came from.
#[derive(Debug)]
pub struct Echo {
    waiting: VecDeque<OwnedPacket>,
    /// Packets dropped by itself: more waited than there is room for, which back-pressure prevents, they were too short to be
    /// turned around, or the connection ended. What is dropped because the transmit ring was full for too long is `engine_dropped`.
    pub dropped: u64,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            waiting: VecDeque::with_capacity(WAITING),
            dropped: 0,
        }
    }
}

impl Consumer for Echo {
    fn link(&mut self, link: &Link) -> Result<(), Error> {
        if !link.carrier {
            // The pages of a dead connection stay granted as long as a packet holds them: the next one
            // would find the limit reached.
            self.dropped += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }

    fn deliver(&mut self, packet: &mut Packet<'_>) {
        if self.waiting.len() < WAITING && packet.head().len() >= 14 {
            self.waiting.push_back(packet.detach());
        } else {
            self.dropped += 1;
        }
    }

    /// While the backend does not take what is sent back, the next packets stay in its own ring.
    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn offer(&mut self, queue: &mut Queue, budget: usize) -> Result<usize, Error> {
        let mut sent = 0;
        while sent < budget {
            let Some(packet) = self.waiting.front() else {
                break;
            };
            match send_back(packet, queue) {
                Err(SendError::Full) => break,
                Err(SendError::Length(_)) => self.dropped += 1,
                Ok(()) => sent += 1,
            }
            self.waiting.pop_front();
        }
        Ok(sent)
    }
}

fn send_back(packet: &OwnedPacket, queue: &mut Queue) -> Result<(), SendError> {
    let head = packet.head();
    let mut addresses = [0; 12];
    addresses[..6].copy_from_slice(&head[6..12]);
    addresses[6..].copy_from_slice(&head[..6]);
    let mut slices = ArrayVec::<&[u8], { MAX_FRAGMENTS + 2 }>::new();
    slices.extend([&addresses[..], &head[12..]]);
    slices.extend(packet.fragments().iter().map(Lease::as_slice));
    queue.send(&slices, packet.offload())
}
