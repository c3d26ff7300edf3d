//! The control ring: questions to the backend, one at a time, each answered within a deadline.
//!
//! Only the control thread asks; no packet ever waits for an answer. What comes back is judged here: an
//! answer to something that was not asked is a fault. A fault ends the use of the control ring and
//! nothing else, unless the ring itself is broken.
//!
//! Between questions the event channel stays masked, so a backend that rings it without end wakes nobody.

mod hash;
mod mapping;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hypervisor::{Access, DomId, Domain, EventChannels, GrantRef, Port, SharedPages};
use xen_ring::{
    Control, ControlMessage, ControlRequest, ControlStatus, Corrupt, FrontRing, GrefEntry, Notify,
    Page, GREF_ENTRIES, PAGE_SIZE,
};

pub use hash::{HashConfig, HashKey, HashKeyError};
pub(crate) use mapping::{entry, Announcement, Mapping};

use crate::queue::events_of;
use crate::Error;

/// How long a backend may take for an answer. It may have a page table to change for each of 512 pages.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pages that a control ring takes: the ring itself, and the one with lists.
pub const PAGES: usize = 2;

/// What the backend must know of the control ring: the values of its store keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlKeys {
    /// `ctrl-ring-ref`
    pub ring: GrantRef,
    /// `event-channel-ctrl`
    pub port: Port,
}

/// Why the control ring is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error("message {kind} was not answered within {waited:?}")]
    Silent { kind: u16, waited: Duration },
    #[error("message {wanted:?} (id, type) was asked, {found:?} was answered")]
    Mismatch {
        wanted: (u16, u16),
        found: (u16, u16),
    },
    #[error("message {kind} was answered with {status:?} and {data}, which makes no sense")]
    Nonsense {
        kind: u16,
        status: ControlStatus,
        data: u32,
    },
    #[error(transparent)]
    Hypervisor(#[from] hypervisor::Error),
    #[error(transparent)]
    Full(#[from] xen_ring::Full),
}

/// An answer: its status, and what was asked for, if something was.
pub(crate) type Answer = (ControlStatus, u32);

/// A question that waits for its answer.
struct Asked {
    id: u16,
    kind: u16,
    until: Instant,
}

/// The frontend's end of a control ring.
pub(crate) struct ControlRing {
    ring: FrontRing<Control>,
    /// Lists for the backend, and its remarks on them.
    list: Page,
    events: EventChannels,
    port: Port,
    /// Read, and masked until the next question.
    masked: Vec<Port>,
    asked: Option<Asked>,
    next_id: u16,
    /// The ring's page and the one with lists: kept for as long as this.
    pages: SharedPages,
}

impl ControlRing {
    /// Shares the pages and makes the event channel. On Xen its interrupt is named after `thread`.
    ///
    /// # Errors
    /// When a page, the channel or a thread cannot be had.
    pub fn open(domain: &Domain, peer: DomId, thread: &str) -> Result<Self, Error> {
        let pages = domain.share(peer, PAGES, Access::ReadWrite)?;
        // The handle is for the control thread, which starts later.
        let mut events = events_of(domain, thread)?;
        let port = events.bind_unbound(peer)?;
        Ok(Self {
            ring: FrontRing::new(pages.page(0)),
            list: pages.page(1),
            events,
            port,
            masked: Vec::with_capacity(1),
            asked: None,
            next_id: 0,
            pages,
        })
    }

    /// What to write to the store for it.
    pub fn keys(&self) -> ControlKeys {
        ControlKeys {
            ring: self.pages.reference(0),
            port: self.port,
        }
    }

    /// The reference of the page with lists.
    pub fn list_reference(&self) -> u32 {
        self.pages.reference(1).0
    }

    /// Writes a list of up to 512 entries; the rest of the page is left as it is.
    pub fn write_list(&self, entries: &[GrefEntry]) {
        const ENTRY: usize = PAGE_SIZE / GREF_ENTRIES;
        for (index, entry) in entries.iter().take(GREF_ENTRIES).enumerate() {
            self.list.write(index * ENTRY, &entry.encode());
        }
    }

    /// Writes bytes to the start of the page with lists; the rest of the page is left as it is.
    pub fn write_bytes(&self, bytes: &[u8]) {
        self.list.copy_in(0, &bytes[..bytes.len().min(PAGE_SIZE)]);
    }

    /// The entries as the backend left them, each copied once.
    pub fn read_list(&self, entries: usize) -> impl Iterator<Item = GrefEntry> + '_ {
        const ENTRY: usize = PAGE_SIZE / GREF_ENTRIES;
        (0..entries.min(GREF_ENTRIES))
            .map(|index| GrefEntry::decode(&self.list.read(index * ENTRY)))
    }

    /// Asks. There must be no question that waits for its answer.
    pub fn ask(&mut self, message: ControlMessage) -> Result<(), Fault> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.ring.push(&ControlRequest { id, message })?;
        if self.ring.publish() == Notify::Needed {
            self.events.notify(self.port)?;
        }
        self.asked = Some(Asked {
            id,
            kind: message.kind(),
            until: Instant::now() + PATIENCE,
        });
        Ok(())
    }

    /// The answer, if it has come. `None`: sleep until [`Self::fd`] or [`Self::deadline`], and ask again.
    pub fn answer(&mut self) -> Result<Option<Answer>, Fault> {
        let Some(asked) = &self.asked else {
            return Ok(None);
        };
        self.events.pending(&mut self.masked)?;
        let raw = loop {
            if let Some(raw) = self.ring.pop()? {
                break raw;
            }
            while let Some(port) = self.masked.pop() {
                self.events.unmask(port)?;
            }
            // An answer that came in between has not rung.
            if !self.ring.final_check(1)? {
                if Instant::now() < asked.until {
                    return Ok(None);
                }
                return Err(Fault::Silent {
                    kind: asked.kind,
                    waited: PATIENCE,
                });
            }
        };
        let answer = raw.response();
        let (wanted, found) = ((asked.id, asked.kind), (answer.id, answer.kind));
        self.asked = None;
        if wanted != found {
            return Err(Fault::Mismatch { wanted, found });
        }
        Ok(Some((answer.status, answer.data)))
    }

    /// Readable when an answer may have come; `None` while none is waited for.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.asked.as_ref().map(|_| self.events.as_fd())
    }

    /// When the answer is overdue.
    pub fn deadline(&self) -> Option<Instant> {
        self.asked.as_ref().map(|asked| asked.until)
    }
}

impl std::fmt::Debug for ControlRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlRing")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
