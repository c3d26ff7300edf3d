//! Own pages that a peer may use: granted once, taken back together.

use xen_ring::Page;

use crate::{xen, Error, GrantRef, Port};

/// One region of own pages, shared with one peer.
///
/// The region stays shared as long as this value or any [`Page`] of it lives: a page that is still
/// posted, leased or read somewhere can never be taken back behind its user's back. Pages are zero
/// when they are shared.
#[derive(Debug)]
pub struct SharedPages(pub(crate) Ground);

#[derive(Debug)]
pub(crate) enum Ground {
    Xen(xen::memory::Region),
    #[cfg(feature = "sim")]
    Sim(crate::sim::shared::Region),
}

impl SharedPages {
    /// How many pages the region has.
    #[allow(clippy::len_without_is_empty)] // a region of no pages cannot be made
    pub fn len(&self) -> usize {
        match &self.0 {
            Ground::Xen(region) => region.len(),
            #[cfg(feature = "sim")]
            Ground::Sim(region) => region.len(),
        }
    }

    /// The page with this index.
    ///
    /// # Panics
    ///
    /// When the region has no such page.
    pub fn page(&self, index: usize) -> Page {
        match &self.0 {
            Ground::Xen(region) => region.page(index),
            #[cfg(feature = "sim")]
            Ground::Sim(region) => region.page(index),
        }
    }

    /// The reference by which the peer finds the page with this index.
    ///
    /// # Panics
    ///
    /// When the region has no such page.
    pub fn reference(&self, index: usize) -> GrantRef {
        match &self.0 {
            Ground::Xen(region) => region.reference(index),
            #[cfg(feature = "sim")]
            Ground::Sim(region) => region.reference(index),
        }
    }

    /// Has the byte at this offset of the region set to zero when the region is closed, be it in
    /// order or because this process died: so the peer sees that nobody is here any more.
    ///
    /// Only a region of one page can have such a notice, and it must be asked for before the page
    /// or its reference is taken: Xen's library can do it no later, and makes the page anew for it.
    ///
    /// # Errors
    ///
    /// When the offset is beyond the region, it is too late, or the hypervisor refuses.
    pub fn clear_byte_on_close(&self, offset: usize) -> Result<(), Error> {
        match &self.0 {
            Ground::Xen(region) => region.clear_byte_on_close(offset),
            #[cfg(feature = "sim")]
            Ground::Sim(region) => region.clear_byte_on_close(offset),
        }
    }

    /// Has an event sent through this port when the region is closed, be it in order or because
    /// this process died. What holds for [`clear_byte_on_close`](Self::clear_byte_on_close) holds
    /// here, and the peer may be rung once at once.
    ///
    /// # Errors
    ///
    /// When the port is not bound by this domain, it is too late, or the hypervisor refuses.
    pub fn notify_on_close(&self, port: Port) -> Result<(), Error> {
        match &self.0 {
            Ground::Xen(region) => region.notify_on_close(port),
            #[cfg(feature = "sim")]
            Ground::Sim(region) => region.notify_on_close(port),
        }
    }
}
