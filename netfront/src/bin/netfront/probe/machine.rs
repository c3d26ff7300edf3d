//! What no vif is needed for: Xen, device nodes, rights, libraries, limits.

use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use netfront::hypervisor;
use netfront::QueueConfig;
use rustix::thread::{capabilities, CapabilitySet};

use super::distribution;
use super::finding::{Class, Finding};
use super::mend::Fix;
use crate::run::usual_queues;

/// gntalloc's limit of pages, for all processes together.
const LIMIT: &str = "/sys/module/xen_gntalloc/parameters/limit";
/// With fewer pages than this no queue is worth its name: two rings and the smallest pools.
pub const LEAST_PAGES: usize = 2 + 2 * 32;

/// A device node, and what brings it.
#[derive(Debug)]
pub struct Node {
    paths: &'static [&'static str],
    fix: Fix,
}

/// The nodes of Xen; the store's may be at either place.
pub const XEN_NODES: &[Node] = &[
    Node {
        paths: &["/dev/xen/evtchn"],
        fix: Fix::Module("xen-evtchn"),
    },
    Node {
        paths: &["/dev/xen/gntalloc"],
        fix: Fix::Module("xen-gntalloc"),
    },
    Node {
        paths: &["/dev/xen/xenbus", "/proc/xen/xenbus"],
        fix: Fix::Xenfs,
    },
];
/// The node that TAPs are made with.
pub const TUN: Node = Node {
    paths: &["/dev/net/tun"],
    fix: Fix::Module("tun"),
};

/// Whether this is a Xen guest.
pub fn hypervisor() -> Finding {
    hypervisor_under(Path::new("/"))
}

fn hypervisor_under(root: &Path) -> Finding {
    let what = "hypervisor";
    match fs::read_to_string(root.join("sys/hypervisor/type")) {
        Ok(text) if text.trim() == "xen" => {
            let version = ["major", "minor"]
                .map(|part| root.join("sys/hypervisor/version").join(part))
                .map(|path| {
                    fs::read_to_string(path).map_or("?".into(), |text| text.trim().to_owned())
                });
            Finding::ok(what, format!("Xen {}", version.join(".")))
        }
        Ok(text) => Finding::new(
            what,
            Class::Missing,
            format!("/sys/hypervisor/type says {:?}, wanted xen", text.trim()),
        ),
        // Kernels without CONFIG_XEN_SYS_HYPERVISOR lack it.
        Err(_)
            if root.join("dev/xen/xenbus").exists()
                || root.join("proc/xen/capabilities").exists() =>
        {
            Finding::ok(what, "Xen, of a version that the kernel does not tell")
        }
        Err(_) => Finding::new(
            what,
            Class::Missing,
            "no /sys/hypervisor/type: not a Xen guest (`netfront demo` needs none)",
        ),
    }
}

/// Whether a node is there and may be opened.
pub fn device_node(node: &Node) -> Finding {
    device_node_under(Path::new("/"), node)
}

fn device_node_under(root: &Path, node: &Node) -> Finding {
    let mut last = Finding::new("", Class::Missing, "");
    for path in node.paths {
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(root.join(path.trim_start_matches('/')));
        last = match opened {
            Ok(_) => return Finding::ok(*path, "there, and may be opened"),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Finding::new(*path, Class::Rights, "there, but this user may not open it")
                    .by(
                    "run netfront as root, or give the node to a group of this user by a udev rule",
                )
            }
            Err(error) => {
                Finding::new(*path, Class::Setting, error.to_string()).fixed_by(node.fix.clone())
            }
        };
    }
    last
}

/// Whether this process may make and set up a TAP.
pub fn rights() -> Finding {
    rights_by(capabilities(None).map(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN)))
}

fn rights_by(may: rustix::io::Result<bool>) -> Finding {
    let what = "CAP_NET_ADMIN";
    match may {
        Ok(true) => Finding::ok(what, "TAPs may be made and set up"),
        Ok(false) => Finding::new(
            what,
            Class::Rights,
            "this process may not make or set up a TAP",
        )
        .by("run netfront as root, or with this capability"),
        Err(error) => Finding::new(
            what,
            Class::Warning,
            format!("the kernel does not say: {error}"),
        ),
    }
}

/// Xen's libraries, which are loaded when they are needed.
pub fn libraries() -> Vec<Finding> {
    let libraries = hypervisor::libraries().into_iter();
    libraries
        .map(|(name, loaded)| library_under(Path::new("/"), name, loaded))
        .collect()
}

fn library_under(root: &Path, name: &str, loaded: Result<(), impl Display>) -> Finding {
    match loaded {
        Ok(()) => Finding::ok(name, "can be loaded"),
        Err(error) => Finding::new(name, Class::Setting, error.to_string())
            .by(distribution::install(root, name)),
    }
}

/// gntalloc's limit, beside what a vif wants with one queue and with as many as `netfront run` opens here.
pub fn shared_pages() -> Finding {
    shared_pages_under(Path::new("/"), usual_queues())
}

fn shared_pages_under(root: &Path, queues: usize) -> Finding {
    let what = "shared pages";
    let wants = |queues| QueueConfig::default().limit_for(queues, netfront::control::PAGES);
    let (one, wanted) = (wants(1), wants(queues));
    let path = root.join(LIMIT.trim_start_matches('/'));
    let limit = match fs::read_to_string(&path) {
        // The parameter is a signed number, and -1 shares nothing.
        Ok(text) => text
            .trim()
            .parse::<i64>()
            .map(|limit| usize::try_from(limit).unwrap_or(0)),
        Err(error) => {
            return Finding::new(
                what,
                Class::Warning,
                format!("no limit can be read at {LIMIT}: {error}"),
            )
        }
    };
    let found = |limit: usize| {
        let several = match queues {
            1 => String::new(),
            _ => format!(", with the {queues} that `netfront run` opens here {wanted}"),
        };
        format!("{limit} may be shared by all processes together, a vif with one queue wants {one}{several}")
    };
    match limit {
        Ok(limit) if limit >= wanted => Finding::ok(what, found(limit)),
        Ok(limit) if limit < LEAST_PAGES => {
            Finding::new(what, Class::Setting, found(limit)).fixed_by(Fix::Parameter(path, wanted))
        }
        Ok(limit) => Finding::new(
            what,
            Class::Warning,
            format!(
                "{}: `netfront run` raises the limit if it may, or opens fewer queues, or makes smaller pools",
                found(limit)
            ),
        )
        .fixed_by(Fix::Parameter(path, wanted)),
        Err(_) => Finding::new(what, Class::Setting, format!("{LIMIT} holds no number"))
            .fixed_by(Fix::Parameter(path, wanted)),
    }
}

/// Whether one of the kernel's own mistakes would stop the whole guest.
pub fn panic_on_oops() -> Finding {
    panic_on_oops_under(Path::new("/"))
}

fn panic_on_oops_under(root: &Path) -> Finding {
    let what = "kernel.panic_on_oops";
    let text = fs::read_to_string(root.join("proc/sys/kernel/panic_on_oops"));
    match text.as_deref().map(str::trim) {
        Ok("0") => Finding::ok(what, "0"),
        Ok(value) => Finding::new(
            what,
            Class::Warning,
            format!(
                "{value}: after a restore or a migration the guest panics if the driver, or a process \
                 xen-evtchn-keeper, is killed at the wrong moment: Linux breaks when an old event channel handle is \
                 closed (see {})",
                explained_under(root)
            ),
        )
        .by("sysctl -w kernel.panic_on_oops=0"),
        Err(error) => Finding::new(what, Class::Warning, format!("cannot be read: {error}")),
    }
}

/// Where the kernel's mistake is explained: as the package has it, or else in the source.
fn explained_under(root: &Path) -> &'static str {
    const INSTALLED: &str = "/usr/share/doc/netfront/docs/evtchn-restore.md";
    match root.join(INSTALLED.trim_start_matches('/')).exists() {
        true => INSTALLED,
        false => "docs/evtchn-restore.md in the source",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn xen_is_told_with_its_version_from_what_is_not_xen() {
        let xen = root(&[
            ("sys/hypervisor/type", "xen\n"),
            ("sys/hypervisor/version/major", "4\n"),
            ("sys/hypervisor/version/minor", "17\n"),
        ]);
        assert_eq!(hypervisor_under(xen.path()).found, "Xen 4.17");
        let kvm = root(&[("sys/hypervisor/type", "kvm\n")]);
        for other in [kvm, root(&[])] {
            assert_eq!(hypervisor_under(other.path()).class, Class::Missing);
        }
        let silent = root(&[("dev/xen/xenbus", "")]);
        assert!(hypervisor_under(silent.path()).is_ok());
    }

    #[test]
    fn a_missing_node_comes_with_its_module_and_either_place_of_the_store_does() {
        let nothing = root(&[]);
        let finding = device_node_under(nothing.path(), &XEN_NODES[1]);
        assert_eq!(finding.class, Class::Setting);
        assert_eq!(finding.fix, Some(Fix::Module("xen-gntalloc")));
        let old = root(&[("proc/xen/xenbus", "")]);
        assert!(device_node_under(old.path(), &XEN_NODES[2]).is_ok());
    }

    #[test]
    fn a_limit_that_is_too_small_comes_with_one_that_is_enough() {
        let limit = |text: &str, queues| {
            let root = root(&[("sys/module/xen_gntalloc/parameters/limit", text)]);
            let finding = shared_pages_under(root.path(), queues);
            (finding.class, finding.fix.is_some())
        };
        assert_eq!(limit("1024\n", 1), (Class::Ok, false));
        assert_eq!(limit("512\n", 1), (Class::Warning, true));
        for text in ["10\n", "-1\n", "many\n"] {
            assert_eq!(limit(text, 1), (Class::Setting, true), "{text}");
        }
        // Enough for one queue, and `run` opens four.
        assert_eq!(limit("1024\n", 4), (Class::Warning, true));
        assert_eq!(limit("3978\n", 4), (Class::Ok, false));
        assert_eq!(
            shared_pages_under(root(&[]).path(), 1).class,
            Class::Warning
        );
    }

    #[test]
    fn what_one_queue_wants_and_what_those_that_run_opens_want_are_both_said() {
        let root = root(&[("sys/module/xen_gntalloc/parameters/limit", "1024\n")]);
        let found = shared_pages_under(root.path(), 4).found;
        assert!(
            found.contains("one queue wants 996") && found.contains("opens here 3978"),
            "{found}"
        );
    }

    #[test]
    fn the_limit_is_set_by_the_fix() {
        let root = root(&[("sys/module/xen_gntalloc/parameters/limit", "10")]);
        let fix = shared_pages_under(root.path(), 2).fix.expect("a fix");
        fix.run().expect("done");
        assert!(shared_pages_under(root.path(), 2).is_ok());
    }

    #[test]
    fn a_kernel_that_panics_at_once_is_warned_of() {
        let finding =
            |text| panic_on_oops_under(root(&[("proc/sys/kernel/panic_on_oops", text)]).path());
        assert!(finding("0\n").is_ok());
        let one = finding("1\n");
        assert_eq!(one.class, Class::Warning);
        assert!(one
            .mend
            .is_some_and(|command| command.contains("panic_on_oops=0")));
    }

    /// All lines about the machine whose files are `files`, by the paths that it would have.
    fn table(files: &[(&str, &str)], may: bool, loaded: Result<(), &str>) -> String {
        let root = root(files);
        let at = root.path();
        let mut findings = vec![hypervisor_under(at)];
        let nodes = XEN_NODES.iter().chain([&TUN]);
        findings.extend(nodes.map(|node| device_node_under(at, node)));
        findings.extend([
            rights_by(Ok(may)),
            library_under(at, "libxengnttab.so.1", loaded),
            library_under(at, "libxenevtchn.so.1", loaded),
            shared_pages_under(at, 1),
            panic_on_oops_under(at),
        ]);
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        lines.join("\n").replace(&*at.to_string_lossy(), "")
    }

    /// What somebody reads is changed on purpose only: each line, where all is as it must be and where nothing is.
    #[test]
    fn every_line_about_the_machine_is_as_it_was_when_somebody_last_read_it() {
        let good = table(
            &[
                ("sys/hypervisor/type", "xen\n"),
                ("sys/hypervisor/version/major", "4\n"),
                ("sys/hypervisor/version/minor", "17\n"),
                ("dev/xen/evtchn", ""),
                ("dev/xen/gntalloc", ""),
                ("dev/xen/xenbus", ""),
                ("dev/net/tun", ""),
                ("sys/module/xen_gntalloc/parameters/limit", "4096\n"),
                ("proc/sys/kernel/panic_on_oops", "0\n"),
            ],
            true,
            Ok(()),
        );
        assert_eq!(
            good,
            include_str!("../../../../tests/shapes/machine-good.table").trim_end()
        );
        let bad = table(
            &[
                ("etc/os-release", "ID=debian\n"),
                ("sys/module/xen_gntalloc/parameters/limit", "10\n"),
                ("proc/sys/kernel/panic_on_oops", "1\n"),
                ("usr/share/doc/netfront/docs/evtchn-restore.md", ""),
            ],
            false,
            Err("cannot be loaded"),
        );
        assert_eq!(
            bad,
            include_str!("../../../../tests/shapes/machine-bad.table").trim_end()
        );
    }
}
