//! A capture has what was received and what was sent, byte for byte, over however many slots.

use std::io::{Read, Seek};
use std::sync::Arc;

use netfront::watch::{Limits, Watch};
use netfront::{Offload, QueueConfig};
use pcap_file::pcap::PcapReader;

use crate::common::{frame, receive_all, World};

#[test]
fn packets_over_any_number_of_slots_are_captured_as_they_pass_both_ways() {
    for untrusted in [false, true] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            untrusted,
            ..QueueConfig::default()
        });
        let watch = Arc::new(Watch::default());
        queue.watch_by(Arc::clone(&watch));
        let mut wanted = Vec::new();
        let exchange = |queue: &mut netfront::Queue, back: &mut crate::common::Back, len: usize| {
            let (received, sent) = (frame(len, 1), frame(len, 2));
            let pieces: Vec<_> = received.chunks(4096).collect();
            back.put_pieces(&pieces, 0, &Offload::default());
            back.publish();
            assert_eq!(receive_all(queue), std::slice::from_ref(&received));
            queue.send(&[&sent], Offload::default()).unwrap();
            queue.flush().unwrap();
            assert_eq!(back.fetch().unwrap().0, sent);
            back.publish();
            queue.reclaim().unwrap();
            [received, sent]
        };
        // Before and after: not captured.
        exchange(&mut queue, &mut back, 100);
        let count = Some(10);
        let running = watch
            .capture(Limits {
                count,
                ..Limits::default()
            })
            .unwrap();
        for len in [60, 1500, 5000, 9000, 65_000] {
            wanted.extend(exchange(&mut queue, &mut back, len));
        }
        exchange(&mut queue, &mut back, 200);

        let mut file = tempfile::tempfile().unwrap();
        running.write_to(&file, None).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let mut reader = PcapReader::new(&bytes[..]).unwrap();
        let mut captured = Vec::new();
        while let Some(packet) = reader.next_packet() {
            captured.push(packet.unwrap().data.into_owned());
        }
        assert!(captured == wanted, "untrusted: {untrusted}");
    }
}
