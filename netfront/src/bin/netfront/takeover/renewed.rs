//! What goes back with the vif at an orderly end: what was saved, as the TAP has it by then.
//!
//! A lease of DHCP that was renewed on the TAP has a new lifetime there, and what was saved has run out. So what the TAP has counts.
//! What it does not have any more comes back all the same if it had no end: some programs take everything from an interface
//! whose cable is out, and nobody should be out of reach for that. What had an end has ended, or somebody gave it up.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};

use super::capture::capture;
use super::replay::FOREVER;
use super::saved::{Entry, Saved};
use crate::failure::Failure;

/// Reads what the TAP has, and gives what is to be given back.
///
/// # Errors
/// As [`capture`].
pub fn look(saved: &Saved, tap: &str) -> Result<Saved, Failure> {
    Ok(renewed(saved, &capture(saved.vif, tap)?))
}

/// What is to be given back: `saved` with addresses and routes as the TAP has them `now`. Interface and neighbours stay as
/// saved.
fn renewed(saved: &Saved, now: &Saved) -> Saved {
    Saved {
        uptime: now.uptime,
        addresses: addresses(saved, now),
        routes: routes(saved, now),
        ..saved.clone()
    }
}

/// The addresses that run out unless somebody renews them, with the seconds that are left.
pub fn lifetimes(saved: &Saved) -> Vec<(&str, u32)> {
    let entries = saved.addresses.iter();
    entries
        .filter_map(|entry| Some((entry.text.as_str(), lifetime(&entry.message().ok()?)?)))
        .collect()
}

/// Seconds for which an address is valid; `None`: without end.
fn lifetime(message: &AddressMessage) -> Option<u32> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::CacheInfo(info) if info.ifa_valid != FOREVER => Some(info.ifa_valid),
            _ => None,
        })
}

fn addresses(saved: &Saved, now: &Saved) -> Vec<Entry> {
    let names = (now.interface.name.as_str(), saved.interface.name.as_str());
    let mut kept: Vec<Entry> = Vec::new();
    for entry in &saved.addresses {
        if let Some(found) = now.addresses.iter().find(|found| found.text == entry.text) {
            kept.push(relabelled(found, names));
        } else if !matches!(
            entry.message().map(|message| lifetime(&message)),
            Ok(Some(_))
        ) {
            kept.push(entry.clone());
        }
    }
    for entry in &now.addresses {
        let is_known = saved.addresses.iter().any(|known| known.text == entry.text);
        // The kernel gives each interface such an address of its own.
        let is_own = entry.message().is_ok_and(|message| is_link_local(&message));
        if !is_known && !is_own {
            kept.push(relabelled(entry, names));
        }
    }
    kept
}

fn is_link_local(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, AddressAttribute::Address(IpAddr::V6(address)) if address.is_unicast_link_local())
    })
}

/// An address whose label begins with the TAP's name, with that of the saved interface instead. One that is not understood stays
/// as it is: who replays it says so.
fn relabelled(entry: &Entry, (from, to): (&str, &str)) -> Entry {
    let Ok(mut message) = entry.message::<AddressMessage>() else {
        return entry.clone();
    };
    for attribute in &mut message.attributes {
        if let AddressAttribute::Label(label) = attribute {
            if let Some(rest) = label.strip_prefix(from) {
                *label = format!("{to}{rest}");
            }
        }
    }
    Entry::of(entry.text.clone(), &message)
}

fn routes(saved: &Saved, now: &Saved) -> Vec<Entry> {
    let present: Vec<RouteMessage> = now
        .routes
        .iter()
        .filter_map(|entry| entry.message().ok())
        .collect();
    // Another gateway for the same is what somebody wants now, and the old one beside it would win.
    let is_gone = |entry: &&Entry| match entry.message::<RouteMessage>() {
        Ok(route) => !ends(&route) && !present.iter().any(|other| lead_alike(&route, other)),
        Err(_) => true,
    };
    let indexes = (now.interface.index, saved.interface.index);
    let found = now.routes.iter().map(|entry| renumbered(entry, indexes));
    found
        .chain(saved.routes.iter().filter(is_gone).cloned())
        .collect()
}

/// It came from a server or a router, which will not come back to a route that it has withdrawn.
fn ends(route: &RouteMessage) -> bool {
    let expires = route
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, RouteAttribute::CacheInfo(info) if info.expires != 0));
    expires
        || matches!(
            route.header.protocol,
            RouteProtocol::Dhcp | RouteProtocol::Ra
        )
}

/// Both lead to the same place with the same priority, by whatever gateway.
fn lead_alike(one: &RouteMessage, other: &RouteMessage) -> bool {
    let place = |route: &RouteMessage| {
        let header = &route.header;
        let said: Vec<RouteAttribute> = route
            .attributes
            .iter()
            .filter(|attribute| {
                matches!(
                    attribute,
                    RouteAttribute::Destination(_)
                        | RouteAttribute::Priority(_)
                        | RouteAttribute::Table(_)
                )
            })
            .cloned()
            .collect();
        let family = header.address_family;
        (family, header.destination_prefix_length, header.tos, said)
    };
    place(one) == place(other)
}

/// A route to the TAP's number, with that of the saved interface instead, as the others have.
fn renumbered(entry: &Entry, (from, to): (u32, u32)) -> Entry {
    let Ok(mut message) = entry.message::<RouteMessage>() else {
        return entry.clone();
    };
    for attribute in &mut message.attributes {
        match attribute {
            RouteAttribute::Oif(index) if *index == from => *index = to,
            RouteAttribute::MultiPath(hops) => hops
                .iter_mut()
                .filter(|hop| hop.interface_index == from)
                .for_each(|hop| hop.interface_index = to),
            _ => {}
        }
    }
    Entry::of(entry.text.clone(), &message)
}
