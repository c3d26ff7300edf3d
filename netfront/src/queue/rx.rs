//! The receive half of a queue: post pages, read responses, hand packets up, post again.

use std::sync::Arc;

use hypervisor::GrantRef;
use xen_ring::{receive, FrontRing, Notify, Page, Rx, RxPacket, RxRequest};

use crate::offload::{self, Headers};
use crate::packet::{Fate, Packet, Piece, Pieces, HEADER_LIMIT};
use crate::pool::{Pool, PoolPage, PoolPolicy};
use crate::stats::QueueStats;
use crate::watch::{flags_of, Event, Watch, What};
use crate::Error;

/// Slots of the ring, and so the most pages that can be posted.
const SLOTS: usize = 256;

/// The longest packet that 19 full pages could carry.
const LINEAR: usize = crate::packet::MAX_FRAGMENTS * xen_ring::PAGE_SIZE;

/// What decides between copying and lending.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RxConfig {
    /// Packets shorter than this are copied whole (H-7); longer ones keep their pages (H-8).
    pub threshold: usize,
    /// The backend is not trusted: everything is copied before it is looked at.
    pub untrusted: bool,
    /// What happens to a page after its packet.
    pub policy: PoolPolicy,
}

impl RxConfig {
    fn copies(&self, len: usize) -> bool {
        len < self.threshold || self.untrusted || self.policy == PoolPolicy::CopyAlways
    }
}

pub(crate) struct RxQueue {
    ring: FrontRing<Rx>,
    pub pool: Pool,
    /// The page in each slot. An id is its slot's number.
    posted: Box<[Option<PoolPage>]>,
    config: RxConfig,
    /// Scratch, made once: the packet as the ring gives it, its pieces, and its copied bytes.
    assembled: RxPacket,
    pieces: Pieces,
    copied: Pieces,
    linear: Box<[u8]>,
    /// Responses read so far.
    pub answered: u64,
    pub watch: Arc<Watch>,
    /// The queue's number for traces, where there are several.
    pub number: Option<u16>,
    /// Something was posted since the last publish.
    unpublished: bool,
}

impl RxQueue {
    pub fn new(page: Page, pool: Pool, config: RxConfig) -> Self {
        Self {
            ring: FrontRing::new(page),
            pool,
            posted: (0..SLOTS).map(|_| None).collect(),
            config,
            assembled: RxPacket::default(),
            pieces: Pieces::new(),
            copied: Pieces::new(),
            linear: vec![0; LINEAR].into_boxed_slice(),
            answered: 0,
            watch: Arc::default(),
            number: None,
            unpublished: false,
        }
    }

    /// Posts a page in every free slot, as far as the pool has pages (H-3, H-4). Nothing is visible
    /// to the backend before [`Self::publish`].
    pub fn refill(&mut self, stats: &QueueStats) {
        let traces = self.watch.on().traces();
        while self.ring.free_requests() > 0 {
            let Some(page) = self.pool.take() else { break };
            let GrantRef(gref) = self.pool.reference(&page);
            // An id equal to its slot: the response is in the slot of its request, so a response that
            // names another id is the backend's mistake, and seen as such.
            let slot = self.ring.next_slot();
            if self.ring.push(&RxRequest { id: slot, gref }).is_err() {
                self.pool.put(page);
                break;
            }
            self.posted[usize::from(slot)] = Some(page);
            self.unpublished = true;
            if traces {
                self.watch.event(&Event {
                    queue: self.number,
                    id: Some(slot),
                    gref: Some(gref),
                    ..Event::new("rx", What::Request)
                });
            }
        }
        if self.is_starved() {
            stats.rx_starved.add(1);
        }
    }

    /// Pages that are posted for the backend to fill.
    pub fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// True if the pool left the ring with hardly a page.
    pub fn is_starved(&self) -> bool {
        (self.ring.in_flight() as usize) < SLOTS / 8
    }

    /// Shows the backend what was posted, if anything was.
    pub fn publish(&mut self) -> Option<Notify> {
        std::mem::take(&mut self.unpublished).then(|| self.ring.publish())
    }

    /// Receives up to `budget` packets and gives each to `deliver`. Returns how many there were.
    pub fn receive(
        &mut self,
        budget: usize,
        stats: &QueueStats,
        mut deliver: impl FnMut(&mut Packet<'_>),
    ) -> Result<usize, Error> {
        let mut seen = 0;
        let traces = self.watch.on().traces();
        // Before anything is posted again: afterwards nobody could tell.
        if self.ring.in_flight() > 0 && self.ring.unconsumed_now()? == self.ring.in_flight() {
            stats.rx_ring_empty.add(1);
        }
        while seen < budget && receive::next(&mut self.ring, &mut self.assembled)? {
            seen += 1;
            if traces {
                self.trace_responses();
            }
            self.claim()?;
            let slots = (self.pieces.len() + self.assembled.unused.len()) as u64;
            self.answered += slots;
            stats.rx_slots.add(slots);
            if let Some(fault) = &self.assembled.fault {
                tracing::debug!(fault = fault.name(), "packet dropped");
                stats.dropped(*fault).add(1);
                self.give_back();
                continue;
            }
            let len = self.assembled.len as usize;
            stats.rx_packets.add(1);
            stats.rx_bytes.add(len as u64);
            stats.count_received(&self.assembled.offload);
            let repaired = offload::repair(&mut self.assembled.offload);
            let head = if self.config.copies(len) {
                stats.rx_small.add(1);
                self.copy_whole()
            } else {
                stats.rx_large.add(1);
                self.copy_head()
            };
            stats.rx_copied_bytes.add(head as u64);
            if repaired {
                stats.rx_gso_checksum_fixup.add(1);
                if let Some(headers) = Headers::parse(&self.linear[..head]) {
                    headers.write_pseudo_checksum(&mut self.linear[..head], len);
                }
            }
            let mut fate = Fate::default();
            deliver(&mut Packet {
                pool: &mut self.pool,
                head: &self.linear[..head],
                pieces: &mut self.pieces,
                offload: self.assembled.offload,
                fate: &mut fate,
            });
            stats.rx_detached.add(fate.detached.into());
            if let Some(bytes) = fate.condensed {
                stats.rx_condensed.add(1);
                stats.rx_copied_bytes.add(bytes as u64);
            }
            // Only now: copy, deliver, clear, return, in this order (H-7).
            let returned = self.give_back();
            if self.config.policy.recycles() {
                stats.rx_recycled.add(returned as u64);
            }
        }
        Ok(seen)
    }

    /// Traces what the slots of the assembled packet held, in the words in which it was judged.
    #[cold]
    fn trace_responses(&self) {
        let packet = &self.assembled;
        let status = packet.fault.map_or("okay", |fault| fault.name());
        let gref = |slot: u16| {
            let page = self.posted.get(usize::from(slot))?.as_ref()?;
            Some(self.pool.reference(page).0)
        };
        let hash = packet.offload.hash.map(|hash| hash.value);
        for (index, fragment) in packet.fragments.iter().enumerate() {
            let last = index + 1 == packet.fragments.len();
            self.watch.event(&Event {
                queue: self.number,
                id: Some(fragment.slot),
                gref: gref(fragment.slot),
                offset: Some(fragment.offset),
                size: Some(fragment.len),
                hash: hash.filter(|_| index == 0),
                flags: &flags_of(&packet.offload, index == 0, last),
                status,
                ..Event::new("rx", What::Response)
            });
        }
        // Extra infos, or slots of a packet that makes no sense.
        for &slot in &packet.unused {
            self.watch.event(&Event {
                queue: self.number,
                id: Some(slot),
                gref: gref(slot),
                flags: &["no_data"],
                status,
                ..Event::new("rx", What::Response)
            });
        }
    }

    /// Takes the pages of the assembled packet out of the slots. Each was validated against its page.
    fn claim(&mut self) -> Result<(), Error> {
        for &slot in &self.assembled.unused {
            // A slot that carried an extra info: its page was not written, and goes back unused.
            let page = take_posted(&mut self.posted, slot)?;
            self.pool.put(page);
        }
        for fragment in &self.assembled.fragments {
            let page = take_posted(&mut self.posted, fragment.slot)?;
            self.pieces.push(Piece {
                page,
                offset: fragment.offset,
                len: fragment.len,
            });
        }
        Ok(())
    }

    /// Copies a packet out of shared memory in full; its pages wait in `copied` until it is delivered.
    fn copy_whole(&mut self) -> usize {
        let mut at = 0;
        for piece in self.pieces.drain(..) {
            let len = usize::from(piece.len);
            let into = &mut self.linear[at..at + len];
            self.pool
                .page(&piece.page)
                .copy_out(usize::from(piece.offset), into);
            at += len;
            self.copied.push(piece);
        }
        at
    }

    /// Copies the headers of a large packet; the rest stays in its pages. A backend may spread the headers
    /// over several slots, however short.
    fn copy_head(&mut self) -> usize {
        let mut at = 0;
        while at < HEADER_LIMIT {
            let Some(first) = self.pieces.first_mut() else {
                break;
            };
            let len = first.len.min((HEADER_LIMIT - at) as u16);
            let into = &mut self.linear[at..at + usize::from(len)];
            self.pool
                .page(&first.page)
                .copy_out(usize::from(first.offset), into);
            first.offset += len;
            first.len -= len;
            at += usize::from(len);
            if first.len == 0 {
                self.copied.push(self.pieces.remove(0));
            }
        }
        at
    }

    /// Clears what the packet left in its pages, if asked to, and returns them to the pool.
    fn give_back(&mut self) -> usize {
        let count = self.copied.len() + self.pieces.len();
        for piece in self.copied.drain(..).chain(self.pieces.drain(..)) {
            // The head was copied from before `offset`: the whole used range of the page is cleared.
            self.pool.scrub(
                &piece.page,
                0,
                usize::from(piece.offset) + usize::from(piece.len),
            );
            self.pool.put(piece.page);
        }
        count
    }

    /// Responses that wait to be read, seen afresh.
    pub fn unconsumed(&mut self) -> Result<u64, Error> {
        Ok(self.ring.unconsumed_now()?.into())
    }

    /// Asks for an event after the `slots`-th response from here and looks once more. True if there is work.
    pub fn final_check(&mut self, slots: u32) -> Result<bool, Error> {
        // More than are posted would never be answered.
        let slots = slots.min(self.ring.in_flight());
        Ok(self.ring.final_check(slots)?)
    }

    /// Withdraws the pages that the backend has not answered: it may write to them still.
    pub fn quarantine(&mut self) {
        for page in self.posted.iter_mut().filter_map(Option::take) {
            self.pool.quarantine(page);
        }
    }
}

fn take_posted(posted: &mut [Option<PoolPage>], slot: u16) -> Result<PoolPage, Error> {
    posted
        .get_mut(usize::from(slot))
        .and_then(Option::take)
        .ok_or(Error::NothingPosted { ring: "rx", slot })
}
