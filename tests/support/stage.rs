//! A simulated Xen whose driver domain is in the test. The guest is in the test too, or a process of its own.

use std::path::PathBuf;

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::{DomId, Domain, Store};
use netback_sim::peer::{Pace, Source};
use netback_sim::traffic::Generator;
use netback_sim::{Backend, BackendHandle, Config, Peer};
use tempfile::TempDir;

use crate::until;

/// The driver domain.
pub const BACK: DomId = DomId(0);
/// The guest.
pub const FRONT: DomId = DomId(1);

/// A simulated Xen with a driver domain.
pub struct Stage {
    /// The driver domain.
    pub back: Domain,
    /// Where the simulated Xen listens.
    pub socket: PathBuf,
    server: Option<Running>,
    directory: TempDir,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// With what a guest has by default.
    pub fn new() -> Self {
        Self::with(Options::new())
    }

    /// With these limits.
    ///
    /// # Panics
    /// If the simulated Xen does not start.
    pub fn with(options: Options) -> Self {
        let directory = TempDir::new().expect("a directory");
        let socket = directory.path().join("xen");
        let server = server::spawn(&socket, options).expect("a simulated Xen");
        Self {
            back: Domain::simulated(&socket, BACK).expect("the driver domain"),
            socket,
            server: Some(server),
            directory,
        }
    }

    /// A file beside the socket.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The socket as a word of a command line.
    ///
    /// # Panics
    /// If the directory for temporary files has a name that is no text.
    pub fn sim(&self) -> &str {
        self.socket.to_str().expect("a path that is text")
    }

    /// The guest's domain: one process at a time can be it.
    ///
    /// # Panics
    /// If another one is.
    pub fn guest(&self) -> Domain {
        Domain::simulated(&self.socket, FRONT).expect("the guest's domain")
    }

    /// A backend for the guest's vif of this number.
    pub fn backend(&self, vif: u32, peer: impl Peer + 'static) -> BackendHandle {
        self.backend_for(FRONT, vif, peer)
    }

    /// The same for a guest of another number.
    ///
    /// # Panics
    /// If it does not start.
    pub fn backend_for(&self, guest: DomId, vif: u32, peer: impl Peer + 'static) -> BackendHandle {
        let config = Config {
            handle: vif,
            ..Config::new(guest, peer)
        };
        Backend::start(&self.back, config).expect("a backend")
    }

    /// Removes the backend's directories of a guest, as the toolstack does when it is saved.
    ///
    /// # Panics
    /// If the store refuses.
    pub fn remove_vifs_of(&self, guest: DomId) {
        let mut store = self.back.native_store().expect("a store");
        let path = format!("/local/domain/{BACK}/backend/vif/{guest}");
        store.remove(&path).expect("removed");
    }

    /// The simulated Xen, and with it the store, is gone from now on.
    pub fn end(&mut self) {
        self.server = None;
    }
}

/// The other end of a wire: it sends `count` verifiable frames (0: without end) of these sizes (bytes, or `mix`), so
/// many a second (0: as fast as they are taken), and verifies what comes.
///
/// # Panics
/// If there are no such sizes.
pub fn source(sizes: &str, rate: u64, count: u64) -> Source {
    let generator = Generator::new(sizes.parse().expect("sizes"), 4).expect("a generator");
    let pace = Pace {
        rate,
        burst: 10,
        count,
    };
    Source::new(generator, pace)
}

/// Waits until so many frames have come from the guest: exactly so many, each of them once, in order and whole.
///
/// # Panics
/// If they do not come, or others do.
pub fn all_came(backend: &BackendHandle, frames: u64) {
    let judged = || backend.verified().unwrap_or_default();
    until("all frames to come", || judged().frames >= frames);
    let counts = judged();
    assert!(
        counts.frames == frames && counts.is_clean() && counts.foreign == 0,
        "{counts:?}"
    );
}
