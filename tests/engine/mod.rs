//! The receive engine under load, in virtual time: the same on every machine, to the last digit.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `parameters.toml` | what things cost, the one committed file |
//! | `parameters` | reads it |
//! | `random` | when packets come; integers only |
//! | `one_core` | a core that receives, and shares itself with an application or a stranger |
//! | `scenarios` | the scenarios of one core |
//! | `many_cores` | event cores and worker cores, with everything bound anew all the time |
//! | `ways` | what is compared there |
//! | `workers` | the workers of those |
//! | `table` | what `ci/engine-table` prints |
//! | `table.txt` | what it printed last, compared by a test |
//!
//! What is played by hand are the loops around netfront's parts, since those that ship (`engine::receiver`, `engine::cores`) poll
//! queues with memory and a backend, and what that costs is the machine's: `netfront/tests/engine` runs them. The loops here do
//! with each answer of a part what those do, dropping too. Several cores differ in one thing: they are played without moderation,
//! each packet after a pause being an event.
//!
//! The decisions are made by netfront's own code. The costs are parameters, and so no figure here says how fast the
//! driver is: it says which rule is better than which, and whether that holds when the world is different.

pub mod many_cores;
pub mod one_core;
pub mod parameters;
pub mod random;
pub mod scenarios;
pub mod table;
pub mod ways;
pub mod workers;
