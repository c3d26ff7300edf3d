//! Pings an address and gets a page by HTTP, with a TCP/IP stack in this process: smoltcp over the vif, no kernel
//! stack, no TAP.
//!
//! `smoltcp --address 10.0.0.2/24 --peer 10.0.0.1 [--gateway A.B.C.D] [--pings N] [--port N] [--path /]
//! [--vif N] [--sim SOCKET]`
//!
//! It shows how a stack stands on the library: `wire.rs` is the device, some 60 lines; the loop here is receive, poll
//! the stack, flush, sleep until a packet comes or a timer of the stack is due. The stack lives on when the backend
//! goes and comes back: TCP sends again what was lost.
//!
//! In a Xen guest, as root, with a vif that the kernel's driver has given up; dom0 has 10.0.0.1 on the vif's bridge
//! and a web server:
//!
//! ```sh
//! netfront take --vif 1
//! cargo run --release --example smoltcp -- --vif 1 --address 10.0.0.2/24 --peer 10.0.0.1
//! ```
//!
//! On the simulated Xen, as root for the TAP:
//!
//! ```sh
//! cargo run -p netback-sim -- serve --sim /tmp/xen --tap vif1.0
//! ip addr add 10.0.0.1/24 dev vif1.0 && ip link set vif1.0 up
//! python3 -m http.server 8000
//! cargo run --example smoltcp -- --sim /tmp/xen --address 10.0.0.2/24 --peer 10.0.0.1 --port 8000
//! ```

#[path = "../common/mod.rs"]
mod common;
mod wire;

use std::error::Error;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use netfront::{Device, Wants};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp};
use smoltcp::storage::PacketMetadata;
use smoltcp::wire::{
    EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, IpEndpoint, Ipv4Cidr,
};

use wire::{Waiting, Wire};

/// How long to wait for one answer, and between two pings.
const PATIENCE: Duration = Duration::from_secs(5);
/// Tells our pings from others'.
const IDENT: u16 = 0x5845;
/// Ports for clients begin here (RFC 6335).
const EPHEMERAL: u16 = 49_152;

/// What is still to be done.
enum Step {
    Ping { number: u16, sent: Option<Instant> },
    Connect,
    Answer { page: Vec<u8>, asked: bool },
    Done,
}

struct Program {
    peer: Ipv4Addr,
    port: u16,
    path: String,
    pings: u16,
    sockets: SocketSet<'static>,
    icmp: SocketHandle,
    tcp: SocketHandle,
    step: Step,
    since: Instant,
}

impl Program {
    fn from_options() -> Result<Self, Box<dyn Error>> {
        let peer = common::option("--peer").ok_or("give --peer A.B.C.D")?;
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || icmp::PacketBuffer::new(vec![PacketMetadata::EMPTY; 8], vec![0; 2048]);
        let mut pinger = icmp::Socket::new(buffer(), buffer());
        pinger
            .bind(icmp::Endpoint::Ident(IDENT))
            .map_err(|error| format!("binding: {error:?}"))?;
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_535]);
        let client = tcp::Socket::new(buffer(), buffer());
        Ok(Self {
            peer: peer.parse()?,
            port: common::option_or("--port", 80)?,
            path: common::option("--path").unwrap_or_else(|| "/".into()),
            pings: common::option_or("--pings", 3)?,
            icmp: sockets.add(pinger),
            tcp: sockets.add(client),
            sockets,
            step: Step::Ping {
                number: 0,
                sent: None,
            },
            since: Instant::now(),
        })
    }

    /// What the sockets have for us, and what we have for them.
    fn go_on(&mut self, interface: &mut Interface) -> Result<(), Box<dyn Error>> {
        if self.since.elapsed() > PATIENCE {
            return Err(format!("{} did not answer within {PATIENCE:?}", self.peer).into());
        }
        match &mut self.step {
            Step::Ping { number, .. } if *number == self.pings => self.next(Step::Connect),
            Step::Ping { .. } => self.ping()?,
            Step::Connect => {
                // A port that an earlier run has not used just now: the peer may remember that one.
                let port = EPHEMERAL + (std::process::id() % 16_384) as u16;
                let to = IpEndpoint::new(IpAddress::Ipv4(self.peer), self.port);
                let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
                socket
                    .connect(interface.context(), to, port)
                    .map_err(|error| format!("connecting to {to}: {error}"))?;
                self.next(Step::Answer {
                    page: Vec::new(),
                    asked: false,
                });
            }
            Step::Answer { .. } => self.get()?,
            Step::Done => {}
        }
        Ok(())
    }

    fn next(&mut self, step: Step) {
        self.step = step;
        self.since = Instant::now();
    }

    /// Sends a ping, or takes its answer.
    fn ping(&mut self) -> Result<(), Box<dyn Error>> {
        let Step::Ping { number, sent } = &mut self.step else {
            return Ok(());
        };
        let socket = self.sockets.get_mut::<icmp::Socket>(self.icmp);
        let Some(since) = *sent else {
            let ping = Icmpv4Repr::EchoRequest {
                ident: IDENT,
                seq_no: *number,
                data: b"a ping from a vif of my own",
            };
            let space = socket.send(ping.buffer_len(), IpAddress::Ipv4(self.peer))?;
            let mut packet = Icmpv4Packet::new_unchecked(space);
            ping.emit(&mut packet, &ChecksumCapabilities::default());
            *sent = Some(Instant::now());
            return Ok(());
        };
        while let Ok((bytes, _)) = socket.recv() {
            let packet = Icmpv4Packet::new_checked(bytes)?;
            let answer = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default());
            if let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) = answer {
                if seq_no == *number {
                    let (peer, len, time) = (self.peer, data.len(), since.elapsed());
                    println!("{len} bytes from {peer}: number {seq_no}, {time:.3?}");
                    let number = seq_no + 1;
                    self.next(Step::Ping { number, sent: None });
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Asks for the page, and takes what has come of it.
    fn get(&mut self) -> Result<(), Box<dyn Error>> {
        let Step::Answer { page, asked } = &mut self.step else {
            return Ok(());
        };
        let socket = self.sockets.get_mut::<tcp::Socket>(self.tcp);
        if !*asked && socket.can_send() {
            let (path, peer) = (&self.path, self.peer);
            let ask = format!("GET {path} HTTP/1.0\r\nHost: {peer}\r\nConnection: close\r\n\r\n");
            socket.send_slice(ask.as_bytes())?;
            *asked = true;
        }
        let before = page.len();
        while socket.can_recv() {
            socket.recv(|bytes| {
                page.extend_from_slice(bytes);
                (bytes.len(), ())
            })?;
        }
        if page.len() > before {
            self.since = Instant::now();
        }
        if *asked && !socket.may_recv() {
            // The peer has said all. Of a page we show how it begins.
            let text = String::from_utf8_lossy(page);
            let head = text.lines().next().unwrap_or("nothing");
            println!("{head}: {} bytes", page.len());
            socket.close();
            self.next(Step::Done);
        } else if !*asked && !socket.is_open() {
            return Err(format!("{} refused port {}", self.peer, self.port).into());
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        // Our end of the TCP connection is told as well.
        let socket = self.sockets.get::<tcp::Socket>(self.tcp);
        matches!(self.step, Step::Done)
            && matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait)
    }
}

/// An interface of the stack with the vif's address.
fn interface(device: &mut Device, waiting: &mut Waiting) -> Result<Interface, Box<dyn Error>> {
    let address: Ipv4Cidr = common::option("--address")
        .ok_or("give --address A.B.C.D/N")?
        .parse()
        .map_err(|()| "--address is like 10.0.0.2/24")?;
    let mut config = Config::new(EthernetAddress(device.link().mac).into());
    // TCP's first numbers shall differ from those of an earlier run.
    config.random_seed = std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let now = smoltcp::time::Instant::now();
    let mut interface = Interface::new(config, &mut Wire::new(device, waiting)?, now);
    let mut full = Ok(());
    interface.update_ip_addrs(|addresses| {
        full = addresses.push(IpCidr::Ipv4(address));
    });
    full.map_err(|_| "the stack has no room for an address")?;
    if let Some(gateway) = common::option("--gateway") {
        interface
            .routes_mut()
            .add_default_ipv4_route(gateway.parse()?)?;
    }
    Ok(interface)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut program = Program::from_options()?;
    let domain = common::domain()?;
    let mut device = Device::builder(common::vif()?)
        // The stack fills in and checks every checksum, and cuts no segments.
        .wants(Wants {
            gso: false,
            csum_offload: false,
            ..Wants::default()
        })
        .connect(&domain)?;
    let mut waiting = Waiting::new();
    let mut interface = interface(&mut device, &mut waiting)?;
    let mut failed = Ok(());
    program.since = Instant::now();
    let device = common::turns(device, |device| {
        let now = smoltcp::time::Instant::now();
        let mac = EthernetAddress(device.link().mac);
        interface.set_hardware_addr(mac.into());
        let mut wire = Wire::new(device, &mut waiting)?;
        interface.poll(now, &mut wire, &mut program.sockets);
        failed = program.go_on(&mut interface);
        if failed.is_err() {
            return Ok(ControlFlow::Break(()));
        }
        // What was just given to the sockets.
        interface.poll(now, &mut wire, &mut program.sockets);
        device.queue().flush()?;
        if program.is_done() && device.queue().unanswered() == 0 {
            return Ok(ControlFlow::Break(()));
        }
        let due = interface.poll_delay(now, &program.sockets);
        let due = due.map_or(Duration::from_millis(100), Duration::from);
        if waiting.is_empty() && !due.is_zero() {
            device.queue().wait(due.min(Duration::from_millis(100)))?;
        }
        device.queue().reclaim()?;
        Ok(ControlFlow::Continue(()))
    })?;
    device.close()?;
    failed
}
