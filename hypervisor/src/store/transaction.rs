//! A transaction of the native client.

use super::native::NativeStore;
use crate::Error;

/// Changes that others see all at once, or not at all. Dropped without
/// [`commit`](Self::commit), it is given up.
#[derive(Debug)]
pub struct Transaction<'store> {
    store: &'store mut NativeStore,
    id: u32,
    ended: bool,
}

impl<'store> Transaction<'store> {
    pub(super) fn new(store: &'store mut NativeStore, id: u32) -> Self {
        Transaction {
            store,
            id,
            ended: false,
        }
    }

    /// The value of a node as this transaction sees it.
    ///
    /// # Errors
    ///
    /// As [`Store::read`](super::Store::read).
    pub fn read(&mut self, path: &str) -> Result<Option<String>, Error> {
        self.store.read_in(self.id, path)
    }

    /// Sets the value of a node.
    ///
    /// # Errors
    ///
    /// As [`Store::write`](super::Store::write).
    pub fn write(&mut self, path: &str, value: &str) -> Result<(), Error> {
        self.store.write_in(self.id, path, value)
    }

    /// Removes a node and all below it.
    ///
    /// # Errors
    ///
    /// As [`Store::remove`](super::Store::remove).
    pub fn remove(&mut self, path: &str) -> Result<(), Error> {
        self.store.remove_in(self.id, path)
    }

    /// The names of the children of a node.
    ///
    /// # Errors
    ///
    /// As [`Store::list`](super::Store::list).
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, Error> {
        self.store.list_in(self.id, path)
    }

    /// Makes the changes.
    ///
    /// # Errors
    ///
    /// [`Error::TransactionConflict`] when somebody else changed what this transaction has seen or
    /// touched: nothing was done, do it again from its start.
    pub fn commit(mut self) -> Result<(), Error> {
        self.ended = true;
        self.store.end(self.id, true)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // The store ends it anyway when the connection goes.
            if let Err(error) = self.store.end(self.id, false) {
                tracing::debug!(%error, "transaction could not be given up");
            }
        }
    }
}
