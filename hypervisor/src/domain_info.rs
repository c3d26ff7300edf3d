//! What dom0 may know of a domain.

use std::time::Duration;

use crate::{DomId, PAGE_SIZE};

/// What the hypervisor says of one domain, at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DomainInfo {
    /// Its number.
    pub id: DomId,
    /// For how long its vCPUs have run, all together, since it was made. What the hypervisor does on
    /// their behalf (hypercalls, faults, copies between domains that it asked for) is in it.
    pub cpu_time: Duration,
    /// vCPUs that are online.
    pub vcpus: u32,
    /// Pages of memory that it has.
    pub memory_pages: u64,
}

impl DomainInfo {
    /// Bytes of memory that it has.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_pages.saturating_mul(PAGE_SIZE as u64)
    }
}
