//! The examples do what they say: each runs as a process of its own, as the guest of a simulated Xen.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::Domain;
use netback_sim::frame::{Frame, FrameBurst};
use netback_sim::traffic::Generator;
use netback_sim::{peer, Backend, BackendHandle, Config, Peer};
use netfront::Offload;
use tempfile::TempDir;

use common::{until, BACK, FRONT, PATIENCE};

/// The MAC that the toolstack gives the guest.
const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 0x00, 0x00, 0x01];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// `cargo test` builds the examples beside the tests: target/debug/examples, target/debug/deps.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    let path = built.join("examples").join(name);
    let hint = "run `cargo build -p netfront --examples` first, or `cargo test` without a choice of targets";
    assert!(path.is_file(), "{} is not there: {hint}", path.display());
    path
}

/// A simulated Xen with a backend, whose guest is the example.
struct World {
    backend: BackendHandle,
    socket: PathBuf,
    _back: Domain,
    _server: Running,
    dir: TempDir,
}

fn world(peer: impl Peer + 'static) -> World {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("xen");
    let server = server::spawn(&socket, Options::new()).unwrap();
    let back = Domain::simulated(&socket, BACK).unwrap();
    let backend = Backend::start(&back, Config::new(FRONT, peer)).unwrap();
    World {
        backend,
        socket,
        _back: back,
        _server: server,
        dir,
    }
}

/// An example at work. It is ended when the test is over, however it ends.
struct Guest {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Guest {
    fn start(program: &Path, socket: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .arg("--sim")
            .arg(socket)
            .args(arguments)
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }

    /// Waits until it ends by itself, in order.
    fn finish(&mut self) {
        let mut status = None;
        until("the example to end", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer with two channels: frames for the guest, and frames from it.
struct Wire {
    to_guest: Receiver<Vec<u8>>,
    from_guest: Sender<Vec<u8>>,
}

impl Peer for Wire {
    fn receive(&mut self, frames: &mut [Frame<'_>], _reply: &mut FrameBurst) {
        for frame in frames {
            let _ = self.from_guest.send(frame.bytes.to_vec());
        }
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        while let Ok(frame) = self.to_guest.try_recv() {
            burst.push(&frame, Offload::default());
        }
    }

    fn due(&self) -> Option<std::time::Instant> {
        // No descriptor tells of the channel: it is looked at every millisecond.
        Some(std::time::Instant::now() + Duration::from_millis(1))
    }
}

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

#[test]
fn echo_answers_arp_ping_and_udp_for_its_address() {
    let program = example("echo");
    let (guest, to_guest) = mpsc::channel();
    let (from_guest, wire) = mpsc::channel();
    let world = world(Wire {
        to_guest,
        from_guest,
    });
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

#[test]
fn send_sends_so_many_frames_of_a_size_and_ends() {
    let program = example("send");
    let world = world(peer::Sink::blind());
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
    let counters = world.backend.counters();
    assert_eq!((counters.tx_packets, counters.tx_bytes), (5000, 5_000_000));
}

fn source() -> peer::Source {
    let generator = Generator::new("600".parse().unwrap(), 1).unwrap();
    peer::Source::new(
        generator,
        peer::Pace {
            rate: 5000,
            burst: 10,
            count: 0,
        },
    )
}

#[test]
fn count_prints_packets_and_bytes_a_second() {
    let program = example("count");
    let world = world(source());
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

#[test]
fn capture_writes_a_file_that_can_be_read() {
    let program = example("capture");
    let world = world(source());
    let file = world.dir.path().join("out.pcap");
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
