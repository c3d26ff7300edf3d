//! Keeping a vif in service: connect, move packets, and when the backend leaves, connect again.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `service` | what other threads see and tell |
//! | `pump` | one thread with its queue |
//! | `affinity` | the CPUs of threads and of interrupts |
//! | `team` | the threads of a connection with several queues |
//! | `again` | what comes between two connections |

mod affinity;
mod again;
mod pump;
mod service;
mod team;

use std::sync::atomic::Ordering;
use std::thread;

use crate::connection::Change;
use crate::consumer::Consumer;
use crate::device::{Device, Link};
use crate::engine::punctual::Punctual;
use crate::Error;

pub use affinity::{PlaceError, Placed};
use again::again;
use pump::Pump;
pub use service::Service;
use team::Team;

/// Why packets stopped.
enum End {
    Stopped,
    Left(Change),
    Restored,
    Broken(Error),
    /// A thread of another queue has ended.
    Short,
    /// There is no thread to be had now for more than so many queues.
    Unmanned(usize),
    /// All multicast packets are wanted, of which the backend would hear only when it connects.
    Filtered,
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
/// The calling thread must be the one that connected `device`. There is one queue: a device with more is connected
/// anew with one.
///
/// # Errors
/// When the consumer fails, or the backend does not answer the goodbye. The backend was told goodbye in
/// any case.
pub fn serve(device: Device, consumer: &mut dyn Consumer, service: &Service) -> Result<(), Error> {
    serve_queues(device, consumer, &mut [], service)
}

/// The same for several queues. `first` is the consumer of the first queue, which stays with the calling thread; each
/// of `others` belongs to the next queue, with a thread of its own that is named by [`crate::device::thread_name`].
///
/// There is never a queue without a consumer. A consumer without a queue, since the backend, the limit of shared pages or
/// the system's threads allow fewer, is told so by [`Consumer::attend`]. A backend that breaks the contract of one ring is closed and connected
/// anew with all.
///
/// # Errors
/// As [`serve`].
pub fn serve_queues(
    mut device: Device,
    first: &mut dyn Consumer,
    others: &mut [Box<dyn Consumer + Send>],
    service: &Service,
) -> Result<(), Error> {
    let _punctual = Punctual::begin();
    if device.link().queues > 1 + others.len() {
        let mut pending = device.disconnect();
        pending.at_most(1 + others.len());
        match again(pending, service) {
            Some(next) => device = next,
            None => return Ok(()),
        }
    }
    loop {
        service.enter(&mut device);
        let end = connection(&mut device, first, others, service);
        service.show(None);
        device.queues().for_each(|queue| queue.export());
        let most = match end {
            // The backend spreads packets over all queues, and one without a thread would swallow its share.
            Ok(End::Unmanned(queues)) => Some(queues),
            _ => None,
        };
        match end {
            Ok(End::Stopped) => return device.close(),
            Ok(End::Left(change)) => {
                tracing::warn!("the backend left ({change:?}): reconnecting");
            }
            Ok(End::Restored) => tracing::warn!(
                "the domain was restored or migrated: connecting anew, with new event channels and new pages"
            ),
            Ok(End::Broken(error)) => tracing::error!("{error}: closing and reconnecting"),
            Ok(End::Short) => tracing::error!("a queue's thread ended: closing and reconnecting"),
            // Said by who knows why.
            Ok(End::Unmanned(_)) => {}
            Ok(End::Filtered) => tracing::info!(
                "all multicast packets are wanted, and the backend changes its filter only when it connects: \
                 reconnecting without a filter"
            ),
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
        let mut pending = device.disconnect();
        if let Some(queues) = most {
            // A lack of threads passes: the connection after that tries all again.
            pending.next_at_most(queues);
        }
        first.link(&down)?;
        others
            .iter_mut()
            .try_for_each(|consumer| consumer.link(&down))?;
        match again(pending, service) {
            Some(next) => device = next,
            None => return Ok(()),
        }
    }
}

/// Moves the packets of all queues of one connection to its end.
fn connection(
    device: &mut Device,
    first: &mut dyn Consumer,
    others: &mut [Box<dyn Consumer + Send>],
    service: &Service,
) -> Result<End, Error> {
    let team = Team::new(device);
    for (consumer, queue) in others.iter_mut().zip(2..) {
        // Attached before the link: who has no queue must get no packets to send.
        consumer.attend(queue <= device.link().queues)?;
        consumer.link(device.link())?;
    }
    // It takes the interface up, and the kernel sends at once.
    first.link(device.link())?;
    let mut queues = device.take_queues();
    let end = thread::scope(|scope| -> Result<End, Error> {
        let dismissal = team.dismissal();
        let wanted = queues.len();
        let threads = team.start(scope, device, &mut queues, others, service);
        let end = match threads.len() < wanted && !service.stopping() {
            true => Ok(End::Unmanned(1 + threads.len())),
            false => pump(device, first, service, &team),
        };
        drop(dismissal);
        // All are waited for. What went wrong first is what is told.
        let results: Vec<_> = threads.into_iter().map(team::result).collect();
        let fellows = results.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        match (end, fellows) {
            (Ok(End::Short), Err(error)) => End::of(error),
            (end, _) => end,
        }
    });
    device.give_queues(queues);
    end
}

/// Moves the packets of the first queue, and hears of what changes.
fn pump(
    device: &mut Device,
    consumer: &mut dyn Consumer,
    service: &Service,
    team: &Team,
) -> Result<End, Error> {
    let _present = service.affinity().enter(0, device.queue().interrupt());
    let mut pump = Pump::new(service, device.control_waker());
    if service.connections.load(Ordering::Relaxed) > 1 {
        consumer.announce(device.queue());
    }
    loop {
        if service.stopping() {
            return Ok(End::Stopped);
        }
        match pump.turn(device.queue(), consumer, service) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => return End::of(error),
        }
        while let Some(change) = device.change() {
            match change {
                Change::BackendLeft(_) => return Ok(End::Left(change)),
                Change::Restored => return Ok(End::Restored),
                Change::Broken(corrupt) => return Ok(End::Broken(corrupt.into())),
                Change::MulticastFilter => return Ok(End::Filtered),
                Change::Carrier(_) | Change::Mtu(_) | Change::Speed(_) => {}
            }
            tracing::info!("the link changed: {change:?}");
            service.show(Some(*device.link()));
            consumer.link(device.link())?;
            team.tell(device.link());
        }
        // A thread that was told to stop a moment before this one is no loss.
        if team.is_short() && !service.stopping() {
            return Ok(End::Short);
        }
    }
}
