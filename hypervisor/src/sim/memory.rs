//! Mappings of a domain's memory and of its grant table. UNSAFETY: this file turns descriptors into
//! memory that another process changes at will; nothing else of the simulation touches it directly.
//!
//! # Invariants
//!
//! - No reference to such memory is ever made, except to atomics.
//! - A [`Page`] keeps its mapping alive.
//! - The files are made by the server with their full size, sealed against shrinking, so that no
//!   access beyond their end can happen.

use std::any::Any;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use xen_ring::Page;

use crate::{Access, Error, PAGE_SIZE};

/// Pages that a domain has to share. The memory is sparse: what was never shared costs nothing.
pub(crate) const FRAMES: usize = 16384;
/// Bytes of a domain's memory.
pub(crate) const MEMORY_SIZE: usize = FRAMES * PAGE_SIZE;

/// Frames of one domain's memory, mapped here.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// One for each row of frames that follow each other.
    runs: Vec<MmapRaw>,
    /// For each page its run and its place in it.
    pages: Vec<(usize, usize)>,
}

impl Mapping {
    /// Maps these frames of the memory behind `file`, in this order.
    pub(crate) fn frames(file: impl AsFd, frames: &[usize], access: Access) -> Result<Self, Error> {
        let mut mapping = Mapping {
            runs: Vec::new(),
            pages: Vec::with_capacity(frames.len()),
        };
        let mut rest = frames;
        while let Some(&first) = rest.first() {
            let follow = rest
                .iter()
                .zip(first..)
                .take_while(|(frame, next)| **frame == *next);
            let count = follow.count();
            let mut options = MmapOptions::new();
            options
                .offset((first * PAGE_SIZE) as u64)
                .len(count * PAGE_SIZE);
            let file = file.as_fd().as_raw_fd();
            let run = match access {
                Access::ReadWrite => options.map_raw(file),
                Access::ReadOnly => options.map_raw_read_only(file),
            };
            let run = run.map_err(|source| {
                Error::system(format!("map {count} pages of simulated memory"), source)
            })?;
            mapping
                .pages
                .extend((0..count).map(|page| (mapping.runs.len(), page)));
            mapping.runs.push(run);
            rest = &rest[count..];
        }
        Ok(mapping)
    }

    /// System calls that making it took; unmapping it takes as many.
    pub(crate) fn system_calls(&self) -> u64 {
        self.runs.len() as u64
    }

    fn base(&self, index: usize) -> NonNull<u8> {
        let (run, page) = self.pages[index];
        let run = &self.runs[run];
        // SAFETY: the run was mapped with one page for each of its indices, and a mapping is never
        // at address 0.
        unsafe { NonNull::new_unchecked(run.as_mut_ptr().add(page * PAGE_SIZE)) }
    }
}

/// A mapping, and what must happen when it is gone.
///
/// Fields are dropped in this order: first the pages are unmapped, then `owner` gives them back.
#[derive(Debug)]
pub(crate) struct Mapped<T> {
    mapping: Mapping,
    /// Who gives the pages back when they are unmapped.
    pub(crate) owner: T,
}

impl<T: Any + Send + Sync> Mapped<T> {
    pub(crate) fn new(mapping: Mapping, owner: T) -> Arc<Self> {
        Arc::new(Mapped { mapping, owner })
    }

    /// How many pages are mapped.
    pub(crate) fn len(&self) -> usize {
        self.mapping.pages.len()
    }

    /// One page; it keeps all of them mapped.
    pub(crate) fn page(self: &Arc<Self>, index: usize) -> Page {
        let base = self.mapping.base(index);
        let keep: Arc<dyn Any + Send + Sync> = Arc::<Self>::clone(self);
        // SAFETY: `base` is the start of a mapped page, 4096 bytes and page aligned; `keep` holds
        // the mapping, which cannot be changed or taken out of it.
        unsafe { Page::from_raw(base, keep) }
    }
}

/// Memory mapped for good: a grant table, or all that a domain may share.
#[derive(Debug)]
pub(crate) struct Standing {
    map: MmapRaw,
}

impl Standing {
    /// Maps the first `size` bytes of `file`.
    pub(crate) fn new(file: impl AsFd, size: usize) -> Result<Self, Error> {
        let map = MmapOptions::new()
            .len(size)
            .map_raw(file.as_fd().as_raw_fd())
            .map_err(|source| {
                Error::system(format!("map {size} bytes of the simulated Xen"), source)
            })?;
        Ok(Standing { map })
    }

    /// One word of 32 bits.
    ///
    /// # Panics
    ///
    /// When it lies beyond the mapping.
    pub(crate) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(
            index < self.map.len() / 4,
            "word {index} is beyond the mapping"
        );
        // SAFETY: the word lies inside the mapping, which is page aligned and lives as long as the
        // reference; every process touches these words with atomics only.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast::<u32>().add(index)) }
    }

    /// Copies bytes into the memory. They may be changed or seen half done by the peer meanwhile,
    /// which is formally a data race: nobody takes from it more than bytes.
    ///
    /// # Panics
    ///
    /// When they leave the mapping.
    pub(crate) fn copy_in(&self, at: usize, from: &[u8]) {
        self.check(at, from.len());
        // SAFETY: the range was checked; own bytes are never part of such a mapping, so the two
        // cannot overlap.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), self.map.as_mut_ptr().add(at), from.len());
        }
    }

    /// Copies bytes out of the memory, with the same caveat.
    ///
    /// # Panics
    ///
    /// When they leave the mapping.
    pub(crate) fn copy_out(&self, at: usize, into: &mut [u8]) {
        self.check(at, into.len());
        // SAFETY: the range was checked; own bytes are never part of such a mapping, so the two
        // cannot overlap.
        unsafe {
            ptr::copy_nonoverlapping(self.map.as_ptr().add(at), into.as_mut_ptr(), into.len());
        }
    }

    fn check(&self, at: usize, len: usize) {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.map.len());
        assert!(inside, "{len} bytes at {at} are beyond the mapping");
    }
}
