//! Pages of the guest that stay mapped: those that it has announced over the control ring, and no
//! others. A kernel's netfront never announces any, and would give up its device for one.
//!
//! Pages are mapped in regions of up to [`TOGETHER`] pages, one call each. Xen's library unmaps only
//! whole regions, so a page that leaves alone has the rest of its region mapped anew.
//!
//! # Invariants
//!
//! - A reference is kept once, whatever the guest says; so no queue can spoil another one's pages.
//! - A page that was announced for reading only is never written: the processor would stop the
//!   program. Whoever copies asks [`Kept::access`] first.
//! - The table is as long as the largest reference that the hypervisor has accepted, so a guest
//!   cannot make it longer than its own grant table.

use std::collections::BTreeSet;

use hypervisor::{Access, Error, ForeignMemory, GrantRef, MappedPages};
use xen_ring::{ControlStatus, GrefEntry, Page};

/// Pages kept for one queue: several of the largest pools that a frontend has been seen to use.
pub(super) const PER_QUEUE: usize = 4096;
/// Pages mapped with one call. Frontends grow and shrink by about so many at a time.
const TOGETHER: usize = 32;
/// Regions for one queue: twice what it takes if they are full. A guest that announces pages one by one, or mixes
/// those to be written with others, would otherwise use up the mappings that a process may have.
const REGIONS: usize = 2 * PER_QUEUE / TOGETHER;

/// A page that stays mapped.
pub(super) struct Kept {
    pub(super) page: Page,
    pub(super) access: Access,
    region: usize,
}

/// Pages that were mapped together.
struct Region {
    queue: usize,
    access: Access,
    refs: Vec<GrantRef>,
}

/// Pages that are mapped and not yet kept: dropping it unmaps them.
pub(super) struct Candidates {
    queue: usize,
    regions: Vec<(Access, Vec<GrantRef>, MappedPages)>,
}

/// All pages that are kept for one guest.
pub(super) struct Mappings {
    /// By reference: the data path looks a page up with one load.
    by_ref: Vec<Option<Kept>>,
    regions: Vec<Option<Region>>,
    /// Pages kept for each queue.
    of_queue: Vec<usize>,
    /// Pages kept for all queues.
    kept: usize,
    /// Regions that there are, and places of those that are gone.
    mapped: usize,
    vacant: Vec<usize>,
}

impl Mappings {
    pub(super) fn new(queues: usize) -> Self {
        Mappings {
            by_ref: Vec::new(),
            regions: Vec::new(),
            of_queue: vec![0; queues],
            kept: 0,
            mapped: 0,
            vacant: Vec::new(),
        }
    }

    /// The page behind a reference, if it is kept.
    #[inline(always)]
    pub(super) fn find(&self, gref: GrantRef) -> Option<&Kept> {
        self.by_ref.get(gref.0 as usize)?.as_ref()
    }

    /// Whether nothing is kept.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.kept == 0
    }

    /// How many pages are kept.
    pub(super) fn len(&self) -> usize {
        self.kept
    }

    /// How many queues there are.
    pub(super) fn queues(&self) -> usize {
        self.of_queue.len()
    }

    /// Judges a list and maps its pages, all or none. Each entry gets its status: what is wrong with it,
    /// or success if it is not what spoiled the list. `None`: nothing is mapped.
    pub(super) fn prepare(
        &self,
        foreign: &mut ForeignMemory,
        queue: usize,
        entries: &mut [GrefEntry],
    ) -> Option<Candidates> {
        if !self.judge(queue, entries) {
            return None;
        }
        // Each is a mapping of ours, of which a process may have so many.
        let runs = entries.chunk_by(|one, next| one.read_only == next.read_only);
        let needed: usize = runs.map(|run| run.len().div_ceil(TOGETHER)).sum();
        if self.mapped + needed > REGIONS * self.of_queue.len() {
            for entry in entries {
                entry.status = ControlStatus::BufferOverflow.to_raw() as u16;
            }
            return None;
        }
        let mut regions = Vec::with_capacity(needed);
        for run in entries.chunk_by_mut(|one, next| one.read_only == next.read_only) {
            for chunk in run.chunks_mut(TOGETHER) {
                let refs: Vec<GrantRef> = chunk.iter().map(|entry| GrantRef(entry.gref)).collect();
                let access = match chunk[0].read_only {
                    true => Access::ReadOnly,
                    false => Access::ReadWrite,
                };
                match foreign.map(&refs, access) {
                    Ok(pages) => regions.push((access, refs, pages)),
                    Err(error) => {
                        tracing::debug!(%error, "pages that the guest announced cannot be mapped");
                        blame(chunk, &error);
                        return None;
                    }
                }
            }
        }
        Some(Candidates { queue, regions })
    }

    /// What can be said of a list without the hypervisor. Writes all statuses.
    fn judge(&self, queue: usize, entries: &mut [GrefEntry]) -> bool {
        let room = PER_QUEUE.saturating_sub(self.of_queue[queue]);
        let mut seen = BTreeSet::new();
        let mut sound = true;
        for (index, entry) in entries.iter_mut().enumerate() {
            let kept = self.find(GrantRef(entry.gref)).is_some();
            let status = if kept || !seen.insert(entry.gref) {
                ControlStatus::InvalidParameter
            } else if index >= room {
                ControlStatus::BufferOverflow
            } else {
                ControlStatus::Success
            };
            sound &= status == ControlStatus::Success;
            entry.status = status.to_raw() as u16;
        }
        sound
    }

    /// Keeps what was prepared.
    pub(super) fn keep(&mut self, candidates: Candidates) {
        for (access, refs, pages) in candidates.regions {
            self.of_queue[candidates.queue] += refs.len();
            self.kept += refs.len();
            self.mapped += 1;
            let region = self.vacant.pop().unwrap_or_else(|| {
                self.regions.push(None);
                self.regions.len() - 1
            });
            self.enter(region, &refs, access, &pages);
            self.regions[region] = Some(Region {
                queue: candidates.queue,
                access,
                refs,
            });
        }
    }

    fn enter(&mut self, region: usize, refs: &[GrantRef], access: Access, pages: &MappedPages) {
        for (index, gref) in refs.iter().enumerate() {
            let place = gref.0 as usize;
            if place >= self.by_ref.len() {
                self.by_ref.resize_with(place + 1, || None);
            }
            self.by_ref[place] = Some(Kept {
                page: pages.page(index),
                access,
                region,
            });
        }
    }

    /// Unmaps the pages of a list that were announced for this queue, and says how many they were. Each
    /// entry gets its status.
    pub(super) fn remove(
        &mut self,
        foreign: &mut ForeignMemory,
        queue: usize,
        entries: &mut [GrefEntry],
    ) -> usize {
        let mut removed = 0;
        let mut touched = BTreeSet::new();
        for entry in entries {
            let status = match self.take(queue, GrantRef(entry.gref)) {
                Some(region) => {
                    removed += 1;
                    touched.insert(region);
                    ControlStatus::Success
                }
                None => ControlStatus::InvalidParameter,
            };
            entry.status = status.to_raw() as u16;
        }
        for region in touched {
            self.rebuild(foreign, region);
        }
        removed
    }

    /// Takes one page off the table, and says which region it was of.
    fn take(&mut self, queue: usize, gref: GrantRef) -> Option<usize> {
        let region = self.find(gref)?.region;
        let of = self.regions[region].as_mut()?;
        if of.queue != queue {
            return None;
        }
        of.refs.retain(|kept| *kept != gref);
        self.by_ref[gref.0 as usize] = None;
        self.of_queue[queue] -= 1;
        self.kept -= 1;
        Some(region)
    }

    /// Maps what is left of a region anew, so that the pages that left it are unmapped.
    fn rebuild(&mut self, foreign: &mut ForeignMemory, region: usize) {
        let Some(Region {
            queue,
            access,
            refs,
        }) = self.regions[region].take()
        else {
            return;
        };
        if refs.is_empty() {
            self.mapped -= 1;
            self.vacant.push(region);
            return;
        }
        match foreign.map(&refs, access) {
            Ok(pages) => {
                self.enter(region, &refs, access, &pages);
                self.regions[region] = Some(Region {
                    queue,
                    access,
                    refs,
                });
            }
            Err(error) => {
                // The guest has ended a grant that it announced. The others are reached as if they had
                // not been announced.
                tracing::warn!(%error, pages = refs.len(), "announced pages cannot be mapped again");
                self.of_queue[queue] -= refs.len();
                self.kept -= refs.len();
                self.mapped -= 1;
                self.vacant.push(region);
                for gref in refs {
                    self.by_ref[gref.0 as usize] = None;
                }
            }
        }
    }
}

/// Says which entries a failed map call is to be blamed on: the one that the hypervisor named, or all.
fn blame(chunk: &mut [GrefEntry], error: &Error) {
    let named = match error {
        Error::BadReference { gref, .. } => Some(gref.0),
        _ => None,
    };
    for entry in chunk {
        if named.is_none_or(|gref| gref == entry.gref) {
            entry.status = ControlStatus::InvalidParameter.to_raw() as u16;
        }
    }
}
