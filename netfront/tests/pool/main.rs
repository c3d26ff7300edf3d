//! The pool of granted pages: the requirements H-1 to H-14, one test each, and what must hold at every step.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `requirements` | H-1 to H-14 by their numbers |
//! | `conservation` | every page is in one place, whatever happens in whatever order |
//! | `growth` | growing, reaching the limit, shrinking |
//! | `leases` | pages that are away with consumers, and what a backend can still do to them |
//! | `policies` | the ways that the pool is compared with |
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod conservation;
mod growth;
mod leases;
mod policies;
mod requirements;
