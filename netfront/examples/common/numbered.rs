//! Datagrams that carry numbers: what the sender, the receiver on the driver and the counter at a socket share.
//!
//! ```text
//! 0..8   number of the datagram in its flow, from 0 on, in network order; 2^64 - 1: there are no more, of any flow
//! 8..10  number of the flow
//! ```

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

/// The number of the datagram after the last one.
pub const END: u64 = u64::MAX;
/// Bytes that every datagram has.
pub const LEAST: usize = 10;
/// The most flows.
pub const FLOWS: u16 = 1024;
/// Datagrams between two looks at the clock: on some guests a look is a system call.
const LOOK_UP: u64 = 64;

/// The bytes that a datagram begins with.
pub fn head(flow: u16, number: u64) -> [u8; LEAST] {
    let mut bytes = [0; LEAST];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&flow.to_be_bytes());
    bytes
}

/// Flow and number of a datagram; `None` if it is too short for them.
pub fn parse(payload: &[u8]) -> Option<(u16, u64)> {
    let (number, rest) = payload.split_first_chunk()?;
    let (flow, _) = rest.split_first_chunk()?;
    Some((u16::from_be_bytes(*flow), u64::from_be_bytes(*number)))
}

/// What a program does with a datagram besides counting it: so many multiplications, each of which needs the one before.
pub fn work(number: u64, steps: u32) {
    let mut value = number;
    for _ in 0..black_box(steps) {
        value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    }
    black_box(value);
}

/// What came, counted by any number of threads.
pub struct Tally {
    /// By flow, the number after the highest that came: so many were sent, if the last ones came.
    next: Box<[AtomicU64]>,
    delivered: AtomicU64,
    /// Datagrams that came after one of their flow with a higher number.
    late: AtomicU64,
    began: OnceLock<Instant>,
    /// The last look at the clock: nanoseconds since it began, and datagrams since then.
    time: AtomicU64,
    until_then: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            next: (0..FLOWS).map(|_| AtomicU64::new(0)).collect(),
            delivered: AtomicU64::new(0),
            late: AtomicU64::new(0),
            began: OnceLock::new(),
            time: AtomicU64::new(0),
            until_then: AtomicU64::new(0),
        }
    }
}

impl Tally {
    /// One came. Gives how many have; one of a flow that there cannot be is not counted.
    pub fn count(&self, flow: u16, number: u64) -> u64 {
        let Some(next) = self.next.get(usize::from(flow)) else {
            return self.delivered.load(Relaxed);
        };
        let before = next.fetch_max(number.saturating_add(1), Relaxed);
        self.late.fetch_add(u64::from(number < before), Relaxed);
        let earlier = self.delivered.fetch_add(1, Relaxed);
        if earlier.is_multiple_of(LOOK_UP) {
            let passed = self.began.get_or_init(Instant::now).elapsed();
            let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            self.time.store(nanos, Relaxed);
            self.until_then.store(earlier, Relaxed);
        }
        earlier + 1
    }

    /// What was counted.
    pub fn report(&self) -> Value {
        let delivered = self.delivered.load(Relaxed);
        let next = || self.next.iter().map(|next| next.load(Relaxed));
        let seconds = Duration::from_nanos(self.time.load(Relaxed)).as_secs_f64();
        let until_then = self.until_then.load(Relaxed) as f64;
        json!({
            "delivered": delivered,
            "lost": next().sum::<u64>().saturating_sub(delivered),
            "out_of_order": self.late.load(Relaxed),
            "flows": next().filter(|&next| next > 0).count(),
            "receiving_seconds": seconds,
            "per_second": if seconds > 0.0 { (until_then / seconds).round() } else { 0.0 },
        })
    }
}
