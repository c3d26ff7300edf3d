//! The store as a backend sees it. This is the only file that knows a path or the name of a key.
//!
//! Names and meaning: `xen/include/public/io/netif.h` and `xenbus.h`; what a toolstack writes:
//! `libxl_nic.c`.

use std::str::FromStr;

use hypervisor::{DomId, GrantRef, Permission, Port, Rights, Store};

use crate::features::{Features, FrontFeatures, QUEUES_MAX};
use crate::state::State;
use crate::toolstack::Toolstack;

/// Something in the store that a backend cannot work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The frontend says that it is connected, but a key is not there.
    #[error("`{path}` is missing; the frontend must write it before its state is {}", State::Connected.text())]
    Missing {
        /// The key's path.
        path: String,
    },
    /// A key has a value of the wrong kind.
    #[error("`{path}` is `{value}`, where {wanted} is needed")]
    Malformed {
        /// The key's path.
        path: String,
        /// What was found.
        value: String,
        /// What was wanted.
        wanted: String,
    },
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] hypervisor::Error),
}

/// Event channels of a queue, as the frontend made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One for both directions.
    Single(Port),
    /// One for each.
    Split {
        /// For the transmit ring.
        tx: Port,
        /// For the receive ring.
        rx: Port,
    },
}

/// What the frontend wrote for one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueKeys {
    /// The page with the transmit ring.
    pub tx: GrantRef,
    /// The page with the receive ring.
    pub rx: GrantRef,
    /// Its event channels.
    pub channels: Channels,
}

/// What the frontend wrote for its control ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlKeys {
    /// The page with the ring.
    pub ring: GrantRef,
    /// Its event channel.
    pub channel: Port,
}

/// All that a frontend wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontKeys {
    /// Its queues, one at least.
    pub queues: Vec<QueueKeys>,
    /// Its control ring, if it wants one.
    pub control: Option<ControlKeys>,
    /// What it can do.
    pub features: FrontFeatures,
}

/// The two directories of one vif, and who owns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The frontend's directory.
    pub frontend: String,
    /// The backend's directory.
    pub backend: String,
    front_domain: DomId,
    back_domain: DomId,
    handle: u32,
}

impl Paths {
    /// The directories of vif number `handle` between two domains.
    pub fn new(back_domain: DomId, front_domain: DomId, handle: u32) -> Self {
        Paths {
            frontend: format!("/local/domain/{front_domain}/device/vif/{handle}"),
            backend: format!("/local/domain/{back_domain}/backend/vif/{front_domain}/{handle}"),
            front_domain,
            back_domain,
            handle,
        }
    }

    /// The domain of the frontend.
    pub fn front_domain(&self) -> DomId {
        self.front_domain
    }

    /// The node whose change means that the frontend did something.
    pub fn front_state(&self) -> String {
        format!("{}/state", self.frontend)
    }

    /// The node that the toolstack sets to 0 when the vif is to go away.
    pub fn online(&self) -> String {
        format!("{}/online", self.backend)
    }

    /// Where the toolstack's script says that the interface is in its place.
    fn hotplug_status(&self) -> String {
        format!("{}/hotplug-status", self.backend)
    }

    /// What to watch, and by which token.
    pub(crate) fn watches(&self) -> [(String, &'static str); 4] {
        let multicast = format!("{}/request-multicast-control", self.frontend);
        [
            (self.front_state(), "front"),
            (self.online(), "online"),
            (self.hotplug_status(), "hotplug"),
            (multicast, "multicast"),
        ]
    }

    /// The toolstack's script has put the interface in its place.
    pub(crate) fn read_hotplug(&self, store: &mut dyn Store) -> Result<bool, KeyError> {
        Ok(store.read(&self.hotplug_status())?.as_deref() == Some("connected"))
    }

    /// What a toolstack wrote of this vif; None while there is no such vif. A toolstack writes all
    /// of it in one transaction, so whoever sees a part sees the whole.
    ///
    /// # Errors
    /// When the store fails, or a key makes no sense.
    pub fn read_toolstack(&self, store: &mut dyn Store) -> Result<Option<Toolstack>, KeyError> {
        let of = |side: &str, key: &str| format!("{side}/{key}");
        if store.read(&of(&self.backend, "frontend"))?.is_none() {
            return Ok(None);
        }
        let default = Toolstack::default();
        let (mac, mtu) = (of(&self.backend, "mac"), of(&self.backend, "mtu"));
        Ok(Some(Toolstack {
            mac: parsed(store, mac, "a MAC address")?.unwrap_or(default.mac),
            mtu: parsed(store, mtu, "a number")?.unwrap_or(default.mtu),
            trusted: store
                .read(&of(&self.frontend, "trusted"))?
                .is_none_or(|text| text != "0"),
        }))
    }

    /// The frontend wants only the multicast frames that it asks for.
    pub(crate) fn read_multicast(&self, store: &mut dyn Store) -> Result<bool, KeyError> {
        self.flag(store, "request-multicast-control")
    }

    /// The frontend's state; [`State::Unknown`] when there is none.
    pub(crate) fn read_front_state(&self, store: &mut dyn Store) -> Result<State, KeyError> {
        let text = store.read(&self.front_state())?;
        Ok(State::from_text(text.as_deref().unwrap_or("")))
    }

    /// False once the toolstack wants the vif gone.
    pub(crate) fn read_online(&self, store: &mut dyn Store) -> Result<bool, KeyError> {
        Ok(store.read(&self.online())?.as_deref() != Some("0"))
    }

    pub(crate) fn write_state(&self, store: &mut dyn Store, state: State) -> Result<(), KeyError> {
        let path = format!("{}/state", self.backend);
        // A toolstack that has taken the vif away must not find half of it again (netback's
        // `xenbus_switch_state` looks first for the same reason).
        if store.read(&path)?.is_none() {
            return Ok(());
        }
        Ok(store.write(&path, &state.text())?)
    }

    /// Says why the vif went down, where tools and people look for it.
    pub(crate) fn write_error(&self, store: &mut dyn Store, why: &str) -> Result<(), KeyError> {
        Ok(store.write(&format!("{}/error", self.backend), why)?)
    }

    /// Writes what the backend can do. Keys of features that are off are removed: they may be left
    /// over from an earlier run that had them.
    pub(crate) fn announce(
        &self,
        store: &mut dyn Store,
        features: &Features,
    ) -> Result<(), KeyError> {
        let flags = [
            ("feature-sg", features.sg),
            ("feature-gso-tcpv4", features.gso_tcpv4),
            ("feature-gso-tcpv6", features.gso_tcpv6),
            ("feature-ipv6-csum-offload", features.ipv6_csum_offload),
            ("feature-rx-copy", features.rx_copy),
            ("feature-multicast-control", features.multicast_control),
            (
                "feature-dynamic-multicast-control",
                features.dynamic_multicast_control,
            ),
            (
                "feature-split-event-channels",
                features.split_event_channels,
            ),
            ("feature-ctrl-ring", features.ctrl_ring),
        ];
        for (key, on) in flags {
            let path = format!("{}/{key}", self.backend);
            if on {
                store.write(&path, "1")?;
            } else {
                store.remove(&path)?;
            }
        }
        store.write(&format!("{}/feature-rx-flip", self.backend), "0")?;
        let queues = format!("{}/multi-queue-max-queues", self.backend);
        match features.multi_queue_max {
            0 => store.remove(&queues)?,
            max => store.write(&queues, &max.to_string())?,
        }
        store.remove(&format!("{}/error", self.backend))?;
        Ok(())
    }

    /// Reads all that the frontend wrote for a backend that offers `offered`.
    pub(crate) fn read_front(
        &self,
        store: &mut dyn Store,
        offered: &Features,
    ) -> Result<FrontKeys, KeyError> {
        let count = self.number::<u16>(store, "multi-queue-num-queues")?;
        let count = count.unwrap_or(1);
        let most = offered.multi_queue_max.clamp(1, QUEUES_MAX);
        if count == 0 || count > most {
            return Err(KeyError::Malformed {
                path: format!("{}/multi-queue-num-queues", self.frontend),
                value: count.to_string(),
                wanted: format!("a number of queues from 1 to {most}, as was offered,"),
            });
        }
        // One queue has its keys in the frontend's directory itself; some put even one into a
        // directory of its own.
        let flat = count == 1 && self.number::<u32>(store, "tx-ring-ref")?.is_some();
        let queues = (0..count)
            .map(|i| {
                let place = if flat || (count == 1 && !self.has(store, "queue-0/tx-ring-ref")?) {
                    String::new()
                } else {
                    format!("queue-{i}/")
                };
                self.read_queue(store, &place)
            })
            .collect::<Result<_, KeyError>>()?;
        if !self.flag(store, "request-rx-copy")? {
            return Err(KeyError::Malformed {
                path: format!("{}/request-rx-copy", self.frontend),
                value: "absent or 0".to_owned(),
                wanted: "1 (page flipping is gone from Xen)".to_owned(),
            });
        }
        let control = match self.number(store, "ctrl-ring-ref")? {
            Some(ring) if offered.ctrl_ring => Some(ControlKeys {
                ring: GrantRef(ring),
                channel: Port(self.need(store, "event-channel-ctrl")?),
            }),
            _ => None,
        };
        Ok(FrontKeys {
            queues,
            control,
            features: self.read_features(store)?.limited_by(offered),
        })
    }

    fn read_queue(&self, store: &mut dyn Store, place: &str) -> Result<QueueKeys, KeyError> {
        let channels = match self.number(store, &format!("{place}event-channel-tx"))? {
            Some(tx) => Channels::Split {
                tx: Port(tx),
                rx: Port(self.need(store, &format!("{place}event-channel-rx"))?),
            },
            None => Channels::Single(Port(self.need(store, &format!("{place}event-channel"))?)),
        };
        Ok(QueueKeys {
            tx: GrantRef(self.need(store, &format!("{place}tx-ring-ref"))?),
            rx: GrantRef(self.need(store, &format!("{place}rx-ring-ref"))?),
            channels,
        })
    }

    fn read_features(&self, store: &mut dyn Store) -> Result<FrontFeatures, KeyError> {
        Ok(FrontFeatures {
            sg: self.flag(store, "feature-sg")?,
            gso_tcpv4: self.flag(store, "feature-gso-tcpv4")?,
            gso_tcpv6: self.flag(store, "feature-gso-tcpv6")?,
            // Absent means that it can: the one key that says no.
            csum_offload: !self.flag(store, "feature-no-csum-offload")?,
            ipv6_csum_offload: self.flag(store, "feature-ipv6-csum-offload")?,
            rx_notify: self.flag(store, "feature-rx-notify")?,
            multicast_control: self.flag(store, "request-multicast-control")?,
        })
    }

    fn has(&self, store: &mut dyn Store, key: &str) -> Result<bool, KeyError> {
        Ok(store.read(&format!("{}/{key}", self.frontend))?.is_some())
    }

    fn flag(&self, store: &mut dyn Store, key: &str) -> Result<bool, KeyError> {
        Ok(self.number::<u32>(store, key)?.unwrap_or(0) != 0)
    }

    fn need<T: FromStr>(&self, store: &mut dyn Store, key: &str) -> Result<T, KeyError> {
        self.number(store, key)?.ok_or_else(|| KeyError::Missing {
            path: format!("{}/{key}", self.frontend),
        })
    }

    fn number<T: FromStr>(&self, store: &mut dyn Store, key: &str) -> Result<Option<T>, KeyError> {
        parsed(store, format!("{}/{key}", self.frontend), "a number")
    }

    /// Writes what a toolstack writes for a new vif. A frontend's directory that exists is left
    /// alone, but for what only the toolstack may say: the frontend may be running.
    pub(crate) fn create(&self, store: &mut dyn Store, vif: &Toolstack) -> Result<(), KeyError> {
        let running = store
            .read(&format!("{}/backend", self.frontend))?
            .as_deref()
            == Some(self.backend.as_str());
        let mac = vif.mac.to_string();
        if !running {
            store.remove(&self.frontend)?;
            store.remove(&self.backend)?;
        }
        // A frontend that runs is watching the backend's directory, so that one is not taken away
        // either. The directories get their permissions while they are empty: what is made in them later
        // takes them over.
        store.write(&self.backend, "")?;
        self.allow(store, &self.backend, self.back_domain, self.front_domain)?;
        let back = [
            ("frontend", self.frontend.as_str()),
            ("frontend-id", &self.front_domain.to_string()),
            ("online", "1"),
            ("state", &State::Initialising.text()),
            ("script", ""),
            (
                "vifname",
                &format!("vif{}.{}", self.front_domain, self.handle),
            ),
            ("mac", &mac),
            ("mtu", &vif.mtu.to_string()),
            ("bridge", ""),
            ("handle", &self.handle.to_string()),
            ("type", "vif"),
            // There is no hotplug script: the peer is the other end of the wire already.
            ("hotplug-status", "connected"),
        ];
        for (key, value) in back {
            store.write(&format!("{}/{key}", self.backend), value)?;
        }
        if !running {
            store.write(&self.frontend, "")?;
            self.allow(store, &self.frontend, self.front_domain, self.back_domain)?;
        }
        let front = [
            ("backend", self.backend.as_str()),
            ("backend-id", &self.back_domain.to_string()),
            ("handle", &self.handle.to_string()),
            ("mac", &mac),
            ("mtu", &vif.mtu.to_string()),
            ("trusted", if vif.trusted { "1" } else { "0" }),
        ];
        for (key, value) in front {
            store.write(&format!("{}/{key}", self.frontend), value)?;
        }
        if !running {
            // Last: it is what a frontend waits for.
            store.write(&self.front_state(), &State::Initialising.text())?;
        }
        Ok(())
    }

    fn allow(
        &self,
        store: &mut dyn Store,
        path: &str,
        owner: DomId,
        reader: DomId,
    ) -> Result<(), KeyError> {
        let entry = |domain, rights| Permission { domain, rights };
        let permissions = [entry(owner, Rights::None), entry(reader, Rights::Read)];
        Ok(store.set_permissions(path, &permissions)?)
    }
}

/// The value of a key; None when there is no such key.
fn parsed<T: FromStr>(
    store: &mut dyn Store,
    path: String,
    wanted: &str,
) -> Result<Option<T>, KeyError> {
    let Some(value) = store.read(&path)? else {
        return Ok(None);
    };
    match value.trim().parse() {
        Ok(found) => Ok(Some(found)),
        Err(_) => Err(KeyError::Malformed {
            path,
            value,
            wanted: wanted.to_owned(),
        }),
    }
}
