//! The control thread: watches the store, grants pages away from the data path, wakes the owner of the first queue.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use hypervisor::{Access, DomId, Domain};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::connection::{Change, Connection, Offer};
use crate::control::Mapping;
use crate::pool::Growth;
use crate::queue::Filter;
use crate::waker::Waker;
use crate::Error;

/// How long the goodbye of a device that is dropped, not closed, may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The name of the control thread of a vif, also of its event channel's interrupt.
pub(super) fn thread_name(vif: u32) -> String {
    format!("nf{vif}control")
}

/// What the thread has in its hands, and gives back at its end. The pages of the mapping are freed only after
/// the goodbye.
#[derive(Debug)]
pub(super) struct Held {
    pub connection: Connection,
    pub mapping: Option<Mapping>,
}

/// The queues that the thread works for.
pub(super) struct Served {
    /// Wakes the owner of the first queue, who hears of changes and tells the others.
    pub owner: Arc<Waker>,
    /// Of each queue's pool.
    pub growths: Vec<Arc<Growth>>,
    /// What is wished of the multicast filter, of which the first queue tells.
    pub filter: Arc<Filter>,
    /// The backend filters, and would not hear of another wish before it connects anew.
    pub filters_for_good: bool,
}

/// The thread's handle.
#[derive(Debug)]
pub(super) struct Control {
    thread: Option<JoinHandle<Option<Held>>>,
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
        held: Held,
        served: Served,
    ) -> Result<Self, (Error, Box<Held>)> {
        let waker = match Waker::new() {
            Ok(waker) => Arc::new(waker),
            Err(error) => return Err((error, Box::new(held))),
        };
        served.filter.attend(Arc::clone(&waker));
        let stop = Arc::new(AtomicBool::new(false));
        let news = Arc::new(News::default());
        for growth in &served.growths {
            growth.attend(Arc::clone(&waker));
        }
        let (domain, peer) = (domain.clone(), offer.backend_id);
        let work = {
            let news = Arc::clone(&news);
            let (stop, waker) = (Arc::clone(&stop), Arc::clone(&waker));
            move |held| Watch {
                domain,
                peer,
                held,
                served,
                news,
                stop,
                waker,
                over: false,
            }
        };
        // Handed over only when the thread is there: one that cannot be started would take it along.
        let (give, take) = mpsc::channel();
        let spawned = Builder::new()
            .name(thread_name(vif))
            .spawn(move || take.recv().ok().map(|held| work(held).run()));
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                let error = Error::io("starting the control thread")(error);
                return Err((error, Box::new(held)));
            }
        };
        match give.send(held) {
            Ok(()) => Ok(Self {
                thread: Some(thread),
                news,
                stop,
                waker,
            }),
            Err(mpsc::SendError(held)) => {
                let gone = std::io::Error::other("it ended at once");
                let error = Error::io("starting the control thread")(gone);
                Err((error, Box::new(held)))
            }
        }
    }

    /// The next thing that changed, if anything did.
    pub fn change(&self) -> Option<Change> {
        self.news.take()
    }

    /// Wakes the thread, which reads the keys then, although no watch fired.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Ends the thread and gives back what it had. `None` if the thread has died.
    pub fn stop(mut self) -> Option<Held> {
        self.end()
    }

    fn end(&mut self) -> Option<Held> {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.thread.take()?.join().ok()?
    }
}

impl Drop for Control {
    /// A device that is dropped and not closed leaves no thread behind, and no backend that believes it is
    /// connected.
    fn drop(&mut self) {
        if let Some(mut held) = self.end() {
            let connection = &mut held.connection;
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
    newest: Mutex<[Option<Change>; 7]>,
}

impl News {
    fn put(&self, change: Change) {
        let kind = match change {
            Change::Carrier(_) => 0,
            Change::Mtu(_) => 1,
            Change::Speed(_) => 2,
            Change::Broken(_) => 3,
            Change::BackendLeft(_) => 4,
            Change::Restored => 5,
            Change::MulticastFilter => 6,
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
    held: Held,
    served: Served,
    news: Arc<News>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    /// The backend has left, or broke the control ring.
    over: bool,
}

impl Watch {
    /// How often the keys are read although no watch fired. Every change fires one, a restore all of them: only a kernel
    /// without memory is known to lose an event. And whoever has sent a packet that stays unanswered asks for a look
    /// (`Control::look`) after a second. Each costs some twenty wake-ups of ours and the store client's, which makes
    /// them most of what an idle driver does.
    const REREAD: Duration = Duration::from_secs(60);
    /// When a store that has failed is asked again.
    const RETRY: Duration = Duration::from_secs(2);
    /// The same while somebody writes the keys without end.
    const FLOODED: Duration = Duration::from_millis(20);
    /// The pause after a change.
    const TOGGLED: Duration = Duration::from_millis(100);

    fn run(mut self) -> Held {
        let mut said = false;
        while !self.stop.load(Ordering::Acquire) {
            match &mut self.held.mapping {
                // A connection that is over is not asked any more.
                Some(mapping) if !self.over => {
                    if let Err(corrupt) = mapping.advance(&self.domain, self.peer) {
                        self.over = true;
                        self.news.put(Change::Broken(corrupt));
                        self.served.owner.wake();
                    }
                }
                Some(_) => {}
                None => {
                    for growth in &self.served.growths {
                        growth.serve(&self.domain, self.peer, Access::ReadWrite);
                    }
                }
            }
            if let Some(on) = self.served.filter.take().filter(|_| !self.over) {
                self.filter_multicast(on);
            }
            // A store that has failed is asked again later; its descriptor may be ready for ever.
            let mut listens = !self.over;
            let mut calm = Self::REREAD;
            if !self.over {
                match self.held.connection.next_change(Duration::ZERO) {
                    Ok(Some(change)) => {
                        self.over = matches!(change, Change::BackendLeft(_) | Change::Restored);
                        self.news.put(change);
                        self.served.owner.wake();
                        // Whoever toggles a key without end is followed at a walk.
                        listens = false;
                        calm = Self::TOGGLED;
                    }
                    Ok(None) => said = false,
                    Err(error) => {
                        listens = false;
                        calm = Self::RETRY;
                        if !std::mem::replace(&mut said, true) {
                            tracing::warn!("the store cannot be read, trying on: {error}");
                        }
                    }
                }
            }
            self.sleep(listens, calm);
        }
        if let Some(mapping) = self.held.mapping.as_mut().filter(|_| !self.over) {
            mapping.end_hashing();
        }
        self.held
    }

    /// Tells the backend that it is to filter, or the owner that only a new connection ends that.
    fn filter_multicast(&mut self, on: bool) {
        if self.served.filters_for_good {
            if !on {
                self.news.put(Change::MulticastFilter);
                self.served.owner.wake();
            }
        } else if let Err(error) = self.held.connection.filter_multicast(on) {
            tracing::warn!("the backend cannot be told about multicast: {error}");
        }
    }

    fn sleep(&self, listens: bool, mut calm: Duration) {
        let mut fds = ArrayVec::<PollFd<'_>, 3>::new();
        fds.push(PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN));
        let flooded = listens && !self.held.connection.is_drained();
        if listens && !flooded {
            let store = self.held.connection.event_fd();
            fds.push(PollFd::from_borrowed_fd(store, PollFlags::IN));
        }
        if let Some(mapping) = self.held.mapping.as_ref().filter(|_| !self.over) {
            let answer = mapping.fd();
            fds.extend(answer.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let overdue = mapping.deadline();
            calm = overdue.map_or(calm, |at| {
                calm.min(at.saturating_duration_since(Instant::now()))
            });
        }
        let time = if flooded { Self::FLOODED } else { calm };
        let _ = poll(&mut fds, Timespec::try_from(time).ok().as_ref());
        self.waker.clear();
    }
}
