//! The store by the crate xenstore-rs.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `dial` | how a connection is made, so that a wrong socket never ends in the real store |
//! | `call` | what is asked, what is answered, and what errors become |
//! | `worker` | the thread on which the crate runs |
//! | `queue` | watch events, kept here until somebody asks |
//!
//! The crate is asynchronous, and only that half of it has watches. So it gets a thread with a small
//! runtime of its own, and nothing asynchronous is seen outside.
//!
//! # What the crate does not do, and this adapter does
//!
//! - Its calls never return once its reader has ended. Each has a deadline here; after one passes,
//!   the connection counts as dead, and the next call makes a new one and sets the watches again.
//! - Its watchers hear nothing of such an end either. An idle connection with watches is probed.
//! - The event that a watch fires at once is lost when it comes before the answer to the watch. One
//!   is queued here in any case.
//! - It stalls when a watcher asks while eight events wait. They are taken off as they come.
//! - A request over 4096 bytes ends its writer. It is refused before it gets there.

mod call;
mod dial;
mod queue;
mod worker;

#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use self::call::{Answer, Call};
use self::queue::Queue;
use self::worker::Worker;
use super::{wire, Store, WatchEvent, DEADLINE};
use crate::wait::{self, Waited};
use crate::Error;

/// A connection to the store that outlives the crate's own: a dead one is replaced.
pub(crate) struct XenstoreRs {
    socket: Option<PathBuf>,
    deadline: Duration,
    worker: Option<Worker>,
    /// Path and token of each watch, to be set again on a new connection.
    watches: Vec<(String, String)>,
    queue: Arc<Queue>,
}

impl XenstoreRs {
    /// Connects to the store that listens on `socket`; without one, to the store of this machine.
    pub(crate) fn open(socket: Option<PathBuf>) -> Result<Self, Error> {
        Self::with_deadline(socket, DEADLINE)
    }

    fn with_deadline(socket: Option<PathBuf>, deadline: Duration) -> Result<Self, Error> {
        let queue = Arc::new(Queue::new()?);
        let mut store = XenstoreRs {
            socket,
            deadline,
            worker: None,
            watches: Vec::new(),
            queue,
        };
        store.worker()?;
        Ok(store)
    }

    /// The living connection; a new one, with all watches, when the last has died.
    fn worker(&mut self) -> Result<&Worker, Error> {
        // Dropped before the new one is made, so that the store sees one of us at a time.
        self.worker = self.worker.take().filter(Worker::is_alive);
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => {
                let queue = Arc::clone(&self.queue);
                let worker = Worker::start(self.socket.clone(), self.deadline, queue)?;
                for (path, token) in &self.watches {
                    let (path, token) = (path.clone(), token.clone());
                    worker.call(Call::Watch { path, token })?;
                }
                worker
            }
        };
        Ok(self.worker.insert(worker))
    }

    fn call(&mut self, call: Call) -> Result<Answer, Error> {
        call.check()?;
        self.worker()?.call(call)
    }

    fn position(&self, path: &str, token: &str) -> Option<usize> {
        self.watches
            .iter()
            .position(|(p, t)| p == path && t == token)
    }
}

impl Store for XenstoreRs {
    fn read(&mut self, path: &str) -> Result<Option<String>, Error> {
        match self.call(Call::Read { path: path.into() })? {
            Answer::Value(value) => Ok(value),
            other => Err(other.unexpected()),
        }
    }

    fn write(&mut self, path: &str, value: &str) -> Result<(), Error> {
        self.call(Call::Write {
            path: path.into(),
            value: value.into(),
        })
        .map(drop)
    }

    fn remove(&mut self, path: &str) -> Result<(), Error> {
        self.call(Call::Remove { path: path.into() }).map(drop)
    }

    fn list(&mut self, path: &str) -> Result<Vec<String>, Error> {
        match self.call(Call::List { path: path.into() })? {
            Answer::Names(names) => Ok(names),
            other => Err(other.unexpected()),
        }
    }

    /// The crate gives each watch a token of its own, so the store cannot see that this one is there
    /// already: it is told here, as the store would.
    fn watch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        if self.position(path, token).is_some() {
            return Err(refused("watch", path, "EEXIST"));
        }
        self.call(Call::Watch {
            path: path.into(),
            token: token.into(),
        })?;
        self.watches.push((path.into(), token.into()));
        Ok(())
    }

    fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        let Some(position) = self.position(path, token) else {
            return Err(refused("unwatch", path, "ENOENT"));
        };
        // First of all: a new connection must not set it again.
        self.watches.swap_remove(position);
        self.call(Call::Unwatch {
            path: path.into(),
            token: token.into(),
        })
        .map(drop)
    }

    fn next_event(&mut self, timeout: Duration) -> Result<Option<WatchEvent>, Error> {
        let until = Instant::now() + timeout;
        loop {
            // Setting the watches again queues an event for each: what was missed is read then.
            if !self.watches.is_empty() {
                self.worker()?;
            }
            if let Some(event) = self.queue.pop() {
                return Ok(Some(event));
            }
            if wait::ready(self.queue.wake(), PollFlags::IN, until)? == Waited::TooLong {
                return Ok(None);
            }
        }
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.queue.wake()
    }
}

/// The error for a code that the store gave.
fn refused(operation: &'static str, path: &str, code: &str) -> Error {
    let path = path.to_owned();
    match code {
        "EACCES" | "EPERM" => Error::StorePermission { operation, path },
        _ => Error::StoreRefused {
            operation,
            path,
            code: code.to_owned(),
        },
    }
}
