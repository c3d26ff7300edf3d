//! Whether this domain was saved and restored, or migrated, since a handle was opened.
//!
//! Nobody tells a process: it is frozen, and goes on in a domain whose event channels are all dead.
//! What it can see is the store. A toolstack makes the domain's directory anew, mostly under another
//! number, so two things are compared: the number, and a mark that is written into the part of the
//! directory that is the guest's own and that no toolstack takes along. The mark tells also when the
//! number stayed the same, as after a migration to another host.
//!
//! # Invariants
//!
//! - Who asks right after a restore is told the truth: the store is the new one before the first
//!   thread runs again.
//! - To be wrong in doubt costs a parked handle; to miss a restore breaks the guest's kernel. So what
//!   cannot be asked, or is gone, counts as restored.
//! - One mark a domain, shared by all its processes: nothing piles up behind those that are killed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::native::NativeStore;
use crate::store::{self, Store};
use crate::{DomId, Error};

/// Relative, so it is looked for in the directory that the domain has now. `data` is what Xen's
/// toolstacks let a guest write.
const MARK: &str = "data/netfront/restore-mark";

/// The restores of one domain, as far as this process knows.
#[derive(Debug, Default)]
pub(crate) struct Restores {
    count: AtomicU64,
    life: Mutex<Option<Life>>,
}

/// What the store says of a domain between two restores.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    domid: DomId,
    /// `None` when the domain may not write its mark: then only the number tells.
    mark: Option<String>,
}

impl Restores {
    /// How many are known. One atomic load: for the data path.
    #[inline]
    pub(crate) fn known(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The number that the domain had when it was last looked at.
    pub(crate) fn domid(&self) -> Option<DomId> {
        self.life().as_ref().map(|life| life.domid)
    }

    /// Whether a restore that leaves the number as it is would be seen.
    pub(crate) fn is_marked(&self) -> bool {
        self.life()
            .as_ref()
            .is_some_and(|life| life.domid.0 == 0 || life.mark.is_some())
    }

    /// Looks in the store and returns how many restores are known now. The first look cannot tell of
    /// one; it leaves the mark for those that follow.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, or `native` fails, which is asked for another connection when a mark is
    /// to be left.
    pub(crate) fn look(
        &self,
        store: &mut dyn Store,
        native: impl FnOnce() -> Result<NativeStore, Error>,
    ) -> Result<u64, Error> {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        // Domain 0 is never saved.
        let known = match life.as_ref() {
            Some(known) if known.domid.0 == 0 => true,
            Some(known) => known.goes_on(store)?,
            None => false,
        };
        if !known {
            let now = Life::read(store, native)?;
            if life.is_some() {
                self.count.fetch_add(1, Ordering::AcqRel);
            }
            *life = Some(now);
        }
        Ok(self.known())
    }

    /// The same, for who knows it from elsewhere.
    pub(crate) fn assume(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Option<Life>> {
        // It is replaced as a whole, so a panic elsewhere does not spoil it.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn read(
        store: &mut dyn Store,
        native: impl FnOnce() -> Result<NativeStore, Error>,
    ) -> Result<Self, Error> {
        let domid = store::own_domid(store)?;
        let mark = match domid.0 {
            0 => None,
            _ => leave_mark(&mut native()?)?,
        };
        Ok(Life { domid, mark })
    }

    fn goes_on(&self, store: &mut dyn Store) -> Result<bool, Error> {
        if store::own_domid(store)? != self.domid {
            return Ok(false);
        }
        match &self.mark {
            Some(mark) => Ok(read_mark(store)?.as_ref() == Some(mark)),
            None => Ok(true),
        }
    }
}

/// The mark of this domain: the one that another process has left, or a new one. In a transaction: of two
/// processes that begin at once, one would overwrite the mark of the other, who would take that for a restore.
fn leave_mark(store: &mut NativeStore) -> Result<Option<String>, Error> {
    // Nobody makes the same again, not even a process with the same number after a restore.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mark = format!(
        "{}-{}",
        std::process::id(),
        now.unwrap_or_default().as_nanos()
    );
    loop {
        match try_to_leave(store, &mark) {
            // Somebody else was faster, or wrote something else meanwhile. xenstored lets one of them win.
            Err(Error::TransactionConflict) => {}
            Err(error @ (Error::StorePermission { .. } | Error::StoreRefused { .. })) => {
                tracing::debug!(%error, "a restore under the same domain number will not be seen by a mark");
                return Ok(None);
            }
            other => return other.map(Some),
        }
    }
}

fn try_to_leave(store: &mut NativeStore, mark: &str) -> Result<String, Error> {
    let mut transaction = store.transaction()?;
    if let Some(found) = transaction.read(MARK)?.filter(|found| !found.is_empty()) {
        return Ok(found);
    }
    transaction.write(MARK, mark)?;
    transaction.commit()?;
    Ok(mark.to_owned())
}

fn read_mark(store: &mut dyn Store) -> Result<Option<String>, Error> {
    match store.read(MARK) {
        Ok(mark) => Ok(mark.filter(|mark| !mark.is_empty())),
        Err(Error::StorePermission { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
