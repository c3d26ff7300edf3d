//! Slots of the control ring: questions of the frontend, and lists of pages.
//!
//! The backend may answer out of order; match answers by id.

use super::{field, pack};

/// A control request: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlRequest {
    /// Chosen by the frontend, returned in the response.
    pub id: u16,
    /// What is asked.
    pub message: ControlMessage,
}

/// What a frontend can ask; the number in parentheses is the type on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlMessage {
    /// Which hash kinds can be had (1). The answer's data has the [`HashFlags`].
    GetHashFlags,
    /// Hash these kinds (2).
    SetHashFlags(HashFlags),
    /// Take the hash key from a page (3).
    SetHashKey {
        /// The page.
        gref: u32,
        /// How many bytes from its start.
        len: u32,
    },
    /// How many entries the mapping may have (4).
    GetHashMappingSize,
    /// Let the mapping have so many entries (5).
    SetHashMappingSize(u32),
    /// Take entries of the mapping, 32-bit queue numbers, from a page (6).
    SetHashMapping {
        /// The page.
        gref: u32,
        /// How many entries.
        entries: u32,
        /// The first entry to set.
        offset: u32,
    },
    /// Hash by this algorithm (7), see [`HashAlgorithm`](crate::HashAlgorithm).
    SetHashAlgorithm(u32),
    /// How many pages the backend will keep mapped for a queue (8).
    GetGrefMappingSize {
        /// The queue.
        queue: u32,
    },
    /// Keep the pages of a list mapped (9): all or none. netif.h has no status for each entry here, as it has for
    /// [`Self::DelGrefMapping`].
    AddGrefMapping {
        /// The queue.
        queue: u32,
        /// The page with the list, see [`GrefEntry`].
        gref: u32,
        /// How many entries.
        entries: u32,
    },
    /// Unmap the pages of a list (10).
    DelGrefMapping {
        /// The queue.
        queue: u32,
        /// The page with the list.
        gref: u32,
        /// How many entries.
        entries: u32,
    },
    /// A type that is not defined; the answer is [`ControlStatus::NotSupported`].
    Unknown {
        /// The type.
        kind: u16,
        /// Its data.
        data: [u32; 3],
    },
}

impl ControlMessage {
    /// The type on the wire.
    pub const fn kind(&self) -> u16 {
        match *self {
            ControlMessage::GetHashFlags => 1,
            ControlMessage::SetHashFlags(_) => 2,
            ControlMessage::SetHashKey { .. } => 3,
            ControlMessage::GetHashMappingSize => 4,
            ControlMessage::SetHashMappingSize(_) => 5,
            ControlMessage::SetHashMapping { .. } => 6,
            ControlMessage::SetHashAlgorithm(_) => 7,
            ControlMessage::GetGrefMappingSize { .. } => 8,
            ControlMessage::AddGrefMapping { .. } => 9,
            ControlMessage::DelGrefMapping { .. } => 10,
            ControlMessage::Unknown { kind, .. } => kind,
        }
    }

    /// The three data words on the wire.
    pub const fn data(&self) -> [u32; 3] {
        match *self {
            ControlMessage::GetHashFlags | ControlMessage::GetHashMappingSize => [0; 3],
            ControlMessage::SetHashFlags(flags) => [flags.0, 0, 0],
            ControlMessage::SetHashKey { gref, len } => [gref, len, 0],
            ControlMessage::SetHashMappingSize(entries) => [entries, 0, 0],
            ControlMessage::SetHashMapping {
                gref,
                entries,
                offset,
            } => [gref, entries, offset],
            ControlMessage::SetHashAlgorithm(algorithm) => [algorithm, 0, 0],
            ControlMessage::GetGrefMappingSize { queue } => [queue, 0, 0],
            ControlMessage::AddGrefMapping {
                queue,
                gref,
                entries,
            }
            | ControlMessage::DelGrefMapping {
                queue,
                gref,
                entries,
            } => [queue, gref, entries],
            ControlMessage::Unknown { data, .. } => data,
        }
    }

    /// The message of a type with its data words.
    pub const fn from_parts(kind: u16, data: [u32; 3]) -> ControlMessage {
        let [first, second, third] = data;
        match kind {
            1 => ControlMessage::GetHashFlags,
            2 => ControlMessage::SetHashFlags(HashFlags(first)),
            3 => ControlMessage::SetHashKey {
                gref: first,
                len: second,
            },
            4 => ControlMessage::GetHashMappingSize,
            5 => ControlMessage::SetHashMappingSize(first),
            6 => ControlMessage::SetHashMapping {
                gref: first,
                entries: second,
                offset: third,
            },
            7 => ControlMessage::SetHashAlgorithm(first),
            8 => ControlMessage::GetGrefMappingSize { queue: first },
            9 => ControlMessage::AddGrefMapping {
                queue: first,
                gref: second,
                entries: third,
            },
            10 => ControlMessage::DelGrefMapping {
                queue: first,
                gref: second,
                entries: third,
            },
            _ => ControlMessage::Unknown { kind, data },
        }
    }
}

impl ControlRequest {
    /// The bytes of the slot.
    pub fn encode(&self) -> [u8; 16] {
        let [first, second, third] = self.message.data();
        pack!(16; 0 => self.id, 2 => self.message.kind(), 4 => first, 8 => second, 12 => third)
    }

    /// The request that some bytes stand for.
    pub fn decode(raw: &[u8; 16]) -> ControlRequest {
        let data = [
            field!(raw, 4, u32),
            field!(raw, 8, u32),
            field!(raw, 12, u32),
        ];
        ControlRequest {
            id: field!(raw, 0, u16),
            message: ControlMessage::from_parts(field!(raw, 2, u16), data),
        }
    }
}

/// A control response: 12 bytes; the other 4 of the slot are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlResponse {
    /// The request's id.
    pub id: u16,
    /// The request's type.
    pub kind: u16,
    /// How it went.
    pub status: ControlStatus,
    /// What was asked for, if something was.
    pub data: u32,
}

impl ControlResponse {
    /// The answer to a request.
    pub const fn to(request: &ControlRequest, status: ControlStatus, data: u32) -> Self {
        ControlResponse {
            id: request.id,
            kind: request.message.kind(),
            status,
            data,
        }
    }

    /// The bytes of the slot.
    pub fn encode(&self) -> [u8; 16] {
        pack!(16; 0 => self.id, 2 => self.kind, 4 => self.status.to_raw(), 8 => self.data)
    }

    /// The response that some bytes stand for.
    pub fn decode(raw: &[u8; 16]) -> ControlResponse {
        ControlResponse {
            id: field!(raw, 0, u16),
            kind: field!(raw, 2, u16),
            status: ControlStatus::from_raw(field!(raw, 4, u32)),
            data: field!(raw, 8, u32),
        }
    }
}

/// How a control request went; the number in parentheses is the value on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlStatus {
    /// Done (0).
    Success,
    /// The backend does not know the type (1).
    NotSupported,
    /// A value is wrong (2).
    InvalidParameter,
    /// More data than the backend has room for (3).
    BufferOverflow,
    /// A value that is not defined.
    Other(u32),
}

impl ControlStatus {
    /// The value on the wire.
    pub const fn to_raw(self) -> u32 {
        match self {
            ControlStatus::Success => 0,
            ControlStatus::NotSupported => 1,
            ControlStatus::InvalidParameter => 2,
            ControlStatus::BufferOverflow => 3,
            ControlStatus::Other(raw) => raw,
        }
    }

    /// The status that a value stands for.
    pub const fn from_raw(raw: u32) -> ControlStatus {
        match raw {
            0 => ControlStatus::Success,
            1 => ControlStatus::NotSupported,
            2 => ControlStatus::InvalidParameter,
            3 => ControlStatus::BufferOverflow,
            other => ControlStatus::Other(other),
        }
    }
}

/// Which kinds of hash are computed; a bit for each [`HashKind`](crate::HashKind).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HashFlags(pub u32);

impl HashFlags {
    /// The two IPv4 addresses.
    pub const IPV4: HashFlags = HashFlags(1);
    /// IPv4 addresses and TCP ports.
    pub const IPV4_TCP: HashFlags = HashFlags(2);
    /// The two IPv6 addresses.
    pub const IPV6: HashFlags = HashFlags(4);
    /// IPv6 addresses and TCP ports.
    pub const IPV6_TCP: HashFlags = HashFlags(8);
    /// All that are defined.
    pub const ALL: HashFlags = HashFlags(15);

    /// True if all flags of `other` are set.
    pub const fn contains(self, other: HashFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How many [`GrefEntry`] fit into a list page.
pub const GREF_ENTRIES: usize = crate::PAGE_SIZE / 8;

/// An entry of a list of pages that the backend may keep mapped: 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GrefEntry {
    /// The page.
    pub gref: u32,
    /// Whether it is to be mapped for reading only (bit 0 of the flags).
    pub read_only: bool,
    /// Set by the backend: how this entry went, a [`ControlStatus`] in 16 bits.
    pub status: u16,
}

impl GrefEntry {
    /// The 8 bytes.
    pub fn encode(&self) -> [u8; 8] {
        pack!(8; 0 => self.gref, 4 => u16::from(self.read_only), 6 => self.status)
    }

    /// The entry that some bytes stand for.
    pub fn decode(raw: &[u8; 8]) -> GrefEntry {
        GrefEntry {
            gref: field!(raw, 0, u32),
            read_only: field!(raw, 4, u16) & 1 != 0,
            status: field!(raw, 6, u16),
        }
    }
}
