//! The lane by which leased pages come home, from any thread.

use std::sync::atomic::{fence, AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;

use super::PoolPage;
use crate::waker::Waker;

/// Pages on their way home. The pool's owner takes them out when it has time.
#[derive(Debug)]
pub struct Returns {
    lane: ArrayQueue<PoolPage>,
    /// The owner waits for pages: whoever brings one wakes it.
    called: AtomicBool,
    owner: OnceLock<Arc<Waker>>,
}

impl Returns {
    /// A lane for as many pages as the pool can have, so that it is never full.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            lane: ArrayQueue::new(capacity.max(1)),
            called: AtomicBool::new(false),
            owner: OnceLock::new(),
        }
    }

    /// Takes a page back.
    pub(crate) fn give(&self, page: PoolPage) {
        // Never full, see `new`.
        let _ = self.lane.push(page);
        // Pairs with the fence in `call`: either the owner finds the page, or we see that it waits.
        fence(Ordering::SeqCst);
        if self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::Relaxed) {
            self.owner.get().into_iter().for_each(|owner| owner.ring());
        }
    }

    /// Has `owner` woken by the next page. It must look at the lane once more before it sleeps: with no page
    /// posted no event comes from the backend, so a page that is missed here is missed for good.
    pub(super) fn call(&self, owner: &Arc<Waker>) {
        let _ = self.owner.get_or_init(|| Arc::clone(owner));
        self.called.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The next page that came home.
    pub(super) fn take(&self) -> Option<PoolPage> {
        self.lane.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lane.is_empty()
    }
}
