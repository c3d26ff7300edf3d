//! What an interface had before its vif was taken, in a file that outlives this process: whoever is left puts it back.
//!
//! Addresses, routes and neighbours are kept as the kernel's own messages, so nothing of them is lost that this
//! program does not know; beside each stands what it is, for people.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use netlink_packet_core::{Emitable, Parseable};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The version of the file's form.
const SCHEMA: u32 = 1;

/// The interface of a vif, with everything that goes with it when the vif is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The version of this form: 1.
    pub schema: u32,
    /// Number of the vif.
    pub vif: u32,
    /// When this was read, in seconds since the kernel's start: addresses that DHCP or a router gave run out.
    pub uptime: u64,
    /// The interface itself.
    pub interface: Link,
    /// Its addresses, IPv4 and IPv6, in the order in which the kernel has them.
    pub addresses: Vec<Entry>,
    /// Its routes in all tables, but for what the kernel makes by itself for each address.
    pub routes: Vec<Entry>,
    /// The neighbours whose Ethernet addresses are known.
    pub neighbours: Vec<Entry>,
}

/// An interface without what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name (`eth0`).
    pub name: String,
    /// Its number, by which the saved messages name it.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Packets that may wait to be sent.
    pub queue_length: u32,
    /// It is up.
    pub up: bool,
    /// Those of the kernel's flags that somebody may have set: promiscuous, all multicast, multicast, no ARP.
    #[serde(default)]
    pub flags: Option<u32>,
}

/// One address, route or neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is, for people.
    pub text: String,
    /// The kernel's message, in hexadecimal digits.
    pub netlink: String,
}

impl Entry {
    /// Keeps a message.
    pub fn of(text: String, message: &impl Emitable) -> Self {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let netlink = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, netlink }
    }

    /// The message again.
    ///
    /// # Errors
    /// When it is none: the file was changed by somebody.
    pub fn message<M: Parseable<[u8]>>(&self) -> Result<M, Failure> {
        let nonsense = |why: String| {
            Failure::Verdict(format!(
                "what was saved for {:?} makes no sense: {why}",
                self.text
            ))
        };
        let digits: Option<Vec<u8>> = self
            .netlink
            .chars()
            .map(|digit| {
                digit
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            })
            .collect();
        let digits = digits.ok_or_else(|| nonsense("wanted hexadecimal digits".into()))?;
        if digits.len() % 2 != 0 {
            return Err(nonsense("an odd number of digits".into()));
        }
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        M::parse(&bytes).map_err(|error| nonsense(error.to_string()))
    }
}

impl Saved {
    /// A new record of `interface`.
    pub fn of(vif: u32, interface: Link) -> Self {
        Self {
            schema: SCHEMA,
            vif,
            uptime: uptime(),
            interface,
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
        }
    }

    /// Where it is kept: as long as the kernel runs, like the interface.
    pub fn path(sim: Option<&Path>, vif: u32) -> PathBuf {
        match sim {
            Some(socket) => {
                let mut name = socket.as_os_str().to_owned();
                name.push(format!(".vif{vif}-takeover.json"));
                name.into()
            }
            None => format!("/run/netfront/vif{vif}.takeover.json").into(),
        }
    }

    /// Writes it, in one step and for root alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = |what: &str| Failure::io(format!("{what} {}", path.display()));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed("creating the directory of"))?;
        }
        let text =
            serde_json::to_string_pretty(self).map_err(|error| failed("writing")(error.into()))?;
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        // The service's user may put anything into this directory, and root does not write to where that leads.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("clearing away")(error))
            }
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed("creating"))?;
        writeln!(file, "{text}").map_err(failed("writing"))?;
        file.sync_all().map_err(failed("writing"))?;
        fs::rename(&new, path).map_err(failed("renaming"))
    }

    /// Writes it anew if the file is gone: who cleaned up in its directory, or purged the package, must not cost the
    /// interface what it had. What is there is left alone.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_if_gone(&self, path: &Path) -> Result<(), Failure> {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        tracing::warn!(
            "{} was removed by somebody: writing it anew",
            path.display()
        );
        self.write(path)
    }

    /// Reads it; `None` if there is no such file.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io(format!("reading {}", path.display()))(error)),
        };
        Self::parse(&text).map(Some).map_err(|why| {
            Failure::Verdict(format!(
                "{} is not what netfront saves ({why}): remove it, and give the interface its addresses by hand",
                path.display()
            ))
        })
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// Why it is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let saved: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if saved.schema != SCHEMA {
            return Err(format!("schema {}, wanted {SCHEMA}", saved.schema));
        }
        Ok(saved)
    }

    /// What somebody would miss without this interface: its addresses and the default route.
    pub fn carries(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(|address| address.text.clone());
        let routes = self.routes.iter().map(|route| route.text.as_str());
        let default = routes.filter(|text| text.starts_with("default")).take(1);
        addresses
            .chain(default.map(|_| "the default route".to_owned()))
            .collect()
    }
}

/// Seconds since the kernel's start.
pub fn uptime() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressMessage;
    use netlink_packet_route::neighbour::NeighbourMessage;
    use netlink_packet_route::route::RouteMessage;
    use proptest::prelude::*;

    use super::*;

    fn link() -> Link {
        Link {
            name: "eth0".into(),
            index: 7,
            mac: [0, 0x16, 0x3e, 1, 2, 3],
            mtu: 1400,
            queue_length: 1000,
            up: true,
            flags: None,
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deeper/vif0.takeover.json");
        assert!(Saved::read(&path).expect("no file").is_none());
        let mut saved = Saved::of(3, link());
        let address = AddressMessage::default();
        saved
            .addresses
            .push(Entry::of("10.0.0.1/8".into(), &address));
        saved.write(&path).expect("written");
        let read = Saved::read(&path).expect("read").expect("a file");
        assert_eq!(read, saved);
        let message: AddressMessage = read.addresses[0].message().expect("a message");
        assert_eq!(message, address);
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read_and_what_stands_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vif0.takeover.json");
        let other = folder.path().join("other");
        fs::write(&other, "kept").expect("written");
        std::os::unix::fs::symlink(&other, folder.path().join("vif0.takeover.json.new"))
            .expect("a link");
        let saved = Saved::of(3, link());
        saved.write(&path).expect("written");
        assert_eq!(fs::read_to_string(&other).expect("read"), "kept");
        let mut value = serde_json::to_value(&saved).expect("a value");
        let interface = value["interface"].as_object_mut().expect("an interface");
        assert!(interface.remove("flags").is_some());
        assert_eq!(Saved::parse(&value.to_string()).expect("read"), saved);
    }

    #[test]
    fn what_somebody_removed_meanwhile_is_written_anew_and_what_is_there_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deeper/vif3.takeover.json");
        let saved = Saved::of(3, link());
        saved.write(&path).expect("written");
        // As a purge of the package did.
        fs::remove_dir_all(folder.path().join("deeper")).expect("removed");
        saved.write_if_gone(&path).expect("written anew");
        assert_eq!(Saved::read(&path).expect("read"), Some(saved.clone()));
        let mut later = saved.clone();
        later.interface.mtu = 1300;
        later.write(&path).expect("written");
        saved.write_if_gone(&path).expect("looked");
        assert_eq!(Saved::read(&path).expect("read"), Some(later));
    }

    #[test]
    fn a_file_of_another_kind_is_named_and_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vif0.takeover.json");
        for text in ["", "{}", "[1]", "{\"schema\":2}"] {
            fs::write(&path, text).expect("written");
            let error = Saved::read(&path).unwrap_err().to_string();
            assert!(error.contains("vif0.takeover.json"), "{error}");
        }
    }

    #[test]
    fn addresses_and_the_default_route_are_what_somebody_would_miss() {
        let mut saved = Saved::of(0, link());
        assert!(saved.carries().is_empty());
        let entry = |text: &str| Entry {
            text: text.into(),
            netlink: String::new(),
        };
        saved.addresses.push(entry("10.0.0.1/8"));
        saved.routes.push(entry("10.1.0.0/16 via 10.0.0.2"));
        saved.routes.push(entry("default via 10.0.0.2"));
        assert_eq!(saved.carries(), ["10.0.0.1/8", "the default route"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = Saved::parse(&text);
        }

        #[test]
        fn any_message_in_it_is_understood_or_refused(netlink in "[0-9a-f]{0,160}|.{0,20}") {
            let entry = Entry { text: "x".into(), netlink };
            let _ = entry.message::<AddressMessage>();
            let _ = entry.message::<RouteMessage>();
            let _ = entry.message::<NeighbourMessage>();
        }
    }
}
