//! The limit: the copies that the transport cannot avoid, over a bare ring between the same two processes.
//!
//! One page of indices, each on a line of its own; 256 pages of packets with staggered starts; batches of
//! 32. Nothing is checked and nothing can be refused. It is measured with and without prefetching, which
//! helps small packets and hinders large ones, and the better counts.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use xen_ring::{Page, PAGE_SIZE};

use super::{fill, BATCH};

/// Packets' pages.
pub const PAGES: usize = 256;
/// Offsets of the two indices in the first page: lines apart, with one between for the prefetcher.
const PRODUCED: usize = 0;
const CONSUMED: usize = 128;

/// One end of the bare ring.
pub struct End {
    /// The page of indices.
    pub control: Page,
    /// The packets' pages.
    pub pages: Vec<Page>,
    /// Bytes a packet.
    pub size: usize,
    /// Bytes that the receiver copies out; otherwise it reads one line.
    pub copied: usize,
    /// Prefetch the page after the next.
    pub prefetch: bool,
}

impl End {
    fn offset(&self, index: usize) -> usize {
        let room = (PAGE_SIZE - self.size) / 64 + 1;
        (index * 7 % room) * 64
    }

    /// Fills, copies and publishes until the time is over. Returns packets a second.
    pub fn produce(&self, time: Duration) -> f64 {
        let mut source = vec![0u8; self.size];
        let mut produced = 0u32;
        let start = Instant::now();
        while start.elapsed() < time {
            let consumed = self.control.load(CONSUMED, Ordering::Acquire);
            if produced.wrapping_sub(consumed) as usize > PAGES - BATCH {
                std::hint::spin_loop();
                continue;
            }
            for _ in 0..BATCH {
                let index = produced as usize % PAGES;
                if self.prefetch {
                    let ahead = (index + 2) % PAGES;
                    self.pages[ahead].prefetch_write(self.offset(ahead), self.size);
                }
                fill(&mut source, u64::from(produced));
                self.pages[index].copy_in(self.offset(index), &source);
                produced = produced.wrapping_add(1);
            }
            self.control.store(PRODUCED, produced, Ordering::Release);
        }
        f64::from(produced) / start.elapsed().as_secs_f64()
    }

    /// Consumes until the time is over. Returns packets a second.
    pub fn consume(&self, time: Duration) -> f64 {
        let mut into = vec![0u8; self.copied.max(64)];
        let mut consumed = 0u32;
        let mut seen = 0u64;
        let start = Instant::now();
        while start.elapsed() < time {
            let produced = self.control.load(PRODUCED, Ordering::Acquire);
            let ready = (produced.wrapping_sub(consumed) as usize).min(BATCH);
            for _ in 0..ready {
                let index = consumed as usize % PAGES;
                if self.prefetch {
                    let ahead = (index + 2) % PAGES;
                    self.pages[ahead].prefetch_read(self.offset(ahead), self.copied.max(64));
                }
                let bytes = self.copied.max(64).min(self.size);
                self.pages[index].copy_out(self.offset(index), &mut into[..bytes]);
                seen = seen.wrapping_add(u64::from(into[0]));
                consumed = consumed.wrapping_add(1);
            }
            if ready > 0 {
                self.control.store(CONSUMED, consumed, Ordering::Release);
            } else {
                std::hint::spin_loop();
            }
        }
        std::hint::black_box(seen);
        f64::from(consumed) / start.elapsed().as_secs_f64()
    }
}
