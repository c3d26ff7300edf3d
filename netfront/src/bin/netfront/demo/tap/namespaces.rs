//! Two network namespaces, removed at the end.

use std::process::Command;

use super::output;
use crate::failure::Failure;

/// The guest's and the driver domain's network.
pub struct Namespaces {
    /// Where the frontend's TAP is.
    pub front: String,
    /// Where the backend's TAP is.
    pub back: String,
}

impl Namespaces {
    /// Creates both, with the loopback up.
    pub fn create() -> Result<Self, Failure> {
        let id = std::process::id();
        let names = Self {
            front: format!("netfront-{id}-guest"),
            back: format!("netfront-{id}-dom0"),
        };
        for name in [&names.front, &names.back] {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            // Without it each side sends discovery packets at times of its own.
            let mut sysctl = names.inside(name, "sysctl");
            let _ = output(sysctl.args(["-qw", "net.ipv6.conf.default.disable_ipv6=1"]));
        }
        Ok(names)
    }

    /// A program to be run in a namespace.
    pub fn inside(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, program]);
        command
    }

    /// Gives an interface its address.
    pub fn address(&self, name: &str, interface: &str, address: &str) -> Result<(), Failure> {
        let address = format!("{address}/24");
        ip(&["-n", name, "addr", "replace", &address, "dev", interface])?;
        ip(&["-n", name, "link", "set", interface, "up"])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.front, &self.back] {
            // One that was not created yet cannot be removed.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), Failure> {
    let said = output(Command::new("ip").args(args))?;
    if said.is_empty() {
        Ok(())
    } else {
        Err(Failure::Verdict(format!(
            "ip {}: {}",
            args.join(" "),
            said.trim()
        )))
    }
}
