//! A grant table of version 1, and beside it how often each entry is pinned by the one domain that
//! it names. Owner and mapper change it with atomics only, as a guest and Xen do.
//!
//! An entry is two words: flags (16 bits) and domain (16 bits), then the frame. On Xen the pins are
//! the hypervisor's own; here they stand behind the entries, where the server can clear them when
//! the mapper's process dies.
//!
//! # Invariants
//!
//! - `reading` is set while an entry is pinned, `writing` while it is pinned for writing; the owner
//!   can end the grant only while neither is set.
//! - Pins and flags of an entry change together, under a bit that serves as a lock among the
//!   threads of the mapper. They are the mapper's alone, since an entry names one domain.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::memory::{Standing, FRAMES};
use crate::{Access, CopyStatus, DomId, Error, GrantRef};

/// Entries of a table.
pub(crate) const ENTRIES: usize = FRAMES;
/// References below this one are kept for others, as on Xen (console, store).
pub(crate) const RESERVED: usize = 8;
/// Bytes of a table with its pins.
pub(crate) const TABLE_SIZE: usize = ENTRIES * 12;

const PERMIT_ACCESS: u32 = 1;
const TYPE_MASK: u32 = 3;
const READONLY: u32 = 4;
const READING: u32 = 8;
const WRITING: u32 = 16;
const DOMAIN_SHIFT: u32 = 16;

const ONE_READER: u32 = 1;
const READERS: u32 = 0xffff;
const ONE_WRITER: u32 = 1 << 16;
const WRITERS: u32 = 0x7fff << 16;
const LOCK: u32 = 1 << 31;

/// `GNTST_bad_page`: the entry names a frame that the owner does not have.
const BAD_PAGE: i16 = -9;

/// The grant table of one domain, mapped here.
#[derive(Debug)]
pub(crate) struct Table(Standing);

impl Table {
    pub(crate) fn new(file: impl AsFd) -> Result<Self, Error> {
        Ok(Table(Standing::new(file, TABLE_SIZE)?))
    }

    fn head(&self, index: usize) -> &AtomicU32 {
        self.0.word(2 * index)
    }

    fn frame(&self, index: usize) -> &AtomicU32 {
        self.0.word(2 * index + 1)
    }

    fn pins(&self, index: usize) -> &AtomicU32 {
        self.0.word(2 * ENTRIES + index)
    }

    /// Whether an entry is free. Asked by the owner.
    pub(crate) fn is_free(&self, gref: GrantRef) -> bool {
        self.head(gref.0 as usize).load(Ordering::Acquire) & 0xffff == 0
    }

    /// Grants a frame to a domain. Asked by the owner, for a free entry.
    pub(crate) fn grant(&self, gref: GrantRef, peer: DomId, frame: usize, access: Access) {
        let index = gref.0 as usize;
        let domain = u32::from(peer.0) << DOMAIN_SHIFT;
        let flags = match access {
            Access::ReadWrite => PERMIT_ACCESS,
            Access::ReadOnly => PERMIT_ACCESS | READONLY,
        };
        // The flags come last: with them the rest is believed.
        self.frame(index)
            .store(u32::try_from(frame).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.head(index).store(domain, Ordering::Relaxed);
        self.head(index).store(domain | flags, Ordering::Release);
    }

    /// Ends a grant; `false` while the peer still uses the page. Asked by the owner.
    pub(crate) fn end(&self, gref: GrantRef) -> bool {
        let head = self.head(gref.0 as usize);
        let mut seen = head.load(Ordering::Acquire);
        loop {
            if seen & (READING | WRITING) != 0 {
                return false;
            }
            // A test before the exchange would not do: the peer may pin the page in between.
            match head.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// Pins an entry for `mapper` and says which frame it names. Asked by the mapper.
    pub(crate) fn pin(
        &self,
        gref: GrantRef,
        mapper: DomId,
        access: Access,
    ) -> Result<usize, CopyStatus> {
        let index = gref.0 as usize;
        if index >= ENTRIES {
            return Err(CopyStatus::BadReference);
        }
        let pins = self.lock(index);
        let pinned = self.pin_locked(index, pins, mapper, access);
        let (result, pins) = match pinned {
            Ok((frame, pins)) => (Ok(frame), pins),
            Err(status) => (Err(status), pins),
        };
        self.pins(index).store(pins, Ordering::Release);
        result
    }

    fn pin_locked(
        &self,
        index: usize,
        pins: u32,
        mapper: DomId,
        access: Access,
    ) -> Result<(usize, u32), CopyStatus> {
        let (one, most, flags) = match access {
            Access::ReadOnly => (ONE_READER, READERS, READING),
            Access::ReadWrite => (ONE_WRITER, WRITERS, READING | WRITING),
        };
        if pins & most == most {
            return Err(CopyStatus::NotGranted);
        }
        let head = self.head(index);
        let mut seen = head.load(Ordering::Acquire);
        loop {
            if seen & TYPE_MASK != PERMIT_ACCESS
                || seen >> DOMAIN_SHIFT != u32::from(mapper.0)
                || (access == Access::ReadWrite && seen & READONLY != 0)
            {
                return Err(CopyStatus::NotGranted);
            }
            match head.compare_exchange(seen, seen | flags, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // Pinned now, so the owner cannot put another frame here meanwhile.
        let frame = self.frame(index).load(Ordering::Relaxed) as usize;
        if frame >= FRAMES {
            self.clear_flags(index, pins);
            return Err(CopyStatus::Other(BAD_PAGE));
        }
        Ok((frame, pins + one))
    }

    /// Takes back one pin. Asked by the mapper.
    pub(crate) fn unpin(&self, gref: GrantRef, access: Access) {
        let index = gref.0 as usize;
        let pins = self.lock(index);
        let (one, mask) = match access {
            Access::ReadOnly => (ONE_READER, READERS),
            Access::ReadWrite => (ONE_WRITER, WRITERS),
        };
        // The server may have cleared the pins of a process that it held for dead.
        let left = if pins & mask == 0 { pins } else { pins - one };
        self.clear_flags(index, left);
        self.pins(index).store(left, Ordering::Release);
    }

    /// Clears the flags that so many pins do not need any more.
    fn clear_flags(&self, index: usize, pins: u32) {
        let mut gone = 0;
        if pins & WRITERS == 0 {
            gone |= WRITING;
        }
        if pins & (READERS | WRITERS) == 0 {
            gone |= READING;
        }
        if gone != 0 {
            // Release: what the mapper did with the page comes before its owner has it back.
            self.head(index).fetch_and(!gone, Ordering::Release);
        }
    }

    /// Takes the lock of an entry and returns its pins. It is held for a few instructions only.
    fn lock(&self, index: usize) -> u32 {
        let word = self.pins(index);
        let mut spins = 0u32;
        loop {
            let pins = word.load(Ordering::Relaxed) & !LOCK;
            let taken =
                word.compare_exchange_weak(pins, pins | LOCK, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_ok() {
                return pins;
            }
            spins += 1;
            if spins.is_multiple_of(64) {
                // Who holds it may have lost the processor.
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }

    /// Clears all that a dead process of `mapper` has pinned. Asked by the server.
    pub(crate) fn clear_pins_of(&self, mapper: DomId) {
        for index in RESERVED..ENTRIES {
            let head = self.head(index).load(Ordering::Acquire);
            let pinned = self.pins(index).load(Ordering::Acquire) != 0;
            if head >> DOMAIN_SHIFT == u32::from(mapper.0)
                && (pinned || head & (READING | WRITING) != 0)
            {
                self.clear_flags(index, 0);
                self.pins(index).store(0, Ordering::Release);
            }
        }
    }

    /// Takes all grants back, as when the domain goes: nothing can be pinned any more. What is pinned
    /// stays so until the mapper lets go, since nobody can take a mapping out of another process.
    pub(crate) fn revoke_all(&self) {
        for index in RESERVED..ENTRIES {
            if !self.end(GrantRef(index as u32)) {
                self.head(index).fetch_and(!TYPE_MASK, Ordering::AcqRel);
            }
        }
    }

    /// Ends all grants; `false` when some are still used by peers. Asked by the server for a domain
    /// whose process died.
    pub(crate) fn end_all(&self) -> bool {
        let mut all = true;
        for gref in (RESERVED..ENTRIES).map(|index| GrantRef(index as u32)) {
            all &= self.is_free(gref) || self.end(gref);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::server::domains::memory_file;

    const OWNER_FRAME: usize = 77;
    const GREF: GrantRef = GrantRef(9);
    const PEER: DomId = DomId(3);

    fn table() -> Table {
        Table::new(memory_file("table", TABLE_SIZE).unwrap()).unwrap()
    }

    #[test]
    fn a_granted_frame_is_found_by_the_domain_it_names_only() {
        let table = table();
        table.grant(GREF, PEER, OWNER_FRAME, Access::ReadWrite);
        assert_eq!(
            table.pin(GREF, DomId(4), Access::ReadOnly),
            Err(CopyStatus::NotGranted)
        );
        assert_eq!(table.pin(GREF, PEER, Access::ReadWrite), Ok(OWNER_FRAME));
        assert_eq!(
            table.pin(GrantRef(10), PEER, Access::ReadOnly),
            Err(CopyStatus::NotGranted)
        );
    }

    #[test]
    fn a_reference_beyond_the_table_is_a_bad_reference() {
        let beyond = GrantRef(ENTRIES as u32);
        assert_eq!(
            table().pin(beyond, PEER, Access::ReadOnly),
            Err(CopyStatus::BadReference)
        );
        assert_eq!(
            table().pin(GrantRef(u32::MAX), PEER, Access::ReadOnly),
            Err(CopyStatus::BadReference)
        );
    }

    #[test]
    fn a_read_only_grant_is_not_pinned_for_writing() {
        let table = table();
        table.grant(GREF, PEER, OWNER_FRAME, Access::ReadOnly);
        assert_eq!(
            table.pin(GREF, PEER, Access::ReadWrite),
            Err(CopyStatus::NotGranted)
        );
        assert!(table.end(GREF), "a refused pin must leave no flag behind");
    }

    #[test]
    fn a_pinned_grant_does_not_end_before_the_last_pin_goes() {
        let table = table();
        table.grant(GREF, PEER, OWNER_FRAME, Access::ReadWrite);
        table.pin(GREF, PEER, Access::ReadOnly).unwrap();
        table.pin(GREF, PEER, Access::ReadWrite).unwrap();
        assert!(!table.end(GREF));
        table.unpin(GREF, Access::ReadWrite);
        assert!(!table.end(GREF));
        table.unpin(GREF, Access::ReadOnly);
        assert!(table.end(GREF));
        assert!(table.is_free(GREF));
        assert_eq!(
            table.pin(GREF, PEER, Access::ReadOnly),
            Err(CopyStatus::NotGranted)
        );
    }

    #[test]
    fn pins_of_a_dead_process_are_cleared_and_those_of_others_stay() {
        let table = table();
        table.grant(GREF, PEER, OWNER_FRAME, Access::ReadWrite);
        table.grant(GrantRef(10), DomId(4), OWNER_FRAME, Access::ReadWrite);
        table.pin(GREF, PEER, Access::ReadWrite).unwrap();
        table
            .pin(GrantRef(10), DomId(4), Access::ReadWrite)
            .unwrap();
        table.clear_pins_of(PEER);
        assert!(!table.end_all());
        assert!(table.is_free(GREF));
        assert!(!table.is_free(GrantRef(10)));
    }

    #[test]
    fn a_frame_that_the_owner_does_not_have_is_a_bad_page() {
        let table = table();
        table.grant(GREF, PEER, FRAMES, Access::ReadWrite);
        assert_eq!(
            table.pin(GREF, PEER, Access::ReadOnly),
            Err(CopyStatus::Other(BAD_PAGE))
        );
        assert!(table.end(GREF));
    }

    #[test]
    fn threads_that_pin_the_same_entry_leave_nothing_behind() {
        let table = table();
        table.grant(GREF, PEER, OWNER_FRAME, Access::ReadWrite);
        std::thread::scope(|scope| {
            for access in [Access::ReadOnly, Access::ReadWrite, Access::ReadWrite] {
                let table = &table;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        table.pin(GREF, PEER, access).unwrap();
                        assert!(!table.end(GREF));
                        table.unpin(GREF, access);
                    }
                });
            }
        });
        assert!(table.end(GREF));
    }
}
