//! A received packet: a copied head and, for a large one, the granted pages it arrived in.
//!
//! [`Packet`] is lent to the consumer while the queue works on it; nothing was allocated for it. A consumer
//! that wants to keep it calls [`Packet::detach`]: then the pages leave the queue as leases, and come
//! home when the [`OwnedPacket`] is dropped.

use arrayvec::ArrayVec;
use xen_ring::Offload;

use crate::pool::{view, Lease, Pool, PoolPage};

/// Bytes of a large packet that are copied in front of its chain: its headers. Enough for Ethernet, a
/// VLAN tag, IPv6 and TCP with options (118 bytes), and what netback itself copies (128).
pub const HEADER_LIMIT: usize = 128;

/// Packets up to this size have their head inside an [`OwnedPacket`]; longer copies are boxed.
pub const INLINE_HEAD: usize = 256;

/// Slots that a received packet may take: 18 by the contract, and one more that Linux accepts when the
/// first holds only headers.
pub const MAX_FRAGMENTS: usize = 19;

/// A fragment of a packet in a page that is out of the ring.
#[derive(Debug)]
pub(crate) struct Piece {
    pub page: PoolPage,
    pub offset: u16,
    pub len: u16,
}

pub(crate) type Pieces = ArrayVec<Piece, MAX_FRAGMENTS>;

/// A packet that the queue lends to its consumer.
#[derive(Debug)]
pub struct Packet<'q> {
    pub(crate) pool: &'q mut Pool,
    pub(crate) head: &'q [u8],
    pub(crate) pieces: &'q mut Pieces,
    pub(crate) offload: Offload,
    pub(crate) fate: &'q mut Fate,
}

/// What the consumer did with a packet, for the counters.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    pub detached: bool,
    /// Bytes that were copied instead of lent.
    pub condensed: Option<usize>,
}

impl Packet<'_> {
    /// Bytes of the whole packet, from the Ethernet header on, without FCS.
    pub fn len(&self) -> usize {
        self.head.len()
            + self
                .pieces
                .iter()
                .map(|piece| usize::from(piece.len))
                .sum::<usize>()
    }

    /// True for a packet without a byte, which the queue never delivers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that were copied out of shared memory: the whole packet if it is small, its headers
    /// (up to [`HEADER_LIMIT`] bytes) if it is large. They cannot change any more.
    pub fn head(&self) -> &[u8] {
        self.head
    }

    /// The rest of a large packet, in the granted pages. A backend that breaks the contract can still
    /// change these bytes: decide nothing by them that you do not check on a copy.
    pub fn fragments(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| {
            let page = self.pool.page(&piece.page);
            view(
                page,
                &piece.page,
                usize::from(piece.offset),
                usize::from(piece.len),
            )
        })
    }

    /// Head and fragments, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.head).chain(self.fragments())
    }

    /// Checksum state, segmentation and hash, as the backend gave them.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Copies the packet to the start of `into` and returns its length, or `None` if it does not fit.
    pub fn copy_to(&self, into: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        for slice in self.slices() {
            into.get_mut(at..at + slice.len())?.copy_from_slice(slice);
            at += slice.len();
        }
        Some(at)
    }

    /// Takes the packet out of the queue, to be kept or sent to another thread.
    ///
    /// The pages of a large packet go along uncopied, as leases. When the pool is short of pages and cannot
    /// grow, the packet is copied instead, so that a consumer that keeps packets for ever does not
    /// stop the others (counted as `rx_condensed`). What is left of this packet is empty.
    pub fn detach(&mut self) -> OwnedPacket {
        self.fate.detached = true;
        let packet = if self.pieces.is_empty() || !self.pool.is_short() {
            let mut fragments = ArrayVec::new();
            for piece in self.pieces.drain(..) {
                fragments.push(self.pool.lease(piece.page, piece.offset, piece.len));
            }
            OwnedPacket {
                head: Head::new(self.head),
                fragments,
                offload: self.offload,
            }
        } else {
            self.fate.condensed = Some(self.len() - self.head.len());
            let whole: Box<[u8]> = self.slices().flatten().copied().collect();
            for piece in self.pieces.drain(..) {
                let used = usize::from(piece.offset) + usize::from(piece.len);
                self.pool.scrub(&piece.page, 0, used);
                self.pool.put(piece.page);
            }
            OwnedPacket {
                head: Head::Boxed(whole),
                fragments: ArrayVec::new(),
                offload: self.offload,
            }
        };
        self.head = &[];
        packet
    }
}

/// The copied head of an [`OwnedPacket`].
#[derive(Debug)]
// Inline on purpose: to keep a packet takes no allocation.
#[allow(clippy::large_enum_variant)]
enum Head {
    Inline(ArrayVec<u8, INLINE_HEAD>),
    Boxed(Box<[u8]>),
}

impl Head {
    fn new(bytes: &[u8]) -> Self {
        ArrayVec::try_from(bytes).map_or_else(|_| Self::Boxed(bytes.into()), Self::Inline)
    }
}

/// A packet that left its queue. Its pages come home when it is dropped, in whatever thread.
#[derive(Debug)]
pub struct OwnedPacket {
    head: Head,
    fragments: ArrayVec<Lease, MAX_FRAGMENTS>,
    offload: Offload,
}

impl OwnedPacket {
    /// One without a queue, for tests.
    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            head: Head::new(bytes),
            fragments: ArrayVec::new(),
            offload: Offload::default(),
        }
    }

    /// The copied bytes; see [`Packet::head`].
    pub fn head(&self) -> &[u8] {
        match &self.head {
            Head::Inline(bytes) => bytes,
            Head::Boxed(bytes) => bytes,
        }
    }

    /// The rest of a large packet, in its granted pages; see [`Packet::fragments`].
    pub fn fragments(&self) -> &[Lease] {
        &self.fragments
    }

    /// Head and fragments, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.head()).chain(self.fragments.iter().map(Lease::as_slice))
    }

    /// Bytes of the whole packet.
    pub fn len(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }

    /// True for a packet without a byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checksum state, segmentation and hash.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// The packet in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.slices().flatten().copied().collect()
    }
}
