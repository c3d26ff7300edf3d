//! Slots of the transmit ring.

use super::{field, pack, Status};
use crate::wire::flags::TxFlags;

/// A transmit request: bytes for the backend to send. 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TxRequest {
    /// The page with the bytes.
    pub gref: u32,
    /// Where in the page they start.
    pub offset: u16,
    /// What they need.
    pub flags: TxFlags,
    /// Chosen by the frontend, returned in the response.
    pub id: u16,
    /// In the first slot of a packet: the size of the **whole packet**. In the others: of the slot.
    pub size: u16,
}

impl TxRequest {
    /// The bytes of the slot.
    #[inline(always)]
    pub fn encode(&self) -> [u8; 12] {
        pack!(12; 0 => self.gref, 4 => self.offset, 6 => self.flags.0, 8 => self.id, 10 => self.size)
    }

    /// The request that some bytes stand for.
    #[inline(always)]
    pub fn decode(raw: &[u8; 12]) -> TxRequest {
        TxRequest {
            gref: field!(raw, 0, u32),
            offset: field!(raw, 4, u16),
            flags: TxFlags(field!(raw, 6, u16)),
            id: field!(raw, 8, u16),
            size: field!(raw, 10, u16),
        }
    }
}

/// A transmit response: the backend is done with a slot. 4 bytes; the other 8 of the slot are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxResponse {
    /// The request's id; without meaning if the status is [`Status::Null`].
    pub id: u16,
    /// How it went.
    pub status: Status,
}

impl TxResponse {
    /// The bytes of the slot.
    #[inline(always)]
    pub fn encode(&self) -> [u8; 12] {
        pack!(12; 0 => self.id, 2 => self.status.to_raw())
    }

    /// The response that some bytes stand for.
    #[inline(always)]
    pub fn decode(raw: &[u8; 12]) -> TxResponse {
        TxResponse {
            id: field!(raw, 0, u16),
            status: Status::from_raw(field!(raw, 2, i16)),
        }
    }
}
