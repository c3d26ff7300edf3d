//! A network frontend for Xen guests in user space, built around a pool of pages granted once.
//!
//! # The life of a received packet
//!
//! 1. [`pool`]: pages are granted once, for good, to the driver domain, zeroed.
//! 2. [`queue`]: a page is taken from the pool and its reference posted in the receive ring.
//! 3. The backend copies a packet into it, puts a response in the slot, and signals if it was asked to.
//! 4. The queue reads the response out of shared memory once; package `xen-ring` judges what it says.
//! 5. A small packet (below the threshold) is copied out. Of a large one the headers are copied, and its
//!    pages are chained, uncopied: a [`Packet`].
//! 6. [`consumer`]: the packet is lent to the consumer: a TAP, a capture, a program. [`Packet::detach`] takes
//!    it away; its pages are leases then.
//! 7. The pages go back to the pool, at once or when the last lease is dropped, and are posted again.
//!
//! A packet that is sent goes the other way: copied, or read from a TAP, into pages granted read-only.
//!
//! # Rooms
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`connection`] | the store: both sides' states, what is offered and asked for |
//! | [`control`] | the control ring: which pages the backend keeps mapped |
//! | [`device`] | a connected vif, and the control thread that watches it |
//! | [`pool`] | granted pages: where each is, growth, policies |
//! | [`queue`] | the rings with their pages and event channels, owned by one thread |
//! | [`packet`] | the received packet, lent or owned |
//! | [`offload`] | checksum and segmentation state to virtio-net headers and back |
//! | [`engine`] | who polls what, for how long |
//! | [`consumer`] | where packets go |
//! | [`stats`] | every counter |
//! | [`watch`] | captures and traces of a running queue |
//!
//! ```no_run
//! use std::time::Duration;
//! use netfront::{Device, Wake};
//!
//! # fn main() -> Result<(), netfront::Error> {
//! let xen = netfront::hypervisor::Domain::xen()?;
//! let mut device = Device::builder(0).connect(&xen)?;
//! loop {
//!     let queue = device.queue();
//!     queue.receive(64, |packet| println!("{} bytes", packet.len()))?;
//!     queue.flush()?;
//!     if queue.wait(Duration::from_secs(1))? == Wake::Called && device.change().is_some() {
//!         return device.close();
//!     }
//! }
//! # }
//! ```
#![deny(unsafe_code)]

pub mod connection;
pub mod consumer;
pub mod control;
pub mod device;
pub mod engine;
mod error;
pub mod offload;
pub mod packet;
pub mod pool;
pub mod queue;
pub mod stats;
mod waker;
pub mod watch;

pub use connection::{Change, Features, Wants};
pub use consumer::Consumer;
pub use device::{Builder, Device, Link, Reconnect};
pub use error::{Error, SendError};
pub use hypervisor;
pub use packet::{OwnedPacket, Packet};
pub use pool::{Lease, PoolPolicy};
pub use queue::{Queue, QueueConfig, Wake};
pub use stats::QueueStats;
pub use waker::Waker;
pub use xen_ring::{Checksum, Corrupt, Gso, GsoKind, Offload};
