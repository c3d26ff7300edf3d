//! Growing the pool away from the data path.
//!
//! Granting is a system call. When the free list runs low the queue's thread only raises a flag; the
//! control thread grants a batch and leaves it here. If the batch comes too late the queue grants
//! inline, and counts it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_queue::ArrayQueue;
use hypervisor::{Access, DomId, Domain, GrantRef, SharedPages};
use xen_ring::Page;

use super::BATCH;
use crate::waker::Waker;

/// Orders that can wait for the control thread. It is slow only while a backend does not answer it.
const ORDERS: usize = 64;

/// Pages that left the pool and are not freed yet: the backend must let go of its mappings first.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) refs: Vec<GrantRef>,
    /// They are freed, region by region, when this is dropped.
    _pages: Vec<Page>,
}

/// What the queue asks of the control thread while it announces pages to the backend.
#[derive(Debug)]
pub(crate) enum Order {
    /// The pool grew inline by these.
    Grown(Vec<GrantRef>),
    /// The pool gave these up.
    Leaving(Leaving),
}

/// The hand-over between a queue that runs low and the control thread that grants.
#[derive(Debug)]
pub struct Growth {
    wanted: AtomicBool,
    /// The last batch that was asked for was refused.
    refused: AtomicBool,
    granted: ArrayQueue<SharedPages>,
    /// Wakes the control thread. Without one nobody grants, and the queue does it inline.
    control: OnceLock<Arc<Waker>>,
    /// The control thread announces pages to the backend, so it has to know of all that come and go.
    announces: AtomicBool,
    orders: ArrayQueue<Order>,
    /// What found no room there, and whether there is any.
    late: Mutex<VecDeque<Order>>,
    is_late: AtomicBool,
    /// Pages that the control thread granted.
    pub pages: AtomicU64,
}

impl Leaving {
    /// These pages.
    pub(super) fn of(pages: impl Iterator<Item = (GrantRef, Page)>) -> Self {
        let (refs, pages) = pages.unzip();
        Self {
            refs,
            _pages: pages,
        }
    }

    /// All pages of a region.
    pub(crate) fn whole(pages: &SharedPages) -> Self {
        Self::of((0..pages.len()).map(|page| (pages.reference(page), pages.page(page))))
    }
}

impl Growth {
    pub(crate) fn new() -> Self {
        Self {
            wanted: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            granted: ArrayQueue::new(4),
            control: OnceLock::new(),
            announces: AtomicBool::new(false),
            orders: ArrayQueue::new(ORDERS),
            late: Mutex::default(),
            is_late: AtomicBool::new(false),
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

    /// Called by the queue: whether a batch was refused since the last call.
    pub(super) fn take_refusal(&self) -> bool {
        self.refused.load(Ordering::Relaxed) && self.refused.swap(false, Ordering::Acquire)
    }

    /// Called by the control thread: grants a batch if one is wanted.
    ///
    /// A refusal is told to the queue, which would ask again with each of its batches.
    pub fn serve(&self, domain: &Domain, peer: DomId, access: Access) {
        if let Some(pages) = self.grant(domain, peer, access) {
            self.hand_over(pages);
        }
    }

    /// The first half of [`Self::serve`]: the queue waits until the batch is handed over.
    pub(crate) fn grant(
        &self,
        domain: &Domain,
        peer: DomId,
        access: Access,
    ) -> Option<SharedPages> {
        if !self.wanted.load(Ordering::Acquire) {
            return None;
        }
        match domain.share(peer, BATCH, access) {
            Ok(pages) => {
                self.pages.fetch_add(pages.len() as u64, Ordering::Relaxed);
                Some(pages)
            }
            Err(error) => {
                tracing::debug!("the pool cannot grow: {error}");
                self.refused.store(true, Ordering::Release);
                self.wanted.store(false, Ordering::Release);
                None
            }
        }
    }

    /// The second half.
    pub(crate) fn hand_over(&self, pages: SharedPages) {
        if let Err(pages) = self.granted.push(pages) {
            // The queue has more than it asked for.
            self.leave(Leaving::whole(&pages));
        }
        self.wanted.store(false, Ordering::Release);
    }

    /// Called by the control thread: from now on it is told of pages that come and go, or not any more.
    pub(crate) fn announce(&self, announces: bool) {
        self.announces.store(announces, Ordering::Release);
    }

    /// Called by the control thread: what the queue has done, in order.
    pub(crate) fn next_order(&self) -> Option<Order> {
        if let Some(order) = self.orders.pop() {
            return Some(order);
        }
        if !self.is_late.load(Ordering::Acquire) {
            return None;
        }
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let order = late.pop_front();
        self.is_late.store(!late.is_empty(), Ordering::Release);
        order
    }

    /// Called by the queue: the pool grew inline.
    pub(super) fn grown(&self, pages: &SharedPages) {
        if self.announces.load(Ordering::Acquire) {
            self.order(Order::Grown(Leaving::whole(pages).refs));
        }
    }

    /// Pages that the pool gave up. They are freed here and now, unless the backend may have them mapped.
    pub(crate) fn leave(&self, pages: Leaving) {
        if self.announces.load(Ordering::Acquire) {
            self.order(Order::Leaving(pages));
        }
    }

    /// Whether pages can be given up now.
    pub(super) fn can_leave(&self) -> bool {
        self.orders.len() < ORDERS / 2
    }

    fn order(&self, order: Order) {
        // Behind what is late already: a page must not leave before it was announced.
        let full = match self.is_late.load(Ordering::Acquire) {
            true => Some(order),
            false => self.orders.push(order).err(),
        };
        if let Some(order) = full {
            // None may be lost: a page that leaves is freed only when the backend has let go. The control thread
            // is that far behind only while the store does not answer.
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.push_back(order);
            self.is_late.store(true, Ordering::Release);
        }
        if let Some(control) = self.control.get() {
            control.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use hypervisor::sim::server::{self, Options, Running};

    use super::*;
    use crate::pool::{Pool, PoolConfig, PoolPage, PoolPolicy};

    const PEER: DomId = DomId(0);

    /// A pool that has a control thread, which is this one.
    struct Attended {
        pool: Pool,
        growth: Arc<Growth>,
        domain: Domain,
        _running: (Running, tempfile::TempDir),
    }

    fn attended(limit: usize, grant_limit: usize) -> Attended {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("xen");
        let server = server::spawn(&socket, Options::new().grant_limit(grant_limit));
        let domain = Domain::simulated(&socket, DomId(1)).expect("a domain");
        let (access, policy) = (Access::ReadWrite, PoolPolicy::Pool);
        let capacity = BATCH;
        let config = PoolConfig {
            capacity,
            limit,
            access,
            policy,
            scrub: false,
        };
        let pool = Pool::new(&domain, PEER, config).expect("a pool");
        let growth = pool.growth();
        growth.attend(Arc::new(Waker::new().expect("a waker")));
        Attended {
            pool,
            growth,
            domain,
            _running: (server.expect("a server"), dir),
        }
    }

    impl Attended {
        fn take(&mut self, count: usize) -> Vec<PoolPage> {
            (0..count).map_while(|_| self.pool.take()).collect()
        }

        fn serve(&self) {
            self.growth.serve(&self.domain, PEER, Access::ReadWrite);
        }

        fn granted(&self) -> u64 {
            let counters = self.domain.counters();
            counters.grants - counters.revokes
        }
    }

    #[test]
    fn a_batch_is_granted_once_for_each_time_that_the_pool_runs_low() {
        let mut at = attended(4 * BATCH, 1024);
        at.serve();
        assert_eq!(at.granted(), BATCH as u64, "nobody asked");
        let held = at.take(1);
        at.pool.collect();
        at.pool.collect();
        at.serve();
        at.serve();
        assert_eq!(at.granted(), 2 * BATCH as u64);
        at.pool.collect();
        let census = at.pool.census();
        assert_eq!((census.granted, census.free), (2 * BATCH, 2 * BATCH - 1));
        assert_eq!((at.pool.grown_inline, held.len()), (0, 1));
    }

    #[test]
    fn a_batch_that_comes_when_the_pool_has_reached_its_limit_is_freed() {
        let mut at = attended(2 * BATCH, 1024);
        let mut held = at.take(BATCH);
        at.pool.collect();
        // The control thread is slow: the pool grows inline to its limit meanwhile.
        held.extend(at.take(BATCH));
        at.serve();
        at.pool.collect();
        assert_eq!(at.pool.census().granted, 2 * BATCH);
        assert_eq!(at.granted(), 2 * BATCH as u64);
        assert_eq!(at.take(1), []);
        assert_eq!(held.len(), 2 * BATCH);
    }

    #[test]
    fn after_a_refusal_nobody_is_asked_again_before_pages_have_come_home() {
        let mut at = attended(8 * BATCH, BATCH);
        let held = at.take(1);
        at.pool.collect();
        assert!(at.growth.wanted.load(Ordering::Relaxed));
        at.serve();
        for _ in 0..5 {
            at.pool.collect();
            assert!(
                !at.growth.wanted.load(Ordering::Relaxed),
                "asked again with each batch"
            );
        }
        assert!(at.pool.is_short(), "what is left stays with the ring");
        held.into_iter()
            .for_each(|page| drop(at.pool.lease(page, 0, 0)));
        at.pool.collect();
        assert!(!at.pool.is_short());
    }
}
