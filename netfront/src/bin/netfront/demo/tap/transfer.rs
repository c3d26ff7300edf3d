//! A TCP transfer between the namespaces, with a SHA-256 at both ends.

use std::fmt;
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netfront_tap::namespace::run_in;
use sha2::{Digest, Sha256};

use crate::failure::Failure;

const PORT: u16 = 7777;
const BLOCK: usize = 1 << 20;
/// Without a byte for so long the transfer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was sent and what arrived.
pub struct Done {
    pub sent: String,
    pub received: String,
    bytes: u64,
    time: Duration,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.bytes as f64 * 8.0 / self.time.as_secs_f64() / 1e9;
        let same = if self.sent == self.received {
            "both sums"
        } else {
            "SUMS DIFFER:"
        };
        write!(
            f,
            "{} MiB at {rate:.2} Gbit/s, {same} {:.16}…",
            self.bytes >> 20,
            self.received
        )?;
        if self.sent != self.received {
            write!(f, " but {:.16}… was sent", self.sent)?;
        }
        Ok(())
    }
}

/// Sends `mib` MiB from one namespace to the other.
pub fn run(from: &str, to: &str, address: &str, mib: u64, live: bool) -> Result<Done, Failure> {
    let inside = |error: netfront_tap::Error| Failure::from(netfront::Error::from(error));
    // A socket stays in the namespace of the thread that made it.
    let listener = run_in(to, || TcpListener::bind((address, PORT)))
        .map_err(inside)?
        .map_err(Failure::io("listening in the namespace"))?;
    let sender = run_in(from, || TcpStream::connect((address, PORT)))
        .map_err(inside)?
        .map_err(Failure::io("connecting across the driver"))?;
    let (receiver, _) = listener.accept().map_err(Failure::io("accepting"))?;
    receiver
        .set_read_timeout(Some(PATIENCE))
        .map_err(Failure::io("setting a timeout"))?;
    sender
        .set_write_timeout(Some(PATIENCE))
        .map_err(Failure::io("setting a timeout"))?;
    let moved = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, mib));
        let receiving = scope.spawn(|| receive(receiver, &moved));
        while !receiving.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            if live && std::io::stderr().is_terminal() {
                eprint!(
                    "\r{} of {mib} MiB\x1b[K",
                    moved.load(Ordering::Relaxed) >> 20
                );
            }
        }
        if live && std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let time = start.elapsed();
        let panicked = |_| Failure::Verdict("a thread of the transfer panicked".into());
        let sent = sending
            .join()
            .map_err(panicked)?
            .map_err(Failure::io("sending"))?;
        let received = receiving
            .join()
            .map_err(panicked)?
            .map_err(Failure::io("receiving"))?;
        Ok(Done {
            sent,
            received,
            bytes: moved.load(Ordering::Relaxed),
            time,
        })
    })
}

fn send(mut stream: TcpStream, mib: u64) -> std::io::Result<String> {
    let mut block: Vec<u8> = (0..BLOCK as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut sum = Sha256::new();
    for number in 0..mib {
        // No two blocks are the same: an exchanged one would change the sum.
        block[..8].copy_from_slice(&number.to_le_bytes());
        sum.update(&block);
        stream.write_all(&block)?;
    }
    Ok(hex(sum))
}

fn receive(mut stream: TcpStream, moved: &AtomicU64) -> std::io::Result<String> {
    let mut block = vec![0; BLOCK];
    let mut sum = Sha256::new();
    loop {
        let count = stream.read(&mut block)?;
        if count == 0 {
            return Ok(hex(sum));
        }
        sum.update(&block[..count]);
        moved.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn hex(sum: Sha256) -> String {
    sum.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
