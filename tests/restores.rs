//! The program, when its domain is restored: it goes on, and it may be stopped at the worst moment.

#![allow(clippy::unwrap_used)]

use hypervisor::sim::server::Options;
use hypervisor::sim::{kernel_bugs, save};
use netback_sim::BackendHandle;
use netfront_tests::stage::{source, Stage, FRONT};
use netfront_tests::{stats, wait_for, Process};
use serde_json::Value;

/// The program's vif. Its domain has the same number before and after, as when it comes to another host.
struct Vif {
    backend: Option<BackendHandle>,
    stage: Stage,
}

impl Vif {
    fn new() -> Self {
        // Enough for two queues.
        let stage = Stage::with(Options::new().grant_limit(4096));
        Self {
            backend: Some(backend(&stage)),
            stage,
        }
    }

    fn frontend(&self) -> Process {
        let args = ["run", "--sim", self.stage.sim(), "--echo", "--queues", "2"];
        Process::start("netfront", &args, &self.stage.path("frontend"))
    }

    fn traffic(&self) -> Value {
        let backend = self.backend.as_ref().unwrap();
        wait_for("frames in both directions", || {
            backend.verified().filter(|counts| counts.frames > 500)
        });
        wait_for("the counters", || stats(&self.stage.socket))
    }

    /// `meanwhile` is done while the domain is saved.
    fn restore(&mut self, meanwhile: impl FnOnce()) {
        let saved = save(&self.stage.socket, FRONT).unwrap();
        self.backend.take().unwrap().abandon().unwrap();
        self.stage.remove_vifs_of(FRONT);
        self.backend = Some(backend(&self.stage));
        meanwhile();
        saved.restore(FRONT).unwrap();
    }

    fn kernel_bugs(&self) -> u32 {
        // The server hears of the end of a process a moment after us; this is asked behind it.
        std::thread::sleep(std::time::Duration::from_millis(200));
        kernel_bugs(&self.stage.socket).unwrap()
    }
}

fn backend(stage: &Stage) -> BackendHandle {
    stage.backend(0, source("mix", 5000, 0))
}

#[test]
fn the_program_goes_on_after_a_restore_and_its_counters_say_so() {
    let mut vif = Vif::new();
    let mut frontend = vif.frontend();
    let report = vif.traffic();
    assert_eq!(
        (&report["restores"], &report["connections"]),
        (&0.into(), &1.into())
    );
    let descriptors = frontend.descriptors();
    for round in 1..=3 {
        vif.restore(|| {});
        let report = vif.traffic();
        assert_eq!(report["restores"], round);
        assert_eq!(report["counters"]["restores"], round);
        assert_eq!(report["connections"], round + 1);
    }
    frontend.wait_for_descriptors(descriptors);
    assert_eq!(frontend.terminate(), Some(0), "{}", frontend.errors());
    // Three handles each time: those of the queues and that of the control ring.
    let said = frontend.errors();
    let parked =
        "(domid 1 -> 1): its event channels are dead; the old event channel handle is parked";
    assert_eq!(said.matches(parked).count(), 9, "{said}");
    assert_eq!(vif.kernel_bugs(), 0);
}

#[test]
fn a_signal_to_end_right_after_a_restore_or_while_saved_does_no_harm() {
    for while_saved in [false, true] {
        let mut vif = Vif::new();
        let mut frontend = vif.frontend();
        vif.traffic();
        let signal = |process: &Process| process.signal(rustix::process::Signal::TERM);
        vif.restore(|| {
            if while_saved {
                signal(&frontend);
            }
        });
        let code = frontend.terminate();
        // A goodbye that had begun before finds nobody to answer it.
        assert!(
            code == Some(0) || while_saved,
            "{code:?}: {}",
            frontend.errors()
        );
        assert_eq!(vif.kernel_bugs(), 0, "{}", frontend.errors());
    }
}
