//! The threads of a connection with several queues: the caller's has the first queue and hears of changes, each other
//! queue has a thread of its own, named after it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::pump::Pump;
use super::Service;
use crate::consumer::Consumer;
use crate::device::{thread_name, Device, Link};
use crate::queue::Queue;
use crate::waker::Waker;
use crate::Error;

/// What the threads of one connection tell each other.
pub(super) struct Team {
    /// The connection is over.
    over: AtomicBool,
    /// One of the threads has ended; its result says why.
    short: AtomicBool,
    link: Mutex<Link>,
    /// How often it changed.
    changes: AtomicU64,
    /// Wakes the caller's thread.
    first: Arc<Waker>,
    others: Vec<Arc<Waker>>,
}

impl Team {
    /// For the queues of this device, which must all be there.
    pub fn new(device: &mut Device) -> Self {
        let link = *device.link();
        let mut wakers = device.queues().map(|queue| queue.waker());
        // There is always a first one.
        let first = wakers.next();
        let others = wakers.collect();
        Self {
            over: AtomicBool::new(false),
            short: AtomicBool::new(false),
            link: Mutex::new(link),
            changes: AtomicU64::new(0),
            first: first.unwrap_or_else(|| device.control_waker()),
            others,
        }
    }

    /// Starts a thread for each queue, with its consumer.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        device: &Device,
        queues: &'env mut [Queue],
        consumers: &'env mut [Box<dyn Consumer + Send>],
        service: &'env Service,
    ) -> Result<Vec<Thread<'scope>>, Error> {
        let mut threads = Vec::with_capacity(queues.len());
        for (number, (queue, consumer)) in (1..).zip(queues.iter_mut().zip(consumers)) {
            let pump = Pump::new(service, device.control_waker());
            let work = move || {
                let _present = service.affinity().enter(number, queue.interrupt());
                self.follow(pump, queue, consumer.as_mut(), service)
            };
            let thread = Builder::new()
                .name(thread_name(device.vif(), number))
                .spawn_scoped(scope, work)
                .map_err(Error::io("starting the thread of a queue"))?;
            threads.push(thread);
        }
        Ok(threads)
    }

    /// Moves the packets of one of the other queues until the connection is over.
    fn follow(
        &self,
        mut pump: Pump,
        queue: &mut Queue,
        consumer: &mut dyn Consumer,
        service: &Service,
    ) -> Result<(), Error> {
        let _missed = Missed(self);
        let mut seen = 0;
        while !self.over.load(Ordering::Acquire) && !service.stopping() {
            if !pump.turn(queue, consumer, service)? {
                continue;
            }
            let changes = self.changes.load(Ordering::Acquire);
            if std::mem::replace(&mut seen, changes) != changes {
                let link = self.link.lock().map(|link| *link);
                if let Ok(link) = link {
                    consumer.link(&link)?;
                }
            }
        }
        queue.export();
        Ok(())
    }

    /// Called by the caller's thread: the link changed.
    pub fn tell(&self, now: &Link) {
        if let Ok(mut link) = self.link.lock() {
            *link = *now;
        }
        self.changes.fetch_add(1, Ordering::Release);
        self.wake_others();
    }

    /// True once one of the threads has ended before the connection.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    /// Ends all threads when it is dropped, however the caller's thread ends: they are waited for.
    pub fn dismissal(&self) -> Dismissal<'_> {
        Dismissal(self)
    }

    fn wake_others(&self) {
        self.others.iter().for_each(|waker| waker.wake());
    }
}

/// A thread that has a queue.
pub(super) type Thread<'scope> = ScopedJoinHandle<'scope, Result<(), Error>>;

/// Why a thread ended.
pub(super) fn result(thread: Thread<'_>) -> Result<(), Error> {
    thread.join().unwrap_or_else(|_| {
        let panicked = std::io::Error::other("it panicked: a bug of netfront");
        Err(Error::io("moving the packets of a queue")(panicked))
    })
}

/// Tells the caller's thread that this one has ended, also by a panic.
struct Missed<'a>(&'a Team);

impl Drop for Missed<'_> {
    fn drop(&mut self) {
        self.0.short.store(true, Ordering::Release);
        self.0.first.wake();
    }
}

/// See [`Team::dismissal`].
pub(super) struct Dismissal<'a>(&'a Team);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        self.0.wake_others();
    }
}
