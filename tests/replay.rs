//! A capture of the lab, kernel to kernel, goes through backend, rings and frontend, and comes out the same.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use netback_sim::peer::{Pace, Replay};
use netfront::consumer::{Capture, CaptureFile, Null};
use netfront::engine::{round, sleep};
use netfront::{Device, PoolPolicy, QueueConfig};
use netfront_tests::stage::Stage;
use pcap_file::pcap::PcapReader;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/linux-linux.pcap");

fn packets(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap().data.into_owned());
    }
    packets
}

/// Sends the capture from the backend's side and returns what came out behind the frontend.
fn replay(policy: PoolPolicy, untrusted: bool) -> Vec<Vec<u8>> {
    let stage = Stage::new();
    let expected = packets(Path::new(RECORDED)).len() as u64;
    let peer = Replay::new(Path::new(RECORDED), Pace::default(), false).unwrap();
    let backend = stage.backend(0, peer);
    let config = QueueConfig {
        policy,
        untrusted,
        ..QueueConfig::default()
    };
    let mut device = Device::builder(0)
        .queue(config)
        .connect(&stage.guest())
        .unwrap();
    let out = stage.path("out.pcap");
    let mut consumer = Capture::new(Null, CaptureFile::create(&out, 65_535).unwrap());
    let end = Instant::now() + Duration::from_secs(60);
    while device.queue().stats().rx_packets.get() < expected {
        assert!(
            Instant::now() < end,
            "the replay did not end: {:?}",
            backend.counters()
        );
        if round(device.queue(), &mut consumer).unwrap() == 0 {
            sleep(device.queue(), &consumer, Duration::from_millis(10)).unwrap();
        }
    }
    device.close().unwrap();
    backend.stop().unwrap();
    drop(consumer);
    packets(&out)
}

#[test]
fn a_recorded_capture_comes_out_with_the_same_bytes_in_the_same_order() {
    let recorded = packets(Path::new(RECORDED));
    assert!(
        recorded.len() > 100,
        "the capture has {} packets",
        recorded.len()
    );
    assert!(
        recorded.iter().any(|packet| packet.len() > 4096),
        "none takes several slots"
    );
    for policy in PoolPolicy::ALL {
        assert_eq!(replay(policy, false), recorded, "with the policy {policy}");
    }
}

#[test]
fn it_does_so_too_when_the_backend_is_not_trusted() {
    assert_eq!(replay(PoolPolicy::Pool, true), packets(Path::new(RECORDED)));
}
