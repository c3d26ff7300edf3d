//! Keeping a vif in service: connect, move packets, and when the backend leaves, connect again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{round, sleep};
use crate::connection::Change;
use crate::consumer::Consumer;
use crate::device::{Device, Link, Reconnect};
use crate::queue::Wake;
use crate::stats::QueueStats;
use crate::waker::Waker;
use crate::Error;

/// Rounds with packets between two looks at what the control thread has to say.
const LOOK_UP: u32 = 64;
/// Between attempts that fail at once.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest sleep without an event: the counters that mirror the pools are brought up to date.
const IDLE: Duration = Duration::from_secs(1);

/// What another thread may see of a vif in service, and how it ends it.
#[derive(Debug, Default)]
pub struct Service {
    stop: Arc<AtomicBool>,
    /// Connections made so far.
    pub connections: AtomicU64,
    /// Attempts to connect again so far: while the backend is away, they are the sign that somebody tries.
    pub attempts: AtomicU64,
    link: Mutex<Option<Link>>,
    waker: Mutex<Option<Arc<Waker>>>,
    stats: Arc<QueueStats>,
}

impl Service {
    /// Asks [`serve`] to say goodbye to the backend and return.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
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
        self.link.lock().ok().and_then(|link| *link)
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
            *link = now;
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

fn pump(device: &mut Device, consumer: &mut dyn Consumer, service: &Service) -> Result<End, Error> {
    consumer.link(device.link())?;
    let mut turn = 0u32;
    loop {
        turn = turn.wrapping_add(1);
        if service.stopping() {
            return Ok(End::Stopped);
        }
        let moved = match round(device.queue(), consumer) {
            Ok(moved) => moved,
            Err(error) => return End::of(error),
        };
        let woken = if moved > 0 {
            // Never idle, the thread never sleeps: a detach must be seen all the same.
            if turn.is_multiple_of(LOOK_UP) {
                Wake::Called
            } else {
                Wake::Work
            }
        } else {
            match sleep(device.queue(), consumer, IDLE) {
                Ok(woken) => woken,
                Err(error) => return End::of(error),
            }
        };
        match woken {
            Wake::Work => {}
            Wake::Timeout => {
                device.queue().idle();
            }
            Wake::Called => {
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
