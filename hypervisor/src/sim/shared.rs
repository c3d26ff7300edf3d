//! Own pages: choosing frames, granting them, taking them back.
//!
//! # Invariants
//!
//! - A frame is in exactly one state: free, shared, or waiting for a peer that still uses it.
//! - A frame number never equals its reference, so that who mixes them up is caught.
//! - Frames are used in turn, so that a stale reference stays stale for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use rustix::fs::FallocateFlags;

use super::attachment::Attachment;
use super::memory::{Mapped, Mapping, FRAMES};
use super::protocol::Request;
use super::table::{Table, ENTRIES, RESERVED};
use crate::counters::add;
use crate::{Access, DomId, Error, GrantRef, Port, PAGE_SIZE};
use xen_ring::Page;

/// Frames that have a reference which is not reserved.
const USABLE: usize = ENTRIES - RESERVED;

/// The reference of a frame. On Xen a guest may put any frame behind any reference; here each has
/// its own, counted from the other end.
fn reference_of(frame: usize) -> GrantRef {
    GrantRef((ENTRIES - 1 - frame) as u32)
}

/// Which frames of this domain are free.
#[derive(Debug)]
pub(super) struct Frames {
    used: Vec<bool>,
    /// Where to look first, so that a frame is not used again at once.
    next: usize,
    /// Pages shared by living regions.
    shared: usize,
    /// Frames given back that a peer still used then.
    waiting: Vec<usize>,
}

impl Frames {
    /// All are free but those that an earlier process of this domain has left to its peers.
    pub(super) fn new(table: &Table, id: DomId) -> Self {
        let waiting: Vec<usize> = (0..USABLE)
            .filter(|frame| !table.is_free(reference_of(*frame)))
            .collect();
        let mut used = vec![false; FRAMES];
        for frame in &waiting {
            used[*frame] = true;
        }
        // Domains, and processes one after the other, begin at different places: a reference used
        // with the wrong owner, or kept from a dead one, meets nothing.
        let seed = std::process::id() as usize * 31 + usize::from(id.0) * 1021;
        Frames {
            used,
            next: seed % USABLE,
            shared: 0,
            waiting,
        }
    }

    /// Frees the frames whose peers have let go by now.
    fn retry(&mut self, table: &Table) {
        let used = &mut self.used;
        self.waiting.retain(|frame| {
            let ended = table.end(reference_of(*frame));
            used[*frame] = !ended;
            !ended
        });
    }

    /// Takes so many free frames that follow each other.
    fn take(&mut self, pages: usize) -> Option<usize> {
        let fits = |start: &usize| {
            self.used
                .get(*start..*start + pages)
                .is_some_and(|run| run.iter().all(|used| !used))
        };
        let last = USABLE.checked_sub(pages)?;
        let first = (self.next..=last)
            .find(fits)
            .or_else(|| (0..=last).find(fits))?;
        self.used[first..first + pages].fill(true);
        self.next = first + pages;
        self.shared += pages;
        Some(first)
    }
}

/// Shares a region of zeroed pages.
pub(crate) fn share(
    attachment: &Arc<Attachment>,
    peer: DomId,
    pages: usize,
    access: Access,
) -> Result<Region, Error> {
    let first = {
        let mut frames = attachment
            .frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        frames.retry(&attachment.table);
        let limit = attachment.grant_limit();
        let refused = Error::GrantLimit {
            wanted: pages,
            shared: frames.shared,
            limit,
        };
        let fits = frames
            .shared
            .checked_add(pages)
            .is_some_and(|sum| sum <= limit);
        fits.then(|| frames.take(pages)).flatten().ok_or(refused)?
    };
    // From here on the frames are given back when this goes, whatever fails.
    let mut grants = Grants {
        attachment: Arc::clone(attachment),
        first,
        pages,
        granted: false,
        notice: false.into(),
    };
    // A hole reads as zeroes, whoever wrote to the frames before.
    grants.punch()?;
    let frames: Vec<usize> = (first..first + pages).collect();
    let mapping = Mapping::frames(&attachment.memory, &frames, Access::ReadWrite)?;
    for frame in frames {
        attachment
            .table
            .grant(reference_of(frame), peer, frame, access);
    }
    grants.granted = true;
    add(&attachment.counters.grants, pages as u64);
    add(
        &attachment.counters.system_calls,
        1 + mapping.system_calls(),
    );
    Ok(Region {
        pages: Mapped::new(mapping, grants),
        handed_out: AtomicBool::new(false),
    })
}

/// Own pages that are shared, as the facade holds them.
#[derive(Debug)]
pub(crate) struct Region {
    pages: Arc<Mapped<Grants>>,
    /// Somebody knows a page or a reference.
    handed_out: AtomicBool,
}

impl Region {
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn page(&self, index: usize) -> Page {
        self.handed_out.store(true, Ordering::Relaxed);
        self.pages.page(index)
    }

    pub(crate) fn reference(&self, index: usize) -> GrantRef {
        assert!(
            index < self.len(),
            "page {index} is beyond the region of {}",
            self.len()
        );
        self.handed_out.store(true, Ordering::Relaxed);
        reference_of(self.pages.owner.first + index)
    }

    /// The grants, as long as a notice can be asked for. The simulation could give one at any time;
    /// it refuses what Xen's library refuses, so that who runs here runs there.
    fn not_known_yet(&self) -> Result<&Grants, Error> {
        if self.len() > 1 || self.handed_out.load(Ordering::Relaxed) {
            return Err(Error::Unsupported {
                what: "A close notice for several pages, or for a page that has been handed out",
                by: "libxengnttab, nor by the simulation",
                hint:
                    "share the page alone, and ask for the notice before the page and its reference",
            });
        }
        Ok(&self.pages.owner)
    }

    pub(crate) fn clear_byte_on_close(&self, offset: usize) -> Result<(), Error> {
        let size = self.len() * PAGE_SIZE;
        if offset >= size {
            return Err(Error::Invalid {
                what: format!("Wanted to have byte {offset} cleared of a region of {size} bytes"),
            });
        }
        let grants = self.not_known_yet()?;
        let frame = grants.first as u32;
        let at = (grants.first * PAGE_SIZE + offset) as u32;
        grants.give_notice(Request::ClearOnClose { frame, at })
    }

    pub(crate) fn notify_on_close(&self, port: Port) -> Result<(), Error> {
        let grants = self.not_known_yet()?;
        let frame = grants.first as u32;
        grants.give_notice(Request::NotifyOnClose {
            frame,
            port: port.0,
        })
    }
}

/// The grants of a region. When this goes they end, or wait for the peer.
#[derive(Debug)]
pub(crate) struct Grants {
    attachment: Arc<Attachment>,
    first: usize,
    pages: usize,
    granted: bool,
    /// Whether the server is to be told when the region is closed.
    notice: AtomicBool,
}

impl Grants {
    /// Gives the memory of the frames back to the machine; they read as zeroes afterwards.
    fn punch(&self) -> Result<(), Error> {
        let (at, size) = (self.first * PAGE_SIZE, self.pages * PAGE_SIZE);
        rustix::fs::fallocate(
            &self.attachment.memory,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            at as u64,
            size as u64,
        )
        .map_err(|errno| {
            Error::system(
                format!("zero {} pages of simulated memory", self.pages),
                errno,
            )
        })
    }

    fn give_notice(&self, request: Request) -> Result<(), Error> {
        let answered = self.attachment.ask(request)?;
        answered.okay(self.attachment.id())?;
        self.notice.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        let attachment = &self.attachment;
        if self.notice.load(Ordering::Relaxed) {
            // As gntalloc does it: the notice goes out first, then the grant ends.
            let frame = self.first as u32;
            if let Err(error) = attachment.ask(Request::Closed { frame }) {
                tracing::debug!(%error, "the notice of a closed region did not go out");
            }
        }
        let mut frames = attachment
            .frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut kept = false;
        for frame in self.first..self.first + self.pages {
            if attachment.table.end(reference_of(frame)) {
                frames.used[frame] = false;
            } else {
                frames.waiting.push(frame);
                kept = true;
            }
        }
        frames.shared -= self.pages;
        // Still under the lock: nobody may have taken the frames again.
        if !kept {
            if let Err(error) = self.punch() {
                tracing::debug!(%error, "memory of a closed region was kept");
            }
        }
        drop(frames);
        if self.granted {
            add(&attachment.counters.revokes, self.pages as u64);
            add(&attachment.counters.system_calls, 2);
        }
    }
}
