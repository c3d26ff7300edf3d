//! The bottom half: one core polls its queues, in turn, within a budget of packets and of time.
//!
//! An event only schedules a queue ([`super::schedule`]); its packets are touched here. One *activation* is a
//! number of *rounds*; a round visits each queue of the list once, in order, and gives each the same weight:
//!
//! ```text
//! activation   while there are queues, rounds < limit, time is left, nobody needs the core
//!   round        while there are queues in the list, packets and time are left
//!     visit        up to `weight` packets of one queue
//!                  empty: completed; more: to the tail of those that come again;
//!                  consumer behind: held, its packets stay in the ring
//!                end of the round: publish, wake whoever waits
//! ```
//!
//! After a round the list is: those that were not reached, then those that were scheduled meanwhile, then those
//! that come again. That is the kernel's order (`net_rx_action`), and what makes the turns fair.
//!
//! How many rounds there may be is a [`RestartPolicy`]'s answer. The time is a bound whatever it answers, looked
//! at after each visit: so an activation is never over it by more than one visit.

use std::time::Duration;

use super::clock::Clock;
use super::poll_list::{Chain, Links};
use super::restart::RestartPolicy;
use super::schedule::Completion;

/// What one core may do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Packets of one queue in one visit.
    pub weight: usize,
    /// Packets of all queues in one round; the visit that reaches it is finished.
    pub packets: usize,
    /// Time of one activation; the visit that reaches it is finished.
    pub time: Duration,
}

impl Default for Budgets {
    /// The kernel's: NAPI's weight of 64, `netdev_budget`'s 300 packets, `MAX_SOFTIRQ_TIME`'s 2 ms.
    fn default() -> Self {
        Self {
            weight: super::WEIGHT,
            packets: 300,
            time: Duration::from_millis(2),
        }
    }
}

/// What a visit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// Packets that were taken out of the ring, never more than the weight.
    pub packets: usize,
    /// Why it took no more.
    pub end: VisitEnd,
}

/// Why a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisitEnd {
    /// The ring is empty, or another core wants the queue ([`Schedule::is_disabling`]): it is to be completed.
    ///
    /// [`Schedule::is_disabling`]: super::schedule::Schedule::is_disabling
    Complete,
    /// The weight is used up.
    More,
    /// The consumer is behind: the packets stay in the ring.
    Held,
}

/// The queues of a core, as the bottom half needs them.
pub trait Source {
    /// Takes up to `weight` packets of a queue and hands them on.
    fn visit(&mut self, queue: usize, weight: usize) -> Visit;

    /// The last visit ended with [`VisitEnd::Complete`]: asks for the queue's next event, looks once more, and lets go
    /// of it.
    fn complete(&mut self, queue: usize) -> Completion;

    /// A round is over: what was collected is published, and whoever waits for it is woken, once.
    fn end_round(&mut self) {}

    /// Packets that wait in the rings of queues that are not completed.
    fn waiting(&self) -> usize;

    /// How full the fullest consumer is, in 256ths of what it may hold before its queue is held.
    fn occupancy(&self) -> u32 {
        0
    }

    /// True if somebody else needs the core now.
    fn must_yield(&self) -> bool {
        false
    }
}

/// Why an activation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No queue is left; all are armed.
    Drained,
    /// Queues are left, but only such whose consumers are behind.
    Held,
    /// The policy allows no more rounds.
    Rounds,
    /// The time is over.
    Time,
    /// Somebody else needs the core.
    Yield,
}

/// What one activation did, for the policy and for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    /// Why it ended.
    pub reason: Reason,
    /// The limit that it had.
    pub limit: u32,
    /// Rounds that it did.
    pub rounds: u32,
    /// Packets that it moved.
    pub packets: usize,
    /// Packets that it left in the rings of its queues.
    pub left: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// How long the core did something else before it.
    pub away: Duration,
    /// How full the fullest consumer was, in 256ths.
    pub occupancy: u32,
}

/// What a core counts. One writer; read where the core's thread publishes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Activations.
    pub activations: u64,
    /// Rounds.
    pub rounds: u64,
    /// Visits to a queue.
    pub visits: u64,
    /// Packets.
    pub packets: u64,
    /// Rounds that ended for their packets, with queues left.
    pub budget_squeezes: u64,
    /// Activations that ended for their time, with queues left.
    pub time_squeezes: u64,
    /// Activations that ended with queues left, whatever the reason: the core was handed over.
    pub hand_overs: u64,
    /// Queues that were held because their consumer was behind.
    pub held: u64,
}

/// The bottom half of one core.
#[derive(Debug)]
pub struct BottomHalf<P> {
    budgets: Budgets,
    policy: P,
    links: Links,
    ready: Chain,
    held: Chain,
    ended: Duration,
    counters: Counters,
}

/// Why a round ended.
#[derive(PartialEq, Eq)]
enum RoundEnd {
    Listed,
    Packets,
    Time,
}

impl<P: RestartPolicy> BottomHalf<P> {
    /// For queues 0 to `queues` - 1.
    pub fn new(queues: usize, budgets: Budgets, policy: P) -> Self {
        Self {
            budgets,
            policy,
            links: Links::new(queues),
            ready: Chain::default(),
            held: Chain::default(),
            ended: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// Puts a queue that was scheduled at the tail of the list. False if it is on it already: then somebody broke
    /// the rules of [`super::schedule::Schedule`].
    pub fn list(&mut self, queue: usize) -> bool {
        self.links.push(&mut self.ready, queue)
    }

    /// True if there is nothing to poll. Queues that are held do not count.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    /// True if queues wait for their consumers.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Lists those held queues again that may go on, in their order.
    pub fn release(&mut self, mut may_go_on: impl FnMut(usize) -> bool) {
        let mut held = std::mem::take(&mut self.held);
        while let Some(queue) = self.links.pop(&mut held) {
            let chain = match may_go_on(queue) {
                true => &mut self.ready,
                false => &mut self.held,
            };
            self.links.push(chain, queue);
        }
    }

    /// Does one activation.
    pub fn run(&mut self, source: &mut impl Source, clock: &impl Clock) -> Activation {
        let start = clock.now();
        let deadline = start + self.budgets.time;
        let limit = self.policy.limit().max(1);
        let (mut rounds, mut packets) = (0, 0);
        let reason = loop {
            if self.ready.is_empty() {
                break match self.held.is_empty() {
                    true => Reason::Drained,
                    false => Reason::Held,
                };
            }
            if rounds >= limit {
                break Reason::Rounds;
            }
            if rounds > 0 && source.must_yield() {
                break Reason::Yield;
            }
            let (end, moved) = self.round(source, clock, deadline);
            rounds += 1;
            packets += moved;
            if self.ready.is_empty() {
                continue;
            }
            match end {
                RoundEnd::Time => {
                    self.counters.time_squeezes += 1;
                    break Reason::Time;
                }
                RoundEnd::Packets => self.counters.budget_squeezes += 1,
                RoundEnd::Listed => {}
            }
        };
        let now = clock.now();
        let activation = Activation {
            reason,
            limit,
            rounds,
            packets,
            left: source.waiting(),
            elapsed: now.saturating_sub(start),
            away: start.saturating_sub(self.ended),
            occupancy: source.occupancy(),
        };
        self.ended = now;
        self.counters.activations += 1;
        self.counters.rounds += u64::from(rounds);
        self.counters.packets += packets as u64;
        self.counters.hand_overs += u64::from(reason != Reason::Drained);
        self.policy.learn(&activation);
        activation
    }

    fn round(
        &mut self,
        source: &mut impl Source,
        clock: &impl Clock,
        deadline: Duration,
    ) -> (RoundEnd, usize) {
        let mut list = std::mem::take(&mut self.ready);
        let mut again = Chain::default();
        let mut moved = 0;
        let end = loop {
            let Some(queue) = self.links.pop(&mut list) else {
                break RoundEnd::Listed;
            };
            let visit = source.visit(queue, self.budgets.weight);
            self.counters.visits += 1;
            moved += visit.packets;
            match visit.end {
                VisitEnd::More => {
                    self.links.push(&mut again, queue);
                }
                VisitEnd::Held => {
                    self.counters.held += 1;
                    self.links.push(&mut self.held, queue);
                }
                VisitEnd::Complete => {
                    if source.complete(queue) == Completion::Again {
                        self.links.push(&mut self.ready, queue);
                    }
                }
            }
            // A look at the clock is a system call on some guests: not for a packet that came alone.
            if list.is_empty() && again.is_empty() && self.ready.is_empty() {
                break RoundEnd::Listed;
            }
            if clock.now() >= deadline {
                break RoundEnd::Time;
            }
            if moved >= self.budgets.packets {
                break RoundEnd::Packets;
            }
        };
        source.end_round();
        // Not reached, scheduled meanwhile, to come again: in this order no queue is passed over twice.
        self.links.append(&mut list, &mut self.ready);
        self.links.append(&mut list, &mut again);
        self.ready = list;
        (end, moved)
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The policy, with what it has learnt.
    pub fn policy(&self) -> &P {
        &self.policy
    }
}
