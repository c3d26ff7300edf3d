//! The backend's end of a bench row.

use std::io::BufRead;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netback_sim::frame::{Frame, FrameBurst};
use netback_sim::peer::Peer;
use netback_sim::{Backend, Config};
use netfront::hypervisor::{Access, DomId, Domain, GrantRef};
use netfront::Offload;
use serde_json::json;

use super::limit::{End, PAGES};
use super::{fill, pin, BATCH, CPUS};
use crate::args::BenchEnd;
use crate::failure::Failure;
use crate::output::say;

/// Fills its own buffer in full for each packet; reads one line of those that come.
struct Wire {
    size: usize,
    sends: bool,
    number: u64,
    seen: AtomicU64,
}

impl Peer for Wire {
    fn receive(&mut self, frames: &mut [Frame<'_>], _reply: &mut FrameBurst) {
        let first = frames
            .iter()
            .map(|frame| u64::from(frame.bytes[0]))
            .sum::<u64>();
        self.seen.fetch_add(first, Ordering::Relaxed);
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        for _ in 0..BATCH {
            let Some(space) = burst.space(self.size).filter(|_| self.sends) else {
                return;
            };
            fill(space, self.number);
            self.number += 1;
            if !burst.commit(self.size, Offload::default()) {
                return;
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.sends.then(Instant::now)
    }
}

/// Runs it until its parent ends it.
pub fn back(args: &BenchEnd) -> Result<(), Failure> {
    pin(CPUS[1]);
    let domain = Domain::simulated(&args.sim, DomId(0))?;
    if args.limit {
        return limit(args, &domain);
    }
    let sends = args.direction == "rx";
    let wire = Wire {
        size: args.size,
        sends,
        number: 0,
        seen: AtomicU64::new(0),
    };
    let _backend = Backend::start(&domain, Config::new(DomId(1), wire))
        .map_err(|error| Failure::Verdict(format!("the backend did not start: {error}")))?;
    say!("{}", json!({ "event": "ready" }));
    // Until the parent ends this process.
    std::thread::sleep(Duration::from_secs(3600));
    Ok(())
}

fn limit(args: &BenchEnd, domain: &Domain) -> Result<(), Failure> {
    say!("{}", json!({ "event": "ready" }));
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(Failure::io("reading standard input"))?;
    let references: Vec<u32> = serde_json::from_str(&line)
        .map_err(|error| Failure::Verdict(format!("bad list of references: {error}")))?;
    let references: Vec<GrantRef> = references.into_iter().map(GrantRef).collect();
    let mapped = domain
        .foreign(DomId(1))?
        .map(&references, Access::ReadWrite)?;
    let end = End {
        control: mapped.page(0),
        pages: (1..=PAGES).map(|index| mapped.page(index)).collect(),
        size: args.size,
        // The backend copies what it gets out of the guest's pages in full.
        copied: args.size,
        prefetch: args.prefetch,
    };
    // Longer than the frontend's end: that is where the rate is taken.
    let time = Duration::from_secs_f64(args.seconds + 5.0);
    if args.direction == "rx" {
        end.produce(time);
    } else {
        end.consume(time);
    }
    Ok(())
}
