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
            Self::Take(vif) => Vif::new(*vif).unbind(DEADLINE)?,
        }
        Ok(self.command())
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
