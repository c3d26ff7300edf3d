//! Reading everything that goes with an interface when its vif is taken.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use rustix::io::Errno;

use super::netlink::Netlink;
use super::saved::{Entry, Link, Saved};
use crate::failure::Failure;

/// What an administrator may have switched on an interface. The others the kernel and the driver set.
pub const FLAGS: LinkFlags = LinkFlags::Promisc
    .union(LinkFlags::Allmulti)
    .union(LinkFlags::Multicast)
    .union(LinkFlags::Noarp);

/// Reads what the interface `name` has, in this thread's network namespace, and changes nothing.
///
/// # Errors
/// When there is no such interface, or the kernel says what this program does not understand.
pub fn capture(vif: u32, name: &str) -> Result<Saved, Failure> {
    let failed = |what: &'static str| Failure::io(format!("reading {what} of {name}"));
    let mut netlink = Netlink::open().map_err(failed("the settings"))?;
    let interface = link(&mut netlink, name)?;
    let index = interface.index;
    let mut saved = Saved::of(vif, interface);

    let found = netlink
        .list(Message::GetAddress(AddressMessage::default()))
        .map_err(failed("the addresses"))?;
    let mut sources = Vec::new();
    for message in found {
        if let Message::NewAddress(message) = message {
            if message.header.index == index && is_kept(&message) {
                sources.extend(local(&message));
                saved
                    .addresses
                    .push(Entry::of(address_text(&message), &message));
            }
        }
    }
    let found = netlink
        .list(Message::GetRoute(RouteMessage::default()))
        .map_err(failed("the routes"))?;
    for message in found {
        if let Message::NewRoute(message) = message {
            if goes_with(&message, index, &sources) {
                saved.routes.push(Entry::of(route_text(&message), &message));
            }
        }
    }
    let found = netlink
        .list(Message::GetNeighbour(NeighbourMessage::default()))
        .map_err(failed("the neighbours"))?;
    for message in found {
        if let Message::NewNeighbour(message) = message {
            if message.header.ifindex == index && is_known(&message) {
                saved
                    .neighbours
                    .push(Entry::of(neighbour_text(&message), &message));
            }
        }
    }
    let mut question = NeighbourMessage::default();
    question.header.flags = NeighbourFlags::Proxy;
    let found = netlink
        .list(Message::GetNeighbour(question))
        .map_err(failed("the addresses answered for others"))?;
    for message in found {
        if let Message::NewNeighbour(message) = message {
            let is_proxy = message.header.flags.contains(NeighbourFlags::Proxy);
            if message.header.ifindex == index && is_proxy {
                let text = format!("proxy for {}", neighbour_text(&message));
                saved.neighbours.push(Entry::of(text, &message));
            }
        }
    }
    Ok(saved)
}

/// The interface `name` itself.
///
/// # Errors
/// When there is none.
pub fn link(netlink: &mut Netlink, name: &str) -> Result<Link, Failure> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::IfName(name.into()));
    let found = netlink
        .get(Message::GetLink(question))
        .map_err(Failure::io(format!("looking for the interface {name}")))?;
    let message = found.into_iter().find_map(|message| match message {
        Message::NewLink(message) => Some(message),
        _ => None,
    });
    let message = message.ok_or_else(|| {
        Failure::Verdict(format!("the kernel said nothing of the interface {name}"))
    })?;
    let mut link = Link {
        name: name.into(),
        index: message.header.index,
        mac: [0; 6],
        mtu: 0,
        queue_length: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        flags: Some((message.header.flags & FLAGS).bits()),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.as_slice().try_into().unwrap_or_default()
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::TxQueueLen(packets) => link.queue_length = *packets,
            // The name may have been one of its other names.
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            _ => {}
        }
    }
    Ok(link)
}

/// The addresses of the interface `name` in this thread's network namespace; none if the kernel does not say.
pub fn addresses(name: &str) -> Vec<IpAddr> {
    let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
    let Some(index) = index.ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return Vec::new();
    };
    let found =
        Netlink::open().and_then(|mut it| it.list(Message::GetAddress(AddressMessage::default())));
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(
                "the addresses of {name} cannot be read ({error}), so none is announced: neighbours and switches may \
                 send to its old place until they ask again; {}",
                what_helps(name, &error)
            );
            return Vec::new();
        }
    };
    let messages = found.iter().filter_map(|message| match message {
        Message::NewAddress(message) => Some(message),
        _ => None,
    });
    messages
        .filter(|message| message.header.index == index && is_kept(message))
        .filter_map(local)
        .collect()
}

/// A service manager's filter of address families answers EAFNOSUPPORT.
fn what_helps(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) {
        true => "allow the service AF_NETLINK (systemd: RestrictAddressFamilies=AF_NETLINK in a drop-in)".into(),
        false => format!("`arping -U -I {name} ADDRESS` announces one by hand"),
    }
}

/// An address that was found to be somebody else's is not put back.
fn is_kept(message: &AddressMessage) -> bool {
    !message.attributes.iter().any(|attribute| {
        matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed))
    })
}

/// The own address, and not that of the other end of a point-to-point link.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn address_text(message: &AddressMessage) -> String {
    let address = local(message).map_or_else(|| "?".into(), |address| address.to_string());
    format!("{address}/{}", message.header.prefix_len)
}

/// A route goes with the interface when it leads there, alone or among others, or when its packets carry one
/// of its addresses. What the kernel makes by itself (each address' own, multicast) it makes again.
fn goes_with(message: &RouteMessage, index: u32, sources: &[IpAddr]) -> bool {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) || header.protocol == RouteProtocol::Kernel {
        return false;
    }
    message.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(oif) => *oif == index,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == index),
        RouteAttribute::PrefSource(source) => {
            address_of(source).is_some_and(|source| sources.contains(&source))
        }
        _ => false,
    })
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn route_text(message: &RouteMessage) -> String {
    let (mut to, mut rest) = ("default".to_owned(), String::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                let address =
                    address_of(address).map_or_else(|| "?".into(), |address| address.to_string());
                to = format!("{address}/{}", message.header.destination_prefix_length);
            }
            RouteAttribute::Gateway(address) => {
                rest += &address_of(address)
                    .map_or_else(String::new, |address| format!(" via {address}"));
            }
            RouteAttribute::Priority(metric) => rest += &format!(" metric {metric}"),
            RouteAttribute::Table(table) if *table != 254 => rest += &format!(" table {table}"),
            _ => {}
        }
    }
    to + &rest
}

/// Without it a TCP session would wait for ARP; what the kernel does not know it asks again.
fn is_known(message: &NeighbourMessage) -> bool {
    let state = matches!(
        message.header.state,
        NeighbourState::Permanent
            | NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
    );
    let address = |attribute: &NeighbourAttribute| {
        matches!(attribute, NeighbourAttribute::LinkLayerAddress(_))
    };
    state && message.attributes.iter().any(address)
}

fn neighbour_text(message: &NeighbourMessage) -> String {
    let mut text = String::new();
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                text = address.to_string()
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                text = address.to_string()
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_whose_filter_forbids_the_question_is_told_the_setting_and_others_how_to_do_it_by_hand(
    ) {
        let filtered = what_helps("xn0", &Errno::AFNOSUPPORT.into());
        assert!(filtered.contains("RestrictAddressFamilies=AF_NETLINK"));
        let other = what_helps("xn0", &Errno::NOBUFS.into());
        assert!(other.contains("arping -U -I xn0"), "{other}");
    }
}
