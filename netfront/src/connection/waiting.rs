//! What a driver does that has no backend: it sleeps, until the store shows a reason to try again.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::{keys, Connection, XenbusState, MANY_EVENTS};
use crate::waker::Waker;
use crate::Error;

/// While somebody writes a watched key without end, it is looked at so often.
const FLOODED: Duration = Duration::from_millis(100);

/// Why [`Connection::await_backend`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The backend is another one, or in another state.
    Change,
    /// Somebody calls.
    Call,
    /// All of the time is over.
    Timeout,
}

impl Connection {
    /// Sleeps until there is a backend in another state than `known` (none: Unknown), the domain was restored, somebody wakes
    /// `waker`, or the time is over. The store is asked only when it tells that something changed.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn await_backend(
        &mut self,
        known: XenbusState,
        waker: &Waker,
        time: Duration,
    ) -> Result<Awaited, Error> {
        let end = Instant::now() + time;
        loop {
            let mut drained = false;
            for _ in 0..MANY_EVENTS {
                drained = self.store.next_event(Duration::ZERO)?.is_none();
                if drained {
                    break;
                }
            }
            let state = match self.follow_backend()? {
                true => self.backend_state()?,
                false => XenbusState::Unknown,
            };
            if state != known || self.restored()? {
                return Ok(Awaited::Change);
            }
            let left = end.saturating_duration_since(Instant::now());
            let time = if drained { left } else { left.min(FLOODED) };
            let store = self.event_fd();
            let mut fds = [
                PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(store, PollFlags::IN),
            ];
            // What was not drained leaves the store's descriptor as good as ready for ever.
            let count = if drained { 2 } else { 1 };
            match poll(&mut fds[..count], Timespec::try_from(time).ok().as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("waiting for a backend")(error.into())),
            }
            if !fds[0].revents().is_empty() {
                waker.clear();
                return Ok(Awaited::Call);
            }
            if left.is_zero() {
                return Ok(Awaited::Timeout);
            }
        }
    }

    /// Reads where the backend is, and watches it from there on. False if the store does not say.
    ///
    /// Two watches, each of a whole directory: xenstored allows a domain 128 by default, with those of its kernel, and one for each
    /// key let 18 vifs of one guest connect. That of ours is relative, so it also fires when a restore gave the domain a
    /// new number.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) fn follow_backend(&mut self) -> Result<bool, Error> {
        let key = keys::join(&self.frontend, keys::BACKEND);
        // Before it is read: what is written in between would be told by nobody.
        self.watch(&self.frontend.clone())?;
        let Some(backend) = self.read(&key)?.filter(|backend| !backend.is_empty()) else {
            return Ok(false);
        };
        if backend != self.backend {
            for path in std::mem::take(&mut self.watched) {
                // The old backend's directory may be gone, and its watches with it.
                let _ = self.store.unwatch(&path, &path);
            }
            self.backend = backend;
            self.watch(&self.frontend.clone())?;
            self.watch(&self.backend.clone())?;
        }
        Ok(true)
    }

    fn watch(&mut self, path: &str) -> Result<(), Error> {
        if !self.watched.iter().any(|watched| watched == path) {
            self.store.watch(path, path)?;
            self.watched.push(path.to_owned());
        }
        Ok(())
    }
}
