//! Where packets go, and where those come from that are sent.
//!
//! | consumer | received packets | sent packets |
//! | --- | --- | --- |
//! | [`Tap`] | to the kernel's stack | from it |
//! | [`Echo`] | back to the sender, addresses swapped | - |
//! | [`Null`] | dropped | - |
//! | [`Capture`] | written to a pcap file, then to the consumer inside | as inside; not captured (see [`crate::watch`]) |
//!
//! A program's own consumer is a few lines, and [`serve`](crate::engine::serve) keeps its vif connected:
//!
//! ```no_run
//! use netfront::engine::{serve, Service};
//! use netfront::{Consumer, Device, Packet};
//!
//! /// Tells the type of every frame.
//! struct Types;
//!
//! impl Consumer for Types {
//!     fn deliver(&mut self, packet: &mut Packet<'_>) {
//!         println!("{:02x?}", packet.head().get(12..14));
//!     }
//! }
//!
//! # fn main() -> Result<(), netfront::Error> {
//! let domain = netfront::hypervisor::Domain::xen()?;
//! let device = Device::builder(0).connect(&domain)?;
//! // Until another thread calls `Service::stop`.
//! serve(device, &mut Types, &Service::default())
//! # }
//! ```

mod capture;
mod cut;
mod echo;
mod groups;
mod null;
mod tap;

use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use capture::{Capture, CaptureFile};
pub use echo::Echo;
pub use null::Null;
pub use tap::{Tap, TapCounters};

use crate::device::Link;
use crate::packet::Packet;
use crate::queue::Queue;
use crate::Error;

/// Takes packets from a queue, and may have some to send.
pub trait Consumer {
    /// The link came up, went down or changed. Called before the first packet.
    ///
    /// # Errors
    /// If the consumer cannot work on such a link.
    fn link(&mut self, link: &Link) -> Result<(), Error> {
        let _ = link;
        Ok(())
    }

    /// Of several consumers of a vif, one a queue (see [`crate::engine::serve_queues`]): whether this one has a queue in the connection
    /// that begins. Without one nothing else is called but [`Self::link`]; a source of packets must give it none then.
    ///
    /// # Errors
    /// If the consumer cannot do so.
    fn attend(&mut self, has_queue: bool) -> Result<(), Error> {
        let _ = has_queue;
        Ok(())
    }

    /// Takes one received packet. It is gone after the call, unless [`Packet::detach`]ed.
    fn deliver(&mut self, packet: &mut Packet<'_>);

    /// Packets that were delivered and wait for whoever takes them. From a number on
    /// ([`Limits::high`](crate::engine::pressure::Limits)) the next ones are left in the ring. A consumer that is done with a
    /// packet when [`Self::deliver`] returns has none: as long as it is not done the thread receives nothing, and the
    /// packets stay in the ring too.
    fn waiting(&self) -> usize {
        0
    }

    /// The batch is over: what was collected can be written.
    fn finish(&mut self) {}

    /// Sends up to `budget` packets. Returns how many; 0 means that there is nothing to send now.
    ///
    /// # Errors
    /// If the source of packets is gone.
    fn offer(&mut self, queue: &mut Queue, budget: usize) -> Result<usize, Error> {
        let _ = (queue, budget);
        Ok(0)
    }

    /// Asked before the thread sleeps: the longest time until [`Self::offer`] has to be called again, whatever comes meanwhile.
    /// `None`: when something comes.
    fn offers_within(&mut self) -> Option<Duration> {
        None
    }

    /// The vif is connected again, after a restore, a migration or a restart of its backend: tells the neighbours where
    /// this consumer's addresses are now, as with [`crate::announce::send`].
    fn announce(&mut self, queue: &mut Queue) {
        let _ = queue;
    }

    /// Readable when [`Self::offer`] has something.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl<C: Consumer + ?Sized> Consumer for Box<C> {
    fn link(&mut self, link: &Link) -> Result<(), Error> {
        (**self).link(link)
    }

    fn attend(&mut self, has_queue: bool) -> Result<(), Error> {
        (**self).attend(has_queue)
    }

    fn deliver(&mut self, packet: &mut Packet<'_>) {
        (**self).deliver(packet);
    }

    fn waiting(&self) -> usize {
        (**self).waiting()
    }

    fn finish(&mut self) {
        (**self).finish();
    }

    fn offer(&mut self, queue: &mut Queue, budget: usize) -> Result<usize, Error> {
        (**self).offer(queue, budget)
    }

    fn offers_within(&mut self) -> Option<Duration> {
        (**self).offers_within()
    }

    fn announce(&mut self, queue: &mut Queue) {
        (**self).announce(queue);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).fd()
    }
}
