//! Packets on the transmit ring: packets into slots for a frontend, slots into packets for a
//! backend.
//!
//! The first request of a packet tells the size of the **whole packet**; what is left of it after
//! the other requests lies in the first. Extra infos follow directly behind the first request.
//! Every slot is answered, those of extra infos with [`Status::Null`].
//!
//! What the frontend writes is judged here and nowhere else, as netback does: some errors cost the
//! packet ([`PacketFault`]), others the device ([`Corrupt`]).

use arrayvec::ArrayVec;

use crate::error::{Corrupt, CorruptReason, Full, PacketFault, PushError};
use crate::layout::{Layout, Tx};
use crate::offload::Offload;
use crate::wire::extra::{ExtraError, ExtraInfo, TYPES};
use crate::wire::flags::TxFlags;
use crate::wire::tx::{TxRequest, TxResponse};
use crate::wire::Status;
use crate::{BackRing, FrontRing, ETHERNET_HEADER, PACKET_MAX, PAGE_SIZE, SLOTS_FATAL, SLOTS_MAX};

/// Bytes of a packet in one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxFragment {
    /// Chosen by the frontend, returned in the response.
    pub id: u16,
    /// The page.
    pub gref: u32,
    /// Where in the page they start.
    pub offset: u16,
    /// How many.
    pub len: u16,
}

/// A wish about multicast packets, which a frontend sends in place of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Multicast {
    /// Packets to this address are wanted.
    Add([u8; 6]),
    /// They are wanted no longer.
    Del([u8; 6]),
}

/// A packet as a backend finds it. It is large: keep one and use it again. Give it back with
/// [`answer`] when its bytes are no longer needed.
#[derive(Debug, Default)]
pub struct TxPacket {
    /// The bytes, in order; inside their pages and never empty, unless there is a
    /// [`fault`](Self::fault) or a [`multicast`](Self::multicast) wish.
    pub fragments: ArrayVec<TxFragment, { SLOTS_FATAL }>,
    /// How many slots held extra infos.
    pub extras: u32,
    /// Facts about the packet.
    pub offload: Offload,
    /// A wish in place of a packet. Carry it out and answer; there is nothing to send.
    pub multicast: Option<Multicast>,
    /// Size of the packet.
    pub len: u32,
    /// Why the packet must be dropped, if it must: answer with [`Status::Error`].
    pub fault: Option<PacketFault>,
}

impl TxPacket {
    /// An empty packet.
    pub fn new() -> Self {
        Self::default()
    }

    #[inline]
    fn clear(&mut self) {
        self.fragments.clear();
        self.extras = 0;
        self.offload = Offload::default();
        self.multicast = None;
        self.len = 0;
        self.fault = None;
    }

    #[cold]
    fn set_fault(&mut self, fault: PacketFault) {
        self.fault.get_or_insert(fault);
    }
}

#[cold]
fn corrupt(reason: CorruptReason) -> Corrupt {
    Corrupt {
        ring: Tx::NAME,
        reason,
    }
}

/// Takes the next packet out of the ring; false if there is none. Empty slots behind the first of a
/// good packet are answered at once (XSA-448), and are not among its fragments.
///
/// # Errors
///
/// [`Corrupt`] where netback shuts the vif down: the producer index cannot be, a packet is cut
/// off, has 20 slots or more, or one that leaves its page, or asks for segmentation that cannot be.
/// What `packet` holds then means nothing.
#[inline]
pub fn next(ring: &mut BackRing<Tx>, packet: &mut TxPacket) -> Result<bool, Corrupt> {
    packet.clear();
    let Some(first) = ring.pop()? else {
        return Ok(false);
    };
    let first = first.request();
    packet.len = u32::from(first.size);
    packet.offload.checksum = first.flags.checksum();
    let mut fragment = fragment_of(&first);
    if first.flags.contains(TxFlags::EXTRA_INFO) {
        take_extras(ring, packet)?;
    }
    if packet.multicast.is_some() {
        fragment.len = 0;
        packet.fragments.push(fragment);
        return Ok(true);
    }
    packet.fragments.push(fragment);
    let Chain { left, empty } = if first.flags.contains(TxFlags::MORE_DATA) {
        take_chain(ring, packet)?
    } else {
        Chain {
            left: packet.len,
            empty: false,
        }
    };
    if usize::from(first.offset) + usize::try_from(left).unwrap_or(PAGE_SIZE) > PAGE_SIZE
        && packet.fault.is_none()
    {
        return Err(corrupt(CorruptReason::BeyondPage {
            id: first.id,
            offset: first.offset,
            size: left,
        }));
    }
    // Also the first slot must hold a whole Ethernet header: it is read before the rest is.
    if left < ETHERNET_HEADER {
        packet.set_fault(PacketFault::TooShort);
    }
    if let Some(fragment) = packet.fragments.first_mut() {
        fragment.len = crate::index::low_half(left);
    }
    // Rare, so that good packets are not walked a second time.
    if empty && packet.fault.is_none() {
        answer_empty(ring, packet);
    }
    Ok(true)
}

#[inline]
fn fragment_of(request: &TxRequest) -> TxFragment {
    TxFragment {
        id: request.id,
        gref: request.gref,
        offset: request.offset,
        len: request.size,
    }
}

fn take_extras(ring: &mut BackRing<Tx>, packet: &mut TxPacket) -> Result<(), Corrupt> {
    loop {
        let Some(raw) = ring.pop()? else {
            return Err(corrupt(CorruptReason::ChainCut {
                slots: packet.extras + 1,
            }));
        };
        packet.extras += 1;
        let extra = raw.extra();
        match extra.info {
            Ok(ExtraInfo::McastAdd(address)) => packet.multicast = Some(Multicast::Add(address)),
            Ok(ExtraInfo::McastDel(address)) => packet.multicast = Some(Multicast::Del(address)),
            Ok(info) => {
                if !packet.offload.accept(&info) {
                    packet.set_fault(PacketFault::UnexpectedExtra);
                }
            }
            Err(ExtraError::BadGso { size, kind }) => {
                return Err(corrupt(CorruptReason::BadGso { size, kind }));
            }
            Err(ExtraError::UnknownType(kind)) => {
                return Err(corrupt(CorruptReason::UnknownExtra { kind }));
            }
        }
        if !extra.more {
            return Ok(());
        }
        if packet.extras >= TYPES {
            let count = packet.extras;
            return Err(corrupt(CorruptReason::ExtraLoop { count }));
        }
    }
}

/// What the slots behind the first tell.
struct Chain {
    /// What they leave for the first of the packet's size.
    left: u32,
    /// Whether some of them have no bytes.
    empty: bool,
}

/// Takes the slots behind the first.
fn take_chain(ring: &mut BackRing<Tx>, packet: &mut TxPacket) -> Result<Chain, Corrupt> {
    let mut left = packet.len;
    let mut empty = false;
    let mut slots = 1;
    loop {
        let Some(raw) = ring.pop()? else {
            return Err(corrupt(CorruptReason::ChainCut {
                slots: slots + packet.extras,
            }));
        };
        let request = raw.request();
        slots += 1;
        if slots as usize >= SLOTS_FATAL {
            return Err(corrupt(CorruptReason::TooManySlots { slots }));
        }
        if slots as usize > SLOTS_MAX {
            packet.set_fault(PacketFault::TooManySlots);
        }
        if usize::from(request.offset) + usize::from(request.size) > PAGE_SIZE {
            return Err(corrupt(CorruptReason::BeyondPage {
                id: request.id,
                offset: request.offset,
                size: u32::from(request.size),
            }));
        }
        // A packet of 64 KiB or more cannot tell its size, which then seems too small.
        match left.checked_sub(u32::from(request.size)) {
            Some(rest) => left = rest,
            None => packet.set_fault(PacketFault::SizeMismatch),
        }
        empty |= request.size == 0;
        packet.fragments.push(fragment_of(&request));
        if !request.flags.contains(TxFlags::MORE_DATA) {
            return Ok(Chain { left, empty });
        }
    }
}

/// Answers the slots without bytes, and leaves them out.
fn answer_empty(ring: &mut BackRing<Tx>, packet: &mut TxPacket) {
    packet.fragments.retain(|fragment| {
        if fragment.len == 0 {
            // There is room: the slot's own request was just consumed.
            let _ = ring.push(&TxResponse {
                id: fragment.id,
                status: Status::Okay,
            });
        }
        fragment.len != 0
    });
}

/// Answers all slots of a packet: for a backend that is done with it.
///
/// # Errors
///
/// [`Full`] only if the packet was answered before.
pub fn answer(ring: &mut BackRing<Tx>, packet: &TxPacket, status: Status) -> Result<(), Full> {
    let mut fragments = packet.fragments.iter().map(|fragment| fragment.id);
    if let Some(id) = fragments.next() {
        ring.push(&TxResponse { id, status })?;
    }
    for _ in 0..packet.extras {
        ring.push(&TxResponse {
            id: 0,
            status: Status::Null,
        })?;
    }
    for id in fragments {
        ring.push(&TxResponse { id, status })?;
    }
    Ok(())
}

/// Puts a packet into the ring: for a frontend. All of it or nothing; tells how many slots it took.
///
/// # Errors
///
/// [`PushError`], which says what to do.
#[inline]
pub fn push(
    ring: &mut FrontRing<Tx>,
    fragments: &[TxFragment],
    offload: &Offload,
) -> Result<u32, PushError> {
    let total = judge(fragments)?;
    if offload.gso.is_some_and(|gso| gso.size == 0) {
        // Fatal to the vif: netback takes it down for it.
        return Err(PushError::SegmentsOfNoSize);
    }
    let Some((first, rest)) = fragments.split_first() else {
        return Err(PushError::Empty);
    };
    let extras = offload.extras();
    // At most 18 + 2, so that the sum cannot be cut.
    let needed = u32::try_from(fragments.len() + extras.len()).unwrap_or(u32::MAX);
    let free = ring.free_requests();
    let full = PushError::Full { needed, free };
    if needed > free {
        return Err(full);
    }
    let flags = TxFlags::of_checksum(offload.checksum)
        .with_if(TxFlags::EXTRA_INFO, !extras.is_empty())
        .with_if(TxFlags::MORE_DATA, !rest.is_empty());
    ring.push(&request_of(first, flags, total))
        .map_err(|_| full)?;
    for (index, extra) in extras.iter().enumerate() {
        ring.push_extra(extra, index + 1 < extras.len())
            .map_err(|_| full)?;
    }
    for (index, fragment) in rest.iter().enumerate() {
        let flags = TxFlags::NONE.with_if(TxFlags::MORE_DATA, index + 1 < rest.len());
        ring.push(&request_of(fragment, flags, fragment.len))
            .map_err(|_| full)?;
    }
    Ok(needed)
}

/// Refuses what a correct backend would refuse, and tells the packet's size.
#[inline]
fn judge(fragments: &[TxFragment]) -> Result<u16, PushError> {
    if fragments.len() > SLOTS_MAX {
        return Err(PushError::TooManySlots {
            slots: fragments.len(),
        });
    }
    let mut total = 0;
    for &TxFragment { offset, len, .. } in fragments {
        if len == 0 {
            return Err(PushError::Empty);
        }
        if usize::from(offset) + usize::from(len) > PAGE_SIZE {
            return Err(PushError::BeyondPage { offset, len });
        }
        total += u32::from(len);
    }
    // netback answers both with ERROR (its ETH_HLEN checks).
    if fragments
        .first()
        .is_some_and(|first| u32::from(first.len) < ETHERNET_HEADER)
    {
        return Err(PushError::TooShort);
    }
    u16::try_from(total).map_err(|_| PushError::TooLong { len: total })
}

#[inline]
fn request_of(fragment: &TxFragment, flags: TxFlags, size: u16) -> TxRequest {
    TxRequest {
        gref: fragment.gref,
        offset: fragment.offset,
        flags,
        id: fragment.id,
        size,
    }
}

/// Puts a wish about multicast into the ring, in two slots: for a frontend. The response with this
/// id says whether the backend will see to it.
///
/// # Errors
///
/// [`PushError::Full`]; nothing was written then.
pub fn push_multicast(
    ring: &mut FrontRing<Tx>,
    id: u16,
    wish: Multicast,
) -> Result<u32, PushError> {
    let free = ring.free_requests();
    let full = PushError::Full { needed: 2, free };
    if free < 2 {
        return Err(full);
    }
    let request = TxRequest {
        id,
        flags: TxFlags::EXTRA_INFO,
        ..TxRequest::default()
    };
    let extra = match wish {
        Multicast::Add(address) => ExtraInfo::McastAdd(address),
        Multicast::Del(address) => ExtraInfo::McastDel(address),
    };
    ring.push(&request).map_err(|_| full)?;
    ring.push_extra(&extra, false).map_err(|_| full)?;
    Ok(2)
}

const _: () = assert!(PACKET_MAX == u16::MAX as u32);
