//! The examples do what they say: each runs as a process of its own, as the guest of a simulated Xen.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::mpsc::{self, Receiver, Sender};

use hypervisor::{sim, DomId};
use netback_sim::{peer, BackendHandle};
use netfront_tests::stage::{all_came, source, Stage};

use common::example::{example, Guest, Wire};
use common::{until, FRONT, PATIENCE};

/// The MAC that the toolstack gives the guest.
const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 0x00, 0x00, 0x01];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An IPv4 frame from 10.0.0.9 to 10.0.0.2 with this protocol and payload.
fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&MAC[..], &PEER, &[8, 0]].concat();
    let len = (20 + payload.len()) as u16;
    let mut header = vec![
        0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 9, 10, 0, 0, 2,
    ];
    header[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = !ones_sum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// A backend whose packets are in the test's hands: those to the guest, and those from it.
fn wired(world: &Stage) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>, BackendHandle) {
    let (guest, to_guest) = mpsc::channel();
    let (from_guest, wire) = mpsc::channel();
    let end = Wire {
        to_guest,
        from_guest,
    };
    (guest, wire, world.backend(0, end))
}

#[test]
fn echo_answers_arp_ping_and_udp_for_its_address() {
    let program = example("echo");
    let world = Stage::new();
    let (guest, wire, _backend) = wired(&world);
    let mut echo = Guest::start(&program, &world.socket, &["--address", "10.0.0.2"]);
    assert_eq!(echo.line(), "answering for 10.0.0.2\n");
    let ask = |question: &[u8]| -> Vec<u8> {
        guest.send(question.to_vec()).unwrap();
        wire.recv_timeout(PATIENCE).expect("an answer")
    };

    let mut arp = [&[0xff; 6][..], &PEER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    arp.extend([&PEER[..], &[10, 0, 0, 9], &[0; 6], &[10, 0, 0, 2]].concat());
    let answer = ask(&arp);
    assert_eq!(answer[..14], [&PEER[..], &MAC, &[8, 6]].concat());
    assert_eq!(answer[20..22], [0, 2], "an answer");
    assert_eq!(answer[22..32], [&MAC[..], &[10, 0, 0, 2]].concat());
    assert_eq!(answer[32..42], [&PEER[..], &[10, 0, 0, 9]].concat());

    let mut ping = vec![8, 0, 0, 0, 0x12, 0x34, 0, 7];
    ping.extend(b"abcdefghijklmnopqrstuvwxyz0123456789");
    let sum = !ones_sum(&ping);
    ping[2..4].copy_from_slice(&sum.to_be_bytes());
    let answer = ask(&ipv4(1, &ping));
    assert_eq!(answer[..14], [&PEER[..], &MAC, &[8, 0]].concat());
    assert_eq!(answer[26..34], [10, 0, 0, 2, 10, 0, 0, 9]);
    assert_eq!(
        (answer[34], ones_sum(&answer[34..])),
        (0, 0xffff),
        "a pong with a good checksum"
    );
    assert_eq!(
        ones_sum(&answer[14..34]),
        0xffff,
        "and so is the IP header's"
    );
    assert_eq!(answer[38..], ping[4..]);

    for len in [1usize, 100, 1400] {
        let data = common::frame(len, 1);
        let mut udp = vec![0x30, 0x39, 0, 7, 0, 0, 0xaa, 0xaa];
        udp[4..6].copy_from_slice(&(8 + len as u16).to_be_bytes());
        udp.extend(&data);
        let answer = ask(&ipv4(17, &udp));
        assert_eq!(answer[34..38], [0, 7, 0x30, 0x39], "the ports swapped");
        assert_eq!(answer[40..42], [0, 0], "no checksum");
        assert_eq!(answer[42..], data);
        assert_eq!(ones_sum(&answer[14..34]), 0xffff);
    }

    // Not for us, cut off, or no question: no answer, and the next question gets its own.
    let mut stranger = arp.clone();
    stranger[41] = 3;
    for silent in [
        stranger,
        ipv4(6, &[0; 20]),
        ipv4(17, &[1, 2, 3]),
        vec![8; 14],
        arp[..30].to_vec(),
    ] {
        guest.send(silent).unwrap();
    }
    assert_eq!(ask(&arp)[20..22], [0, 2]);
    assert!(wire.try_recv().is_err());
}

/// More pieces than a packet may have slots, and more than the smallest answer has bytes.
#[test]
fn echo_answers_in_so_many_pieces_and_nobody_sees_it() {
    let program = example("echo");
    let world = Stage::new();
    let (guest, wire, _backend) = wired(&world);
    let arguments = ["--address", "10.0.0.2", "--pieces", "64"];
    let mut echo = Guest::start(&program, &world.socket, &arguments);
    assert_eq!(echo.line(), "answering for 10.0.0.2\n");
    for len in [1usize, 1000, 9001, 60_000] {
        let data = common::frame(len, 1);
        let mut udp = vec![0x30, 0x39, 0, 7, 0, 0, 0, 0];
        udp[4..6].copy_from_slice(&(8 + len as u16).to_be_bytes());
        udp.extend(&data);
        guest.send(ipv4(17, &udp)).unwrap();
        let answer = wire.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!(answer.len(), 42 + len);
        assert_eq!(answer[34..38], [0, 7, 0x30, 0x39], "the ports swapped");
        assert!(answer[42..] == data, "{len} bytes come back as they went");
    }
}

#[test]
fn send_sends_so_many_frames_of_a_size_and_ends() {
    let program = example("send");
    let world = Stage::new();
    let backend = world.backend(0, peer::Sink::blind());
    let arguments = [
        "--count",
        "5000",
        "--size",
        "1000",
        "--to",
        "02:00:00:00:00:09",
    ];
    let mut send = Guest::start(&program, &world.socket, &arguments);
    let line = send.line();
    assert!(line.starts_with("5000 frames in "), "{line}");
    send.finish();
    let counters = backend.counters();
    assert_eq!((counters.tx_packets, counters.tx_bytes), (5000, 5_000_000));
}

#[test]
fn count_prints_packets_and_bytes_a_second() {
    let program = example("count");
    let world = Stage::new();
    let _backend = world.backend(0, source("600", 5000, 0));
    let mut count = Guest::start(&program, &world.socket, &[]);
    let counted = (0..10).any(|_| {
        let line = count.line();
        assert!(
            line.contains("packets/s") && line.contains("bytes/s"),
            "{line}"
        );
        !line.trim().starts_with("0 packets")
    });
    assert!(counted, "packets were sent all the time");
}

/// Datagrams with the numbers of `receive`, to its address, each flow from a port of its own.
fn numbered(flow: u16, number: u64) -> Vec<u8> {
    let mut udp = (12345 + flow).to_be_bytes().to_vec();
    udp.extend([0x23, 0x28, 0, 26, 0, 0]);
    udp.extend(number.to_be_bytes());
    udp.extend(flow.to_be_bytes());
    udp.extend([0; 8]);
    ipv4(17, &udp)
}

/// Somebody asks for the guest's address, which tells that what was sent before is taken: a backend holds so many and no more.
fn question() -> Vec<u8> {
    let mut arp = [&[0xff; 6][..], &PEER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    arp.extend([&PEER[..], &[10, 0, 0, 9], &[0; 6], &[10, 0, 0, 2]].concat());
    arp
}

/// K-12, L-16: with workers and without, what came is counted, what is missing is told, and ARP is answered.
#[test]
fn receive_counts_datagrams_on_its_cores_and_tells_what_was_lost() {
    let program = example("receive");
    for workers in ["0", "2"] {
        let world = Stage::new();
        let (guest, wire, _backend) = wired(&world);
        let arguments = ["--address", "10.0.0.2", "--workers", workers, "--json"];
        let mut receive = Guest::start(&program, &world.socket, &arguments);
        assert_eq!(receive.line(), "receiving for 10.0.0.2:9000\n");
        let ask = || {
            guest.send(question()).unwrap();
            wire.recv_timeout(PATIENCE).expect("an answer")
        };
        let answer = ask();
        assert_eq!(answer[..12], [&PEER[..], &MAC].concat());
        assert_eq!(answer[20..22], [0, 2]);
        // Every tenth is missing.
        for number in (0..1000).filter(|number| number % 10 != 3) {
            guest.send(numbered(0, number)).unwrap();
            if number % 20 == 0 {
                ask();
            }
            // Whoever answers may be another worker than has the flow, of which a lane keeps 512.
            if number % 400 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        guest.send(numbered(0, u64::MAX)).unwrap();
        let report: serde_json::Value = serde_json::from_str(&receive.line()).unwrap();
        assert_eq!(report["delivered"], 900, "{report}");
        assert_eq!(report["lost"], 100, "{report}");
        assert_eq!(report["out_of_order"], 0, "{report}");
        assert!(report["rounds"].as_u64().unwrap() > 0, "{report}");
        receive.finish();
    }
}

/// K-7: connections that are moved all the time, and their queue with them, keep the order of each flow.
#[test]
fn receive_keeps_the_order_of_each_flow_while_it_binds_anew() {
    let program = example("receive");
    let world = Stage::new();
    let (guest, wire, _backend) = wired(&world);
    let options =
        "--address 10.0.0.2 --event-cores 2 --workers 2 --rebind 1 --check-order --work 100 --json";
    let arguments: Vec<&str> = options.split(' ').collect();
    let mut receive = Guest::start(&program, &world.socket, &arguments);
    receive.line();
    for number in 0..50 {
        for flow in 0..64 {
            guest.send(numbered(flow, number)).unwrap();
            if flow % 16 == 0 {
                guest.send(question()).unwrap();
                wire.recv_timeout(PATIENCE).expect("an answer");
            }
        }
        // One worker answers. The other loses what is more than a lane holds, 512 packets, if it gets no processor
        // meanwhile: so many come in a row, whoever is to have them, and then there is time.
        if number % 7 == 6 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    guest.send(numbered(0, u64::MAX)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&receive.line()).unwrap();
    assert_eq!(
        (&report["delivered"], &report["flows"]),
        (&3200.into(), &64.into()),
        "{report}"
    );
    assert_eq!(report["lost"], 0, "{report}");
    assert_eq!(report["out_of_order"], 0, "{report}");
    assert_eq!(report["order_violations"], 0, "{report}");
    assert!(report["rebindings"].as_u64().unwrap() > 0, "{report}");
    receive.finish();
}

#[test]
fn capture_writes_a_file_that_can_be_read() {
    let program = example("capture");
    let world = Stage::new();
    let _backend = world.backend(0, source("600", 5000, 0));
    let file = world.path("out.pcap");
    let path = file.to_str().unwrap();
    let arguments = ["--file", path, "--packets", "100"];
    let mut capture = Guest::start(&program, &world.socket, &arguments);
    capture.finish();
    let mut reader = pcap_file::pcap::PcapReader::new(std::fs::File::open(&file).unwrap()).unwrap();
    let mut packets = 0;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        assert_eq!((packet.data.len(), packet.orig_len), (600, 600));
        packets += 1;
    }
    assert!(
        (100..164).contains(&packets),
        "a whole batch at the end: {packets}"
    );
}

/// A backend that sends so many frames of all sizes as fast as they are taken.
fn verifier(stage: &Stage, vif: u32, count: u64) -> BackendHandle {
    stage.backend(vif, source("mix", 0, count))
}

#[test]
fn forward_carries_each_vifs_frames_to_the_other_and_loses_none_at_full_speed() {
    let program = example("forward");
    let stage = Stage::new();
    let (left, right) = (verifier(&stage, 0, 20_000), verifier(&stage, 1, 20_000));
    let mut forward = Guest::start(&program, &stage.socket, &["--vif", "0", "--to", "1"]);
    assert_eq!(forward.line(), "forwarding between vif 0 and vif 1\n");
    all_came(&left, 20_000);
    all_came(&right, 20_000);
    assert_eq!((left.fault(), right.fault()), (None, None));
}

#[test]
fn forward_goes_on_when_one_backend_has_left_and_comes_back() {
    let program = example("forward");
    let stage = Stage::new();
    let (left, right) = (verifier(&stage, 0, 100), verifier(&stage, 1, 100));
    let _forward = Guest::start(&program, &stage.socket, &["--vif", "0", "--to", "1"]);
    all_came(&left, 100);
    all_came(&right, 100);
    right.stop().unwrap();
    let right = verifier(&stage, 1, 100);
    // The same numbers again, so not verified: a verifier takes them for doubles.
    until("the second 100 frames", || {
        left.counters().tx_packets == 200
    });
    drop(right);
}

#[test]
fn forward_goes_on_after_a_restore_with_both_vifs() {
    let program = example("forward");
    let stage = Stage::new();
    let before = [0, 1].map(|vif| verifier(&stage, vif, 100));
    let forward = Guest::start(&program, &stage.socket, &["--vif", "0", "--to", "1"]);
    before.iter().for_each(|backend| all_came(backend, 100));
    let saved = sim::save(&stage.socket, FRONT).unwrap();
    for backend in before {
        backend.abandon().unwrap();
    }
    stage.remove_vifs_of(FRONT);
    let number = DomId(7);
    let after = [0, 1].map(|vif| stage.backend_for(number, vif, source("mix", 0, 100)));
    saved.restore(number).unwrap();
    // The vifs connect one after the other: what the first backend sends meanwhile waits or is lost.
    until("frames both ways", || {
        let came = after
            .each_ref()
            .map(|backend| backend.counters().tx_packets);
        came.iter().all(|packets| *packets > 0)
    });
    drop(forward);
    assert_eq!(sim::kernel_bugs(&stage.socket).unwrap(), 0);
}

#[test]
fn generate_sends_numbered_frames_at_a_rate_and_says_so() {
    let program = example("generate");
    let (_guest, to_guest) = mpsc::channel();
    let (from_guest, wire) = mpsc::channel();
    let stage = Stage::new();
    let end = Wire {
        to_guest,
        from_guest,
    };
    let _backend = stage.backend(0, end);
    let arguments = [
        "--rate",
        "1000",
        "--count",
        "1500",
        "--size",
        "100",
        "--to",
        "02:00:00:00:00:09",
    ];
    let mut generate = Guest::start(&program, &stage.socket, &arguments);
    assert!(generate.line().contains("frames/s"), "one line a second");
    // More of these on a busy machine, and then one about all.
    let mut line = generate.line();
    while !line.is_empty() && !line.starts_with("1500 frames in ") {
        line = generate.line();
    }
    assert!(!line.is_empty(), "it ended without a last line");
    generate.finish();
    let mut before = 0;
    for number in 0..1500u64 {
        let frame = wire.recv_timeout(PATIENCE).expect("a frame");
        assert_eq!(frame.len(), 100);
        assert_eq!(frame[..14], [&PEER[..], &MAC, &[0x88, 0xb5]].concat());
        assert_eq!(frame[14..22], number.to_be_bytes());
        let time = u64::from_be_bytes(frame[22..30].try_into().unwrap());
        assert!(time >= before && time >= number * 1_000_000);
        before = time;
    }
}

#[test]
fn echo_answers_again_when_the_backend_has_left_and_comes_back() {
    let program = example("echo");
    let stage = Stage::new();
    let mut echo = None;
    for round in 0..2 {
        let (guest, to_guest) = mpsc::channel();
        let (from_guest, wire) = mpsc::channel();
        let end = Wire {
            to_guest,
            from_guest,
        };
        let backend = stage.backend(0, end);
        echo.get_or_insert_with(|| {
            Guest::start(&program, &stage.socket, &["--address", "10.0.0.2"])
        });
        guest.send(ipv4(17, &[0, 1, 0, 2, 0, 8, 0, 0])).unwrap();
        let answer = wire.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!(answer[34..38], [0, 2, 0, 1], "round {round}");
        backend.stop().unwrap();
    }
}
