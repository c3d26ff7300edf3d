//! All domains of the machine: asked of the hypervisor, which answers only dom0.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::device;
use super::library::{DomainRecord, Machine};
use crate::counters::add;
use crate::{Counters, DomId, DomainInfo, Error, Lack};

/// Every domain of the machine, in the order of their numbers.
pub(crate) fn list(counters: &Arc<Counters>) -> Result<Vec<DomainInfo>, Error> {
    // Asked first: a guest is not to be sent after a library that would not help it.
    device::check_control_domain()?;
    let machine = Machine::open()?;
    let mut domains = Vec::new();
    let mut first = 0;
    loop {
        add(&counters.hypercalls, 1);
        let records = machine.domains_from(first).map_err(refused)?;
        // Xen answers with fewer than asked for only at the end of its list, and with none behind it.
        let Some(last) = records.last() else {
            return Ok(domains);
        };
        first = u32::from(last.domain) + 1;
        domains.extend(records.iter().map(info));
    }
}

fn info(record: &DomainRecord) -> DomainInfo {
    DomainInfo {
        id: DomId(record.domain),
        cpu_time: std::time::Duration::from_nanos(record.cpu_time),
        vcpus: record.nr_online_vcpus,
        memory_pages: record.tot_pages,
    }
}

/// Xen says EACCES to a library of another release, and EPERM to a domain without the right.
fn refused(source: io::Error) -> Error {
    let (found, hint) = match Errno::from_io_error(&source) {
        Some(Errno::ACCESS) => (
            "the hypervisor is of another release than libxenctrl, and refuses its question",
            "use the hypervisor's own tools (`xl list`, `xentop`); this program knows Xen 4.17 only",
        ),
        Some(Errno::PERM) => (
            "the hypervisor refuses it to this domain",
            "run this in dom0",
        ),
        _ => return Error::system("ask the hypervisor for the list of domains", source),
    };
    Error::Unavailable {
        lack: Lack::Here,
        wanted: "The list of domains".into(),
        found: found.into(),
        hint: hint.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_another_release_is_told_from_a_domain_without_the_right() {
        let text = |errno: Errno| refused(errno.into()).to_string();
        assert!(
            text(Errno::ACCESS).contains("another release"),
            "{}",
            text(Errno::ACCESS)
        );
        assert!(
            text(Errno::PERM).contains("in dom0"),
            "{}",
            text(Errno::PERM)
        );
        assert!(text(Errno::FAULT).starts_with("Could not ask the hypervisor"));
    }
}
