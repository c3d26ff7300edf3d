//! Whether the domain was saved and restored, or migrated, since this connection was begun.
//!
//! The domain itself knows best ([`Domain::look_for_restore_in`]). Where it may not leave its mark in the
//! store, a restore under the same number looks like a vif that was taken away and given again, and the
//! other way round: our own keys are gone. That counts as restored then, since to be wrong costs one
//! parked event channel handle, and the other mistake a broken kernel.

use hypervisor::{Domain, Store};

use super::{keys, Connection};
use crate::Error;

/// The domain, and the restores known when the connection was begun.
#[derive(Debug)]
pub(super) struct Restore {
    domain: Domain,
    known: u64,
}

impl Restore {
    pub fn new(domain: &Domain, store: &mut dyn Store) -> Result<Self, Error> {
        Ok(Self {
            known: domain.look_for_restore_in(store)?,
            domain: domain.clone(),
        })
    }
}

impl Connection {
    /// True once the domain has been restored since this connection was begun. Asks the store.
    ///
    /// # Errors
    /// When the store fails.
    pub fn restored(&mut self) -> Result<bool, Error> {
        let Some(restore) = &self.restore else {
            return Ok(false);
        };
        let now = restore.domain.look_for_restore_in(self.store.as_mut())?;
        if now != restore.known {
            return Ok(true);
        }
        if self.published && !restore.domain.is_marked() {
            // One key that every published connection has, however many queues.
            let key = keys::join(&self.frontend, keys::REQUEST_RX_COPY);
            if self.read(&key)?.is_none() {
                if let Some(restore) = &self.restore {
                    restore.domain.assume_restored();
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same as an error, for the steps of the handshake.
    pub(super) fn same_life(&mut self) -> Result<(), Error> {
        if self.restored()? {
            return Err(hypervisor::Error::Restored.into());
        }
        Ok(())
    }
}
