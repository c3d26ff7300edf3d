//! Who takes the events: the event cores, and never a worker.
//!
//! On the simulated Xen an event is taken by a system call that reads it, and the kernel counts those of each thread. On real
//! Xen the lab's scenario `cores` counts the interrupts of the processors that workers have.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use netfront::engine::cores::{Controls, Cores, Desk, Origin, Verdict, Work};
use netfront::engine::moderation::Mode;
use netfront::{OwnedPacket, Queue, QueueConfig};

use crate::common::{until, World};

const QUEUES: usize = 2;
const FLOWS: u16 = 64;
/// Times that packets come to cores that sleep.
const TURNS: u64 = 50;

/// The kernel's numbers of threads.
type Threads = Mutex<BTreeMap<i32, u64>>;

/// System calls of a thread that read; none where the kernel does not count them.
fn reads(thread: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/io")).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("syscr:"))?;
    count.trim().parse().ok()
}

/// Notes that the calling thread was here.
fn was_here(threads: &Threads) {
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    threads.lock().unwrap().entry(own).or_insert(0);
}

/// What the threads have read so far.
fn note(threads: &Threads) {
    let mut threads = threads.lock().unwrap();
    for (&thread, before) in threads.iter_mut() {
        *before = reads(thread).unwrap();
    }
}

/// What each has read since.
fn since(threads: &Threads) -> Vec<u64> {
    let threads = threads.lock().unwrap();
    let reads = threads
        .iter()
        .map(|(&thread, before)| reads(thread).unwrap() - before);
    reads.collect()
}

struct Count<'c> {
    workers: &'c Threads,
    packets: &'c AtomicU64,
}

impl Work for Count<'_> {
    fn work(&mut self, _: OwnedPacket, _: &Origin, _: &mut Desk<'_>) {
        was_here(self.workers);
        self.packets.fetch_add(1, Relaxed);
    }
}

/// Ends the cores, also when the test fails.
struct Stops<'c>(&'c Controls);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A datagram of a flow.
fn datagram(flow: u16) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&46u16.to_be_bytes());
    frame[23] = 17;
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[34..36].copy_from_slice(&(1000 + flow).to_be_bytes());
    frame[36..38].copy_from_slice(&7u16.to_be_bytes());
    frame[38..40].copy_from_slice(&26u16.to_be_bytes());
    frame
}

/// K-1, K-10: of the events of two queues each is read by an event core. A worker, to which all packets go, reads nothing.
#[test]
fn workers_take_no_event_of_all_those_whose_packets_they_work_on() {
    if reads(std::process::id() as i32).is_none() {
        return netfront_tests::skipped::not_on_this_machine(
            "the kernel counts no reads of a thread",
        );
    }
    let world = World::with_grant_limit(4096);
    let pairs = (0..QUEUES).map(|_| world.pair(&QueueConfig::default()));
    let (mut queues, mut backs): (Vec<Queue>, Vec<_>) = pairs.unzip();
    let (event_cores, workers) = (Arc::new(Threads::default()), Threads::default());
    let packets = AtomicU64::new(0);
    let seen = Arc::clone(&event_cores);
    let cores = Cores::default()
        .event_cores(2)
        .workers(2)
        .filter(move |_, _| {
            was_here(&seen);
            Verdict::Pass
        })
        .unpinned();
    // An event for the first packet, always: as many as there can be.
    let controls = Controls::new(Mode::Interrupt);
    std::thread::scope(|scope| {
        let own = controls.clone();
        let (workers, packets) = (&workers, &packets);
        let running = scope.spawn(move || {
            let mut works: Vec<_> = (0..cores.works())
                .map(|_| Count { workers, packets })
                .collect();
            while !own.is_stopping() {
                cores.run(queues.iter_mut().collect(), &mut works, &own)?;
            }
            Ok::<(), netfront::Error>(())
        });
        let stops = Stops(&controls);
        let mut sent = 0;
        let mut turn = || {
            for back in &mut backs {
                back.take_posted();
                for flow in 0..FLOWS {
                    back.deliver(&datagram(flow));
                }
                sent += u64::from(FLOWS);
            }
            until("the packets of a turn", || packets.load(Relaxed) == sent);
        };
        // What threads read as they begin, and first, is nobody's event.
        turn();
        note(&event_cores);
        note(workers);
        for _ in 0..TURNS {
            turn();
        }
        let (taken, disturbed) = (since(&event_cores), since(workers));
        assert_eq!((taken.len(), disturbed.len()), (2, 2));
        assert!(taken.iter().all(|&reads| reads > 0), "{taken:?}");
        assert_eq!(disturbed, [0, 0], "while event cores read {taken:?} times");
        drop(stops);
        running.join().unwrap().unwrap();
    });
}
