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

use std::collections::{HashSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use hypervisor::{Access, DomId, Domain, GrantRef, SharedPages};
use xen_ring::{ControlMessage, ControlStatus, Corrupt, GrefEntry, GREF_ENTRIES};

use super::hash::Step;
use super::{Answer, ControlRing, Fault, HashConfig};
use crate::pool::{Growth, Leaving, Order};
use crate::stats::QueueStats;

/// The queue that all pages are announced for: there is one.
const QUEUE: u32 = 0;

/// How far the backend has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was asked how many pages it keeps.
    Asking,
    /// It keeps so many.
    On { room: usize },
    /// It keeps none, as the kernel's.
    Off,
    /// It has answered nonsense, or not at all.
    Down,
}

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
    growth: Arc<Growth>,
    stats: Arc<QueueStats>,
    state: State,
    jobs: VecDeque<Job>,
    /// The one that waits for its answer, with the entries in its list.
    doing: Option<(Job, usize)>,
    /// Pages that the backend may have mapped.
    mapped: HashSet<GrantRef>,
    /// Pages that left the pool while the backend may have them mapped, and could not be withdrawn.
    held: Vec<Leaving>,
    /// A batch for the pool is on its way.
    granting: bool,
    /// The hashes that are wanted.
    hash: Option<HashConfig>,
}

impl Mapping {
    /// Will announce these pages, and those that the pool grows by.
    pub fn new(
        ring: ControlRing,
        pages: Vec<GrefEntry>,
        growth: Arc<Growth>,
        stats: Arc<QueueStats>,
    ) -> Self {
        growth.announce(true);
        stats.gref_mapped.set(0);
        Self {
            ring,
            growth,
            stats,
            state: State::Asking,
            jobs: VecDeque::from([Job::Size, Job::Add(pages, None)]),
            doing: None,
            mapped: HashSet::new(),
            held: Vec::new(),
            granting: false,
            hash: None,
        }
    }

    /// Also has the backend hash what it sends, if that is wanted; announces no page if not `maps`.
    pub fn hashing(mut self, hash: Option<HashConfig>, maps: bool) -> Self {
        if !maps {
            self.jobs.clear();
            self.state = State::Off;
            self.growth.announce(false);
        }
        self.stats.hash_active.set(0);
        if hash.is_some() {
            // First: whatever comes of the pages, packets are to be steered soon.
            self.jobs.push_front(Job::Hash(Step::Algorithm));
        }
        self.hash = hash;
        self
    }

    /// Does what can be done without waiting: takes what the pool wants, and asks the backend.
    ///
    /// # Errors
    /// When the control ring is broken: then the connection is over.
    pub fn advance(&mut self, domain: &Domain, peer: DomId) -> Result<(), Corrupt> {
        self.grow(domain, peer);
        while let Some(order) = self.growth.next_order() {
            self.jobs.push_back(match order {
                Order::Grown(refs) => Job::Add(writable(&refs), None),
                Order::Leaving(pages) => Job::Del(pages),
            });
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
                    Some(job) => self.begin(job),
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

    /// Grants a batch if the pool wants one. It is announced before the pool gets it.
    fn grow(&mut self, domain: &Domain, peer: DomId) {
        if self.granting {
            return;
        }
        let Some(pages) = self.growth.grant(domain, peer, Access::ReadWrite) else {
            return;
        };
        let refs: Vec<_> = (0..pages.len()).map(|page| pages.reference(page)).collect();
        if let State::On { .. } = self.state {
            self.granting = true;
            self.jobs.push_back(Job::Add(writable(&refs), Some(pages)));
        } else {
            // Nobody knows yet when there will be an answer.
            self.jobs.push_back(Job::Add(writable(&refs), None));
            self.growth.hand_over(pages);
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
    fn begin(&mut self, job: Job) -> Result<(), Fault> {
        let gref = self.ring.list_reference();
        match (job, self.state) {
            (Job::Hash(_), State::Down) => Ok(()),
            (Job::Hash(step), _) => {
                let Some(hash) = &self.hash else {
                    return Ok(());
                };
                self.ring.write_bytes(&hash.page(step));
                self.doing = Some((Job::Hash(step), 0));
                self.ring.ask(hash.message(step, gref))
            }
            (Job::Size, _) => {
                self.doing = Some((Job::Size, 0));
                self.ring
                    .ask(ControlMessage::GetGrefMappingSize { queue: QUEUE })
            }
            (Job::Add(mut pages, grown), State::On { room }) => {
                pages.truncate(room.saturating_sub(self.mapped.len()));
                if pages.is_empty() {
                    self.hand_over(grown);
                    return Ok(());
                }
                if pages.len() > GREF_ENTRIES {
                    let rest = pages.split_off(GREF_ENTRIES);
                    self.jobs.push_front(Job::Add(rest, None));
                }
                let entries = pages.len();
                self.ring.write_list(&pages);
                self.doing = Some((Job::Add(pages, grown), entries));
                self.ring.ask(ControlMessage::AddGrefMapping {
                    queue: QUEUE,
                    gref,
                    entries: entries as u32,
                })
            }
            (Job::Add(_, grown), _) => {
                self.hand_over(grown);
                Ok(())
            }
            (Job::Del(leaving), State::On { .. }) => {
                let announced = leaving.refs.iter();
                let announced = announced.filter(|gref| self.mapped.contains(gref));
                let list: Vec<_> = announced.map(|gref| entry(*gref, false)).collect();
                if list.is_empty() {
                    return Ok(());
                }
                self.ring.write_list(&list);
                self.doing = Some((Job::Del(leaving), list.len()));
                self.ring.ask(ControlMessage::DelGrefMapping {
                    queue: QUEUE,
                    gref,
                    entries: list.len() as u32,
                })
            }
            (Job::Del(leaving), _) => {
                self.hold(leaving);
                Ok(())
            }
        }
    }

    /// Judges the answer to what is being done.
    fn finish(&mut self, (status, data): Answer) -> Result<(), Fault> {
        if let Some((Job::Hash(step), _)) = &self.doing {
            let step = *step;
            self.doing = None;
            self.hashed(step, (status, data));
            return Ok(());
        }
        let Some((job, entries)) = &self.doing else {
            return Ok(());
        };
        let kind = match job {
            Job::Size => 8,
            Job::Add(..) => 9,
            Job::Del(_) => 10,
            // Judged above, by its own rules.
            Job::Hash(_) => return Ok(()),
        };
        let nonsense = Fault::Nonsense { kind, status, data };
        match (job, status) {
            (Job::Size, ControlStatus::Success) if data > 0 => {
                tracing::debug!(pages = data, "the backend keeps pages mapped");
                self.state = State::On {
                    room: data as usize,
                };
                self.doing = None;
            }
            (Job::Size, ControlStatus::Success | ControlStatus::NotSupported) => {
                tracing::debug!("the backend keeps no pages mapped: {status:?}");
                self.state = State::Off;
                self.growth.announce(false);
                self.doing = None;
            }
            (Job::Add(..), ControlStatus::Success) => {
                if let Some((Job::Add(pages, grown), _)) = self.doing.take() {
                    self.mapped
                        .extend(pages.iter().map(|page| GrantRef(page.gref)));
                    self.count();
                    self.hand_over(grown);
                }
            }
            (Job::Add(..), ControlStatus::InvalidParameter) => {
                let bad = self.ring.read_list(*entries).find(|page| page.status != 0);
                let bad = bad.map(|page| (page.gref, page.status));
                tracing::warn!(
                    ?bad,
                    mapped = self.mapped.len(),
                    "the backend keeps no more pages mapped"
                );
                self.state = State::On {
                    room: self.mapped.len(),
                };
                if let Some((Job::Add(_, grown), _)) = self.doing.take() {
                    self.hand_over(grown);
                }
            }
            (Job::Del(_), ControlStatus::Success) if data as usize == *entries => {
                if self.ring.read_list(*entries).any(|page| page.status != 0) {
                    return Err(nonsense);
                }
                if let Some((Job::Del(leaving), _)) = self.doing.take() {
                    for gref in &leaving.refs {
                        self.mapped.remove(gref);
                    }
                    self.count();
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
            Ok(Some(next)) => self.jobs.push_front(Job::Hash(next)),
            Ok(None) => {
                tracing::info!(?hash, "the backend hashes what it sends");
                self.stats.hash_active.set(1);
            }
            Err(refusal) => {
                tracing::warn!("the backend does not hash: {refusal}");
                // Half set up, netback would give every packet the same hash.
                if step != Step::Algorithm {
                    self.jobs.push_front(Job::Hash(Step::Off));
                }
            }
        }
    }

    /// Nothing is asked any more.
    fn fall(&mut self, fault: &Fault) {
        // Of a broken ring and of a restore tells who ends the connection for it.
        if !matches!(
            fault,
            Fault::Corrupt(_) | Fault::Hypervisor(hypervisor::Error::Restored)
        ) {
            tracing::warn!("the control ring is given up, packets go on: {fault}");
        }
        self.state = State::Down;
        match self.doing.take() {
            Some((Job::Add(pages, grown), _)) => {
                // Mapped or not: who would say?
                self.mapped
                    .extend(pages.iter().map(|page| GrantRef(page.gref)));
                self.hand_over(grown);
            }
            Some((Job::Del(leaving), _)) => self.held.push(leaving),
            Some((Job::Size | Job::Hash(_), _)) | None => {}
        }
    }

    fn hand_over(&mut self, grown: Option<SharedPages>) {
        if let Some(pages) = grown {
            self.granting = false;
            self.growth.hand_over(pages);
        }
    }

    /// Frees pages that were never announced; keeps others until the connection is over.
    fn hold(&mut self, leaving: Leaving) {
        if leaving.refs.iter().any(|gref| self.mapped.contains(gref)) {
            self.held.push(leaving);
        }
    }

    fn count(&self) {
        self.stats.gref_mapped.set(self.mapped.len() as u64);
    }
}

impl Drop for Mapping {
    /// The connection is over, and the backend has let go of all.
    fn drop(&mut self) {
        self.stats.gref_mapped.set(0);
        self.stats.hash_active.set(0);
    }
}

fn writable(refs: &[GrantRef]) -> Vec<GrefEntry> {
    refs.iter().map(|gref| entry(*gref, false)).collect()
}

/// The entry of a page in a list.
pub(crate) fn entry(gref: GrantRef, read_only: bool) -> GrefEntry {
    GrefEntry {
        gref: gref.0,
        read_only,
        status: 0,
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping")
            .field("state", &self.state)
            .field("mapped", &self.mapped.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hypervisor::sim::server::{self, Options};

    use super::*;

    const PEER: DomId = DomId(0);

    #[test]
    fn after_a_fault_nothing_is_waited_for_and_pages_still_come_and_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("xen");
        let _server = server::spawn(&socket, Options::new()).expect("a server");
        let domain = Domain::simulated(&socket, DomId(1)).expect("a domain");
        let ring = ControlRing::open(&domain, PEER, "nf0control").expect("a ring");
        let growth = Arc::new(Growth::new());
        let stats = Arc::<QueueStats>::default();
        let pages = writable(&[GrantRef(7)]);
        let mut mapping = Mapping::new(ring, pages, Arc::clone(&growth), stats);
        mapping.advance(&domain, PEER).expect("asked");
        assert!(mapping.fd().is_some() && mapping.deadline().is_some());
        mapping.fall(&Fault::Silent {
            kind: 8,
            waited: Duration::ZERO,
        });
        mapping.advance(&domain, PEER).expect("nothing to do");
        assert!(mapping.fd().is_none() && mapping.deadline().is_none());

        let shared = |pages| domain.share(PEER, pages, Access::ReadWrite).expect("pages");
        let before = domain.counters();
        let leaving = shared(2);
        growth.leave(Leaving::whole(&leaving));
        drop(leaving);
        mapping.advance(&domain, PEER).expect("nothing to ask");
        let now = domain.counters();
        assert_eq!(now.revokes - before.revokes, 2, "never announced: freed");
        assert!(mapping.held.is_empty());
    }
}
