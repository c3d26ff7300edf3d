//! Xen itself: libxengnttab, libxenevtchn and the device nodes behind them.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `device` | the device nodes: which module makes each, and what to say when one cannot be used |
//! | `library` | the libraries, loaded once, and their calls on the grant devices |
//! | `region` | a region of own pages, with its close notice |
//! | `memory` | where mappings become pages: own ones shared, those of a peer mapped or copied |
//! | `events` | event channels |
//! | `keeper` | a process that holds an event channel handle which must not be closed |
//! | `domains` | the list of all domains, for dom0 |
//!
//! # Invariants
//!
//! - A handle of a library is closed once, after everything that was made by it.
//! - Nothing is inherited: every descriptor closes on exec, and no shared page survives a fork.
//! - The libraries never print: an error is told once, by our own [`Error`](crate::Error).

mod device;
pub(crate) mod domains;
#[allow(unsafe_code)]
pub(crate) mod events;
mod keeper;
#[allow(unsafe_code)]
mod library;
#[allow(unsafe_code)]
pub(crate) mod memory;
mod region;

pub(crate) use device::check;

use crate::Error;

/// The libraries that a domain needs on the real Xen, by the names under which the dynamic linker finds them, each
/// loaded, or why that failed.
pub fn libraries() -> [(&'static str, Result<(), Error>); 2] {
    library::load()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use crate::{Access, DomId, Domain, Error};

    fn on_xen() -> bool {
        Path::new("/dev/xen").exists() || Path::new("/proc/xen").exists()
    }

    /// What cannot be used here is named: the machine, the library or the device node, and what to do.
    fn assert_names_what_is_missing(error: &Error, node: &str, package: &str) {
        let text = error.to_string();
        assert!(matches!(error, Error::Unavailable { .. }), "{text}");
        assert!(text.contains(node) || text.contains(package), "{text}");
    }

    #[test]
    fn off_xen_a_domain_says_that_this_is_no_xen() {
        if on_xen() {
            return;
        }
        let text = Domain::xen().unwrap_err().to_string();
        assert!(text.starts_with("Xen is not available"), "{text}");
    }

    #[test]
    fn off_xen_each_device_is_named_with_its_module_or_its_library_with_its_package() {
        if on_xen() {
            return;
        }
        let counters = Arc::default;
        let error = super::events::Handle::open(counters()).unwrap_err();
        assert_names_what_is_missing(&error, "modprobe xen-evtchn", "libxenevtchn1");
        let error = super::memory::share(DomId(0), 1, Access::ReadWrite, counters()).unwrap_err();
        assert_names_what_is_missing(&error, "modprobe xen-gntalloc", "libxengnttab1");
        let error = super::memory::Foreign::open(DomId(0), counters()).unwrap_err();
        assert_names_what_is_missing(&error, "modprobe xen-gntdev", "libxengnttab1");
    }

    #[test]
    fn each_library_is_loaded_or_named_with_its_package() {
        for (name, loaded) in super::libraries() {
            if let Err(error) = loaded {
                let package = name.replace(".so.", "");
                assert_names_what_is_missing(&error, name, &package);
            }
        }
    }

    #[test]
    fn off_xen_the_list_of_domains_says_what_is_missing() {
        if on_xen() {
            return;
        }
        let error = super::domains::list(&Arc::default()).unwrap_err();
        assert_names_what_is_missing(&error, "modprobe xen-privcmd", "libxenmisc4.17");
    }

    #[test]
    fn off_xen_there_is_no_limit_of_grants_to_be_read() {
        if on_xen() {
            return;
        }
        assert_eq!(super::memory::grant_limit().unwrap(), None);
    }
}
