//! A TAP device with virtio-net headers, as both ends of a vif use it.
//!
//! A TAP is a network interface whose cable ends in a file descriptor: what the kernel sends on the
//! interface is read there, what is written there the kernel receives. Each frame is preceded by a
//! 12-byte [`VnetHeader`] that says which checksum is still to be filled in and how a large segment
//! is to be cut. With it a 64 KiB TCP segment crosses in one read or one write; without it the
//! kernel would cut it into 45 frames first, at 45 times the system calls.
//!
//! - [`options`]: what a TAP is opened with, which offloads its reader can take.
//! - [`tap`]: the device: [`Tap::receive`], [`Tap::send`], MAC, MTU, carrier.
//! - [`header`]: the virtio-net header.
//! - [`namespace`]: TAPs in other network namespaces, so that one machine can play two.
//! - [`error`]: what can go wrong, and what to do then.
//!
//! ```no_run
//! use netfront_tap::{Offloads, Tap, TapOptions, VnetHeader, HEADER_SIZE};
//! use std::io::{IoSlice, IoSliceMut};
//!
//! # fn main() -> Result<(), netfront_tap::Error> {
//! let tap = Tap::open(TapOptions { name: "xn0".into(), ..TapOptions::default() })?;
//! tap.set_offloads(Offloads::all())?;
//! tap.set_up(true)?;
//!
//! let (mut header, mut frame) = ([0; HEADER_SIZE], vec![0; 65_536]);
//! if let Some(len) = tap.receive(&mut header, &mut [IoSliceMut::new(&mut frame)])? {
//!     println!("{len} bytes, {:?}", VnetHeader::decode(&header));
//!     tap.send(&[IoSlice::new(&header), IoSlice::new(&frame[..len])])?;
//! }
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

pub mod error;
pub mod header;
#[allow(unsafe_code)]
mod ioctl;
pub mod namespace;
pub mod options;
pub mod tap;

pub use error::Error;
pub use header::{VnetHeader, HEADER_SIZE};
pub use options::{Offloads, TapOptions};
pub use tap::{check_name, Sent, Tap, MAX_SLICES};
