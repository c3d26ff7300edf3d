//! The control thread: watches the store, grants pages away from the data path, wakes the queue's owner.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use arrayvec::ArrayVec;
use hypervisor::{Access, DomId, Domain};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::connection::{Change, Connection, Offer};
use crate::pool::Growth;
use crate::queue::Queue;
use crate::waker::Waker;
use crate::Error;

/// How long the goodbye of a device that is dropped, not closed, may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The thread's handle.
#[derive(Debug)]
pub(super) struct Control {
    thread: Option<JoinHandle<Option<Connection>>>,
    news: Arc<News>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no descriptor or no thread left; the connection comes back, for the goodbye.
    pub fn start(
        domain: &Domain,
        offer: &Offer,
        vif: u32,
        connection: Connection,
        queue: &Queue,
    ) -> Result<Self, (Error, Box<Connection>)> {
        let waker = match Waker::new() {
            Ok(waker) => Arc::new(waker),
            Err(error) => return Err((error, Box::new(connection))),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let news = Arc::new(News::default());
        let growth = queue.growth();
        growth.attend(Arc::clone(&waker));
        let (domain, peer) = (domain.clone(), offer.backend_id);
        let work = {
            let (queue, news) = (queue.waker(), Arc::clone(&news));
            let (stop, waker) = (Arc::clone(&stop), Arc::clone(&waker));
            move |connection| Watch {
                domain,
                peer,
                connection,
                growth,
                queue,
                news,
                stop,
                waker,
            }
        };
        // Handed over only when the thread is there: one that cannot be started would take it along.
        let (give, take) = mpsc::channel();
        let spawned = Builder::new()
            .name(format!("nf{vif}control"))
            .spawn(move || take.recv().ok().map(|connection| work(connection).run()));
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                let error = Error::io("starting the control thread")(error);
                return Err((error, Box::new(connection)));
            }
        };
        match give.send(connection) {
            Ok(()) => Ok(Self {
                thread: Some(thread),
                news,
                stop,
                waker,
            }),
            Err(mpsc::SendError(connection)) => {
                let gone = std::io::Error::other("it ended at once");
                let error = Error::io("starting the control thread")(gone);
                Err((error, Box::new(connection)))
            }
        }
    }

    /// The next thing that changed, if anything did.
    pub fn change(&self) -> Option<Change> {
        self.news.take()
    }

    /// Ends the thread and gives the connection back. `None` if the thread has died.
    pub fn stop(mut self) -> Option<Connection> {
        self.end()
    }

    fn end(&mut self) -> Option<Connection> {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.thread.take()?.join().ok()?
    }
}

impl Drop for Control {
    /// A device that is dropped and not closed leaves no thread behind, and no backend that believes it is
    /// connected.
    fn drop(&mut self) {
        if let Some(mut connection) = self.end() {
            connection.interrupt_by(Arc::default());
            if let Err(error) = connection.close(GOODBYE) {
                tracing::debug!("closing a device that was dropped: {error}");
            }
        }
    }
}

/// What changed and was not fetched yet: of each kind only the newest, so that nothing piles up behind an
/// owner who never asks.
#[derive(Debug, Default)]
struct News {
    /// Looked at first: the owner asks often, and the lock is not for every round.
    any: AtomicBool,
    newest: Mutex<[Option<Change>; 4]>,
}

impl News {
    fn put(&self, change: Change) {
        let kind = match change {
            Change::Carrier(_) => 0,
            Change::Mtu(_) => 1,
            Change::BackendLeft(_) => 2,
            Change::Restored => 3,
        };
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)[kind] = Some(change);
        self.any.store(true, Ordering::Release);
    }

    fn take(&self) -> Option<Change> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let next = newest.iter_mut().find_map(Option::take);
        if next.is_none() {
            self.any.store(false, Ordering::Release);
        }
        next
    }
}

/// What the thread works with.
struct Watch {
    domain: Domain,
    peer: DomId,
    connection: Connection,
    growth: Arc<Growth>,
    queue: Arc<Waker>,
    news: Arc<News>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Watch {
    /// How often the keys are read although no watch fired: an event can be lost.
    const REREAD: Duration = Duration::from_secs(2);
    /// The same while somebody writes the keys without end.
    const FLOODED: Duration = Duration::from_millis(20);
    /// The pause after a change.
    const TOGGLED: Duration = Duration::from_millis(100);

    fn run(mut self) -> Connection {
        let mut left = false;
        let mut said = false;
        while !self.stop.load(Ordering::Acquire) {
            self.growth
                .serve(&self.domain, self.peer, Access::ReadWrite);
            // A store that has failed is asked again later; its descriptor may be ready for ever.
            let mut listens = !left;
            let mut calm = Self::REREAD;
            if !left {
                match self.connection.next_change(Duration::ZERO) {
                    Ok(Some(change)) => {
                        left = matches!(change, Change::BackendLeft(_) | Change::Restored);
                        self.news.put(change);
                        self.queue.wake();
                        // Whoever toggles a key without end is followed at a walk.
                        listens = false;
                        calm = Self::TOGGLED;
                    }
                    Ok(None) => said = false,
                    Err(error) => {
                        listens = false;
                        if !std::mem::replace(&mut said, true) {
                            tracing::warn!("the store cannot be read, trying on: {error}");
                        }
                    }
                }
            }
            self.sleep(listens, calm);
        }
        self.connection
    }

    fn sleep(&self, listens: bool, calm: Duration) {
        let mut fds = ArrayVec::<PollFd<'_>, 2>::new();
        fds.push(PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN));
        let flooded = listens && !self.connection.is_drained();
        if listens && !flooded {
            let store = self.connection.event_fd();
            fds.push(PollFd::from_borrowed_fd(store, PollFlags::IN));
        }
        let time = if flooded { Self::FLOODED } else { calm };
        let _ = poll(&mut fds, Timespec::try_from(time).ok().as_ref());
        self.waker.clear();
    }
}
