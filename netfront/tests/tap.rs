//! The TAP consumer with the kernel on one side and, through the rings, a backend's wire in the test's hands on the other.
//!
//! It needs CAP_NET_ADMIN and CAP_SYS_ADMIN (root), /dev/net/tun and the program `ip`; without them it says that it is
//! skipped, and passes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use common::toolstack::Toolstack;
use common::{until, Stopping, World, FRONT, PATIENCE};
use netback_sim::{Backend, BackendHandle, Config};
use netfront::consumer::{Tap, TapCounters};
use netfront::engine::{serve, Service};
use netfront::{Checksum, Device, Offload};
use netfront_tap::{namespace, TapOptions};
use netfront_tests::skipped;
use netfront_tests::wire::{wire, WireEnd};

/// The host at the other end of the wire.
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ADDRESSES: [&str; 2] = ["10.9.0.1", "fd00:9::1"];

fn ip(arguments: &str) {
    // A process belongs to the namespace of the thread that started it.
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    let output = output.expect("`ip`");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// Runs the test on a thread in a new network namespace, or says why not.
fn isolated(test: impl FnOnce() + Send) {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return skipped::not_on_this_machine("there is no /dev/net/tun");
    }
    if !skipped::there_is("ip") {
        return;
    }
    std::thread::scope(|scope| {
        let run = || match namespace::enter_new() {
            Ok(()) => test(),
            Err(error) => skipped::not_on_this_machine(error),
        };
        scope.spawn(run).join().expect("the test panicked");
    });
}

/// A backend that cannot fill in checksums over IPv6.
fn start(world: &World) -> (BackendHandle, WireEnd) {
    let (peer, far) = wire();
    let mut config = Config::new(FRONT, peer);
    config.features.ipv6_csum_offload = false;
    config.close_patience = PATIENCE;
    (Backend::start(&world.back, config).unwrap(), far)
}

/// A vif that is served by a TAP.
struct Served<'a> {
    world: &'a World,
    service: &'a Service,
    counters: &'a TapCounters,
    /// A second queue of the TAP, which gets no frames: the interface is looked at by it.
    eye: &'a netfront_tap::Tap,
}

/// Serves vif 0 by a TAP of a new namespace, with addresses and neighbours, while `test` is at work there.
fn with_tap(test: impl FnOnce(&Served<'_>, (BackendHandle, WireEnd)) + Send) {
    isolated(|| {
        let world = World::new();
        let first = start(&world);
        let options = TapOptions {
            name: "xn0".into(),
            queues: 2,
            ..TapOptions::default()
        };
        let device = netfront_tap::Tap::open(options).expect("a TAP");
        let mut eye = device.add_queue().expect("a second queue");
        eye.set_attached(false).expect("a detached queue");
        let mut tap = Tap::new(device);
        tap.announce_by(|| {
            let addresses = ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap());
            addresses.to_vec()
        });
        let counters: Arc<TapCounters> = tap.counters();
        let service = Service::default();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let device = Device::builder(0).connect(&world.front).unwrap();
                serve(device, &mut tap, &service)
            });
            let _stopping = Stopping(&service);
            until("the interface to be up", || eye.is_up().unwrap());
            ip("addr add 10.9.0.1/24 dev xn0");
            ip("addr add fd00:9::1/64 dev xn0 nodad");
            for neighbour in ["10.9.0.2", "fd00:9::2"] {
                ip(&format!(
                    "neigh add {neighbour} lladdr 02:00:00:00:00:02 dev xn0"
                ));
            }
            let served = Served {
                world: &world,
                service: &service,
                counters: &counters,
                eye: &eye,
            };
            test(&served, first);
            service.stop();
            serving.join().unwrap().unwrap();
        });
    });
}

/// The sum over the pseudo header and UDP.
fn udp_sum(frame: &[u8]) -> u32 {
    let (addresses, udp) = if frame[12] == 8 {
        (26..34, 34)
    } else {
        (22..54, 54)
    };
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2);
        let word = |pair: &[u8]| u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        pairs.map(word).sum()
    };
    let mut sum = words(&frame[addresses]) + 17 + (frame.len() - udp) as u32 + words(&frame[udp..]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn is_udp_with(text: &'static [u8]) -> impl Fn(&[u8]) -> bool {
    move |frame| frame[..6] == PEER && frame.ends_with(text)
}

#[test]
fn what_a_backend_cannot_fill_in_is_filled_in_and_the_rest_crosses_blank() {
    with_tap(|served, (backend, mut far)| {
        let counters = served.counters;
        let ipv4 = UdpSocket::bind("10.9.0.1:0").unwrap();
        let ipv6 = UdpSocket::bind("[fd00:9::1]:0").unwrap();
        ipv4.send_to(b"left blank", "10.9.0.2:7").unwrap();
        let (frame, offload) = far.wait("a datagram", is_udp_with(b"left blank"));
        assert_eq!(offload.checksum, Checksum::Blank);
        assert_ne!(udp_sum(&frame), 0xffff, "it is not blank");
        let before = counters.checksums_filled.get();
        ipv6.send_to(b"filled in", "[fd00:9::2]:7").unwrap();
        let (frame, offload) = far.wait("a datagram", is_udp_with(b"filled in"));
        assert_eq!(offload.checksum, Checksum::None);
        assert_eq!(udp_sum(&frame), 0xffff, "a wrong checksum");
        assert!(counters.checksums_filled.get() > before);

        // Back to the guest with each state: to a blank one the kernel adds, the two others it takes as they are.
        for (socket, sent) in [(&ipv4, b"from 4"), (&ipv6, b"from 6")] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let (to, from) = match socket.local_addr().unwrap() {
                std::net::SocketAddr::V4(_) => (ADDRESSES[0], "10.9.0.2"),
                std::net::SocketAddr::V6(_) => (ADDRESSES[1], "fd00:9::2"),
            };
            let port = socket.local_addr().unwrap().port();
            for state in [Checksum::Blank, Checksum::Validated, Checksum::None] {
                let mac = far_mac(&frame);
                let datagram = datagram(mac, from, to, port, sent, state);
                far.send(
                    &datagram,
                    Offload {
                        checksum: state,
                        ..Offload::default()
                    },
                );
                let mut bytes = [0; 64];
                let received = socket.recv(&mut bytes);
                let received = received.unwrap_or_else(|error| panic!("{to} {state:?}: {error}"));
                assert_eq!(&bytes[..received], sent, "{to} {state:?}");
            }
        }
        drop(backend);
    });
}

/// The guest's address, as the source of a frame of its.
fn far_mac(frame: &[u8]) -> [u8; 6] {
    frame[6..12].try_into().unwrap()
}

/// A datagram to the guest whose checksum is whole, or holds the pseudo header's sum if the state is blank.
fn datagram(
    mac: [u8; 6],
    from: &str,
    to: &str,
    port: u16,
    text: &[u8],
    state: Checksum,
) -> Vec<u8> {
    let len = (8 + text.len()) as u16;
    let mut frame = [&mac[..], &PEER].concat();
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            let mut sum: u32 = frame[14..34]
                .chunks(2)
                .map(|pair| u32::from(pair[0]) * 256 + u32::from(pair[1]))
                .sum();
            sum = (sum & 0xffff) + (sum >> 16);
            let header = !((sum & 0xffff) + (sum >> 16)) as u16;
            frame[24..26].copy_from_slice(&header.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("addresses of two families"),
    }
    let at = frame.len();
    frame.extend(7_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(text);
    let whole = udp_sum(&frame) as u16;
    let value = match state {
        // Without what stands in the header and behind it: the sums of both are those of a frame of zeros.
        Checksum::Blank => {
            let mut empty = frame.clone();
            empty[at..].fill(0);
            udp_sum(&empty) as u16
        }
        _ => !whole,
    };
    frame[at + 6..at + 8].copy_from_slice(&value.to_be_bytes());
    frame
}

#[test]
fn after_a_reconnect_the_interfaces_addresses_are_announced_on_the_wire() {
    with_tap(|served, (backend, _far)| {
        backend.stop().unwrap();
        let (backend, mut far) = start(served.world);
        until("another connection", || {
            served.service.connections.load(Ordering::Relaxed) == 2
        });
        let is_request = |frame: &[u8]| frame[12..14] == [8, 6] && frame[28..32] == [10, 9, 0, 1];
        let (request, _) = far.wait("a gratuitous ARP request", is_request);
        assert_eq!(request[28..32], request[38..42]);
        let is_advertisement =
            |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 136;
        let (advertisement, _) = far.wait("an advertisement", is_advertisement);
        assert_eq!(advertisement[22..38], advertisement[62..78]);
        assert_eq!(served.counters.announced.get(), 2);
        drop(backend);
    });
}

#[test]
fn a_speed_in_the_store_is_what_the_interface_says() {
    with_tap(|served, ends| {
        let mut toolstack = Toolstack::of(served.world);
        for (told, said) in [
            ("10G", Some(10_000_000_000)),
            ("100M", Some(100_000_000)),
            ("40", Some(40_000_000_000)),
            ("", None),
        ] {
            toolstack.front("speed", told);
            until(told, || served.eye.speed().unwrap() == said);
        }
        drop(ends);
    });
}

#[test]
fn what_an_administrator_sets_holds_until_the_store_says_something_new_and_through_a_reconnect() {
    with_tap(|served, (backend, _far)| {
        let mut toolstack = Toolstack::of(served.world);
        let has = |mtu| served.eye.mtu().unwrap() == mtu;
        let other = [2, 0, 0, 0, 0, 9];
        ip("link set xn0 down");
        ip("link set xn0 mtu 1400 address 02:00:00:00:00:09");
        // Another word of the store's, about something else.
        toolstack.front("speed", "1G");
        until("the speed", || {
            served.eye.speed().unwrap() == Some(1_000_000_000)
        });
        assert!(has(1400) && !served.eye.is_up().unwrap());
        backend.stop().unwrap();
        let ends = start(served.world);
        until("another connection", || {
            served.service.connections.load(Ordering::Relaxed) == 2
        });
        // The link is told again right after it; a change that comes behind it is seen when it was told.
        toolstack.front("speed", "10G");
        until("the speed", || {
            served.eye.speed().unwrap() == Some(10_000_000_000)
        });
        assert!(has(1400), "the MTU was undone by a reconnect");
        assert_eq!(served.eye.mac().unwrap(), other);
        assert!(!served.eye.is_up().unwrap(), "it was taken up again");
        toolstack.front("mtu", 1300);
        until("the store's new MTU", || has(1300));
        assert_eq!(served.eye.mac().unwrap(), other);
        assert!(!served.eye.is_up().unwrap(), "it was taken up again");
        drop(ends);
    });
}

#[test]
fn what_the_store_says_is_followed_also_while_the_cable_is_out() {
    with_tap(|served, ends| {
        let mut toolstack = Toolstack::of(served.world);
        toolstack.front("disconnect", 1);
        toolstack.front("mtu", 1400);
        toolstack.front("speed", "1G");
        until("the MTU", || served.eye.mtu().unwrap() == 1400);
        until("the speed", || {
            served.eye.speed().unwrap() == Some(1_000_000_000)
        });
        drop(ends);
    });
}
