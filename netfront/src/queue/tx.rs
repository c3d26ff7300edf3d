//! The transmit half of a queue: fill granted pages, push requests, take the pages back when answered.

use std::io::IoSliceMut;
use std::sync::Arc;

use arrayvec::ArrayVec;
use hypervisor::GrantRef;
use xen_ring::{
    transmit, FrontRing, Multicast, Notify, Offload, Page, Status, Tx, TxFragment, PAGE_SIZE,
};

use super::multicast::{Filter, Group, MULTICAST_MAX};
use crate::pool::{view_mut, Pool, PoolPage};
use crate::stats::QueueStats;
use crate::watch::{flags_of, Event, Watch, What};
use crate::{Error, SendError};

/// Slots of the ring; as many ids.
const SLOTS: u16 = 256;
/// Slots that a packet may take by the contract (`XEN_NETIF_NR_SLOTS_MIN`).
const MAX_SLOTS: usize = 18;
/// Fragments that the longest packet needs when its first page starts at a staggered offset.
const MAX_PAGES: usize = 17;
/// The length field of a request has 16 bits (`XEN_NETIF_MAX_TX_SIZE`).
const MAX_LEN: usize = 0xffff;

/// What the backend was told about multicast over this ring.
#[derive(Default)]
pub(super) struct Told {
    pub groups: ArrayVec<Group, MULTICAST_MAX>,
    /// It has refused one.
    pub refused: bool,
    /// What the store says, as far as this queue knows.
    pub filtering: Option<bool>,
    pub filter: Arc<Filter>,
}

impl Told {
    /// Says in the store whether the backend is to filter, if it is not said already.
    pub fn let_filter(&mut self, on: bool) {
        if self.filtering != Some(on) {
            self.filtering = Some(on);
            self.filter.set(on);
        }
    }

    /// The backend has refused a group.
    fn refuse(&mut self) {
        self.refused = true;
        self.let_filter(false);
    }
}

pub(crate) struct TxQueue {
    ring: FrontRing<Tx>,
    pub pool: Pool,
    in_flight: Box<[Option<PoolPage>]>,
    ids: Vec<u16>,
    /// Pages that the next packet from a file descriptor will be read into.
    reserve: ArrayVec<PoolPage, MAX_PAGES>,
    stagger: usize,
    /// Slots with extra infos that the backend has not answered: it answers these, and no others, with NULL.
    extras: u32,
    /// Ids of requests about multicast, which have no page.
    asked: ArrayVec<u16, { SLOTS as usize }>,
    pub(super) multicast: Told,
    pub watch: Arc<Watch>,
    /// The queue's number for traces, where there are several.
    pub number: Option<u16>,
    /// Something was pushed since the last publish.
    unpublished: bool,
}

impl TxQueue {
    pub fn new(page: Page, pool: Pool) -> Self {
        Self {
            ring: FrontRing::new(page),
            pool,
            in_flight: (0..SLOTS).map(|_| None).collect(),
            ids: (0..SLOTS).rev().collect(),
            reserve: ArrayVec::new(),
            stagger: 0,
            extras: 0,
            asked: ArrayVec::new(),
            multicast: Told::default(),
            watch: Arc::default(),
            number: None,
            unpublished: false,
        }
    }

    /// True if the longest packet would find its slots, as Linux stops its queue, and its pages: a source
    /// that is asked in vain would be asked again at once, and for ever.
    pub fn has_room(&self) -> bool {
        self.ring.free_requests() as usize > MAX_SLOTS
            && self.ids.len() >= MAX_PAGES
            && self.reserve.len() + self.pool.room() >= MAX_PAGES
    }

    /// Requests that the backend has not answered.
    pub fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// Copies a packet into granted pages and pushes its requests.
    pub fn send(
        &mut self,
        slices: &[&[u8]],
        offload: Offload,
        stats: &QueueStats,
    ) -> Result<(), SendError> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if len == 0 || len > MAX_LEN {
            stats.tx_drop_too_long.add(1);
            return Err(SendError::Length(len));
        }
        let offset = self.next_offset(len);
        let pages = (offset + len).div_ceil(PAGE_SIZE);
        let slots = pages + offload.extra_slots() as usize;
        if (self.ring.free_requests() as usize) < slots || self.ids.len() < pages {
            return Err(SendError::Full);
        }
        let mut fragments = ArrayVec::<TxFragment, MAX_SLOTS>::new();
        let mut writer = Writer {
            slices: slices.iter(),
            now: &[],
        };
        let mut left = len;
        for index in 0..pages {
            let Some(page) = self.pool.take() else {
                self.abandon(&fragments);
                return Err(SendError::Full);
            };
            let start = if index == 0 { offset } else { 0 };
            let fill = left.min(PAGE_SIZE - start);
            writer.fill(self.pool.page(&page), start, fill);
            left -= fill;
            let fragment = self.submit(page, start, fill);
            fragments.push(fragment);
        }
        stats.tx_copied_bytes.add(len as u64);
        self.push(&fragments, len, offload, stats);
        Ok(())
    }

    /// Lets `fill` write a packet straight into granted pages: one `readv`, no copy of ours.
    ///
    /// `fill` gets the pages' memory and returns the packet's length with its offloads, or `None`
    /// if there is no packet. Returns whether one was taken; it is not called while the ring is full.
    pub fn send_filled<E>(
        &mut self,
        stats: &QueueStats,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<Option<(usize, Offload)>, E>,
    ) -> Result<bool, E> {
        if !self.has_room() {
            // Asked before the packet is read: one that was read and finds no slots would be lost.
            return Ok(false);
        }
        while !self.reserve.is_full() {
            match self.pool.take() {
                Some(page) => self.reserve.push(page),
                // Too few pages for the longest packet: its tail would be cut off.
                None => return Ok(false),
            }
        }
        let offset = self.next_offset(0);
        let mut start = offset;
        let mut slices = ArrayVec::<IoSliceMut<'_>, MAX_PAGES>::new();
        for held in &mut self.reserve {
            let page = self.pool.page(held);
            slices.push(IoSliceMut::new(view_mut(page, held, start)));
            start = 0;
        }
        let Some((len, offload)) = fill(&mut slices)? else {
            return Ok(false);
        };
        drop(slices);
        if len == 0 || len > MAX_LEN {
            stats.tx_drop_too_long.add(1);
            return Ok(true);
        }
        let pages = (offset + len).div_ceil(PAGE_SIZE);
        let mut fragments = ArrayVec::<TxFragment, MAX_SLOTS>::new();
        let mut left = len;
        let mut used: ArrayVec<PoolPage, MAX_PAGES> = self.reserve.drain(..pages).collect();
        for (index, page) in used.drain(..).enumerate() {
            let start = if index == 0 { offset } else { 0 };
            let fill = left.min(PAGE_SIZE - start);
            left -= fill;
            fragments.push(self.submit(page, start, fill));
        }
        self.push(&fragments, len, offload, stats);
        Ok(true)
    }

    /// Asks for the packets of a group, or for no more of them: two slots. False if there is no room now.
    pub fn ask_multicast(&mut self, wish: Multicast) -> bool {
        let Some(&id) = self.ids.last() else {
            return false;
        };
        if transmit::push_multicast(&mut self.ring, id, wish).is_err() {
            return false;
        }
        self.ids.pop();
        // There are as many as ids.
        let _ = self.asked.try_push(id);
        self.extras += 1;
        self.unpublished = true;
        let groups = &mut self.multicast.groups;
        match wish {
            // As many as there is room for: whoever asks has counted them.
            Multicast::Add(group) => {
                let _ = groups.try_push(group);
            }
            Multicast::Del(group) => groups.retain(|known| *known != group),
        }
        true
    }

    /// True for the answer to a request about multicast, which is taken here.
    fn is_about_multicast(&mut self, id: u16, status: Status, stats: &QueueStats) -> bool {
        let Some(at) = self.asked.iter().position(|&asked| asked == id) else {
            return false;
        };
        self.asked.swap_remove(at);
        self.ids.push(id);
        if status != Status::Okay {
            // Until the next connection everything is let through, from now on: the backend filters a group that was joined.
            self.multicast.refuse();
            stats.multicast_refused.add(1);
        }
        true
    }

    /// Start offsets walk over the cache lines of a page: at offset 0 everywhere, all headers would
    /// compete for the same sets of the cache (2 to 9 times slower at 64 bytes). A packet that fits in
    /// a page stays in one.
    fn next_offset(&mut self, len: usize) -> usize {
        const LINE: usize = 64;
        const LINES: usize = 16;
        self.stagger = (self.stagger + 7) % LINES;
        let offset = self.stagger * LINE;
        if offset + len <= PAGE_SIZE {
            offset
        } else {
            0
        }
    }

    fn submit(&mut self, page: PoolPage, offset: usize, len: usize) -> TxFragment {
        let GrantRef(gref) = self.pool.reference(&page);
        // There are as many ids as slots, and the slots were counted before.
        let id = self.ids.pop().unwrap_or_default();
        self.in_flight[usize::from(id)] = Some(page);
        TxFragment {
            id,
            gref,
            offset: offset as u16,
            len: len as u16,
        }
    }

    fn abandon(&mut self, fragments: &[TxFragment]) {
        for fragment in fragments {
            if let Some(page) = self.in_flight[usize::from(fragment.id)].take() {
                self.pool.put(page);
                self.ids.push(fragment.id);
            }
        }
    }

    fn push(&mut self, fragments: &[TxFragment], len: usize, offload: Offload, stats: &QueueStats) {
        match transmit::push(&mut self.ring, fragments, &offload) {
            Ok(slots) => {
                stats.tx_packets.add(1);
                stats.tx_bytes.add(len as u64);
                stats.tx_slots.add(slots as u64);
                stats.count_sent(&offload);
                self.extras += offload.extra_slots();
                self.unpublished = true;
                let on = self.watch.on();
                if on.captures() {
                    self.capture(fragments, len);
                }
                if on.traces() {
                    self.trace_requests(fragments, &offload);
                }
            }
            Err(error) => {
                // Room was checked before; what is left is a packet for which a backend would close the
                // vif: without an Ethernet header, or with segments of no size.
                tracing::debug!("not sent: {error}");
                stats.tx_drop_refused.add(1);
                self.abandon(fragments);
            }
        }
    }

    /// Captures a packet as it lies in its pages.
    #[cold]
    fn capture(&self, fragments: &[TxFragment], len: usize) {
        self.watch.packet(len, |mut into| {
            for fragment in fragments {
                let Some(page) = &self.in_flight[usize::from(fragment.id)] else {
                    break;
                };
                let kept = into.len().min(usize::from(fragment.len));
                let (part, rest) = std::mem::take(&mut into).split_at_mut(kept);
                let offset = usize::from(fragment.offset);
                self.pool.page(page).copy_out(offset, part);
                into = rest;
            }
        });
    }

    #[cold]
    fn trace_requests(&self, fragments: &[TxFragment], offload: &Offload) {
        for (index, fragment) in fragments.iter().enumerate() {
            let last = index + 1 == fragments.len();
            self.watch.event(&Event {
                queue: self.number,
                id: Some(fragment.id),
                gref: Some(fragment.gref),
                offset: Some(fragment.offset),
                size: Some(fragment.len),
                hash: offload.hash.filter(|_| index == 0).map(|hash| hash.value),
                flags: &flags_of(offload, index == 0, last),
                ..Event::new("tx", What::Request)
            });
        }
    }

    #[cold]
    fn trace_response(&self, id: u16, status: Status) {
        let status = match status {
            Status::Okay => "okay",
            Status::Dropped => "dropped",
            // The answer to an extra info, whose id is left unwritten.
            Status::Null => "null",
            _ => "error",
        };
        self.watch.event(&Event {
            queue: self.number,
            id: (status != "null").then_some(id),
            status,
            ..Event::new("tx", What::Response)
        });
    }

    /// Shows the backend what was pushed, if anything was.
    pub fn publish(&mut self) -> Option<Notify> {
        std::mem::take(&mut self.unpublished).then(|| self.ring.publish())
    }

    /// Takes back the pages of answered requests. Returns how many responses there were.
    pub fn reclaim(&mut self, stats: &QueueStats) -> Result<usize, Error> {
        let mut seen = 0;
        let traces = self.watch.on().traces();
        while let Some(slot) = self.ring.pop()? {
            seen += 1;
            let response = slot.response();
            if traces {
                self.trace_response(response.id, response.status);
            }
            if response.status != Status::Null
                && !self.asked.is_empty()
                && self.is_about_multicast(response.id, response.status, stats)
            {
                continue;
            }
            match response.status {
                // The slot held an extra info. netback leaves the id of these unwritten.
                Status::Null if self.extras > 0 => {
                    self.extras -= 1;
                    continue;
                }
                Status::Null => {
                    return Err(Error::NothingPosted {
                        ring: "tx",
                        slot: slot.slot(),
                    })
                }
                Status::Okay => {}
                Status::Dropped => stats.tx_dropped.add(1),
                _ => stats.tx_errors.add(1),
            }
            let page = self
                .in_flight
                .get_mut(usize::from(response.id))
                .and_then(Option::take)
                .ok_or(Error::NothingPosted {
                    ring: "tx",
                    slot: response.id,
                })?;
            self.pool.put(page);
            self.ids.push(response.id);
        }
        Ok(seen)
    }

    /// Responses that wait to be read, seen afresh.
    pub fn unconsumed(&mut self) -> Result<u64, Error> {
        Ok(self.ring.unconsumed_now()?.into())
    }

    /// Asks for an event when about half of the requests in flight are answered, and looks once more.
    ///
    /// Each response alone is not worth a wake-up, but a full ring must wake its source while
    /// the backend still has work.
    pub fn final_check(&mut self) -> Result<bool, Error> {
        let after = self.ring.in_flight() / 2 + 1;
        Ok(self.ring.final_check(after)?)
    }

    /// Withdraws the pages that the backend has not answered: it may read from them still.
    pub fn quarantine(&mut self) {
        for page in self.in_flight.iter_mut().filter_map(Option::take) {
            self.pool.quarantine(page);
        }
        for page in self.reserve.drain(..) {
            self.pool.put(page);
        }
    }
}

/// Walks over a packet given in slices.
struct Writer<'a> {
    slices: std::slice::Iter<'a, &'a [u8]>,
    now: &'a [u8],
}

impl Writer<'_> {
    /// Copies the next `len` bytes of the packet into the page.
    fn fill(&mut self, page: &Page, mut offset: usize, mut len: usize) {
        while len > 0 {
            if self.now.is_empty() {
                match self.slices.next() {
                    Some(slice) => self.now = slice,
                    None => return,
                }
            }
            let (part, rest) = self.now.split_at(len.min(self.now.len()));
            page.copy_in(offset, part);
            self.now = rest;
            offset += part.len();
            len -= part.len();
        }
    }
}
