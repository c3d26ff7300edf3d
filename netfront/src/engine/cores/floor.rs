//! The queues that an event core has, as its bottom half polls them: packets are touched here.

use std::sync::Arc;
use std::time::Duration;

use super::counters::CoreStats;
use super::running::Running;
use super::seat::Seat;
use super::work::{Arrived, Desk, Frame, Origin, Work};
use crate::engine::bottom_half::{Source, Visit, VisitEnd};
use crate::engine::clock::Clock;
use crate::engine::pressure::{Limits, Room};
use crate::engine::schedule::Completion;
use crate::engine::steering::{Activator, Connection, Steering};
use crate::packet::Packet;
use crate::Error;

/// How sleeping workers are woken.
pub(super) enum Wakes {
    /// By the event core itself.
    Inline(Vec<std::thread::Thread>),
    /// By a thread of its own, to which workers are named; if too many wait there, by the event core.
    Thread(Arc<Activator<usize>>, Vec<std::thread::Thread>),
}

impl Wakes {
    fn wake(&self, worker: usize) {
        let workers = match self {
            Self::Inline(workers) => workers,
            Self::Thread(activator, workers) => {
                if activator.activate(worker).is_ok() {
                    return;
                }
                workers
            }
        };
        if let Some(worker) = workers.get(worker) {
            worker.unpark();
        }
    }
}

/// Where packets go that were taken out of a ring.
pub(super) enum Out<'r, W> {
    /// They are worked on at once, in this thread.
    Here { work: &'r mut W, frames: Vec<Frame> },
    /// To workers, by connection.
    Away {
        steering: Box<Steering<Arrived>>,
        wakes: Wakes,
    },
}

/// All queues by their numbers, of which this core has some.
pub(super) struct Floor<'r, 'q, W> {
    pub running: &'r Running<'q>,
    pub seats: Vec<Option<Seat<'q>>>,
    pub out: Out<'r, W>,
    pub limits: Limits,
    pub stats: Arc<CoreStats>,
    /// Queues that were let go of, for another core.
    pub leaving: Vec<usize>,
    pub error: Option<Error>,
}

impl<'q, W: Work> Floor<'_, 'q, W> {
    pub fn seat(&mut self, number: usize) -> Option<&mut Seat<'q>> {
        self.seats.get_mut(number)?.as_mut()
    }

    /// Packets on their way to the worker that has fewest of them. Queues are held only when that has no room either: one worker
    /// that is behind must not stop the packets of the others.
    pub fn depth(&self) -> usize {
        match &self.out {
            Out::Here { work, .. } => work.waiting(),
            Out::Away { steering, .. } => steering.least_depth(),
        }
    }

    fn take(&mut self, number: usize, weight: usize) -> Result<Visit, Error> {
        let nothing = Visit {
            packets: 0,
            end: VisitEnd::Complete,
        };
        let depth = self.depth();
        // Asked only where something is behind: on some guests a look at the clock is a system call.
        let now = match depth < self.limits.high {
            true => Duration::ZERO,
            false => self.running.clock.now(),
        };
        let Some(seat) = self.seats.get_mut(number).and_then(Option::as_mut) else {
            return Ok(nothing);
        };
        seat.look_at = None;
        let (room, drops) = match seat.pressure.room(now, weight, depth) {
            // Whoever gets the queue holds it on.
            Room::Hold if seat.schedule.is_disabling() => return Ok(nothing),
            Room::Hold => {
                seat.waiting = seat.queue.rx_waiting()?;
                return Ok(Visit {
                    packets: 0,
                    end: VisitEnd::Held,
                });
            }
            Room::Take(packets) => (packets, false),
            Room::Drop(packets) => (packets, true),
        };
        let buffers = &self.running.buffers;
        let filter = self.running.filter.as_ref();
        let mut filtered = 0;
        let mut passes = |packet: &Packet<'_>| {
            let drops = filter.is_some_and(|filter| filter.drops(packet, number));
            filtered += u64::from(drops);
            !drops
        };
        let Seat { queue, arrived, .. } = &mut *seat;
        let mut lost = 0;
        let packets = match &mut self.out {
            Out::Here { .. } if drops => {
                lost = queue.receive(room, |_| {})?;
                lost
            }
            Out::Here { work, frames } => {
                let origin = Origin {
                    queue: number,
                    connection: None,
                };
                let mut desk = Desk::here(frames, number, buffers);
                let packets = queue.receive(room, |packet| {
                    if passes(packet) {
                        work.deliver(packet, &origin, &mut desk);
                    }
                })?;
                work.finish(&mut desk);
                packets
            }
            Out::Away { steering, .. } => queue.receive(room, |packet| {
                if !passes(packet) {
                    return;
                }
                let connection = Connection::of(packet.head());
                *arrived += 1;
                // Its worker is asked for room before anything is paid for the packet: no page, no allocation.
                let sent = steering.send_made(connection, || Arrived {
                    queue: number,
                    number: *arrived,
                    is_late: false,
                    packet: packet.detach(),
                });
                lost += usize::from(sent.is_err());
            })?,
        };
        self.stats.filtered.add(filtered);
        seat.queue.reclaim()?;
        if let Out::Here { frames, .. } = &mut self.out {
            for frame in frames.drain(..) {
                send(seat, &frame, &self.stats);
                buffers.give(frame.bytes);
            }
        }
        seat.queue.flush()?;
        seat.since += packets;
        if lost > 0 {
            seat.pressure.dropped(lost);
            self.stats.dropped.add(lost as u64);
            seat.queue.stats().engine_dropped.add(lost as u64);
        }
        let is_wanted = seat.schedule.is_disabling();
        let end = match packets == room && !is_wanted {
            true => VisitEnd::More,
            false => VisitEnd::Complete,
        };
        // What a queue that is completed leaves is not left by this core.
        seat.waiting = match end {
            VisitEnd::More => seat.queue.rx_waiting()?,
            _ => 0,
        };
        Ok(Visit { packets, end })
    }
}

/// Sends a frame. What finds no room is dropped, as a network does.
pub(super) fn send(seat: &mut Seat<'_>, frame: &Frame, stats: &CoreStats) {
    match seat.queue.send(&[&frame.bytes], frame.offload) {
        Ok(()) => stats.frames.add(1),
        Err(_) => stats.frames_dropped.add(1),
    }
}

impl<W: Work> Source for Floor<'_, '_, W> {
    fn visit(&mut self, queue: usize, weight: usize) -> Visit {
        self.take(queue, weight).unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            Visit {
                packets: 0,
                end: VisitEnd::Complete,
            }
        })
    }

    fn complete(&mut self, queue: usize) -> Completion {
        let now = self.running.clock.now();
        // After an error the run ends, and with it the use of all queues.
        if self.error.is_some() {
            return Completion::Idle;
        }
        let Some(seat) = self.seats.get_mut(queue).and_then(Option::as_mut) else {
            return Completion::Idle;
        };
        let done = match seat.schedule.is_disabling() {
            // Its next core asks for the event.
            true => Ok(seat.schedule.complete()),
            false => seat.drained(now),
        };
        match done {
            Ok(completion) => {
                if completion == Completion::Disabled {
                    self.leaving.push(queue);
                }
                completion
            }
            Err(error) => {
                self.error = Some(error);
                Completion::Idle
            }
        }
    }

    fn end_round(&mut self) {
        if let Out::Away { steering, wakes } = &mut self.out {
            steering.end_round(|worker| wakes.wake(worker));
        }
    }

    fn waiting(&self) -> usize {
        self.seats.iter().flatten().map(|seat| seat.waiting).sum()
    }

    fn occupancy(&self) -> u32 {
        let depth = match &self.out {
            Out::Here { work, .. } => work.waiting(),
            Out::Away { steering, .. } => steering.depth(),
        };
        let seat = self.seats.iter().flatten().next();
        seat.map_or(0, |seat| seat.pressure.occupancy(depth))
    }

    fn must_yield(&self) -> bool {
        self.error.is_some() || self.running.is_ending()
    }
}
