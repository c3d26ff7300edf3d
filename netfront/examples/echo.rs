//! Answers ARP, ping and UDP for one IPv4 address, straight from the vif: no kernel stack, no TAP.
//!
//! `echo --address 10.0.0.2 [--pieces N] [--vif N] [--sim SOCKET]`
//!
//! It shows the loop of a program that answers: receive, send, flush once, wait. With `--pieces N` an answer is given to the queue
//! in N pieces of even length, as by a program that has its packets scattered over memory: more than the 18 slots that a packet
//! may take are no matter, since the pieces are copied into as few as hold them.
//!
//! In a Xen guest, as root, with a vif that the kernel's driver has given up; dom0 has an address of the same
//! network on the vif's bridge:
//!
//! ```sh
//! netfront take --vif 1
//! cargo run --release --example echo -- --vif 1 --address 10.0.0.2
//! ping 10.0.0.2          # in dom0
//! ```
//!
//! On the simulated Xen, as root for the TAP:
//!
//! ```sh
//! cargo run -p netback-sim -- serve --sim /tmp/xen --tap vif1.0
//! ip addr add 10.0.0.1/24 dev vif1.0 && ip link set vif1.0 up
//! cargo run --example echo -- --sim /tmp/xen --address 10.0.0.2
//! ping 10.0.0.2
//! ```

mod common;

use std::error::Error;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Duration;

use netfront::{Device, Offload, Packet, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    let address: Ipv4Addr = common::option("--address")
        .ok_or("give --address A.B.C.D")?
        .parse()?;
    let pieces: NonZeroUsize = common::option_or("--pieces", NonZeroUsize::MIN)?;
    // The ground to stand on: this Xen domain, or a domain of a simulated Xen.
    let domain = common::domain()?;
    // Connecting makes this thread the owner of the queue: it alone receives and sends.
    let device = Device::builder(common::vif()?).connect(&domain)?;
    println!("answering for {address}");
    // Answers wait here until the batch is over: while packets are delivered the queue is busy.
    let mut answers: Vec<Vec<u8>> = Vec::new();
    common::turns(device, |device| {
        // Asked each time: a vif that was connected anew may have another.
        let mac = device.link().mac;
        turn(device.queue(), &mut answers, mac, (address, pieces))
    })?;
    Ok(())
}

/// Receives what is there, answers it, and sleeps until there is more.
fn turn(
    queue: &mut Queue,
    answers: &mut Vec<Vec<u8>>,
    mac: [u8; 6],
    (address, pieces): (Ipv4Addr, NonZeroUsize),
) -> Result<ControlFlow<()>, netfront::Error> {
    queue.receive(64, |packet| answers.extend(answer(packet, mac, address)))?;
    // Takes back the pages of answers that the backend has sent.
    queue.reclaim()?;
    for answer in answers.drain(..) {
        let answer: Vec<&[u8]> = cut(&answer, pieces).collect();
        // What finds no room is dropped, as a network does.
        let _ = queue.send(&answer, Offload::default());
    }
    // One publication and at most one event for all of the above.
    queue.flush()?;
    // Returns at once if there is more to do. No wake-up is lost.
    queue.wait(Duration::from_secs(1))?;
    Ok(ControlFlow::Continue(()))
}

/// The packet in so many pieces, or in one for each byte: none is empty, and none more than a byte longer than another.
fn cut(packet: &[u8], pieces: NonZeroUsize) -> impl Iterator<Item = &[u8]> {
    let pieces = pieces.get().min(packet.len());
    let at = move |piece: usize| packet.len() * piece / pieces;
    (0..pieces).map(move |piece| &packet[at(piece)..at(piece + 1)])
}

/// The answer to a packet, if it is for us and asks for one.
fn answer(packet: &Packet<'_>, mac: [u8; 6], address: Ipv4Addr) -> Option<Vec<u8>> {
    // Copied as a whole: an answer is made of it. A program that only looks needs no copy.
    let mut frame: Vec<u8> = packet.slices().flatten().copied().collect();
    let own = address.octets();
    match (frame.get(12..14)?, frame.get(14)?) {
        // ARP: who has our address? Its request (1) becomes an answer (2), the two ends swap places.
        ([8, 6], _) if frame.get(20..22)? == [0, 1] && frame.get(38..42)? == own => {
            frame[21] = 2;
            frame.copy_within(22..32, 32);
            frame[22..28].copy_from_slice(&mac);
            frame[28..32].copy_from_slice(&own);
        }
        // IPv4 without options. The sums over both addresses do not change when they swap places.
        ([8, 0], 0x45) if frame.get(30..34)? == own => {
            match (*frame.get(23)?, *frame.get(34)?) {
                // A ping (8) becomes a pong (0): its checksum grows by the difference.
                (1, 8) => {
                    frame[34] = 0;
                    let (sum, carry) =
                        u16::from_be_bytes([frame[36], *frame.get(37)?]).overflowing_add(0x800);
                    frame[36..38].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
                }
                // UDP: the ports swap. No checksum (0) is allowed, and the sender's may be blank.
                (17, _) if frame.len() >= 42 => {
                    frame[34..38].rotate_left(2);
                    frame[40..42].fill(0);
                }
                _ => return None,
            }
            frame[26..34].rotate_left(4);
        }
        _ => return None,
    }
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&mac);
    Some(frame)
}
