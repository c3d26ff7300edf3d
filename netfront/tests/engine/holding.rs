//! Consumers that are behind.

use netfront::engine::bottom_half::{BottomHalf, Budgets, Reason};
use netfront::engine::clock::Manual;
use netfront::engine::restart::Fixed;

use crate::source::Counted;

/// S-3: a queue whose consumer is behind costs the others nothing, and is polled again when there is room.
#[test]
fn a_queue_that_is_held_waits_beside_the_list() {
    let clock = Manual::default();
    let mut source = Counted::new(&clock, &[100, 100, 100]);
    source.behind[1] = true;
    let mut core = BottomHalf::new(3, Budgets::default(), Fixed(10));
    (0..3).for_each(|queue| assert!(core.list(queue)));
    let activation = core.run(&mut source, &clock);
    assert_eq!(activation.reason, Reason::Held);
    assert_eq!(activation.left, 100);
    assert_eq!(source.visits, [0, 1, 2, 0, 2], "it was looked at once");
    assert!(core.is_idle() && core.is_holding());
    assert!(!core.list(1), "it is held, and so listed already");
    let again = core.run(&mut source, &clock);
    assert_eq!(
        (again.reason, again.packets, again.rounds),
        (Reason::Held, 0, 0)
    );
    core.release(|_| false);
    assert!(core.is_idle());
    source.behind[1] = false;
    core.release(|queue| queue == 1);
    assert!(!core.is_holding());
    assert_eq!(core.run(&mut source, &clock).reason, Reason::Drained);
    assert_eq!(source.taken, [100; 3]);
    assert_eq!(core.counters().held, 1);
}

#[test]
fn held_queues_come_back_in_their_order() {
    let clock = Manual::default();
    let mut source = Counted::new(&clock, &[10, 10, 10, 10]);
    source.behind = vec![true; 4];
    let mut core = BottomHalf::new(4, Budgets::default(), Fixed(10));
    (0..4).for_each(|queue| assert!(core.list(queue)));
    core.run(&mut source, &clock);
    source.behind = vec![false; 4];
    source.visits.clear();
    core.release(|queue| queue != 2);
    core.run(&mut source, &clock);
    assert_eq!(source.visits, [0, 1, 3]);
    core.release(|_| true);
    core.run(&mut source, &clock);
    assert_eq!(source.visits, [0, 1, 3, 2]);
}
