//! Keeping a vif in service: connect, move packets, and when the backend leaves, connect again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::calm::Calm;
use super::silence::Silence;
use super::{rest, round, sleep};
use crate::connection::Change;
use crate::consumer::Consumer;
use crate::device::{Device, Link, Reconnect};
use crate::queue::{Queue, Wake};
use crate::stats::QueueStats;
use crate::waker::Waker;
use crate::Error;

/// Rounds with packets between two looks at what the control thread has to say.
const LOOK_UP: u32 = 64;
/// Between attempts that fail at once.
const PAUSE: Duration = Duration::from_millis(100);

/// What another thread may see of a vif in service, and how it ends it.
#[derive(Debug, Default)]
pub struct Service {
    stop: Arc<AtomicBool>,
    /// Connections made so far.
    pub connections: AtomicU64,
    /// Attempts to connect again so far: while the backend is away, they are the sign that somebody tries.
    pub attempts: AtomicU64,
    /// What was negotiated, and since when there is a connection.
    link: Mutex<Option<(Link, Instant)>>,
    waker: Mutex<Option<Arc<Waker>>>,
    paused: AtomicBool,
    kicked: AtomicBool,
    stats: Arc<QueueStats>,
}

impl Service {
    /// Asks [`serve`] to say goodbye to the backend and return.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Has [`serve`] leave packets where they are, both ways: the rings fill up, and whoever sends has to wait.
    /// The connection stays. Returns before the last packets of a batch have passed.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Release);
        self.wake();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Release);
        self.wake();
    }

    /// True between [`Self::pause`] and [`Self::resume`].
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Has [`serve`] look at the rings now, and the backend too, whatever it asked for. Helps where an event
    /// was lost.
    pub fn kick(&self) {
        self.kicked.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the thread in [`serve`], which shows in its counters that it lives: asleep, it may be so for many seconds.
    pub fn wake(&self) {
        if let Ok(waker) = self.waker.lock() {
            waker.iter().for_each(|waker| waker.wake());
        }
    }

    /// True once [`Self::stop`] was called.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// For [`crate::Builder::interrupt`]: set by [`Self::stop`], so that it also ends a handshake.
    pub fn interrupt(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// What was negotiated; `None` while there is no connection.
    pub fn link(&self) -> Option<Link> {
        let link = self.link.lock().ok()?;
        link.map(|(link, _)| link)
    }

    /// How long there has been a connection; `None` while there is none.
    pub fn connected_for(&self) -> Option<Duration> {
        let link = self.link.lock().ok()?;
        link.map(|(_, since)| since.elapsed())
    }

    /// The counters, which go on over reconnects.
    pub fn stats(&self) -> &Arc<QueueStats> {
        &self.stats
    }

    fn enter(&self, device: &mut Device) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.show(Some(*device.link()));
        if let Ok(mut waker) = self.waker.lock() {
            *waker = Some(device.queue().waker());
        }
    }

    fn show(&self, now: Option<Link>) {
        if let Ok(mut link) = self.link.lock() {
            let since = link.map_or_else(Instant::now, |(_, since)| since);
            *link = now.map(|now| (now, since));
        }
    }
}

/// Why packets stopped.
enum End {
    Stopped,
    Left(Change),
    Restored,
    Broken(Error),
}

impl End {
    /// What an error of a round or a sleep means; one that no new connection would help against is
    /// given back.
    fn of(error: Error) -> Result<Self, Error> {
        match error {
            error if error.is_restore() => Ok(Self::Restored),
            error if error.is_peers_fault() => Ok(Self::Broken(error)),
            error => Err(error),
        }
    }
}

/// Moves packets between `device` and `consumer` until [`Service::stop`]; reconnects when the backend leaves
/// or breaks the contract, or the domain is restored, and says so once each time.
///
/// The calling thread must be the one that connected `device`.
///
/// # Errors
/// When the consumer fails, or the backend does not answer the goodbye. The backend was told goodbye in
/// any case.
pub fn serve(
    mut device: Device,
    consumer: &mut dyn Consumer,
    service: &Service,
) -> Result<(), Error> {
    loop {
        service.enter(&mut device);
        let end = pump(&mut device, consumer, service);
        service.show(None);
        device.queue().export();
        match end {
            Ok(End::Stopped) => return device.close(),
            Ok(End::Left(change)) => {
                tracing::warn!("the backend left ({change:?}): reconnecting");
            }
            Ok(End::Restored) => tracing::warn!(
                "the domain was restored or migrated: connecting anew, with new event channels and new pages"
            ),
            Ok(End::Broken(error)) => tracing::error!("{error}: closing and reconnecting"),
            Err(error) => {
                // The consumer's failure is what to report; the goodbye is owed all the same.
                if let Err(second) = device.close() {
                    tracing::debug!("closing after a failure: {second}");
                }
                return Err(error);
            }
        }
        let down = Link {
            carrier: false,
            ..*device.link()
        };
        let pending = device.disconnect();
        consumer.link(&down)?;
        match again(pending, service) {
            Some(next) => device = next,
            None => return Ok(()),
        }
    }
}

/// Connects again, for as long as it takes. `None` if it was told to stop.
fn again(mut pending: Reconnect, service: &Service) -> Option<Device> {
    let mut said = false;
    loop {
        if service.stopping() {
            return None;
        }
        service.attempts.fetch_add(1, Ordering::Relaxed);
        match pending.retry() {
            Ok(device) => return Some(device),
            Err(next) => {
                if let Some(error) = next.error.as_ref().filter(|_| !said) {
                    tracing::warn!("not connected yet, trying on: {error}");
                    said = true;
                }
                pending = *next;
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn round_unless(
    paused: bool,
    queue: &mut Queue,
    consumer: &mut dyn Consumer,
) -> Result<usize, Error> {
    if paused {
        return Ok(0);
    }
    round(queue, consumer)
}

fn pump(device: &mut Device, consumer: &mut dyn Consumer, service: &Service) -> Result<End, Error> {
    consumer.link(device.link())?;
    if service.connections.load(Ordering::Relaxed) > 1 {
        consumer.announce(device.queue());
    }
    let mut turn = 0u32;
    let (mut calm, mut silence) = (Calm::default(), Silence::default());
    loop {
        turn = turn.wrapping_add(1);
        if service.stopping() {
            return Ok(End::Stopped);
        }
        let paused = service.is_paused();
        let moved = match round_unless(paused, device.queue(), consumer) {
            Ok(moved) => moved,
            Err(error) => return End::of(error),
        };
        let woken = if moved > 0 {
            calm.end();
            // Never idle, the thread never sleeps: a detach must be seen all the same.
            if turn.is_multiple_of(LOOK_UP) {
                Wake::Called
            } else {
                Wake::Work
            }
        } else {
            // While it is paused the answers are left in the ring.
            if !paused && silence.is_long(device.queue()) {
                device.look();
            }
            let time = calm.time(device.queue());
            let woken = match paused {
                true => rest(device.queue(), time),
                false => sleep(device.queue(), consumer, time),
            };
            match woken {
                Ok(woken) => woken,
                Err(error) => return End::of(error),
            }
        };
        match woken {
            Wake::Work => {}
            Wake::Timeout => {
                calm.pass(device.queue());
            }
            Wake::Called => {
                if moved == 0 && calm.is_deep() {
                    calm.pass(device.queue());
                }
                // Under load nobody else does.
                device.queue().export();
                if service.kicked.swap(false, Ordering::Acquire) {
                    if let Err(error) = device.queue().kick() {
                        return End::of(error);
                    }
                }
                while let Some(change) = device.change() {
                    match change {
                        Change::BackendLeft(_) => return Ok(End::Left(change)),
                        Change::Restored => return Ok(End::Restored),
                        Change::Broken(corrupt) => return Ok(End::Broken(corrupt.into())),
                        Change::Carrier(_) | Change::Mtu(_) => {}
                    }
                    tracing::info!("the link changed: {change:?}");
                    service.show(Some(*device.link()));
                    consumer.link(device.link())?;
                }
            }
        }
    }
}
