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
//! | [`announce`] | telling the neighbours where an address is now |
//! | [`stats`] | every counter |
//! | [`watch`] | captures and traces of a running queue |
//!
//! # Receiving
//!
//! The thread that connects owns the queue, and with it the vif: no lock is taken, and there is nothing to share.
//! Its loop is the same in every program:
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
//!
//! [`Queue::receive`] takes a batch, [`Queue::flush`] posts the pages for the next one with at most one event, and
//! [`Queue::wait`] sleeps without losing a wake-up: it asks for an event, looks once more, and only then sleeps.
//! A thread with a poll of its own does these three by itself: [`Queue::arm`], [`Queue::event_fd`],
//! [`Queue::woken`].
//!
//! Who has a [`Consumer`] instead of a loop leaves all of this, reconnects included, to [`engine::serve`].
//!
//! # Several queues
//!
//! [`Builder::queues`] asks for more than one, each for a thread of its own; the backend and the limit of shared pages may
//! allow fewer, as [`Link::queues`] tells. [`engine::serve_queues`] starts the threads, with a consumer each:
//!
//! ```no_run
//! use netfront::consumer::{Consumer, Echo};
//! use netfront::engine::{serve_queues, Service};
//! use netfront::Device;
//!
//! # fn main() -> Result<(), netfront::Error> {
//! let xen = netfront::hypervisor::Domain::xen()?;
//! let device = Device::builder(0).queues(2).connect(&xen)?;
//! let mut others: Vec<Box<dyn Consumer + Send>> = vec![Box::new(Echo::default())];
//! serve_queues(device, &mut Echo::default(), &mut others, &Service::default())
//! # }
//! ```
//!
//! A program with threads of its own gives them the queues that [`Device::take_queues`] hands out.
//!
//! # Without Xen
//!
//! Nothing but the domain differs on the simulated Xen (feature `sim`), on any Linux machine, as a user. It can be in
//! the same process, for tests, with a backend of the crate `netback-sim`; the examples below stand on it:
//!
//! ```
//! use netback_sim::{peer, Backend, Config};
//! use netfront::hypervisor::{sim::server, DomId, Domain};
//! use netfront::Device;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let socket = dir.path().join("xen");
//! let _xen = server::spawn(&socket, server::Options::new())?;
//! // Domain 0 has a backend for the first vif of domain 1, which sends back what comes.
//! let driver_domain = Domain::simulated(&socket, DomId(0))?;
//! let backend = Backend::start(&driver_domain, Config::new(DomId(1), peer::Echo::new()))?;
//!
//! let domain = Domain::simulated(&socket, DomId(1))?;
//! let device = Device::builder(0).connect(&domain)?;
//! assert_eq!(device.link().mtu, 1500);
//! device.close()?;
//! # drop(backend);
//! # Ok(())
//! # }
//! ```
//!
//! # Sending
//!
//! [`Queue::send`] copies a packet, given in slices, into pages that the backend may only read, and
//! [`Queue::send_filled`] has it written there by the caller. Neither shows the backend anything: that is
//! [`Queue::flush`], once a batch. A full ring is no error but back-pressure: flush, take back what was answered,
//! wait, and try again. A packet is sent when it is answered; until then its pages are the backend's.
//!
//! ```
//! use netfront::{Device, Offload, SendError};
//! # use std::time::Duration;
//! # use netfront::hypervisor::{sim::server, DomId, Domain};
//! # use netback_sim::{peer, Backend, Config};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let socket = dir.path().join("xen");
//! # let _xen = server::spawn(&socket, server::Options::new())?;
//! # let driver_domain = Domain::simulated(&socket, DomId(0))?;
//! # let backend = Backend::start(&driver_domain, Config::new(DomId(1), peer::Sink::blind()))?;
//! # let domain = Domain::simulated(&socket, DomId(1))?;
//!
//! let mut device = Device::builder(0).connect(&domain)?;
//! // To everybody, from us, of a type for experiments.
//! let header = [&[0xff; 6][..], &device.link().mac, &[0x88, 0xb5]].concat();
//! let queue = device.queue();
//! for number in 0..1000u64 {
//!     let frame: [&[u8]; 3] = [&header, &number.to_be_bytes(), &[0; 38]];
//!     while let Err(error) = queue.send(&frame, Offload::default()) {
//!         // The other error is a length that no packet has.
//!         assert_eq!(error, SendError::Full);
//!         queue.flush()?;
//!         if queue.reclaim()? == 0 {
//!             queue.wait(Duration::from_secs(1))?;
//!         }
//!     }
//! }
//! queue.flush()?;
//! while queue.unanswered() > 0 {
//!     if queue.reclaim()? == 0 {
//!         queue.wait(Duration::from_secs(1))?;
//!     }
//! }
//! assert_eq!(queue.stats().tx_packets.get(), 1000);
//! # device.close()?;
//! # assert_eq!(backend.stop()?.counters.tx_packets, 1000);
//! # Ok(())
//! # }
//! ```
//!
//! [`Offload`] says what is not in the bytes: a checksum that is still to be filled in, a packet that stands for many
//! segments. Send such only if [`Link::features`] says that the backend takes it, and ask for such with [`Wants`]
//! only if you can take it.
//!
//! # Keeping packets
//!
//! A [`Packet`] is lent: after the closure its pages go back into the ring. [`Packet::detach`] keeps it, as an
//! [`OwnedPacket`] that may go to any thread. The pages of a large packet go along uncopied; each is a [`Lease`], and
//! returns to the pool when it is dropped, wherever that is. A program that keeps more packets than the pool has
//! pages for gets copies from then on, so it cannot stop the vif.
//!
//! ```
//! use netfront::{Device, Offload};
//! # use std::time::Duration;
//! # use netfront::hypervisor::{sim::server, DomId, Domain};
//! # use netback_sim::{peer, Backend, Config};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let socket = dir.path().join("xen");
//! # let _xen = server::spawn(&socket, server::Options::new())?;
//! # let driver_domain = Domain::simulated(&socket, DomId(0))?;
//! # let backend = Backend::start(&driver_domain, Config::new(DomId(1), peer::Echo::new()))?;
//! # let domain = Domain::simulated(&socket, DomId(1))?;
//!
//! let mut device = Device::builder(0).connect(&domain)?;
//! let frame = [&[2; 6][..], &device.link().mac, &[0x88, 0xb5], &[7; 1486]].concat();
//! device.queue().send(&[&frame], Offload::default())?;
//!
//! let (give, take) = std::sync::mpsc::channel::<netfront::OwnedPacket>();
//! let worker = std::thread::spawn(move || {
//!     let packet = take.recv().expect("a packet");
//!     // The headers were copied, the rest is where the backend put it.
//!     assert_eq!((packet.head().len(), packet.fragments().len()), (128, 1));
//!     packet.to_vec()
//! });
//! let mut kept = 0;
//! while kept == 0 {
//!     let queue = device.queue();
//!     queue.flush()?;
//!     queue.wait(Duration::from_secs(1))?;
//!     kept = queue.receive(64, |packet| give.send(packet.detach()).expect("a worker"))?;
//! }
//! let echoed = worker.join().expect("a packet");
//! assert_eq!(echoed[12..], frame[12..]);
//! # device.close()?;
//! # drop(backend);
//! # Ok(())
//! # }
//! ```
//!
//! # After a reconnect
//!
//! A backend may leave (its domain restarts, its module is loaded anew) and the domain may be restored or migrated.
//! [`Device::change`] says so, and wakes a wait; calls of the queue may fail first. Then everything is negotiated anew,
//! by [`Device::reconnect`], as often as it takes:
//!
//! - The MAC, the MTU and the backend's features may be others: ask [`Device::link`] again.
//! - Packets in the rings are lost, as on a wire. Kept packets stay good, but their pages stay granted until they are
//!   dropped, and count against the limit of grants: the new pool may be smaller for them.
//! - [`Device::queue`], [`Queue::waker`] and [`Queue::event_fd`] are new ones. The counters go on.
//!
//! ```
//! use netfront::{Change, Device};
//! # use std::time::Duration;
//! # use netfront::hypervisor::{sim::server, DomId, Domain};
//! # use netback_sim::{peer, Backend, Config};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let socket = dir.path().join("xen");
//! # let _xen = server::spawn(&socket, server::Options::new())?;
//! # let driver_domain = Domain::simulated(&socket, DomId(0))?;
//! # let backend = Backend::start(&driver_domain, Config::new(DomId(1), peer::Echo::new()))?;
//! # let domain = Domain::simulated(&socket, DomId(1))?;
//!
//! let mut device = Device::builder(0).connect(&domain)?;
//! # let stopping = std::thread::spawn(move || backend.stop());
//! // The backend is stopped, and another one started.
//! let change = loop {
//!     device.queue().wait(Duration::from_secs(1))?;
//!     if let Some(change) = device.change() {
//!         break change;
//!     }
//! };
//! assert!(matches!(change, Change::BackendLeft(_)));
//! let mut pending = device.disconnect();
//! # stopping.join().expect("stopped")?;
//! # let backend = Backend::start(&driver_domain, Config::new(DomId(1), peer::Echo::new()))?;
//! let device = loop {
//!     match pending.retry() {
//!         Ok(device) => break device,
//!         Err(next) => pending = *next,
//!     }
//!     std::thread::sleep(Duration::from_millis(100));
//! };
//! # device.close()?;
//! # drop(backend);
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! | what | means | what to do |
//! | --- | --- | --- |
//! | [`SendError::Full`] | back-pressure | flush, reclaim, wait, try again |
//! | [`SendError::Length`] | no packet has this length | the caller's mistake: send something else |
//! | [`Error::is_restore`] | the domain was restored or migrated | reconnect |
//! | [`Error::is_peers_fault`] | the backend left, or broke the contract of a ring | reconnect |
//! | any other [`Error`] | no new connection helps: a vif that is not there, a limit, a device | tell it, and end |
//!
//! A packet that the backend got wrong, but not the ring, is no error: it is dropped, counted with its reason
//! (`rx_drop_...` of [`QueueStats`]), and the next one is delivered. Every error says what was wanted, what was found
//! and what to do; every wait has a deadline.
//!
//! ```
//! use netfront::{Device, Error};
//! # use std::time::Duration;
//! # use netfront::hypervisor::{sim::server, DomId, Domain};
//! # use netback_sim::{peer, Backend, Config};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let socket = dir.path().join("xen");
//! # let _xen = server::spawn(&socket, server::Options::new())?;
//! # let driver_domain = Domain::simulated(&socket, DomId(0))?;
//! # let backend = Backend::start(&driver_domain, Config::new(DomId(1), peer::Echo::new()))?;
//! # let domain = Domain::simulated(&socket, DomId(1))?;
//!
//! // There is a vif 0, but no vif 7.
//! let soon = Duration::from_millis(100);
//! let error = Device::builder(7).deadline(soon).connect(&domain).expect_err("no such vif");
//! assert!(matches!(error, Error::NoVif { vif: 7, .. }));
//! assert!(error.to_string().contains("is there a vif 7 in this domain's configuration?"));
//! # drop(backend);
//! # Ok(())
//! # }
//! ```
//!
//! The examples of this crate are whole programs with all of that: `echo`, `count`, `capture`, `send`, `generate`,
//! `forward` between two vifs, and `smoltcp`, a TCP/IP stack over the vif. For programs in C there is `netfront.h`
//! in the crate `netfront-c`.
#![deny(unsafe_code)]

pub mod announce;
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
pub use stats::{QueueStats, VifStats};
pub use waker::Waker;
pub use xen_ring::{Checksum, Corrupt, Gso, GsoKind, Offload};

/// The programs that these pages show are compiled with the tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/library.md")]
    struct Library;
}
