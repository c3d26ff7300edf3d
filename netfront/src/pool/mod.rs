//! Pages granted once, for good, to the driver domain.
//!
//! A page is in exactly one place: **free** here, **posted** in a ring, **leased** to whoever detached a
//! packet, or **quarantined** because the backend may still hold it. [`PoolPage`] is the token of a page
//! that is not free; it cannot be copied, so a page cannot be posted twice (H-6).
//!
//! One thread owns the pool. Its free list is a stack: the page returned last is posted first, since
//! its lines are still in the cache. Other threads give pages back through [`Returns`].
//!
//! Invariant, checked by [`Pool::census`]: free + posted + leased + quarantined = granted.

mod growth;
#[allow(unsafe_code)]
mod lease;
mod policy;
mod returns;
mod shrink;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use hypervisor::{Access, DomId, Domain, GrantRef, SharedPages};
use xen_ring::Page;

pub use growth::Growth;
pub(crate) use growth::{Leaving, Order};
pub use lease::Lease;
pub(crate) use lease::{view, view_mut};
pub use policy::PoolPolicy;
pub use returns::Returns;

use crate::waker::Waker;
use crate::Error;

/// Pages that are granted, and later freed, together: the unit in which gntalloc frees.
pub const BATCH: usize = 32;

/// The token of one page that is out of the free list. Neither `Copy` nor `Clone`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a page whose token is dropped is lost to the pool"]
pub struct PoolPage {
    number: u32,
    /// Which pool it belongs to: two pools never share a page, and a token that is given to the wrong one
    /// would stand for a page that somebody else has.
    pool: u32,
}

/// How a pool is made and how far it may go.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Pages granted at the start.
    pub capacity: usize,
    /// Pages that the pool may have at most.
    pub limit: usize,
    /// What the peer may do with the pages.
    pub access: Access,
    /// What happens to a page after its packet.
    pub policy: PoolPolicy,
    /// Overwrite the used bytes of a page with zeros before it is posted again.
    pub scrub: bool,
}

/// Where every page is. All figures are pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Granted to the driver domain now.
    pub granted: usize,
    /// In the free list.
    pub free: usize,
    /// Out with the queue: in the ring, or being worked on.
    pub posted: usize,
    /// Carried away by detached packets.
    pub leased: usize,
    /// Withdrawn for good, since the backend may still hold them.
    pub quarantined: usize,
}

struct Entry {
    page: Page,
    reference: GrantRef,
    batch: u32,
}

/// A region of pages that was granted in one call and can be freed in one call.
struct Batch {
    /// Pages of the batch that are retired; at `pages` the whole region goes.
    retired: usize,
    pages: usize,
}

/// The pool of one direction of one queue.
pub struct Pool {
    id: u32,
    domain: Domain,
    peer: DomId,
    config: PoolConfig,
    /// By token. `None`: the page is gone and its number may be used again.
    entries: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    batches: Vec<Option<Batch>>,
    vacant_batches: Vec<u32>,
    free: Vec<PoolPage>,
    returns: Arc<Returns>,
    growth: Arc<Growth>,
    granted: usize,
    /// Pages that were granted when the first packet came.
    at_start: usize,
    leased: usize,
    quarantined: usize,
    /// The grant device refused; not asked again before pages have come back.
    refused: bool,
    /// That was said.
    said: bool,
    /// Pages granted in the data path because none was left (H-10).
    pub grown_inline: u64,
    /// Grants made for packets after the start, by any way.
    pub grants: u64,
    /// Grants ended after the start.
    pub revokes: u64,
    /// Leased pages that came home to be used again.
    pub came_home: u64,
}

impl Pool {
    /// Grants `config.capacity` pages, all zero, to `peer`.
    ///
    /// # Errors
    /// If not even one batch can be had; with fewer than asked for, the pool starts smaller.
    pub fn new(domain: &Domain, peer: DomId, config: PoolConfig) -> Result<Self, Error> {
        let mut pool = Self::begin(domain, peer, config)?;
        while pool.extend() {}
        pool.settle();
        Ok(pool)
    }

    /// A pool with its first batch. The other pool of its queue begins before it is filled, so that neither finds the limit of
    /// shared pages used up by the other: see [`crate::queue::Queue::open`].
    pub(crate) fn begin(domain: &Domain, peer: DomId, config: PoolConfig) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let limit = config.limit.max(config.capacity);
        let mut pool = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            domain: domain.clone(),
            peer,
            // The lists are made for the most that can be, so that nothing is allocated later.
            entries: Vec::with_capacity(limit),
            vacant: Vec::with_capacity(limit),
            batches: Vec::with_capacity(limit),
            vacant_batches: Vec::with_capacity(limit),
            free: Vec::with_capacity(limit),
            returns: Arc::new(Returns::new(limit)),
            growth: Arc::new(Growth::new()),
            granted: 0,
            at_start: 0,
            leased: 0,
            quarantined: 0,
            refused: false,
            said: false,
            grown_inline: 0,
            grants: 0,
            revokes: 0,
            came_home: 0,
            config: PoolConfig { limit, ..config },
        };
        if pool.config.policy != PoolPolicy::PerPacket {
            pool.grant(BATCH.min(pool.config.capacity))?;
        }
        Ok(pool)
    }

    /// Grants one more batch of the starting capacity. False if it is reached or nothing more can be had.
    pub(crate) fn extend(&mut self) -> bool {
        let wanted = BATCH.min(self.config.capacity.saturating_sub(self.granted));
        if wanted == 0 || self.refused || self.config.policy == PoolPolicy::PerPacket {
            return false;
        }
        if let Err(error) = self.grant(wanted) {
            tracing::debug!(granted = self.granted, "refused: {error}");
            self.refused = true;
        }
        !self.refused
    }

    /// The pages that it has, and those that it was to start with.
    pub(crate) fn start(&self) -> (usize, usize) {
        match self.config.policy {
            PoolPolicy::PerPacket => (0, 0),
            _ => (self.granted, self.config.capacity),
        }
    }

    /// What is granted from now on is granted for packets.
    pub(crate) fn settle(&mut self) {
        self.grants = 0;
        self.at_start = self.granted;
    }

    /// Takes a page, to be posted or filled. Grants more if none is left (H-10); `None` when that is
    /// refused or the limit is reached.
    #[inline]
    pub fn take(&mut self) -> Option<PoolPage> {
        match self.free.pop() {
            Some(page) => Some(page),
            None => self.take_more(),
        }
    }

    #[cold]
    fn take_more(&mut self) -> Option<PoolPage> {
        self.collect();
        if self.free.is_empty() {
            let wanted = match self.config.policy {
                PoolPolicy::PerPacket => 1,
                _ => BATCH,
            };
            let wanted = wanted.min(self.config.limit - self.granted);
            if wanted == 0 || self.refused {
                return None;
            }
            match self.grant(wanted) {
                Ok(()) => self.grown_inline += wanted as u64,
                Err(error) => {
                    // The ring is fed by what comes back from now on. Asked again when pages have, and not said again.
                    if !std::mem::replace(&mut self.said, true) {
                        tracing::warn!(granted = self.granted, "the pool cannot grow: {error}");
                    }
                    self.refused = true;
                }
            }
        }
        self.free.pop()
    }

    /// Gives a page back that did not leave the queue's thread.
    ///
    /// # Panics
    /// If the page is another pool's.
    #[inline]
    pub fn put(&mut self, page: PoolPage) {
        assert_eq!(page.pool, self.id, "the page belongs to another pool");
        if self.config.policy.recycles() {
            self.free.push(page);
        } else {
            self.retire(page);
        }
    }

    /// The page's memory. Not for users of the library: whoever has it could write under a lease.
    #[inline]
    pub(crate) fn page(&self, page: &PoolPage) -> &Page {
        &self.entry(page).page
    }

    /// The page's grant reference.
    #[inline]
    pub fn reference(&self, page: &PoolPage) -> GrantRef {
        self.entry(page).reference
    }

    /// Turns a held page into a lease of `len` bytes at `offset`, that comes home by itself (H-9).
    pub fn lease(&mut self, page: PoolPage, offset: u16, len: u16) -> Lease {
        self.leased += 1;
        Lease::new(
            self.page(&page).clone(),
            page,
            offset,
            len,
            Arc::clone(&self.returns),
        )
    }

    /// True when leasing would starve the ring: packets are copied then (`condense`).
    pub fn is_short(&self) -> bool {
        self.free.len() < BATCH && (self.refused || self.granted >= self.config.limit)
    }

    /// Pages that can be taken before one must come back. A source that is polled goes by this: more than
    /// there is would have it asked in vain, again and again.
    pub fn room(&self) -> usize {
        if self.refused {
            return self.free.len();
        }
        self.free.len() + self.config.limit.saturating_sub(self.granted)
    }

    /// Withdraws a page that the backend may still hold. It is never used again in this connection.
    pub fn quarantine(&mut self, page: PoolPage) {
        assert_eq!(page.pool, self.id, "the page belongs to another pool");
        self.quarantined += 1;
    }

    /// Overwrites what a packet left in a page, if the pool was told to.
    #[inline]
    pub fn scrub(&self, page: &PoolPage, offset: usize, len: usize) {
        if self.config.scrub {
            self.page(page).fill(offset, len, 0);
        }
    }

    /// Brings home what other threads gave back, and the batches that the control thread granted.
    /// Asks the control thread for a batch when the free list runs low.
    #[inline]
    pub fn collect(&mut self) {
        if !self.returns.is_empty() {
            while let Some(page) = self.returns.take() {
                self.leased -= 1;
                // Which bytes its packet took is not known any more.
                self.scrub(&page, 0, xen_ring::PAGE_SIZE);
                self.put(page);
                self.came_home += u64::from(self.config.policy.recycles());
            }
            // Not at the first page that comes home: the pool would be taken for well stocked, and lend
            // what the ring needs, page by page until the ring is empty.
            self.refused &= self.free.len() < BATCH;
        }
        if self.free.len() < BATCH && self.config.policy == PoolPolicy::Pool {
            self.replenish();
        }
    }

    /// For a ring that hardly has a page left, before its owner sleeps: has `owner` woken by the next page
    /// that comes home. True if there are free pages, so that it must not sleep.
    pub(crate) fn await_return(&mut self, owner: &Arc<Waker>) -> bool {
        self.returns.call(owner);
        self.collect();
        !self.free.is_empty()
    }

    /// Before a long sleep: has `owner` woken by the next page that comes home, if any is away, so that the counters tell
    /// of it and the pool can shrink.
    pub(crate) fn call_for_returns(&mut self, owner: &Arc<Waker>) {
        if self.leased > 0 {
            self.returns.call(owner);
            // A page that came before the call wakes nobody.
            self.collect();
        }
    }

    #[cold]
    fn replenish(&mut self) {
        while let Some(pages) = self.growth.take() {
            // The queue may have grown inline since it asked: what is beyond the limit is freed here,
            // since there is no room for it in the lists.
            if self.granted + pages.len() <= self.config.limit {
                self.adopt(pages);
            } else {
                self.growth.leave(Leaving::whole(&pages));
            }
        }
        self.refused |= self.growth.take_refusal();
        let room = self.config.limit.saturating_sub(self.granted);
        if self.free.len() < BATCH && room >= BATCH && !self.refused {
            self.growth.want();
        }
    }

    /// Where every page is.
    pub fn census(&mut self) -> Census {
        self.collect();
        let away = self.free.len() + self.leased + self.quarantined;
        Census {
            granted: self.granted,
            free: self.free.len(),
            posted: self.granted - away,
            leased: self.leased,
            quarantined: self.quarantined,
        }
    }

    /// The hand-over to the control thread, which grants when the queue asks.
    pub fn growth(&self) -> Arc<Growth> {
        Arc::clone(&self.growth)
    }

    /// Pages that were granted since the start and are granted still.
    pub fn grown(&self) -> usize {
        self.granted.saturating_sub(self.at_start)
    }

    /// The most pages that the pool may have.
    pub fn limit(&self) -> usize {
        self.config.limit
    }

    fn entry(&self, page: &PoolPage) -> &Entry {
        assert_eq!(page.pool, self.id, "the page belongs to another pool");
        // A token exists only for an entry that does.
        match &self.entries[page.number as usize] {
            Some(entry) => entry,
            None => unreachable!("page {} has a token but no entry", page.number),
        }
    }

    fn grant(&mut self, count: usize) -> Result<(), Error> {
        let pages = self.domain.share(self.peer, count, self.config.access)?;
        self.growth.grown(&pages);
        self.adopt(pages);
        Ok(())
    }

    fn adopt(&mut self, pages: SharedPages) {
        let count = pages.len();
        let batch = self
            .vacant_batches
            .pop()
            .unwrap_or(self.batches.len() as u32);
        let record = Some(Batch {
            retired: 0,
            pages: count,
        });
        match self.batches.get_mut(batch as usize) {
            Some(slot) => *slot = record,
            None => self.batches.push(record),
        }
        for index in 0..count {
            let entry = Some(Entry {
                page: pages.page(index),
                reference: pages.reference(index),
                batch,
            });
            let number = self.vacant.pop().unwrap_or(self.entries.len() as u32);
            match self.entries.get_mut(number as usize) {
                Some(slot) => *slot = entry,
                None => self.entries.push(entry),
            }
            self.free.push(PoolPage {
                number,
                pool: self.id,
            });
        }
        self.granted += count;
        self.grants += count as u64;
    }

    /// Takes a page out of use. The region's grants end when the last page of its batch is gone.
    fn retire(&mut self, page: PoolPage) {
        let number = page.number;
        let Some(entry) = self.entries[number as usize].take() else {
            return;
        };
        self.vacant.push(number);
        let slot = &mut self.batches[entry.batch as usize];
        let Some(batch) = slot else { return };
        self.granted -= 1;
        batch.retired += 1;
        if batch.retired == batch.pages {
            self.revokes += batch.pages as u64;
            // There is room again for whoever was refused.
            self.refused = false;
            *slot = None;
            self.vacant_batches.push(entry.batch);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("granted", &self.granted)
            .field("free", &self.free.len())
            .field("leased", &self.leased)
            .field("quarantined", &self.quarantined)
            .finish_non_exhaustive()
    }
}
