//! What the toolstack and the backend say of a vif: read anew for every connection.

use hypervisor::DomId;

use super::{keys, Connection, Features};
use crate::Error;

/// What the toolstack and the backend say of the vif.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The domain of the backend, to which everything is granted.
    pub backend_id: DomId,
    /// The backend's directory in the store.
    pub backend: String,
    /// The address of the vif.
    pub mac: [u8; 6],
    /// Bytes of payload in a frame; 1500 if the store does not say.
    pub mtu: u32,
    /// How fast the network is said to be, in bits a second; `None` if the store does not say.
    pub speed: Option<u64>,
    /// False if the toolstack says `trusted` = 0.
    pub trusted: bool,
    /// What the backend can do.
    pub features: Features,
}

impl Connection {
    pub(super) fn read_offer(&mut self) -> Result<Offer, Error> {
        let key = keys::join(&self.frontend, keys::BACKEND_ID);
        let text = self.read(&key)?.ok_or_else(|| Error::NoVif {
            vif: self.vif,
            key: key.clone(),
        })?;
        let backend_id = text.trim().parse().map(DomId).map_err(|_| Error::BadKey {
            key,
            found: text,
            wanted: "a domain number",
        })?;
        let features = Features {
            sg: self.offered(keys::FEATURE_SG)?,
            gso_tcpv4: self.offered(keys::FEATURE_GSO_TCPV4)?,
            gso_tcpv6: self.offered(keys::FEATURE_GSO_TCPV6)?,
            csum_offload: !self.offered(keys::FEATURE_NO_CSUM_OFFLOAD)?,
            ipv6_csum_offload: self.offered(keys::FEATURE_IPV6_CSUM_OFFLOAD)?,
            split_event_channels: self.offered(keys::FEATURE_SPLIT_EVENT_CHANNELS)?,
            ctrl_ring: self.offered(keys::FEATURE_CTRL_RING)?,
            multicast_control: self.offered(keys::FEATURE_MULTICAST_CONTROL)?,
            dynamic_multicast_control: self.offered(keys::FEATURE_DYNAMIC_MULTICAST_CONTROL)?,
            xdp_headroom: self.offered(keys::FEATURE_XDP_HEADROOM)?,
            max_queues: self.number(keys::MULTI_QUEUE_MAX_QUEUES)?.unwrap_or(1),
        };
        if !self.offered(keys::FEATURE_RX_COPY)? {
            // The other way, page flipping, was taken out of every kernel long ago.
            let backend = self.backend.clone();
            return Err(Error::MissingFeature {
                backend,
                feature: keys::FEATURE_RX_COPY,
            });
        }
        let trusted = self.read(&keys::join(&self.frontend, keys::TRUSTED))?;
        Ok(Offer {
            backend_id,
            backend: self.backend.clone(),
            mac: self.read_mac()?,
            mtu: self.read_mtu()?,
            speed: self.read_speed()?,
            trusted: trusted.as_deref().map(str::trim) != Some("0"),
            features,
        })
    }

    /// Whether the cable is in, as the store says now. After [`Connection::look`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn carrier(&mut self) -> Result<bool, Error> {
        self.read_carrier()
    }

    fn number(&mut self, key: &str) -> Result<Option<u32>, Error> {
        let value = self.read(&self.backend_key(key))?;
        Ok(value.and_then(|text| text.trim().parse().ok()))
    }

    fn offered(&mut self, key: &str) -> Result<bool, Error> {
        Ok(self.number(key)?.is_some_and(|value| value != 0))
    }

    /// The vif's address: from the frontend's directory, or the backend's where some toolstacks keep it.
    fn read_mac(&mut self) -> Result<[u8; 6], Error> {
        let own = keys::join(&self.frontend, keys::MAC);
        let backends = self.backend_key(keys::MAC);
        let (key, text) = match self.read(&own)? {
            Some(text) => (own, text),
            None => match self.read(&backends)? {
                Some(text) => (backends, text),
                None => {
                    return Err(Error::NoVif {
                        vif: self.vif,
                        key: own,
                    })
                }
            },
        };
        parse_mac(&text).ok_or(Error::BadKey {
            key,
            found: text,
            wanted: "an address like 00:16:3e:01:02:03",
        })
    }

    pub(super) fn read_mtu(&mut self) -> Result<u32, Error> {
        let text = self.read(&keys::join(&self.frontend, keys::MTU))?;
        // 68 is the least that IPv4 works with, 65535 the most that a netif packet can be.
        let mtu = text.and_then(|text| text.trim().parse().ok());
        Ok(mtu
            .filter(|mtu| (68..=65_521).contains(mtu))
            .unwrap_or(1500))
    }

    /// XAPI's `speed`: a number of gigabits a second, or with the unit K, M or G behind it. What makes no sense says
    /// nothing: it is for people only.
    pub(super) fn read_speed(&mut self) -> Result<Option<u64>, Error> {
        let text = self.read(&keys::join(&self.frontend, keys::SPEED))?;
        Ok(text.as_deref().and_then(parse_speed))
    }

    pub(super) fn read_carrier(&mut self) -> Result<bool, Error> {
        let carrier = self.read(&self.backend_key(keys::CARRIER))?;
        let disconnect = self.read(&keys::join(&self.frontend, keys::DISCONNECT))?;
        let pulled = disconnect.is_some_and(|value| matches!(value.trim(), "1" | "true"));
        Ok(carrier.as_deref().map(str::trim) != Some("0") && !pulled)
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.trim().split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Bits a second.
fn parse_speed(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "G" | "g" => 1_000_000_000,
        "M" | "m" => 1_000_000,
        "K" | "k" => 1000,
        _ => return None,
    };
    let speed = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (speed > 0).then_some(speed)
}

#[cfg(test)]
mod tests {
    use super::{parse_mac, parse_speed};

    #[test]
    fn a_speed_is_a_number_of_gigabits_unless_it_has_a_unit() {
        let gigabit = 1_000_000_000;
        for (text, speed) in [
            ("10", Some(10 * gigabit)),
            ("1G\n", Some(gigabit)),
            ("100m", Some(gigabit / 10)),
            ("56K", Some(56_000)),
            ("0", None),
            ("", None),
            ("fast", None),
            ("1Gb", None),
            ("99999999999999", None),
        ] {
            assert_eq!(parse_speed(text), speed, "{text:?}");
        }
    }

    #[test]
    fn an_address_is_six_hexadecimal_bytes_and_nothing_else() {
        assert_eq!(
            parse_mac("00:16:3E:01:02:ff\n"),
            Some([0, 0x16, 0x3e, 1, 2, 0xff])
        );
        for bad in [
            "",
            "00:16:3e:01:02",
            "00:16:3e:01:02:03:04",
            "00:16:3e:01:02:gg",
            "1:2",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad:?}");
        }
    }
}
