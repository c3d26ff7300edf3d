//! The netif contract of Xen: rings, slots, extra infos, control messages; no I/O, no Xen.
//!
//! Two domains share a page. This is how it carries packets, in the order in which a reader of the
//! code meets it:
//!
//! 1. **The page** ([`Page`]) is 4096 bytes that the other domain may change at any moment. It is
//!    read by copying out; nothing here ever gives a reference into it.
//! 2. **Four indices** stand at its head: `req_prod`, `req_event`, `rsp_prod`, `rsp_event`. They
//!    count up for ever and wrap at 2^32 ([`RingIndex`]); the slot is the index modulo the number
//!    of slots.
//! 3. **Slots** follow at byte 64. Each holds a request or, later, a response in the same place
//!    ([`Layout`]: [`Tx`] and [`Rx`] have 256, [`Control`] has 128).
//! 4. **The frontend** ([`FrontRing`]) initialises the page, writes requests into free slots and
//!    moves `req_prod`. **The backend** ([`BackRing`]) attaches, copies each request out once,
//!    and writes responses behind itself.
//! 5. **Publishing** is one store for a whole batch: slots first, then the index, so that a peer
//!    that sees the index sees the slots. A full fence follows, then the peer's event index says
//!    whether it wants to be woken ([`Notify`]).
//! 6. **Before sleeping**, the consumer sets its own event index, fences, and looks once more
//!    (`final_check`). Without the second look, a wake-up could be lost for good.
//! 7. **A packet** takes one or more slots. Going out ([`transmit`]), the first slot tells the
//!    total size; coming in ([`receive`]), each slot tells its own. `more_data` chains them.
//! 8. **Extra infos** ([`ExtraInfo`]) ride in slots directly behind the first: segmentation, hash,
//!    multicast. They, and two checksum bits that are swapped between the directions
//!    ([`TxFlags`], [`RxFlags`]), become the facts about a packet ([`Offload`]).
//! 9. **A strange packet** ([`PacketFault`]) is dropped, its slots are all reported, the device
//!    lives. **A broken ring** ([`Corrupt`]) is another type: the device goes down, with a named
//!    reason. Neither is ever a panic.
//! 10. **The control ring** ([`ControlRequest`], [`ControlResponse`]) asks the backend for the
//!     rest: hash keys and mappings, and lists of pages that it may keep mapped ([`GrefEntry`]).

#![no_std]
#![deny(unsafe_code)]
#![warn(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

extern crate alloc;
#[cfg(any(test, loom))]
extern crate std;

mod back;
mod end;
mod error;
mod front;
mod index;
mod layout;
mod offload;
pub mod receive;
#[allow(unsafe_code)]
mod shared;
pub mod transmit;
mod wire;

pub use back::BackRing;
pub use error::{Corrupt, CorruptReason, Full, PacketFault, PushError};
pub use front::FrontRing;
pub use index::{Notify, RingIndex};
pub use layout::{Control, Extras, Layout, RawSlot, Rx, Tx};
pub use offload::{Checksum, Gso, Hash, Offload};
pub use receive::{RxFragment, RxPacket};
pub use shared::{Page, PAGE_SIZE};
pub use transmit::{Multicast, TxFragment, TxPacket};
pub use wire::control::{
    ControlMessage, ControlRequest, ControlResponse, ControlStatus, GrefEntry, HashFlags,
    GREF_ENTRIES,
};
pub use wire::extra::{DecodedExtra, ExtraError, ExtraInfo, GsoKind, HashAlgorithm, HashKind};
pub use wire::flags::{RxFlags, TxFlags};
pub use wire::rx::{RxRequest, RxResponse};
pub use wire::tx::{TxRequest, TxResponse};
pub use wire::Status;

/// The slots that every backend accepts for one packet, and the most that ours accepts without an
/// error (`XEN_NETIF_NR_SLOTS_MIN`). Extra infos are not counted.
pub const SLOTS_MAX: usize = 18;
/// A frontend that chains this many slots is broken, not clumsy (netback's `fatal_skb_slots`).
pub const SLOTS_FATAL: usize = 20;
/// The largest packet that the `size` field of a first TX slot can tell (`XEN_NETIF_MAX_TX_SIZE`).
pub const PACKET_MAX: u32 = 0xFFFF;
/// An Ethernet header; nothing shorter is a packet.
pub const ETHERNET_HEADER: u32 = 14;
