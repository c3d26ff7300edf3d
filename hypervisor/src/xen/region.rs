//! One region of own pages, as the facade knows it.
//!
//! # Invariants
//!
//! - The region stays shared while this value or any page of it lives.
//! - Once a page or a reference has been told, the region is never exchanged for another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xen_ring::Page;

use super::library::CloseNotice;
use super::memory::Shared;
use crate::{Access, Counters, DomId, Error, GrantRef, Port, PAGE_SIZE};

/// Shares a new region of zeroed pages with `peer`.
pub(crate) fn share(
    peer: DomId,
    pages: usize,
    access: Access,
    counters: Arc<Counters>,
) -> Result<Region, Error> {
    let mapping = Shared::new(peer, pages, access, CloseNotice::default(), counters)?;
    let state = State {
        mapping,
        notice: CloseNotice::default(),
        handed_out: false,
    };
    Ok(Region {
        peer,
        access,
        state: Mutex::new(state),
    })
}

/// One region of own pages. It stays shared while this value or any page of it lives.
#[derive(Debug)]
pub(crate) struct Region {
    peer: DomId,
    access: Access,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mapping: Arc<Shared>,
    notice: CloseNotice,
    /// Somebody knows a page or a reference: from now on it can not be exchanged for another.
    handed_out: bool,
}

impl Region {
    pub(crate) fn len(&self) -> usize {
        self.state().mapping.len()
    }

    pub(crate) fn page(&self, index: usize) -> Page {
        let mut state = self.state();
        state.handed_out = true;
        state.mapping.page(index)
    }

    pub(crate) fn reference(&self, index: usize) -> GrantRef {
        let mut state = self.state();
        state.handed_out = true;
        state.mapping.reference(index)
    }

    pub(crate) fn clear_byte_on_close(&self, offset: usize) -> Result<(), Error> {
        let clear = u32::try_from(offset)
            .ok()
            .filter(|_| offset < PAGE_SIZE * self.len());
        let Some(clear) = clear else {
            return Err(Error::Invalid {
                what: format!(
                    "A byte to clear at offset {offset} is beyond {} pages",
                    self.len()
                ),
            });
        };
        self.arm(|notice| notice.clear = Some(clear))
    }

    pub(crate) fn notify_on_close(&self, port: Port) -> Result<(), Error> {
        self.arm(|notice| notice.notify = Some(port))
    }

    /// Shares the page anew, this time with a notice.
    ///
    /// The kernel can arm a page that is shared, but only through the number under which it was
    /// made, and the library has given that number up when its call returns. So this works for one
    /// page, before anybody knows it. An event that was asked for before is sent once for the page
    /// that goes: events are hints, nothing is lost by one too many.
    fn arm(&self, change: impl FnOnce(&mut CloseNotice)) -> Result<(), Error> {
        let mut state = self.state();
        if state.mapping.len() != 1 {
            return Err(Error::Unsupported {
                what: "A close notice for a region of several pages",
                by: "libxengnttab",
                hint: "share the page that wants it alone",
            });
        }
        if state.handed_out {
            return Err(Error::Unsupported {
                what: "A close notice for a page that has been handed out",
                by: "libxengnttab",
                hint: "ask for the notice before the page and its reference",
            });
        }
        let mut notice = state.notice;
        change(&mut notice);
        let counters = state.mapping.counters();
        state.mapping = Shared::new(self.peer, 1, self.access, notice, counters)?;
        state.notice = notice;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole at every moment, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
