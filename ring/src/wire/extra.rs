//! Extra infos: what does not fit into a slot's flags, in slots of their own.

use super::{field, pack};

const GSO: u8 = 1;
const MCAST_ADD: u8 = 2;
const MCAST_DEL: u8 = 3;
const HASH: u8 = 4;
const XDP: u8 = 5;
/// Bit 0 of an extra info's flags: another one follows.
const MORE: u8 = 1;

/// How many types of extra info there are. A chain with more of them is a loop.
pub(crate) const TYPES: u32 = 5;

/// An extra info: 8 bytes, in a slot of its own behind the first slot of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtraInfo {
    /// The packet is to be cut into segments, or was put together from them.
    Gso {
        /// Payload bytes of a segment (the MSS).
        size: u16,
        /// Which protocol.
        kind: GsoKind,
    },
    /// The frontend wants packets to this multicast address. The packet is no packet.
    McastAdd([u8; 6]),
    /// The frontend wants them no longer. The packet is no packet.
    McastDel([u8; 6]),
    /// A hash over the packet's addresses and ports.
    Hash {
        /// Over what: a bit number, see [`HashKind`].
        kind: u8,
        /// By which algorithm, see [`HashAlgorithm`].
        algorithm: u8,
        /// The hash.
        value: u32,
    },
    /// Free bytes in front of the packet. Linux only, and only if it was negotiated.
    Xdp {
        /// How many bytes.
        headroom: u16,
    },
}

/// The bytes of a slot, read as an extra info.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodedExtra {
    /// What it says.
    pub info: Result<ExtraInfo, ExtraError>,
    /// Whether another extra info follows; told even if this one is wrong, since the chain must be
    /// walked to its end.
    pub more: bool,
}

/// Why bytes are no extra info.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExtraError {
    /// A type that is not defined.
    #[error("extra info of undefined type {0}")]
    UnknownType(u8),
    /// Segmentation with size 0, or of an unknown kind.
    #[error("extra info with segment size {size} and kind {kind}")]
    BadGso {
        /// The segment size.
        size: u16,
        /// The kind.
        kind: u8,
    },
}

impl ExtraInfo {
    /// The 8 bytes, pads zero.
    #[inline]
    pub fn encode(&self, more: bool) -> [u8; 8] {
        let flags = if more { MORE } else { 0 };
        match *self {
            ExtraInfo::Gso { size, kind } => {
                pack!(8; 0 => GSO, 1 => flags, 2 => size, 4 => kind.to_raw())
            }
            ExtraInfo::McastAdd([a, b, c, d, e, f]) => [MCAST_ADD, flags, a, b, c, d, e, f],
            ExtraInfo::McastDel([a, b, c, d, e, f]) => [MCAST_DEL, flags, a, b, c, d, e, f],
            ExtraInfo::Hash {
                kind,
                algorithm,
                value,
            } => pack!(8; 0 => HASH, 1 => flags, 2 => kind, 3 => algorithm, 4 => value),
            ExtraInfo::Xdp { headroom } => pack!(8; 0 => XDP, 1 => flags, 2 => headroom),
        }
    }

    /// The extra info that some bytes stand for.
    #[inline]
    pub fn decode(raw: &[u8; 8]) -> DecodedExtra {
        let [kind, flags, a, b, c, d, e, f] = *raw;
        let info = match kind {
            GSO => match (field!(raw, 2, u16), GsoKind::from_raw(c)) {
                (size @ 1.., Some(kind)) => Ok(ExtraInfo::Gso { size, kind }),
                (size, _) => Err(ExtraError::BadGso { size, kind: c }),
            },
            MCAST_ADD => Ok(ExtraInfo::McastAdd([a, b, c, d, e, f])),
            MCAST_DEL => Ok(ExtraInfo::McastDel([a, b, c, d, e, f])),
            HASH => Ok(ExtraInfo::Hash {
                kind: a,
                algorithm: b,
                value: field!(raw, 4, u32),
            }),
            XDP => Ok(ExtraInfo::Xdp {
                headroom: field!(raw, 2, u16),
            }),
            unknown => Err(ExtraError::UnknownType(unknown)),
        };
        DecodedExtra {
            info,
            more: flags & MORE != 0,
        }
    }
}

/// Which protocol is segmented.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GsoKind {
    /// TCP over IPv4 (1).
    TcpV4,
    /// TCP over IPv6 (2).
    TcpV6,
}

impl GsoKind {
    /// The value on the wire.
    #[inline]
    pub const fn to_raw(self) -> u8 {
        match self {
            GsoKind::TcpV4 => 1,
            GsoKind::TcpV6 => 2,
        }
    }

    /// The kind that a value stands for.
    #[inline]
    pub const fn from_raw(raw: u8) -> Option<GsoKind> {
        match raw {
            1 => Some(GsoKind::TcpV4),
            2 => Some(GsoKind::TcpV6),
            _ => None,
        }
    }
}

/// What a hash was taken over. The value on the wire is the number of the bit in
/// [`HashFlags`](crate::HashFlags).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HashKind {
    /// The two IPv4 addresses (0).
    Ipv4,
    /// IPv4 addresses and TCP ports (1).
    Ipv4Tcp,
    /// The two IPv6 addresses (2).
    Ipv6,
    /// IPv6 addresses and TCP ports (3).
    Ipv6Tcp,
}

impl HashKind {
    /// The value on the wire.
    #[inline]
    pub const fn to_raw(self) -> u8 {
        match self {
            HashKind::Ipv4 => 0,
            HashKind::Ipv4Tcp => 1,
            HashKind::Ipv6 => 2,
            HashKind::Ipv6Tcp => 3,
        }
    }

    /// The kind that a value stands for.
    #[inline]
    pub const fn from_raw(raw: u8) -> Option<HashKind> {
        match raw {
            0 => Some(HashKind::Ipv4),
            1 => Some(HashKind::Ipv4Tcp),
            2 => Some(HashKind::Ipv6),
            3 => Some(HashKind::Ipv6Tcp),
            _ => None,
        }
    }
}

/// How a hash is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HashAlgorithm {
    /// Not at all (0).
    None,
    /// By Toeplitz, with a key that the frontend sets (1).
    Toeplitz,
}

impl HashAlgorithm {
    /// The value on the wire.
    #[inline]
    pub const fn to_raw(self) -> u8 {
        match self {
            HashAlgorithm::None => 0,
            HashAlgorithm::Toeplitz => 1,
        }
    }

    /// The algorithm that a value stands for.
    #[inline]
    pub const fn from_raw(raw: u8) -> Option<HashAlgorithm> {
        match raw {
            0 => Some(HashAlgorithm::None),
            1 => Some(HashAlgorithm::Toeplitz),
            _ => None,
        }
    }
}
