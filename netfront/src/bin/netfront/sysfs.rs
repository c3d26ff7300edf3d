//! What the kernel knows of a vif, and how it is told to take it or to let it go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::udev;

/// The kernel's network driver for vifs; its module is xen-netfront.
const DRIVER: &str = "vif";
/// How often a child process is looked at.
const TICK: Duration = Duration::from_millis(10);
/// A network interface that is up (`IFF_UP` in its flags).
const UP: u32 = 1;

/// One vif as sysfs shows it.
pub struct Vif {
    root: PathBuf,
    name: String,
}

/// The network interface that a driver has made of a vif.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub up: bool,
}

impl Vif {
    /// The vif with this number.
    pub fn new(vif: u32) -> Self {
        Self::under(Path::new("/"), vif)
    }

    /// The same where another folder stands for `/`.
    pub fn under(root: &Path, vif: u32) -> Self {
        Self {
            root: root.join("sys"),
            name: format!("vif-{vif}"),
        }
    }

    /// Its name on the bus of Xen's devices.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> PathBuf {
        self.root.join("bus/xen/devices").join(&self.name)
    }

    fn drivers(&self) -> PathBuf {
        self.root.join("bus/xen/drivers")
    }

    /// True if the kernel knows the vif at all.
    pub fn exists(&self) -> bool {
        self.device().exists()
    }

    /// The kernel's driver that has the vif.
    pub fn driver(&self) -> Option<String> {
        let link = fs::read_link(self.device().join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into())
    }

    /// True if the kernel's netfront is loaded.
    pub fn driver_is_loaded(&self) -> bool {
        self.drivers().join(DRIVER).exists()
    }

    /// The network interface that the kernel's driver has made of it.
    pub fn interface(&self) -> Option<Interface> {
        let mut folder = fs::read_dir(self.device().join("net")).ok()?;
        let entry = folder.next()?.ok()?;
        let flags = fs::read_to_string(entry.path().join("flags")).unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        Some(Interface {
            name: entry.file_name().to_string_lossy().into(),
            up: flags & UP != 0,
        })
    }

    /// Waits until udev is done with the interface that the kernel's driver has made: it may rename it (eth0 to enX0), and
    /// whoever took its first name for the last would look for it in vain. Without udev, at once; late, it goes on.
    pub fn wait_named(&self, patience: Duration) {
        if let Some(root) = self.root.parent() {
            udev::settle(root, || self.index(), patience);
        }
    }

    /// The number of its interface. `None` also while it is renamed.
    fn index(&self) -> Option<String> {
        let net = self.device().join("net").join(self.interface()?.name);
        fs::read_to_string(net.join("ifindex")).ok()
    }

    /// True if the kernel's driver has made an interface that cannot be seen from this network namespace.
    pub fn interface_is_elsewhere(&self) -> bool {
        // The folder comes with the first interface and goes with the last; what is in it is shown by namespace.
        self.device().join("net").is_dir() && self.interface().is_none()
    }

    /// Says whether the kernel's own driver has the vif, and how to take it from there. To connect it all
    /// the same would cut off whoever uses its interface, an ssh session for one.
    pub fn not_in_use(&self) -> Result<(), String> {
        let Some(driver) = self.driver() else {
            return Ok(());
        };
        let number = self.name.trim_start_matches("vif-");
        let interface = self
            .interface()
            .map_or_else(String::new, |interface| format!(" as {}", interface.name));
        Err(format!(
            "{} is used by the kernel's driver {driver}{interface}: `netfront take --vif {number}` takes it, and \
             with it this network interface away",
            self.name
        ))
    }

    /// Has the kernel's driver let go of the vif.
    ///
    /// # Errors
    /// When the kernel refuses, or is not done in time: netfront waits for its backend without end.
    pub fn unbind(&self, deadline: Duration) -> Result<(), Failure> {
        self.tell("unbind", deadline)
    }

    /// Gives the vif to the kernel's driver.
    ///
    /// # Errors
    /// As [`Self::unbind`].
    pub fn bind(&self, deadline: Duration) -> Result<(), Failure> {
        self.tell("bind", deadline)
    }

    fn tell(&self, file: &str, deadline: Duration) -> Result<(), Failure> {
        let path = self.drivers().join(DRIVER).join(file);
        // Asked here, since the child could only say it in its own words.
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(Failure::io(format!(
                "opening {} (as root?)",
                path.display()
            )))?;
        let mut write = Command::new("/bin/sh");
        write
            .args(["-c", "printf %s \"$1\" >\"$2\"", "sh", &self.name])
            .arg(&path);
        let what = format!("{} at {}", self.name, path.display());
        done_within(&mut write, &what, deadline)
    }

    /// Loads the kernel's netfront, and keeps it from taking any vif by itself: it would take those of
    /// other drivers of ours too.
    ///
    /// # Errors
    /// When there is no such module, nobody to load it, or no right to.
    pub fn load_driver(&self, deadline: Duration) -> Result<(), Failure> {
        let path = self.root.join("bus/xen/drivers_autoprobe");
        let switch = |to: &str| {
            fs::write(&path, to).map_err(Failure::io(format!(
                "writing {to} to {} (as root?)",
                path.display()
            )))
        };
        let before = fs::read_to_string(&path)
            .map_err(Failure::io(format!("reading {}", path.display())))?;
        switch("0")?;
        let loaded = done_within(
            Command::new("modprobe").arg("xen-netfront"),
            "modprobe xen-netfront",
            deadline,
        );
        switch(before.trim())?;
        loaded
    }
}

/// Runs what has the kernel do something with a vif, in a process of its own: the kernel may hold whoever asks for
/// ever, and cannot be interrupted.
fn done_within(command: &mut Command, what: &str, deadline: Duration) -> Result<(), Failure> {
    let mut child = command
        .stdin(Stdio::null())
        // Held by a process that the kernel holds, our output would keep its reader waiting.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Failure::io(format!("starting {what}")))?;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(_)) => {
                return Err(Failure::Verdict(format!(
                    "the kernel refused {what}: dmesg may say why"
                )))
            }
            Ok(None) if start.elapsed() < deadline => std::thread::sleep(TICK),
            Ok(None) => {
                return Err(Failure::Verdict(format!(
                    "the kernel was not done with {what} after {} s: its driver waits for the backend. \
                     Process {} goes on waiting; a backend that moves on, or `xl network-detach` in dom0, ends it",
                    deadline.as_secs(),
                    child.id()
                )))
            }
            Err(error) => return Err(Failure::io("waiting for the kernel's driver")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs with vif-0, bound to the kernel's driver as eth0.
    fn bound(flags: &str) -> (tempfile::TempDir, Vif) {
        let root = tempfile::tempdir().expect("a folder");
        let device = root.path().join("sys/bus/xen/devices/vif-0");
        let driver = root.path().join("sys/bus/xen/drivers/vif");
        fs::create_dir_all(device.join("net/eth0")).expect("a device");
        fs::create_dir_all(&driver).expect("a driver");
        symlink(&driver, device.join("driver")).expect("a link");
        fs::write(device.join("net/eth0/flags"), flags).expect("flags");
        let vif = Vif::under(root.path(), 0);
        (root, vif)
    }

    #[test]
    fn a_vif_of_the_kernels_driver_is_refused_with_the_command_that_takes_it() {
        let (_root, vif) = bound("0x1003\n");
        let text = vif.not_in_use().unwrap_err();
        assert!(
            text.contains("eth0") && text.contains("netfront take --vif 0"),
            "{text}"
        );
    }

    #[test]
    fn a_vif_that_no_driver_has_is_free() {
        let (root, vif) = bound("0x1003\n");
        fs::remove_file(root.path().join("sys/bus/xen/devices/vif-0/driver")).expect("unbound");
        assert_eq!(vif.not_in_use(), Ok(()));
        assert!(vif.exists() && vif.driver_is_loaded());
    }

    #[test]
    fn an_interface_that_is_up_is_told_from_one_that_is_down() {
        let interface = |flags| bound(flags).1.interface().expect("an interface");
        assert!(interface("0x1003\n").up);
        assert!(!interface("0x1002\n").up);
        assert!(!interface("nonsense").up);
    }

    #[test]
    fn a_new_interface_has_its_name_when_udev_is_done_with_it() {
        let (root, vif) = bound("0x1002\n");
        let net = root.path().join("sys/bus/xen/devices/vif-0/net");
        fs::write(net.join("eth0/ifindex"), "7\n").expect("a number");
        let long = Duration::from_secs(600);
        // Without udev there is nobody to wait for.
        vif.wait_named(long);
        let udev = root.path().join("run/udev");
        fs::create_dir_all(udev.join("data")).expect("a folder");
        fs::write(udev.join("control"), "").expect("udev");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| vif.wait_named(long));
            fs::rename(net.join("eth0"), net.join("enX0")).expect("renamed");
            assert!(!waiting.is_finished());
            fs::write(udev.join("data/n7"), "").expect("what udev knows");
        });
        let interface = vif.interface().expect("an interface");
        assert_eq!(interface.name, "enX0");
        // Whose udev says nothing, it does not wait for ever.
        fs::remove_file(udev.join("data/n7")).expect("removed");
        vif.wait_named(Duration::from_millis(20));
    }

    #[test]
    fn an_interface_in_another_network_namespace_is_told_from_one_that_was_not_made_yet() {
        let (root, vif) = bound("0x1003\n");
        assert!(!vif.interface_is_elsewhere());
        let net = root.path().join("sys/bus/xen/devices/vif-0/net");
        fs::remove_dir_all(net.join("eth0")).expect("hidden");
        assert!(vif.interface_is_elsewhere());
        fs::remove_dir(&net).expect("removed");
        assert!(!vif.interface_is_elsewhere());
    }

    #[test]
    fn the_kernel_is_told_the_vifs_name() {
        let (root, vif) = bound("0x1002\n");
        let file = root.path().join("sys/bus/xen/drivers/vif/unbind");
        fs::write(&file, "").expect("a file");
        vif.unbind(Duration::from_secs(30)).expect("told");
        assert_eq!(fs::read_to_string(&file).expect("text"), "vif-0");
    }

    #[test]
    fn a_kernel_that_never_answers_is_reported_after_the_deadline() {
        let (root, vif) = bound("0x1002\n");
        // Whoever opens a pipe that nobody reads waits, as who writes to a driver that waits for its backend.
        let file = root.path().join("sys/bus/xen/drivers/vif/unbind");
        let made = Command::new("mkfifo").arg(&file).status().expect("mkfifo");
        assert!(made.success());
        let _reader = fs::OpenOptions::new().read(true).write(true).open(&file);
        let filled = Command::new("sh")
            .args([
                "-c",
                "timeout 1 dd if=/dev/zero bs=4096 count=64 >\"$1\" 2>/dev/null",
                "sh",
            ])
            .arg(&file)
            .status();
        assert!(filled.is_ok());
        let text = vif
            .unbind(Duration::from_millis(200))
            .unwrap_err()
            .to_string();
        assert!(text.contains("waits for the backend"), "{text}");
    }
}
