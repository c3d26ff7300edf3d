//! Where the packets of `netfront run` go: a consumer for each queue that it wants.

use std::sync::Arc;

use netfront::consumer::{Consumer, Echo, Tap, TapCounters};
use netfront_tap::TapOptions;

use crate::args::Run;
use crate::failure::Failure;
use crate::takeover::{self, driver::Taken};
use crate::udev;

/// A consumer of one queue.
type Boxed = Box<dyn Consumer + Send>;

/// One for each queue.
pub struct Consumers {
    pub first: Boxed,
    pub others: Vec<Boxed>,
    /// What each counts, if they are those of a TAP.
    pub taps: Vec<Arc<TapCounters>>,
}

/// Makes them, and the TAP if there is to be one. A TAP of one queue makes one consumer.
pub fn consumers(args: &Run, taken: Option<&Arc<Taken>>) -> Result<Consumers, Failure> {
    let wanted = args.queue.count();
    let Some(name) = &args.tap else {
        let echo = || -> Boxed { Box::new(Echo::default()) };
        return Ok(Consumers {
            first: echo(),
            others: (1..wanted).map(|_| echo()).collect(),
            taps: Vec::new(),
        });
    };
    let device = open(args, name, wanted).map_err(netfront::Error::from)?;
    if wanted > 1 && !device.is_multi_queue() {
        tracing::warn!(
            "one queue: the TAP {name} is there already and was made for one (`ip tuntap add ... multi_queue` makes \
             one for several)"
        );
    }
    let queues = if device.is_multi_queue() { wanted } else { 1 };
    let mut tap = Tap::new(device);
    if args.netns.is_none() {
        // Or an address that is set now is undone by udev's own (MACAddressPolicy), a moment later.
        udev::settle_tap(tap.name());
    }
    if let Some(taken) = taken {
        taken.dress(&mut tap)?;
    }
    // Of the interface, which has one owner: the first.
    if args.multicast_filter {
        tap.filter_multicast();
    }
    if args.netns.is_none() {
        // Of the thread that opens the socket, so not those of a TAP in another namespace.
        let name = tap.name().to_owned();
        tap.announce_by(move || takeover::addresses(&name));
    }
    let mut taps = vec![tap.counters()];
    let mut others: Vec<Boxed> = Vec::new();
    for queue in 1..queues {
        let next = match tap.next_queue() {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!("{queue} queues, wanted {queues}: {error}");
                break;
            }
        };
        taps.push(next.counters());
        others.push(Box::new(next));
    }
    Ok(Consumers {
        first: Box::new(tap),
        others,
        taps,
    })
}

fn open(args: &Run, name: &str, queues: usize) -> Result<netfront_tap::Tap, netfront_tap::Error> {
    let options = TapOptions {
        name: name.to_owned(),
        queues: u16::try_from(queues).unwrap_or(u16::MAX),
        ..TapOptions::default()
    };
    match &args.netns {
        Some(namespace) => netfront_tap::Tap::open_in_namespace(namespace, options),
        None => netfront_tap::Tap::open(options),
    }
}
