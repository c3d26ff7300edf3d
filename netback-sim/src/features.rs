//! What the backend offers, and what a frontend can do.

use std::fmt;

/// Features that a backend announces in its directory. The defaults are those of Linux's netback, and
/// grant mapping, which is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Frames over several slots (`feature-sg`).
    pub sg: bool,
    /// Large TCP over IPv4 segments (`feature-gso-tcpv4`).
    pub gso_tcpv4: bool,
    /// Large TCP over IPv6 segments (`feature-gso-tcpv6`).
    pub gso_tcpv6: bool,
    /// Blank checksums over IPv6 (`feature-ipv6-csum-offload`).
    pub ipv6_csum_offload: bool,
    /// Frames are copied into the guest's pages (`feature-rx-copy`). Nothing else works today.
    pub rx_copy: bool,
    /// One event channel for each direction (`feature-split-event-channels`).
    pub split_event_channels: bool,
    /// The guest may say which multicast frames it wants (`feature-multicast-control`).
    pub multicast_control: bool,
    /// It may switch that at any time (`feature-dynamic-multicast-control`).
    pub dynamic_multicast_control: bool,
    /// The control ring (`feature-ctrl-ring`).
    pub ctrl_ring: bool,
    /// Pages that the guest announces over the control ring stay mapped. No upstream backend does
    /// that, and there is no key for it: without it the messages are answered "not supported".
    pub gref_mapping: bool,
    /// Hashes by Toeplitz, asked for over the control ring. There is no key for it either.
    pub hash: bool,
    /// Queues at most (`multi-queue-max-queues`); 0 leaves the key out, as old backends do.
    pub multi_queue_max: u16,
}

impl Default for Features {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Features {
            sg: true,
            gso_tcpv4: true,
            gso_tcpv6: true,
            ipv6_csum_offload: true,
            rx_copy: true,
            split_event_channels: true,
            multicast_control: true,
            dynamic_multicast_control: true,
            ctrl_ring: true,
            gref_mapping: true,
            hash: true,
            multi_queue_max: processors.min(usize::from(QUEUES_MAX)) as u16,
        }
    }
}

/// The most queues that one vif may have here.
pub const QUEUES_MAX: u16 = 64;

impl Features {
    /// Nothing but what netif cannot do without.
    pub const fn minimal() -> Self {
        Features {
            sg: false,
            gso_tcpv4: false,
            gso_tcpv6: false,
            ipv6_csum_offload: false,
            rx_copy: true,
            split_event_channels: false,
            multicast_control: false,
            dynamic_multicast_control: false,
            ctrl_ring: false,
            gref_mapping: false,
            hash: false,
            multi_queue_max: 0,
        }
    }

    /// The names by which [`Features::switch_off`] knows the features.
    pub const NAMES: [&'static str; 12] = [
        "sg",
        "gso-tcpv4",
        "gso-tcpv6",
        "ipv6-csum-offload",
        "rx-copy",
        "split-event-channels",
        "multicast-control",
        "dynamic-multicast-control",
        "ctrl-ring",
        "gref-mapping",
        "hash",
        "multi-queue",
    ];

    /// Switches off a feature by its name, with or without `feature-` in front.
    ///
    /// # Errors
    /// [`UnknownFeature`] when there is none of that name.
    pub fn switch_off(&mut self, name: &str) -> Result<(), UnknownFeature> {
        match name.strip_prefix("feature-").unwrap_or(name) {
            "sg" => self.sg = false,
            "gso-tcpv4" => self.gso_tcpv4 = false,
            "gso-tcpv6" => self.gso_tcpv6 = false,
            "ipv6-csum-offload" => self.ipv6_csum_offload = false,
            "rx-copy" => self.rx_copy = false,
            "split-event-channels" => self.split_event_channels = false,
            "multicast-control" => self.multicast_control = false,
            "dynamic-multicast-control" => self.dynamic_multicast_control = false,
            "ctrl-ring" => self.ctrl_ring = false,
            "gref-mapping" => self.gref_mapping = false,
            "hash" => self.hash = false,
            "multi-queue" => self.multi_queue_max = 0,
            _ => {
                return Err(UnknownFeature {
                    name: name.to_owned(),
                })
            }
        }
        Ok(())
    }
}

/// A feature name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no feature `{name}`; known are {}", Features::NAMES.join(", "))]
pub struct UnknownFeature {
    name: String,
}

/// What a frontend said of itself when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrontFeatures {
    /// It takes frames over several slots.
    pub sg: bool,
    /// It takes large TCP over IPv4 segments.
    pub gso_tcpv4: bool,
    /// It takes large TCP over IPv6 segments.
    pub gso_tcpv6: bool,
    /// It takes IPv4 frames whose checksum is blank.
    pub csum_offload: bool,
    /// It takes IPv6 frames whose checksum is blank.
    pub ipv6_csum_offload: bool,
    /// It posts notifications when it has posted pages.
    pub rx_notify: bool,
    /// It wants only the multicast frames that it asks for.
    pub multicast_control: bool,
}

impl FrontFeatures {
    /// What may be used towards this frontend by a backend that offers `offered`: a feature that
    /// is switched off is off both ways.
    #[must_use]
    pub fn limited_by(self, offered: &Features) -> Self {
        let sg = self.sg && offered.sg;
        // A large segment needs several slots and a checksum that is filled in after the cut.
        let gso = sg && self.csum_offload;
        FrontFeatures {
            sg,
            gso_tcpv4: gso && self.gso_tcpv4 && offered.gso_tcpv4,
            gso_tcpv6: gso
                && self.gso_tcpv6
                && offered.gso_tcpv6
                && self.ipv6_csum_offload
                && offered.ipv6_csum_offload,
            csum_offload: self.csum_offload,
            ipv6_csum_offload: self.ipv6_csum_offload && offered.ipv6_csum_offload,
            rx_notify: self.rx_notify,
            multicast_control: self.multicast_control && offered.multicast_control,
        }
    }
}

impl fmt::Display for FrontFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.sg, "sg"),
            (self.gso_tcpv4, "gso-tcpv4"),
            (self.gso_tcpv6, "gso-tcpv6"),
            (self.csum_offload, "csum"),
            (self.ipv6_csum_offload, "ipv6-csum"),
            (self.multicast_control, "multicast-control"),
        ];
        let set: Vec<&str> = names.iter().filter(|n| n.0).map(|n| n.1).collect();
        f.write_str(&set.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_feature_can_be_switched_off() {
        for name in Features::NAMES {
            let mut features = Features::default();
            features.switch_off(name).unwrap();
            assert_ne!(features, Features::default(), "{name}");
            features.switch_off(&format!("feature-{name}")).unwrap();
        }
        let error = Features::default().switch_off("warp").unwrap_err();
        assert!(error.to_string().contains("gso-tcpv4"), "{error}");
    }

    #[test]
    fn a_feature_that_is_not_offered_is_not_used_towards_the_guest() {
        let able = FrontFeatures {
            sg: true,
            gso_tcpv4: true,
            gso_tcpv6: true,
            csum_offload: true,
            ipv6_csum_offload: true,
            rx_notify: true,
            multicast_control: true,
        };
        let mut offered = Features::default();
        assert_eq!(able.limited_by(&offered), able);
        offered.sg = false;
        let left = able.limited_by(&offered);
        assert!(!left.sg && !left.gso_tcpv4 && !left.gso_tcpv6 && left.csum_offload);
    }
}
