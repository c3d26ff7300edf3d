//! The example `smoltcp` pings and gets a page: from another smoltcp, and from the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use netback_sim::peer::TapPeer;
use netfront_tap::{namespace, Tap, TapOptions};
use netfront_tests::skipped;
use netfront_tests::stage::Stage;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use common::example::{example, Guest, Wire};

/// What is got: more than all buffers on the way hold.
const PAGE: usize = 300_000;

fn page() -> Vec<u8> {
    [b"HTTP/1.0 200 OK\r\n\r\n", &common::frame(PAGE, 3)[..]].concat()
}

/// The example's lines: three pings and the page.
fn got_all(guest: &mut Guest) {
    for number in 0..3 {
        let line = guest.line();
        let wanted = format!("27 bytes from 10.9.0.1: number {number}, ");
        assert!(line.starts_with(&wanted), "{line}");
    }
    let wanted = format!("HTTP/1.0 200 OK: {} bytes\n", page().len());
    assert_eq!(guest.line(), wanted);
    guest.finish();
}

/// The other end of the wire as a device of smoltcp.
struct Cable {
    from_guest: Receiver<Vec<u8>>,
    to_guest: Sender<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Free(Sender<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl phy::TxToken for Free {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, make: F) -> R {
        let mut frame = vec![0; len];
        let made = make(&mut frame);
        let _ = self.0.send(frame);
        made
    }
}

impl phy::Device for Cable {
    type RxToken<'t> = Received;
    type TxToken<'t> = Free;

    fn receive(&mut self, _: Instant) -> Option<(Received, Free)> {
        let frame = self.from_guest.try_recv().ok()?;
        Some((Received(frame), Free(self.to_guest.clone())))
    }

    fn transmit(&mut self, _: Instant) -> Option<Free> {
        Some(Free(self.to_guest.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// Serves the page to one client after the other, for as long as somebody holds `alive`.
fn serve(mut cable: Cable, alive: &Arc<()>) {
    let alive = Arc::downgrade(alive);
    thread::spawn(move || {
        let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 9]).into());
        let mut interface = Interface::new(config, &mut cable, Instant::now());
        interface.update_ip_addrs(|addresses| {
            let address = IpCidr::new(IpAddress::v4(10, 9, 0, 1), 24);
            addresses.push(address).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        let (page, mut sent, mut asked) = (page(), 0, Vec::new());
        while alive.strong_count() > 0 {
            interface.poll(Instant::now(), &mut cable, &mut sockets);
            let socket = sockets.get_mut::<tcp::Socket>(handle);
            if !socket.is_open() {
                socket.listen(80).unwrap();
                (sent, asked) = (0, Vec::new());
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| (bytes.len(), asked.extend_from_slice(bytes)))
                    .unwrap();
            }
            if asked.ends_with(b"\r\n\r\n") && socket.can_send() {
                assert!(asked.starts_with(b"GET /a/page HTTP/1.0\r\nHost: 10.9.0.1\r\n"));
                sent += socket.send_slice(&page[sent..]).unwrap();
                if sent == page.len() {
                    socket.close();
                }
            }
            thread::sleep(Duration::from_micros(200));
        }
    });
}

/// L-16: a stack of the program's own over the vif, and no kernel's on either side.
#[test]
fn a_page_comes_from_another_smoltcp() {
    let program = example("smoltcp");
    let (guest, to_guest) = mpsc::channel();
    let (from_guest, wire) = mpsc::channel();
    let alive = Arc::new(());
    let cable = Cable {
        from_guest: wire,
        to_guest: guest,
    };
    serve(cable, &alive);
    let stage = Stage::new();
    let end = Wire {
        to_guest,
        from_guest,
    };
    let backend = stage.backend(0, end);
    let arguments = "--address 10.9.0.2/24 --peer 10.9.0.1 --path /a/page";
    let arguments: Vec<_> = arguments.split(' ').collect();
    got_all(&mut Guest::start(&program, &stage.socket, &arguments));
    assert_eq!(backend.fault(), None);
}

/// A TAP at 10.9.0.1 in a network namespace of its own, where a web server serves the page. `None` where that
/// cannot be.
fn kernel() -> Option<Tap> {
    if !skipped::there_is("ip") {
        return None;
    }
    let (give, take) = mpsc::channel();
    thread::spawn(move || {
        if let Err(error) = namespace::enter_new() {
            return skipped::not_on_this_machine(error);
        }
        let tap = match Tap::open(TapOptions::default()) {
            Ok(tap) => tap,
            Err(error) => return skipped::not_on_this_machine(error),
        };
        for arguments in [
            format!("addr add 10.9.0.1/24 dev {}", tap.name()),
            format!("link set {} up", tap.name()),
        ] {
            let status = Command::new("ip").args(arguments.split(' ')).status();
            assert!(status.unwrap().success(), "ip {arguments}");
        }
        let listener = TcpListener::bind("10.9.0.1:8000").unwrap();
        give.send(tap).unwrap();
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let (mut asked, mut bytes) = (Vec::new(), [0; 1024]);
            while !asked.ends_with(b"\r\n\r\n") {
                let len = client.read(&mut bytes).unwrap();
                asked.extend_from_slice(&bytes[..len]);
            }
            client.write_all(&page()).unwrap();
        }
    });
    take.recv().ok()
}

#[test]
fn a_page_comes_from_the_kernel_whose_checksums_and_segments_the_stack_did_not_ask_for() {
    let program = example("smoltcp");
    let Some(tap) = kernel() else { return };
    let stage = Stage::new();
    let backend = stage.backend(0, TapPeer::new(tap));
    let arguments = "--address 10.9.0.2/24 --peer 10.9.0.1 --port 8000";
    let arguments: Vec<_> = arguments.split(' ').collect();
    got_all(&mut Guest::start(&program, &stage.socket, &arguments));
    assert_eq!(backend.fault(), None);
}

#[test]
fn a_peer_that_is_silent_is_named() {
    let program = example("smoltcp");
    let stage = Stage::new();
    let _backend = stage.backend(0, netback_sim::peer::Sink::blind());
    let output = Command::new(program)
        .arg("--sim")
        .arg(&stage.socket)
        .args(["--address", "10.9.0.2/24", "--peer", "10.9.0.1"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("10.9.0.1 did not answer"), "{said}");
}
