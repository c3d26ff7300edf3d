//! Which multicast packets the backend is asked for, in both forms that netif has: `request-multicast-control` in the
//! store says that it is to filter at all, and requests in the transmit ring name the addresses.
//!
//! A backend forgets the addresses with the connection, so what it was told is kept with the rings. netback counts an
//! address that is asked for twice as two of the 64 that it has room for; so none is.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use xen_ring::Multicast;

use super::Queue;
use crate::waker::Waker;
use crate::Error;

/// The most addresses that netback filters by (`XEN_NETBK_MCAST_MAX`).
pub const MULTICAST_MAX: usize = 64;

/// An address of a group.
pub type Group = [u8; 6];

/// Whether the backend is to filter: said by the queue's owner, written to the store by the control thread.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// What is not written yet: 0 nothing, 1 filter, 2 do not.
    wish: AtomicU8,
    waker: OnceLock<Arc<Waker>>,
}

impl Filter {
    /// Has the control thread woken at each wish.
    pub fn attend(&self, waker: Arc<Waker>) {
        let _ = self.waker.set(waker);
    }

    pub(super) fn set(&self, on: bool) {
        self.wish.store(if on { 1 } else { 2 }, Ordering::Release);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// For the control thread: what is to be written, once.
    pub fn take(&self) -> Option<bool> {
        match self.wish.swap(0, Ordering::AcqRel) {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        }
    }
}

impl Queue {
    /// Has the backend send the packets of just these multicast groups; `None`: of all. For a device that was made with
    /// [`crate::Wants::multicast_filter`]; broadcasts always come. Shown to the backend by [`Self::flush`].
    ///
    /// Returns false if the ring has no room for all requests now: call it again after some were answered. More than
    /// [`MULTICAST_MAX`] groups, or one that the backend has refused, make it all of them. A backend that is not dynamic
    /// goes on filtering then; [`crate::Change::MulticastFilter`] asks for a new connection.
    ///
    /// # Errors
    /// When the event channel refuses.
    pub fn follow_multicast(&mut self, wanted: Option<&[Group]>) -> Result<bool, Error> {
        let refused = self.tx.multicast.refused;
        let Some(wanted) = wanted.filter(|all| all.len() <= MULTICAST_MAX && !refused) else {
            self.tx.multicast.let_filter(false);
            return Ok(true);
        };
        let joined = self.tx.multicast.groups.clone();
        let left = joined.iter().filter(|group| !wanted.contains(group));
        let is_new = |&(at, group): &(usize, &Group)| {
            !joined.contains(group) && !wanted[..at].contains(group)
        };
        let new = wanted.iter().enumerate().filter(is_new);
        // Those that are left first: the backend has room for so many.
        let wishes = left
            .map(|group| Multicast::Del(*group))
            .chain(new.map(|(_, group)| Multicast::Add(*group)));
        let mut complete = true;
        for wish in wishes {
            if !self.tx.ask_multicast(wish) {
                complete = false;
                break;
            }
        }
        self.stats
            .multicast_groups
            .set(self.tx.multicast.groups.len() as u64);
        self.flush()?;
        if complete {
            self.tx.multicast.let_filter(true);
        }
        Ok(complete)
    }

    /// For the control thread.
    pub(crate) fn multicast_filter(&self) -> Arc<Filter> {
        Arc::clone(&self.tx.multicast.filter)
    }
}
