//! The program, when its domain is restored: it goes on, and it may be stopped at the worst moment.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::sim::{kernel_bugs, save};
use hypervisor::{DomId, Domain, Store};
use netback_sim::traffic::Generator;
use netback_sim::{peer, Backend, BackendHandle, Config};
use netfront_tests::{stats, wait_for, Process};
use serde_json::Value;

/// The number that the program's domain has, before and after: as when it comes to another host.
const GUEST: DomId = DomId(1);

struct Stage {
    back: Domain,
    backend: Option<BackendHandle>,
    socket: PathBuf,
    // The last: the others still speak to it when they go.
    _server: Running,
    directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("xen");
        let server = server::spawn(&socket, Options::new()).unwrap();
        let back = Domain::simulated(&socket, DomId(0)).unwrap();
        Self {
            backend: Some(backend(&back)),
            back,
            socket,
            _server: server,
            directory,
        }
    }

    fn frontend(&self) -> Process {
        let args = ["run", "--sim", self.socket.to_str().unwrap(), "--echo"];
        Process::start("netfront", &args, &self.directory.path().join("frontend"))
    }

    fn traffic(&self) -> Value {
        let backend = self.backend.as_ref().unwrap();
        wait_for("frames in both directions", || {
            backend.verified().filter(|counts| counts.frames > 500)
        });
        wait_for("the counters", || stats(&self.socket))
    }

    /// `meanwhile` is done while the domain is saved.
    fn restore(&mut self, meanwhile: impl FnOnce()) {
        let saved = save(&self.socket, GUEST).unwrap();
        self.backend.take().unwrap().abandon().unwrap();
        let old = format!("/local/domain/0/backend/vif/{GUEST}");
        self.back.native_store().unwrap().remove(&old).unwrap();
        self.backend = Some(backend(&self.back));
        meanwhile();
        saved.restore(GUEST).unwrap();
    }

    fn kernel_bugs(&self) -> u32 {
        // The server hears of the end of a process a moment after us; this is asked behind it.
        std::thread::sleep(std::time::Duration::from_millis(200));
        kernel_bugs(&self.socket).unwrap()
    }
}

fn backend(back: &Domain) -> BackendHandle {
    let generator = Generator::new("mix".parse().unwrap(), 4).unwrap();
    let pace = peer::Pace {
        rate: 5_000,
        burst: 8,
        ..peer::Pace::default()
    };
    Backend::start(back, Config::new(GUEST, peer::Source::new(generator, pace))).unwrap()
}

#[test]
fn the_program_goes_on_after_a_restore_and_its_counters_say_so() {
    let mut stage = Stage::new();
    let mut frontend = stage.frontend();
    let report = stage.traffic();
    assert_eq!(
        (&report["restores"], &report["connections"]),
        (&0.into(), &1.into())
    );
    let descriptors = frontend.descriptors();
    for round in 1..=3 {
        stage.restore(|| {});
        let report = stage.traffic();
        assert_eq!(report["restores"], round);
        assert_eq!(report["counters"]["restores"], round);
        assert_eq!(report["connections"], round + 1);
    }
    assert_eq!(frontend.descriptors(), descriptors, "descriptors leak");
    assert_eq!(frontend.terminate(), Some(0), "{}", frontend.errors());
    // Two handles each time: the queue's and the control ring's.
    let said = frontend.errors();
    let parked =
        "(domid 1 -> 1): its event channels are dead; the old event channel handle is parked";
    assert_eq!(said.matches(parked).count(), 6, "{said}");
    assert_eq!(stage.kernel_bugs(), 0);
}

#[test]
fn a_signal_to_end_right_after_a_restore_or_while_saved_does_no_harm() {
    for while_saved in [false, true] {
        let mut stage = Stage::new();
        let mut frontend = stage.frontend();
        stage.traffic();
        let signal = |process: &Process| process.signal(rustix::process::Signal::TERM);
        stage.restore(|| {
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
        assert_eq!(stage.kernel_bugs(), 0, "{}", frontend.errors());
    }
}
