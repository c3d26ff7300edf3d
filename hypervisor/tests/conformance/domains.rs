//! The list of all domains: only dom0 of the real Xen has one.

#[cfg(feature = "sim")]
mod on_the_simulation {
    use hypervisor::Error;

    #[test]
    fn there_is_no_list_of_domains() {
        let error = crate::simulated().back.list_domains().unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}

mod on_xen {
    use std::time::Duration;

    use hypervisor::{Domain, DomainInfo};

    /// What the list says of the domain that this test runs in.
    fn own(domain: &Domain) -> DomainInfo {
        let id = domain.id().unwrap();
        let domains = domain.list_domains().unwrap();
        domains.into_iter().find(|info| info.id == id).unwrap()
    }

    #[test]
    #[ignore = "needs real Xen: ci/xen-lab/run conformance"]
    fn dom0_is_in_the_list_with_its_vcpu_and_its_memory() {
        let own = own(&crate::xen().front);
        assert!(own.vcpus >= 1, "{own:?}");
        assert!(own.memory_bytes() > 64 << 20, "{own:?}");
    }

    #[test]
    #[ignore = "needs real Xen: ci/xen-lab/run conformance"]
    fn the_cpu_time_grows_with_the_work_that_is_done() {
        let domain = crate::xen().front;
        let before = own(&domain).cpu_time;
        let mut work = 0_u64;
        // Looked at again and again: how fast the machine is, is nobody's promise.
        let grown = crate::eventually("10 ms of CPU time", || {
            for step in 0..1_000_000 {
                work = std::hint::black_box(work.wrapping_mul(31).wrapping_add(step));
            }
            let grown = own(&domain).cpu_time.checked_sub(before).unwrap();
            (grown >= Duration::from_millis(10)).then_some(grown)
        });
        assert!(grown < crate::DEADLINE * 2, "{grown:?}");
    }

    #[test]
    #[ignore = "needs real Xen: ci/xen-lab/run conformance"]
    fn each_domain_is_listed_once_in_the_order_of_the_numbers() {
        let domains = crate::xen().front.list_domains().unwrap();
        assert!(
            domains.windows(2).all(|two| two[0].id < two[1].id),
            "{domains:?}"
        );
    }
}
