//! Pages of another domain: mapped, or copied.
//!
//! A copy is checked and pinned operation by operation, as Xen does it, and goes through a mapping
//! of the whole memory of the owner that stands as long as this lives: no message, no system call
//! and no allocation a packet.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::attachment::Attachment;
use super::memory::{Mapped, Mapping, Standing, MEMORY_SIZE};
use super::protocol::Request;
use super::table::Table;
use crate::counters::add;
use crate::{
    Access, Copy, CopyStatus, Direction, DomId, Error, GrantRef, LocalBuffer, MappedPages,
    PAGE_SIZE,
};

/// The memory and the grant table of another domain.
#[derive(Debug)]
pub(crate) struct Foreign {
    attachment: Arc<Attachment>,
    owner: DomId,
    file: OwnedFd,
    memory: Standing,
    table: Arc<Table>,
}

impl Foreign {
    pub(crate) fn open(attachment: &Arc<Attachment>, owner: DomId) -> Result<Self, Error> {
        let answered = attachment.ask(Request::Foreign { owner: owner.0 })?;
        let (_, file, table) = answered.pair(owner)?;
        let memory = Standing::new(&file, MEMORY_SIZE)?;
        let table = Arc::new(Table::new(table)?);
        Ok(Foreign {
            attachment: Arc::clone(attachment),
            owner,
            file,
            memory,
            table,
        })
    }

    pub(crate) fn owner(&self) -> DomId {
        self.owner
    }

    pub(crate) fn map(&mut self, refs: &[GrantRef], access: Access) -> Result<MappedPages, Error> {
        // From the first pin on, dropping this takes them back, whatever fails.
        let mut pins = Pins {
            attachment: Arc::clone(&self.attachment),
            table: Arc::clone(&self.table),
            refs: Vec::with_capacity(refs.len()),
            access,
            mapped: 0,
        };
        let mut frames = Vec::with_capacity(refs.len());
        for gref in refs {
            match self.table.pin(*gref, self.attachment.id(), access) {
                Ok(frame) => frames.push(frame),
                Err(status) => {
                    return Err(Error::BadReference {
                        owner: self.owner,
                        gref: *gref,
                        status,
                    })
                }
            }
            pins.refs.push(*gref);
        }
        let mapping = Mapping::frames(&self.file, &frames, access)?;
        pins.mapped = mapping.system_calls();
        let counters = &self.attachment.counters;
        add(&counters.maps, refs.len() as u64);
        add(&counters.hypercalls, 1);
        add(&counters.system_calls, mapping.system_calls());
        let mapped = Mapped::new(mapping, pins);
        Ok(MappedPages::new(
            (0..refs.len()).map(|index| mapped.page(index)).collect(),
        ))
    }

    /// The caller has seen to it that no operation leaves `local`.
    pub(crate) fn copy(&mut self, local: &mut LocalBuffer, operations: &mut [Copy]) {
        if operations.is_empty() {
            return;
        }
        let counters = &self.attachment.counters;
        add(&counters.copies, operations.len() as u64);
        add(&counters.hypercalls, 1);
        for operation in operations {
            operation.status = self.copy_one(local, operation);
        }
    }

    fn copy_one(&self, local: &mut LocalBuffer, operation: &Copy) -> CopyStatus {
        let (offset, len) = (usize::from(operation.offset), usize::from(operation.len));
        if offset + len > PAGE_SIZE {
            return CopyStatus::BadArgument;
        }
        let access = match operation.direction {
            Direction::ToDomain => Access::ReadWrite,
            Direction::FromDomain => Access::ReadOnly,
        };
        let frame = match self.table.pin(operation.gref, self.attachment.id(), access) {
            Ok(frame) => frame,
            Err(status) => return status,
        };
        let at = frame * PAGE_SIZE + offset;
        let range = operation.local..operation.local + len;
        match operation.direction {
            Direction::ToDomain => self.memory.copy_in(at, &local.as_slice()[range]),
            Direction::FromDomain => self.memory.copy_out(at, &mut local.as_mut_slice()[range]),
        }
        self.table.unpin(operation.gref, access);
        CopyStatus::Okay
    }
}

/// The pins of one mapping. They are taken back when the pages are unmapped.
#[derive(Debug)]
struct Pins {
    attachment: Arc<Attachment>,
    table: Arc<Table>,
    refs: Vec<GrantRef>,
    access: Access,
    /// System calls that the mapping took; 0 when it was never made.
    mapped: u64,
}

impl Drop for Pins {
    fn drop(&mut self) {
        for gref in &self.refs {
            self.table.unpin(*gref, self.access);
        }
        if self.mapped > 0 {
            let counters = &self.attachment.counters;
            add(&counters.unmaps, self.refs.len() as u64);
            add(&counters.hypercalls, 1);
            add(&counters.system_calls, self.mapped);
        }
    }
}
