//! The top half of a real queue.

use netfront::QueueConfig;

use crate::common::{count, frame, receive_all, until, World};

/// L-2, S-1: an event marks its port and nothing else; packets are looked at later.
#[test]
fn an_event_touches_no_packet() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    assert!(!queue.arm().unwrap(), "nothing is there yet");
    back.deliver(&frame(100, 1));
    let before = queue.stats().snapshot();
    until("an event", || queue.take_events().unwrap() > 0);
    for name in ["rx_packets", "rx_slots", "rx_copied_bytes", "rx_recycled"] {
        assert_eq!(count(&queue, name), before.get(name), "{name}");
    }
    assert_eq!(count(&queue, "events"), before.get("events") + 1);
    assert_eq!(receive_all(&mut queue), [frame(100, 1)]);
}
