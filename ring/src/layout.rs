//! The three rings by type, and a slot as it was copied out.

use core::fmt;

use crate::shared::Page;
use crate::wire::control::{ControlRequest, ControlResponse};
use crate::wire::extra::{DecodedExtra, ExtraInfo};
use crate::wire::rx::{RxRequest, RxResponse};
use crate::wire::tx::{TxRequest, TxResponse};

/// What the slots of one kind of ring hold.
pub trait Layout: Sized + 'static {
    /// What the frontend writes.
    type Request: Copy + fmt::Debug;
    /// What the backend writes.
    type Response: Copy + fmt::Debug;
    /// The bytes of a whole slot.
    type Raw: Copy + AsRef<[u8]> + fmt::Debug;
    /// The ring's name, for errors and counters.
    const NAME: &'static str;
    /// Bytes of a slot: the larger of request and response.
    const SLOT_SIZE: usize;
    /// Slots of the ring: the largest power of two that fits behind the 64 bytes of the head.
    const SLOTS: u32;

    /// The bytes of a request. Every byte of the slot is set.
    fn encode_request(request: &Self::Request) -> Self::Raw;
    /// The bytes of a response. Every byte of the slot is set, so that no old byte of ours stays
    /// readable for the peer (XSA-216).
    fn encode_response(response: &Self::Response) -> Self::Raw;
    /// A request from its bytes; any bytes are some request.
    fn decode_request(raw: &Self::Raw) -> Self::Request;
    /// A response from its bytes; any bytes are some response.
    fn decode_response(raw: &Self::Raw) -> Self::Response;
    /// Copies a slot out of the page, each byte once.
    fn load(page: &Page, offset: usize) -> Self::Raw;
    /// Copies a slot into the page, each byte once.
    fn store(page: &Page, offset: usize, raw: &Self::Raw);
}

/// Rings whose slots can also hold an extra info.
pub trait Extras: Layout {
    /// The bytes of an extra info, pads zero; `more` says that another one follows.
    fn encode_extra(extra: &ExtraInfo, more: bool) -> Self::Raw;
    /// An extra info from the bytes of a slot.
    fn decode_extra(raw: &Self::Raw) -> DecodedExtra;
}

/// The transmit ring: the frontend's packets, 12 bytes a slot.
#[derive(Debug)]
pub enum Tx {}
/// The receive ring: the frontend's empty pages, 8 bytes a slot.
#[derive(Debug)]
pub enum Rx {}
/// The control ring: the frontend's questions, 16 bytes a slot.
#[derive(Debug)]
pub enum Control {}

macro_rules! layout {
    ($ring:ident, $name:literal, $size:literal, $slots:literal, $request:ident, $response:ident) => {
        impl Layout for $ring {
            type Request = $request;
            type Response = $response;
            type Raw = [u8; $size];
            const NAME: &'static str = $name;
            const SLOT_SIZE: usize = $size;
            const SLOTS: u32 = $slots;

            #[inline(always)]
            fn encode_request(request: &$request) -> [u8; $size] {
                request.encode()
            }
            #[inline(always)]
            fn encode_response(response: &$response) -> [u8; $size] {
                response.encode()
            }
            #[inline(always)]
            fn decode_request(raw: &[u8; $size]) -> $request {
                $request::decode(raw)
            }
            #[inline(always)]
            fn decode_response(raw: &[u8; $size]) -> $response {
                $response::decode(raw)
            }
            #[inline(always)]
            fn load(page: &Page, offset: usize) -> [u8; $size] {
                page.read(offset)
            }
            #[inline(always)]
            fn store(page: &Page, offset: usize, raw: &[u8; $size]) {
                page.write(offset, raw);
            }
        }
        // The largest power of two that fits, as `__RING_SIZE` has it.
        const _: () = assert!(
            64 + $size * $slots <= crate::PAGE_SIZE && 64 + $size * $slots * 2 > crate::PAGE_SIZE
        );
    };
}
layout!(Tx, "tx", 12, 256, TxRequest, TxResponse);
layout!(Rx, "rx", 8, 256, RxRequest, RxResponse);
layout!(Control, "control", 16, 128, ControlRequest, ControlResponse);

impl Extras for Tx {
    #[inline]
    fn encode_extra(extra: &ExtraInfo, more: bool) -> [u8; 12] {
        let mut raw = [0; 12];
        raw[..8].copy_from_slice(&extra.encode(more));
        raw
    }
    #[inline]
    fn decode_extra(raw: &[u8; 12]) -> DecodedExtra {
        let [bytes @ .., _, _, _, _] = raw;
        ExtraInfo::decode(bytes)
    }
}

impl Extras for Rx {
    #[inline]
    fn encode_extra(extra: &ExtraInfo, more: bool) -> [u8; 8] {
        extra.encode(more)
    }
    #[inline]
    fn decode_extra(raw: &[u8; 8]) -> DecodedExtra {
        ExtraInfo::decode(raw)
    }
}

/// One slot, copied out of the page. Whatever the peer does to the page now, this stays.
pub struct RawSlot<L: Layout> {
    slot: u16,
    raw: L::Raw,
}

impl<L: Layout> RawSlot<L> {
    #[inline(always)]
    pub(crate) fn new(slot: u16, raw: L::Raw) -> Self {
        RawSlot { slot, raw }
    }

    /// Where in the ring it stood.
    #[inline(always)]
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Its bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &L::Raw {
        &self.raw
    }

    /// Reads it as a request (the backend's view).
    #[inline(always)]
    pub fn request(&self) -> L::Request {
        L::decode_request(&self.raw)
    }

    /// Reads it as a response (the frontend's view).
    #[inline(always)]
    pub fn response(&self) -> L::Response {
        L::decode_response(&self.raw)
    }
}

impl<L: Extras> RawSlot<L> {
    /// Reads it as an extra info.
    #[inline]
    pub fn extra(&self) -> DecodedExtra {
        L::decode_extra(&self.raw)
    }
}

impl<L: Layout> fmt::Debug for RawSlot<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSlot")
            .field("ring", &L::NAME)
            .field("slot", &self.slot)
            .field("raw", &self.raw)
            .finish()
    }
}
