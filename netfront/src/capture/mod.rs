//! A capture that is switched on and off while packets pass: what was received and what was sent, as pcap.
//!
//! The queue's thread copies packets into a buffer; whoever started the capture writes it out from a thread of
//! its own. So neither a slow disk nor a reader that sleeps holds up traffic: what finds no room in the buffer
//! is not captured, and counted. While no capture runs it costs one relaxed load for each batch that is received
//! and for each packet that is sent.
//!
//! ```no_run
//! use std::sync::Arc;
//! use netfront::capture::{CaptureSwitch, Limits};
//! use netfront::Device;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let switch = Arc::new(CaptureSwitch::default());
//! let xen = netfront::hypervisor::Domain::xen()?;
//! let device = Device::builder(0).capture(Arc::clone(&switch)).connect(&xen)?;
//! // At any time, in any thread:
//! let running = switch.start(Limits { packets: Some(100), ..Limits::default() })?;
//! let file = std::fs::File::create("vif0.pcap")?;
//! std::thread::spawn(move || running.write_to(&file, None));
//! # Ok(())
//! # }
//! ```

mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pcap_file::pcap::PcapHeader;
use pcap_file::{DataLink, Endianness, TsResolution};

use crate::waker::Waker;
use crate::Error;

pub use writer::{Running, Totals};

/// Bytes that may wait for the writer: what 10 Gbit/s brings in some milliseconds.
const BUFFER: usize = 4 << 20;
/// The header of each packet in a pcap file.
const RECORD: usize = 16;
/// The longest packet that a queue carries, and so the snaplen that cuts nothing off.
pub const WHOLE: usize = 65_535;

/// What is captured, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes kept of each packet.
    pub snaplen: usize,
    /// The capture ends after so many packets.
    pub packets: Option<u64>,
    /// The capture ends after this time.
    pub time: Option<Duration>,
}

impl Default for Limits {
    /// Everything, until it is stopped.
    fn default() -> Self {
        Self {
            snaplen: WHOLE,
            packets: None,
            time: None,
        }
    }
}

/// Switches captures of a queue on and off, from any thread. One capture runs at a time.
#[derive(Debug, Default)]
pub struct CaptureSwitch {
    on: AtomicBool,
    recording: Mutex<Option<Recording>>,
}

/// What is captured and not yet written.
#[derive(Debug)]
struct Recording {
    bytes: Vec<u8>,
    snaplen: usize,
    left: u64,
    totals: Totals,
    writer: Arc<Waker>,
}

impl CaptureSwitch {
    /// Starts a capture. It ends when its limits are reached, or when what is returned is dropped.
    ///
    /// # Errors
    /// While another capture runs, or without a descriptor to wake the writer.
    pub fn start(self: &Arc<Self>, limits: Limits) -> Result<Running, Error> {
        let mut recording = self.recording();
        if recording.is_some() {
            return Err(Error::CaptureRuns);
        }
        let writer = Arc::new(Waker::new()?);
        let snaplen = limits.snaplen.clamp(1, WHOLE);
        let mut bytes = Vec::with_capacity(BUFFER);
        let header = PcapHeader {
            snaplen: snaplen as u32,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        header
            .write_to(&mut bytes)
            .map_err(|error| Error::io("writing a pcap header")(std::io::Error::other(error)))?;
        // The header goes out at once: a reader behind a pipe waits for it.
        writer.wake();
        *recording = Some(Recording {
            bytes,
            snaplen,
            left: limits.packets.unwrap_or(u64::MAX),
            totals: Totals::default(),
            writer: Arc::clone(&writer),
        });
        self.on.store(limits.packets != Some(0), Ordering::Release);
        drop(recording);
        let end = limits.time.map(|time| Instant::now() + time);
        Ok(Running::new(Arc::clone(self), writer, end))
    }

    /// True while packets are captured.
    #[inline]
    pub fn is_on(&self) -> bool {
        // Nothing is read on the strength of it: a packet more or less at either end is no matter.
        self.on.load(Ordering::Relaxed)
    }

    /// Captures a packet of `len` bytes, of which `fill` copies the first into what it is given.
    #[cold]
    pub(crate) fn record(&self, len: usize, fill: impl FnOnce(&mut [u8])) {
        let mut recording = self.recording();
        let Some(now) = recording.as_mut().filter(|now| now.left > 0) else {
            return;
        };
        let at = now.bytes.len();
        let kept = len.min(now.snaplen);
        if at + RECORD + kept > now.bytes.capacity() {
            now.totals.dropped += 1;
            return;
        }
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        // Seconds and nanoseconds, bytes kept, bytes there were. pcap has 32 bits for the seconds.
        let fields = [
            time.as_secs() as u32,
            time.subsec_nanos(),
            kept as u32,
            len as u32,
        ];
        for field in fields {
            now.bytes.extend_from_slice(&field.to_ne_bytes());
        }
        now.bytes.resize(at + RECORD + kept, 0);
        fill(&mut now.bytes[at + RECORD..]);
        now.totals.captured += 1;
        now.left -= 1;
        if now.left == 0 {
            self.on.store(false, Ordering::Relaxed);
        }
        // Woken once for all that comes before it looks.
        if at == 0 || now.left == 0 {
            now.writer.wake();
        }
    }

    fn recording(&self) -> MutexGuard<'_, Option<Recording>> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies as much of `slices` as there is room for.
pub(crate) fn copy_slices<'a>(slices: impl Iterator<Item = &'a [u8]>, mut into: &mut [u8]) {
    for slice in slices {
        let len = slice.len().min(into.len());
        let (part, rest) = std::mem::take(&mut into).split_at_mut(len);
        part.copy_from_slice(&slice[..len]);
        into = rest;
    }
}

#[cfg(test)]
mod tests;
