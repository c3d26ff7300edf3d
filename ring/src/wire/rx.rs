//! Slots of the receive ring.

use super::{field, pack};
use crate::wire::flags::RxFlags;

/// A receive request: an empty page for the backend to fill. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxRequest {
    /// Chosen by the frontend, returned in the response.
    pub id: u16,
    /// The page.
    pub gref: u32,
}

impl RxRequest {
    /// The bytes of the slot.
    #[inline(always)]
    pub fn encode(&self) -> [u8; 8] {
        pack!(8; 0 => self.id, 4 => self.gref)
    }

    /// The request that some bytes stand for.
    #[inline(always)]
    pub fn decode(raw: &[u8; 8]) -> RxRequest {
        RxRequest {
            id: field!(raw, 0, u16),
            gref: field!(raw, 4, u32),
        }
    }
}

/// A receive response: a page that was filled. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxResponse {
    /// The request's id.
    pub id: u16,
    /// Where in the page the bytes start.
    pub offset: u16,
    /// What is known about them.
    pub flags: RxFlags,
    /// How many bytes; negative: the backend failed (see [`Status`](crate::Status)).
    pub status: i16,
}

impl RxResponse {
    /// The bytes of the slot.
    #[inline(always)]
    pub fn encode(&self) -> [u8; 8] {
        pack!(8; 0 => self.id, 2 => self.offset, 4 => self.flags.0, 6 => self.status)
    }

    /// The response that some bytes stand for.
    #[inline(always)]
    pub fn decode(raw: &[u8; 8]) -> RxResponse {
        RxResponse {
            id: field!(raw, 0, u16),
            offset: field!(raw, 2, u16),
            flags: RxFlags(field!(raw, 4, u16)),
            status: field!(raw, 6, i16),
        }
    }
}
