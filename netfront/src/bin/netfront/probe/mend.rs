//! What `--fix` does: nothing that takes something away from anybody.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::Failure;
use crate::sysfs::Vif;

/// How long the kernel's driver may take to let a vif go.
const DEADLINE: Duration = Duration::from_secs(10);

/// Something that can be mended without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// A module is loaded.
    Module(&'static str),
    /// xenfs is mounted at /proc/xen.
    Xenfs,
    /// A parameter of a module is set.
    Parameter(PathBuf, usize),
    /// A vif whose interface nobody uses is taken from the kernel's driver.
    Take(u32),
}

impl Fix {
    /// The same as a command for people.
    pub fn command(&self) -> String {
        match self {
            Self::Module(name) => format!("modprobe {name}"),
            Self::Xenfs => "mount -t xenfs xenfs /proc/xen".into(),
            Self::Parameter(path, value) => format!("echo {value} >{}", path.display()),
            Self::Take(vif) => format!("netfront take --vif {vif}"),
        }
    }

    /// Does it. Returns what was done.
    ///
    /// # Errors
    /// What the kernel or the program said.
    pub fn run(&self) -> Result<String, Failure> {
        match self {
            Self::Module(name) => program("modprobe", &[name])?,
            Self::Xenfs => program("mount", &["-t", "xenfs", "xenfs", "/proc/xen"])?,
            Self::Parameter(path, value) => fs::write(path, value.to_string()).map_err(
                Failure::io(format!("writing {value} to {}", path.display())),
            )?,
            Self::Take(vif) => take_idle(&Vif::new(*vif))?,
        }
        Ok(self.command())
    }
}

/// Looked at again: somebody may have taken its interface up since it was found idle.
fn take_idle(vif: &Vif) -> Result<(), Failure> {
    match vif.interface() {
        Some(interface) if !interface.up => vif.unbind(DEADLINE),
        _ => Err(Failure::NotHere(format!(
            "{} is not idle any more, and is left where it is",
            vif.name()
        ))),
    }
}

fn program(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let what = format!("{name} {}", arguments.join(" "));
    let output = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(Failure::io(format!("starting {what}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Verdict(format!("{what}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_came_up_meanwhile_is_not_taken_away() {
        let root = tempfile::tempdir().expect("a folder");
        let net = root.path().join("sys/bus/xen/devices/vif-0/net/eth0");
        let unbind = root.path().join("sys/bus/xen/drivers/vif/unbind");
        for folder in [Some(net.as_path()), unbind.parent()].into_iter().flatten() {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(&unbind, "").expect("a file");
        let vif = Vif::under(root.path(), 0);
        fs::write(net.join("flags"), "0x1003\n").expect("up");
        assert!(take_idle(&vif).is_err());
        assert_eq!(fs::read_to_string(&unbind).expect("text"), "");
        fs::write(net.join("flags"), "0x1002\n").expect("down");
        take_idle(&vif).expect("taken");
        assert_eq!(fs::read_to_string(&unbind).expect("text"), "vif-0");
    }
}
