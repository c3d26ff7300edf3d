//! Queues that count packets instead of holding them.

use std::time::Duration;

use netfront::engine::bottom_half::{Source, Visit, VisitEnd};
use netfront::engine::clock::Manual;
use netfront::engine::schedule::{Completion, Schedule};

/// Queues with so many packets each, that cost time.
pub struct Counted<'c> {
    pub clock: &'c Manual,
    pub waiting: Vec<usize>,
    pub schedules: Vec<Schedule>,
    /// Time that one packet takes.
    pub cost: Duration,
    /// How many packets each queue was relieved of.
    pub taken: Vec<usize>,
    /// The queues, in the order of the visits.
    pub visits: Vec<usize>,
    /// The most packets of one visit.
    pub most: usize,
    /// Queues whose consumer is behind.
    pub behind: Vec<bool>,
    /// Packets that come to a queue while another is visited: at which visit, to which queue, how many.
    pub arrivals: Vec<(usize, usize, usize)>,
    /// Queues that were scheduled meanwhile and are to be listed.
    pub called: Vec<usize>,
}

impl<'c> Counted<'c> {
    /// All are scheduled that have packets.
    pub fn new(clock: &'c Manual, waiting: &[usize]) -> Self {
        let schedule = |&packets: &usize| {
            let schedule = Schedule::idle();
            if packets > 0 {
                assert!(schedule.schedule());
            }
            schedule
        };
        Self {
            clock,
            waiting: waiting.to_vec(),
            schedules: waiting.iter().map(schedule).collect(),
            cost: Duration::from_nanos(600),
            taken: vec![0; waiting.len()],
            visits: Vec::new(),
            most: 0,
            behind: vec![false; waiting.len()],
            arrivals: Vec::new(),
            called: Vec::new(),
        }
    }
}

impl Source for Counted<'_> {
    fn visit(&mut self, queue: usize, weight: usize) -> Visit {
        for &(_, to, packets) in self.arrivals.iter().filter(|a| a.0 == self.visits.len()) {
            self.waiting[to] += packets;
            if self.schedules[to].schedule() {
                self.called.push(to);
            }
        }
        self.visits.push(queue);
        if self.behind[queue] {
            return Visit {
                packets: 0,
                end: VisitEnd::Held,
            };
        }
        let packets = self.waiting[queue].min(weight);
        self.waiting[queue] -= packets;
        self.taken[queue] += packets;
        self.most = self.most.max(packets);
        self.clock.advance(self.cost * packets as u32);
        let end = match packets == weight {
            true => VisitEnd::More,
            false => VisitEnd::Complete,
        };
        Visit { packets, end }
    }

    fn complete(&mut self, queue: usize) -> Completion {
        self.schedules[queue].complete()
    }

    fn waiting(&self) -> usize {
        self.waiting.iter().sum()
    }
}
