//! The kinds of work of an event core, in the order in which they are served, and how others raise them.
//!
//! | kind | raised by | why there |
//! | --- | --- | --- |
//! | [`CONTROLS`] | whoever changes what is wanted; with each parcel too | what comes in the mail is judged by what is wanted |
//! | [`MAIL`] | another event core, which gives a queue or a frame | a queue has to be here before what is sent by it |
//! | [`ARRIVALS`] | the core: queues whose packets from their old core are not worked on yet | frames that came for them wait for it |
//! | [`FRAMES`] | workers, for each weight of frames and at the end of a turn | rings get room, before packets come that want answers |
//! | [`TIMERS`] | the core: queues to be looked at without an event, or held | it puts queues on the list |
//! | [`RECEIVE`] | the core: queues are on its list | the only long one; it does all that those before have listed |
//!
//! What is no kind:
//!
//! - taking pages back and sending what a handler answered: they belong to the visit of their queue, which publishes all with one
//!   notification;
//! - events and pages that come home to an empty ring: they come by descriptors of their queue, which tell the poll which queue it is,
//!   and move with the queue to another core;
//! - calls of a queue's waker, and the end: they end all cores, and are looked at after each round of an activation too.

use std::sync::Arc;

use crate::engine::pending::{Kind, Kinds, Pending};
use crate::engine::steering::Bell;
use crate::waker::Waker;
use crate::Error;

/// Somebody wants other bindings, or another mode.
pub(super) const CONTROLS: Kind = Kind::of::<0>();
/// Parcels of another event core.
pub(super) const MAIL: Kind = Kind::of::<1>();
/// Queues that are to be seated when their drain is over.
pub(super) const ARRIVALS: Kind = Kind::of::<2>();
/// Frames of workers.
pub(super) const FRAMES: Kind = Kind::of::<3>();
/// Queues whose time may have come.
pub(super) const TIMERS: Kind = Kind::of::<4>();
/// Queues on the poll list.
pub(super) const RECEIVE: Kind = Kind::of::<5>();

/// How an event core is told that there is work for it.
#[derive(Debug)]
pub(super) struct Signal {
    /// Which kinds.
    pub pending: Arc<Pending>,
    /// Whether it sleeps: for those who raise often, and wake it only then.
    pub bell: Arc<Bell>,
    pub waker: Waker,
}

impl Signal {
    /// Of a core that has not begun.
    ///
    /// # Errors
    /// If its waker cannot be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            pending: Arc::default(),
            bell: Arc::default(),
            waker: Waker::new()?,
        })
    }

    /// Raises these kinds, and wakes the core: after it, or the core would look too early and sleep again.
    pub fn raise(&self, kinds: impl Into<Kinds>) {
        self.pending.raise(kinds);
        self.waker.wake();
    }
}
