//! A guest that posts no pages for too long: the carrier goes off, as netback's does, so that frames for it are dropped where
//! they come in instead of waiting.
//!
//! A queue has stalled when a frame waits for pages and none has got any for the timeout. One stalled queue takes the carrier
//! of the whole vif; it comes back when each of them has the pages that it waited for.

use std::time::{Duration, Instant};

use super::{Fault, Queue, Vif};
use crate::frame::FrameBurst;

/// Whether one queue's guest still posts pages.
#[derive(Debug)]
pub(super) struct StallWatch {
    /// When a frame last found pages, or the carrier came back.
    last: Instant,
    stalled: bool,
}

impl Default for StallWatch {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            stalled: false,
        }
    }
}

impl StallWatch {
    /// Frames have gone to the guest. Called once a batch.
    pub fn delivered(&mut self) {
        self.last = Instant::now();
    }
}

impl Queue {
    /// When the queue will have stalled, if a frame waits for pages; a time that no clock can tell is never.
    fn stalls_at(&self, timeout: Duration) -> Option<Instant> {
        let waits = self.wanted > 0 && !self.watch.stalled && !timeout.is_zero();
        self.watch.last.checked_add(timeout).filter(|_| waits)
    }
}

impl Vif {
    /// The carrier is off.
    pub(super) fn is_stalled(&self) -> bool {
        self.queues.iter().any(|queue| queue.watch.stalled)
    }

    /// When the carrier will go off if the guest posts nothing.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        let timeout = self.stall_timeout;
        self.queues
            .iter()
            .filter_map(|queue| queue.stalls_at(timeout))
            .min()
    }

    /// A frame waits: takes the carrier off if that has lasted too long. True if it is off.
    pub(super) fn look_for_stall(&mut self) -> bool {
        let (now, timeout, was_off) = (Instant::now(), self.stall_timeout, self.is_stalled());
        for queue in &mut self.queues {
            queue.watch.stalled |= queue.stalls_at(timeout).is_some_and(|at| at <= now);
        }
        let is_off = self.is_stalled();
        if is_off && !was_off {
            self.counters.rx_stalls.add(1);
            self.counters.rx_stalled.set(1);
            tracing::warn!(
                "the guest has posted no pages for {timeout:?}: the carrier is off until it does"
            );
        }
        is_off
    }

    /// Drops what comes while the carrier is off.
    pub(super) fn drop_without_carrier(&mut self, burst: &mut FrameBurst) {
        let frames = burst.len() - burst.next;
        self.counters.rx_no_carrier.add(frames as u64);
        burst.clear();
        self.blocked = None;
        // What waited elsewhere waits no more; a queue that has stalled is asked for its pages still.
        for queue in self.queues.iter_mut().filter(|queue| !queue.watch.stalled) {
            queue.wanted = 0;
        }
    }

    /// Puts the carrier on again if every stalled queue has the pages that it waited for. True if it did.
    pub(super) fn look_for_pages(&mut self) -> Result<bool, Fault> {
        for queue in self.queues.iter_mut().filter(|queue| queue.watch.stalled) {
            if queue.rx.unconsumed_now()? >= queue.wanted {
                queue.wanted = 0;
                queue.watch = StallWatch::default();
            }
        }
        let is_on = !self.is_stalled();
        if is_on {
            self.counters.rx_stalled.set(0);
            tracing::info!("the guest posts pages again: the carrier is on");
        }
        Ok(is_on)
    }
}
