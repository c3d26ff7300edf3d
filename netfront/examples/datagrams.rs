//! Sends numbered UDP datagrams as fast as the kernel takes them, or counts them at a socket: the other ends of `receive`.
//!
//! `datagrams send 10.0.0.2:9000 [--seconds 2] [--bytes 18] [--count N] [--json]`
//! `datagrams receive 0.0.0.0:9000 [--json]`
//!
//! A datagram begins with its number, eight bytes in network order, from 0 on. After the last one there are some with the
//! number 2^64 - 1, which end the other side. Nothing here is of the driver: `receive` at a socket is what is compared with.

mod common;

use std::error::Error;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

const END: u64 = u64::MAX;
/// Datagrams between two looks at the clock.
const LOOK_UP: u64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let usage = "wanted: send ADDRESS:PORT, or receive ADDRESS:PORT";
    let (what, address) = (words.next().ok_or(usage)?, words.next().ok_or(usage)?);
    let report = match what.as_str() {
        "send" => send(&address)?,
        "receive" => receive(&address)?,
        _ => return Err(usage.into()),
    };
    match common::flag("--json") {
        true => println!("{report}"),
        false => {
            for (name, value) in report.as_object().into_iter().flatten() {
                println!("{name}: {value}");
            }
        }
    }
    Ok(())
}

fn send(address: &str) -> Result<serde_json::Value, Box<dyn Error>> {
    let time = Duration::try_from_secs_f64(common::option_or("--seconds", 2.0)?)?;
    let most = common::option_or("--count", u64::MAX)?;
    let mut bytes = vec![0; common::option_or("--bytes", 18usize)?.max(8)];
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    let start = Instant::now();
    let (mut sent, mut refused) = (0u64, 0u64);
    while sent < most && (!sent.is_multiple_of(LOOK_UP) || start.elapsed() < time) {
        bytes[..8].copy_from_slice(&sent.to_be_bytes());
        // Nobody listens yet, or the kernel has no room: the number is lost like any other.
        refused += u64::from(socket.send(&bytes).is_err());
        sent += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    // What is on the way arrives first.
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(50));
        bytes[..8].copy_from_slice(&END.to_be_bytes());
        let _ = socket.send(&bytes);
    }
    Ok(json!({ "sent": sent, "refused": refused, "seconds": seconds }))
}

fn receive(address: &str) -> Result<serde_json::Value, Box<dyn Error>> {
    let socket = UdpSocket::bind(address)?;
    println!("receiving for {address}");
    let mut bytes = [0; 2048];
    let (mut delivered, mut next, mut late) = (0u64, 0u64, 0u64);
    loop {
        let len = socket.recv(&mut bytes)?;
        let Some(number) = bytes[..len]
            .first_chunk()
            .map(|own| u64::from_be_bytes(*own))
        else {
            continue;
        };
        if number == END {
            break;
        }
        delivered += 1;
        late += u64::from(number < next);
        next = next.max(number + 1);
    }
    let lost = next.saturating_sub(delivered);
    Ok(json!({ "delivered": delivered, "lost": lost, "out_of_order": late }))
}
