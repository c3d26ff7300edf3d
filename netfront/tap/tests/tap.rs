//! Real TAPs, each in a network namespace of its own: the machine's interfaces are never touched.
//!
//! They need CAP_NET_ADMIN and CAP_SYS_ADMIN (root), /dev/net/tun and the program `ip`; without
//! them a test says that it is skipped, and passes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use netfront_tap::{
    header, namespace, Error, Offloads, Sent, Tap, TapOptions, VnetHeader, HEADER_SIZE,
};
use netfront_tests::skipped;
use rustix::io::Errno;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` on a thread in a new network namespace, or says why not.
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

fn ip(arguments: &str) {
    // A process belongs to the namespace of the thread that started it.
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("`ip`");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

fn tap(name: &str) -> Tap {
    Tap::open(TapOptions {
        name: name.into(),
        ..TapOptions::default()
    })
    .expect("a TAP")
}

/// Waits for a frame that `wanted` accepts; others (the kernel's own multicast) are passed over.
fn next_frame(tap: &Tap, wanted: impl Fn(&[u8]) -> bool) -> (VnetHeader, Vec<u8>) {
    let deadline = Instant::now() + PATIENCE;
    let (mut header, mut bytes) = ([0; HEADER_SIZE], vec![0; 65_600]);
    while Instant::now() < deadline {
        let (head, tail) = bytes.split_at_mut(20);
        let received = tap
            .receive(
                &mut header,
                &mut [IoSliceMut::new(head), IoSliceMut::new(tail)],
            )
            .expect("receive");
        match received {
            Some(len) if wanted(&bytes[..len]) => {
                return (VnetHeader::decode(&header), bytes[..len].to_vec())
            }
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no such frame within {PATIENCE:?}");
}

fn is_udp(frame: &[u8]) -> bool {
    frame.len() > 42 && frame[12..14] == [8, 0] && frame[23] == 17
}

#[test]
fn a_tap_takes_mac_mtu_up_and_carrier() {
    isolated(|| {
        let tap = tap("xn%d");
        assert_eq!(tap.name(), "xn0");
        tap.set_mac([2, 0, 0, 1, 2, 3]).unwrap();
        assert_eq!(tap.mac().unwrap(), [2, 0, 0, 1, 2, 3]);
        tap.set_mtu(9000).unwrap();
        assert_eq!(tap.mtu().unwrap(), 9000);
        assert!(!tap.is_up().unwrap());
        tap.set_up(true).unwrap();
        assert!(tap.is_up().unwrap());
        tap.set_carrier(false).unwrap();
        tap.set_carrier(true).unwrap();
        let error = tap.set_mtu(3).expect_err("an MTU of 3");
        assert!(error.to_string().contains("MTU"), "{error}");
        assert!(tap.set_mac([1, 0, 0, 0, 0, 0]).is_err(), "a multicast MAC");
    });
}

#[test]
fn a_tap_says_the_speed_that_it_was_told() {
    isolated(|| {
        let tap = tap("xn0");
        for (told, said) in [
            (Some(10_000_000_000), Some(10_000_000_000)),
            (Some(100_000_000), Some(100_000_000)),
            // More megabits than 16 bits hold.
            (Some(100_000_000_000), Some(100_000_000_000)),
            (Some(56_000), Some(1_000_000)),
            (None, None),
        ] {
            tap.set_speed(told).unwrap();
            assert_eq!(tap.speed().unwrap(), said, "{told:?}");
        }
        tap.set_speed(Some(40_000_000_000)).unwrap();
        tap.set_up(true).unwrap();
        assert_eq!(tap.speed().unwrap(), Some(40_000_000_000));
    });
}

#[test]
fn an_udp_packet_leaves_its_checksum_undone_only_when_the_reader_can_take_it() {
    isolated(|| {
        let tap = tap("xn0");
        tap.set_up(true).unwrap();
        ip("addr add 10.9.0.1/24 dev xn0");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev xn0");
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();

        socket.send_to(b"finished", "10.9.0.2:7").unwrap();
        let (header, frame) = next_frame(&tap, is_udp);
        assert!(!header.needs_checksum(), "{header:?}");
        assert_eq!(&frame[42..], b"finished");

        let set = tap.set_offloads(Offloads::all()).unwrap();
        assert_eq!(set, Offloads::all());
        socket.send_to(b"partial", "10.9.0.2:7").unwrap();
        let (header, frame) = next_frame(&tap, is_udp);
        assert!(header.needs_checksum(), "{header:?}");
        assert_eq!((header.csum_start, header.csum_offset), (34, 6));
        assert_eq!(&frame[42..], b"partial");
    });
}

#[test]
fn offloads_of_an_earlier_owner_are_switched_off_when_the_tap_is_opened() {
    isolated(|| {
        ip("tuntap add dev xn0 mode tap vnet_hdr");
        let first = tap("xn0");
        first.set_offloads(Offloads::all()).unwrap();
        drop(first);
        let second = tap("xn0");
        second.set_up(true).unwrap();
        ip("addr add 10.9.0.1/24 dev xn0");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev xn0");
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"hello", "10.9.0.2:7").unwrap();
        assert!(!next_frame(&second, is_udp).0.needs_checksum());
    });
}

#[test]
fn a_frame_for_an_interface_that_is_down_is_refused_and_the_tap_lives() {
    isolated(|| {
        let tap = tap("xn0");
        let (header, frame) = (VnetHeader::default().encode(), [0xff; 60]);
        let pieces = [IoSlice::new(&header), IoSlice::new(&frame)];
        assert!(matches!(tap.send(&pieces), Ok(Sent::Refused(_))));
        tap.set_up(true).unwrap();
        assert_eq!(tap.send(&pieces).unwrap(), Sent::Taken);
        let nonsense = VnetHeader {
            gso_type: 0x55,
            gso_size: 100,
            ..VnetHeader::default()
        };
        let header = nonsense.encode();
        let pieces = [IoSlice::new(&header), IoSlice::new(&frame)];
        assert!(matches!(tap.send(&pieces), Ok(Sent::Refused(_))));
    });
}

#[test]
fn names_that_are_no_names_are_told_apart_from_other_failures() {
    for name in ["sixteen-letters!", "a/b", "a b", "nul\0"] {
        let options = TapOptions {
            name: name.into(),
            ..TapOptions::default()
        };
        let refused = Tap::open(options);
        assert!(matches!(refused, Err(Error::Name { .. })), "{name:?}");
    }
}

#[test]
fn a_second_queue_is_attached_from_a_thread_in_another_namespace() {
    isolated(|| {
        let options = TapOptions {
            name: "xn0".into(),
            queues: 2,
            vnet_header: true,
        };
        let first = Tap::open(options).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                namespace::enter_new().unwrap();
                let second = first.add_queue().expect("a second queue");
                second.set_mtu(1400).unwrap();
            });
        });
        assert_eq!(first.mtu().unwrap(), 1400);
        let single = tap("xn1");
        assert!(matches!(single.add_queue(), Err(Error::Attach { .. })));
    });
}

#[test]
fn a_tap_that_is_there_already_is_opened_as_what_it_was_made_whatever_is_asked_for() {
    isolated(|| {
        ip("tuntap add dev xn0 mode tap multi_queue");
        ip("tuntap add dev xn1 mode tap");
        let open = |name: &str, queues| {
            Tap::open(TapOptions {
                name: name.into(),
                queues,
                ..TapOptions::default()
            })
        };
        let several = open("xn0", 1).expect("the one for several queues, for one");
        assert!(several.is_multi_queue());
        several.add_queue().expect("a second queue");
        let one = open("xn1", 4).expect("the one for one queue, for several");
        assert!(!one.is_multi_queue());
        // What stands in the way is told, not that it was made for one queue.
        for (name, answer) in [("xn1", Errno::BUSY), ("lo", Errno::INVAL)] {
            for queues in [1, 4] {
                let refused = open(name, queues);
                let told =
                    matches!(&refused, Err(Error::Attach { source, .. }) if *source == answer);
                assert!(told, "{name}: {refused:?}");
            }
        }
    });
}

#[test]
fn a_second_queue_takes_no_right_to_enter_namespaces() {
    isolated(|| {
        let first = Tap::open(TapOptions {
            name: "xn0".into(),
            queues: 2,
            ..TapOptions::default()
        })
        .unwrap();
        // As the service runs: of this thread only, which ends with the test.
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective
            .remove(rustix::thread::CapabilitySet::SYS_ADMIN);
        rustix::thread::set_capabilities(None, sets).unwrap();
        assert!(namespace::enter("/proc/thread-self/ns/net").is_err());
        first.add_queue().expect("a second queue");
    });
}

#[test]
fn a_queue_that_is_detached_gets_no_frames_and_one_that_is_attached_again_does() {
    isolated(|| {
        let first = Tap::open(TapOptions {
            name: "xn0".into(),
            queues: 2,
            vnet_header: true,
        });
        let first = first.unwrap();
        let mut second = first.add_queue().unwrap();
        ip("addr add 10.9.0.1/24 dev xn0");
        first.set_up(true).unwrap();
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        // Nobody is asked who has the address. Each port is a flow.
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev xn0");
        let came = |tap: &Tap| {
            let (mut header, mut bytes) = ([0; HEADER_SIZE], vec![0; 65_600]);
            let mut frames = 0;
            while let Some(len) = tap
                .receive(&mut header, &mut [IoSliceMut::new(&mut bytes)])
                .unwrap()
            {
                // UDP over IPv4, and none of the kernel's own.
                frames += u32::from(len > 42 && bytes[12..14] == [8, 0] && bytes[23] == 17);
            }
            frames
        };
        let frames_by = |second: &Tap| {
            let _before = (came(&first), came(second));
            for port in 2000..2200 {
                socket.send_to(&[7; 20], ("10.9.0.2", port)).unwrap();
            }
            let deadline = Instant::now() + PATIENCE;
            let mut sum = (0, 0);
            while sum.0 + sum.1 < 200 && Instant::now() < deadline {
                sum = (sum.0 + came(&first), sum.1 + came(second));
            }
            sum
        };
        let (by_first, by_second) = frames_by(&second);
        assert!(by_first > 0 && by_second > 0, "{by_first} {by_second}");
        second.set_attached(false).unwrap();
        assert_eq!(frames_by(&second).0, 200);
        second.set_attached(true).unwrap();
        let (by_first, by_second) = frames_by(&second);
        assert!(by_first > 0 && by_second > 0, "{by_first} {by_second}");
        let mut single = tap("xn1");
        single.set_attached(true).expect("it is");
        assert!(matches!(
            single.set_attached(false),
            Err(Error::Setting { .. })
        ));
    });
}

#[test]
fn a_descriptor_is_taken_over_with_what_it_was_opened_with() {
    isolated(|| {
        let first = tap("xn0");
        first.set_offloads(Offloads::all()).unwrap();
        let fd: OwnedFd = first.as_fd().try_clone_to_owned().unwrap();
        let adopted = Tap::from_fd(fd).unwrap();
        assert_eq!(adopted.name(), "xn0");
        assert!(adopted.has_vnet_header());
        adopted.set_mtu(1400).unwrap();
        assert_eq!(first.mtu().unwrap(), 1400);
    });
    let file = std::fs::File::open("/dev/null").unwrap();
    let refused = Tap::from_fd(file.into());
    assert!(matches!(refused, Err(Error::Descriptor { .. })));
}

#[test]
fn a_namespace_that_does_not_exist_is_named_in_the_error() {
    let refused = Tap::open_in_namespace("no-such-namespace", TapOptions::default());
    let error = refused.expect_err("no such namespace").to_string();
    assert!(error.contains("no-such-namespace"), "{error}");
}

/// A TAP with an address in a namespace that lives on a thread until `stop` is dropped.
struct Stack {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    tap: Tap,
}

fn stack(host: u8, offloads: Offloads) -> Stack {
    let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        namespace::enter_new().unwrap();
        let options = TapOptions {
            name: "xn0".into(),
            ..TapOptions::default()
        };
        let path = format!(
            "/proc/self/task/{}/ns/net",
            rustix::thread::gettid().as_raw_nonzero()
        );
        let tap = Tap::open_in_namespace(&path, options).unwrap();
        tap.set_offloads(offloads).unwrap();
        tap.set_mac([2, 0, 0, 0, 0, host]).unwrap();
        ip(&format!("addr add 10.9.0.{host}/24 dev xn0"));
        ip("link set xn0 up");
        give.send(tap).unwrap();
        queue.into_iter().for_each(|job| job());
    });
    Stack {
        jobs,
        tap: take.recv().unwrap(),
    }
}

#[test]
fn a_tcp_stream_crosses_two_namespaces_in_large_segments() {
    const TOTAL: usize = 8 << 20;
    isolated(|| {
        let (a, b) = (stack(1, Offloads::all()), stack(2, Offloads::all()));
        let (stop, large) = (AtomicBool::new(false), AtomicU64::new(0));
        let (done, result) = mpsc::channel();
        let (ready, listening) = mpsc::channel();
        b.jobs
            .send(Box::new(move || {
                let listener = TcpListener::bind("10.9.0.2:7000").unwrap();
                ready.send(()).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                done.send(all).unwrap();
            }))
            .unwrap();
        listening.recv_timeout(PATIENCE).unwrap();
        a.jobs
            .send(Box::new(|| {
                let mut stream = TcpStream::connect("10.9.0.2:7000").unwrap();
                let bytes: Vec<u8> = (0..TOTAL).map(|i| (i % 251) as u8).collect();
                stream.write_all(&bytes).unwrap();
            }))
            .unwrap();

        std::thread::scope(|scope| {
            for (from, to) in [(&a.tap, &b.tap), (&b.tap, &a.tap)] {
                let (stop, large) = (&stop, &large);
                scope.spawn(move || {
                    let (mut header, mut frame) = ([0; HEADER_SIZE], vec![0; 65_600]);
                    while !stop.load(Ordering::Relaxed) {
                        let buffers = &mut [IoSliceMut::new(&mut frame)];
                        let Some(len) = from.receive(&mut header, buffers).unwrap() else {
                            std::thread::sleep(Duration::from_micros(200));
                            continue;
                        };
                        if VnetHeader::decode(&header).gso_kind() == header::GSO_TCPV4 {
                            large.fetch_add(1, Ordering::Relaxed);
                        }
                        let pieces = [IoSlice::new(&header), IoSlice::new(&frame[..len])];
                        let _ = to.send(&pieces).unwrap();
                    }
                });
            }
            let received = result.recv_timeout(PATIENCE);
            stop.store(true, Ordering::Relaxed);
            let received = received.expect("the stream within the deadline");
            assert_eq!(received.len(), TOTAL);
            assert!(received
                .iter()
                .enumerate()
                .all(|(i, b)| *b == (i % 251) as u8));
        });
        assert!(
            large.load(Ordering::Relaxed) > 0,
            "no large segment was seen"
        );
    });
}
