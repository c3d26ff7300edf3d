//! The guest's pages, as the data path reaches them: through a mapping that is kept if the guest has
//! announced the page, else by a grant copy or a mapping for this batch only.
//!
//! One batch is at most one copy call, or one call that maps and one that unmaps.

use std::sync::Arc;

use hypervisor::{
    Access, Copy, CopyStatus, Direction, Error, ForeignMemory, GrantRef, LocalBuffer,
};
use xen_ring::{GrefEntry, Page, GREF_ENTRIES, PAGE_SIZE};

use super::fetch::COPIES;
use super::mappings::Mappings;
use crate::counters::Counters;
use crate::reach::Reach;

/// Bytes of an entry of a list page.
const ENTRY: usize = PAGE_SIZE / GREF_ENTRIES;

/// The guest's memory.
pub(super) struct Memory {
    pub(super) foreign: ForeignMemory,
    pub(super) kept: Mappings,
    reach: Reach,
    /// The copies of a batch for which no mapping is kept, and where they stand in the batch.
    rest: Vec<Copy>,
    places: Vec<usize>,
    refs: Vec<GrantRef>,
    /// Room for one list page.
    list: LocalBuffer,
    counters: Arc<Counters>,
}

impl Memory {
    pub(super) fn new(
        foreign: ForeignMemory,
        queues: usize,
        reach: Reach,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        Ok(Memory {
            foreign,
            kept: Mappings::new(queues),
            reach,
            rest: Vec::with_capacity(COPIES),
            places: Vec::with_capacity(COPIES),
            refs: Vec::with_capacity(COPIES),
            list: LocalBuffer::new(PAGE_SIZE)?,
            counters,
        })
    }

    /// Does a batch of copies. Each gets its status, by whatever way it goes.
    ///
    /// # Errors
    /// When a call as a whole could not be made; then those copies that needed it have failed.
    pub(super) fn carry(
        &mut self,
        buffer: &mut LocalBuffer,
        operations: &mut [Copy],
    ) -> Result<(), Error> {
        if operations.is_empty() {
            return Ok(());
        }
        if self.kept.is_empty() && self.reach == Reach::Copy {
            return by_copy(&mut self.foreign, &self.counters, buffer, operations);
        }
        self.rest.clear();
        self.places.clear();
        for (place, operation) in operations.iter_mut().enumerate() {
            match self.kept.find(operation.gref) {
                Some(kept) => {
                    operation.status = through(&kept.page, kept.access, buffer, operation);
                }
                None => {
                    self.rest.push(operation.clone());
                    self.places.push(place);
                }
            }
        }
        let kept = operations.len() - self.rest.len();
        self.counters.copies_kept.add(kept as u64);
        if self.rest.is_empty() {
            return Ok(());
        }
        let result = match self.reach {
            Reach::Copy => by_copy(&mut self.foreign, &self.counters, buffer, &mut self.rest),
            Reach::Map => self.by_map(buffer),
        };
        for (place, done) in self.places.iter().zip(&self.rest) {
            operations[*place].status = done.status;
        }
        result
    }

    /// Maps the pages of the batch, copies, and unmaps them.
    fn by_map(&mut self, buffer: &mut LocalBuffer) -> Result<(), Error> {
        let writes = |copy: &Copy| copy.direction == Direction::ToDomain;
        let access = match self.rest.iter().any(writes) {
            true => Access::ReadWrite,
            false => Access::ReadOnly,
        };
        self.refs.clear();
        self.refs.extend(self.rest.iter().map(|copy| copy.gref));
        self.counters.map_calls.add(1);
        let Ok(pages) = self.foreign.map(&self.refs, access) else {
            // A mapping is refused as a whole. A copy says for each page by itself what is wrong with it, and
            // carries the others.
            self.counters.maps_refused.add(1);
            return by_copy(&mut self.foreign, &self.counters, buffer, &mut self.rest);
        };
        for (index, operation) in self.rest.iter_mut().enumerate() {
            operation.status = through(&pages.page(index), access, buffer, operation);
        }
        self.counters.copies_mapped.add(self.rest.len() as u64);
        // Before the guest is answered.
        drop(pages);
        self.counters.map_calls.add(1);
        Ok(())
    }

    /// Copies a list out of the guest's page, once. None when the page cannot be read.
    pub(super) fn read_list(&mut self, gref: u32, entries: usize) -> Option<Vec<GrefEntry>> {
        self.copy_list(gref, entries, Direction::FromDomain)?;
        let raw = self.list.as_slice()[..entries * ENTRY].chunks_exact(ENTRY);
        Some(
            raw.filter_map(|raw| raw.first_chunk().map(GrefEntry::decode))
                .collect(),
        )
    }

    /// Copies bytes from the start of a page of the guest's, once; at most a page. None when it cannot be read.
    pub(super) fn read_bytes(&mut self, gref: u32, len: usize) -> Option<&[u8]> {
        if len > PAGE_SIZE {
            return None;
        }
        self.copy_list(gref, len.div_ceil(ENTRY), Direction::FromDomain)?;
        self.list.as_slice().get(..len)
    }

    /// Writes a list back with its statuses. None when the page cannot be written.
    pub(super) fn write_list(&mut self, gref: u32, entries: &[GrefEntry]) -> Option<()> {
        let raw = self.list.as_mut_slice().chunks_exact_mut(ENTRY);
        for (raw, entry) in raw.zip(entries) {
            raw.copy_from_slice(&entry.encode());
        }
        self.copy_list(gref, entries.len(), Direction::ToDomain)
    }

    fn copy_list(&mut self, gref: u32, entries: usize, direction: Direction) -> Option<()> {
        let mut operation = [Copy {
            gref: GrantRef(gref),
            offset: 0,
            // At most a page: the caller has counted the entries.
            len: (entries * ENTRY) as u16,
            local: 0,
            direction,
            status: CopyStatus::NotGranted,
        }];
        let result = self.foreign.copy(&mut self.list, &mut operation);
        (result.is_ok() && operation[0].status.is_okay()).then_some(())
    }
}

fn by_copy(
    foreign: &mut ForeignMemory,
    counters: &Counters,
    buffer: &mut LocalBuffer,
    operations: &mut [Copy],
) -> Result<(), Error> {
    counters.copy_calls.add(1);
    counters.copies_granted.add(operations.len() as u64);
    let result = foreign.copy(buffer, operations);
    if result.is_err() {
        counters.copy_calls_failed.add(1);
        for operation in operations {
            operation.status = CopyStatus::NotGranted;
        }
    }
    result
}

/// One copy through a mapped page, judged as the hypervisor judges a grant copy.
#[inline]
fn through(page: &Page, access: Access, buffer: &mut LocalBuffer, operation: &Copy) -> CopyStatus {
    let (offset, len) = (usize::from(operation.offset), usize::from(operation.len));
    if offset + len > PAGE_SIZE {
        return CopyStatus::BadArgument;
    }
    let local = buffer.as_mut_slice();
    let Some(local) = local.get_mut(operation.local..operation.local + len) else {
        return CopyStatus::BadArgument;
    };
    match (operation.direction, access) {
        (Direction::FromDomain, _) => page.copy_out(offset, local),
        (Direction::ToDomain, Access::ReadWrite) => page.copy_in(offset, local),
        (Direction::ToDomain, Access::ReadOnly) => return CopyStatus::NotGranted,
    }
    CopyStatus::Okay
}
