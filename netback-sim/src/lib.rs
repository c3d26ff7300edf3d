//! A netif backend in user space: for tests and demos on the simulated Xen, and a real one on Xen.
//!
//! The other half of a vif: it announces features, waits for a frontend, maps its rings, takes
//! frames out of its pages and puts frames into them. Who makes and takes the frames at this end
//! is a [`Peer`]: a generator, a sink, an echo, a capture file, a TAP.
//!
//! - [`backend`]: start one, watch it, stop it.
//! - [`features`], [`toolstack`]: what it offers, and what an administrator says of the vif.
//! - [`reach`]: how it gets at the guest's pages.
//! - [`peer`]: the other end of the wire. [`frame`]: how frames get there.
//! - [`traffic`]: frames that can be verified.
//! - [`keys`]: the store; the only file that knows a path. [`state`]: what is shown there.
//! - [`counters`]: what is counted.
//!
//! ```no_run
//! use hypervisor::{DomId, Domain};
//! use netback_sim::backend::{Backend, Config};
//! use netback_sim::peer::Echo;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let domain = Domain::simulated("/run/xen.sock".as_ref(), DomId(0))?;
//! let backend = Backend::start(&domain, Config::new(DomId(1), Echo::new()))?;
//! println!("{:?}", backend.counters());
//! backend.stop()?;
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

pub mod backend;
pub mod counters;
pub mod features;
pub mod frame;
pub mod keys;
mod offload;
mod packet;
pub mod peer;
pub mod reach;
pub mod state;
pub mod toolstack;
pub mod traffic;
mod vif;
mod worker;
mod xenbus;

pub use backend::{Backend, BackendHandle, Config, Error, Summary};
pub use counters::Snapshot;
pub use features::{Features, FrontFeatures};
pub use peer::Peer;
pub use reach::Reach;
pub use state::State;
pub use toolstack::{Mac, Toolstack};
