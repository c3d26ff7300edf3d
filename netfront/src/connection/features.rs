//! What the backend offers, and what this driver takes of it.

/// The features of a backend's directory, read anew for every connection: nothing is remembered from an
/// earlier one, since a restarted backend may be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Packets over several slots.
    pub sg: bool,
    /// The backend takes TCPv4 segments larger than the MTU.
    pub gso_tcpv4: bool,
    /// The same for TCPv6.
    pub gso_tcpv6: bool,
    /// The backend takes packets with a blank checksum (absent key: it does).
    pub csum_offload: bool,
    /// The same for IPv6 (absent key: it does not).
    pub ipv6_csum_offload: bool,
    /// An event channel for each direction.
    pub split_event_channels: bool,
    /// Questions over a ring of their own.
    pub ctrl_ring: bool,
    /// The backend can filter multicast packets, if it is asked to when it connects.
    pub multicast_control: bool,
    /// The same at any time.
    pub dynamic_multicast_control: bool,
    /// The backend would leave bytes free before each packet. Known only, and never asked for: received pages are lent
    /// read-only, so nothing could be written there; docs/protocol.md has more.
    pub xdp_headroom: bool,
    /// The most queues that the backend serves (absent key: 1).
    pub max_queues: u32,
}

/// What the frontend may ask for; each can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// Receive packets over several slots.
    pub sg: bool,
    /// Receive TCPv4 and TCPv6 segments larger than the MTU. Needs `sg`.
    pub gso: bool,
    /// Receive packets with a blank checksum.
    pub csum_offload: bool,
    /// Let the backend keep our pages mapped, if it offers a control ring and knows how: a packet then costs
    /// it no hypercall.
    pub grant_mapping: bool,
    /// Have the backend send only the packets of those multicast groups that it is asked for
    /// ([`crate::Queue::follow_multicast`]), if it can: until then none. Off by default.
    pub multicast_filter: bool,
}

impl Default for Wants {
    fn default() -> Self {
        Self {
            sg: true,
            gso: true,
            csum_offload: true,
            grant_mapping: true,
            multicast_filter: false,
        }
    }
}

impl Features {
    /// Their names in the store, each with whether it is on: for people and for JSON.
    pub fn table(&self) -> [(&'static str, bool); 10] {
        use super::keys;
        [
            (keys::FEATURE_SG, self.sg),
            (keys::FEATURE_GSO_TCPV4, self.gso_tcpv4),
            (keys::FEATURE_GSO_TCPV6, self.gso_tcpv6),
            ("csum-offload", self.csum_offload),
            (keys::FEATURE_IPV6_CSUM_OFFLOAD, self.ipv6_csum_offload),
            (
                keys::FEATURE_SPLIT_EVENT_CHANNELS,
                self.split_event_channels,
            ),
            (keys::FEATURE_CTRL_RING, self.ctrl_ring),
            (keys::FEATURE_MULTICAST_CONTROL, self.multicast_control),
            (
                keys::FEATURE_DYNAMIC_MULTICAST_CONTROL,
                self.dynamic_multicast_control,
            ),
            (keys::FEATURE_XDP_HEADROOM, self.xdp_headroom),
        ]
    }
}
