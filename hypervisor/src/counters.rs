//! What crosses to the hypervisor and to the kernel, counted.
//!
//! The counters are relaxed: each is exact, but a snapshot is not taken at one instant.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of what a domain has done. On the simulation `hypercalls` are those that Xen would
/// have seen for the same work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hypercalls caused: one for each notification, one for each batch of copies, one for each
    /// map or unmap of a region, one for each bind or unbind. Not counted: sharing and unsharing,
    /// unmasking and reading pending ports, which only touch memory shared with the hypervisor; the
    /// store; what a PV kernel asks to change its page tables.
    pub hypercalls: u64,
    /// Events sent to a peer by `notify`. Not counted: the notice given when a region is closed.
    pub notifications: u64,
    /// Pages shared with a peer.
    pub grants: u64,
    /// Pages taken back. A page that the peer still maps is counted when it is asked back.
    pub revokes: u64,
    /// Pages of a peer mapped.
    pub maps: u64,
    /// Pages of a peer unmapped.
    pub unmaps: u64,
    /// Copy operations asked for, whatever their status. Not counted: how many calls they took.
    pub copies: u64,
    /// System calls made by this crate for memory and event channels: device calls, reads and
    /// writes of ports, mappings. Not counted: the store, and the opening of devices and libraries.
    pub system_calls: u64,
}

/// The counters of one domain, shared by all that it makes.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hypercalls: AtomicU64,
    pub(crate) notifications: AtomicU64,
    pub(crate) grants: AtomicU64,
    pub(crate) revokes: AtomicU64,
    pub(crate) maps: AtomicU64,
    pub(crate) unmaps: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) system_calls: AtomicU64,
}

/// Adds to one counter: `add(&counters.grants, 32)`.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            hypercalls: read(&self.hypercalls),
            notifications: read(&self.notifications),
            grants: read(&self.grants),
            revokes: read(&self.revokes),
            maps: read(&self.maps),
            unmaps: read(&self.unmaps),
            copies: read(&self.copies),
            system_calls: read(&self.system_calls),
        }
    }
}
