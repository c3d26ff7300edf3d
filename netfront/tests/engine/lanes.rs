//! The worker's side.

use std::sync::Arc;

use netfront::engine::bottom_half::{BottomHalf, Budgets, Reason, Source, Visit, VisitEnd};
use netfront::engine::clock::Manual;
use netfront::engine::restart::Fixed;
use netfront::engine::schedule::Completion;
use netfront::engine::steering::{
    lane, Bell, LaneReceiver, Spread, Steered, Steering, Worker, COMMON_KEY,
};

use crate::order::connection;

/// The lanes of one worker, as the bottom half polls them.
struct Lanes {
    lanes: Vec<LaneReceiver<Steered<usize>>>,
    visits: Vec<(usize, usize)>,
}

impl Source for Lanes {
    fn visit(&mut self, queue: usize, weight: usize) -> Visit {
        let lane = &mut self.lanes[queue];
        let packets = (0..weight).map_while(|_| lane.take()).count();
        lane.finish(packets as u64);
        self.visits.push((queue, packets));
        let end = match packets == weight {
            true => VisitEnd::More,
            false => VisitEnd::Complete,
        };
        Visit { packets, end }
    }

    fn complete(&mut self, queue: usize) -> Completion {
        match self.lanes[queue].is_empty() {
            true => Completion::Idle,
            false => Completion::Again,
        }
    }

    fn waiting(&self) -> usize {
        0
    }
}

/// N-7: what event cores hand over is a backlog, polled like a queue, in turn and with the same weight.
#[test]
fn the_lanes_of_a_worker_are_polled_like_queues() {
    let (mut senders, mut lanes) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (sender, receiver) = lane(512);
        let bell = Arc::new(Bell::new());
        let worker = vec![Worker { lane: sender, bell }];
        senders.push(Steering::new(worker, &COMMON_KEY, Spread::Symmetric, 0).unwrap());
        lanes.push(receiver);
    }
    for packet in 0..130 {
        senders[0].send_of(connection(1), packet).unwrap();
    }
    for packet in 0..10 {
        senders[1].send_of(connection(2), packet).unwrap();
    }
    let mut worker = Lanes {
        lanes,
        visits: Vec::new(),
    };
    let mut core = BottomHalf::new(2, Budgets::default(), Fixed(10));
    (0..2).for_each(|lane| assert!(core.list(lane)));
    let clock = Manual::default();
    assert_eq!(core.run(&mut worker, &clock).reason, Reason::Drained);
    assert_eq!(worker.visits, [(0, 64), (1, 10), (0, 64), (0, 2)]);
}

/// K-8: a worker that sleeps is woken once a round, whatever the number of packets, and one that runs not at all.
#[test]
fn a_worker_is_woken_once_a_round_and_only_if_it_sleeps() {
    let (sender, _receiver) = lane(512);
    let bell = Arc::new(Bell::new());
    let worker = Worker {
        lane: sender,
        bell: Arc::clone(&bell),
    };
    let mut steering = Steering::new(vec![worker], &COMMON_KEY, Spread::Symmetric, 0).unwrap();
    let mut round = |packets: usize| {
        for packet in 0..packets {
            steering.send_of(connection(1), packet).unwrap();
        }
        let mut woken = Vec::new();
        steering.end_round(|worker| woken.push(worker));
        (woken, steering.counters().wakes_saved)
    };
    assert_eq!(round(100), (vec![], 1), "it runs");
    bell.rest();
    assert_eq!(round(0), (vec![], 1), "nothing for it");
    assert_eq!(round(100), (vec![0], 1));
    assert_eq!(round(100), (vec![], 2), "it is on its way");
    bell.resume();
    assert_eq!(round(1), (vec![], 3));
}

/// K-6: what finds its lane full comes back, and is counted.
#[test]
fn a_full_lane_gives_back_and_is_seen() {
    let (sender, mut receiver) = lane(4);
    let worker = Worker {
        lane: sender,
        bell: Arc::new(Bell::new()),
    };
    let mut steering = Steering::new(vec![worker], &COMMON_KEY, Spread::Symmetric, 0).unwrap();
    for packet in 0..4 {
        assert_eq!(steering.send_of(None, packet), Ok(0));
    }
    assert_eq!(steering.send_of(None, 4), Err(4));
    assert_eq!((steering.depth(), steering.room()), (4, 0));
    assert_eq!((steering.counters().sent, steering.counters().full), (4, 1));
    receiver.take();
    assert_eq!(
        (steering.depth(), steering.room()),
        (4, 1),
        "taken, but not finished"
    );
    receiver.finish(1);
    assert_eq!((steering.depth(), steering.room()), (3, 1));
}

/// K-12: a core may be both: it takes events and works in turn, and never wakes itself.
#[test]
fn one_core_can_send_to_itself_and_work() {
    let (sender, receiver) = lane(512);
    let bell = Arc::new(Bell::new());
    let worker = vec![Worker { lane: sender, bell }];
    let mut steering = Steering::new(worker, &COMMON_KEY, Spread::Symmetric, 0).unwrap();
    let mut lanes = Lanes {
        lanes: vec![receiver],
        visits: Vec::new(),
    };
    let mut core = BottomHalf::new(1, Budgets::default(), Fixed(10));
    let clock = Manual::default();
    for _ in 0..100 {
        for packet in 0..50 {
            steering.send_of(connection(3), packet).unwrap();
        }
        steering.end_round(|worker| panic!("worker {worker} runs, and is this thread"));
        assert!(core.list(0));
        assert_eq!(core.run(&mut lanes, &clock).packets, 50);
    }
    assert_eq!(steering.depth(), 0);
}
