//! What a driver does that has no backend: it sleeps, until the store shows a reason to try again.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::{keys, Connection, XenbusState};
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
            let drained = self.drain()?;
            let state = match self.follow_backend()? {
                true => self.backend_state()?,
                false => XenbusState::Unknown,
            };
            if state != known || self.restored()? {
                return Ok(Awaited::Change);
            }
            let left = end.saturating_duration_since(Instant::now());
            // An event that came with an answer is queued already: the descriptor does not tell of it.
            let is_told = drained && self.store.next_event(Duration::ZERO)?.is_some();
            let time = match (is_told, drained) {
                (true, _) => Duration::ZERO,
                (false, true) => left,
                (false, false) => left.min(FLOODED),
            };
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

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;

    use hypervisor::{Store, WatchEvent};

    use super::*;

    /// A store whose backend is closed and then in another state, of which it tells by events that come with the answer of
    /// the read before: they are queued in the client, and its descriptor is never readable.
    struct Telling {
        /// Nobody writes to it.
        events: Waker,
        queued: usize,
        /// How many events come, and what the state is then.
        next: Option<(usize, &'static str)>,
        state: &'static str,
        /// Of the state.
        reads: Arc<AtomicUsize>,
    }

    impl Store for Telling {
        fn read(&mut self, path: &str) -> Result<Option<String>, hypervisor::Error> {
            if !path.ends_with("/state") {
                return Ok(Some("backend".into()));
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
            let state = self.state;
            if let Some((events, next)) = self.next.take() {
                (self.queued, self.state) = (events, next);
            }
            Ok(Some(state.into()))
        }

        fn write(&mut self, _: &str, _: &str) -> Result<(), hypervisor::Error> {
            Ok(())
        }

        fn remove(&mut self, _: &str) -> Result<(), hypervisor::Error> {
            Ok(())
        }

        fn list(&mut self, _: &str) -> Result<Vec<String>, hypervisor::Error> {
            Ok(Vec::new())
        }

        fn watch(&mut self, _: &str, _: &str) -> Result<(), hypervisor::Error> {
            Ok(())
        }

        fn unwatch(&mut self, _: &str, _: &str) -> Result<(), hypervisor::Error> {
            Ok(())
        }

        fn next_event(
            &mut self,
            timeout: Duration,
        ) -> Result<Option<WatchEvent>, hypervisor::Error> {
            let Some(left) = self.queued.checked_sub(1) else {
                std::thread::sleep(timeout);
                return Ok(None);
            };
            self.queued = left;
            let (path, token) = ("backend/state".into(), "backend".into());
            Ok(Some(WatchEvent { path, token }))
        }

        fn event_fd(&self) -> BorrowedFd<'_> {
            self.events.as_fd()
        }
    }

    /// A connection over a store whose backend is closed, and later in state `next`; and how often that was read.
    fn telling(events: usize, next: &'static str) -> (Connection, Arc<AtomicUsize>) {
        let reads = Arc::default();
        let store = Telling {
            events: Waker::new().expect("a descriptor"),
            queued: 0,
            next: Some((events, next)),
            state: "6",
            reads: Arc::clone(&reads),
        };
        (Connection::over(Box::new(store), 0), reads)
    }

    #[test]
    fn an_event_that_comes_with_an_answer_ends_the_wait_for_a_backend() {
        let (mut connection, _) = telling(1, "2");
        let waker = Waker::new().expect("a waker");
        let start = Instant::now();
        let awaited = connection
            .await_backend(XenbusState::Closed, &waker, Duration::from_secs(60))
            .expect("a store");
        assert_eq!(awaited, Awaited::Change);
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it was slept through"
        );
    }

    #[test]
    fn events_that_are_queued_together_are_one_reason_to_read() {
        // The backend stays closed whatever is told, as it does while our own keys are written.
        let (mut connection, reads) = telling(60, "6");
        let end = Instant::now() + Duration::from_millis(200);
        let connected = |state| state == XenbusState::Connected;
        connection
            .wait_backend(end, "Connected (4)", connected)
            .expect_err("closed");
        // At the beginning, after the events, and at the end.
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }
}
