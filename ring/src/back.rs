//! The backend's end of a ring: consumes requests, writes responses.
//!
//! It never initialises the page: a second initialisation would wipe requests that the frontend
//! has already made.

use crate::end::End;
use crate::error::{Corrupt, Full};
use crate::index::Notify;
use crate::layout::{Extras, Layout, RawSlot};
use crate::shared::Page;
use crate::wire::extra::ExtraInfo;

/// The backend's end of a ring.
pub struct BackRing<L: Layout> {
    end: End<L, false>,
}

impl<L: Layout> BackRing<L> {
    /// Attaches to a ring as it stands: starts at its present response producer, so that requests
    /// left unanswered by a backend before us are seen.
    pub fn attach(page: Page) -> Self {
        BackRing {
            end: End::attach(page),
        }
    }

    /// How many responses can be pushed now: requests popped and not answered.
    #[inline(always)]
    pub fn free_responses(&self) -> u32 {
        self.end.free()
    }

    /// The slot that the next response will take.
    #[inline(always)]
    pub fn next_slot(&self) -> u16 {
        self.end.next_slot()
    }

    /// Writes a response over the oldest request that is not answered, and tells its slot.
    #[inline]
    pub fn push(&mut self, response: &L::Response) -> Result<u16, Full> {
        self.end.push(&L::encode_response(response))
    }

    /// Writes the bytes of a slot as they are: for tests that play a broken backend.
    #[doc(hidden)]
    pub fn push_raw(&mut self, raw: &L::Raw) -> Result<u16, Full> {
        self.end.push(raw)
    }

    /// Makes all pushed responses visible at once. Call it once a batch.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        self.end.publish()
    }

    /// How many requests can be popped now. It is a lower bound: the shared index is looked at
    /// only when all known requests are used up.
    #[inline]
    pub fn unconsumed(&mut self) -> Result<u32, Corrupt> {
        self.end.unconsumed()
    }

    /// How many requests can be popped now, with a fresh look at the shared index: a receive
    /// path must know how many pages are posted in all, not only that there are some.
    #[inline]
    pub fn unconsumed_now(&mut self) -> Result<u32, Corrupt> {
        self.end.look()
    }

    /// Copies the next request out of the page, once.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<RawSlot<L>>, Corrupt> {
        self.end.pop()
    }

    /// Before sleeping: asks to be woken by the `after`-th request from here (0 counts as 1), and
    /// looks once more. True: work is there, do not sleep. With `after` greater than 1 it is also
    /// safe to sleep while [`unconsumed`](Self::unconsumed) is less than `after`.
    #[inline]
    pub fn final_check(&mut self, after: u32) -> Result<bool, Corrupt> {
        self.end.final_check(after)
    }

    /// The shared page.
    #[inline(always)]
    pub fn page(&self) -> &Page {
        self.end.page()
    }
}

impl<L: Extras> BackRing<L> {
    /// Writes an extra info over the oldest request that is not answered; `more` says that
    /// another one follows.
    #[inline]
    pub fn push_extra(&mut self, extra: &ExtraInfo, more: bool) -> Result<u16, Full> {
        self.end.push(&L::encode_extra(extra, more))
    }
}

impl<L: Layout> core::fmt::Debug for BackRing<L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.end.describe("BackRing", f)
    }
}
