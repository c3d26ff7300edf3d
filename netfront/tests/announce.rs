//! Telling the neighbours where the addresses are now, through the rings: what the backend sees after it came back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use common::{until, Stopping, World, FRONT, PATIENCE};
use netback_sim::{Backend, BackendHandle, Config};
use netfront::engine::{serve, Service};
use netfront::{announce, Checksum, Consumer, Device, Offload, Packet, Queue};
use netfront_tests::wire::{wire, WireEnd};

const MAC: [u8; 6] = [0, 0x16, 0x3e, 1, 2, 3];

fn addresses() -> Vec<IpAddr> {
    ["10.0.0.7", "fe80::216:3eff:fe01:203", "127.0.0.1"]
        .map(|address| address.parse().unwrap())
        .to_vec()
}

/// A program that has two addresses and one that nobody else should hear of.
struct Addressed;

impl Consumer for Addressed {
    fn deliver(&mut self, _: &mut Packet<'_>) {}

    fn announce(&mut self, queue: &mut Queue) {
        assert_eq!(announce::send(queue, MAC, &addresses()), Ok(2));
        queue.flush().unwrap();
    }
}

fn start(world: &World) -> (BackendHandle, WireEnd) {
    let (peer, far) = wire();
    let mut config = Config::new(FRONT, peer);
    config.close_patience = PATIENCE;
    (Backend::start(&world.back, config).unwrap(), far)
}

/// The ones' complement sum, the test's own.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// The two frames, and that they can be believed.
fn check(far: &mut WireEnd) {
    let (arp, offload) = far.wait("a gratuitous ARP request", |_| true);
    assert_eq!(offload, Offload::default());
    assert_eq!((&arp[..6], &arp[6..12]), (&[0xff; 6][..], &MAC[..]));
    assert_eq!(arp[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1], "a request");
    assert_eq!((&arp[22..28], &arp[28..32]), (&MAC[..], &[10, 0, 0, 7][..]));
    assert_eq!(arp[38..42], arp[28..32], "of its own address");

    let (advertisement, offload) = far.wait("an advertisement", |_| true);
    assert_eq!(offload.checksum, Checksum::None);
    assert_eq!(advertisement[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(advertisement[12..14], [0x86, 0xdd]);
    assert_eq!((advertisement[20], advertisement[21]), (58, 255));
    assert_eq!(advertisement[54], 136);
    assert_eq!(
        advertisement[22..38],
        advertisement[62..78],
        "of its own address"
    );
    assert_eq!(advertisement[80..86], MAC);
    // Pseudo header and message; the length is small enough for one number.
    let all = sum(&advertisement[22..54]) + 58 + 32 + sum(&advertisement[54..]);
    assert_eq!((all & 0xffff) + (all >> 16), 0xffff, "a wrong checksum");
    assert!(far.received().is_none(), "two, and no third for 127.0.0.1");
}

#[test]
fn after_each_reconnect_the_backend_sees_a_gratuitous_arp_request_and_an_advertisement() {
    let world = World::new();
    let (mut backend, mut far) = start(&world);
    let service = Service::default();
    let connections = || service.connections.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let device = Device::builder(0).connect(&world.front).unwrap();
            serve(device, &mut Addressed, &service)
        });
        let _stopping = Stopping(&service);
        until("the first connection", || connections() == 1);
        for connection in 2..4 {
            assert!(far.received().is_none(), "nothing is announced before");
            backend.stop().unwrap();
            (backend, far) = start(&world);
            until("another connection", || connections() == connection);
            check(&mut far);
        }
        service.stop();
        serving.join().unwrap().unwrap();
        backend.stop().unwrap();
    });
}
