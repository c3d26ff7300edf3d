//! What can be wrong, by who must act: the ring's owner ([`Full`], [`PushError`]), the packet's
//! consumer ([`PacketFault`]), or the device as a whole ([`Corrupt`]).

/// The peer broke the ring. The device must go down: nothing more in this ring can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer broke the {ring} ring: {reason}; the device must be taken down")]
pub struct Corrupt {
    /// Which ring: `tx`, `rx` or `control`.
    pub ring: &'static str,
    /// What it did.
    pub reason: CorruptReason,
}

/// How the peer broke the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptReason {
    /// Its producer index claims more than can be there.
    #[error(
        "its producer index {producer} is {claimed} slots ahead of consumer index {consumer}, \
         but at most {allowed} can be there"
    )]
    ProducerOverrun {
        /// The index in the shared page.
        producer: u32,
        /// Our own consumer index.
        consumer: u32,
        /// The distance between the two.
        claimed: u32,
        /// The most that a correct peer could have produced.
        allowed: u32,
    },
    /// A receive response carries an id that was not posted in its slot.
    #[error("the response in slot {slot} carries id {id}, but the request there had id {slot}")]
    ForeignId {
        /// The slot of the response, which is also the id that was posted.
        slot: u16,
        /// The id that came back.
        id: u16,
    },
    /// A response carries an id that is not in flight. The ring cannot know; whoever keeps the
    /// table of transmit ids says so.
    #[error("the response in slot {slot} carries id {id}, which is not in flight")]
    UnknownId {
        /// The slot of the response.
        slot: u16,
        /// The id that came back.
        id: u16,
    },
    /// A request reaches beyond its page.
    #[error("request {id} has offset {offset} and size {size}, beyond its page of 4096 bytes")]
    BeyondPage {
        /// The request's id.
        id: u16,
        /// Its offset.
        offset: u16,
        /// Its size; for a first slot, what is left of the total after the other slots.
        size: u32,
    },
    /// A packet of so many slots that it can only be an attack.
    #[error("a packet has {slots} slots, where 18 are allowed and 20 are fatal")]
    TooManySlots {
        /// How many were counted before giving up.
        slots: u32,
    },
    /// A packet promises more slots than were published.
    #[error("a packet is cut off after {slots} slots: more were promised than published")]
    ChainCut {
        /// How many slots were there, extra infos included.
        slots: u32,
    },
    /// Segmentation was asked for with a size or a kind that cannot be.
    #[error("an extra info asks for segmentation with size {size} and kind {kind}")]
    BadGso {
        /// The segment size; 0 would divide by zero.
        size: u16,
        /// The kind: 1 is TCP over IPv4, 2 is TCP over IPv6.
        kind: u8,
    },
    /// An extra info of a type that is not defined.
    #[error("an extra info has the undefined type {kind}")]
    UnknownExtra {
        /// The type that was found.
        kind: u8,
    },
    /// More extra infos than there are types: the MORE bits form a loop.
    #[error("a packet has more than {count} extra infos")]
    ExtraLoop {
        /// How many were counted before giving up.
        count: u32,
    },
}

impl CorruptReason {
    /// A short name for a counter.
    pub const fn name(&self) -> &'static str {
        match self {
            CorruptReason::ProducerOverrun { .. } => "producer_overrun",
            CorruptReason::ForeignId { .. } => "foreign_id",
            CorruptReason::UnknownId { .. } => "unknown_id",
            CorruptReason::BeyondPage { .. } => "beyond_page",
            CorruptReason::TooManySlots { .. } => "too_many_slots",
            CorruptReason::ChainCut { .. } => "chain_cut",
            CorruptReason::BadGso { .. } => "bad_gso",
            CorruptReason::UnknownExtra { .. } => "unknown_extra",
            CorruptReason::ExtraLoop { .. } => "extra_loop",
        }
    }
}

/// Why one packet must be dropped. Its slots are all reported and come back; the device lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("packet dropped: {}", self.name())]
#[non_exhaustive]
pub enum PacketFault {
    /// A response says that the backend failed.
    NegativeStatus,
    /// Offset and length reach beyond the page.
    BeyondPage,
    /// More slots than a packet may have.
    TooManySlots,
    /// A slot promised another one that was not published.
    ChainCut,
    /// Segmentation with size 0 or of an unknown kind.
    BadGso,
    /// An extra info of a type that is not defined.
    UnknownExtra,
    /// An extra info that is defined, but has no place in this direction or was not negotiated.
    UnexpectedExtra,
    /// More extra infos than there are types: the MORE bits form a loop.
    ExtraLoop,
    /// Less than an Ethernet header, in all or in the first slot of a transmitted packet.
    TooShort,
    /// The slots of a transmitted packet hold more than its total size.
    SizeMismatch,
}

impl PacketFault {
    /// All faults, to give each its counter.
    pub const ALL: [PacketFault; 10] = [
        PacketFault::NegativeStatus,
        PacketFault::BeyondPage,
        PacketFault::TooManySlots,
        PacketFault::ChainCut,
        PacketFault::BadGso,
        PacketFault::UnknownExtra,
        PacketFault::UnexpectedExtra,
        PacketFault::ExtraLoop,
        PacketFault::TooShort,
        PacketFault::SizeMismatch,
    ];

    /// A short name for a counter.
    pub const fn name(self) -> &'static str {
        match self {
            PacketFault::NegativeStatus => "negative_status",
            PacketFault::BeyondPage => "beyond_page",
            PacketFault::TooManySlots => "too_many_slots",
            PacketFault::ChainCut => "chain_cut",
            PacketFault::BadGso => "bad_gso",
            PacketFault::UnknownExtra => "unknown_extra",
            PacketFault::UnexpectedExtra => "unexpected_extra",
            PacketFault::ExtraLoop => "extra_loop",
            PacketFault::TooShort => "too_short",
            PacketFault::SizeMismatch => "size_mismatch",
        }
    }

    /// Position in [`PacketFault::ALL`], to index an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// There is no free slot: publish, and try again when the peer has consumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no free slot in the {ring} ring; wait until the peer has consumed some")]
pub struct Full {
    /// Which ring.
    pub ring: &'static str,
}

/// Why a packet was not put into the ring. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PushError {
    /// Not enough free slots now.
    #[error("the packet needs {needed} slots and {free} are free; wait until the peer has consumed some")]
    Full {
        /// Slots that the packet takes, extra infos included.
        needed: u32,
        /// Slots that are free.
        free: u32,
    },
    /// No backend must accept this many fragments.
    #[error("the packet has {slots} fragments, but 18 are the most; copy it into fewer pages")]
    TooManySlots {
        /// How many fragments were given.
        slots: usize,
    },
    /// Longer than the size field can tell.
    #[error("the packet has {len} bytes, but the size field ends at 65535; segment it")]
    TooLong {
        /// Sum of the fragments.
        len: u32,
    },
    /// A packet or a fragment without bytes (a zero-length slot crashed older backends, XSA-448).
    #[error("the packet or one of its fragments is empty; leave empty fragments out")]
    Empty,
    /// The first fragment does not hold an Ethernet header.
    #[error("the first fragment is shorter than an Ethernet header of 14 bytes; put all headers into it")]
    TooShort,
    /// A packet to be cut into segments of 0 bytes.
    #[error("the packet is to be cut into segments of 0 bytes; leave the segmentation out")]
    SegmentsOfNoSize,
    /// A fragment that no peer can accept.
    #[error("a fragment has offset {offset} and length {len}, beyond its page of 4096 bytes")]
    BeyondPage {
        /// Its offset.
        offset: u16,
        /// Its length.
        len: u16,
    },
}
