//! The pages of one queue, as far as the backend keeps them mapped.

use std::collections::HashSet;
use std::sync::Arc;

use hypervisor::{GrantRef, SharedPages};
use xen_ring::GrefEntry;

use crate::pool::Growth;
use crate::stats::QueueStats;

/// How far the backend has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was asked how many pages it keeps.
    Asking,
    /// It keeps so many.
    On { room: usize },
    /// It keeps none, as the kernel's.
    Off,
    /// It has answered nonsense, or not at all.
    Down,
}

/// What is to be announced of a queue, and who tells of pages that come and go.
pub(crate) struct Announcement {
    /// The pages that it has.
    pub pages: Vec<GrefEntry>,
    pub growth: Arc<Growth>,
    pub stats: Arc<QueueStats>,
}

/// The announced pages of one queue.
pub(super) struct Announced {
    pub growth: Arc<Growth>,
    pub stats: Arc<QueueStats>,
    pub state: State,
    /// Pages that the backend may have mapped.
    pub mapped: HashSet<GrantRef>,
    /// A batch for the pool is on its way.
    pub granting: bool,
}

impl Announced {
    /// Before the backend has said anything.
    pub fn new(growth: Arc<Growth>, stats: Arc<QueueStats>) -> Self {
        Self {
            growth,
            stats,
            state: State::Asking,
            mapped: HashSet::new(),
            granting: false,
        }
    }

    pub fn hand_over(&mut self, grown: Option<SharedPages>) {
        if let Some(pages) = grown {
            self.granting = false;
            self.growth.hand_over(pages);
        }
    }

    /// The backend has, or may have, mapped these.
    pub fn map(&mut self, pages: &[GrefEntry]) {
        self.mapped
            .extend(pages.iter().map(|page| GrantRef(page.gref)));
    }

    pub fn count(&self) {
        self.stats.gref_mapped.set(self.mapped.len() as u64);
    }
}

pub(super) fn writable(refs: &[GrantRef]) -> Vec<GrefEntry> {
    refs.iter().map(|gref| entry(*gref, false)).collect()
}

/// The entry of a page in a list.
pub(crate) fn entry(gref: GrantRef, read_only: bool) -> GrefEntry {
    GrefEntry {
        gref: gref.0,
        read_only,
        status: 0,
    }
}
