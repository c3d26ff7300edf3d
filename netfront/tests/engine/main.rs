//! The parts of the receive engine, each by itself, in a time that the test makes.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `top_half` | an event touches no packet |
//! | `source` | queues that count instead of holding packets |
//! | `turns` | whose turn it is: order, shares, budgets, bounds |
//! | `holding` | consumers that are behind |
//! | `order` | packets of a connection keep their order over any changes of workers and cores |
//! | `lanes` | the worker's side: its lanes are polled like queues |
//!
//! What they do together, under load, is in the package `netfront-tests`, `tests/engine`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod holding;
mod lanes;
mod order;
mod source;
mod top_half;
mod turns;
