//! One domain's connection to the simulated Xen. As long as it lives, the domain's process lives.
//!
//! Everything that a domain makes holds it: pages, ports and mappings are given back in order
//! before the server sees the connection close, or by the server when the process was killed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::protocol::{self, Answered, Request};
use super::shared::Frames;
use super::table::Table;
use crate::counters::add;
use crate::{Counters, DomId, Error};

/// What the process of a domain has: its number, its memory, its grant table.
#[derive(Debug)]
pub(crate) struct Attachment {
    id: AtomicU16,
    socket: PathBuf,
    grant_limit: usize,
    /// `None` after an answer was missed: the next answer would be taken for that of another question.
    control: Mutex<Option<OwnedFd>>,
    pub(super) memory: OwnedFd,
    pub(super) table: Table,
    pub(super) frames: Mutex<Frames>,
    pub(super) counters: Arc<Counters>,
}

impl Attachment {
    pub(crate) fn new(
        socket: &Path,
        id: DomId,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>, Error> {
        let control = protocol::connect(socket)?;
        let answered = protocol::ask(&control, Request::Attach { domain: id.0 })?;
        let (limit, memory, table) = answered.pair(id)?;
        let table = Table::new(table)?;
        let frames = Mutex::new(Frames::new(&table, id));
        Ok(Arc::new(Attachment {
            id: id.0.into(),
            socket: socket.to_owned(),
            grant_limit: limit as usize,
            control: Mutex::new(Some(control)),
            memory,
            table,
            frames,
            counters,
        }))
    }

    /// The number as last known.
    pub(crate) fn id(&self) -> DomId {
        DomId(self.id.load(Ordering::Relaxed))
    }

    /// The domain was restored with another number.
    pub(crate) fn renumber(&self, id: DomId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    /// By its old number a restored domain reaches the store as well.
    pub(crate) fn store_socket(&self) -> PathBuf {
        super::store_socket(&self.socket, self.id())
    }

    pub(crate) fn grant_limit(&self) -> usize {
        self.grant_limit
    }

    /// Asks the simulated Xen. Counted as one system call; what it would have been on Xen is
    /// counted by who asks.
    pub(super) fn ask(&self, request: Request) -> Result<Answered, Error> {
        add(&self.counters.system_calls, 1);
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connection) = control.as_ref() else {
            return Err(Error::Gone {
                service: "The simulated Xen",
                doing: format!("asking {request:?} on {}", self.socket.display()),
            });
        };
        let answered = protocol::ask(connection, request);
        if answered.is_err() {
            *control = None;
        }
        answered
    }
}
