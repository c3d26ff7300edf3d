//! One queue and its consumer, received by the engine's rules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netfront::consumer::Echo;
use netfront::engine::bottom_half::Budgets;
use netfront::engine::moderation::{Mode, SharedMode};
use netfront::engine::receiver::{Receiver, Tuning};
use netfront::engine::restart::Policy;

use netfront::{Consumer, Packet, Queue, QueueConfig, Wake};

use crate::common::{count, frame, until, Back, World};

/// Counts, and is behind by as much as it is told.
#[derive(Default)]
struct Count {
    delivered: usize,
    behind: usize,
}

impl Consumer for Count {
    fn deliver(&mut self, _packet: &mut Packet<'_>) {
        self.delivered += 1;
    }

    fn waiting(&self) -> usize {
        self.behind
    }
}

struct Loop {
    queue: Queue,
    back: Back,
    consumer: Count,
    receiver: Receiver,
    tuning: Arc<Tuning>,
    _world: World,
}

impl Loop {
    fn new(tuning: Tuning) -> Self {
        let world = World::new();
        let (queue, back) = world.pair(&QueueConfig::default());
        let tuning = Arc::new(tuning);
        Self {
            queue,
            back,
            consumer: Count::default(),
            receiver: Receiver::new(Arc::clone(&tuning)),
            tuning,
            _world: world,
        }
    }

    fn deliver(&mut self, packets: usize) {
        self.back.take_posted();
        for _ in 0..packets {
            let frame = frame(60, 1);
            self.back.put_pieces(&[&frame], 0, &Default::default());
        }
        self.back.publish();
    }

    fn turn(&mut self) -> usize {
        self.receiver
            .turn(&mut self.queue, &mut self.consumer)
            .unwrap()
            .moved
    }

    fn sleep(&mut self, time: Duration) -> Wake {
        self.receiver
            .sleep(&mut self.queue, &self.consumer, time)
            .unwrap()
    }
}

/// S-2, S-3, N-4: a turn goes on while there are packets and the limit allows it, 64 at a time.
#[test]
fn a_turn_ends_with_the_ring_or_with_the_restart_limit() {
    let mut own = Loop::new(Tuning {
        policy: Policy::Fixed(2),
        ..Tuning::default()
    });
    own.deliver(200);
    assert_eq!(own.turn(), 128);
    assert_eq!(count(&own.queue, "engine_hand_overs"), 1);
    assert_eq!(own.turn(), 72);
    assert_eq!(own.turn(), 0);
    assert_eq!(own.consumer.delivered, 200);
    assert_eq!(count(&own.queue, "engine_limit"), 2);
}

/// Rounds of eight packets, as long as the machine likes: the limit alone is to end them.
fn eights() -> Tuning {
    Tuning {
        budgets: Budgets {
            weight: 8,
            time: Duration::from_secs(3600),
            ..Budgets::default()
        },
        ..Tuning::default()
    }
}

/// S-4: a limit that leaves packets behind grows by itself, to twice as many rounds at most at a time.
#[test]
fn the_limit_grows_while_packets_are_left_behind() {
    let mut own = Loop::new(eights());
    own.deliver(250);
    assert_eq!(own.turn(), 10 * 8);
    assert_eq!(count(&own.queue, "engine_limit"), 20);
    assert_eq!(own.turn(), 20 * 8);
    assert_eq!(own.turn(), 10);
}

/// S-3: packets that a consumer cannot keep up with are no reason to take more of them at a time.
#[test]
fn the_limit_does_not_grow_while_the_consumer_is_more_than_half_behind() {
    let mut own = Loop::new(eights());
    own.consumer.behind = own.tuning.limits.high / 2;
    own.deliver(250);
    assert_eq!(own.turn(), 10 * 8);
    assert_eq!(count(&own.queue, "engine_limit"), 10);
    own.consumer.behind = 0;
    assert_eq!(own.turn(), 10 * 8);
    assert_eq!(count(&own.queue, "engine_limit"), 20);
}

/// S-3: what `netfront run --echo` has: while the backend does not take what is sent back, it is not sent more.
#[test]
fn an_echo_whose_transmit_ring_is_full_leaves_packets_in_the_receive_ring_and_loses_none() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let mut receiver = Receiver::new(Arc::new(Tuning::default()));
    let mut echo = Echo::default();
    let (mut sent, mut answers) = (0, 0);
    until("a held queue", || {
        let room = back.take_posted().min(16);
        for _ in 0..room {
            back.deliver(&frame(60, 1));
        }
        sent += room;
        receiver.turn(&mut queue, &mut echo).unwrap();
        count(&queue, "engine_held") > 0
    });
    until("all answers", || {
        while back.fetch().is_some() {
            answers += 1;
        }
        back.publish();
        receiver.turn(&mut queue, &mut echo).unwrap();
        answers == sent
    });
    assert_eq!((echo.dropped, count(&queue, "engine_dropped")), (0, 0));
}

#[test]
fn packets_of_a_consumer_that_is_behind_stay_in_the_ring() {
    let mut own = Loop::new(Tuning::default());
    own.deliver(100);
    own.consumer.behind = 100_000;
    assert_eq!(own.turn(), 0);
    assert_eq!(count(&own.queue, "engine_held"), 1);
    // It is looked at again soon, though no event can come.
    assert_eq!(own.sleep(Duration::from_secs(3600)), Wake::Work);
    assert_eq!(own.turn(), 0);
    own.consumer.behind = 0;
    assert_eq!(own.turn(), 100);
}

/// S-3: a consumer that never comes back does not stop the vif: after a second its packets are dropped, and counted.
#[test]
fn packets_are_held_for_a_bounded_time() {
    let mut tuning = Tuning::default();
    tuning.limits.hold = Duration::ZERO;
    let mut own = Loop::new(tuning);
    own.deliver(100);
    own.consumer.behind = 100_000;
    assert_eq!(own.turn(), 100);
    assert_eq!(count(&own.queue, "engine_dropped"), 100);
    assert_eq!(own.consumer.delivered, 0);
}

/// L-1: by events, or by looking, from the moment it is chosen.
#[test]
fn a_thread_that_polls_does_not_sleep_and_one_that_waits_does() {
    let mut own = Loop::new(Tuning {
        mode: SharedMode::new(Mode::Interrupt),
        ..Tuning::default()
    });
    own.turn();
    let start = Instant::now();
    assert_eq!(own.sleep(Duration::from_millis(50)), Wake::Timeout);
    assert!(start.elapsed() >= Duration::from_millis(50));
    own.tuning.mode.set(Mode::Poll);
    for _ in 0..100 {
        assert_eq!(own.turn(), 0);
        assert_eq!(own.sleep(Duration::from_secs(3600)), Wake::Work);
    }
    assert_eq!(own.receiver.mode(), Mode::Poll);
    // Whoever calls is heard by one that polls too.
    own.queue.waker().wake();
    until("the call", || {
        own.sleep(Duration::from_secs(3600)) == Wake::Called
    });
    own.tuning.mode.set(Mode::Adaptive);
    own.deliver(1);
    assert_eq!(own.turn(), 1);
}

/// A thread that polls says that it found nothing for so long, as one that sleeps does, and so its pool gives back what it
/// grew by.
#[test]
fn a_thread_that_polls_says_when_it_looked_in_vain_for_all_of_the_time() {
    let mut own = Loop::new(Tuning {
        mode: SharedMode::new(Mode::Poll),
        ..Tuning::default()
    });
    let time = Duration::from_millis(20);
    let start = Instant::now();
    for times in 1..=2 {
        until("a time without a packet", || {
            own.turn();
            own.sleep(time) == Wake::Timeout
        });
        assert!(start.elapsed() >= times * time);
    }
    // A packet begins it anew.
    own.deliver(1);
    assert_eq!(own.turn(), 1);
    let start = Instant::now();
    until("a time without a packet", || {
        own.turn();
        own.sleep(time) == Wake::Timeout
    });
    assert!(start.elapsed() >= time);
}

/// N-1: while packets come, a queue in adaptive mode looks for them and takes no event; then it asks for one.
#[test]
fn a_busy_queue_takes_no_events_and_an_idle_one_sleeps() {
    let mut own = Loop::new(Tuning::default());
    let long = Duration::from_millis(20);
    own.deliver(64);
    own.turn();
    for _ in 0..50 {
        own.deliver(64);
        assert_eq!(own.turn(), 64);
        assert_eq!(own.sleep(long), Wake::Work);
    }
    let events = count(&own.queue, "events");
    assert!(events <= 2, "{events} events for 51 batches");
    assert!(count(&own.queue, "engine_looks") >= 49);
    until("a sleep for all of its time", || {
        own.turn();
        own.sleep(long) == Wake::Timeout
    });
}
