//! Which package of this distribution has a library.

use std::fs;
use std::path::Path;

/// The command that installs `library`, a name as in libxengnttab.so.1; on a distribution that is not known, what to look
/// for.
pub fn install(root: &Path, library: &str) -> String {
    let families = families_under(root);
    let known = families.iter().find_map(|family| match family.as_str() {
        // Each library has its package, which is named after it: libxengnttab.so.1 is in libxengnttab1.
        "debian" | "ubuntu" => Some(format!("apt install {}", library.replace(".so.", ""))),
        // One package has them all. Qubes' and XCP-ng's own systems descend from these.
        "fedora" | "rhel" | "centos" | "qubes" | "xenenterprise" => {
            Some("dnf install xen-libs".into())
        }
        _ => None,
    });
    known.unwrap_or_else(|| format!("the package of this distribution that has {library}"))
}

/// The distribution's own name, then those that it descends from, as os-release(5) has them.
fn families_under(root: &Path) -> Vec<String> {
    let text = ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(root.join(path)).ok())
        .unwrap_or_default();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']))
            .unwrap_or_default()
    };
    let words = [value("ID"), value("ID_LIKE")];
    words
        .iter()
        .flat_map(|words| words.split_whitespace())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_comes_with_the_command_of_the_distribution_that_installs_it() {
        let debian = "apt install libxengnttab1";
        let fedora = "dnf install xen-libs";
        let unknown = "the package of this distribution that has libxengnttab.so.1";
        for (text, wanted) in [
            ("NAME=\"Debian GNU/Linux\"\nID=debian\n", debian),
            ("ID_LIKE=debian\nID=ubuntu\n", debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", debian),
            ("ID=fedora\nVARIANT_ID=server\n", fedora),
            ("ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\n", fedora),
            ("ID='xenenterprise'\nID_LIKE='centos rhel fedora'\n", fedora),
            ("ID=alpine\n", unknown),
            ("=\nID\n\u{fffd}", unknown),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            fs::create_dir(root.path().join("etc")).expect("a folder");
            fs::write(root.path().join("etc/os-release"), text).expect("a file");
            assert_eq!(install(root.path(), "libxengnttab.so.1"), wanted, "{text}");
        }
    }

    #[test]
    fn the_second_place_of_os_release_is_read_too_and_none_is_no_error() {
        let root = tempfile::tempdir().expect("a folder");
        assert!(install(root.path(), "libxenevtchn.so.1").ends_with("libxenevtchn.so.1"));
        let lib = root.path().join("usr/lib");
        fs::create_dir_all(&lib).expect("a folder");
        fs::write(lib.join("os-release"), "ID=debian\n").expect("a file");
        assert_eq!(
            install(root.path(), "libxenevtchn.so.1"),
            "apt install libxenevtchn1"
        );
    }
}
