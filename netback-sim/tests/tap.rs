//! A TCP stream between two network namespaces: one has the guest's TAP, one the backend's, and
//! the rings are between them. Needs root, /dev/net/tun and `ip`; says so and passes without.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use common::{Front, World};
use netback_sim::peer::TapPeer;
use netfront_tap::{header, namespace, Offloads, Tap, TapOptions, VnetHeader, HEADER_SIZE};
use netfront_tests::skipped;
use xen_ring::{Checksum, Gso, GsoKind, Offload};

const TOTAL: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace with a TAP at 10.9.0.`host`, on a thread that does jobs there.
fn stack(host: u8) -> Option<(Tap, mpsc::Sender<Job>)> {
    if !skipped::there_is("ip") {
        return None;
    }
    let (jobs, queue) = mpsc::channel::<Job>();
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        if let Err(error) = namespace::enter_new() {
            return skipped::not_on_this_machine(error);
        }
        let tap = match Tap::open(TapOptions::default()) {
            Ok(tap) => tap,
            Err(error) => return skipped::not_on_this_machine(error),
        };
        for arguments in [
            format!("addr add 10.9.0.{host}/24 dev {}", tap.name()),
            format!("link set {} up", tap.name()),
        ] {
            let status = Command::new("ip").args(arguments.split(' ')).status();
            assert!(status.unwrap().success(), "ip {arguments}");
        }
        give.send(tap).unwrap();
        queue.into_iter().for_each(|job| job());
    });
    take.recv().ok().map(|tap| (tap, jobs))
}

fn said_of(header: &VnetHeader) -> Offload {
    Offload {
        checksum: match header.needs_checksum() {
            true => Checksum::Blank,
            false => Checksum::None,
        },
        gso: (header.gso_kind() == header::GSO_TCPV4).then_some(Gso {
            size: header.gso_size,
            kind: GsoKind::TcpV4,
        }),
        hash: None,
    }
}

fn header_of(frame: &[u8], offload: &Offload) -> VnetHeader {
    let mut result = VnetHeader::default();
    if offload.checksum == Checksum::Blank {
        result.flags = header::FLAG_NEEDS_CSUM;
        result.csum_start = 34;
        result.csum_offset = if frame[23] == 6 { 16 } else { 6 };
    }
    if let Some(gso) = offload.gso {
        result.gso_type = header::GSO_TCPV4;
        result.gso_size = gso.size;
        result.hdr_len = 34 + u16::from(frame[46] >> 4) * 4;
    }
    result
}

#[test]
fn a_tcp_stream_crosses_the_rings_in_large_segments_both_ways() {
    let (Some((back_tap, back)), Some((guest_tap, guest))) = (stack(1), stack(2)) else {
        return;
    };
    guest_tap.set_offloads(Offloads::all()).unwrap();
    let world = World::new();
    let backend = world.serve(TapPeer::new(back_tap));
    let mut front = Front::connect(world.guest());
    front.post(Front::slots());

    // Each side sends as much as it receives: the server echoes.
    let (ready, listening) = mpsc::channel();
    back.send(Box::new(move || {
        let listener = TcpListener::bind("10.9.0.1:7000").unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut out = stream.try_clone().unwrap();
        std::io::copy(&mut stream, &mut out).unwrap();
    }))
    .unwrap();
    listening.recv_timeout(common::PATIENCE).unwrap();
    let (done, result) = mpsc::channel();
    guest
        .send(Box::new(move || {
            let stream = TcpStream::connect("10.9.0.1:7000").unwrap();
            let mut out = stream.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                let bytes: Vec<u8> = (0..TOTAL).map(|i| (i % 251) as u8).collect();
                out.write_all(&bytes).unwrap();
                out.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut all = Vec::new();
            let mut stream = stream;
            stream.read_to_end(&mut all).unwrap();
            sender.join().unwrap();
            done.send(all).unwrap();
        }))
        .unwrap();

    let stop = AtomicBool::new(false);
    let received = std::thread::scope(|scope| {
        scope.spawn(|| guest_loop(&mut front, &guest_tap, &stop));
        let received = result.recv_timeout(common::PATIENCE * 3);
        stop.store(true, Ordering::Relaxed);
        received
    });
    let received = received.expect("the stream within the deadline");
    assert_eq!(received.len(), TOTAL);
    assert!(received
        .iter()
        .enumerate()
        .all(|(i, b)| *b == (i % 251) as u8));
    let counters = backend.counters();
    // A large segment takes many slots: on average there must be more than two a frame one way or
    // the other, acknowledgements included.
    assert!(counters.tx_slots > counters.tx_packets, "{counters:?}");
    assert!(counters.rx_slots > counters.rx_packets, "{counters:?}");
    assert_eq!(counters.tx_refused + counters.tx_copy_failed, 0);
    assert_eq!(counters.rx_copy_failed + counters.rx_unsupported, 0);
    assert_eq!(backend.peer_dropped(), 0);
}

/// The guest: its TAP on one side, its rings on the other.
fn guest_loop(front: &mut Front, tap: &Tap, stop: &AtomicBool) {
    let (mut header, mut frame) = ([0; HEADER_SIZE], vec![0; 65_600]);
    let mut waiting: Option<(usize, Offload)> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        front.reap();
        if waiting.is_none() {
            let received = tap.receive(&mut header, &mut [IoSliceMut::new(&mut frame)]);
            waiting = received
                .unwrap()
                .map(|len| (len, said_of(&VnetHeader::decode(&header))));
        }
        if let Some((len, offload)) = &waiting {
            if front.send(&frame[..*len], len.div_ceil(4096), offload) {
                waiting = None;
                idle = false;
            }
        }
        for (bytes, offload) in front.receive() {
            let header = header_of(&bytes, &offload).encode();
            let _ = tap
                .send(&[IoSlice::new(&header), IoSlice::new(&bytes)])
                .unwrap();
            idle = false;
        }
        if idle {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}
