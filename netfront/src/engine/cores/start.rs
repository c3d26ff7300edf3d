//! The threads of a run, and the lanes between them: made together, ended together.

use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle, Thread};

use super::event_core::EventCore;
use super::floor::{Floor, Out, Wakes};
use super::kinds::{Signal, FRAMES};
use super::places::{pin, Places};
use super::running::{EndsAll, Parcel, Running, BACK};
use super::seat::Seat;
use super::work::{Arrived, Frame, Work};
use super::worker::Worker;
use super::{refused, Activation, Cores};
use crate::engine::moderation::Moderation;
use crate::engine::pressure::Pressure;
use crate::engine::steering::{
    lane, Activator, Bell, EventCore as WayBack, LaneReceiver, LaneSender, ReversePath, Steered,
    Steering, Worker as WayTo,
};
use crate::engine::WEIGHT;
use crate::queue::Queue;
use crate::Error;

impl Cores {
    /// Starts all threads but the first event core's, which it gives.
    pub(super) fn start<'scope, 'r: 'scope, 'q: 'scope, W: Work>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        running: &'r Running<'q>,
        queues: Vec<&'q mut Queue>,
        works: &'r mut [W],
        places: &Places,
        threads: &mut Threads<'scope, 'r, 'q>,
    ) -> Result<EventCore<'r, 'q, W>, Error> {
        let count = queues.len();
        let owners = running.controls.wanted().owners(count);
        let mut ways = Ways::new(self, running.signals());
        let mut here = Vec::new();
        let mut wakes = Vec::new();
        if self.workers == 0 {
            here.extend(works.iter_mut());
        } else {
            let stats = running.controls.workers();
            for ((place, work), stats) in works.iter_mut().enumerate().zip(stats) {
                let (lanes, bell, back) = ways.of_worker(place, &owners);
                let worker = Worker::new(work, running, lanes, bell, back, stats, count);
                let cpu = places.workers.get(place).copied();
                let thread = spawn(scope, format!("nfworker{place}"), move || {
                    let _pinned = pin(cpu.as_ref());
                    // Of a worker that dies nobody would take the packets.
                    let all = EndsAll(running);
                    worker.run();
                    std::mem::forget(all);
                })?;
                wakes.push(thread.thread().clone());
                threads.workers.push(thread);
            }
        }
        let activator = self.activator(&wakes)?;
        // Each core finds its queues in its mail, as later those that move.
        for ((number, queue), &core) in queues.into_iter().enumerate().zip(&owners) {
            let pressure = Pressure::new(self.limits);
            let moderation = Moderation::new(running.controls.mode(), self.moderation);
            let seat = Box::new(Seat::new(queue, pressure, moderation));
            let parcel = Parcel::Seat {
                number,
                seat,
                drain: None,
            };
            running.post(core, parcel);
        }
        let mut here = here.into_iter();
        let mut first = None;
        for (place, stats) in running.controls.cores().into_iter().enumerate() {
            let out = match here.next() {
                Some(work) => Out::Here {
                    work,
                    frames: Vec::with_capacity(WEIGHT),
                },
                None => {
                    let workers = ways.lanes_to_workers(place);
                    let steering = Steering::new(workers, &self.key, self.spread, self.bound);
                    let steering = steering.map_err(|error| refused(error.to_string()))?;
                    let threads = wakes.clone();
                    Out::Away {
                        steering: Box::new(steering),
                        wakes: match &activator {
                            Some(activator) => Wakes::Thread(Arc::clone(activator), threads),
                            None => Wakes::Inline(threads),
                        },
                    }
                }
            };
            let floor = Floor {
                running,
                seats: (0..count).map(|_| None).collect(),
                out,
                limits: self.limits,
                stats,
                leaving: Vec::new(),
                error: None,
            };
            let signal = running.signal(place).map(Arc::clone);
            let signal =
                signal.ok_or_else(|| refused(format!("event core {place} has no signal")))?;
            let core = EventCore::new(
                place,
                floor,
                (self.budgets, self.policy),
                ways.lanes_from_workers(place),
                signal,
            );
            if first.is_none() {
                first = Some(core);
                continue;
            }
            let cpu = places.event_cores.get(place).copied();
            let thread = spawn(scope, format!("nfevents{place}"), move || {
                let _pinned = pin(cpu.as_ref());
                core.run()
            })?;
            threads.cores.push(thread);
        }
        first.ok_or_else(|| refused("no event core".into()))
    }

    fn activator(&self, workers: &[Thread]) -> Result<Option<Arc<Activator<usize>>>, Error> {
        if self.activation == Activation::Inline || workers.is_empty() {
            return Ok(None);
        }
        let all = workers.to_vec();
        let signal = move |worker: usize| all.get(worker).into_iter().for_each(Thread::unpark);
        let activator = Activator::start(4 * workers.len() * self.event_cores, signal)?;
        Ok(Some(Arc::new(activator)))
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    std::thread::Builder::new()
        .name(name)
        .spawn_scoped(scope, run)
        .map_err(Error::io("starting a core's thread"))
}

/// The threads that were started. They are ended in order when this goes, also by an error or a panic.
pub(super) struct Threads<'scope, 'r, 'q> {
    running: &'r Running<'q>,
    cores: Vec<ScopedJoinHandle<'scope, Result<(), Error>>>,
    workers: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl<'r, 'q> Threads<'_, 'r, 'q> {
    /// None yet.
    pub fn new(running: &'r Running<'q>) -> Self {
        Self {
            running,
            cores: Vec::new(),
            workers: Vec::new(),
        }
    }

    /// Waits for all.
    ///
    /// # Errors
    /// The first that one had.
    pub fn join(&mut self) -> Result<(), Error> {
        let died = || Error::io("running the cores")(std::io::Error::other("a thread panicked"));
        let mut done = Ok(());
        self.running.end();
        for core in self.cores.drain(..) {
            done = done.and(core.join().unwrap_or_else(|_| Err(died())));
        }
        self.running.end_workers();
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            done = done.and(worker.join().map_err(|_| died()));
        }
        done
    }
}

impl Drop for Threads<'_, '_, '_> {
    fn drop(&mut self) {
        // After an error there is another one to tell.
        let _ = self.join();
    }
}

/// The lanes between all event cores and all workers, until each end has its own.
struct Ways {
    /// By event core: to each worker.
    to: Vec<Vec<WayTo<Arrived>>>,
    /// By worker: from each event core, its bell, and its ways back.
    workers: Vec<Option<WorkerEnds>>,
    /// By event core: from each worker.
    from: Vec<Vec<LaneReceiver<Frame>>>,
}

type WorkerEnds = (
    Vec<LaneReceiver<Steered<Arrived>>>,
    Arc<Bell>,
    Vec<WayBack<Frame>>,
);

impl Ways {
    fn new(cores: &Cores, signals: &[Arc<Signal>]) -> Self {
        let mut to: Vec<Vec<WayTo<Arrived>>> = Vec::new();
        let mut from: Vec<Vec<LaneReceiver<Frame>>> = Vec::new();
        to.resize_with(cores.event_cores, Vec::new);
        from.resize_with(cores.event_cores, Vec::new);
        let mut workers = Vec::with_capacity(cores.workers);
        for _ in 0..cores.workers {
            let bell = Arc::new(Bell::new());
            let (mut lanes, mut back) = (Vec::new(), Vec::new());
            for ((to, from), signal) in to.iter_mut().zip(&mut from).zip(signals) {
                // Twice what is held back for: of one worker a lane is full only while packets are dropped, and of several one may
                // be that far behind the others.
                let (sender, receiver): (LaneSender<Steered<Arrived>>, _) =
                    lane(2 * cores.limits.high.max(WEIGHT));
                lanes.push(receiver);
                to.push(WayTo {
                    lane: sender,
                    bell: Arc::clone(&bell),
                });
                let (sender, receiver) = lane(BACK);
                from.push(receiver);
                back.push(WayBack {
                    lane: sender,
                    bell: Arc::clone(&signal.bell),
                    pending: Arc::clone(&signal.pending),
                    kind: FRAMES,
                });
            }
            workers.push(Some((lanes, bell, back)));
        }
        Self { to, workers, from }
    }

    fn of_worker(
        &mut self,
        place: usize,
        owners: &[usize],
    ) -> (
        Vec<LaneReceiver<Steered<Arrived>>>,
        Arc<Bell>,
        ReversePath<Frame>,
    ) {
        let ends = self.workers.get_mut(place).and_then(Option::take);
        let (lanes, bell, back) = ends.unwrap_or_default();
        (lanes, bell, ReversePath::new(back, owners))
    }

    fn lanes_to_workers(&mut self, core: usize) -> Vec<WayTo<Arrived>> {
        self.to
            .get_mut(core)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn lanes_from_workers(&mut self, core: usize) -> Vec<LaneReceiver<Frame>> {
        self.from
            .get_mut(core)
            .map(std::mem::take)
            .unwrap_or_default()
    }
}
