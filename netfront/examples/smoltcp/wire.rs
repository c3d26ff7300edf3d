//! A queue of the driver as a device of smoltcp.

use std::collections::VecDeque;

use netfront::{Device, Error, Offload, Queue};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Packets of one batch.
const BATCH: usize = 64;
const ETHERNET_HEADER: usize = 14;

/// Received packets that wait for the stack. They outlive a connection to the backend, as the stack does.
pub type Waiting = VecDeque<Vec<u8>>;

/// The vif, lent to the stack for one turn.
pub struct Wire<'a> {
    mtu: usize,
    queue: &'a mut Queue,
    waiting: &'a mut Waiting,
}

impl<'a> Wire<'a> {
    /// Receives a batch and lends the queue.
    pub fn new(device: &'a mut Device, waiting: &'a mut Waiting) -> Result<Self, Error> {
        let mtu = device.link().mtu as usize;
        let queue = device.queue();
        // The stack takes a packet in one piece, so one that lies in pieces is copied together. A stack that
        // takes pieces could keep `packet.detach()` here, uncopied.
        queue.receive(BATCH, |packet| {
            waiting.push_back(packet.slices().flatten().copied().collect());
        })?;
        queue.reclaim()?;
        Ok(Self {
            mtu,
            queue,
            waiting,
        })
    }
}

impl phy::Device for Wire<'_> {
    type RxToken<'t>
        = Received
    where
        Self: 't;
    type TxToken<'t>
        = Free<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received, Free<'_>)> {
        // A packet may need an answer: without room for one it waits (back-pressure).
        if !self.queue.can_send() {
            return None;
        }
        let packet = Received(self.waiting.pop_front()?);
        Some((packet, Free(self.queue)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Free<'_>> {
        self.queue.can_send().then_some(Free(self.queue))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // Checksums stay with the stack: blank ones and large segments were not asked for.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER;
        capabilities.max_burst_size = Some(BATCH);
        capabilities
    }
}

/// A received packet.
pub struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// Room for a packet to send.
pub struct Free<'q>(&'q mut Queue);

impl phy::TxToken for Free<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, make: F) -> R {
        let mut packet = vec![0; len];
        let made = make(&mut packet);
        // What finds no room is lost, as on any wire; TCP sends it again.
        let _ = self.0.send(&[&packet], Offload::default());
        made
    }
}
