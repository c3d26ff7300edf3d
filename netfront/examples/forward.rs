//! Forwards between two vifs: what comes in on one goes out on the other, both ways, as it is.
//!
//! `forward --vif A --to B [--offload] [--sim SOCKET]`
//!
//! It shows one thread that owns two vifs, one sleep for both, and back-pressure. A packet is copied once, out of the
//! pages of one vif into those of the other. What finds no room is detached: its pages leave the queue uncopied and
//! wait, and nothing more is received until it has gone, so that a slow side slows the other and loses nothing.
//!
//! With `--offload` both backends are asked for large segments and blank checksums. What the other backend takes of
//! these crosses as it is; for the rest the segment is cut and the checksum filled in by software. Without, no backend sends such.
//!
//! In a Xen guest with two vifs, as root:
//!
//! ```sh
//! netfront take --vif 1 && netfront take --vif 2
//! cargo run --release --example forward -- --vif 1 --to 2
//! ```
//!
//! On the simulated Xen, with a backend at each vif that sends frames and checks what comes from the other:
//!
//! ```sh
//! cargo run -p netback-sim --example two_vifs -- --sim /tmp/xen --rate 10000
//! cargo run --example forward -- --sim /tmp/xen --vif 0 --to 1
//! ```

mod common;

use std::collections::VecDeque;
use std::error::Error;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netfront::{Device, OwnedPacket, Packet, QueueConfig, Wake, Wants};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use common::finish::{Finisher, Sent};

/// Packets of one direction in one turn.
const BATCH: usize = 64;

/// Packets on their way from one vif to the other.
#[derive(Default)]
struct Way {
    /// What found no room, in order.
    kept: VecDeque<OwnedPacket>,
    finisher: Finisher,
    forwarded: u64,
    /// They are longer than can be sent, or not what is said of them, or were kept when their vif left.
    dropped: u64,
}

impl Way {
    /// Moves a batch. Returns how many packets were received.
    fn turn(
        &mut self,
        from: &mut Device,
        to: &mut Device,
    ) -> Result<usize, (Side, netfront::Error)> {
        let features = to.link().features;
        let out = to.queue();
        out.reclaim().map_err(|error| (Side::To, error))?;
        while self.finisher.go_on(out) {
            let Some(packet) = self.kept.front() else {
                break;
            };
            let slices = packet.slices();
            match self.finisher.send(out, &features, slices, packet.offload()) {
                Sent::NoRoom => return Ok(0),
                sent => self.count(sent),
            }
            self.kept.pop_front();
        }
        if self.is_waiting() {
            return Ok(0);
        }
        from.queue()
            .receive(BATCH, |packet: &mut Packet<'_>| {
                // Behind one that waits all wait: a flow keeps its order.
                if !self.is_waiting() {
                    let offload = packet.offload();
                    match self.finisher.send(out, &features, packet.slices(), offload) {
                        Sent::NoRoom => {}
                        sent => return self.count(sent),
                    }
                }
                self.kept.push_back(packet.detach());
            })
            .map_err(|error| (Side::From, error))
    }

    /// The other vif has no room for what has come.
    fn is_waiting(&self) -> bool {
        self.finisher.is_waiting() || !self.kept.is_empty()
    }

    /// The vif that the kept packets came from is no longer connected.
    fn forget(&mut self) {
        self.dropped += self.kept.len() as u64;
        self.kept.clear();
    }

    fn count(&mut self, sent: Sent) {
        match sent {
            Sent::Gone => self.forwarded += 1,
            Sent::Dropped => self.dropped += 1,
            Sent::NoRoom => {}
        }
    }
}

/// Which vif failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    To,
}

/// Sleeps until either vif has something.
fn sleep(
    left: &mut Device,
    right: &mut Device,
    ways: &[Way; 2],
) -> Result<(), (Side, netfront::Error)> {
    let (left_error, right_error) = (|error| (Side::From, error), |error| (Side::To, error));
    // A side that is full is what is waited for. The other has packets, and would end every sleep at once; it
    // is looked at again after a millisecond.
    let full = Duration::from_millis(1);
    if ways[0].is_waiting() {
        return right.queue().wait(full).map(drop).map_err(right_error);
    }
    if ways[1].is_waiting() {
        return left.queue().wait(full).map(drop).map_err(left_error);
    }
    // Both are asked for an event before either is believed: what comes between the two is not lost.
    let (left, right) = (left.queue(), right.queue());
    let work = left.arm().map_err(left_error)? | right.arm().map_err(right_error)?;
    if work {
        return Ok(());
    }
    let wakers = [left.waker(), right.waker()];
    let mut fds = [
        left.event_fd(),
        wakers[0].as_fd(),
        right.event_fd(),
        wakers[1].as_fd(),
    ]
    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let second = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    if poll(&mut fds, Some(&second)).is_err() {
        // A signal: look again.
        return Ok(());
    }
    let [event, called, other_event, other_called] = fds.map(|fd| !fd.revents().is_empty());
    let _: Wake = left.woken(event, called).map_err(left_error)?;
    let _: Wake = right
        .woken(other_event, other_called)
        .map_err(right_error)?;
    Ok(())
}

/// One turn of both ways, and a sleep if there was nothing.
fn turn(
    left: &mut Device,
    right: &mut Device,
    ways: &mut [Way; 2],
) -> Result<(), (Side, netfront::Error)> {
    let swapped = |(side, error)| match side {
        Side::From => (Side::To, error),
        Side::To => (Side::From, error),
    };
    let moved = ways[0].turn(left, right)? + ways[1].turn(right, left).map_err(swapped)?;
    // One publication a ring and at most one event a channel, for all of the above.
    left.queue().flush().map_err(|error| (Side::From, error))?;
    right.queue().flush().map_err(|error| (Side::To, error))?;
    if moved == 0 {
        sleep(left, right, ways)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let offload = common::flag("--offload");
    let domain = common::domain()?;
    let connect = |vif| {
        Device::builder(vif)
            // Xen's device for grants gives out 1024 pages by default: two vifs share them.
            .queue(QueueConfig {
                rx_pages: 320,
                rx_limit: 320,
                tx_pages: 180,
                ..QueueConfig::default()
            })
            .wants(Wants {
                gso: offload,
                csum_offload: offload,
                ..Wants::default()
            })
            .connect(&domain)
    };
    let (vif, to) = (common::vif()?, common::option_or("--to", 1)?);
    let (mut left, mut right) = (connect(vif)?, connect(to)?);
    println!("forwarding between vif {vif} and vif {to}");
    let mut ways = [Way::default(), Way::default()];
    let mut said = Instant::now();
    loop {
        let failed = match turn(&mut left, &mut right, &mut ways) {
            Ok(()) => None,
            Err((side, error)) if common::can_go_on(&error) => {
                eprintln!("{error}");
                Some(side)
            }
            Err((_, error)) => return Err(error.into()),
        };
        // While one is away nothing can be forwarded: the other waits. What came from it and is kept would keep its
        // old pages granted, and the new pool would be smaller for them.
        if common::is_over(&mut left) || failed == Some(Side::From) {
            ways[0].forget();
            left = common::again(left.disconnect());
        }
        if common::is_over(&mut right) || failed == Some(Side::To) {
            ways[1].forget();
            right = common::again(right.disconnect());
        }
        if said.elapsed() >= Duration::from_secs(1) {
            let [there, back] = &ways;
            println!(
                "{vif} to {to}: {} packets, {} dropped; {to} to {vif}: {} packets, {} dropped",
                there.forwarded, there.dropped, back.forwarded, back.dropped
            );
            said = Instant::now();
        }
    }
}
