//! The other end of the wire: sends frames at a rate that changes, and measures how long each takes to come back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netback_sim::frame::{Frame, FrameBurst};
use netback_sim::Peer;
use netfront::Offload;

/// The smallest frame.
const FRAME: usize = 60;
/// What was not sent in time is made up for so long, not for ever.
const LATE: Duration = Duration::from_millis(10);

/// What is told to the pinger, and what it has found.
#[derive(Debug, Default)]
pub struct Pings {
    /// Frames a second; 0: none.
    rate: AtomicU64,
    /// Frames that are sent back to back.
    burst: AtomicU64,
    /// Frames of an earlier phase do not count.
    phase: AtomicU64,
    /// Nanoseconds.
    times: Mutex<Vec<u64>>,
}

impl Pings {
    /// Begins to send at this rate, so many at once; what was found before is forgotten. From rate 0 there is no way back:
    /// nobody wakes the backend.
    pub fn begin(&self, rate: u64, burst: u64) {
        self.phase.fetch_add(1, Relaxed);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.clear();
        times.reserve(1 << 20);
        drop(times);
        self.burst.store(burst.max(1), Relaxed);
        self.rate.store(rate, Relaxed);
    }

    /// Nanoseconds that frames took, the shortest first.
    pub fn found(&self) -> Vec<u64> {
        let mut found = self
            .times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        found.sort_unstable();
        found
    }
}

pub struct Pinger {
    pings: Arc<Pings>,
    start: Instant,
    /// When the next burst is due.
    next: Instant,
    /// Frames of the present one that are to be sent.
    left: u64,
    connected: bool,
}

impl Pinger {
    pub fn new(pings: &Arc<Pings>) -> Self {
        let start = Instant::now();
        Self {
            pings: Arc::clone(pings),
            start,
            next: start,
            left: 0,
            connected: false,
        }
    }

    /// Between two bursts; none if nothing is to be sent.
    fn gap(&self) -> Option<Duration> {
        let rate = self.pings.rate.load(Relaxed);
        (rate > 0).then(|| Duration::from_secs_f64(self.burst() as f64 / rate as f64))
    }

    fn burst(&self) -> u64 {
        self.pings.burst.load(Relaxed)
    }
}

impl Peer for Pinger {
    fn receive(&mut self, frames: &mut [Frame<'_>], _: &mut FrameBurst) {
        let now = self.start.elapsed().as_nanos() as u64;
        let phase = self.pings.phase.load(Relaxed);
        let word = |bytes: &[u8], at: usize| -> Option<u64> {
            let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_be_bytes(bytes))
        };
        let mut times = self
            .pings
            .times
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for frame in frames {
            let sent = word(frame.bytes, 14).filter(|_| word(frame.bytes, 22) == Some(phase));
            times.extend(sent.map(|sent| now.saturating_sub(sent)));
        }
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        let now = Instant::now();
        let Some(gap) = self.gap() else { return };
        let earliest = now.checked_sub(LATE).unwrap_or(now);
        self.next = self.next.max(earliest);
        while self.left > 0 || self.next <= now {
            if self.left == 0 {
                self.left = self.burst();
                self.next += gap;
            }
            let mut frame = [0; FRAME];
            frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
            frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            // An ethertype for experiments.
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            let sent = self.start.elapsed().as_nanos() as u64;
            frame[14..22].copy_from_slice(&sent.to_be_bytes());
            let phase = self.pings.phase.load(Relaxed);
            frame[22..30].copy_from_slice(&phase.to_be_bytes());
            if !burst.push(&frame, Offload::default()) {
                break;
            }
            self.left -= 1;
        }
    }

    fn due(&self) -> Option<Instant> {
        // The rest of a burst is due at once.
        let next = if self.left > 0 { self.start } else { self.next };
        self.gap().filter(|_| self.connected).map(|_| next)
    }

    fn connected(&mut self, _: &netback_sim::FrontFeatures) {
        self.connected = true;
    }

    fn disconnected(&mut self) {
        self.connected = false;
    }
}
