//! Growing the pool away from the data path.
//!
//! Granting is a system call. When the free list runs low the queue's thread only raises a flag; the
//! control thread grants a batch and leaves it here. If the batch comes too late the queue grants
//! inline, and counts it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;
use hypervisor::{Access, DomId, Domain, SharedPages};

use super::BATCH;
use crate::waker::Waker;

/// The hand-over between a queue that runs low and the control thread that grants.
#[derive(Debug)]
pub struct Growth {
    wanted: AtomicBool,
    granted: ArrayQueue<SharedPages>,
    /// Wakes the control thread. Without one nobody grants, and the queue does it inline.
    control: OnceLock<Arc<Waker>>,
    /// Pages that the control thread granted.
    pub pages: AtomicU64,
}

impl Growth {
    pub(super) fn new() -> Self {
        Self {
            wanted: AtomicBool::new(false),
            granted: ArrayQueue::new(4),
            control: OnceLock::new(),
            pages: AtomicU64::new(0),
        }
    }

    /// Names the control thread that will call [`Self::serve`] when it is woken.
    pub(crate) fn attend(&self, control: Arc<Waker>) {
        // A second control thread would be our own mistake; the first stays.
        let _ = self.control.set(control);
    }

    /// Called by the queue: a batch would be welcome. One system call a batch.
    pub(super) fn want(&self) {
        let Some(control) = self.control.get() else {
            return;
        };
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Release);
            control.wake();
        }
    }

    /// Called by the queue: a batch that has arrived.
    pub(super) fn take(&self) -> Option<SharedPages> {
        self.granted.pop()
    }

    /// Called by the control thread: grants a batch if one is wanted.
    ///
    /// A refusal is left to the queue's own attempt, which says so once.
    pub fn serve(&self, domain: &Domain, peer: DomId, access: Access) {
        if !self.wanted.load(Ordering::Acquire) {
            return;
        }
        if let Ok(pages) = domain.share(peer, BATCH, access) {
            self.pages.fetch_add(pages.len() as u64, Ordering::Relaxed);
            // A full lane means that the queue has more than it asked for: the batch is freed here.
            let _ = self.granted.push(pages);
        }
        self.wanted.store(false, Ordering::Release);
    }
}
