//! Who polls what, and for how long.
//!
//! One round receives a batch, takes back what was sent, lets the consumer send a batch, publishes once
//! and notifies at most once ([`round`]). As long as rounds find work nothing sleeps and no event is taken; events
//! stay masked. How many rounds there are before a thread sees to something else, when the ring is asked for the next event,
//! and what is left in it because nobody has room, is decided by the modules below.
//!
//! Two loops stand on them: [`receiver`] for one queue and one consumer, which is what [`serve`] runs, and [`serve_queues`] for each of
//! several queues; and [`cores`] for any number of queues on event cores, with workers of their own or without.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`schedule`] | who owns a queue: one atomic word |
//! | [`bottom_half`] | whose turn it is, within a budget of packets and of time |
//! | [`restart`] | how many rounds, before the core is handed over |
//! | [`pending`] | which kind of deferred work a core serves first |
//! | [`pressure`] | what is left in the ring because its consumer is behind |
//! | [`moderation`] | when the backend is asked for its next event |
//! | [`steering`] | which core takes a queue's events, and which worker a connection's packets |
//! | [`clock`] | what time it is, also in a test |
//! | `punctual` | that short sleeps are short |
//! | `pinning` | which CPU a thread and an interrupt are on, which node a CPU is of |
//! | `limits` | the restart limits lately, for whoever watches |
//! | [`receiver`] | all of these for one queue and its consumer |
//! | [`cores`] | all of these for several queues, in threads |

pub mod bottom_half;
mod calm;
pub mod clock;
pub mod cores;
mod limits;
pub mod moderation;
pub mod pending;
mod pinning;
mod poll_list;
pub mod pressure;
mod punctual;
pub mod receiver;
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

pub use limits::{LimitTrace, LIMITS};
pub use serve::{serve, serve_queues, PlaceError, Placed, Service};

/// Packets of one direction in one round (the kernel's NAPI weight).
pub const WEIGHT: usize = 64;

/// Does one round. Returns how many packets were moved, both directions together.
///
/// # Errors
/// If the backend broke the ring, or the consumer's source is gone.
pub fn round(queue: &mut Queue, consumer: &mut dyn Consumer) -> Result<usize, Error> {
    let received = queue.receive(WEIGHT, |packet| consumer.deliver(packet))?;
    Ok(received + after_receiving(queue, consumer, received)?)
}

/// The rest of a round that has received so many packets. Returns how many were sent.
fn after_receiving(
    queue: &mut Queue,
    consumer: &mut dyn Consumer,
    received: usize,
) -> Result<usize, Error> {
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
    Ok(sent)
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
    nap(queue, consumer, timeout)
}

/// The same without asking the ring for anything: an event comes if it was asked for before.
fn nap(queue: &mut Queue, consumer: &dyn Consumer, timeout: Duration) -> Result<Wake, Error> {
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
