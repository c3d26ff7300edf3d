//! The frontend's end of a ring: writes requests, consumes responses.
//!
//! It owns the page and is the only one who initialises it. Each method that looks at what the
//! backend wrote can find the ring [`Corrupt`]; then the device goes down.

use crate::end::End;
use crate::error::{Corrupt, Full};
use crate::index::{Notify, RingIndex};
use crate::layout::{Extras, Layout, RawSlot, Rx};
use crate::shared::Page;
use crate::wire::extra::ExtraInfo;
use crate::wire::rx::RxRequest;

/// The frontend's end of a ring.
pub struct FrontRing<L: Layout> {
    end: End<L, true>,
}

impl<L: Layout> FrontRing<L> {
    /// Initialises `page` as an empty ring. Do this before the backend is told of the page, on
    /// every connect: some backends start at index 0 whatever the page says.
    pub fn new(page: Page) -> Self {
        Self::starting_at(page, 0)
    }

    /// As [`new`](Self::new), with the indices near `start`, to test what happens when they wrap.
    #[doc(hidden)]
    pub fn starting_at(page: Page, start: u32) -> Self {
        FrontRing {
            end: End::initialise(page, RingIndex(start)),
        }
    }

    /// How many requests can be pushed now.
    #[inline(always)]
    pub fn free_requests(&self) -> u32 {
        self.end.free()
    }

    /// Requests pushed whose responses were not popped yet.
    #[inline(always)]
    pub fn in_flight(&self) -> u32 {
        self.end.in_flight()
    }

    /// The slot that the next request will take.
    #[inline(always)]
    pub fn next_slot(&self) -> u16 {
        self.end.next_slot()
    }

    /// Writes a request into the next free slot, and tells which. The backend sees it after
    /// [`publish`](Self::publish).
    #[inline]
    pub fn push(&mut self, request: &L::Request) -> Result<u16, Full> {
        self.end.push(&L::encode_request(request))
    }

    /// Writes the bytes of a slot as they are: for tests that play a broken frontend.
    #[doc(hidden)]
    pub fn push_raw(&mut self, raw: &L::Raw) -> Result<u16, Full> {
        self.end.push(raw)
    }

    /// Makes all pushed requests visible at once. Call it once a batch.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        self.end.publish()
    }

    /// How many responses can be popped now. It is a lower bound: the shared index is looked at
    /// only when all known responses are used up.
    #[inline]
    pub fn unconsumed(&mut self) -> Result<u32, Corrupt> {
        self.end.unconsumed()
    }

    /// How many responses can be popped now, with a fresh look at the shared index.
    #[inline]
    pub fn unconsumed_now(&mut self) -> Result<u32, Corrupt> {
        self.end.look()
    }

    /// Copies the next response out of the page, once.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<RawSlot<L>>, Corrupt> {
        self.end.pop()
    }

    /// Before sleeping: asks to be woken by the `after`-th response from here (0 counts as 1), and
    /// looks once more. True: work is there, do not sleep. With `after` greater than 1 it is also
    /// safe to sleep while [`unconsumed`](Self::unconsumed) is less than `after`; never ask for
    /// more than is [in flight](Self::in_flight), it would not come.
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

impl<L: Extras> FrontRing<L> {
    /// Writes an extra info into the next free slot; `more` says that another one follows.
    #[inline]
    pub fn push_extra(&mut self, extra: &ExtraInfo, more: bool) -> Result<u16, Full> {
        self.end.push(&L::encode_extra(extra, more))
    }
}

impl FrontRing<Rx> {
    /// Posts an empty page, with the slot as its id: [`receive::next`](crate::receive::next)
    /// depends on that.
    #[inline]
    pub fn post(&mut self, gref: u32) -> Result<u16, Full> {
        let id = self.next_slot();
        self.push(&RxRequest { id, gref })
    }
}

impl<L: Layout> core::fmt::Debug for FrontRing<L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.end.describe("FrontRing", f)
    }
}
