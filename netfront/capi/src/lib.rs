//! The driver for programs in C, and for whatever speaks to C.
//!
//! `include/netfront.h` is what a program includes; it is made of this crate's documentation, and a test sees
//! that it is up to date. `README.md` beside it says how to build, install and link.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `types.rs` | the structs and numbers of the header |
//! | `handle.rs` | what a handle holds, and each call in safe code |
//! | `problem.rs` | errors of the driver as numbers with a text |
//! | `abi.rs` | the functions of the header: the only file with `unsafe` |
//!
//! A call that fails changes nothing but what it says; a panic ends at the border as `NETFRONT_ERROR_BUG`.
#![deny(unsafe_code)]

mod abi;
mod handle;
mod problem;
mod types;

pub use abi::*;
pub use handle::Netfront;
pub use types::*;
