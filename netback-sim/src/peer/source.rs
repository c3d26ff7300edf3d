//! Makes verifiable frames, as fast as they are taken or at a rate, and verifies what comes.

use std::time::{Duration, Instant};

use xen_ring::Offload;

use crate::frame::{Frame, FrameBurst, BATCH};
use crate::peer::{Peer, Sink};
use crate::traffic::{Counts, Generator};

/// How fast a peer sends, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Frames a second; 0: as fast as they are taken.
    pub rate: u64,
    /// Frames sent in a row; the rate holds over the bursts.
    pub burst: u64,
    /// Frames in all; 0: without end.
    pub count: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            rate: 0,
            burst: BATCH as u64,
            count: 0,
        }
    }
}

/// A clock that says how many frames may go now.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    left: u64,
    /// When the next burst is due; None before the first.
    next: Option<Instant>,
    /// Frames of the burst that is going on.
    credit: u64,
}

impl Pacer {
    pub(super) fn new(pace: Pace) -> Self {
        let left = if pace.count == 0 {
            u64::MAX
        } else {
            pace.count
        };
        Pacer {
            pace,
            left,
            next: None,
            credit: 0,
        }
    }

    /// Frames that may go now.
    pub(super) fn allowed(&mut self) -> u64 {
        if self.pace.rate == 0 {
            return self.left;
        }
        if self.credit == 0 {
            let now = Instant::now();
            let due = *self.next.get_or_insert(now);
            if now >= due {
                let burst = self.pace.burst.max(1);
                self.credit = burst;
                let gap = Duration::from_secs_f64(burst as f64 / self.pace.rate as f64);
                // What a slow guest did not take is made up for a tenth of a second, not for ever.
                let earliest = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
                self.next = Some(due.max(earliest) + gap);
            }
        }
        self.credit.min(self.left)
    }

    pub(super) fn spent(&mut self, frames: u64) {
        self.left = self.left.saturating_sub(frames);
        self.credit = self.credit.saturating_sub(frames);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        if self.left == 0 {
            None
        } else if self.pace.rate == 0 || self.credit > 0 {
            Some(Instant::now())
        } else {
            Some(self.next.unwrap_or_else(Instant::now))
        }
    }

    pub(super) fn finished(&self) -> bool {
        self.left == 0
    }
}

/// Makes verifiable frames; verifies those that come, so that two of them can face each other.
#[derive(Debug)]
pub struct Source {
    generator: Generator,
    pacer: Pacer,
    sink: Sink,
    connected: bool,
}

impl Source {
    /// Sends what `generator` makes at this pace. Nothing is made while nobody is connected, so
    /// that no frame is lost before the first can arrive.
    pub fn new(generator: Generator, pace: Pace) -> Self {
        Source {
            generator,
            pacer: Pacer::new(pace),
            sink: Sink::new(),
            connected: false,
        }
    }

    /// Does not verify what comes: for measuring.
    #[must_use]
    pub fn blind(mut self) -> Self {
        self.sink = Sink::blind();
        self
    }
}

impl Peer for Source {
    fn receive(&mut self, frames: &mut [Frame<'_>], _: &mut FrameBurst) {
        self.sink.take(frames);
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        let mut sent = 0;
        let allowed = self.pacer.allowed();
        while sent < allowed {
            let len = self.generator.next_len();
            let Some(space) = burst.space(len) else { break };
            if self.generator.fill(space).is_none() || !burst.commit(len, Offload::default()) {
                break;
            }
            sent += 1;
        }
        self.pacer.spent(sent);
    }

    fn due(&self) -> Option<Instant> {
        self.pacer.due().filter(|_| self.connected)
    }

    fn connected(&mut self, _: &crate::features::FrontFeatures) {
        self.connected = true;
    }

    fn disconnected(&mut self) {
        self.connected = false;
    }

    fn verified(&self) -> Option<Counts> {
        self.sink.verified()
    }

    fn finished(&self) -> bool {
        self.pacer.finished()
    }
}
