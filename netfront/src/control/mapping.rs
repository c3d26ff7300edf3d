//! Which of our pages the backend keeps mapped. They are announced after both sides are Connected; a page
//! that leaves the pool is withdrawn first, and freed only when the backend has said that it let go.
//!
//! ```text
//!  Asking --size--> On: pages are announced in lists, withdrawn before they are freed
//!     |              |
//!     | (not         | (an answer that makes no sense, or none)
//!     v  supported)  v
//!    Off            Down: nothing is asked any more; what may be mapped is freed with the connection
//! ```
//!
//! Whatever happens here, packets flow: a page that is not announced is reached by the backend in its own way.
//!
//! Each queue has pages of its own, and the backend says for each how many it keeps. The one control ring carries the questions
//! of all, one at a time and in the order in which they came up.

mod announced;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use hypervisor::{Access, DomId, Domain, SharedPages};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use xen_ring::{ControlMessage, ControlStatus, Corrupt, GrefEntry, GREF_ENTRIES};

use super::hash::Step;
use super::{Answer, ControlRing, Fault, HashConfig};
use crate::pool::{Leaving, Order};

pub(crate) use announced::{entry, Announcement};
use announced::{writable, Announced, State};

/// How long a backend may take to stop hashing: the goodbye waits for it. netback answers from a thread of its own, in far less;
/// whoever is silent here must not hold up a restart of the driver.
const LEAVING: Duration = Duration::from_millis(50);

/// What is to be asked, and for what.
enum Job {
    Size,
    /// Announce these; then give the pool the pages that it waits for, if these are such.
    Add(Vec<GrefEntry>, Option<SharedPages>),
    /// Withdraw these, then free them.
    Del(Leaving),
    /// A step on the way to the backend's hashes.
    Hash(Step),
}

/// The announced pages of one connection.
pub(crate) struct Mapping {
    ring: ControlRing,
    /// By the number of their queue.
    queues: Vec<Announced>,
    /// Each with the number of its queue.
    jobs: VecDeque<(usize, Job)>,
    doing: Option<Doing>,
    /// Pages that left a pool while the backend may have them mapped, and could not be withdrawn.
    held: Vec<Leaving>,
    /// The hashes that are wanted.
    hash: Option<HashConfig>,
}

/// The job that waits for its answer.
struct Doing {
    queue: usize,
    job: Job,
    /// Entries in its list.
    entries: usize,
}

impl Mapping {
    /// Will announce these pages, and those that the pools grow by.
    pub fn new(ring: ControlRing, queues: Vec<Announcement>) -> Self {
        let mut jobs = VecDeque::with_capacity(2 * queues.len());
        let mut announced = Vec::with_capacity(queues.len());
        for (number, queue) in queues.into_iter().enumerate() {
            queue.growth.announce(true);
            queue.stats.gref_mapped.set(0);
            jobs.push_back((number, Job::Size));
            jobs.push_back((number, Job::Add(queue.pages, None)));
            announced.push(Announced::new(queue.growth, queue.stats));
        }
        Self {
            ring,
            queues: announced,
            jobs,
            doing: None,
            held: Vec::new(),
            hash: None,
        }
    }

    /// Also has the backend hash what it sends, if that is wanted; announces no page if not `maps`.
    pub fn hashing(mut self, hash: Option<HashConfig>, maps: bool) -> Self {
        if !maps {
            self.jobs.clear();
            for queue in &mut self.queues {
                queue.state = State::Off;
                queue.growth.announce(false);
            }
        }
        self.set_hash_active(false);
        if hash.is_some() {
            // First: whatever comes of the pages, packets are to be steered soon.
            self.jobs.push_front(hashing(Step::Algorithm));
        }
        self.hash = hash;
        self
    }

    /// Does what can be done without waiting: takes what the pools want, and asks the backend.
    ///
    /// # Errors
    /// When the control ring is broken: then the connection is over.
    pub fn advance(&mut self, domain: &Domain, peer: DomId) -> Result<(), Corrupt> {
        for number in 0..self.queues.len() {
            self.grow(number, domain, peer);
            while let Some(order) = self.queues[number].growth.next_order() {
                let job = match order {
                    Order::Grown(refs) => Job::Add(writable(&refs), None),
                    Order::Leaving(pages) => Job::Del(pages),
                };
                self.jobs.push_back((number, job));
            }
        }
        loop {
            let step = if self.doing.is_some() {
                match self.ring.answer() {
                    Ok(None) => return Ok(()),
                    Ok(Some(answer)) => self.finish(answer),
                    Err(fault) => Err(fault),
                }
            } else {
                match self.jobs.pop_front() {
                    None => return Ok(()),
                    Some((number, job)) => self.begin(number, job),
                }
            };
            if let Err(fault) = step {
                self.fall(&fault);
                if let Fault::Corrupt(corrupt) = fault {
                    return Err(corrupt);
                }
            }
        }
    }

    /// Grants a batch if the queue's pool wants one. It is announced before the pool gets it.
    fn grow(&mut self, number: usize, domain: &Domain, peer: DomId) {
        let queue = &mut self.queues[number];
        if queue.granting {
            return;
        }
        let Some(pages) = queue.growth.grant(domain, peer, Access::ReadWrite) else {
            return;
        };
        let refs: Vec<_> = (0..pages.len()).map(|page| pages.reference(page)).collect();
        if let State::On { .. } = queue.state {
            queue.granting = true;
            let job = Job::Add(writable(&refs), Some(pages));
            self.jobs.push_back((number, job));
        } else {
            // Nobody knows yet when there will be an answer.
            let job = Job::Add(writable(&refs), None);
            self.jobs.push_back((number, job));
            queue.growth.hand_over(pages);
        }
    }

    /// Readable when an answer may have come; `None` while none is of interest.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.doing.as_ref().and(self.ring.fd())
    }

    /// When an answer is overdue. `None` for one that has been given up: a deadline that is over for good would
    /// keep the control thread awake.
    pub fn deadline(&self) -> Option<Instant> {
        self.doing.as_ref().and(self.ring.deadline())
    }

    /// Asks what a job asks, or does without.
    fn begin(&mut self, number: usize, job: Job) -> Result<(), Fault> {
        let gref = self.ring.list_reference();
        let queue = &mut self.queues[number];
        let name = number as u32;
        match (job, queue.state) {
            (Job::Hash(_), State::Down) => Ok(()),
            (Job::Hash(step), _) => {
                let Some(hash) = &self.hash else {
                    return Ok(());
                };
                self.ring.write_bytes(&hash.page(step));
                self.doing = Some(Doing {
                    queue: number,
                    job: Job::Hash(step),
                    entries: 0,
                });
                self.ring.ask(hash.message(step, gref))
            }
            (Job::Size, _) => {
                self.doing = Some(Doing {
                    queue: number,
                    job: Job::Size,
                    entries: 0,
                });
                self.ring
                    .ask(ControlMessage::GetGrefMappingSize { queue: name })
            }
            (Job::Add(mut pages, grown), State::On { room }) => {
                pages.truncate(room.saturating_sub(queue.mapped.len()));
                if pages.is_empty() {
                    queue.hand_over(grown);
                    return Ok(());
                }
                if pages.len() > GREF_ENTRIES {
                    let rest = pages.split_off(GREF_ENTRIES);
                    self.jobs.push_front((number, Job::Add(rest, None)));
                }
                let entries = pages.len();
                self.ring.write_list(&pages);
                self.doing = Some(Doing {
                    queue: number,
                    job: Job::Add(pages, grown),
                    entries,
                });
                self.ring.ask(ControlMessage::AddGrefMapping {
                    queue: name,
                    gref,
                    entries: entries as u32,
                })
            }
            (Job::Add(_, grown), _) => {
                queue.hand_over(grown);
                Ok(())
            }
            (Job::Del(leaving), State::On { .. }) => {
                let announced = leaving.refs.iter();
                let announced = announced.filter(|gref| queue.mapped.contains(*gref));
                let list: Vec<_> = announced.map(|gref| entry(*gref, false)).collect();
                if list.is_empty() {
                    return Ok(());
                }
                self.ring.write_list(&list);
                self.doing = Some(Doing {
                    queue: number,
                    job: Job::Del(leaving),
                    entries: list.len(),
                });
                self.ring.ask(ControlMessage::DelGrefMapping {
                    queue: name,
                    gref,
                    entries: list.len() as u32,
                })
            }
            (Job::Del(leaving), _) => {
                self.hold(number, leaving);
                Ok(())
            }
        }
    }

    /// Judges the answer to what is being done.
    fn finish(&mut self, (status, data): Answer) -> Result<(), Fault> {
        let Some(Doing {
            queue: number,
            job,
            entries,
        }) = &self.doing
        else {
            return Ok(());
        };
        let (number, entries) = (*number, *entries);
        if let Job::Hash(step) = *job {
            self.doing = None;
            self.hashed(step, (status, data));
            return Ok(());
        }
        let kind = match job {
            Job::Size => 8,
            Job::Add(..) => 9,
            Job::Del(_) => 10,
            // Judged above, by its own rules.
            Job::Hash(_) => return Ok(()),
        };
        let nonsense = Fault::Nonsense { kind, status, data };
        let queue = &mut self.queues[number];
        match (job, status) {
            (Job::Size, ControlStatus::Success) if data > 0 => {
                tracing::debug!(
                    queue = number,
                    pages = data,
                    "the backend keeps pages mapped"
                );
                queue.state = State::On {
                    room: data as usize,
                };
                self.doing = None;
            }
            (Job::Size, ControlStatus::Success | ControlStatus::NotSupported) => {
                tracing::debug!(
                    queue = number,
                    "the backend keeps no pages mapped: {status:?}"
                );
                queue.state = State::Off;
                queue.growth.announce(false);
                self.doing = None;
            }
            (Job::Add(..), ControlStatus::Success) => {
                if let Some(Job::Add(pages, grown)) = self.doing.take().map(|doing| doing.job) {
                    queue.map(&pages);
                    queue.count();
                    queue.hand_over(grown);
                }
            }
            (Job::Add(..), ControlStatus::InvalidParameter) => {
                let bad = self.ring.read_list(entries).find(|page| page.status != 0);
                let bad = bad.map(|page| (page.gref, page.status));
                tracing::warn!(
                    ?bad,
                    queue = number,
                    mapped = queue.mapped.len(),
                    "the backend keeps no more pages mapped"
                );
                queue.state = State::On {
                    room: queue.mapped.len(),
                };
                if let Some(Job::Add(_, grown)) = self.doing.take().map(|doing| doing.job) {
                    queue.hand_over(grown);
                }
            }
            (Job::Del(_), ControlStatus::Success) if data as usize == entries => {
                if self.ring.read_list(entries).any(|page| page.status != 0) {
                    return Err(nonsense);
                }
                if let Some(Job::Del(leaving)) = self.doing.take().map(|doing| doing.job) {
                    for gref in &leaving.refs {
                        queue.mapped.remove(gref);
                    }
                    queue.count();
                    tracing::debug!(pages = leaving.refs.len(), "freed, the backend has let go");
                }
            }
            _ => return Err(nonsense),
        }
        Ok(())
    }

    /// Goes on to the next step of the hashes, or does without them.
    fn hashed(&mut self, step: Step, answer: Answer) {
        let Some(hash) = self.hash.as_ref().filter(|_| step != Step::Off) else {
            return;
        };
        match hash.next(step, answer) {
            Ok(Some(next)) => self.jobs.push_front(hashing(next)),
            Ok(None) => {
                tracing::info!(?hash, "the backend hashes what it sends");
                self.set_hash_active(true);
            }
            Err(refusal) => {
                tracing::warn!("the backend does not hash: {refusal}");
                // Half set up, netback would give every packet the same hash.
                if step != Step::Algorithm {
                    self.jobs.push_front(hashing(Step::Off));
                }
            }
        }
    }

    /// Before the goodbye: has the backend hash no more, and waits for its answer, for a moment. netback keeps algorithm and
    /// mapping with the vif, not with the connection: the next driver, which may not know what a mapping is, would get its
    /// packets by our queues.
    pub fn end_hashing(&mut self) {
        let down = |queue: &Announced| queue.state == State::Down;
        if self.hash.take().is_none() || self.queues.first().is_none_or(down) {
            return;
        }
        let until = Instant::now() + LEAVING;
        // What was asked last is answered first. Without a configuration no step follows.
        let ended = self
            .settle(until)
            .and_then(|()| self.begin_off())
            .and_then(|()| self.settle(until));
        self.set_hash_active(false);
        if let Err(fault) = ended {
            tracing::debug!("the backend was not told to stop hashing: {fault}");
        }
    }

    fn begin_off(&mut self) -> Result<(), Fault> {
        if self.doing.is_some() {
            return Ok(());
        }
        self.doing = Some(Doing {
            queue: 0,
            job: Job::Hash(Step::Off),
            entries: 0,
        });
        self.ring.ask(super::hash::OFF)
    }

    /// Waits until the question that was asked is answered, or until that time.
    fn settle(&mut self, until: Instant) -> Result<(), Fault> {
        while self.doing.is_some() {
            if let Some(answer) = self.ring.answer()? {
                self.finish(answer)?;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Some(fd) = self.ring.fd().filter(|_| !left.is_zero()) else {
                return Ok(());
            };
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
        Ok(())
    }

    /// The hashes are those of the vif: the first queue's counters tell of them.
    fn set_hash_active(&self, active: bool) {
        if let Some(first) = self.queues.first() {
            first.stats.hash_active.set(u64::from(active));
        }
    }

    /// Nothing is asked any more, for no queue.
    fn fall(&mut self, fault: &Fault) {
        // Of a broken ring and of a restore tells who ends the connection for it.
        if !matches!(
            fault,
            Fault::Corrupt(_) | Fault::Hypervisor(hypervisor::Error::Restored)
        ) {
            tracing::warn!("the control ring is given up, packets go on: {fault}");
        }
        for queue in &mut self.queues {
            queue.state = State::Down;
        }
        if let Some(Doing { queue, job, .. }) = self.doing.take() {
            match job {
                Job::Add(pages, grown) => {
                    // Mapped or not: who would say?
                    self.queues[queue].map(&pages);
                    self.queues[queue].hand_over(grown);
                }
                Job::Del(leaving) => self.held.push(leaving),
                Job::Size | Job::Hash(_) => {}
            }
        }
        // What was still to be asked. The pools wait for their pages, and another queue's size must not be asked for.
        for (number, job) in std::mem::take(&mut self.jobs) {
            match job {
                Job::Add(_, grown) => self.queues[number].hand_over(grown),
                Job::Del(leaving) => self.hold(number, leaving),
                Job::Size | Job::Hash(_) => {}
            }
        }
    }

    /// Frees pages that were never announced; keeps others until the connection is over.
    fn hold(&mut self, number: usize, leaving: Leaving) {
        let mapped = &self.queues[number].mapped;
        if leaving.refs.iter().any(|gref| mapped.contains(gref)) {
            self.held.push(leaving);
        }
    }
}

impl Drop for Mapping {
    /// The connection is over, and the backend has let go of all.
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.stats.gref_mapped.set(0);
        }
        self.set_hash_active(false);
    }
}

/// A step of the hashes as a job: they are those of the vif, which the first queue stands for.
fn hashing(step: Step) -> (usize, Job) {
    (0, Job::Hash(step))
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queues = self.queues.iter();
        let queues: Vec<_> = queues
            .map(|queue| (queue.state, queue.mapped.len()))
            .collect();
        f.debug_struct("Mapping")
            .field("queues", &queues)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
