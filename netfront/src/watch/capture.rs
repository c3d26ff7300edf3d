//! Packets into pcap, readable by tcpdump.

use std::sync::Arc;

use pcap_file::pcap::PcapHeader;
use pcap_file::{DataLink, Endianness, TsResolution};

use super::{wall_clock, Kind, Limits, Running, TraceFormat, Watch};
use crate::Error;

/// The header of each packet in a pcap file.
const RECORD: usize = 16;
/// The longest packet that a queue carries, and so the snaplen that cuts nothing off.
pub const WHOLE: usize = 65_535;

impl Watch {
    /// Starts a capture: what is received and what is sent from now on, as pcap with nanoseconds. It ends when its
    /// limits are reached, or when what is returned is dropped.
    ///
    /// # Errors
    /// [`Error::IsRecording`] while another capture runs, [`Error::Ending`] after [`Self::close`]; without a
    /// descriptor to wake the writer.
    pub fn capture(self: &Arc<Self>, limits: Limits) -> Result<Running, Error> {
        let header = PcapHeader {
            snaplen: limits.snaplen.clamp(1, WHOLE) as u32,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let mut bytes = Vec::new();
        header
            .write_to(&mut bytes)
            .map_err(|error| Error::io("writing a pcap header")(std::io::Error::other(error)))?;
        self.start(Kind::Capture, TraceFormat::Text, &bytes, limits)
    }

    /// Captures a packet of `len` bytes, of which `fill` copies the first into what it is given.
    #[cold]
    pub(crate) fn packet(&self, len: usize, fill: impl FnOnce(&mut [u8])) {
        let time = wall_clock();
        self.record(
            Kind::Capture,
            |now| RECORD + len.min(now.snaplen),
            |now| {
                let kept = len.min(now.snaplen);
                // pcap has 32 bits for the seconds.
                let seconds = time.as_secs() as u32;
                for field in [seconds, time.subsec_nanos(), kept as u32, len as u32] {
                    now.bytes.extend_from_slice(&field.to_ne_bytes());
                }
                let at = now.bytes.len();
                now.bytes.resize(at + kept, 0);
                fill(&mut now.bytes[at..]);
            },
        );
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
