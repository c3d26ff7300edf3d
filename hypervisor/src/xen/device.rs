//! The device nodes of Xen: is this Xen at all, and why a node could not be opened.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::process::{getegid, geteuid, getgroups};

use crate::{Error, Lack};

/// What the kernel says of this domain's rights: "control_d" in dom0, nothing in a guest.
const CAPABILITIES: &str = "proc/xen/capabilities";

/// The limit of gntalloc, in pages, for all processes together.
const GRANT_LIMIT: &str = "sys/module/xen_gntalloc/parameters/limit";

/// A device node that a library opens for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// Event channels.
    Evtchn,
    /// Own pages, to be shared.
    Gntalloc,
    /// Pages of other domains.
    Gntdev,
    /// Hypercalls of dom0's tools.
    Privcmd,
}

impl Device {
    fn path(self) -> &'static str {
        match self {
            Device::Evtchn => "dev/xen/evtchn",
            Device::Gntalloc => "dev/xen/gntalloc",
            Device::Gntdev => "dev/xen/gntdev",
            Device::Privcmd => "dev/xen/privcmd",
        }
    }

    fn module(self) -> &'static str {
        match self {
            Device::Evtchn => "xen-evtchn",
            Device::Gntalloc => "xen-gntalloc",
            Device::Gntdev => "xen-gntdev",
            Device::Privcmd => "xen-privcmd",
        }
    }

    /// The error for a node that could not be opened, with what to do about it.
    pub(super) fn refused(self, source: io::Error) -> Error {
        self.refused_under(Path::new("/"), source)
    }

    fn refused_under(self, root: &Path, source: io::Error) -> Error {
        let node = root.join(self.path());
        let wanted = format!("/{}", self.path());
        match source.kind() {
            io::ErrorKind::NotFound => Error::Unavailable {
                lack: Lack::Setting,
                wanted,
                found: "there is no such device node".into(),
                hint: format!(
                    "load the kernel module {0} (modprobe {0}); in a container, pass the node in",
                    self.module()
                ),
            },
            io::ErrorKind::PermissionDenied => Error::Unavailable {
                lack: Lack::Rights,
                wanted,
                found: rights(&node),
                hint: "run this as root, or give the node to a group of this user by a udev rule"
                    .into(),
            },
            // The node is there but its driver is not, as after `mknod` on a machine without Xen.
            _ if matches!(source.raw_os_error(), Some(NO_DEVICE | NO_ADDRESS)) => {
                Error::Unavailable {
                    lack: Lack::Setting,
                    wanted,
                    found: "the node is there but no driver stands behind it".into(),
                    hint: format!(
                        "run this in a Xen domain with the kernel module {} loaded",
                        self.module()
                    ),
                }
            }
            _ => Error::system(format!("open {wanted}"), source),
        }
    }
}

const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();
const NO_ADDRESS: i32 = rustix::io::Errno::NXIO.raw_os_error();

/// Who may use a node, and who we are.
fn rights(node: &Path) -> String {
    let groups: Vec<u32> = getgroups()
        .unwrap_or_default()
        .iter()
        .map(|g| g.as_raw())
        .collect();
    let we = format!(
        "this process runs as user {}, group {}, further groups {groups:?}",
        geteuid().as_raw(),
        getegid().as_raw()
    );
    match fs::metadata(node) {
        Ok(found) => format!(
            "it belongs to user {} and group {} with mode {:04o}, and {we}",
            found.uid(),
            found.gid(),
            found.mode() & 0o7777
        ),
        Err(_) => format!("no right to look at it, and {we}"),
    }
}

/// Whether this is a Xen domain, with the one device that every end of a vif needs.
pub(crate) fn check() -> Result<(), Error> {
    check_under(Path::new("/"))
}

fn check_under(root: &Path) -> Result<(), Error> {
    // Kernels without CONFIG_XEN_SYS_HYPERVISOR lack the first; xenfs or the nodes tell it then.
    let hypervisor = fs::read_to_string(root.join("sys/hypervisor/type")).unwrap_or_default();
    let is_xen = hypervisor.trim() == "xen"
        || root.join("proc/xen/capabilities").exists()
        || root.join("dev/xen/xenbus").exists();
    if !is_xen {
        return Err(Error::Unavailable {
            lack: Lack::Here,
            wanted: "Xen".into(),
            found: match hypervisor.trim() {
                "" => "this machine is no Xen domain (/sys/hypervisor/type is not there)".into(),
                other => format!("/sys/hypervisor/type says {other:?}"),
            },
            hint: "run this in a Xen domain, or use the simulated Xen".into(),
        });
    }
    let node = root.join(Device::Evtchn.path());
    match fs::metadata(&node) {
        Ok(found) if found.file_type().is_char_device() => Ok(()),
        Ok(_) => Err(Error::Unavailable {
            lack: Lack::Setting,
            wanted: format!("/{}", Device::Evtchn.path()),
            found: "something that is no device node".into(),
            hint: "remove it and load the kernel module xen-evtchn".into(),
        }),
        Err(source) => Err(Device::Evtchn.refused_under(root, source)),
    }
}

/// Whether this domain is the one that the hypervisor answers questions about others.
pub(super) fn check_control_domain() -> Result<(), Error> {
    check_control_domain_under(Path::new("/"))
}

fn check_control_domain_under(root: &Path) -> Result<(), Error> {
    match fs::read_to_string(root.join(CAPABILITIES)) {
        Ok(text) if !text.contains("control_d") => Err(Error::Unavailable {
            lack: Lack::Here,
            wanted: "The list of domains".into(),
            found: format!("this domain is not dom0 (/{CAPABILITIES} does not say control_d)"),
            hint: "run this in dom0".into(),
        }),
        // Without xenfs nobody knows; the hypervisor will say.
        _ => Ok(()),
    }
}

/// How many pages gntalloc shares at most, for all processes together. `None` when the module is
/// not there, so that there is nothing to read.
pub(crate) fn grant_limit() -> Result<Option<usize>, Error> {
    grant_limit_under(Path::new("/"))
}

/// Raises the limit to `pages`, which needs root. It stays so until the module goes or somebody sets it.
pub(crate) fn raise_grant_limit(pages: usize) -> Result<(), Error> {
    let path = Path::new("/").join(GRANT_LIMIT);
    fs::write(&path, pages.to_string())
        .map_err(|source| Error::system(format!("write {pages} to {}", path.display()), source))
}

fn grant_limit_under(root: &Path) -> Result<Option<usize>, Error> {
    let text = match fs::read_to_string(root.join(GRANT_LIMIT)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::system(format!("read /{GRANT_LIMIT}"), source)),
    };
    // The parameter is a signed int, and whoever may write it may write -1: that shares nothing.
    let limit: i64 = text.trim().parse().map_err(|_| Error::BadAnswer {
        service: "The kernel",
        found: format!("/{GRANT_LIMIT} holds {text:?}, which is no number"),
    })?;
    Ok(Some(usize::try_from(limit).unwrap_or(0)))
}

/// The error for a share that the kernel had no room for.
///
/// `shared` is what this domain object shares; other processes may hold the rest.
pub(super) fn no_room(wanted: usize, shared: usize) -> Error {
    let Ok(Some(limit)) = grant_limit() else {
        return Error::system(
            format!("share {wanted} pages: gntalloc's limit or Xen's grant table is used up"),
            rustix::io::Errno::NOSPC,
        );
    };
    // What is shared now is at most the limit, so this many are enough whoever holds them.
    let enough = limit.saturating_add(wanted);
    // Refused again and again while a pool is filled: what it comes to is said by who fills it.
    tracing::debug!(
        wanted,
        shared,
        limit,
        "no room to share more pages; as root: echo {enough} > /{GRANT_LIMIT}"
    );
    Error::GrantLimit {
        wanted,
        shared,
        limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_machine_without_xen_is_told_so() {
        let root = root(&[]);
        let text = check_under(root.path()).unwrap_err().to_string();
        assert!(
            text.contains("no Xen domain") && text.contains("simulated"),
            "{text}"
        );
    }

    #[test]
    fn another_hypervisor_is_named() {
        let root = root(&[("sys/hypervisor/type", "kvm\n")]);
        let text = check_under(root.path()).unwrap_err().to_string();
        assert!(text.contains("\"kvm\""), "{text}");
    }

    #[test]
    fn a_missing_node_is_told_with_its_module() {
        let root = root(&[("sys/hypervisor/type", "xen\n")]);
        let text = check_under(root.path()).unwrap_err().to_string();
        assert!(
            text.contains("/dev/xen/evtchn") && text.contains("modprobe xen-evtchn"),
            "{text}"
        );
    }

    #[test]
    fn what_is_missing_is_told_by_its_kind_so_that_a_program_can_say_who_mends_it() {
        let lack = |error: Error| match error {
            Error::Unavailable { lack, .. } => Some(lack),
            _ => None,
        };
        let refused = |kind: io::ErrorKind| lack(Device::Gntalloc.refused(kind.into()));
        assert_eq!(refused(io::ErrorKind::NotFound), Some(Lack::Setting));
        assert_eq!(refused(io::ErrorKind::PermissionDenied), Some(Lack::Rights));
        let no_driver = io::Error::from_raw_os_error(NO_DEVICE);
        assert_eq!(lack(Device::Evtchn.refused(no_driver)), Some(Lack::Setting));
        assert_eq!(refused(io::ErrorKind::OutOfMemory), None);
        let check = |files: &[(&str, &str)]| lack(check_under(root(files).path()).unwrap_err());
        assert_eq!(check(&[]), Some(Lack::Here));
        let xen = [("sys/hypervisor/type", "xen\n")];
        assert_eq!(check(&xen), Some(Lack::Setting));
    }

    #[test]
    fn a_file_in_the_place_of_a_node_is_refused() {
        let root = root(&[("sys/hypervisor/type", "xen\n"), ("dev/xen/evtchn", "")]);
        let text = check_under(root.path()).unwrap_err().to_string();
        assert!(text.contains("no device node"), "{text}");
    }

    #[test]
    fn a_node_without_the_right_to_open_it_is_told_with_owner_and_mode() {
        let root = root(&[("dev/xen/gntalloc", "")]);
        let error = Device::Gntalloc.refused_under(
            root.path(),
            io::Error::from(io::ErrorKind::PermissionDenied),
        );
        let text = error.to_string();
        assert!(
            text.contains("belongs to user") && text.contains("udev rule"),
            "{text}"
        );
    }

    #[test]
    fn a_node_without_a_driver_is_told_from_a_missing_node() {
        let error = Device::Gntdev.refused(io::Error::from_raw_os_error(NO_DEVICE));
        assert!(error.to_string().contains("no driver"), "{error}");
    }

    #[test]
    fn a_guest_is_told_that_only_dom0_sees_all_domains() {
        let check = |text| check_control_domain_under(root(&[(CAPABILITIES, text)]).path());
        assert!(check("control_d\n").is_ok());
        let text = check("").unwrap_err().to_string();
        assert!(text.contains("run this in dom0"), "{text}");
        assert!(check_control_domain_under(root(&[]).path()).is_ok());
    }

    #[test]
    fn the_grant_limit_is_read_and_its_absence_is_no_error() {
        let read = |files: &[(&str, &str)]| grant_limit_under(root(files).path());
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[(GRANT_LIMIT, "1024\n")]).unwrap(), Some(1024));
        assert_eq!(read(&[(GRANT_LIMIT, "-1\n")]).unwrap(), Some(0));
        assert!(read(&[(GRANT_LIMIT, "many\n")])
            .unwrap_err()
            .to_string()
            .contains("many"));
    }
}
