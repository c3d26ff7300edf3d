//! The threads of a connection with several queues: the caller's has the first queue and hears of changes, each other
//! queue has a thread of its own, named after it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::pump::Pump;
use super::Service;
use crate::consumer::Consumer;
use crate::device::{thread_name, Device, Link};
use crate::engine::punctual::Punctual;
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

    /// Starts a thread for each queue, with its consumer: for as many as the system has threads for, which is said.
    pub fn start<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        device: &Device,
        queues: &'env mut [Queue],
        consumers: &'env mut [Box<dyn Consumer + Send>],
        service: &'env Service,
    ) -> Vec<Thread<'scope>> {
        let mut threads = Vec::with_capacity(queues.len());
        for (number, (queue, consumer)) in (1..).zip(queues.iter_mut().zip(consumers)) {
            let pump = Pump::new(service, device.control_waker());
            let work = move || {
                let _present = service.affinity().enter(number, queue.interrupt());
                self.follow(pump, queue, consumer.as_mut(), service)
            };
            let started = Builder::new().name(thread_name(device.vif(), number));
            match spawn(number, || started.spawn_scoped(scope, work)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    tracing::warn!(
                        "the thread of queue {number} cannot be started ({error}): connecting anew with {number} queues, \
                         and with all again when the backend next connects; look at the limits of threads (ulimit -u; in \
                         a service TasksMax)"
                    );
                    break;
                }
            }
        }
        threads
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
        let _punctual = Punctual::begin();
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

/// Starts the thread of the queue with this number.
fn spawn<T>(number: usize, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    if number > tests::THREADS.get() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let _ = number;
    start()
}

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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use hypervisor::sim::server::{self, Options};
    use hypervisor::{DomId, Domain};
    use netback_sim::{peer, Backend, Config};

    use super::*;
    use crate::consumer::Null;
    use crate::engine::serve_queues;

    thread_local! {
        /// Queues, the first left out, that this thread can start threads for.
        pub static THREADS: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Ends the lack of threads when there is a connection in spite of it.
    struct Mending;

    impl Consumer for Mending {
        fn link(&mut self, link: &Link) -> Result<(), Error> {
            if link.queues == 2 {
                THREADS.set(usize::MAX);
            }
            Ok(())
        }

        fn deliver(&mut self, _packet: &mut crate::Packet<'_>) {}
    }

    #[test]
    fn where_the_system_has_no_thread_for_a_queue_there_are_fewer_queues_until_the_next_connection()
    {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("xen");
        let options = Options::new().grant_limit(4096);
        let _server = server::spawn(&socket, options).expect("a server");
        let back = Domain::simulated(&socket, DomId(0)).expect("the driver domain");
        let start = || {
            let mut config = Config::new(DomId(1), peer::Sink::new());
            config.features.multi_queue_max = 4;
            Backend::start(&back, config).expect("a backend")
        };
        let backend = start();
        let front = Domain::simulated(&socket, DomId(1)).expect("the guest");
        let service = Arc::new(Service::default());
        let served = Arc::clone(&service);
        let serving = std::thread::spawn(move || {
            THREADS.set(1);
            let device = crate::Device::builder(0).queues(4).connect(&front)?;
            let mut others: Vec<Box<dyn Consumer + Send>> =
                vec![Box::new(Null), Box::new(Null), Box::new(Null)];
            serve_queues(device, &mut Mending, &mut others, &served)
        });
        let wait = |queues| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while service.link().is_none_or(|link| link.queues != queues) {
                assert!(!serving.is_finished(), "it ended");
                assert!(Instant::now() < deadline, "{:?}", service.link());
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait(2);
        assert_eq!(service.connections.load(Ordering::Relaxed), 2);
        backend.stop().expect("stopped");
        let _backend = start();
        wait(4);
        assert_eq!(service.connections.load(Ordering::Relaxed), 3);
        service.stop();
        serving.join().expect("no panic").expect("served");
    }
}
