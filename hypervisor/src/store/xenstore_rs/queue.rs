//! Watch events between the thread of the client and whoever asks for them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{eventfd, EventfdFlags};

use crate::store::WatchEvent;
use crate::Error;

/// Events kept at most. A peer may change its nodes faster than we read; beyond this its events
/// become one, which says as much: look again.
const ROOM: usize = 1024;

/// A queue with a descriptor that is readable while something waits.
pub(super) struct Queue {
    events: Mutex<VecDeque<WatchEvent>>,
    wake: OwnedFd,
}

impl Queue {
    pub(super) fn new() -> Result<Self, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::system("make a wake-up for store events", errno))?;
        Ok(Queue {
            events: Mutex::default(),
            wake,
        })
    }

    /// Adds an event of the watch on `watched`. One that waits already says the same and is not
    /// added twice.
    pub(super) fn push(&self, watched: &str, event: WatchEvent) {
        let mut events = self.events();
        if events.contains(&event) {
            return;
        }
        if events.len() >= ROOM {
            events.retain(|waiting| waiting.token != event.token);
            events.push_back(WatchEvent {
                path: watched.to_owned(),
                token: event.token,
            });
        } else {
            events.push_back(event);
        }
        self.ring();
    }

    pub(super) fn pop(&self) -> Option<WatchEvent> {
        let mut events = self.events();
        let event = events.pop_front();
        if events.is_empty() {
            // Under the lock: an event pushed after this rings again. Nothing to read is no error.
            let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        }
        event
    }

    /// Wakes who waits, though there may be no event.
    pub(super) fn ring(&self) {
        // It can fail only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<WatchEvent>> {
        // A queue is whole between any two of its operations.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn event(path: &str, token: &str) -> WatchEvent {
        WatchEvent {
            path: path.into(),
            token: token.into(),
        }
    }

    fn readable(queue: &Queue) -> bool {
        let ready = crate::wait::ready(queue.wake(), rustix::event::PollFlags::IN, Instant::now());
        ready.unwrap() == crate::wait::Waited::Ready
    }

    #[test]
    fn the_descriptor_is_readable_while_an_event_waits() {
        let queue = Queue::new().unwrap();
        assert!(!readable(&queue));
        queue.push("a", event("a/1", "t"));
        queue.push("a", event("a/2", "t"));
        assert_eq!(queue.pop(), Some(event("a/1", "t")));
        assert!(readable(&queue));
        assert_eq!(queue.pop(), Some(event("a/2", "t")));
        assert!(!readable(&queue));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn an_event_that_waits_already_is_not_added_twice() {
        let queue = Queue::new().unwrap();
        queue.push("a", event("a/1", "t"));
        queue.push("a", event("a/1", "t"));
        assert!(queue.pop().is_some());
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_flood_of_one_watch_becomes_one_event_and_hides_no_other() {
        let queue = Queue::new().unwrap();
        queue.push("b", event("b", "other"));
        for n in 0..ROOM * 3 {
            queue.push("a", event(&format!("a/{n}"), "flood"));
        }
        let mut events = Vec::new();
        while let Some(event) = queue.pop() {
            events.push(event);
        }
        assert!(events.len() <= ROOM);
        assert!(events.contains(&event("b", "other")));
        assert!(events.contains(&event("a", "flood")));
    }
}
