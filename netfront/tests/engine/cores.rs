//! Event cores and workers on real queues, against a backend in the test's hands.
//!
//! Nothing here is timed: what is compared are counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::Duration;

use netfront::engine::cores::{Activation, Controls, Cores, Desk, Frame, Origin, Work};
use netfront::engine::moderation::Mode;
use netfront::engine::steering::Connection;
use netfront::{Offload, OwnedPacket, Queue, QueueConfig};

use crate::common::{until, Back, World};

const FLOWS: usize = 64;
pub const QUEUES: usize = 4;

/// A datagram of a flow, with its number.
pub fn datagram(flow: usize, number: u64) -> Vec<u8> {
    let mut frame = vec![0; 50];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&36u16.to_be_bytes());
    frame[23] = 17;
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[34..36].copy_from_slice(&(1000 + flow as u16).to_be_bytes());
    frame[36..38].copy_from_slice(&7u16.to_be_bytes());
    frame[38..40].copy_from_slice(&16u16.to_be_bytes());
    frame[42..50].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Flow and number of a datagram.
pub fn parse(frame: &[u8]) -> (usize, u64) {
    let port = u16::from_be_bytes(frame[34..36].try_into().unwrap());
    let number = u64::from_be_bytes(frame[42..50].try_into().unwrap());
    (usize::from(port) - 1000, number)
}

/// What all workers have seen.
pub struct Seen {
    /// The next number of each flow.
    next: Vec<AtomicU64>,
    packets: AtomicU64,
    out_of_order: AtomicU64,
}

impl Seen {
    fn new() -> Self {
        Self {
            next: (0..FLOWS).map(|_| AtomicU64::new(0)).collect(),
            packets: AtomicU64::new(0),
            out_of_order: AtomicU64::new(0),
        }
    }

    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }
}

/// Looks at the order, and sends back every packet if it is told to.
struct Check<'s> {
    seen: &'s Seen,
    replies: bool,
    /// Whoever holds it keeps the worker.
    gate: &'s Mutex<()>,
}

impl Work for Check<'_> {
    fn work(&mut self, packet: OwnedPacket, origin: &Origin, desk: &mut Desk<'_>) {
        drop(self.gate.lock().unwrap());
        let (flow, number) = parse(packet.head());
        let expected = self.seen.next[flow].swap(number + 1, Relaxed);
        self.seen
            .out_of_order
            .fetch_add((expected != number).into(), Relaxed);
        self.seen.packets.fetch_add(1, Relaxed);
        if self.replies {
            let frame = Frame {
                queue: origin.queue,
                bytes: packet.to_vec(),
                offload: Offload::default(),
            };
            desk.send(frame).expect("a way back");
        }
    }
}

/// Queues with their backends.
pub struct Vif {
    queues: Vec<Queue>,
    backs: Vec<Back>,
    /// The next number of each flow.
    next: Vec<u64>,
    sent: u64,
    _world: World,
}

impl Vif {
    pub fn new(queues: usize) -> Self {
        let world = World::with_grant_limit(8192);
        let config = QueueConfig {
            rx_pages: 320,
            rx_limit: 384,
            tx_pages: 64,
            ..QueueConfig::default()
        };
        let (queues, backs) = (0..queues).map(|_| world.pair(&config)).unzip();
        Self {
            queues,
            backs,
            next: vec![0; FLOWS],
            sent: 0,
            _world: world,
        }
    }
}

/// A backend's side: a flow is in one queue for good.
pub fn fill(backs: &mut [Back], next: &mut [u64], at: usize, most: usize) -> u64 {
    let queues = backs.len();
    let back = &mut backs[at];
    let room = back.take_posted().min(most);
    for turn in 0..room {
        let flow = (turn * queues + at) % FLOWS;
        let frame = datagram(flow, next[flow]);
        next[flow] += 1;
        back.put_pieces(&[&frame], 0, &Offload::default());
    }
    if room > 0 {
        back.publish();
    }
    room as u64
}

/// Runs cores in a thread of their own while `drive` plays the backends.
pub fn with_cores(
    cores: &Cores,
    vif: &mut Vif,
    replies: bool,
    drive: impl FnOnce(&mut [Back], &mut [u64], &Seen, &Controls, &Mutex<()>) -> u64,
) -> (Seen, Controls) {
    let (seen, gate, controls) = (Seen::new(), Mutex::new(()), Controls::default());
    let Vif {
        queues,
        backs,
        next,
        sent,
        ..
    } = vif;
    std::thread::scope(|scope| {
        let mut works: Vec<_> = (0..cores.works())
            .map(|_| Check {
                seen: &seen,
                replies,
                gate: &gate,
            })
            .collect();
        let own = controls.clone();
        let running = scope.spawn(move || {
            while !own.is_stopping() {
                cores.run(queues.iter_mut().collect(), &mut works, &own)?;
            }
            Ok::<(), netfront::Error>(())
        });
        // A test that fails must not wait for the cores for ever.
        let stops = Stops(&controls);
        until("the cores", || !controls.cores().is_empty());
        *sent += drive(backs, next, &seen, &controls, &gate);
        drop(stops);
        running.join().unwrap().unwrap();
    });
    (seen, controls)
}

/// Ends the cores, also when the test fails.
pub struct Stops<'c>(pub &'c Controls);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn sum(controls: &Controls, name: &str) -> u64 {
    let cores = controls.cores();
    cores.iter().map(|core| core.snapshot().get(name)).sum()
}

/// K-1, K-2, K-3, K-7, K-8: two event cores and two workers, 64 flows, with queues, places of the hash and connections
/// bound anew all the time: nothing is lost, nothing is out of order, the queues stay evenly spread, and a wake-up of a
/// worker stands for twenty packets at least.
fn keep_their_order(activation: Activation) {
    const PACKETS: u64 = 40_000;
    // So many are on their way at once, and a lane holds more: however far one worker is behind the other, none is dropped.
    const AT_ONCE: usize = 4096;
    let mut vif = Vif::new(QUEUES);
    let cores = Cores::default()
        .event_cores(2)
        .workers(2)
        .limits(netfront::engine::pressure::Limits {
            high: AT_ONCE,
            ..Default::default()
        })
        .activation(activation)
        .check_order()
        .unpinned();
    let mut rebindings = 0;
    let (seen, controls) = with_cores(&cores, &mut vif, false, |backs, next, seen, controls, _| {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut sent = 0;
        until("all packets sent", || {
            for at in 0..QUEUES {
                let room = AT_ONCE.saturating_sub((sent - seen.packets()) as usize);
                sent += fill(backs, next, at, room.min(256));
            }
            match random.below(4) {
                0 => {
                    let cores: [&[usize]; 3] = [&[0], &[1], &[0, 1]];
                    controls.rebind(cores[random.below(3)]).unwrap();
                    assert!(controls.spread() <= 1);
                }
                1 => {
                    let shift = random.below(2);
                    controls.remap(|place| (place + shift) % 2);
                }
                2 => {
                    let frame = datagram(random.below(FLOWS), 0);
                    controls.bind(Connection::of(&frame).unwrap(), random.below(2));
                }
                _ => {
                    let frame = datagram(random.below(FLOWS), 0);
                    controls.unbind(Connection::of(&frame).unwrap());
                }
            }
            rebindings += 1;
            sent >= PACKETS
        });
        until("all packets worked on", || seen.packets() == sent);
        sent
    });
    assert_eq!(seen.packets(), vif.sent, "none is lost");
    assert_eq!(seen.out_of_order.load(Relaxed), 0);
    let (sent, wakes) = (sum(&controls, "sent"), sum(&controls, "wakes"));
    let workers = controls.workers();
    let of_workers = |name| -> Vec<u64> {
        let counters = workers.iter();
        counters.map(|own| own.snapshot().get(name)).collect()
    };
    println!(
        "{activation:?}: {sent} packets, {rebindings} changes, {} queues moved, {} groups of connections moved, \
         {wakes} wake-ups of workers, {} of event cores, {} events; by worker {:?}",
        sum(&controls, "queues_taken"),
        sum(&controls, "moves"),
        sum(&controls, "wakeups"),
        sum(&controls, "events"),
        of_workers("packets"),
    );
    assert_eq!(sent, vif.sent);
    assert_eq!(of_workers("packets").iter().sum::<u64>(), sent);
    assert_eq!(of_workers("order_violations"), [0, 0]);
    assert!(
        wakes * 20 <= sent,
        "{wakes} wake-ups for {sent} packets are more than 0.05 each"
    );
    // Each binding is a kind of work that was raised for the cores, and so is each queue that another gave them.
    assert!(sum(&controls, "raised") > 0);
    // The four queues came to their cores once, and some moved.
    assert!(sum(&controls, "queues_taken") > QUEUES as u64);
    assert!(of_workers("packets").iter().all(|&packets| packets > 0));
}

/// K-1, K-2, K-3, K-7, K-8, S-6: see [`keep_their_order`].
#[test]
fn flows_keep_their_order_while_everything_is_bound_anew() {
    keep_their_order(Activation::Inline);
}

/// K-9: the same, with a thread between event cores and workers that wakes those that it is told.
#[test]
fn flows_keep_their_order_where_a_thread_wakes_the_workers() {
    keep_their_order(Activation::Thread);
}

/// K-12, L-3, L-6: without workers the core that takes the events works on the packets, and answers by the same queue.
#[test]
fn a_core_without_workers_works_on_its_packets_itself() {
    let mut vif = Vif::new(2);
    let cores = Cores::default().event_cores(2).unpinned();
    let (seen, controls) = with_cores(&cores, &mut vif, true, |backs, next, seen, _, _| {
        let sent = fill(backs, next, 0, 60) + fill(backs, next, 1, 60);
        let mut answers = 0;
        until("all answers", || {
            for back in backs.iter_mut() {
                while back.fetch().is_some() {
                    answers += 1;
                }
                back.publish();
            }
            answers == sent
        });
        assert_eq!(seen.packets(), sent);
        sent
    });
    assert_eq!(seen.out_of_order.load(Relaxed), 0);
    assert_eq!(sum(&controls, "frames"), vif.sent);
    assert_eq!(sum(&controls, "wakes"), 0);
    let each: Vec<u64> = controls
        .cores()
        .iter()
        .map(|own| own.packets.get())
        .collect();
    assert_eq!(each, [60, 60], "each core has its queue");
}

/// K-13: what workers send goes out by the queue that they name, in order, also when that has another core by then.
#[test]
fn what_workers_send_goes_out_by_its_queue_in_order_wherever_that_is() {
    const PACKETS: u64 = 4_000;
    let mut vif = Vif::new(2);
    let cores = Cores::default().event_cores(2).workers(2).unpinned();
    with_cores(&cores, &mut vif, true, |backs, next, _, controls, _| {
        let (mut sent, mut answers, mut turn) = (0, 0, 0);
        let mut expected = vec![0; FLOWS];
        until("all answers", || {
            turn += 1;
            let at = turn % 2;
            // No more than the transmit ring has pages for, so that nothing may be dropped.
            if sent < PACKETS && sent - answers < 16 {
                sent += fill(backs, next, at, 16);
            }
            controls.rebind(&[turn / 3 % 2]).unwrap();
            for back in backs.iter_mut() {
                while let Some((frame, _)) = back.fetch() {
                    let (flow, number) = parse(&frame);
                    assert_eq!(number, expected[flow], "flow {flow}");
                    expected[flow] += 1;
                    answers += 1;
                }
                back.publish();
            }
            sent >= PACKETS && answers == sent
        });
        assert_eq!(sum(controls, "frames_dropped"), 0);
        sent
    });
}

/// L-1: modes are changed while packets pass, and no packet waits for the old one.
#[test]
fn cores_receive_in_each_mode_and_change_it_while_they_run() {
    let mut vif = Vif::new(1);
    let cores = Cores::default().unpinned();
    let (seen, _) = with_cores(&cores, &mut vif, false, |backs, next, seen, controls, _| {
        let mut sent = 0;
        let modes = [Mode::Poll, Mode::Interrupt, Mode::Adaptive];
        for turn in 0..30 {
            controls.set_mode(modes[turn % 3]);
            for most in [1, 7, 200] {
                sent += fill(backs, next, 0, most);
                until("packets", || seen.packets() == sent);
            }
        }
        controls.set_mode(Mode::Poll);
        let activations = sum(controls, "activations");
        until("a core that looks without being asked", || {
            sum(controls, "activations") > activations + 1000
        });
        sent
    });
    assert_eq!(seen.out_of_order.load(Relaxed), 0);
}

/// N-1: an idle queue wakes nobody, a while after its last packet.
#[test]
fn an_idle_core_is_not_woken_in_adaptive_mode() {
    let mut vif = Vif::new(2);
    let cores = Cores::default().event_cores(2).workers(1).unpinned();
    with_cores(&cores, &mut vif, false, |backs, next, seen, controls, _| {
        let mut sent = 0;
        for _ in 0..20 {
            sent += fill(backs, next, 0, 200) + fill(backs, next, 1, 200);
            until("packets", || seen.packets() == sent);
        }
        let wakeups = || {
            let workers = controls.workers();
            let workers: u64 = workers.iter().map(|own| own.wakeups.get()).sum();
            sum(controls, "wakeups") + workers
        };
        let mut last = u64::MAX;
        // On a busy machine the last looks may come late; after them there are none.
        until("a second without a wake-up", || {
            let now = std::mem::replace(&mut last, wakeups());
            std::thread::sleep(Duration::from_secs(1));
            now != u64::MAX && wakeups() == last
        });
        sent
    });
}

/// S-3, K-6: while a worker is behind, packets stay in the ring, where they cost nothing, and none is lost.
#[test]
fn a_worker_that_is_behind_has_its_packets_left_in_the_ring() {
    let mut vif = Vif::new(1);
    let limits = netfront::engine::pressure::Limits {
        high: 100,
        // Longer than any test: dropping is tested elsewhere.
        hold: Duration::from_secs(3600),
    };
    let cores = Cores::default().workers(1).limits(limits).unpinned();
    let (seen, controls) = with_cores(
        &cores,
        &mut vif,
        false,
        |backs, next, seen, controls, gate| {
            let held = gate.lock().unwrap();
            let mut sent = 0;
            until("a held queue", || {
                sent += fill(backs, next, 0, 64);
                sum(controls, "held") > 0
            });
            assert!(sum(controls, "sent") <= 100, "{}", sum(controls, "sent"));
            assert_eq!(seen.packets(), 0);
            drop(held);
            until("all packets", || seen.packets() == sent);
            sent
        },
    );
    assert_eq!(seen.out_of_order.load(Relaxed), 0);
    assert_eq!(sum(&controls, "dropped"), 0);
}

#[test]
fn settings_that_do_not_fit_are_told() {
    let mut vif = Vif::new(1);
    let (seen, gate) = (Seen::new(), Mutex::new(()));
    let mut works = [Check {
        seen: &seen,
        replies: false,
        gate: &gate,
    }];
    let cores = Cores::default().event_cores(2).workers(3);
    let controls = Controls::default();
    let run = |cores: &Cores, queues: Vec<&mut Queue>, works: &mut [Check<'_>]| {
        let error = cores.run(queues, works, &controls).unwrap_err();
        error.to_string()
    };
    let error = run(&cores, vif.queues.iter_mut().collect(), &mut works);
    assert!(error.contains("want 3 works, found 1"), "{error}");
    let error = run(&Cores::default(), Vec::new(), &mut works);
    assert!(error.contains("wanted 1 to 32 queues, found 0"), "{error}");
    assert!(controls.rebind(&[0]).is_err(), "nothing runs");
}
