//! The parts of the receive engine, each by itself, in a time that the test makes; and the threads that run on them.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `top_half` | an event touches no packet |
//! | `source` | queues that count instead of holding packets |
//! | `turns` | whose turn it is: order, shares, budgets, bounds |
//! | `holding` | consumers that are behind |
//! | `order` | packets of a connection keep their order over any changes of workers and cores |
//! | `lanes` | the worker's side: its lanes are polled like queues |
//! | `receiver` | a queue and its consumer, by all of these |
//! | `behind` | workers that are behind, one of two or both |
//! | `bound` | where queues are, and their packets come |
//! | `cores` | queues on event cores, with workers or without, in threads |
//! | `pending` | kinds of deferred work, the lowest first |
//! | `fate` | a program decides about a packet before its buffer is built, and after |
//! | `undisturbed` | events are taken by event cores, and never by a worker |
//! | `quiet` | what one queue goes through is not felt by the cores, nor by other queues |
//!
//! What they do together, under load, is in the package `netfront-tests`, `tests/engine`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod behind;
mod bound;
#[path = "../common/mod.rs"]
mod common;
mod cores;
mod fate;
mod holding;
mod lanes;
mod order;
mod pending;
mod quiet;
mod receiver;
mod source;
mod top_half;
mod turns;
mod undisturbed;
