//! Putting on an interface what another one had.

use std::io;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rustix::io::Errno;

use super::capture::{self, FLAGS};
use super::netlink::Netlink;
use super::saved::{uptime, Entry, Link, Saved};
use crate::failure::Failure;

/// Stands for "without end" in an address' lifetimes.
pub const FOREVER: u32 = u32::MAX;
/// A route's lifetime is told in this part of a second.
const USER_TICKS: u32 = 100;
/// A route may need another one first, which may need a third.
const ROUTE_ROUNDS: usize = 4;

/// Gives the interface `name` everything that was saved: MAC, MTU, flags, addresses, routes, neighbours, takes it up if
/// that was up, and calls it `rename`. What is there already stays. Returns what the kernel refused, one line each: a
/// single route must not keep the rest away.
///
/// # Errors
/// When there is no such interface.
pub fn replay(saved: &Saved, name: &str, rename: &str) -> Result<Vec<String>, Failure> {
    let mut netlink =
        Netlink::open().map_err(Failure::io(format!("asking the kernel about {name}")))?;
    let now = capture::link(&mut netlink, name)?;
    let mut target = Target {
        netlink,
        from: saved.interface.index,
        to: now.index,
        refused: Vec::new(),
    };
    let renamed = name == rename || target.set("its name", LinkAttribute::IfName(rename.into()));
    target.link(&saved.interface, &now);
    let elapsed = u32::try_from(uptime().saturating_sub(saved.uptime)).unwrap_or(FOREVER);
    let labels = (
        saved.interface.name.as_str(),
        if renamed { rename } else { name },
    );
    for address in &saved.addresses {
        target.address(address, elapsed, labels);
    }
    if saved.interface.up {
        target.up();
        target.routes(&saved.routes, elapsed);
        for neighbour in &saved.neighbours {
            target.neighbour(neighbour);
        }
    }
    Ok(target.refused)
}

/// Takes the interface `name` down, and with it its routes.
///
/// # Errors
/// When there is none, or the kernel refuses.
pub fn down(name: &str) -> Result<(), Failure> {
    let failed = || Failure::io(format!("taking {name} down"));
    let mut netlink = Netlink::open().map_err(failed())?;
    let index = capture::link(&mut netlink, name)?.index;
    netlink
        .change(
            Message::SetLink(flags(index, LinkFlags::empty(), LinkFlags::Up)),
            0,
        )
        .map_err(failed())
}

/// Sets those of `mask` that are in `flags`, and clears the others.
fn flags(index: u32, flags: LinkFlags, mask: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = mask;
    message
}

/// The interface that gets it all.
struct Target {
    netlink: Netlink,
    /// The number that the saved messages carry.
    from: u32,
    /// Its own number.
    to: u32,
    refused: Vec<String>,
}

impl Target {
    fn link(&mut self, wanted: &Link, now: &Link) {
        if wanted.mac != now.mac {
            self.set("its MAC address", LinkAttribute::Address(wanted.mac.into()));
        }
        if wanted.mtu != now.mtu {
            self.set("its MTU", LinkAttribute::Mtu(wanted.mtu));
        }
        if wanted.queue_length != now.queue_length {
            let length = LinkAttribute::TxQueueLen(wanted.queue_length);
            self.set("the length of its queue", length);
        }
        // An earlier version did not save them.
        if let Some(wanted) = wanted.flags.filter(|_| wanted.flags != now.flags) {
            let wanted = LinkFlags::from_bits_retain(wanted);
            let change = Message::SetLink(flags(self.to, wanted, FLAGS));
            let done = self.netlink.change(change, 0);
            self.note("its flags (promiscuous, multicast, ARP)", done);
        }
    }

    fn set(&mut self, what: &str, attribute: LinkAttribute) -> bool {
        let mut message = LinkMessage::default();
        message.header.index = self.to;
        message.attributes.push(attribute);
        match self.netlink.change(Message::SetLink(message), 0) {
            Ok(()) => return true,
            // That somebody else has the name, too.
            Err(error) => self.refused.push(format!("{what}: {error}")),
        }
        false
    }

    fn up(&mut self) {
        let up = flags(self.to, LinkFlags::Up, LinkFlags::Up);
        let done = self.netlink.change(Message::SetLink(up), 0);
        self.note("taking it up", done);
    }

    fn address(&mut self, entry: &Entry, elapsed: u32, labels: (&str, &str)) {
        let message = match entry.message() {
            Ok(message) => address_on(message, self.to, elapsed, labels),
            Err(failure) => return self.refused.push(failure.to_string()),
        };
        let Some(message) = message else {
            return tracing::warn!("{} has run out meanwhile, and is not put back", entry.text);
        };
        let change = Message::NewAddress(message);
        let done = self.netlink.change(change, NLM_F_CREATE | NLM_F_REPLACE);
        self.note(&entry.text, done);
    }

    /// A gateway is refused as long as no route leads to it, so those that are refused are tried again.
    fn routes(&mut self, entries: &[Entry], elapsed: u32) {
        let mut left: Vec<&Entry> = entries.iter().collect();
        let mut errors = Vec::new();
        for _ in 0..ROUTE_ROUNDS {
            errors.clear();
            left.retain(|entry| match self.route(entry, elapsed) {
                Ok(()) => false,
                Err(error) => {
                    errors.push((entry.text.clone(), error));
                    true
                }
            });
            if left.is_empty() {
                break;
            }
        }
        for (text, error) in errors {
            self.refused.push(format!("{text}: {error}"));
        }
    }

    fn route(&mut self, entry: &Entry, elapsed: u32) -> Result<(), String> {
        let message = entry.message().map_err(|failure| failure.to_string())?;
        let Some((message, flags)) = route_on(message, (self.from, self.to), elapsed) else {
            tracing::warn!("{} has run out meanwhile, and is not put back", entry.text);
            return Ok(());
        };
        match self.netlink.change(Message::NewRoute(message), flags) {
            Err(error) if !is_there(&error) => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    fn neighbour(&mut self, entry: &Entry) {
        let message = match entry.message() {
            Ok(message) => neighbour_on(message, self.to),
            Err(failure) => return self.refused.push(failure.to_string()),
        };
        let is_heard = message.header.state == NeighbourState::Stale;
        let change = Message::NewNeighbour(message);
        match self.netlink.change(change, NLM_F_CREATE | NLM_F_REPLACE) {
            // What the kernel found out by itself it finds out again.
            Err(error) if is_heard => tracing::debug!("{}: {error}", entry.text),
            done => self.note(&entry.text, done),
        }
    }

    /// That the same is there already is what was wanted.
    fn note(&mut self, what: &str, done: io::Result<()>) {
        if let Err(error) = done {
            if !is_there(&error) {
                self.refused.push(format!("{what}: {error}"));
            }
        }
    }
}

fn is_there(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EXIST.raw_os_error())
}

/// The address as interface `to` gets it. `None`: it has run out.
fn address_on(
    mut message: AddressMessage,
    to: u32,
    elapsed: u32,
    (from_name, to_name): (&str, &str),
) -> Option<AddressMessage> {
    message.header.index = to;
    let is_v6 = message.header.family == AddressFamily::Inet6;
    let mut kept = true;
    message.attributes.retain_mut(|attribute| {
        match attribute {
            AddressAttribute::Flags(flags) => {
                flags.remove(AddressFlags::Tentative | AddressFlags::Dadfailed);
                if is_v6 {
                    // It was ours a moment ago: to ask for a second whether it is somebody's only costs sessions.
                    flags.insert(AddressFlags::Nodad);
                }
                message.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits() as u8);
            }
            AddressAttribute::CacheInfo(lifetimes) => {
                for time in [&mut lifetimes.ifa_valid, &mut lifetimes.ifa_preferred] {
                    if *time != FOREVER {
                        *time = time.saturating_sub(elapsed);
                    }
                }
                kept = lifetimes.ifa_valid > 0;
            }
            AddressAttribute::Label(label) => {
                if let Some(rest) = label.strip_prefix(from_name) {
                    *label = format!("{to_name}{rest}");
                }
            }
            // The kernel finds it out by itself.
            AddressAttribute::Multicast(_) | AddressAttribute::Anycast(_) => return false,
            _ => {}
        }
        true
    });
    kept.then_some(message)
}

/// The route as it leads to interface `to` instead of `from`, and what holds if there is one like it. `None`: it
/// has run out.
fn route_on(
    mut message: RouteMessage,
    (from, to): (u32, u32),
    elapsed: u32,
) -> Option<(RouteMessage, u16)> {
    // The rest is what the kernel saw at that moment.
    message.header.flags &= RouteFlags::Onlink;
    let moved = |index: &mut u32| {
        if *index == from {
            *index = to;
        }
    };
    let (mut several, mut lifetime) = (false, None);
    message.attributes.retain_mut(|attribute| {
        match attribute {
            RouteAttribute::Oif(index) => moved(index),
            RouteAttribute::MultiPath(hops) => {
                several = true;
                for hop in hops {
                    moved(&mut hop.interface_index);
                    hop.flags &= RouteNextHopFlags::Onlink;
                }
            }
            RouteAttribute::CacheInfo(info) => {
                lifetime = (info.expires != 0).then_some(info.expires);
                return false;
            }
            // A nexthop object went with the interface; the route says the same in its own words.
            RouteAttribute::NhId(_) => return false,
            _ => {}
        }
        true
    });
    if let Some(ticks) = lifetime {
        let left = ticks.saturating_sub(elapsed.saturating_mul(USER_TICKS));
        if left == 0 {
            return None;
        }
        message
            .attributes
            .push(RouteAttribute::Expires(left / USER_TICKS));
    }
    let is_v4 = message.header.address_family == AddressFamily::Inet;
    let flags = match (several, is_v4) {
        // What is left of it leads to the other interfaces.
        (true, _) => NLM_F_CREATE | NLM_F_REPLACE,
        // Beside another one to the same place, as it was.
        (false, true) => NLM_F_CREATE | NLM_F_APPEND,
        (false, false) => NLM_F_CREATE,
    };
    Some((message, flags))
}

/// The neighbour as it is behind interface `to`. What was just heard of it is used at once, and asked again soon.
fn neighbour_on(mut message: NeighbourMessage, to: u32) -> NeighbourMessage {
    message.header.ifindex = to;
    let is_proxy = message.header.flags.contains(NeighbourFlags::Proxy);
    if message.header.state != NeighbourState::Permanent && !is_proxy {
        message.header.state = NeighbourState::Stale;
    }
    message.attributes.retain(|attribute| {
        matches!(
            attribute,
            NeighbourAttribute::Destination(_)
                | NeighbourAttribute::LinkLayerAddress(_)
                | NeighbourAttribute::Protocol(_)
        )
    });
    message
}
