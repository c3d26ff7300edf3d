//! The store (xenstore): small text values under paths, watched for changes.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `wire` | the protocol: framing and payloads, shared by client and simulated server |
//! | `native`, `transaction`, `connection` | a synchronous client over any file descriptor |
//! | `xenstore_rs` | a client over the crate xenstore-rs, behind the feature of that name |
//!
//! # Invariants
//!
//! - Relative paths belong to `/local/domain/<own id>/`.
//! - Every call has a deadline ([`DEADLINE`]).
//! - A missing node is `None` or an empty list, not an error.
//! - Events are hints: read the node after watching it and after every event. A watch fires once
//!   when it is set.

mod connection;
pub mod native;
pub mod transaction;
pub mod wire;
#[cfg(feature = "xenstore-rs")]
mod xenstore_rs;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{DomId, Error};

/// How long a call to the store may take before it is given up.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A connection to the store.
pub trait Store: Send {
    /// The value of a node, or `None` when there is no such node.
    fn read(&mut self, path: &str) -> Result<Option<String>, Error>;

    /// Sets the value of a node, and makes it and its parents if need be.
    fn write(&mut self, path: &str, value: &str) -> Result<(), Error>;

    /// Removes a node and all below it. A node that is not there is removed already.
    fn remove(&mut self, path: &str) -> Result<(), Error>;

    /// The names of the children of a node, in the order of the store. Empty when there is no such
    /// node.
    fn list(&mut self, path: &str) -> Result<Vec<String>, Error>;

    /// Asks for an event with this token when the node or one below it changes. One event comes at
    /// once.
    fn watch(&mut self, path: &str, token: &str) -> Result<(), Error>;

    /// Takes back a watch. Events that are on their way may still come.
    fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Error>;

    /// The next event, or `None` when none came within `timeout`.
    fn next_event(&mut self, timeout: Duration) -> Result<Option<WatchEvent>, Error>;

    /// A descriptor that becomes readable when an event comes. Poll it only after
    /// [`next_event`](Self::next_event) has returned `None`: events may be queued already.
    fn event_fd(&self) -> BorrowedFd<'_>;

    /// Sets who may do what with a node. The first entry names the owner, and what everybody may
    /// do who is not named.
    fn set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        let _ = (path, permissions);
        Err(Error::Unsupported {
            what: "Setting the permissions of a node",
            by: "this store client",
            hint: "use the native client",
        })
    }
}

/// One change in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed: the one watched, or one below it.
    pub path: String,
    /// The token given with the watch.
    pub token: String,
}

/// What one domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// The domain.
    pub domain: DomId,
    /// What it may do.
    pub rights: Rights,
}

/// What may be done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rights {
    /// Nothing.
    None,
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Read and write it.
    Both,
}

/// Which program code speaks to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreClient {
    /// The crate xenstore-rs.
    XenstoreRs,
    /// The small client of this crate.
    Native,
}

impl StoreClient {
    /// The clients that are compiled in, the default one first.
    pub fn available() -> &'static [StoreClient] {
        if cfg!(feature = "xenstore-rs") {
            &[StoreClient::XenstoreRs, StoreClient::Native]
        } else {
            &[StoreClient::Native]
        }
    }
}

impl Default for StoreClient {
    fn default() -> Self {
        StoreClient::available()[0]
    }
}

impl fmt::Display for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreClient::XenstoreRs => "xenstore-rs",
            StoreClient::Native => "native",
        })
    }
}

/// Opens a connection: to the store of this machine, or to the one that listens on `socket`.
pub(crate) fn open(client: StoreClient, socket: Option<&Path>) -> Result<Box<dyn Store>, Error> {
    match client {
        StoreClient::Native => Ok(Box::new(match socket {
            Some(socket) => native::NativeStore::connect(socket)?,
            None => native::NativeStore::open()?,
        })),
        StoreClient::XenstoreRs => open_xenstore_rs(socket.map(Path::to_path_buf)),
    }
}

#[cfg(feature = "xenstore-rs")]
fn open_xenstore_rs(socket: Option<PathBuf>) -> Result<Box<dyn Store>, Error> {
    Ok(Box::new(xenstore_rs::XenstoreRs::open(socket)?))
}

#[cfg(not(feature = "xenstore-rs"))]
fn open_xenstore_rs(_socket: Option<PathBuf>) -> Result<Box<dyn Store>, Error> {
    Err(Error::Unavailable {
        lack: crate::Lack::Here,
        wanted: "The store client xenstore-rs".into(),
        found: "it was left out of this build".into(),
        hint: "use the native client, or build with the feature `xenstore-rs`".into(),
    })
}

/// The number of the domain that this connection speaks for, as the store says it.
pub(crate) fn own_domid(store: &mut dyn Store) -> Result<DomId, Error> {
    let found = store.read("domid")?;
    found
        .as_deref()
        .and_then(|text| text.trim().parse().ok())
        .map(DomId)
        .ok_or_else(|| Error::BadAnswer {
            service: "The store",
            found: format!("the own key `domid` is {found:?}, which is no domain number"),
        })
}
