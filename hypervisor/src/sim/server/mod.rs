//! The process behind the simulated Xen: one thread, one poll, everything in order.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `listen` | the sockets: one for hypercalls, one a domain for the store |
//! | `domains` | what hypervisor and guest kernel know of each domain, and what they do when its process dies |
//! | `handles` | open handles for event channels, and who uses one that a restore has killed |
//! | `saved` | a domain is saved and restored |
//! | `store` | xenstored: the tree, rights, watches, transactions |
//!
//! # Invariants
//!
//! - One server a socket, by a lock on a file beside it. A socket left by a dead server is replaced.
//! - Nothing that a client sends or does not read can stop or grow it without bound.

pub(crate) mod domains;
mod handles;
mod listen;
mod peers;
mod saved;
mod store;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use crate::wait::timespec;
use crate::Error;
use listen::Listening;
use peers::Peers;

/// How often domains without a process are looked after: their peers may have let go of pages.
const SWEEP: Duration = Duration::from_secs(1);

/// How the simulated Xen behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Pages that a domain may share at once: 1024 as with gntalloc, if nothing else is set.
    pub grant_limit: usize,
    /// End when no domain has been attached for that long. Without it, run for ever.
    pub linger: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            grant_limit: 1024,
            linger: None,
        }
    }
}

impl Options {
    /// The usual: 1024 pages a domain, run for ever.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a domain share so many pages at once.
    #[must_use]
    pub fn grant_limit(mut self, pages: usize) -> Self {
        self.grant_limit = pages;
        self
    }

    /// Ends the server when no domain has been attached for that long.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = Some(linger);
        self
    }
}

/// Serves on `socket` until the linger time of the options is over.
///
/// # Errors
///
/// When another simulated Xen serves there, or the socket cannot be made.
pub fn run(socket: &Path, options: Options) -> Result<(), Error> {
    Server::bind(socket, options)?.run()
}

/// Serves on `socket` in a thread of this process, as tests do. It listens when this returns, and
/// ends when the value is dropped.
///
/// # Errors
///
/// As [`run`].
pub fn spawn(socket: &Path, options: Options) -> Result<Running, Error> {
    let server = Server::bind(socket, options)?;
    let stop = Arc::clone(&server.stop);
    let thread = std::thread::Builder::new()
        .name("simulated-xen".into())
        .spawn(move || {
            if let Err(error) = server.run() {
                tracing::error!(%error, "the simulated Xen ended");
            }
        })
        .map_err(|source| Error::system("start a thread for the simulated Xen", source))?;
    Ok(Running {
        stop,
        thread: Some(thread),
    })
}

/// A simulated Xen that runs in a thread. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // An eventfd takes a write unless its counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    listening: Listening,
    peers: Peers,
    stop: Arc<OwnedFd>,
    linger: Option<Duration>,
}

impl Server {
    fn bind(socket: &Path, options: Options) -> Result<Self, Error> {
        let listening = Listening::bind(socket)?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::system("make the stop event of the simulated Xen", errno))?;
        Ok(Server {
            listening,
            peers: Peers::new(options.grant_limit),
            stop: Arc::new(stop),
            linger: options.linger,
        })
    }

    fn run(mut self) -> Result<(), Error> {
        tracing::info!(socket = %self.listening.socket().display(), "simulated Xen is listening");
        let mut alone_since = Instant::now();
        loop {
            if self.peers.any_attached() {
                alone_since = Instant::now();
            }
            let left = self
                .linger
                .map(|linger| linger.saturating_sub(alone_since.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                tracing::info!("no domain is attached any more, the simulated Xen ends");
                return Ok(());
            }
            if !self.poll(left.map_or(SWEEP, |left| left.min(SWEEP)))? {
                return Ok(());
            }
            self.peers.sweep();
        }
    }

    /// Waits for something to do and does it; `false` when it is to stop.
    fn poll(&mut self, timeout: Duration) -> Result<bool, Error> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        fds.extend(
            self.listening
                .fds()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let listeners = fds.len();
        fds.extend(self.peers.fds());
        match rustix::event::poll(&mut fds, Some(&timespec(timeout))) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(true),
            Err(errno) => return Err(Error::system("wait for domains", errno)),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if !ready[0].is_empty() {
            return Ok(false);
        }
        // Who hung up is served before who comes: a domain whose process was replaced is free then.
        self.peers.serve(&ready[listeners..], &mut self.listening);
        self.listening.accept(&ready[1..listeners], &mut self.peers);
        Ok(true)
    }
}
