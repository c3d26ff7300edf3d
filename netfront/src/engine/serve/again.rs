//! Connecting again, for as long as it takes, and without a wake-up in between that has no reason.
//!
//! An attempt that fails since there is no backend, or one that does not move, is followed by a sleep until the store shows
//! another state. Each minute it is tried all the same, since an event of the store can be lost. What fails for another
//! reason is tried again soon, and then ever more rarely. A kick ends either wait: a backend that was mended may show the state
//! in which it was stuck, and who mended it knows.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::Service;
use crate::connection::{Awaited, XenbusState};
use crate::device::{Device, Reconnect};
use crate::waker::Waker;
use crate::Error;

/// Between the first two attempts that fail at once. Each time it is twice as long.
const SHORTEST: Duration = Duration::from_millis(100);
/// It becomes no longer.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a backend is waited for by the store's word alone.
const RETRY: Duration = Duration::from_secs(60);

/// Connects again. `None` if it was told to stop.
pub(super) fn again(mut pending: Reconnect, service: &Service) -> Option<Device> {
    let mut sleeper = Sleeper::new(service);
    let mut said = false;
    let mut pause = SHORTEST;
    loop {
        if service.stopping() {
            return None;
        }
        service.attempts.fetch_add(1, Ordering::Relaxed);
        // Of before the attempt: what a kick in the middle of it speaks of may have come too late for it.
        sleeper.kicks = service.kicks();
        pending = match pending.retry() {
            Ok(device) => return Some(device),
            Err(next) => *next,
        };
        if let Some(error) = pending.error.as_ref().filter(|_| !said) {
            tracing::warn!("not connected yet, trying on: {error}");
            said = true;
        }
        let failed = Instant::now();
        if let Some(known) = pending.error.as_ref().and_then(waits_for) {
            if let Err(error) = sleeper.await_backend(&pending, known) {
                tracing::debug!("waiting for the backend: {error}");
            }
        }
        pause = match sleeper.rest(failed + pause) {
            // What was waited for came after a while: it is no attempt that fails at once.
            false => SHORTEST,
            true => (pause * 2).min(LONGEST),
        };
    }
}

/// The state of the backend in which no other attempt is worth it, if it was that.
fn waits_for(error: &Error) -> Option<XenbusState> {
    match error {
        // It invites: its hotplug script may be slow, and nothing in the store would tell that it is done.
        Error::Deadline { found, .. } if *found == XenbusState::InitWait => None,
        Error::Deadline { found, .. } | Error::BackendLeft { found, .. } => Some(*found),
        Error::NoVif { .. } => Some(XenbusState::Unknown),
        _ => None,
    }
}

/// The sleep of a thread that has no queue, which [`Service::wake`] ends.
struct Sleeper<'a> {
    service: &'a Service,
    /// Kicks that the last attempt has heard.
    kicks: u64,
    /// `None` if there is no descriptor left: then it sleeps for a short time, whoever calls.
    waker: Option<Arc<Waker>>,
}

impl<'a> Sleeper<'a> {
    fn new(service: &'a Service) -> Self {
        let waker = Waker::new().ok().map(Arc::new);
        service.wait_by(waker.clone());
        Self {
            service,
            kicks: service.kicks(),
            waker,
        }
    }

    /// True if it is time to stop, or somebody wants an attempt now.
    fn is_over(&self) -> bool {
        self.service.stopping() || self.service.kicks() != self.kicks
    }

    /// Until the store shows another state than `known`, for a minute at most, or until it is over.
    fn await_backend(&self, pending: &Reconnect, known: XenbusState) -> Result<(), Error> {
        let Some(waker) = &self.waker else {
            return Ok(());
        };
        let mut connection = pending.look()?;
        let end = Instant::now() + RETRY;
        while !self.is_over() {
            let left = end.saturating_duration_since(Instant::now());
            if connection.await_backend(known, waker, left)? != Awaited::Call {
                break;
            }
            // Whoever calls wants to see that somebody is there.
            self.service.attempts.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Until this moment, or until it is over. False if it was already.
    fn rest(&self, until: Instant) -> bool {
        let mut rested = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_over() {
                return rested;
            }
            rested = true;
            let Some(waker) = &self.waker else {
                std::thread::sleep(left.min(SHORTEST));
                continue;
            };
            let mut fds = [PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN)];
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            waker.clear();
            self.service.attempts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.service.wait_by(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_is_away_is_waited_for_and_one_that_invites_is_tried_again() {
        let late = |found| Error::Deadline {
            key: "state".into(),
            wanted: "Connected (4)",
            found,
            waited: SHORTEST,
        };
        let closed = XenbusState::Closed;
        assert_eq!(waits_for(&late(closed)), Some(closed));
        assert_eq!(waits_for(&late(XenbusState::InitWait)), None);
        let (vif, key) = (0, "backend".into());
        let nowhere = waits_for(&Error::NoVif { vif, key });
        assert_eq!(nowhere, Some(XenbusState::Unknown));
        assert_eq!(waits_for(&Error::Interrupted), None);
    }

    #[test]
    fn whoever_is_told_to_stop_does_not_rest_to_the_end() {
        let service = Arc::<Service>::default();
        let stopping = Arc::clone(&service);
        let start = Instant::now();
        let sleeper = Sleeper::new(&service);
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(SHORTEST);
            stopping.stop();
        });
        assert!(sleeper.rest(start + Duration::from_secs(600)));
        assert!(start.elapsed() < Duration::from_secs(60));
        stopper.join().expect("no panic");
    }
}
