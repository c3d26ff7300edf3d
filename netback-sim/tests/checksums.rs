//! The checksum's three states through the backend, both ways: IPv4 and IPv6, TCP and UDP, for guests that take blank ones
//! of both families, of one, or of none. What a guest does not take is filled in on the way to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{until, Front, Shape, World};
use netfront_tests::packets::whole;
use netfront_tests::wire::wire;
use xen_ring::{Checksum, Offload};

const STATES: [Checksum; 3] = [Checksum::Blank, Checksum::Validated, Checksum::None];

fn words(bytes: &[u8]) -> u32 {
    let word =
        |pair: &[u8]| u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u32::from(*low));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Where the addresses are, where the transport header, and how far behind it the checksum is.
fn places(ipv6: bool, tcp: bool) -> (std::ops::Range<usize>, usize, usize) {
    let (addresses, transport) = if ipv6 { (22..54, 54) } else { (26..34, 34) };
    (addresses, transport, if tcp { 16 } else { 6 })
}

fn pseudo(frame: &[u8], ipv6: bool, tcp: bool) -> u32 {
    let (addresses, transport, _) = places(ipv6, tcp);
    let protocol = if tcp { 6 } else { 17 };
    words(&frame[addresses]) + protocol + (frame.len() - transport) as u32
}

/// 0xffff if the frame's checksum is right.
fn verify(frame: &[u8], ipv6: bool, tcp: bool) -> u16 {
    let (_, transport, _) = places(ipv6, tcp);
    fold(pseudo(frame, ipv6, tcp) + words(&frame[transport..]))
}

/// A frame with 333 bytes of payload, and its checksum as the state has it.
fn frame(ipv6: bool, tcp: bool, state: Checksum) -> Vec<u8> {
    let payload: Vec<u8> = (0..333_u16).map(|at| (at * 7) as u8).collect();
    let mut frame = whole(ipv6, tcp, false, &payload);
    let (_, transport, offset) = places(ipv6, tcp);
    let value = match state {
        Checksum::Blank => fold(pseudo(&frame, ipv6, tcp)),
        _ => !verify(&frame, ipv6, tcp),
    };
    let field = transport + offset;
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
    frame
}

#[test]
fn each_state_comes_through_both_ways_and_what_a_guest_does_not_take_is_filled_in() {
    for (ipv4_blank, ipv6_blank) in [(true, true), (true, false), (false, true), (false, false)] {
        let world = World::new();
        let (peer, mut far) = wire();
        let backend = world.serve(peer);
        let mut shape = Shape::default();
        shape.keys.extend([
            (
                "feature-no-csum-offload",
                if ipv4_blank { "0" } else { "1" },
            ),
            (
                "feature-ipv6-csum-offload",
                if ipv6_blank { "1" } else { "0" },
            ),
        ]);
        let mut front = Front::connect_as(world.guest(), &shape);
        front.post(Front::slots());
        let mut filled = 0;
        for (ipv6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            for state in STATES {
                let what = format!("IPv6 {ipv6}, TCP {tcp}, {state:?}, {ipv4_blank} {ipv6_blank}");
                let given = frame(ipv6, tcp, state);
                let offload = Offload {
                    checksum: state,
                    ..Offload::default()
                };
                assert!(front.send(&given, 1, &offload), "{what}");
                let came = far.wait(&what, |_| true);
                assert!(came == (given.clone(), offload), "from the guest: {what}");
                until("the answer", || front.settled());

                far.send(&given, offload);
                let mut received = Vec::new();
                until(&what, || {
                    received.extend(front.receive());
                    !received.is_empty()
                });
                let (bytes, said) = received.remove(0);
                let able = if ipv6 { ipv6_blank } else { ipv4_blank };
                if state == Checksum::Blank && !able {
                    filled += 1;
                    assert_eq!(said.checksum, Checksum::Validated, "{what}");
                    assert_eq!(verify(&bytes, ipv6, tcp), 0xffff, "{what}");
                } else {
                    assert_eq!(said, offload, "{what}");
                    assert!(bytes == given, "to the guest: {what}");
                }
            }
        }
        let counters = backend.counters();
        assert_eq!(
            counters.checksums_filled, filled,
            "{ipv4_blank} {ipv6_blank}"
        );
        assert_eq!(counters.tx_refused + counters.rx_unsupported, 0);
    }
}
