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
    /// The last batch that was asked for was refused.
    refused: AtomicBool,
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
            refused: AtomicBool::new(false),
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

    /// Called by the queue: whether a batch was refused since the last call.
    pub(super) fn take_refusal(&self) -> bool {
        self.refused.load(Ordering::Relaxed) && self.refused.swap(false, Ordering::Acquire)
    }

    /// Called by the control thread: grants a batch if one is wanted.
    ///
    /// A refusal is told to the queue, which would ask again with each of its batches.
    pub fn serve(&self, domain: &Domain, peer: DomId, access: Access) {
        if !self.wanted.load(Ordering::Acquire) {
            return;
        }
        match domain.share(peer, BATCH, access) {
            Ok(pages) => {
                self.pages.fetch_add(pages.len() as u64, Ordering::Relaxed);
                // A full lane means that the queue has more than it asked for: the batch is freed here.
                let _ = self.granted.push(pages);
            }
            Err(error) => {
                tracing::debug!("the pool cannot grow: {error}");
                self.refused.store(true, Ordering::Release);
            }
        }
        self.wanted.store(false, Ordering::Release);
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
