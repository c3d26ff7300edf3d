//! What other threads may do to cores that run: stop them, change the mode, bind anew, and look.
//!
//! Nothing here is in the data path: what is wanted stands behind a lock. That it has changed is raised for each event core
//! ([`CONTROLS`]), and said by a number to workers, which look at it once a turn; they take the lock only then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counters::{CoreStats, WorkerStats};
use super::kinds::{Signal, CONTROLS};
use crate::engine::moderation::{Mode, SharedMode};
use crate::engine::steering::{Binding, Connection, CoreId, NoCore, MAPPING};

/// Connections that were bound or unbound and of which some core has not heard: so many are remembered.
const CHANGES: usize = 1024;

/// A hold on cores that run, or will. Copies are of the same cores.
#[derive(Debug, Clone, Default)]
pub struct Controls(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    mode: SharedMode,
    /// Raised with each change of what is wanted.
    version: AtomicU64,
    wanted: Mutex<Wanted>,
    /// Of the event cores that run now.
    signals: Mutex<Vec<Arc<Signal>>>,
    cores: Mutex<Vec<Arc<CoreStats>>>,
    workers: Mutex<Vec<Arc<WorkerStats>>>,
    /// Interrupts of the queues on CPUs of workers, when the cores started and now; see [`Controls::events_on_workers`].
    strays: Mutex<Option<Strays>>,
}

/// Where interrupts must not come.
#[derive(Debug)]
struct Strays {
    names: Vec<String>,
    cpus: Vec<usize>,
    at_start: u64,
}

/// How things are to be bound.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Queues to event cores; none until cores run.
    binding: Option<Binding>,
    /// Somebody chose fewer cores than there are: that holds for cores to come.
    chosen: bool,
    /// Places of the hash to workers, if they were changed.
    pub mapping: Option<Box<[usize; MAPPING]>>,
    /// Connections bound to a worker, or taken back (`None`), each with the number of the change.
    changes: VecDeque<(u64, Connection, Option<usize>)>,
    /// Number of the last change.
    changed: u64,
}

impl Wanted {
    /// The event core of each queue.
    pub fn owners(&self, queues: usize) -> Vec<usize> {
        let owner = |queue| {
            let core = self.binding.as_ref().and_then(|own| own.core(queue));
            core.map_or(0, |core| core as usize)
        };
        (0..queues).map(owner).collect()
    }

    /// Changes of connections after number `seen`, and the number of the last.
    pub fn changes_since(
        &self,
        seen: u64,
    ) -> (impl Iterator<Item = (Connection, Option<usize>)> + '_, u64) {
        let new = self.changes.iter().filter(move |change| change.0 > seen);
        (
            new.map(|&(_, connection, worker)| (connection, worker)),
            self.changed,
        )
    }
}

impl Controls {
    /// For cores that begin in this mode; [`Controls::default`] begins in [`Mode::Adaptive`].
    pub fn new(mode: Mode) -> Self {
        let controls = Self::default();
        controls.0.mode.set(mode);
        controls
    }

    /// Ends the cores: [`Cores::run`](super::Cores::run) returns. Packets that they took are worked on first.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        for signal in lock(&self.0.signals).iter() {
            signal.waker.wake();
        }
    }

    /// True after [`Self::stop`].
    pub fn is_stopping(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// The mode in which events are waited for.
    pub fn mode(&self) -> Mode {
        self.0.mode.get()
    }

    /// Changes it, at once.
    pub fn set_mode(&self, mode: Mode) {
        self.0.mode.set(mode);
        self.changed();
    }

    /// Has these event cores take the queues, by their places from 0 on, evenly (K-5). The others have none
    /// until they are named again. A queue moves when its core has let go of it and its packets are worked on.
    ///
    /// # Errors
    /// If no core is named, or none runs by that number.
    pub fn rebind(&self, cores: &[usize]) -> Result<(), NoCore> {
        let running = lock(&self.0.cores).len();
        let named = cores.iter().filter(|&&core| core < running);
        let named: Vec<CoreId> = named
            .filter_map(|&core| CoreId::try_from(core).ok())
            .collect();
        let mut wanted = lock(&self.0.wanted);
        let binding = wanted.binding.as_mut().ok_or(NoCore)?;
        let queues = (0..).take_while(|&queue| binding.core(queue).is_some());
        let queues = queues.count();
        binding.rebind(queues, &named)?;
        wanted.chosen = wanted
            .binding
            .as_ref()
            .is_some_and(|own| own.cores().len() < running);
        drop(wanted);
        self.changed();
        Ok(())
    }

    /// How many queues the core with most is to have more than the one with least, of those that are to have some. Where they are
    /// now, [`CoreStats::queues`] of [`Self::cores`] tells: a queue moves when its packets are worked on.
    pub fn spread(&self) -> usize {
        let wanted = lock(&self.0.wanted);
        wanted.binding.as_ref().map_or(0, Binding::spread)
    }

    /// Changes the worker of each of the 128 places of the hash. One that there is not counts as the first.
    pub fn remap(&self, worker: impl Fn(usize) -> usize) {
        lock(&self.0.wanted).mapping = Some(Box::new(std::array::from_fn(worker)));
        self.changed();
    }

    /// Binds a connection to a worker, whatever its hash says (K-7).
    pub fn bind(&self, connection: Connection, worker: usize) {
        self.change(connection, Some(worker));
    }

    /// Takes that back.
    pub fn unbind(&self, connection: Connection) {
        self.change(connection, None);
    }

    fn change(&self, connection: Connection, worker: Option<usize>) {
        let mut wanted = lock(&self.0.wanted);
        wanted.changed += 1;
        let number = wanted.changed;
        // Only the last change of a connection counts.
        wanted.changes.retain(|change| change.1 != connection);
        if wanted.changes.len() >= CHANGES {
            // Those that were taken back are history, unless a core has slept over it; bindings are kept for cores to come.
            let old = wanted.changes.iter().position(|change| change.2.is_none());
            let _ = wanted.changes.remove(old.unwrap_or(0));
        }
        wanted.changes.push_back((number, connection, worker));
        drop(wanted);
        self.changed();
    }

    fn changed(&self) {
        self.0.version.fetch_add(1, Ordering::Release);
        for signal in lock(&self.0.signals).iter() {
            signal.raise(CONTROLS);
        }
    }

    /// The counters of the event cores, by their places. They go on when cores run again.
    pub fn cores(&self) -> Vec<Arc<CoreStats>> {
        lock(&self.0.cores).clone()
    }

    /// The counters of the workers, by their places.
    pub fn workers(&self) -> Vec<Arc<WorkerStats>> {
        lock(&self.0.workers).clone()
    }

    /// Events that came to CPUs of workers since the cores started, which should be none (K-10). `None` if it is not known:
    /// on the simulated Xen, whose events are no interrupts, and where workers have no CPUs of their own.
    pub fn events_on_workers(&self) -> Option<u64> {
        let strays = lock(&self.0.strays);
        let strays = strays.as_ref()?;
        let now = crate::engine::pinning::interrupts_on(&strays.names, &strays.cpus);
        Some(now.saturating_sub(strays.at_start))
    }

    /// For cores that start.
    pub(super) fn start(
        &self,
        signals: Vec<Arc<Signal>>,
        queues: usize,
        workers: usize,
    ) -> Result<(), NoCore> {
        let cores: Vec<CoreId> = (0..).take(signals.len()).collect();
        let mut wanted = lock(&self.0.wanted);
        let Wanted {
            binding, chosen, ..
        } = &mut *wanted;
        match binding {
            // As it was, if it still fits: a new connection is no reason to bind anew.
            Some(binding) => {
                *chosen &= binding.cores().iter().all(|core| cores.contains(core));
                let named = match *chosen {
                    true => binding.cores().to_vec(),
                    // Cores that the last run did not have get queues too.
                    false => cores,
                };
                binding.rebind(queues, &named)?;
            }
            None => *binding = Some(Binding::new(queues, &cores)?),
        }
        drop(wanted);
        // Last: who sees a core may bind it.
        lock(&self.0.workers).resize_with(workers, Arc::default);
        lock(&self.0.cores).resize_with(signals.len(), Arc::default);
        *lock(&self.0.signals) = signals;
        Ok(())
    }

    /// For cores that have ended.
    pub(super) fn end(&self) {
        lock(&self.0.signals).clear();
    }

    pub(super) fn watch_strays(&self, names: &[String], cpus: &[usize]) {
        let at_start = crate::engine::pinning::interrupts_on(names, cpus);
        *lock(&self.0.strays) = Some(Strays {
            names: names.to_vec(),
            cpus: cpus.to_vec(),
            at_start,
        });
    }

    /// Raised with each change, for workers.
    pub(super) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    pub(super) fn wanted(&self) -> MutexGuard<'_, Wanted> {
        lock(&self.0.wanted)
    }
}

/// A thread that died while it held one has not left it half changed: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(controls: &Controls, cores: usize, queues: usize) -> Vec<usize> {
        let signals = (0..cores).map(|_| Arc::new(Signal::new().expect("a waker")));
        controls.start(signals.collect(), queues, 0).expect("cores");
        controls.wanted().owners(queues)
    }

    /// K-5: also over runs with other cores: those that the last run did not have get queues, and none is bound to one that is gone.
    #[test]
    fn a_run_with_more_or_fewer_cores_spreads_its_queues_over_all_of_them() {
        let controls = Controls::default();
        assert_eq!(start(&controls, 1, 4), [0, 0, 0, 0]);
        for cores in [2, 4, 3, 1] {
            let owners = start(&controls, cores, 4);
            let each = (0..cores).map(|core| owners.iter().filter(|&&own| own == core).count());
            let each: Vec<usize> = each.collect();
            assert!(controls.spread() <= 1, "{owners:?}");
            assert!(each.iter().all(|&queues| queues > 0), "{owners:?}");
            assert_eq!(each.iter().sum::<usize>(), 4, "{owners:?}");
        }
    }

    #[test]
    fn cores_that_somebody_chose_stay_chosen_as_long_as_they_are_there() {
        let controls = Controls::default();
        start(&controls, 3, 4);
        controls.rebind(&[1]).expect("a core");
        assert_eq!(start(&controls, 4, 4), [1, 1, 1, 1]);
        // The one that was chosen is not there.
        assert_eq!(start(&controls, 1, 4), [0, 0, 0, 0]);
        let mut owners = start(&controls, 2, 4);
        owners.sort_unstable();
        assert_eq!(owners, [0, 0, 1, 1]);
    }
}
