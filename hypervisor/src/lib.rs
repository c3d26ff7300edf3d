//! Xen as a domain sees it: own pages that a peer may use, pages of a peer, event channels and the
//! store. The same types stand on Xen and on a simulated Xen.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`Domain`] | the ground a domain stands on; everything else is made by it |
//! | [`SharedPages`] | own pages, granted once to one peer |
//! | [`ForeignMemory`] | pages of a peer: mapped, or copied in batches |
//! | [`DomainInfo`] | what dom0 may know of every domain: its CPU time |
//! | [`EventChannels`] | the doorbells of one thread |
//! | [`store`] | xenstore: the trait [`Store`] and its clients |
//! | [`sim`] | the simulated Xen: its server, and what stands in for hypercalls |
//! | `xen` | the real one: libxengnttab, libxenevtchn and the device files |
//!
//! # Invariants
//!
//! - A page stays shared, or mapped, as long as any [`Page`](xen_ring::Page) of it lives.
//! - Nothing here blocks without a deadline.
//! - What crosses to the hypervisor is counted in [`Counts`], on Xen and simulated alike.
//!
//! # Who calls this
//!
//! The frontend shares pages and rings a doorbell; a backend maps or copies. The data path comes
//! here only to notify and, in a backend, for one copy call a batch.

#![deny(unsafe_code)]

mod counters;
mod domain;
mod domain_info;
mod error;
mod events;
mod foreign;
mod ids;
mod restores;
mod shared;
pub mod store;
mod unix;
mod wait;

#[cfg(feature = "sim")]
pub mod sim;
mod xen;

pub use counters::Counts;
pub use domain::Domain;
pub use domain_info::DomainInfo;
pub use error::{Error, Lack};
pub use events::EventChannels;
pub use foreign::{Copy, CopyStatus, Direction, ForeignMemory, LocalBuffer, MappedPages};
pub use ids::{Access, DomId, GrantRef, Port};
pub use shared::SharedPages;
pub use store::{Permission, Rights, Store, StoreClient, WatchEvent};
pub use xen::libraries;

pub(crate) use counters::Counters;

/// Bytes of a page: Xen grants nothing smaller and nothing larger.
pub const PAGE_SIZE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_go_to_the_thread_that_uses_it() {
        fn send<T: Send>() {}
        fn shared<T: Send + Sync>() {}
        shared::<Domain>();
        shared::<SharedPages>();
        shared::<MappedPages>();
        send::<ForeignMemory>();
        send::<EventChannels>();
        send::<LocalBuffer>();
        send::<Box<dyn Store>>();
    }
}
