//! What all threads of one run share: who is where, what was handed from one core to another, and the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::controls::Controls;
use super::filter::Filter;
use super::interrupts::Interrupts;
use super::kinds::{Signal, CONTROLS, MAIL};
use super::seat::Seat;
use super::work::{Buffers, Frame};
use super::Cores;
use crate::engine::clock::Monotonic;
use crate::engine::pending::Kinds;
use crate::engine::steering::{Connection, Drain};
use crate::engine::WEIGHT;

/// Frames of a worker that may be on their way to one event core.
pub(super) const BACK: usize = 8 * WEIGHT;

/// What one event core gives to another.
pub(super) enum Parcel<'q> {
    /// A queue, which may be polled when the drain is over.
    Seat {
        number: usize,
        seat: Box<Seat<'q>>,
        drain: Option<Drain>,
    },
    /// A worker's frame for a queue that has moved.
    Frame(Frame),
}

/// Where an event core finds what it was given. Its lock is taken only when [`MAIL`] was raised.
type Mail<'q> = Mutex<Vec<Parcel<'q>>>;

/// The last packet of each connection that a worker has worked on, by its queue.
pub(super) type Order = Mutex<HashMap<(usize, Option<Connection>), u64>>;

pub(super) struct Running<'q> {
    pub controls: Controls,
    pub clock: Monotonic,
    pub interrupts: Interrupts,
    /// Of frames that were sent.
    pub buffers: Buffers,
    /// By event core.
    mail: Vec<Mail<'q>>,
    signals: Vec<Arc<Signal>>,
    ending: AtomicBool,
    workers_end: AtomicBool,
    called: AtomicBool,
    /// What is asked about each packet before its buffer is built, if anything is.
    pub filter: Option<Filter>,
    /// There if it was asked for.
    pub order: Option<Order>,
}

impl<'q> Running<'q> {
    pub fn new(
        cores: &Cores,
        controls: Controls,
        signals: Vec<Arc<Signal>>,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            controls,
            clock: Monotonic::default(),
            interrupts,
            // As many as can be on their way.
            buffers: Buffers::new(cores.event_cores * cores.workers.max(1) * BACK),
            mail: signals.iter().map(|_| Mail::default()).collect(),
            signals,
            ending: AtomicBool::new(false),
            workers_end: AtomicBool::new(false),
            called: AtomicBool::new(false),
            filter: cores.filter.clone(),
            order: cores.checks_order.then(Order::default),
        }
    }

    /// Gives a parcel to a core, and wakes it. Packets are not sent so, only what has to move.
    pub fn post(&self, core: usize, parcel: Parcel<'q>) {
        if let (Some(mail), Some(signal)) = (self.mail.get(core), self.signals.get(core)) {
            unpoisoned(mail).push(parcel);
            // Who gives something away has followed the controls, which raise one core after the other. This one may not have
            // heard of it yet, and would give the parcel back.
            signal.raise(Kinds::from(CONTROLS).and(MAIL));
        }
    }

    /// What a core was given: after [`MAIL`] was raised.
    pub fn fetch(&self, core: usize) -> Vec<Parcel<'q>> {
        let mail = self.mail.get(core);
        mail.map(|mail| std::mem::take(&mut *unpoisoned(mail)))
            .unwrap_or_default()
    }

    pub fn signal(&self, core: usize) -> Option<&Arc<Signal>> {
        self.signals.get(core)
    }

    pub fn signals(&self) -> &[Arc<Signal>] {
        &self.signals
    }

    /// Somebody called a queue's waker: whoever runs the cores has to see what changed.
    pub fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.end();
    }

    pub fn was_called(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }

    /// All event cores end, in order.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.signals.iter().for_each(|signal| signal.waker.wake());
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire) || self.controls.is_stopping()
    }

    /// No event core is left: workers end when their lanes are empty. Whoever says so wakes them.
    pub fn end_workers(&self) {
        self.workers_end.store(true, Ordering::Release);
    }

    pub fn workers_may_end(&self) -> bool {
        self.workers_end.load(Ordering::Acquire)
    }
}

/// Ends all event cores when its thread ends, in whatever way: a core that is missing would leave queues to nobody.
pub(super) struct EndsAll<'r, 'q>(pub &'r Running<'q>);

impl Drop for EndsAll<'_, '_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

pub(super) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
