//! One queue: a receive and a transmit ring with their pages and event channels, owned by one thread.
//!
//! The owner's loop reads: [`Queue::receive`], [`Queue::reclaim`], [`Queue::send`], [`Queue::flush`], and when nothing is
//! left to do, [`Queue::wait`]. A batch is published once and notified at most once, and only if the
//! backend asked. Nothing in these calls allocates, locks, or enters the kernel per packet.

mod config;
mod multicast;
mod open;
mod rx;
mod shortage;
mod tx;

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use hypervisor::{EventChannels, Port, SharedPages};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use xen_ring::{Notify, Offload};

use crate::packet::Packet;
use crate::pool::{Growth, Pool};
use crate::stats::QueueStats;
use crate::waker::Waker;
use crate::watch::{copy_slices, Event, Watch, What};
use crate::{Error, SendError};

pub use config::{Ports, QueueConfig, QueueKeys, Wake, OTHER_VIF_PAGES};
pub(crate) use multicast::Filter;
pub use multicast::{Group, MULTICAST_MAX};
pub(crate) use open::{events_of, open_queues, Named};
use rx::RxQueue;
use tx::TxQueue;

/// Events in a row that find nothing, after which the ports are unmasked late.
const SPURIOUS: u32 = 8;
/// How late.
const DELAY: Duration = Duration::from_millis(1);

/// One queue pair. It is made, used and dropped by one thread.
pub struct Queue {
    rx: RxQueue,
    tx: TxQueue,
    /// The ring pages: kept for as long as the rings.
    rings: [SharedPages; 2],
    events: EventChannels,
    ports: Ports,
    /// Ports that were read and are masked until they are written back.
    masked: Vec<Port>,
    waker: Arc<Waker>,
    /// The last time that the waker was the reason, somebody had called: it was no page.
    called: bool,
    /// The name of the thread that opened the channels, and so of their interrupts.
    interrupt: String,
    stats: Arc<QueueStats>,
    watch: Arc<Watch>,
    /// Transmit responses that were read, and all responses that there were when the last event came.
    tx_answered: u64,
    answered_at_event: u64,
    /// Events in a row for which nothing was answered.
    spurious: u32,
    /// What was added to the counters of grants so far: they go on over reconnects.
    counted: [u64; 4],
}

impl Queue {
    /// What to write to the store for this queue.
    pub fn keys(&self) -> QueueKeys {
        QueueKeys {
            tx_ring: self.rings[0].reference(0),
            rx_ring: self.rings[1].reference(0),
            ports: self.ports,
        }
    }

    /// Receives up to `budget` packets, gives each to `deliver`, and posts pages for the next ones.
    /// Returns how many packets there were; fewer than `budget` means that the ring is drained.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::NothingPosted`] if the backend broke the contract: the queue is of no
    /// more use.
    pub fn receive(
        &mut self,
        budget: usize,
        mut deliver: impl FnMut(&mut Packet<'_>),
    ) -> Result<usize, Error> {
        let capture = self.watch.on().captures().then_some(&*self.watch);
        let packets = self.rx.receive(budget, &self.stats, |packet| {
            if let Some(watch) = capture {
                watch.packet(packet.len(), |into| copy_slices(packet.slices(), into));
            }
            deliver(packet);
        })?;
        self.rx.pool.collect();
        self.rx.refill(&self.stats);
        Ok(packets)
    }

    /// Copies a packet, given in slices, into granted pages and pushes it. [`Self::flush`] shows it to the backend.
    ///
    /// # Errors
    /// [`SendError::Full`] when nothing is left until the backend answers.
    pub fn send(&mut self, packet: &[&[u8]], offload: Offload) -> Result<(), SendError> {
        self.tx.send(packet, offload, &self.stats)
    }

    /// Lets `fill` read a packet straight into granted pages; see the TAP consumer. Returns whether
    /// there was one; `fill` is not called while the ring is full.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn send_filled<E>(
        &mut self,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<Option<(usize, Offload)>, E>,
    ) -> Result<bool, E> {
        self.tx.send_filled(&self.stats, fill)
    }

    /// True if a packet of any length would find its slots.
    pub fn can_send(&self) -> bool {
        self.tx.has_room()
    }

    /// Requests that the backend has not answered yet.
    pub fn unanswered(&self) -> u32 {
        self.tx.in_flight()
    }

    /// Transmit slots that the backend has answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.tx_answered
    }

    /// Takes back the pages of sent packets. Returns how many slots were answered.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn reclaim(&mut self) -> Result<usize, Error> {
        let answered = self.tx.reclaim(&self.stats)?;
        self.tx_answered += answered as u64;
        Ok(answered)
    }

    /// Publishes what was posted and pushed since the last call, and notifies the backend if it asked: once
    /// for each event channel.
    ///
    /// # Errors
    /// When the event channel refuses.
    pub fn flush(&mut self) -> Result<(), Error> {
        let (rx, tx) = (self.rx.publish(), self.tx.publish());
        let published = [rx, tx].iter().flatten().count() as u64;
        let needed = |answer| answer == Some(Notify::Needed);
        let mut sent = 0;
        match self.ports {
            Ports::Shared(port) => {
                if needed(rx) || needed(tx) {
                    self.notify(port)?;
                    sent = published;
                }
            }
            Ports::Split {
                rx: rx_port,
                tx: tx_port,
            } => {
                for (answer, port) in [(rx, rx_port), (tx, tx_port)] {
                    if needed(answer) {
                        self.notify(port)?;
                        sent += 1;
                    }
                }
            }
        }
        self.stats.notify_suppressed.add(published - sent);
        Ok(())
    }

    fn notify(&mut self, port: Port) -> Result<(), Error> {
        self.stats.notify_sent.add(1);
        self.trace(port, What::Notify);
        Ok(self.events.notify(port)?)
    }

    /// Tells the backend once, whatever it asked: after connecting, so that it looks at the rings.
    ///
    /// # Errors
    /// When the event channel refuses.
    pub fn kick(&mut self) -> Result<(), Error> {
        match self.ports {
            Ports::Shared(port) => self.notify(port),
            Ports::Split { rx, tx } => {
                self.notify(rx)?;
                self.notify(tx)
            }
        }
    }

    /// Traces an event on this port, or of it.
    fn trace(&self, port: Port, what: What) {
        if self.watch.on().traces() {
            let ring = match self.ports {
                Ports::Shared(_) => "",
                Ports::Split { rx, .. } if rx == port => "rx",
                Ports::Split { .. } => "tx",
            };
            self.watch.event(&Event {
                queue: self.rx.number,
                ..Event::new(ring, what)
            });
        }
    }

    /// Top half: reads the pending ports, which stay masked until [`Self::arm`]. Touches no packet.
    ///
    /// # Errors
    /// When the event channel handle fails.
    pub fn take_events(&mut self) -> Result<usize, Error> {
        let before = self.masked.len();
        self.events.pending(&mut self.masked)?;
        let events = self.masked.len() - before;
        self.stats.events.add(events as u64);
        for &port in &self.masked[before..] {
            self.trace(port, What::Event);
        }
        if events > 0 {
            // By what was answered, not by what is left: the responses of an event that came while the rings
            // were being emptied are gone already.
            let read = self.tx_answered + self.rx.answered;
            let answered = read + self.rx.unconsumed()? + self.tx.unconsumed()?;
            if answered == self.answered_at_event {
                self.stats.events_spurious.add(events as u64);
                self.spurious = self.spurious.saturating_add(1);
            } else {
                self.spurious = 0;
            }
            self.answered_at_event = answered;
        }
        Ok(events)
    }

    /// Before sleeping: unmasks the ports, asks for the next event, and looks once more.
    /// True means that there is work and sleeping would lose it.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.arm_after(1)
    }

    /// The same, but asks for the next event of the receive ring only when `slots` more are answered (0 counts as 1, and
    /// no more than are posted). Fewer may come, and then no event: with more than one, the caller has to look by itself
    /// after a time.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn arm_after(&mut self, slots: u32) -> Result<bool, Error> {
        if let Some(delay) = self.rings_in_vain() {
            std::thread::sleep(delay);
        }
        self.arm_now(slots)
    }

    /// How late the ports are to be unmasked. A backend that rings without end gets its bell back late (XSA-391): it costs us
    /// one wake-up a millisecond and no more. Whoever has other queues too sees to them meanwhile.
    pub(crate) fn rings_in_vain(&self) -> Option<Duration> {
        if self.spurious < SPURIOUS || self.masked.is_empty() {
            return None;
        }
        self.stats.events_delayed.add(1);
        Some(DELAY)
    }

    /// [`Self::arm_after`] for a caller that has waited.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub(crate) fn arm_now(&mut self, slots: u32) -> Result<bool, Error> {
        while let Some(port) = self.masked.pop() {
            self.events.unmask(port)?;
        }
        // Without pages there are no packets, and so no events: then a page that comes home is what the
        // owner waits for.
        let pages = self.rx.is_starved() && self.rx.pool.await_return(&self.waker);
        // Both rings are asked, even if the first has work: an unasked ring stays silent.
        let rx = self.rx.final_check(slots)?;
        let tx = self.tx.in_flight() > 0 && self.tx.final_check()?;
        Ok(pages || rx || tx)
    }

    /// Slots of the receive ring that the backend has answered and nobody has read, seen afresh.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn rx_waiting(&mut self) -> Result<usize, Error> {
        Ok(usize::try_from(self.rx.unconsumed()?).unwrap_or(usize::MAX))
    }

    /// Pages that are posted in the receive ring.
    pub fn rx_posted(&self) -> u32 {
        self.rx.in_flight()
    }

    /// True if the receive ring has hardly a page: whatever brings it some may tell nobody.
    pub(crate) fn is_starved(&self) -> bool {
        self.rx.is_starved()
    }

    /// Before a long sleep: a page that comes home ends it.
    pub(crate) fn call_for_returns(&mut self) {
        self.rx.pool.call_for_returns(&self.waker);
    }

    /// Sleeps until there is work, somebody calls, or the time is over.
    ///
    /// # Errors
    /// When the ring is broken, or poll fails.
    pub fn wait(&mut self, timeout: Duration) -> Result<Wake, Error> {
        self.export();
        if self.arm()? {
            return Ok(Wake::Work);
        }
        let mut fds = [
            PollFd::from_borrowed_fd(self.events.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN),
        ];
        self.stats.polls.add(1);
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("waiting for events")(error.into())),
        }
        let ready = [fds[0].revents(), fds[1].revents()].map(|flags| !flags.is_empty());
        self.stats.wakeups.add(1);
        self.woken(ready[0], ready[1])
    }

    /// After a sleep in somebody else's poll: says what is ready and gets what it means.
    ///
    /// # Errors
    /// When the event channel handle fails.
    pub fn woken(&mut self, event: bool, called: bool) -> Result<Wake, Error> {
        if event {
            self.take_events()?;
        }
        if called {
            self.stats.polls.add(1);
            self.called = self.waker.clear();
            return Ok(Wake::Called);
        }
        Ok(if event { Wake::Work } else { Wake::Timeout })
    }

    /// After [`Wake::Called`]: whether somebody called, or a page came home to a ring without pages.
    pub(crate) fn was_called(&self) -> bool {
        self.called
    }

    /// The name of the queue's interrupts in /proc/interrupts, behind `evtchn:`: that of the thread which opened the event
    /// channels. On the simulated Xen, which has no interrupts, it is only that.
    pub fn interrupt(&self) -> &str {
        &self.interrupt
    }

    /// Readable when an event waits. For a poll of the caller's own, between [`Self::arm`] and [`Self::woken`].
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Wakes the queue's thread from any other.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The queue's counters, readable from any thread.
    pub fn stats(&self) -> &Arc<QueueStats> {
        &self.stats
    }

    /// Lets captures and traces of the queue be started with this.
    pub fn watch_by(&mut self, watch: Arc<Watch>) {
        self.rx.watch = Arc::clone(&watch);
        self.tx.watch = Arc::clone(&watch);
        self.watch = watch;
    }

    /// Has traces name the queue: one of several.
    pub(crate) fn name_in_traces(&mut self, number: u16) {
        self.rx.number = Some(number);
        self.tx.number = Some(number);
    }

    /// The pools, receive and transmit, for inspection.
    pub fn pools(&mut self) -> [&mut Pool; 2] {
        [&mut self.rx.pool, &mut self.tx.pool]
    }

    /// The hand-over to the thread that grants more pages when the receive pool runs low.
    pub fn growth(&self) -> Arc<Growth> {
        self.rx.pool.growth()
    }

    /// All pages of both pools, for the backend to keep mapped.
    pub(crate) fn announcement(&self) -> Vec<xen_ring::GrefEntry> {
        let pools = [&self.rx.pool, &self.tx.pool];
        pools.into_iter().flat_map(Pool::announcement).collect()
    }

    /// Brings the counters that mirror the pools up to date.
    pub fn export(&mut self) {
        let [rx, tx] = [self.rx.pool.census(), self.tx.pool.census()];
        let stats = &self.stats;
        stats.pool_granted.set((rx.granted + tx.granted) as u64);
        stats.pool_free.set((rx.free + tx.free) as u64);
        stats.pool_posted.set((rx.posted + tx.posted) as u64);
        stats.pool_leased.set((rx.leased + tx.leased) as u64);
        stats
            .pool_quarantined
            .set((rx.quarantined + tx.quarantined) as u64);
        stats.ring_rx_posted.set(self.rx.in_flight().into());
        stats.ring_tx_unanswered.set(self.tx.in_flight().into());
        let (rx, tx) = (&self.rx.pool, &self.tx.pool);
        stats.pool_grown.set((rx.grown() + tx.grown()) as u64);
        stats.pool_limit.set((rx.limit() + tx.limit()) as u64);
        let now = [
            rx.grants + tx.grants,
            rx.revokes + tx.revokes,
            rx.grown_inline + tx.grown_inline,
            rx.came_home,
        ];
        let counters = [
            &stats.grants,
            &stats.revokes,
            &stats.pool_grown_inline,
            // Besides those that came back with their packet, see `RxQueue::receive`.
            &stats.rx_recycled,
        ];
        for ((counter, now), before) in counters.into_iter().zip(now).zip(&mut self.counted) {
            counter.add(now - *before);
            *before = now;
        }
    }

    /// For idle times: gives back a batch of pages that the pool grew by and no longer needs.
    pub fn idle(&mut self) -> usize {
        let freed = self.rx.pool.shrink();
        self.export();
        freed
    }

    /// Ends the use of the rings: what the backend has not answered is quarantined. The pages are freed when
    /// the queue is dropped, which must be after the backend has let go (state Closed).
    pub fn stop(&mut self) {
        self.rx.quarantine();
        self.tx.quarantine();
        self.export();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}
