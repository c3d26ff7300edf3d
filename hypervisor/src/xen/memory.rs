//! Own pages shared with a peer, and pages of a peer: mapped, or copied in batches.
//!
//! UNSAFETY: here raw mappings become [`Page`]s. A mapping is owned by one value in an `Arc`; every
//! page holds that `Arc`, so the mapping ends after the last page and never before.

use std::any::Any;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{madvise, Advice};
use xen_ring::Page;
use xen_sys::gnttab::{
    xengnttab_grant_copy_segment_xengnttab_copy_ptr as Place,
    xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1 as ForeignPlace,
    GNTCOPY_dest_gref, GNTCOPY_source_gref, GNTST_general_error,
};

use super::device;
pub(crate) use super::device::{grant_limit, raise_grant_limit};
use super::library::{CloseNotice, Reaching, Segment, Sharing};
pub(crate) use super::region::{share, Region};
use crate::counters::add;
use crate::{
    Access, Copy, CopyStatus, Counters, Direction, DomId, Error, GrantRef, LocalBuffer,
    MappedPages, PAGE_SIZE,
};

/// A region that is mapped and granted; given back on drop.
pub(super) struct Shared {
    device: Arc<Sharing>,
    base: NonNull<u8>,
    references: Vec<u32>,
    counters: Arc<Counters>,
}

// SAFETY: the base is an address of shared memory, not of data of one thread; only `Page` follows it.
unsafe impl Send for Shared {}
// SAFETY: as above; nothing changes in here after it was made.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(
        peer: DomId,
        pages: usize,
        access: Access,
        notice: CloseNotice,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>, Error> {
        let device = sharing()?;
        // Allocate, map, and give the number up.
        add(&counters.system_calls, 3);
        let made = if notice.clear.is_some() || notice.notify.is_some() {
            add(&counters.system_calls, 1);
            device.share_with_notice(peer, access, notice)
        } else {
            device.share(peer, pages, access)
        };
        let (base, references) = made.map_err(|source| match Errno::from_io_error(&source) {
            Some(Errno::NOSPC) => device::no_room(pages, shared_now(&counters)),
            _ => Error::system(format!("share {pages} pages with domain {peer}"), source),
        })?;
        add(&counters.grants, pages as u64);
        let shared = Arc::new(Shared {
            device,
            base,
            references,
            counters,
        });
        do_not_inherit(base, pages, &shared.counters)?;
        shared.must_be_zero()?;
        Ok(shared)
    }

    /// What is granted is readable by the peer from the first moment: a page with somebody's data
    /// on it would be a leak. The kernel clears them; this is where we would notice if one did not.
    fn must_be_zero(self: &Arc<Self>) -> Result<(), Error> {
        let mut bytes = [0_u8; PAGE_SIZE];
        for index in 0..self.len() {
            self.page(index).copy_out(0, &mut bytes);
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(Error::BadAnswer {
                    service: "The kernel's gntalloc",
                    found: format!("page {index} of a new region of {} is not zero", self.len()),
                });
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.references.len()
    }

    pub(super) fn reference(&self, index: usize) -> GrantRef {
        GrantRef(self.references[index])
    }

    pub(super) fn page(self: &Arc<Self>, index: usize) -> Page {
        // SAFETY: the region is mapped as long as `self` lives, of which the page gets a share.
        unsafe { page(self.base, index, self.len(), Arc::clone(self)) }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let pages = self.references.len();
        add(&self.counters.system_calls, 1);
        add(&self.counters.revokes, pages as u64);
        // SAFETY: this is the whole region, and no page of it lives, since each would hold `self`.
        if let Err(error) = unsafe { self.device.unshare(self.base, pages) } {
            tracing::warn!(pages, %error, "pages could not be taken back; they stay shared");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("references", &self.references)
            .finish_non_exhaustive()
    }
}

/// The process's handle for sharing. It is kept once it is open: a service that gave its rights up
/// afterwards can still let its pool grow.
fn sharing() -> Result<Arc<Sharing>, Error> {
    static OPEN: Mutex<Option<Arc<Sharing>>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.as_ref() {
        return Ok(Arc::clone(device));
    }
    let device = Arc::new(Sharing::open()?);
    *open = Some(Arc::clone(&device));
    Ok(device)
}

fn shared_now(counters: &Counters) -> usize {
    let grants = counters.grants.load(Ordering::Relaxed);
    let revokes = counters.revokes.load(Ordering::Relaxed);
    usize::try_from(grants.saturating_sub(revokes)).unwrap_or(usize::MAX)
}

/// The memory of one other domain.
pub(crate) struct Foreign {
    owner: DomId,
    device: Arc<Reaching>,
    /// Kept between batches for its room only.
    segments: Vec<Segment>,
    counters: Arc<Counters>,
}

// SAFETY: the pointers in `segments` are followed only within `copy`, which borrows what they point to.
unsafe impl Send for Foreign {}

impl Foreign {
    pub(crate) fn open(owner: DomId, counters: Arc<Counters>) -> Result<Foreign, Error> {
        let device = Arc::new(Reaching::open()?);
        Ok(Foreign {
            owner,
            device,
            segments: Vec::new(),
            counters,
        })
    }

    pub(crate) fn owner(&self) -> DomId {
        self.owner
    }

    pub(crate) fn map(&mut self, refs: &[GrantRef], access: Access) -> Result<MappedPages, Error> {
        // The library asks for room, then maps.
        add(&self.counters.system_calls, 2);
        add(&self.counters.hypercalls, 1);
        let base = match self.device.map(self.owner, refs, access) {
            Ok(base) => base,
            Err(source) => return Err(self.why_not_mapped(refs, source)),
        };
        let pages = refs.len();
        add(&self.counters.maps, pages as u64);
        let mapped = Arc::new(Mapped {
            device: Arc::clone(&self.device),
            base,
            pages,
            counters: Arc::clone(&self.counters),
        });
        do_not_inherit(base, pages, &self.counters)?;
        let pages = (0..pages).map(|index| {
            // SAFETY: the pages are mapped as long as `mapped` lives.
            unsafe { page(base, index, pages, Arc::clone(&mapped)) }
        });
        Ok(MappedPages::new(pages.collect()))
    }

    /// A mapping is refused as a whole and without a reason. A copy of one byte from each page tells
    /// which reference is bad, and why.
    fn why_not_mapped(&mut self, refs: &[GrantRef], source: io::Error) -> Error {
        let owner = self.owner;
        let mut operations: Vec<Copy> = refs
            .iter()
            .map(|&gref| Copy {
                gref,
                offset: 0,
                len: 1,
                local: 0,
                direction: Direction::FromDomain,
                status: CopyStatus::Okay,
            })
            .collect();
        let tried = LocalBuffer::new(1).and_then(|mut one| self.copy(&mut one, &mut operations));
        match operations
            .iter()
            .find(|operation| !operation.status.is_okay())
        {
            Some(bad) if tried.is_ok() => Error::BadReference {
                owner,
                gref: bad.gref,
                status: bad.status,
            },
            _ => Error::system(
                format!(
                    "map {} pages of domain {owner} (each can be read by itself: \
                     they may be shared read-only, or too many are mapped)",
                    refs.len()
                ),
                source,
            ),
        }
    }

    /// The caller has seen to it that no operation leaves `local`.
    pub(crate) fn copy(
        &mut self,
        local: &mut LocalBuffer,
        operations: &mut [Copy],
    ) -> Result<(), Error> {
        self.segments.clear();
        let bytes = local.as_mut_slice();
        for operation in operations.iter_mut() {
            operation.status = CopyStatus::NotGranted;
            // The kernel refuses the whole batch for one such operation; Xen would refuse only it.
            if leaves_page(operation) {
                operation.status = CopyStatus::BadArgument;
                continue;
            }
            let end = operation.local + usize::from(operation.len);
            let here = Place {
                virt: bytes[operation.local..end].as_mut_ptr().cast(),
            };
            self.segments.push(segment(operation, self.owner, here));
        }
        add(&self.counters.copies, operations.len() as u64);
        if self.segments.is_empty() {
            return Ok(());
        }
        add(&self.counters.system_calls, 1);
        add(&self.counters.hypercalls, 1);
        // SAFETY: each local place was cut out of `local`, which is borrowed for this call alone.
        unsafe { self.device.copy(&mut self.segments) }.map_err(|source| {
            let pieces = self.segments.len();
            Error::system(
                format!("copy {pieces} pieces from or to domain {}", self.owner),
                source,
            )
        })?;
        let asked = operations
            .iter_mut()
            .filter(|operation| !leaves_page(operation));
        for (operation, segment) in asked.zip(&self.segments) {
            operation.status = CopyStatus::from_raw(segment.status);
        }
        Ok(())
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

fn leaves_page(operation: &Copy) -> bool {
    usize::from(operation.offset) + usize::from(operation.len) > PAGE_SIZE
}

fn segment(operation: &Copy, owner: DomId, here: Place) -> Segment {
    let there = Place {
        foreign: ForeignPlace {
            ref_: operation.gref.0,
            offset: operation.offset,
            domid: owner.0,
        },
    };
    let (source, dest, flags) = match operation.direction {
        Direction::ToDomain => (here, there, GNTCOPY_dest_gref),
        Direction::FromDomain => (there, here, GNTCOPY_source_gref),
    };
    Segment {
        source,
        dest,
        len: operation.len,
        flags: flags as u16,
        // Not done until the kernel says so.
        status: GNTST_general_error as i16,
    }
}

/// Pages of a peer that are mapped; unmapped on drop.
struct Mapped {
    device: Arc<Reaching>,
    base: NonNull<u8>,
    pages: usize,
    counters: Arc<Counters>,
}

// SAFETY: the base is an address of shared memory, not of data of one thread; only `Page` follows it.
unsafe impl Send for Mapped {}
// SAFETY: as above; nothing changes in here after it was made.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // The library looks the mapping up, takes it away, and gives its room back.
        add(&self.counters.system_calls, 3);
        add(&self.counters.hypercalls, 1);
        add(&self.counters.unmaps, self.pages as u64);
        // SAFETY: this is the whole mapping, and no page of it lives, since each would hold `self`.
        if let Err(error) = unsafe { self.device.unmap(self.base, self.pages) } {
            tracing::warn!(pages = self.pages, %error, "pages of a peer could not be unmapped");
        }
    }
}

/// A child made by `fork` would hold the pages after our death, and the peer could not take its own
/// back.
fn do_not_inherit(base: NonNull<u8>, pages: usize, counters: &Counters) -> Result<(), Error> {
    add(&counters.system_calls, 1);
    // SAFETY: the range is a mapping that was just made; the advice changes nothing for us.
    unsafe {
        madvise(
            base.as_ptr().cast(),
            pages * PAGE_SIZE,
            Advice::LinuxDontFork,
        )
    }
    .map_err(|error| Error::system("keep shared pages out of child processes", error))
}

/// One page of a mapping.
///
/// # Safety
///
/// `pages` pages are mapped at `base`, page aligned, as long as `keep` lives.
///
/// # Panics
///
/// When there is no such page.
unsafe fn page<K: Any + Send + Sync>(
    base: NonNull<u8>,
    index: usize,
    pages: usize,
    keep: Arc<K>,
) -> Page {
    assert!(index < pages, "page {index} of a region of {pages}");
    // SAFETY: the index is within the mapping, as the caller promises.
    unsafe { Page::from_raw(base.add(index * PAGE_SIZE), keep) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(offset: u16, len: u16, direction: Direction) -> Copy {
        let (gref, status) = (GrantRef(77), CopyStatus::Okay);
        Copy {
            gref,
            offset,
            len,
            local: 0,
            direction,
            status,
        }
    }

    #[test]
    fn a_copy_to_the_domain_names_the_page_as_its_destination() {
        let mut byte = 0_u8;
        let here = Place {
            virt: (&raw mut byte).cast(),
        };
        let to = segment(&operation(8, 4, Direction::ToDomain), DomId(3), here);
        assert_eq!((u32::from(to.flags), to.len), (GNTCOPY_dest_gref, 4));
        // SAFETY: this side was written as a foreign place.
        let there = unsafe { to.dest.foreign };
        assert_eq!((there.ref_, there.offset, there.domid), (77, 8, 3));
    }

    #[test]
    fn a_copy_from_the_domain_names_the_page_as_its_source() {
        let mut byte = 0_u8;
        let here = Place {
            virt: (&raw mut byte).cast(),
        };
        let from = segment(&operation(8, 4, Direction::FromDomain), DomId(3), here);
        assert_eq!(u32::from(from.flags), GNTCOPY_source_gref);
        // SAFETY: this side was written as a foreign place.
        assert_eq!(unsafe { from.source.foreign }.ref_, 77);
        assert!(
            !CopyStatus::from_raw(from.status).is_okay(),
            "not done before the kernel says so"
        );
    }

    #[test]
    fn a_copy_may_reach_the_end_of_the_page_and_no_further() {
        assert!(!leaves_page(&operation(0, 4096, Direction::ToDomain)));
        assert!(!leaves_page(&operation(4095, 1, Direction::ToDomain)));
        assert!(leaves_page(&operation(4095, 2, Direction::ToDomain)));
        assert!(leaves_page(&operation(
            u16::MAX,
            u16::MAX,
            Direction::ToDomain
        )));
    }
}
