//! To the guest: frames of a burst, copied into the pages that it has posted.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use hypervisor::{Copy, CopyStatus, Direction, GrantRef};
use xen_ring::{
    receive, Checksum, GsoKind, Offload, RxFlags, RxFragment, RxRequest, RxResponse, Status,
    PAGE_SIZE, SLOTS_MAX,
};

use super::fetch::COPIES;
use super::{Fault, Vif};
use crate::frame::{Spot, BATCH, LINE};
use crate::packet;
use crate::vif::Buffers;

/// Slots of one frame: the fragments and two extra infos.
const SLOTS: usize = SLOTS_MAX + 2;

/// A frame that is about to be copied.
struct Plan {
    queue: usize,
    /// The requests that it takes, those for the extra infos included, in order.
    ids: ArrayVec<u16, SLOTS>,
    fragments: ArrayVec<RxFragment, SLOTS_MAX>,
    offload: Offload,
    /// Its first copy.
    first: usize,
    len: usize,
}

/// The room in which a batch is planned.
pub(crate) struct Deliver {
    plans: Vec<Plan>,
    operations: Vec<Copy>,
    stagger: bool,
}

/// What keeps a frame from being planned.
enum Obstacle {
    /// There are not enough posted pages.
    Wait,
    /// The copies of this batch are used up.
    BatchFull,
}

impl Deliver {
    pub(crate) fn new(stagger: bool) -> Self {
        Deliver {
            plans: Vec::with_capacity(BATCH),
            operations: Vec::with_capacity(COPIES),
            stagger,
        }
    }
}

impl Vif {
    /// Puts as many frames of the burst as the guest has posted pages for into its rings. True when
    /// something was done.
    pub(super) fn deliver(&mut self, buffers: &mut Buffers) -> Result<bool, Fault> {
        let mut worked = false;
        if self.is_stalled() {
            if !self.look_for_pages()? {
                self.drop_without_carrier(&mut buffers.burst);
                return Ok(false);
            }
            worked = true;
        }
        if buffers.burst.is_empty() {
            return Ok(worked);
        }
        loop {
            let before = buffers.burst.next;
            let waiting = self.plan(buffers)?;
            worked |= buffers.burst.next > before;
            self.carry_out(buffers)?;
            if buffers.burst.next == buffers.burst.len() {
                buffers.burst.clear();
                self.blocked = None;
                // Also where the frame that waited went by another queue, or to nobody, since the guest has asked for that
                // meanwhile: pages that nobody waits for would keep the thread awake, or take the carrier off.
                for queue in &mut self.queues {
                    queue.wanted = 0;
                }
                return Ok(worked);
            }
            if worked {
                self.blocked = None;
            }
            if waiting {
                if self.look_for_stall() {
                    self.drop_without_carrier(&mut buffers.burst);
                    return Ok(true);
                }
                return Ok(worked || self.expire(buffers));
            }
        }
    }

    /// Drops the frames that wait, if they have waited too long: a guest that posts no pages must
    /// not hold up those who send to it, nor its own frames behind an echo, for ever.
    fn expire(&mut self, buffers: &mut Buffers) -> bool {
        let since = *self.blocked.get_or_insert_with(Instant::now);
        if since.elapsed() < self.patience() {
            return false;
        }
        let burst = &mut buffers.burst;
        self.counters
            .rx_expired
            .add((burst.len() - burst.next) as u64);
        burst.clear();
        self.blocked = None;
        for queue in &mut self.queues {
            queue.wanted = 0;
        }
        true
    }

    /// netback's times: `rx_drain_timeout_msecs`, and what it takes for a guest that does not say
    /// when it has posted pages.
    fn patience(&self) -> Duration {
        Duration::from_millis(if self.front.rx_notify { 10_000 } else { 30 })
    }

    /// When the frames that wait will be dropped, for themselves or with the carrier.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        let expiry = self.blocked.map(|since| since + self.patience());
        [expiry, self.stalls_at()].into_iter().flatten().min()
    }

    /// Plans frames until the batch is full. True when a frame has to wait for the guest.
    fn plan(&mut self, buffers: &mut Buffers) -> Result<bool, Fault> {
        let Buffers { deliver, burst, .. } = buffers;
        deliver.plans.clear();
        deliver.operations.clear();
        while let Some(spot) = burst.spots.get(burst.next).copied() {
            let frame = &mut burst.buffer.as_mut_slice()[spot.at..spot.at + spot.len];
            if self.multicast.filters(frame) {
                self.counters.rx_filtered.add(1);
            } else if let Some(offload) = self.suit(frame, spot.offload) {
                let queue = match self.queues.len() {
                    1 => 0,
                    many => self
                        .hashing
                        .queue(offload.hash, many)
                        .unwrap_or_else(|| packet::flow_hash(frame) as usize % many),
                };
                match self.plan_one(deliver, queue, spot, offload)? {
                    None => {}
                    Some(Obstacle::Wait) => return Ok(true),
                    Some(Obstacle::BatchFull) => return Ok(false),
                }
            } else {
                self.counters.rx_unsupported.add(1);
            }
            burst.next += 1;
        }
        Ok(false)
    }

    /// What to say about a frame, and its checksum filled in if the guest does not do that. None
    /// when the guest cannot take such a frame.
    fn suit(&self, frame: &mut [u8], mut offload: Offload) -> Option<Offload> {
        // For a guest that has asked for hashes over the control ring.
        offload.hash = self.hashing.of(frame);
        let segments = match offload.gso.map(|gso| gso.kind) {
            None => true,
            Some(GsoKind::TcpV4) => self.front.gso_tcpv4,
            Some(GsoKind::TcpV6) => self.front.gso_tcpv6,
        };
        if !segments || (!self.front.sg && frame.len() > PAGE_SIZE) {
            return None;
        }
        if offload.checksum == Checksum::Blank {
            let able = match packet::is_ipv6(frame) {
                true => self.front.ipv6_csum_offload,
                false => self.front.csum_offload,
            };
            if !able {
                packet::fill_checksum(frame)?;
                offload.checksum = Checksum::Validated;
                self.counters.checksums_filled.add(1);
            }
        }
        Some(offload)
    }

    #[inline]
    fn plan_one(
        &mut self,
        deliver: &mut Deliver,
        index: usize,
        spot: Spot,
        offload: Offload,
    ) -> Result<Option<Obstacle>, Fault> {
        let data = spot.len.div_ceil(PAGE_SIZE);
        let slots = data + offload.extra_slots() as usize;
        if deliver.plans.len() == BATCH || deliver.operations.len() + data > COPIES {
            return Ok(Some(Obstacle::BatchFull));
        }
        let queue = &mut self.queues[index];
        // The cheap look first: the shared index is read only when what is known does not do.
        if (queue.rx.unconsumed()? as usize) < slots
            && (queue.rx.unconsumed_now()? as usize) < slots
        {
            if queue.wanted == 0 {
                self.counters.rx_waits.add(1);
            }
            queue.wanted = slots as u32;
            return Ok(Some(Obstacle::Wait));
        }
        queue.wanted = 0;
        let mut plan = Plan {
            queue: index,
            ids: ArrayVec::new(),
            fragments: ArrayVec::new(),
            offload,
            first: deliver.operations.len(),
            len: spot.len,
        };
        // The extra infos take the slots behind the first fragment; their pages stay empty.
        let extras = 1..1 + (slots - data);
        let mut done = 0;
        for slot in 0..slots {
            let Some(raw) = queue.rx.pop()? else { break };
            let RxRequest { id, gref } = raw.request();
            plan.ids.push(id);
            if extras.contains(&slot) {
                continue;
            }
            let left = spot.len - done;
            let offset = match (slot, deliver.stagger) {
                (0, true) => stagger(gref, left),
                _ => 0,
            };
            let len = left.min(PAGE_SIZE - offset);
            deliver.operations.push(Copy {
                gref: GrantRef(gref),
                // Both are at most 4096.
                offset: offset as u16,
                len: len as u16,
                local: spot.at + done,
                direction: Direction::ToDomain,
                status: CopyStatus::Okay,
            });
            plan.fragments.push(RxFragment {
                slot: id,
                offset: offset as u16,
                len: len as u16,
            });
            done += len;
        }
        deliver.plans.push(plan);
        Ok(None)
    }

    /// Copies what was planned, and tells the guest.
    fn carry_out(&mut self, buffers: &mut Buffers) -> Result<(), Fault> {
        let Buffers { deliver, burst, .. } = buffers;
        if deliver.plans.is_empty() {
            return Ok(());
        }
        self.copy(&mut burst.buffer, &mut deliver.operations);
        let (mut packets, mut bytes, mut slots, mut failed, mut hashed) = (0, 0, 0, 0, 0);
        for plan in &deliver.plans {
            let ring = &mut self.queues[plan.queue].rx;
            let copies = &deliver.operations[plan.first..plan.first + plan.fragments.len()];
            if copies.iter().all(|copy| copy.status.is_okay()) {
                receive::push(ring, &plan.fragments, &plan.offload)?;
                packets += 1;
                hashed += u64::from(plan.offload.hash.is_some());
                bytes += plan.len as u64;
                slots += plan.fragments.len() as u64;
            } else {
                // Each slot by itself: what was copied of the frame means nothing without the rest.
                for id in &plan.ids {
                    ring.push(&RxResponse {
                        id: *id,
                        offset: 0,
                        flags: RxFlags::NONE,
                        status: Status::Error.to_raw(),
                    })?;
                }
                failed += 1;
            }
        }
        for index in 0..self.queues.len() {
            if deliver.plans.iter().any(|plan| plan.queue == index) {
                self.queues[index].watch.delivered();
                let notify = self.queues[index].rx.publish();
                self.ring(self.queues[index].rx_port, notify);
            }
        }
        let counters = &self.counters;
        counters.rx_packets.add(packets);
        counters.rx_bytes.add(bytes);
        counters.rx_slots.add(slots);
        counters.rx_hashed.add(hashed);
        counters.rx_copy_failed.add(failed);
        if failed > 0 {
            self.say_gone("copying into the guest's pages failed");
        }
        Ok(())
    }
}

/// Bytes of a frame that are always in its first slot, if it has so many: all headers, with room for the longest that
/// large segments have. Frontends look for them there.
const HEADERS: usize = 256;

/// Where in its first page a frame starts, `left` bytes of which are to go. Frames that all start
/// at offset 0 fall into the same few cache sets. The page decides, so that a page that is used
/// again and again is used at the same, warm, place; and no frame takes more slots for it.
#[inline]
fn stagger(gref: u32, left: usize) -> usize {
    let room = (left.next_multiple_of(PAGE_SIZE) - left).min(PAGE_SIZE - left.min(HEADERS));
    match room / LINE {
        0 => 0,
        lines => (gref.wrapping_mul(7) as usize % (lines + 1)) * LINE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staggered_frame_takes_no_more_slots_than_one_that_starts_at_0() {
        for len in [1, 64, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 65_535] {
            for gref in 0..200 {
                let offset = stagger(gref, len);
                let slots = (offset + len).div_ceil(PAGE_SIZE);
                assert_eq!(
                    slots,
                    len.div_ceil(PAGE_SIZE),
                    "length {len}, offset {offset}"
                );
                assert!(offset < PAGE_SIZE && offset.is_multiple_of(LINE));
                assert!(PAGE_SIZE - offset >= len.min(HEADERS), "length {len}");
            }
        }
    }

    #[test]
    fn small_frames_are_spread_over_all_lines_of_a_page() {
        let mut offsets: Vec<usize> = (0..64).map(|gref| stagger(gref, 64)).collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), 64);
    }
}
