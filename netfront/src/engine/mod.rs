//! Who polls what, and for how long: the loop around a queue and its consumer, one thread each.
//!
//! One round receives a batch, takes back what was sent, lets the consumer send a batch, publishes once
//! and notifies at most once. As long as rounds find work nothing sleeps and no event is taken; events
//! stay masked. When a round finds nothing, the ring is armed, looked at once more, and the thread sleeps.
//!
//! That is what [`serve`] does, and [`serve_queues`] for each of several queues. Beside it stand the parts of an engine for several queues and cores. They are complete and
//! tested by themselves, but **the driver's threads do not run on them yet**:
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`schedule`] | who owns a queue: one atomic word |
//! | [`bottom_half`] | whose turn it is, within a budget of packets and of time |
//! | [`restart`] | how many rounds, before the core is handed over |
//! | [`pressure`] | what is left in the ring because its consumer is behind |
//! | [`moderation`] | when the backend is asked for its next event |
//! | [`steering`] | which core takes a queue's events, and which worker a connection's packets |
//! | [`clock`] | what time it is, also in a test |

pub mod bottom_half;
mod calm;
pub mod clock;
pub mod moderation;
mod poll_list;
pub mod pressure;
pub mod restart;
pub mod schedule;
mod serve;
mod silence;
pub mod steering;

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::consumer::Consumer;
use crate::queue::{Queue, Wake};
use crate::Error;

pub use serve::{serve, serve_queues, Service};

/// Packets of one direction in one round (the kernel's NAPI weight).
pub const WEIGHT: usize = 64;

/// Does one round. Returns how many packets were moved, both directions together.
///
/// # Errors
/// If the backend broke the ring, or the consumer's source is gone.
pub fn round(queue: &mut Queue, consumer: &mut dyn Consumer) -> Result<usize, Error> {
    let received = queue.receive(WEIGHT, |packet| consumer.deliver(packet))?;
    if received > 0 {
        consumer.finish();
    }
    queue.reclaim()?;
    let sent = if queue.can_send() {
        consumer.offer(queue, WEIGHT)?
    } else {
        0
    };
    queue.flush()?;
    Ok(received + sent)
}

/// Sleeps until the ring or the consumer has something, somebody calls, or the time is over.
///
/// # Errors
/// If the backend broke the ring, or poll fails.
pub fn sleep(queue: &mut Queue, consumer: &dyn Consumer, timeout: Duration) -> Result<Wake, Error> {
    queue.export();
    if queue.arm()? {
        return Ok(Wake::Work);
    }
    let waker = queue.waker();
    // A full ring: the consumer's packets wait where they are (back-pressure), and only an answer helps.
    let source = consumer.fd().filter(|_| queue.can_send());
    if source.is_none() && consumer.fd().is_some() {
        queue.stats().tx_stopped.add(1);
    }
    let mut fds = arrayvec::ArrayVec::<PollFd<'_>, 3>::new();
    fds.push(PollFd::from_borrowed_fd(queue.event_fd(), PollFlags::IN));
    fds.push(PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN));
    fds.extend(source.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    queue.stats().polls.add(1);
    match poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(Error::io("waiting for events")(error.into())),
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    let (event, called) = (ready.next() == Some(true), ready.next() == Some(true));
    let source = ready.next() == Some(true);
    drop(fds);
    queue.stats().wakeups.add(1);
    match queue.woken(event, called)? {
        Wake::Timeout if source => Ok(Wake::Work),
        wake => Ok(wake),
    }
}

/// Sleeps until somebody calls or the time is over, whatever the ring and the consumer have.
///
/// # Errors
/// If poll fails.
pub fn rest(queue: &mut Queue, timeout: Duration) -> Result<Wake, Error> {
    queue.export();
    let waker = queue.waker();
    let mut fds = [PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN)];
    queue.stats().polls.add(1);
    match poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(Error::io("waiting for a call")(error.into())),
    }
    let called = !fds[0].revents().is_empty();
    queue.stats().wakeups.add(1);
    queue.woken(false, called)
}
