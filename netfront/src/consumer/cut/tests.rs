//! Large segments cut by software, through the rings of the simulator to a backend that cannot cut them.

use netback_sim::{Backend, Config};
use netfront_tests::stage::{Stage, FRONT};
use netfront_tests::until;
use netfront_tests::wire::wire;

use super::*;
use crate::offload::{fold, sum};
use crate::Device;
use xen_ring::GsoKind;

const MTU: usize = 1500;
/// Ethernet, and TCP without options.
const ETHERNET: usize = 14;
const TCP: usize = 20;

/// A TCP packet with so many bytes of payload, as a TAP gives it: the checksum holds the pseudo header's sum.
fn packet(ipv6: bool, payload: usize) -> Vec<u8> {
    let len = (TCP + payload) as u16;
    let mut packet = vec![2; 12];
    let addresses = if ipv6 {
        packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        packet.extend(len.to_be_bytes());
        packet.extend([6, 64]);
        packet.extend(1..33);
        22..54
    } else {
        packet.extend([8, 0, 0x45, 0]);
        packet.extend((len + 20).to_be_bytes());
        packet.extend([0, 9, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        26..34
    };
    let pseudo = fold(sum(&packet[addresses], false) + 6 + u64::from(len));
    packet.extend([0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 9, 0x50, 0x18, 1, 0]);
    packet.extend(pseudo.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend((0..payload).map(|at| (at * 7 + at / 251) as u8));
    packet
}

/// What a network card of the receiver would look at; gives sequence number and payload.
fn judge(frame: &[u8], ipv6: bool) -> (u32, &[u8]) {
    let (network, addresses) = if ipv6 { (40, 22..54) } else { (20, 26..34) };
    assert!(frame.len() <= ETHERNET + MTU, "{} bytes", frame.len());
    let told = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if ipv6 {
        assert_eq!(told(18), frame.len() - ETHERNET - network);
    } else {
        assert_eq!(told(16), frame.len() - ETHERNET);
        assert_eq!(fold(sum(&frame[ETHERNET..34], false)), 0xffff);
    }
    let tcp = &frame[ETHERNET + network..];
    let whole = sum(&frame[addresses], false) + 6 + tcp.len() as u64 + sum(tcp, false);
    assert_eq!(fold(whole), 0xffff, "a wrong checksum");
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    (sequence, &tcp[TCP..])
}

#[test]
fn a_large_segment_of_either_family_reaches_a_backend_that_cannot_cut_as_whole_packets_with_right_checksums(
) {
    let stage = Stage::new();
    let (peer, mut far) = wire();
    let mut config = Config::new(FRONT, peer);
    for name in ["gso-tcpv4", "gso-tcpv6", "ipv6-csum-offload"] {
        config.features.switch_off(name).expect("a feature");
    }
    let backend = Backend::start(&stage.back, config).expect("a backend");
    let mut device = Device::builder(0)
        .connect(&stage.guest())
        .expect("connected");
    let features = device.link().features;
    assert!(!features.gso_tcpv4 && !features.gso_tcpv6);
    let mut cut = Cut::default();
    // The last is as long as IPv4 can tell, and has more pieces than a small budget lets out at once.
    for (payload, size) in [(1, 1440), (1441, 1440), (20_000, 1000), (65_495, 536)] {
        for ipv6 in [false, true] {
            let whole = packet(ipv6, payload);
            let kind = if ipv6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
            let gso = Gso { size, kind };
            cut.take(whole.chunks(4096), whole.len(), gso).expect("TCP");
            let pieces = payload.div_ceil(usize::from(size));
            let mut sent = 0;
            until("all pieces to be sent", || {
                sent += cut.send(device.queue(), 7);
                device.queue().flush().expect("flushed");
                device.queue().reclaim().expect("a sound ring");
                cut.is_done()
            });
            assert_eq!(sent, pieces, "{payload} {size} {ipv6}");
            let mut together = Vec::new();
            for _ in 0..pieces {
                let (frame, offload) = far.wait("a piece", |_| true);
                assert_eq!(offload, Offload::default());
                let (sequence, bytes) = judge(&frame, ipv6);
                assert_eq!(sequence as usize, together.len());
                together.extend_from_slice(bytes);
            }
            assert!(
                together == whole[whole.len() - payload..],
                "{payload} {size} {ipv6}"
            );
        }
    }
    assert!(far.received().is_none(), "nothing more was sent");
    device.close().expect("closed");
    let counters = backend.stop().expect("stopped").counters;
    assert_eq!((counters.tx_refused, counters.faults), (0, 0));
}

#[test]
fn what_is_no_whole_segment_of_its_kind_is_not_taken_and_nothing_waits() {
    let mut cut = Cut::default();
    let gso = Gso {
        size: 1440,
        kind: GsoKind::TcpV4,
    };
    let whole = packet(true, 5000);
    assert!(cut
        .take([&whole[..]].into_iter(), whole.len(), gso)
        .is_err());
    assert!(cut.is_done());
}
