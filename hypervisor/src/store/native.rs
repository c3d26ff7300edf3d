//! A small synchronous client over any file descriptor: `/dev/xen/xenbus`, the socket of xenstored,
//! the socket of the simulation.
//!
//! # Invariants
//!
//! - Every call ends within its deadline: the descriptor never blocks, waits are polls.
//! - An answer that comes after its deadline is known by its number and thrown away.
//! - A watch event may come between a question and its answer; it is queued, never lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::connection::{text, Connection};
use super::transaction::Transaction;
use super::wire::{self, Kind, Message};
use super::{Permission, Store, WatchEvent};
use crate::{unix, Error, Lack};

const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// A connection to the store.
#[derive(Debug)]
pub struct NativeStore(Connection);

impl NativeStore {
    /// Connects to the store of this machine: the socket of xenstored where there is one (dom0),
    /// else the device that the kernel offers to a guest.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when there is neither.
    pub fn open() -> Result<Self, Error> {
        for socket in SOCKETS {
            if let Ok(store) = Self::connect(Path::new(socket)) {
                return Ok(store);
            }
        }
        let (mut lack, mut found) = (Lack::Setting, Vec::new());
        for device in DEVICES {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
            match rustix::fs::open(device, flags, Mode::empty()) {
                Ok(file) => return Self::from_fd(file),
                Err(error) => {
                    if error == Errno::ACCESS || error == Errno::PERM {
                        lack = Lack::Rights;
                    }
                    found.push(format!("{device}: {error}"));
                }
            }
        }
        Err(Error::Unavailable {
            lack,
            wanted: "The store of Xen".into(),
            found: found.join(", "),
            hint: "run inside a Xen domain, with the right to read and write /dev/xen/xenbus"
                .into(),
        })
    }

    /// Connects to a store that listens on a socket.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        Self::from_fd(unix::connect(socket, rustix::net::SocketType::STREAM)?)
    }

    /// Speaks to the store over a descriptor that is connected already.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be made non-blocking.
    pub fn from_fd(file: OwnedFd) -> Result<Self, Error> {
        Connection::new(file).map(NativeStore)
    }

    /// Gives every following call this long, in place of [`DEADLINE`](super::DEADLINE).
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.0.deadline = deadline;
    }

    /// Starts a transaction: what is done in it is seen by others all at once, or not at all.
    ///
    /// # Errors
    ///
    /// When the store refuses.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, Error> {
        let answer = self.0.ask(
            Kind::TRANSACTION_START,
            0,
            "start a transaction",
            "",
            vec![0],
        )?;
        let id = text(&answer.payload)
            .and_then(wire::parse_number)
            .ok_or_else(|| {
                self.0.broken(format!(
                    "{:?} as the number of a transaction",
                    answer.payload
                ))
            })?;
        Ok(Transaction::new(self, id))
    }

    pub(super) fn read_in(
        &mut self,
        transaction: u32,
        path: &str,
    ) -> Result<Option<String>, Error> {
        let asked = self.0.ask(
            Kind::READ,
            transaction,
            "read",
            path,
            wire::payload(&[path]),
        );
        let Some(answer) = found(asked)? else {
            return Ok(None);
        };
        // A value is bytes without an end mark; some writers add one.
        let value = answer.payload.strip_suffix(&[0]).unwrap_or(&answer.payload);
        match std::str::from_utf8(value) {
            Ok(value) => Ok(Some(value.to_owned())),
            Err(_) => Err(Error::BadAnswer {
                service: "The store",
                found: format!("the value of {path:?} is not text"),
            }),
        }
    }

    pub(super) fn write_in(
        &mut self,
        transaction: u32,
        path: &str,
        value: &str,
    ) -> Result<(), Error> {
        let mut payload = wire::payload(&[path]);
        payload.extend_from_slice(value.as_bytes());
        self.0
            .ask(Kind::WRITE, transaction, "write", path, payload)
            .map(drop)
    }

    pub(super) fn remove_in(&mut self, transaction: u32, path: &str) -> Result<(), Error> {
        found(self.0.ask(
            Kind::RM,
            transaction,
            "remove",
            path,
            wire::payload(&[path]),
        ))
        .map(drop)
    }

    pub(super) fn list_in(&mut self, transaction: u32, path: &str) -> Result<Vec<String>, Error> {
        let asked = self.0.ask(
            Kind::DIRECTORY,
            transaction,
            "list",
            path,
            wire::payload(&[path]),
        );
        let Some(answer) = found(asked)? else {
            return Ok(Vec::new());
        };
        match wire::strings(&answer.payload) {
            Some(names) => Ok(names.into_iter().map(str::to_owned).collect()),
            None => Err(Error::BadAnswer {
                service: "The store",
                found: format!("the list of {path:?} is not a list of names"),
            }),
        }
    }

    pub(super) fn end(&mut self, transaction: u32, commit: bool) -> Result<(), Error> {
        let flag = if commit { "T" } else { "F" };
        let asked = self.0.ask(
            Kind::TRANSACTION_END,
            transaction,
            "end",
            "a transaction",
            wire::payload(&[flag]),
        );
        match asked {
            Err(Error::StoreRefused { code, .. }) if code == "EAGAIN" => {
                Err(Error::TransactionConflict)
            }
            other => other.map(drop),
        }
    }
}

impl Store for NativeStore {
    fn read(&mut self, path: &str) -> Result<Option<String>, Error> {
        self.read_in(0, path)
    }

    fn write(&mut self, path: &str, value: &str) -> Result<(), Error> {
        self.write_in(0, path, value)
    }

    fn remove(&mut self, path: &str) -> Result<(), Error> {
        self.remove_in(0, path)
    }

    fn list(&mut self, path: &str) -> Result<Vec<String>, Error> {
        self.list_in(0, path)
    }

    fn watch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.0
            .ask(Kind::WATCH, 0, "watch", path, wire::payload(&[path, token]))
            .map(drop)
    }

    fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.0
            .ask(
                Kind::UNWATCH,
                0,
                "unwatch",
                path,
                wire::payload(&[path, token]),
            )
            .map(drop)
    }

    fn next_event(&mut self, timeout: Duration) -> Result<Option<WatchEvent>, Error> {
        self.0.next_event(Instant::now() + timeout)
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }

    fn set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Result<(), Error> {
        let mut payload = wire::payload(&[path]);
        for permission in permissions {
            payload.extend(wire::payload(&[&wire::format_permission(*permission)]));
        }
        self.0
            .ask(Kind::SET_PERMS, 0, "set the permissions of", path, payload)
            .map(drop)
    }
}

/// A node that is not there is no error for who reads, lists or removes.
fn found(asked: Result<Message, Error>) -> Result<Option<Message>, Error> {
    match asked {
        Ok(message) => Ok(Some(message)),
        Err(Error::StoreRefused { code, .. }) if code == "ENOENT" => Ok(None),
        Err(error) => Err(error),
    }
}
