//! What a toolstack knows of a vif. On Xen, libxl writes it into the store; on the simulated Xen
//! there is no toolstack, so the backend does it, as domain 0.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is no Ethernet address of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no MAC address: give six pairs of hexadecimal digits, as in 00:16:3e:00:00:01, the first of them even")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        // A group address cannot be anybody's own.
        if parts.next().is_some() || bytes[0] & 1 != 0 {
            return Err(wrong());
        }
        Ok(Mac(bytes))
    }
}

/// One vif, as its administrator describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toolstack {
    /// The guest's Ethernet address.
    pub mac: Mac,
    /// The largest IP packet.
    pub mtu: u32,
    /// Whether the frontend may trust this backend (`trusted`).
    pub trusted: bool,
}

impl Default for Toolstack {
    /// An address out of Xen's own range, 1500 bytes, trusted.
    fn default() -> Self {
        Toolstack {
            mac: Mac([0x00, 0x16, 0x3e, 0x00, 0x00, 0x01]),
            mtu: 1500,
            trusted: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_as_it_is_written() {
        let text = "00:16:3e:ab:cd:ef";
        assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
        for wrong in [
            "",
            "00:16:3e:ab:cd",
            "00:16:3e:ab:cd:ef:00",
            "01:00:5e:00:00:01",
            "0:1:2:3:4:5",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}
