//! A capture around any consumer: a pcap file with nanoseconds, readable by tcpdump.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::Consumer;
use crate::device::Link;
use crate::packet::Packet;
use crate::queue::Queue;
use crate::Error;

/// The file, shared with the pcap writer, which offers no way to flush it.
#[derive(Clone)]
struct Shared(Arc<Mutex<BufWriter<File>>>);

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
        // A poisoned lock means that a write panicked: the file is of no more use, but nothing else is.
        work(
            &mut *self
                .0
                .lock()
                .map_err(|_| io::Error::other("the writer has failed"))?,
        )
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(Write::flush)
    }
}

/// A pcap file that is being written.
pub struct CaptureFile {
    writer: PcapWriter<Shared>,
    file: Shared,
    snaplen: usize,
    scratch: Vec<u8>,
    failed: bool,
}

impl CaptureFile {
    /// Creates the file. Of each packet at most `snaplen` bytes are kept.
    ///
    /// # Errors
    /// When the file cannot be created or written.
    pub fn create(path: &Path, snaplen: usize) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io("creating the capture file"))?;
        let header = PcapHeader {
            snaplen: u32::try_from(snaplen).unwrap_or(u32::MAX),
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let file = Shared(Arc::new(Mutex::new(BufWriter::new(file))));
        let writer = PcapWriter::with_header(file.clone(), header)
            .map_err(|error| Error::io("writing the capture file")(into_io(error)))?;
        Ok(Self {
            writer,
            file,
            snaplen,
            scratch: Vec::with_capacity(65_536),
            failed: false,
        })
    }

    /// Writes one packet, given in slices.
    pub fn write<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) {
        if self.failed {
            // What failed may have left half a record behind: nothing after it could be read.
            return;
        }
        self.scratch.clear();
        slices.for_each(|slice| self.scratch.extend_from_slice(slice));
        let original = u32::try_from(self.scratch.len()).unwrap_or(u32::MAX);
        self.scratch.truncate(self.snaplen);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let packet = PcapPacket {
            timestamp: now,
            orig_len: original,
            data: Cow::Borrowed(&self.scratch),
        };
        if let Err(error) = self.writer.write_packet(&packet) {
            // A full disk must not stop the traffic, and is said once.
            if !std::mem::replace(&mut self.failed, true) {
                tracing::warn!("the capture ends here: {}", into_io(error));
            }
        }
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) {
        if let Err(error) = self.file.flush() {
            if !std::mem::replace(&mut self.failed, true) {
                tracing::warn!("the capture ends here: {error}");
            }
        }
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// Writes every packet to a file before the consumer inside gets it.
///
/// Packets that are sent are not captured: consumers fill granted pages directly.
pub struct Capture<C> {
    inner: C,
    file: CaptureFile,
}

impl<C: Consumer> Capture<C> {
    /// Captures into `file` what goes to `inner`.
    pub fn new(inner: C, file: CaptureFile) -> Self {
        Self { inner, file }
    }

    /// The consumer inside.
    pub fn inner(&mut self) -> &mut C {
        &mut self.inner
    }
}

impl<C: Consumer> Consumer for Capture<C> {
    fn link(&mut self, link: &Link) -> Result<(), Error> {
        self.inner.link(link)
    }

    fn attend(&mut self, has_queue: bool) -> Result<(), Error> {
        self.inner.attend(has_queue)
    }

    fn deliver(&mut self, packet: &mut Packet<'_>) {
        self.file.write(packet.slices());
        self.inner.deliver(packet);
    }

    fn waiting(&self) -> usize {
        self.inner.waiting()
    }

    fn finish(&mut self) {
        self.inner.finish();
        self.file.flush();
    }

    fn offer(&mut self, queue: &mut Queue, budget: usize) -> Result<usize, Error> {
        self.inner.offer(queue, budget)
    }

    fn offers_within(&mut self) -> Option<Duration> {
        self.inner.offers_within()
    }

    fn announce(&mut self, queue: &mut Queue) {
        self.inner.announce(queue);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }
}

impl<C> std::fmt::Debug for Capture<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for CaptureFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureFile")
            .field("snaplen", &self.snaplen)
            .finish_non_exhaustive()
    }
}
