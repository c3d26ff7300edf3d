//! Nothing is allocated for a packet. In a binary of its own, since it replaces the allocator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{frame, Back, World};
use netfront::packet::INLINE_HEAD;
use netfront::watch::{Limits, TraceFormat, Watch};
use netfront::{Offload, OwnedPacket, Packet, Queue, QueueConfig};

const PACKETS: usize = 10_000;

/// Does the queue's work on some packets that wait in the rings, and tells the allocations of that.
fn work(queue: &mut Queue, sent: &[&[u8]], kept: &mut Vec<OwnedPacket>) -> u64 {
    allocation_counter::measure(|| rounds(queue, sent, kept)).count_total
}

fn rounds(queue: &mut Queue, sent: &[&[u8]], kept: &mut Vec<OwnedPacket>) {
    let deliver = |packet: &mut Packet<'_>| {
        // A kept copy of more than 256 bytes must live somewhere: such packets are only looked at.
        if packet.head().len() <= INLINE_HEAD {
            kept.push(packet.detach());
        }
    };
    queue.receive(64, deliver).expect("a sound rx ring");
    kept.clear();
    queue.reclaim().expect("a sound tx ring");
    for _ in 0..8 {
        queue.send(sent, Offload::default()).expect("room");
    }
    queue.flush().expect("flushed");
    queue.take_events().expect("events");
    queue.arm().expect("armed");
}

fn serve(back: &mut Back, frame: &[u8]) {
    for _ in 0..8 {
        back.deliver(frame);
    }
    while back.fetch().is_some() {}
    back.publish();
}

#[test]
fn nothing_is_allocated_for_ten_thousand_packets_received_kept_and_sent() {
    for (len, untrusted) in [(60, false), (1500, false), (9000, false), (1500, true)] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            untrusted,
            ..QueueConfig::default()
        });
        let bytes = frame(len, 1);
        let sent = [&bytes[..14], &bytes[14..]];
        let mut kept = Vec::with_capacity(64);
        let allocated: u64 = (0..PACKETS / 8)
            .map(|_| {
                serve(&mut back, &bytes);
                work(&mut queue, &sent, &mut kept)
            })
            .sum();
        assert_eq!(allocated, 0, "{len} bytes, untrusted: {untrusted}");
        assert!(queue.stats().snapshot().get("rx_packets") >= PACKETS as u64);
    }
}

/// Neither while packets are recorded nor after: the buffers belong to whoever writes them out.
#[test]
fn nothing_is_allocated_for_packets_that_are_captured_and_traced_nor_once_that_is_over() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let watch = std::sync::Arc::new(Watch::default());
    queue.watch_by(std::sync::Arc::clone(&watch));
    let bytes = frame(600, 1);
    let mut kept = Vec::with_capacity(64);
    let mut many = |queue: &mut Queue| -> u64 {
        let round = |_| {
            serve(&mut back, &bytes);
            work(queue, &[&bytes], &mut kept)
        };
        (0..1000).map(round).sum()
    };
    let capture = watch.capture(Limits::default()).expect("a capture");
    let format = TraceFormat::Json;
    let trace = watch.trace(format, Limits::default()).expect("a trace");
    assert_eq!(many(&mut queue), 0, "while it is recorded");
    assert!(capture.totals().dropped > 0, "nobody writes it out");
    assert!(trace.totals().recorded > 0);
    drop((capture, trace));
    assert_eq!(many(&mut queue), 0, "once it is over");
}
