//! One backend of the demo, a process of its own.

use std::io::BufRead;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netback_sim::features::FrontFeatures;
use netback_sim::frame::{Frame, FrameBurst};
use netback_sim::peer::{Pace, Peer, Source, TapPeer};
use netback_sim::toolstack::Toolstack;
use netback_sim::traffic::{Counts, Generator};
use netback_sim::{Backend, BackendHandle, Config};
use netfront::hypervisor::{DomId, Domain};
use netfront_tap::{Tap, TapOptions};
use serde_json::json;

use crate::args::DemoBack;
use crate::failure::Failure;
use crate::output::say;

/// A peer that can be told to send no more.
struct Gate<P> {
    inner: P,
    closed: Arc<AtomicBool>,
}

impl<P: Peer> Peer for Gate<P> {
    fn receive(&mut self, frames: &mut [Frame<'_>], reply: &mut FrameBurst) {
        self.inner.receive(frames, reply);
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        if !self.closed.load(Ordering::Relaxed) {
            self.inner.transmit(burst);
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    fn due(&self) -> Option<Instant> {
        if self.closed.load(Ordering::Relaxed) {
            None
        } else {
            self.inner.due()
        }
    }

    fn connected(&mut self, features: &FrontFeatures) {
        self.inner.connected(features);
    }

    fn disconnected(&mut self) {
        self.inner.disconnected();
    }

    fn verified(&self) -> Option<Counts> {
        self.inner.verified()
    }
}

/// Runs it until the other end of standard input goes.
pub fn back(args: &DemoBack) -> Result<(), Failure> {
    let domain = Domain::simulated(&args.sim, DomId(0))?;
    let mac = args
        .mac
        .parse()
        .map_err(|_| Failure::Verdict(format!("bad MAC {}", args.mac)))?;
    let closed = Arc::new(AtomicBool::new(false));
    let inner: Box<dyn Peer> = match (&args.tap, args.frames) {
        (Some(name), _) => {
            let options = TapOptions {
                name: name.clone(),
                ..TapOptions::default()
            };
            let tap = match &args.netns {
                Some(namespace) => Tap::open_in_namespace(namespace, options),
                None => Tap::open(options),
            }
            .map_err(netfront::Error::from)?;
            tap.set_up(true).map_err(netfront::Error::from)?;
            Box::new(TapPeer::new(tap))
        }
        (None, sizes) => {
            let sizes = sizes.unwrap_or(netback_sim::traffic::Sizes::Fixed(1500));
            let generator = Generator::new(sizes, 4)
                .map_err(|error| Failure::Verdict(error.to_string()))?
                .between([0x02, 0, 0, 0, 0, 2], [0x02, 0, 0, 0, 0, 1]);
            Box::new(Source::new(generator, Pace::default()))
        }
    };
    let mut config = Config::new(
        DomId(1),
        Gate {
            inner,
            closed: Arc::clone(&closed),
        },
    );
    config.toolstack = Some(Toolstack {
        mac,
        ..Toolstack::default()
    });
    let backend = Backend::start(&domain, config)
        .map_err(|error| Failure::Verdict(format!("the backend did not start: {error}")))?;
    say!("{}", json!({ "event": "ready" }));

    let mut lines = std::io::stdin().lock().lines();
    if lines.next().is_none() {
        return Ok(());
    }
    closed.store(true, Ordering::Relaxed);
    settle(|| backend.counters().rx_packets);
    say!(
        "{}",
        json!({ "event": "stopped", "sent": backend.counters().rx_packets })
    );
    if let Some(Ok(line)) = lines.next() {
        finish(&domain, backend, line.trim().parse().unwrap_or(0))?;
    }
    Ok(())
}

/// Waits until a counter stands still for a fifth of a second: what was under way has been pushed.
fn settle(count: impl Fn() -> u64) {
    let (mut before, mut still) = (count(), 0);
    while still < 10 {
        std::thread::sleep(Duration::from_millis(20));
        let now = count();
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
}

fn finish(domain: &Domain, backend: BackendHandle, expected: u64) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(10);
    while backend.counters().tx_packets < expected && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let hypercalls = domain.counters().hypercalls;
    let summary = backend
        .stop()
        .map_err(|error| Failure::Verdict(format!("the backend failed: {error}")))?;
    let Some(verified) = summary.verified else {
        return Err(Failure::Verdict(
            "the backend's peer verifies nothing".into(),
        ));
    };
    let done = json!({
        "event": "done",
        "received": summary.counters.tx_packets,
        "lost": verified.lost,
        "reordered": verified.reordered,
        "corrupt": verified.corrupt + verified.foreign + verified.duplicate,
        "hypercalls": hypercalls,
    });
    say!("{done}");
    Ok(())
}
