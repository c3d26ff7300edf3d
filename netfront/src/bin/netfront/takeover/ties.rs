//! What hangs on an interface and does not move with its vif. It is told before anything is taken: what the network, or
//! its protection, would not survive refuses the take-over, the rest is a warning.

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
    XdpAttached,
};
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use netlink_packet_route::RouteNetlinkMessage as Message;
use rustix::io::Errno;

use super::netlink::Netlink;
use crate::failure::Failure;

/// What hangs on an interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// The interface.
    name: String,
    /// Has to be taken down first, each with the command for it.
    pub in_the_way: Vec<String>,
    /// Is not there afterwards, and nobody is cut off for it.
    pub lost: Vec<String>,
}

impl Ties {
    /// Why its vif cannot be taken over, if it cannot.
    pub fn refusal(&self) -> Option<String> {
        let refusal = format!(
            "{} cannot be taken over as it is: {}",
            self.name,
            self.in_the_way.join("; ")
        );
        (!self.in_the_way.is_empty()).then_some(refusal)
    }
}

/// Looks for what hangs on the interface `name`, in this thread's network namespace, and changes nothing.
///
/// # Errors
/// When there is no such interface, or the kernel says what this program does not understand.
pub fn of(name: &str) -> Result<Ties, Failure> {
    let failed = || Failure::io(format!("looking for what is built on {name}"));
    let links: Vec<LinkMessage> = Netlink::open()
        .and_then(|mut netlink| netlink.list(Message::GetLink(LinkMessage::default())))
        .map_err(failed())?
        .into_iter()
        .filter_map(|message| match message {
            Message::NewLink(message) => Some(message),
            _ => None,
        })
        .collect();
    let mut ties = judge(name, &links)
        .ok_or_else(|| Failure::NotHere(format!("there is no interface {name} here")))?;
    let question = Message::GetQueueDiscipline(TcMessage::default());
    // On a socket of its own: what cannot be understood stays unread.
    match Netlink::open().and_then(|mut netlink| netlink.list(question)) {
        Ok(found) => {
            let index = links.iter().find(|link| name_of(link) == name);
            let index = index.map_or(0, |link| link.header.index);
            for message in found {
                match message {
                    Message::NewQueueDiscipline(message) if is_on(&message, index) => {
                        ties.queue_discipline(&message);
                    }
                    _ => {}
                }
            }
        }
        // A kernel without any.
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {}
        Err(error) => ties.lost.push(format!(
            "its traffic control, which cannot be read: {error}"
        )),
    }
    Ok(ties)
}

fn is_on(message: &TcMessage, index: u32) -> bool {
    u32::try_from(message.header.index) == Ok(index)
}

impl Ties {
    /// One without a handle the kernel has put there by itself, as it does again.
    fn queue_discipline(&mut self, message: &TcMessage) {
        let handle = message.header.handle;
        if handle.major == 0 {
            return;
        }
        let kind = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind.as_str()),
                _ => None,
            });
        let kind = kind.unwrap_or("of an unknown kind");
        match kind {
            // Only filters hang on these, and they may be what keeps somebody out.
            "ingress" | "clsact" => self.in_the_way.push(format!(
                "the filters of its queueing discipline {kind} would be lost: `tc qdisc del dev {} {kind}`",
                self.name
            )),
            _ => self.lost.push(format!(
                "the queueing discipline {kind} {:x}:, set it again with tc",
                handle.major
            )),
        }
    }
}

/// What the list of all interfaces says of the one of this name. `None`: it is not in there.
fn judge(name: &str, links: &[LinkMessage]) -> Option<Ties> {
    let link = links.iter().find(|link| name_of(link) == name)?;
    let index = link.header.index;
    let mut ties = Ties {
        name: name.into(),
        ..Ties::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Controller(above) => {
                let above = links.iter().find(|link| link.header.index == *above);
                let above = above.map_or_else(|| "something".into(), described);
                ties.in_the_way.push(format!(
                    "it is part of {above}: `ip link set {name} nomaster`"
                ));
            }
            LinkAttribute::Xdp(said) if is_attached(said) => ties.in_the_way.push(format!(
                "its XDP program would be lost: `ip link set {name} xdp off`"
            )),
            LinkAttribute::Promiscuity(count) => {
                // One is the administrator's own, and moves along.
                let own = u32::from(link.header.flags.contains(LinkFlags::Promisc));
                if *count > own {
                    ties.lost
                        .push("programs that capture all its packets, start them again".into());
                }
            }
            _ => {}
        }
    }
    for above in links.iter().filter(|other| is_built_on(other, index)) {
        let name = name_of(above);
        ties.in_the_way.push(format!(
            "{} is built on it: `ip link del {name}`",
            described(above)
        ));
    }
    Some(ties)
}

/// `br0 (bridge)`
fn described(link: &LinkMessage) -> String {
    match kind_of(link) {
        Some(kind) => format!("{} ({kind})", name_of(link)),
        None => name_of(link).into(),
    }
}

fn name_of(link: &LinkMessage) -> &str {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        });
    name.unwrap_or_default()
}

fn infos(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })
        .flatten()
}

fn kind_of(link: &LinkMessage) -> Option<&InfoKind> {
    infos(link).find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

/// A VLAN, a tunnel or the like, whose packets go through the interface with this number.
fn is_built_on(link: &LinkMessage, index: u32) -> bool {
    // For these the kernel names the other end of a cable in the same way.
    if matches!(
        kind_of(link),
        Some(InfoKind::Veth | InfoKind::Netkit | InfoKind::Vxcan)
    ) {
        return false;
    }
    let mut named = link.attributes.iter();
    let is_named = named.any(|attribute| *attribute == LinkAttribute::Link(index));
    // Then the number is that of an interface elsewhere.
    let mut elsewhere = link.attributes.iter();
    let is_elsewhere =
        elsewhere.any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    let is_tunnel = infos(link).any(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(said)) => said.contains(&InfoVxlan::Link(index)),
        _ => false,
    });
    !is_elsewhere && (is_named || is_tunnel)
}

fn is_attached(said: &[LinkXdp]) -> bool {
    said.iter().any(|said| match said {
        LinkXdp::Attached(attached) => *attached != XdpAttached::None,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, more: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link.attributes.extend(more);
        link
    }

    fn kind(kind: InfoKind) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
    }

    fn xdp(attached: XdpAttached) -> LinkAttribute {
        LinkAttribute::Xdp(vec![LinkXdp::Attached(attached)])
    }

    #[test]
    fn an_xdp_program_may_be_a_firewall_and_refuses_the_take_over() {
        let none = [link(7, "eth0", vec![xdp(XdpAttached::None)])];
        assert_eq!(judge("eth0", &none).expect("found").refusal(), None);
        let some = [link(7, "eth0", vec![xdp(XdpAttached::Driver)])];
        let refusal = judge("eth0", &some).expect("found").refusal();
        let refusal = refusal.expect("refused");
        assert!(refusal.contains("ip link set eth0 xdp off"), "{refusal}");
    }

    #[test]
    fn what_is_built_on_an_interface_of_another_namespace_or_is_a_cables_other_end_does_not_count()
    {
        let on_it = |more: Vec<LinkAttribute>| {
            let mut attributes = vec![LinkAttribute::Link(7)];
            attributes.extend(more);
            let links = [link(7, "eth0", vec![]), link(8, "above", attributes)];
            judge("eth0", &links).expect("found").refusal().is_some()
        };
        assert!(on_it(vec![kind(InfoKind::Vlan)]));
        assert!(on_it(vec![kind(InfoKind::Other("of tomorrow".into()))]));
        assert!(on_it(vec![]));
        assert!(!on_it(vec![kind(InfoKind::Veth)]));
        assert!(!on_it(vec![
            kind(InfoKind::MacVlan),
            LinkAttribute::LinkNetNsId(0)
        ]));
    }

    #[test]
    fn only_listeners_beside_the_own_setting_are_told_of() {
        let lost = |flags, count| {
            let mut eth0 = link(7, "eth0", vec![LinkAttribute::Promiscuity(count)]);
            eth0.header.flags = flags;
            judge("eth0", &[eth0]).expect("found").lost.len()
        };
        assert_eq!(lost(LinkFlags::Up, 0), 0);
        assert_eq!(lost(LinkFlags::Promisc, 1), 0);
        assert_eq!(lost(LinkFlags::Promisc, 2), 1);
        assert_eq!(lost(LinkFlags::Up, 1), 1);
    }

    #[test]
    fn an_interface_that_is_not_there_is_no_interface_without_ties() {
        assert_eq!(judge("eth0", &[link(7, "eth1", vec![])]), None);
    }
}
