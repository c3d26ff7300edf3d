//! The example `forward` between backends that differ: what the other one does not do is done on the way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use netback_sim::{Backend, BackendHandle, Config};
use netfront::offload::{fill_checksum, Headers};
use netfront::{Checksum, Gso, GsoKind, Offload};
use netfront_tests::packets::whole;
use netfront_tests::stage::{Stage, FRONT};
use netfront_tests::wire::{wire, WireEnd};

use common::example::{example, Guest};
use common::frame;

/// Payload of a piece.
const SIZE: u16 = 1400;
/// Times that each kind of packet is sent, before any is looked at.
const ROUNDS: usize = 20;

/// A backend for this vif without some features, and the far end of its wire.
fn without(stage: &Stage, vif: u32, names: &[&str]) -> (BackendHandle, WireEnd) {
    let (peer, end) = wire();
    let mut config = Config {
        handle: vif,
        ..Config::new(FRONT, peer)
    };
    for name in names {
        config.features.switch_off(name).unwrap();
    }
    (Backend::start(&stage.back, config).unwrap(), end)
}

/// A packet whose checksum holds the sum of the pseudo header only.
fn blank(ipv6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = whole(ipv6, tcp, false, payload);
    let len = packet.len();
    let headers = Headers::parse(&packet).unwrap();
    headers.write_pseudo_checksum(&mut packet, len);
    packet
}

/// The same packet with the checksum that it must have.
fn filled(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let len = packet.len();
    let headers = Headers::parse(&packet).unwrap();
    headers.write_pseudo_checksum(&mut packet, len);
    let (start, offset) = (headers.transport_at, headers.transport.checksum_offset());
    fill_checksum(&mut [&mut packet[..]], len, start.into(), offset.into());
    packet
}

fn said(gso: Option<Gso>) -> Offload {
    Offload {
        checksum: Checksum::Blank,
        gso,
        ..Offload::default()
    }
}

#[test]
fn forward_cuts_segments_and_fills_checksums_in_for_a_backend_that_does_neither() {
    let program = example("forward");
    let stage = Stage::new();
    let (left, mut near) = without(&stage, 0, &[]);
    let unable = ["gso-tcpv4", "gso-tcpv6", "ipv6-csum-offload"];
    let (right, mut far) = without(&stage, 1, &unable);
    let arguments = ["--vif", "0", "--to", "1", "--offload"];
    let mut forward = Guest::start(&program, &stage.socket, &arguments);
    assert_eq!(forward.line(), "forwarding between vif 0 and vif 1\n");
    // Far more pieces in all than the ring has slots: those of a packet wait for room, and the next packet for them.
    let payload = frame(60_000, 7);
    for _ in 0..ROUNDS {
        for ipv6 in [false, true] {
            let kind = match ipv6 {
                true => GsoKind::TcpV6,
                false => GsoKind::TcpV4,
            };
            let gso = Gso { size: SIZE, kind };
            near.send(&blank(ipv6, true, &payload), said(Some(gso)));
            near.send(&blank(ipv6, false, &payload[..1000]), said(None));
        }
    }
    for round in 0..ROUNDS {
        for ipv6 in [false, true] {
            let mut together = Vec::new();
            while together.len() < payload.len() {
                let (piece, offload) = far.wait("a piece", |_| true);
                let at = Headers::parse(&piece).unwrap().payload_at(&piece);
                assert_eq!(offload, Offload::default(), "round {round}");
                assert!(piece.len() <= usize::from(at) + usize::from(SIZE));
                assert!(piece == filled(&piece), "a wrong checksum");
                together.extend_from_slice(&piece[usize::from(at)..]);
            }
            assert!(together == payload, "round {round}, IPv6: {ipv6}");
            let (datagram, offload) = far.wait("a datagram", |_| true);
            let given = blank(ipv6, false, &payload[..1000]);
            match ipv6 {
                // It takes blank ones over IPv4: nothing is done that it does.
                false => assert!((datagram, offload) == (given, said(None))),
                true => assert!((datagram, offload) == (filled(&given), Offload::default())),
            }
        }
    }
    // And back, where everything is taken, nothing is changed. (A backend sends no more than it takes.)
    let datagram = blank(false, false, &payload[..1000]);
    far.send(&datagram, said(None));
    assert!(near.wait("a datagram", |_| true) == (datagram, said(None)));
    for backend in [left, right] {
        assert_eq!((backend.fault(), backend.counters().tx_refused), (None, 0));
    }
}
