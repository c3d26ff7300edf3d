//! Sends numbered UDP datagrams, or counts them at a socket: the other ends of `receive`.
//!
//! `datagrams send 10.0.0.2:9000 [--seconds 2] [--bytes 18] [--rate N] [--flows N] [--count N] [--json]`
//! `datagrams receive 0.0.0.0:9000 [--work STEPS] [--json]`
//!
//! Without `--rate` (datagrams a second, of all flows) they go as fast as the kernel takes them. Each flow has a socket, and
//! numbers of its own. After the last datagram there are some that say so, which end the other side. Nothing here is of the
//! driver: `receive` at a socket is what is compared with.

mod common;

use std::error::Error;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use common::numbered::{self, Tally, END, FLOWS, LEAST};
use serde_json::{json, Value};

/// Datagrams between two looks at the clock.
const BURST: u64 = 64;
/// How long to wait until more are due.
const PAUSE: Duration = Duration::from_micros(200);
/// The end is told for so long, so often: a receiver that is behind loses most of it.
const GOODBYES: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(50);

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let usage = "wanted: send ADDRESS:PORT, or receive ADDRESS:PORT";
    let (what, address) = (words.next().ok_or(usage)?, words.next().ok_or(usage)?);
    let report = match what.as_str() {
        "send" => send(&address)?,
        "receive" => receive(&address)?,
        _ => return Err(usage.into()),
    };
    common::tell(&report);
    Ok(())
}

fn send(address: &str) -> Result<Value, Box<dyn Error>> {
    let time = Duration::try_from_secs_f64(common::option_or("--seconds", 2.0)?)?;
    let most = common::option_or("--count", u64::MAX)?;
    let rate = common::option_or("--rate", 0u64)?;
    let sockets = sockets(address, common::option_or("--flows", 1)?)?;
    let flows = sockets.len() as u64;
    let mut bytes = vec![0; common::option_or("--bytes", 18usize)?.max(LEAST)];
    let mut send = |socket: &UdpSocket, flow, number| {
        bytes[..LEAST].copy_from_slice(&numbered::head(flow, number));
        socket.send(&bytes).is_err()
    };
    let start = Instant::now();
    let (mut sent, mut refused) = (0u64, 0u64);
    while sent < most {
        let passed = start.elapsed();
        if passed >= time {
            break;
        }
        let due = due(rate, passed)
            .saturating_sub(sent)
            .min(BURST)
            .min(most - sent);
        if due == 0 {
            thread::sleep(PAUSE);
        }
        for _ in 0..due {
            let flow = (sent % flows) as u16;
            // Nobody listens yet, or the kernel has no room: the number is lost like any other.
            let failed = send(&sockets[usize::from(flow)], flow, sent / flows);
            refused += u64::from(failed);
            sent += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    for _ in 0..GOODBYES {
        // What is on the way arrives first.
        thread::sleep(BETWEEN);
        send(&sockets[0], 0, END);
    }
    Ok(json!({ "sent": sent, "refused": refused, "seconds": seconds, "flows": flows }))
}

/// How many are to be sent by now.
fn due(rate: u64, passed: Duration) -> u64 {
    match rate {
        0 => u64::MAX,
        rate => (passed.as_secs_f64() * rate as f64) as u64,
    }
}

/// One a flow, each with a port of its own.
fn sockets(address: &str, flows: u16) -> Result<Vec<UdpSocket>, Box<dyn Error>> {
    if !(1..=FLOWS).contains(&flows) {
        return Err(format!("--flows {flows}: 1 to {FLOWS} are possible").into());
    }
    let socket = |_| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address)?;
        Ok(socket)
    };
    (0..flows).map(socket).collect()
}

fn receive(address: &str) -> Result<Value, Box<dyn Error>> {
    let steps = common::option_or("--work", 0u32)?;
    let socket = UdpSocket::bind(address)?;
    println!("receiving for {address}");
    let tally = Tally::default();
    let mut bytes = [0; 2048];
    loop {
        let len = socket.recv(&mut bytes)?;
        match numbered::parse(&bytes[..len]) {
            Some((_, END)) => return Ok(tally.report()),
            Some((flow, number)) => {
                tally.count(flow, number);
                numbered::work(number, steps);
            }
            None => {}
        }
    }
}
