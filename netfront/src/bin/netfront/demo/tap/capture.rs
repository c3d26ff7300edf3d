//! Paced packets, and two captures of them: what the kernel gave to the backend, and what came out behind
//! the frontend.

use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use netfront_tap::namespace::run_in;
use pcap_file::pcap::PcapReader;

use super::namespaces::Namespaces;
use super::{BACK, FRONT};
use crate::failure::Failure;
use crate::ground::Guarded;

const PACKETS: u64 = 1000;
const PORT: u16 = 7778;
const PACE: Duration = Duration::from_micros(500);

/// Sends the packets to the guest, and has tcpdump write down what leaves.
pub fn send_paced(names: &Namespaces, file: &Path) -> Result<(), Failure> {
    let mut dump = names.inside(&names.back, "tcpdump");
    // The first Z keeps root: the file is in a directory of ours.
    dump.args([
        "-Z", "root", "-q", "-U", "-n", "-s", "0", "-i", BACK.0, "-w",
    ])
    .arg(file)
    .args(["udp", "port", &PORT.to_string()])
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let dump = Guarded(dump.spawn().map_err(Failure::io("starting tcpdump"))?);
    wait_until("tcpdump listens", || {
        file.metadata().is_ok_and(|data| data.len() >= 24)
    })?;
    let inside = |error: netfront_tap::Error| Failure::from(netfront::Error::from(error));
    run_in(&names.back, || {
        let socket = UdpSocket::bind((BACK.1, PORT))?;
        for number in 0..PACKETS {
            // Lengths on both sides of the threshold.
            let mut payload = vec![number as u8; (number as usize * 37) % 1400 + 8];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            socket.send_to(&payload, (FRONT.1, PORT))?;
            std::thread::sleep(PACE);
        }
        Ok(())
    })
    .map_err(inside)?
    .map_err(Failure::io("sending paced packets"))?;
    wait_until("tcpdump has all packets", || {
        ours(file).is_ok_and(|packets| packets.len() as u64 >= PACKETS)
    })?;
    drop(dump);
    Ok(())
}

/// Compares the captures. True if every packet came once, in order, with the same bytes.
pub fn compare(before: &Path, behind: &Path) -> Result<(bool, String), Failure> {
    let (sent, received) = (ours(before)?, ours(behind)?);
    let different = sent.iter().zip(&received).position(|(a, b)| a != b);
    let ok = sent.len() as u64 == PACKETS && sent.len() == received.len() && different.is_none();
    let seen = match different {
        _ if ok => format!("{} packets, the same bytes in the same order", sent.len()),
        Some(number) => format!("packet {number} differs"),
        None => format!("{} sent, {} received", sent.len(), received.len()),
    };
    Ok((ok, seen))
}

/// The packets of a capture that are part of the test: others (ARP) pass meanwhile.
fn ours(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = || Failure::io(format!("reading {}", file.display()));
    let reader = File::open(file).map_err(failed())?;
    let mut reader = PcapReader::new(reader)
        .map_err(|error| failed()(std::io::Error::other(error.to_string())))?;
    let mut packets = Vec::new();
    // A last packet that is not written whole yet ends the capture.
    while let Some(Ok(packet)) = reader.next_packet() {
        let port = packet
            .data
            .get(36..38)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let udp = packet.data.get(23) == Some(&17) && packet.data.get(12..14) == Some(&[8, 0]);
        if udp && port == Some(PORT) {
            packets.push(packet.data.into_owned());
        }
    }
    Ok(packets)
}

fn wait_until(what: &str, reached: impl Fn() -> bool) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(10);
    while !reached() {
        if Instant::now() > end {
            return Err(Failure::Verdict(format!("waited 10 s until {what}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
