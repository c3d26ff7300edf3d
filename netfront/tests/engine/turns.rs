//! Whose turn it is, and for how long.

use std::time::Duration;

use netfront::engine::bottom_half::{BottomHalf, Budgets, Reason};
use netfront::engine::clock::Manual;
use netfront::engine::restart::{Adaptive, Fixed, PollBurst, RestartPolicy, TimeOnly};
use proptest::prelude::*;

use crate::source::Counted;

/// A core with all queues of `source` that are scheduled on its list.
fn core<P: RestartPolicy>(source: &Counted<'_>, budgets: Budgets, policy: P) -> BottomHalf<P> {
    let mut core = BottomHalf::new(source.waiting.len(), budgets, policy);
    for queue in (0..source.waiting.len()).filter(|&queue| source.waiting[queue] > 0) {
        assert!(core.list(queue));
    }
    core
}

fn budgets(weight: usize, packets: usize) -> Budgets {
    Budgets {
        weight,
        packets,
        time: Duration::from_secs(1),
    }
}

/// N-4: the weight of a queue is 64, and no visit takes more.
#[test]
fn a_visit_takes_sixty_four_packets_at_most() {
    assert_eq!(Budgets::default().weight, 64);
    let clock = Manual::default();
    let mut source = Counted::new(&clock, &[1000, 1000]);
    let mut core = core(&source, Budgets::default(), TimeOnly);
    core.run(&mut source, &clock);
    assert_eq!(source.most, 64);
}

/// L-6, N-3: the list is walked in order, and each queue on it is polled.
#[test]
fn queues_are_polled_in_turn_until_all_are_empty() {
    let clock = Manual::default();
    let mut source = Counted::new(&clock, &[10, 100, 0, 70]);
    let mut core = core(&source, budgets(64, 300), Fixed(10));
    let activation = core.run(&mut source, &clock);
    assert_eq!(source.visits, [0, 1, 3, 1, 3]);
    assert_eq!(source.waiting, [0; 4]);
    assert_eq!((activation.reason, activation.rounds), (Reason::Drained, 2));
    assert_eq!((activation.packets, activation.left), (180, 0));
    assert!(core.is_idle());
}

/// N-5: a queue that comes while the list is walked goes to its tail; one that is on it is not put there twice.
#[test]
fn after_a_round_come_the_unreached_then_the_new_then_those_that_come_again() {
    let clock = Manual::default();
    let mut source = Counted::new(&clock, &[1000, 1000, 1000, 0]);
    let mut core = core(&source, budgets(64, 100), Fixed(1));
    core.run(&mut source, &clock);
    assert_eq!(source.visits, [0, 1], "the second visit used the budget up");
    assert!(core.list(3), "scheduled meanwhile");
    assert!(!core.list(3), "it is on the list");
    assert!(!core.list(2), "and so is this one");
    source.waiting[3] = 1000;
    assert!(source.schedules[3].schedule());
    for _ in 0..4 {
        core.run(&mut source, &clock);
    }
    assert_eq!(source.visits[2..], [2, 0, 1, 3, 2, 0, 1, 3]);
    assert_eq!(core.counters().budget_squeezes, 5);
}

/// N-5: an event that comes while its queue is polled does not get lost, and does not list it twice.
#[test]
fn what_comes_while_a_queue_is_completed_is_polled_in_the_next_round() {
    let clock = Manual::default();
    let mut source = Counted::new(&clock, &[10, 10]);
    // To queue 0, when it was drained and queue 1 is visited; and to queue 1 when it is being visited itself.
    source.arrivals = vec![(1, 0, 5), (1, 1, 7)];
    let mut core = core(&source, budgets(64, 300), Fixed(10));
    let activation = core.run(&mut source, &clock);
    assert_eq!(activation.reason, Reason::Drained);
    assert_eq!(
        source.called,
        [0],
        "queue 0 was idle: whoever schedules it lists it"
    );
    assert_eq!(source.taken, [10, 17]);
    assert_eq!(source.visits, [0, 1, 1], "once more, since somebody came");
    assert!(core.list(0));
    core.run(&mut source, &clock);
    assert_eq!(source.taken, [15, 17]);
}

/// S-2: an activation goes on while there are queues *and* the count allows it.
#[test]
fn rounds_end_with_the_list_or_with_the_limit_whichever_is_first() {
    for (packets, limit, reason, rounds) in [
        (64 * 5, 10, Reason::Drained, 6),
        (64 * 50, 10, Reason::Rounds, 10),
        (64 * 50, 1, Reason::Rounds, 1),
        (64 * 50, 100, Reason::Drained, 51),
    ] {
        let clock = Manual::default();
        let mut source = Counted::new(&clock, &[packets]);
        let mut core = core(&source, budgets(64, 300), Fixed(limit));
        let activation = core.run(&mut source, &clock);
        assert_eq!(
            (activation.reason, activation.rounds),
            (reason, rounds),
            "{limit}"
        );
        assert_eq!(core.is_idle(), reason == Reason::Drained);
    }
}

/// S-3, S-4: with a fixed count packets are left behind each time; one that learns leaves fewer, and then none.
#[test]
fn a_limit_that_learns_leaves_no_packets_behind() {
    let left_behind = |policy: Box<dyn RestartPolicy + Send>| {
        let clock = Manual::default();
        let mut source = Counted::new(&clock, &[0]);
        let mut core = BottomHalf::new(1, budgets(16, 300), policy);
        let mut left = 0;
        for _ in 0..50 {
            // What comes while something else has the core.
            source.waiting[0] += 250;
            if source.schedules[0].schedule() {
                core.list(0);
            }
            left = core.run(&mut source, &clock).left;
        }
        left
    };
    assert_eq!(left_behind(Box::new(Fixed(10))), 50 * (250 - 160));
    assert_eq!(left_behind(Box::new(Adaptive::new())), 0);
}

fn any_policy() -> impl Strategy<Value = usize> {
    0..4usize
}

fn policy(index: usize) -> Box<dyn RestartPolicy + Send> {
    match index {
        0 => Box::new(Fixed(10)),
        1 => Box::new(TimeOnly),
        2 => Box::new(PollBurst::new()),
        _ => Box::new(Adaptive::new()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// N-2: queues that always have packets get the same, up to one weight, however the rounds are cut.
    #[test]
    fn backlogged_queues_get_equal_shares(
        queues in 2..9usize,
        weight in 1..130usize,
        packets in 1..600usize,
        micros in 1..3000u64,
        activations in 1..40usize,
        index in any_policy(),
    ) {
        let clock = Manual::default();
        let mut source = Counted::new(&clock, &vec![usize::MAX / 16; queues]);
        let budgets = Budgets { weight, packets, time: Duration::from_micros(micros) };
        let mut core = core(&source, budgets, policy(index));
        for _ in 0..activations {
            core.run(&mut source, &clock);
            let (least, most) = (source.taken.iter().min(), source.taken.iter().max());
            prop_assert!(most.unwrap() - least.unwrap() <= weight, "{:?}", source.taken);
        }
    }

    /// S-4: whatever the limit has become, no activation is over its time by more than one visit.
    #[test]
    fn no_activation_is_over_its_time_by_more_than_one_visit(
        waiting in prop::collection::vec(0..5000usize, 1..6),
        weight in 1..130usize,
        nanos in 100..5000u64,
        index in any_policy(),
    ) {
        let clock = Manual::default();
        let mut source = Counted::new(&clock, &waiting);
        source.cost = Duration::from_nanos(nanos);
        let budgets = Budgets { weight, ..Budgets::default() };
        let mut core = core(&source, budgets, policy(index));
        let one_visit = source.cost * weight as u32;
        for _ in 0..30 {
            let activation = core.run(&mut source, &clock);
            prop_assert!(activation.elapsed < budgets.time + one_visit);
            prop_assert!(activation.rounds <= activation.limit);
            prop_assert_eq!(activation.left, source.waiting.iter().sum::<usize>());
        }
    }
}
