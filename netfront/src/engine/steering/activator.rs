//! A thread that wakes others, so that an event core never makes the system call itself.
//!
//! An event core may wake the thread of an application directly: one system call for each that sleeps, after a round.
//! Or it hands the identifiers of connections to this thread, which signals whoever is bound to them: then an event
//! core wakes one thread at most, whatever the number of those that have to be woken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_queue::ArrayQueue;

use super::bell::Bell;
use crate::Error;

#[derive(Debug)]
struct Shared<I> {
    waiting: ArrayQueue<I>,
    bell: Bell,
    stop: AtomicBool,
}

/// The activation thread. It ends when this is dropped, after it has signalled all that were handed to it.
#[derive(Debug)]
pub struct Activator<I> {
    shared: Arc<Shared<I>>,
    thread: Option<JoinHandle<()>>,
}

impl<I: Send + 'static> Activator<I> {
    /// Starts the thread, which calls `signal` for each identifier. Up to `capacity` may wait.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        capacity: usize,
        mut signal: impl FnMut(I) + Send + 'static,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            waiting: ArrayQueue::new(capacity.max(1)),
            bell: Bell::new(),
            stop: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let run = move || loop {
            while let Some(id) = own.waiting.pop() {
                signal(id);
            }
            own.bell.rest();
            let stop = own.stop.load(Ordering::Acquire);
            if own.waiting.is_empty() {
                if stop {
                    return;
                }
                std::thread::park();
            }
            own.bell.resume();
        };
        let thread = std::thread::Builder::new()
            .name("activation".into())
            .spawn(run);
        Ok(Self {
            shared,
            thread: Some(thread.map_err(Error::io("starting the activation thread"))?),
        })
    }

    /// Hands an identifier over. Makes a system call only if the thread sleeps.
    ///
    /// # Errors
    /// The identifier, if too many wait: then the caller signals itself.
    pub fn activate(&self, id: I) -> Result<(), I> {
        self.shared.waiting.push(id)?;
        if self.shared.bell.ring() {
            self.unpark();
        }
        Ok(())
    }
}

impl<I> Activator<I> {
    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<I> Drop for Activator<I> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.unpark();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the activation thread panicked: whoever it had to wake was not woken");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::Activator;

    /// K-9: the identifier goes to a thread, which signals whoever is bound to it.
    #[test]
    fn every_identifier_that_is_handed_over_is_signalled_in_order() {
        let signalled = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&signalled);
        let activator = Activator::start(4, move |id: u32| into.lock().unwrap().push(id)).unwrap();
        let mut by_itself = Vec::new();
        for id in 0..10_000 {
            if let Err(id) = activator.activate(id) {
                by_itself.push(id);
            }
        }
        drop(activator);
        let mut all = signalled.lock().unwrap().clone();
        assert!(all.is_sorted());
        all.extend(by_itself);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..10_000));
    }
}
