//! What both ends of a ring have in common: each produces on one side and consumes on the other.
//!
//! Invariants, with wrapping distances: for the frontend `consumed <= seen <= published <= produced`,
//! for the backend `published <= produced <= consumed <= seen`, and never more than `SLOTS` between
//! the first and the last. The private indices are never read back from the page: the peer could
//! have changed them.

use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use crate::error::{Corrupt, CorruptReason, Full};
use crate::index::{Notify, RingIndex};
use crate::layout::{Layout, RawSlot};
use crate::shared::{full_fence, Page};

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const SLOTS_START: usize = 64;

/// One end of a ring; `FRONT` tells which.
pub(crate) struct End<L: Layout, const FRONT: bool> {
    page: Page,
    /// Next slot that this end writes.
    produced: RingIndex,
    /// What the peer has been told of `produced`.
    published: RingIndex,
    /// Next slot that this end reads.
    consumed: RingIndex,
    /// The peer's producer index when last looked at, already judged.
    seen: RingIndex,
    layout: PhantomData<fn() -> L>,
}

impl<L: Layout, const FRONT: bool> End<L, FRONT> {
    const OWN_PROD: usize = if FRONT { REQ_PROD } else { RSP_PROD };
    /// The peer wants to be woken when our producer passes this.
    const PEER_EVENT: usize = if FRONT { REQ_EVENT } else { RSP_EVENT };
    const PEER_PROD: usize = if FRONT { RSP_PROD } else { REQ_PROD };
    /// We want to be woken when the peer's producer passes this.
    const OWN_EVENT: usize = if FRONT { RSP_EVENT } else { REQ_EVENT };

    /// Writes a fresh ring, all zero but the indices (`SHARED_RING_INIT`).
    pub(crate) fn initialise(page: Page, start: RingIndex) -> Self {
        page.fill(0, crate::PAGE_SIZE, 0);
        page.store(REQ_PROD, start.0, Ordering::Relaxed);
        page.store(RSP_PROD, start.0, Ordering::Relaxed);
        page.store(REQ_EVENT, start.advance(1).0, Ordering::Relaxed);
        page.store(RSP_EVENT, start.advance(1).0, Ordering::Release);
        Self::at(page, start)
    }

    /// Takes a ring as it stands, from its present response producer on (`BACK_RING_ATTACH`).
    pub(crate) fn attach(page: Page) -> Self {
        let start = RingIndex(page.load(RSP_PROD, Ordering::Acquire));
        Self::at(page, start)
    }

    fn at(page: Page, start: RingIndex) -> Self {
        End {
            page,
            produced: start,
            published: start,
            consumed: start,
            seen: start,
            layout: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn page(&self) -> &Page {
        &self.page
    }

    /// How many slots this end may write now.
    #[inline(always)]
    pub(crate) fn free(&self) -> u32 {
        if FRONT {
            // A slot is free again when the response that replaced its request was consumed.
            L::SLOTS - self.produced.distance(self.consumed)
        } else {
            // A response needs a request that was consumed and not yet answered.
            self.consumed.distance(self.produced)
        }
    }

    /// Requests that the frontend wrote and that are not answered (as far as it consumed).
    #[inline(always)]
    pub(crate) fn in_flight(&self) -> u32 {
        self.produced.distance(self.consumed)
    }

    #[inline(always)]
    pub(crate) fn next_slot(&self) -> u16 {
        self.produced.slot(L::SLOTS)
    }

    #[inline(always)]
    fn offset(index: RingIndex) -> usize {
        SLOTS_START + usize::from(index.slot(L::SLOTS)) * L::SLOT_SIZE
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, raw: &L::Raw) -> Result<u16, Full> {
        if self.free() == 0 {
            return Err(Full { ring: L::NAME });
        }
        let slot = self.next_slot();
        L::store(&self.page, Self::offset(self.produced), raw);
        self.produced = self.produced.advance(1);
        Ok(slot)
    }

    /// Makes everything pushed visible with one store, and asks whether the peer sleeps.
    #[inline]
    pub(crate) fn publish(&mut self) -> Notify {
        let old = self.published;
        let new = self.produced;
        if new == old {
            return Notify::NotNeeded;
        }
        // Release: a peer that sees the index must see the slots, else it reads old bytes.
        self.page.store(Self::OWN_PROD, new.0, Ordering::Release);
        self.published = new;
        // The index must be out before the event index is read. Otherwise both ends could look
        // first and write second: the peer sleeps, and we think that it is awake.
        full_fence();
        let event = RingIndex(self.page.load(Self::PEER_EVENT, Ordering::Relaxed));
        new.passes(old, event)
    }

    /// The most that a correct peer can have produced beyond what was consumed.
    #[inline(always)]
    fn allowed(&self) -> u32 {
        if FRONT {
            // Only what was published can be answered. (ring.h checks against the ring's size
            // only; a response to a request never made would pass there.)
            self.published.distance(self.consumed)
        } else {
            // A request may not overwrite a slot that still waits for its response.
            L::SLOTS - self.consumed.distance(self.produced)
        }
    }

    /// Loads the peer's producer index and judges it.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<u32, Corrupt> {
        // Acquire: the slots are read after the index that announces them.
        let producer = RingIndex(self.page.load(Self::PEER_PROD, Ordering::Acquire));
        let claimed = producer.distance(self.consumed);
        let allowed = self.allowed();
        if claimed > allowed {
            return Err(self.overrun(producer, claimed, allowed));
        }
        self.seen = producer;
        Ok(claimed)
    }

    #[cold]
    fn overrun(&self, producer: RingIndex, claimed: u32, allowed: u32) -> Corrupt {
        Corrupt {
            ring: L::NAME,
            reason: CorruptReason::ProducerOverrun {
                producer: producer.0,
                consumer: self.consumed.0,
                claimed,
                allowed,
            },
        }
    }

    /// Slots ready to be consumed; looks into the page only when the known ones are used up.
    #[inline(always)]
    pub(crate) fn unconsumed(&mut self) -> Result<u32, Corrupt> {
        match self.seen.distance(self.consumed) {
            0 => self.look(),
            known => Ok(known),
        }
    }

    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Result<Option<RawSlot<L>>, Corrupt> {
        if self.unconsumed()? == 0 {
            return Ok(None);
        }
        let slot = self.consumed.slot(L::SLOTS);
        let raw = L::load(&self.page, Self::offset(self.consumed));
        self.consumed = self.consumed.advance(1);
        Ok(Some(RawSlot::new(slot, raw)))
    }

    /// Asks to be woken `after` slots from here, then looks once more.
    #[inline]
    pub(crate) fn final_check(&mut self, after: u32) -> Result<bool, Corrupt> {
        let event = self.consumed.advance(after.max(1));
        self.page.store(Self::OWN_EVENT, event.0, Ordering::Relaxed);
        // Pairs with the fence in `publish`: either the peer sees the new event index, or we see
        // its new producer index. Without it, both could miss each other and the wake-up is lost.
        full_fence();
        Ok(self.look()? != 0)
    }
    /// The private indices, for a diagnosis.
    pub(crate) fn describe(
        &self,
        name: &str,
        f: &mut core::fmt::Formatter<'_>,
    ) -> core::fmt::Result {
        f.debug_struct(name)
            .field("ring", &L::NAME)
            .field("produced", &self.produced.0)
            .field("published", &self.published.0)
            .field("consumed", &self.consumed.0)
            .field("seen", &self.seen.0)
            .finish()
    }
}
