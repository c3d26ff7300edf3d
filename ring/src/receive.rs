//! Packets on the receive ring: slots into packets for a frontend, packets into slots for a
//! backend.
//!
//! A received packet is one response or more. Each tells its own size; the first is followed by
//! extra infos, if it says so, which lie where responses would and have no id. Whatever the backend
//! writes is judged here and nowhere else: who comes after sees fragments that lie inside their
//! pages.
//!
//! Invariant: every slot that was consumed is reported exactly once, in
//! [`fragments`](RxPacket::fragments) or in [`unused`](RxPacket::unused), be the packet good or
//! bad, so that no page is lost.

use arrayvec::ArrayVec;

use crate::error::{Corrupt, CorruptReason, Full, PacketFault};
use crate::layout::{Layout, RawSlot, Rx};
use crate::offload::Offload;
use crate::wire::extra::{ExtraError, TYPES};
use crate::wire::flags::RxFlags;
use crate::wire::rx::RxResponse;
use crate::{BackRing, FrontRing, ETHERNET_HEADER, PAGE_SIZE, SLOTS_MAX};

/// A first response of up to so many bytes does not count as a fragment: it is all header, and
/// Linux accepts one slot more then.
const SMALL_FIRST: u16 = 256;

/// Bytes of a packet in one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxFragment {
    /// The slot, which is the id with which the page was posted.
    pub slot: u16,
    /// Where in the page they start.
    pub offset: u16,
    /// How many; never 0, and never beyond the page.
    pub len: u16,
}

/// A packet as it came in. It is large: keep one and use it again.
#[derive(Debug, Default)]
pub struct RxPacket {
    /// The bytes, in order. If there is a [`fault`](Self::fault), only the pages are of interest.
    pub fragments: ArrayVec<RxFragment, { SLOTS_MAX + 1 }>,
    /// Slots whose pages hold nothing of the packet: post them again at once. There can be a whole
    /// ring of them when the backend misbehaves.
    pub unused: ArrayVec<u16, { Rx::SLOTS as usize }>,
    /// Facts about the packet.
    pub offload: Offload,
    /// Sum of the fragments.
    pub len: u32,
    /// Why the packet must be dropped, if it must. The first reason counts.
    pub fault: Option<PacketFault>,
}

impl RxPacket {
    /// An empty packet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All slots that the packet took.
    pub fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        let filled = self.fragments.iter().map(|fragment| fragment.slot);
        filled.chain(self.unused.iter().copied())
    }

    #[inline]
    fn clear(&mut self) {
        self.fragments.clear();
        self.unused.clear();
        self.offload = Offload::default();
        self.len = 0;
        self.fault = None;
    }

    #[cold]
    fn set_fault(&mut self, fault: PacketFault) {
        self.fault.get_or_insert(fault);
    }

    #[inline]
    fn set_unused(&mut self, slot: u16) {
        // Cannot be full: one call consumes a ring of slots at most, since none is posted
        // meanwhile. If it could, losing a page would still be better than a panic.
        let _ = self.unused.try_push(slot);
    }

    /// Judges one response and files its slot.
    #[inline]
    fn add(&mut self, slot: u16, response: &RxResponse, most: usize) {
        let Ok(len) = u16::try_from(response.status) else {
            self.set_fault(PacketFault::NegativeStatus);
            return self.set_unused(slot);
        };
        if usize::from(response.offset) + usize::from(len) > PAGE_SIZE {
            self.set_fault(PacketFault::BeyondPage);
            return self.set_unused(slot);
        }
        if len == 0 {
            return self.set_unused(slot);
        }
        let offset = response.offset;
        let fragment = RxFragment { slot, offset, len };
        if self.fragments.len() < most && self.fragments.try_push(fragment).is_ok() {
            self.len += u32::from(len);
        } else {
            self.set_fault(PacketFault::TooManySlots);
            self.set_unused(slot);
        }
    }
}

/// Takes the next packet out of the ring; false if there is none.
///
/// It never waits for the rest of a packet: backends publish packets as a whole, and one that does
/// not could hold us up for ever. A packet that is cut off is dropped.
///
/// # Errors
///
/// [`Corrupt`] if the producer index cannot be, or if a response has not the id that was posted in
/// its slot: then it is unknown whose page was filled. What `packet` holds then means nothing.
#[inline]
pub fn next(ring: &mut FrontRing<Rx>, packet: &mut RxPacket) -> Result<bool, Corrupt> {
    packet.clear();
    let Some(first) = ring.pop()? else {
        return Ok(false);
    };
    let slot = first.slot();
    let response = own_response(&first)?;
    packet.offload.checksum = response.flags.checksum();
    let most = match u16::try_from(response.status) {
        Ok(..=SMALL_FIRST) => SLOTS_MAX + 1,
        _ => SLOTS_MAX,
    };
    packet.add(slot, &response, most);
    if response.flags.contains(RxFlags::EXTRA_INFO) {
        take_extras(ring, packet)?;
    }
    if response.flags.contains(RxFlags::MORE_DATA) {
        take_chain(ring, packet, most)?;
    }
    if packet.len < ETHERNET_HEADER {
        packet.set_fault(PacketFault::TooShort);
    }
    Ok(true)
}

/// Reads a response that must carry its own slot as id.
#[inline]
fn own_response(raw: &RawSlot<Rx>) -> Result<RxResponse, Corrupt> {
    let response = raw.response();
    if response.id != raw.slot() {
        return Err(Corrupt {
            ring: Rx::NAME,
            reason: CorruptReason::ForeignId {
                slot: raw.slot(),
                id: response.id,
            },
        });
    }
    Ok(response)
}

fn take_extras(ring: &mut FrontRing<Rx>, packet: &mut RxPacket) -> Result<(), Corrupt> {
    let mut count = 0;
    loop {
        let Some(raw) = ring.pop()? else {
            packet.set_fault(PacketFault::ChainCut);
            return Ok(());
        };
        packet.set_unused(raw.slot());
        count += 1;
        let extra = raw.extra();
        match extra.info {
            // One that repeats a type replaces the one before, as in Linux.
            Ok(info) => {
                if !packet.offload.accept(&info) {
                    packet.set_fault(PacketFault::UnexpectedExtra);
                }
            }
            Err(ExtraError::BadGso { .. }) => packet.set_fault(PacketFault::BadGso),
            Err(ExtraError::UnknownType(_)) => packet.set_fault(PacketFault::UnknownExtra),
        }
        if !extra.more {
            return Ok(());
        }
        if count >= TYPES {
            // Go on to the end of the chain all the same: its slots are no responses. The ring's
            // size bounds it.
            packet.set_fault(PacketFault::ExtraLoop);
        }
    }
}

fn take_chain(ring: &mut FrontRing<Rx>, packet: &mut RxPacket, most: usize) -> Result<(), Corrupt> {
    let mut slots = 1;
    loop {
        let Some(raw) = ring.pop()? else {
            packet.set_fault(PacketFault::ChainCut);
            return Ok(());
        };
        slots += 1;
        if slots > most {
            // Slots without bytes count too: a packet of nothing else is an attack on our time.
            packet.set_fault(PacketFault::TooManySlots);
        }
        let response = own_response(&raw)?;
        packet.add(raw.slot(), &response, most);
        if !response.flags.contains(RxFlags::MORE_DATA) {
            return Ok(());
        }
    }
}

/// Answers popped requests with a packet: for a backend. Nothing is written if there are fewer
/// unanswered requests than the packet has slots.
///
/// Responses take the slots of the oldest unanswered requests: the first fragment the first, the
/// extra infos ([`Offload::extra_slots`]) those behind it, the other fragments the rest. The
/// `slot` of a fragment is the id of the request in its place.
///
/// # Errors
///
/// [`Full`] if requests must be popped first.
pub fn push(
    ring: &mut BackRing<Rx>,
    fragments: &[RxFragment],
    offload: &Offload,
) -> Result<(), Full> {
    let extras = offload.extras();
    let free = usize::try_from(ring.free_responses()).unwrap_or(0);
    if fragments.len() + extras.len() > free {
        return Err(Full { ring: Rx::NAME });
    }
    let Some((first, rest)) = fragments.split_first() else {
        return Ok(());
    };
    let flags = RxFlags::of_checksum(offload.checksum)
        .with_if(RxFlags::EXTRA_INFO, !extras.is_empty())
        .with_if(RxFlags::MORE_DATA, !rest.is_empty());
    ring.push(&response_of(first, flags))?;
    for (index, extra) in extras.iter().enumerate() {
        ring.push_extra(extra, index + 1 < extras.len())?;
    }
    for (index, fragment) in rest.iter().enumerate() {
        let flags = RxFlags::NONE.with_if(RxFlags::MORE_DATA, index + 1 < rest.len());
        ring.push(&response_of(fragment, flags))?;
    }
    Ok(())
}

#[inline]
fn response_of(fragment: &RxFragment, flags: RxFlags) -> RxResponse {
    RxResponse {
        id: fragment.slot,
        offset: fragment.offset,
        flags,
        // A page has 4096 bytes, so this never saturates for a fragment that can be.
        status: i16::try_from(fragment.len).unwrap_or(i16::MAX),
    }
}
