//! Pages that leave the pool, and which there are for a backend to keep mapped.

use hypervisor::Access;
use xen_ring::GrefEntry;

use super::{Leaving, Pool, BATCH};
use crate::control::entry;

impl Pool {
    /// Frees one grown batch whose pages are all free, keeping the starting capacity.
    /// For idle times: it walks the free list. Returns the pages freed, or on their way: those that the backend
    /// keeps mapped are freed when it has let go.
    pub fn shrink(&mut self) -> usize {
        self.collect();
        // With less than two batches free, the one that goes would be asked for again at once.
        let spare = self.granted >= self.config.capacity + BATCH && self.free.len() >= 2 * BATCH;
        if !spare || !self.config.policy.recycles() || !self.growth.can_leave() {
            return 0;
        }
        let mut free_of = vec![0usize; self.batches.len()];
        for page in &self.free {
            free_of[self.entry(page).batch as usize] += 1;
        }
        let idle = (0..self.batches.len()).rev().find(|&number| {
            self.batches[number]
                .as_ref()
                .is_some_and(|batch| batch.pages == free_of[number])
        });
        let Some(number) = idle else { return 0 };
        // With the room that it had: the data path puts pages back and must not allocate for it.
        let room = Vec::with_capacity(self.free.capacity());
        let (gone, kept) = std::mem::replace(&mut self.free, room)
            .into_iter()
            .partition::<Vec<_>, _>(|page| self.entry(page).batch as usize == number);
        self.free.extend(kept);
        let count = gone.len();
        // Kept over the retiring: the backend may have these pages mapped, and must let go first.
        let leaving = Leaving::of(gone.iter().map(|page| {
            let entry = self.entry(page);
            (entry.reference, entry.page.clone())
        }));
        for page in gone {
            self.retire(page);
        }
        self.growth.leave(leaving);
        count
    }

    /// All pages of the pool, for the backend to keep mapped.
    pub(crate) fn announcement(&self) -> impl Iterator<Item = GrefEntry> + '_ {
        let read_only = self.config.access == Access::ReadOnly;
        let pages = self.entries.iter().flatten();
        pages.map(move |page| entry(page.reference, read_only))
    }
}
