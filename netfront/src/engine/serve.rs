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

/// How long one attempt to reconnect may take before the stop flag is looked at again.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between attempts that fail at once.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest sleep without an event: the counters that mirror the pools are brought up to date.
const IDLE: Duration = Duration::from_secs(1);

/// What another thread may see of a vif in service, and how it ends it.
#[derive(Debug, Default)]
pub struct Service {
    stop: AtomicBool,
    /// Connections made so far.
    pub connections: AtomicU64,
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
    Broken(Error),
}

/// Moves packets between `device` and `consumer` until [`Service::stop`]; reconnects when the backend leaves
/// or breaks the contract, and says so once each time.
///
/// The calling thread must be the one that connected `device`.
///
/// # Errors
/// When the consumer fails, or the backend does not answer the goodbye.
pub fn serve(
    mut device: Device,
    consumer: &mut dyn Consumer,
    service: &Service,
) -> Result<(), Error> {
    loop {
        service.enter(&mut device);
        consumer.link(device.link())?;
        let end = pump(&mut device, consumer, service)?;
        service.show(None);
        match &end {
            End::Stopped => {
                device.queue().export();
                return device.close();
            }
            End::Left(change) => tracing::warn!("the backend left ({change:?}): reconnecting"),
            End::Broken(error) => tracing::error!("{error}: closing and reconnecting"),
        }
        consumer.link(&Link {
            carrier: false,
            ..*device.link()
        })?;
        match again(device.disconnect(), service) {
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
        match pending.deadline(ATTEMPT).retry() {
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
    loop {
        if service.stopping() {
            return Ok(End::Stopped);
        }
        let moved = match round(device.queue(), consumer) {
            Ok(moved) => moved,
            Err(error) if error.is_peers_fault() => return Ok(End::Broken(error)),
            Err(error) => return Err(error),
        };
        if moved > 0 {
            continue;
        }
        match sleep(device.queue(), consumer, IDLE) {
            Ok(Wake::Work) => {}
            Ok(Wake::Timeout) => {
                device.queue().idle();
            }
            Ok(Wake::Called) => {
                while let Some(change) = device.change() {
                    if let Change::BackendLeft(_) = change {
                        return Ok(End::Left(change));
                    }
                    tracing::info!("the link changed: {change:?}");
                    service.show(Some(*device.link()));
                    consumer.link(device.link())?;
                }
            }
            Err(error) if error.is_peers_fault() => return Ok(End::Broken(error)),
            Err(error) => return Err(error),
        }
    }
}
