//! What event cores and workers count, readable from any thread.

use crate::engine::bottom_half::Counters;
use crate::engine::steering::SteeringCounters;
use crate::stats::counters;

counters! {
    /// What one event core counts.
    CoreStats:
    /// Packets that it took out of its queues.
    packets,
    /// Events that it took.
    events,
    /// Activations: runs of rounds.
    activations,
    /// Rounds: walks over its list of queues.
    rounds,
    /// Visits to a queue.
    visits,
    /// Rounds that ended for their packets, with queues left.
    budget_squeezes,
    /// Activations that ended for their time, with queues left.
    time_squeezes,
    /// Activations that ended with queues left, whatever the reason.
    hand_overs,
    /// Visits that left packets in the ring, since all workers were behind.
    held,
    /// Packets dropped, since their worker was behind: while others had room, or for longer than packets may be held.
    dropped,
    /// Times that a queue was looked at for its timer, without an event.
    looks,
    /// Times that it slept and woke.
    wakeups,
    /// Passes that found work which another thread had raised.
    raised,
    /// Packets that the program's filter dropped, before their buffers were built.
    filtered,
    /// Packets that went to workers.
    sent,
    /// Wake-ups of workers.
    wakes,
    /// Rounds that ended with packets for a worker that ran, or was woken already.
    wakes_saved,
    /// Groups of connections that changed their worker.
    moves,
    /// Packets that went the old way, since the old worker had not finished those before.
    moves_delayed,
    /// Frames that were sent for workers and handlers.
    frames,
    /// Frames dropped, since the transmit ring of their queue was full.
    frames_dropped,
    /// Queues that it got from another core.
    queues_taken,
    /// Queues that it has now.
    queues,
    /// Rounds that the next activation may do.
    limit,
    /// Packets on their way to the worker that has most of them.
    lane_depth,
    ;
    /// The limits that `limit` had lately.
    limits: crate::engine::LimitTrace
}

counters! {
    /// What one worker counts.
    WorkerStats:
    /// Packets that it worked on.
    packets,
    /// Turns: walks over its lanes.
    turns,
    /// Connections that had packets, summed over all turns.
    connections,
    /// Times that it slept and woke.
    wakeups,
    /// Frames that it handed back to be sent.
    frames,
    /// Frames that found the way back full.
    frames_refused,
    /// Packets that came after a later one of their queue, or, if it was asked to look, of their connection, whichever worker had that.
    order_violations,
}

/// The names of what is a level, which rises and falls. All others only rise.
pub const LEVELS: [&str; 3] = ["queues", "limit", "lane_depth"];

/// What a core's parts had counted when it was last told: they begin anew with each run, the counters go on.
#[derive(Debug, Default)]
pub(super) struct Told {
    half: Counters,
    steering: SteeringCounters,
}

impl Told {
    pub fn tell(&mut self, stats: &CoreStats, now: Counters) {
        let before = std::mem::replace(&mut self.half, now);
        stats.packets.add(now.packets - before.packets);
        stats.activations.add(now.activations - before.activations);
        stats.rounds.add(now.rounds - before.rounds);
        stats.visits.add(now.visits - before.visits);
        stats
            .budget_squeezes
            .add(now.budget_squeezes - before.budget_squeezes);
        stats
            .time_squeezes
            .add(now.time_squeezes - before.time_squeezes);
        stats.hand_overs.add(now.hand_overs - before.hand_overs);
        stats.held.add(now.held - before.held);
    }

    pub fn tell_steering(&mut self, stats: &CoreStats, now: SteeringCounters) {
        let before = std::mem::replace(&mut self.steering, now);
        stats.sent.add(now.sent - before.sent);
        stats.wakes.add(now.wakes - before.wakes);
        stats.wakes_saved.add(now.wakes_saved - before.wakes_saved);
        stats.moves.add(now.table.moved - before.table.moved);
        stats
            .moves_delayed
            .add(now.table.moves_delayed - before.table.moves_delayed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_says_what_it_means_and_every_level_is_one_of_them() {
        let all = [CoreStats::default().table(), WorkerStats::default().table()].concat();
        assert!(all.iter().all(|(_, _, meaning)| meaning.ends_with('.')));
        for level in LEVELS {
            assert!(all.iter().any(|&(name, ..)| name == level), "{level}");
        }
    }
}
