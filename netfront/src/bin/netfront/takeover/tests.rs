//! Against the kernel: each test in a network namespace of its own, so this machine's interfaces are never touched.
//!
//! They need root and the program `ip`; without them a test says that it is skipped, and passes.

use std::process::Command;

use netfront_tap::{namespace, Tap, TapOptions};
use netfront_tests::skipped;

use super::renewed::{lifetimes, look};
use super::replay::{down, replay};
use super::saved::Saved;
use super::{capture, not_in_use, restore, ties, Restored};

/// Runs `test` on a thread in a new network namespace, or says why not.
fn isolated(test: impl FnOnce() + Send) {
    if !skipped::there_is("ip") {
        return;
    }
    std::thread::scope(|scope| {
        let run = || match namespace::enter_new() {
            Ok(()) => test(),
            Err(error) => skipped::not_on_this_machine(error),
        };
        scope.spawn(run).join().expect("the test panicked");
    });
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("`ip`");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of what `ip` shows, without numbers of interfaces and what only time changes.
fn shown(arguments: &str) -> Vec<String> {
    let mut lines: Vec<String> = ip(arguments)
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort();
    lines
}

/// eth0 as an administrator may have left it.
fn eth0() {
    // The other end answers nobody, but the cable is in.
    ip("link add eth0 type veth peer name wire");
    ip("link set wire up");
    ip("link set eth0 address 00:16:3e:01:02:03 mtu 1400 txqueuelen 321");
    ip("addr add 10.77.0.2/24 brd + dev eth0");
    ip("addr add 10.77.0.3/24 dev eth0 label eth0:1");
    ip("addr add 10.78.0.2 peer 10.78.0.1/32 dev eth0");
    ip("addr add 192.0.2.7/24 dev eth0 valid_lft 4000 preferred_lft 3000");
    ip("link set eth0 up");
    ip("addr add 2001:db8::2/64 dev eth0 nodad");
    ip("route add default via 10.77.0.1 metric 50");
    // A gateway that is reached through another gateway's route only.
    ip("route add 10.99.0.1/32 via 10.77.0.9");
    ip("route add 10.98.0.0/16 via 10.77.0.1 src 10.77.0.3 proto static mtu 1300 advmss 1200");
    ip("route add 10.97.0.0/16 via 10.77.0.1 table 100");
    ip("route add 203.0.113.0/24 via 198.51.100.1 dev eth0 onlink");
    ip("-6 route add default via 2001:db8::1 metric 77");
    ip("-6 route add 2001:db8:1::/48 via fe80::1 dev eth0 expires 500");
    ip("neigh add 10.77.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
    ip("neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud reachable");
    ip("neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev eth0 nud stale");
    ip("neigh add 10.77.0.50 dev eth0 nud none");
}

/// Everything of eth0 that matters, as `ip` shows it.
fn all_of_eth0() -> Vec<String> {
    let mut all = Vec::new();
    for question in [
        "-o -4 addr show dev eth0",
        "-o -6 addr show dev eth0 scope global",
        "-4 route show table all dev eth0",
        "-6 route show table main dev eth0",
    ] {
        all.extend(shown(question).into_iter().map(|line| without_times(&line)));
    }
    all.extend(shown("neigh show dev eth0 nud permanent"));
    all
}

/// The lifetimes tick, and the number of the interface is another one.
fn without_times(line: &str) -> String {
    let line = line.split_once("valid_lft").map_or(line, |(line, _)| line);
    let line = line.split_once(" expires ").map_or(line, |(line, _)| line);
    let line = line.split_once(": ").map_or(line, |(_, line)| line);
    let words = line.split_whitespace().filter(|word| *word != "nodad");
    words.collect::<Vec<_>>().join(" ")
}

fn tap(name: &str) -> Option<Tap> {
    let options = TapOptions {
        name: name.into(),
        ..TapOptions::default()
    };
    match Tap::open(options) {
        Ok(tap) => Some(tap),
        Err(error) => {
            skipped::not_on_this_machine(error);
            None
        }
    }
}

#[test]
fn a_tap_of_the_same_name_has_everything_that_the_interface_had() {
    isolated(|| {
        eth0();
        let before = all_of_eth0();
        let saved = capture(0, "eth0").expect("captured");
        ip("link del eth0");
        let Some(_tap) = tap("eth0") else { return };
        let refused = replay(&saved, "eth0", "eth0").expect("replayed");
        assert_eq!(refused, Vec::<String>::new());
        assert_eq!(all_of_eth0(), before);
        let link = ip("link show dev eth0");
        for wanted in ["mtu 1400", "qlen 321", "00:16:3e:01:02:03", "UP"] {
            assert!(link.contains(wanted), "{wanted}: {link}");
        }
        let neighbours = ip("neigh show dev eth0");
        for wanted in [
            "10.77.0.9 lladdr 02:00:00:00:00:09 STALE",
            "2001:db8::1 lladdr",
        ] {
            assert!(neighbours.contains(wanted), "{wanted}: {neighbours}");
        }
        assert!(!neighbours.contains("10.77.0.50"), "{neighbours}");
    });
}

#[test]
fn there_and_back_by_way_of_the_file_changes_nothing() {
    isolated(|| {
        eth0();
        let before = all_of_eth0();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("saved.json");
        let saved = capture(0, "eth0").expect("captured");
        saved.write(&path).expect("written");
        ip("link del eth0");
        {
            let Some(_tap) = tap("eth0") else { return };
            assert!(replay(&saved, "eth0", "eth0").expect("replayed").is_empty());
        }
        // The kernel's interface comes back with another number, name, MAC and MTU.
        ip("link add eth7 type veth peer name wire");
        ip("link set wire up");
        let saved = Saved::read(&path).expect("read").expect("a file");
        let refused = replay(&saved, "eth7", "eth0").expect("replayed");
        assert_eq!(refused, Vec::<String>::new());
        assert_eq!(all_of_eth0(), before);
        let link = ip("link show dev eth0");
        assert!(
            link.contains("mtu 1400") && link.contains("00:16:3e:01:02:03"),
            "{link}"
        );
    });
}

#[test]
fn what_is_there_already_is_left_alone() {
    isolated(|| {
        eth0();
        let before = all_of_eth0();
        let saved = capture(0, "eth0").expect("captured");
        let refused = replay(&saved, "eth0", "eth0").expect("replayed");
        assert_eq!(refused, Vec::<String>::new());
        assert_eq!(all_of_eth0(), before);
    });
}

#[test]
fn an_interface_that_was_taken_down_is_up_again_with_its_routes() {
    isolated(|| {
        eth0();
        let before = all_of_eth0();
        let saved = capture(0, "eth0").expect("captured");
        down("eth0").expect("down");
        assert!(!ip("link show dev eth0").contains(",UP"));
        assert_ne!(all_of_eth0(), before);
        let refused = replay(&saved, "eth0", "eth0").expect("replayed");
        assert_eq!(refused, Vec::<String>::new());
        assert_eq!(all_of_eth0(), before);
    });
}

#[test]
fn one_route_that_is_refused_does_not_keep_the_others_away() {
    isolated(|| {
        eth0();
        let mut saved = capture(0, "eth0").expect("captured");
        let (text, broken) = ("10.98.0.0/16", "zz");
        let entry = saved
            .routes
            .iter_mut()
            .find(|route| route.text.starts_with(text));
        entry.expect("the route").netlink = broken.into();
        ip("link del eth0");
        let Some(_tap) = tap("eth0") else { return };
        let refused = replay(&saved, "eth0", "eth0").expect("replayed");
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains(text), "{refused:?}");
        assert!(ip("route show table 100").contains("10.97.0.0/16"));
    });
}

#[test]
fn an_address_that_has_run_out_meanwhile_is_not_given_again() {
    isolated(|| {
        eth0();
        let mut saved = capture(0, "eth0").expect("captured");
        saved.uptime -= 5000;
        ip("link del eth0");
        let Some(_tap) = tap("eth0") else { return };
        assert!(replay(&saved, "eth0", "eth0").expect("replayed").is_empty());
        let addresses = ip("addr show dev eth0");
        assert!(addresses.contains("10.77.0.2/24"), "{addresses}");
        assert!(!addresses.contains("192.0.2.7"), "{addresses}");
        assert!(!ip("-6 route show").contains("2001:db8:1::/48"));
    });
}

#[test]
fn what_was_renewed_or_added_on_the_tap_goes_back_and_what_had_no_end_is_not_lost() {
    isolated(|| {
        eth0();
        ip("addr add 198.51.100.9/32 dev eth0 valid_lft 4000 preferred_lft 4000");
        let mut saved = capture(0, "eth0").expect("captured");
        let ends: Vec<&str> = lifetimes(&saved).iter().map(|(text, _)| *text).collect();
        assert_eq!(ends, ["192.0.2.7/24", "198.51.100.9/32"]);
        ip("link del eth0");
        {
            let Some(_tap) = tap("xn0") else { return };
            assert!(replay(&saved, "xn0", "xn0").expect("replayed").is_empty());
            // A DHCP client, an administrator, and a program that takes away what it does not know.
            ip("addr change 192.0.2.7/24 dev xn0 valid_lft 9000 preferred_lft 9000");
            ip("addr del 198.51.100.9/32 dev xn0");
            ip("addr add 10.66.0.1/24 dev xn0 label xn0:2");
            ip("addr del 10.77.0.3/24 dev xn0");
            ip("route replace default via 10.77.0.254 metric 50");
            ip("route add 10.55.0.0/16 via 10.66.0.9");
            // Long after all that had an end when it was saved has run out.
            saved.uptime -= 5000;
            saved = look(&saved, "xn0").expect("looked");
        }
        ip("link add eth7 type veth peer name wire");
        ip("link set wire up");
        let refused = replay(&saved, "eth7", "eth0").expect("replayed");
        assert_eq!(refused, Vec::<String>::new());
        let addresses = ip("-4 addr show dev eth0");
        for wanted in [
            "192.0.2.7/24",
            "10.77.0.3/24",
            "10.66.0.1/24 scope global eth0:2",
        ] {
            assert!(addresses.contains(wanted), "{wanted}: {addresses}");
        }
        assert!(!addresses.contains("198.51.100.9"), "{addresses}");
        let routes = ip("route show");
        for wanted in [
            "default via 10.77.0.254",
            "10.55.0.0/16 via 10.66.0.9",
            "10.98.0.0/16",
        ] {
            assert!(routes.contains(wanted), "{wanted}: {routes}");
        }
        assert!(!routes.contains("default via 10.77.0.1 "), "{routes}");
        assert!(ip("-6 route show").contains("default via 2001:db8::1"));
    });
}

#[test]
fn what_an_interface_carries_is_named() {
    isolated(|| {
        eth0();
        let carries = capture(0, "eth0").expect("captured").carries();
        assert!(carries.contains(&"10.77.0.2/24".to_owned()), "{carries:?}");
        assert_eq!(
            carries.last().map(String::as_str),
            Some("the default route")
        );
        assert!(capture(0, "eth5").is_err());
    });
}

#[test]
fn what_the_kernel_refuses_stays_in_the_file_until_it_is_there_or_the_file_is_removed() {
    isolated(|| {
        eth0();
        let before = all_of_eth0();
        let folder = tempfile::tempdir().expect("a folder");
        let sim = folder.path().join("xen");
        let path = Saved::path(Some(&sim), 0);
        let mut saved = capture(0, "eth0").expect("captured");
        let whole = saved.clone();
        let entry = saved
            .routes
            .iter_mut()
            .find(|route| route.text.starts_with("10.98.0.0/16"));
        entry.expect("the route").netlink = "zz".into();
        saved.write(&path).expect("written");
        down("eth0").expect("down");
        for _ in 0..2 {
            match restore(Some(&sim), 0, "eth0").expect("an interface") {
                Restored::Partly(text) => {
                    assert!(text.contains("10.98.0.0/16"), "{text}");
                    assert!(text.contains("netfront give --vif 0"), "{text}");
                    assert!(text.contains(&path.display().to_string()), "{text}");
                }
                _ => panic!("a route is missing"),
            }
            assert!(path.exists());
        }
        // All that is refused now is what is there already.
        whole.write(&path).expect("written");
        match restore(Some(&sim), 0, "eth0").expect("an interface") {
            Restored::All(text) => assert!(text.contains("10.77.0.2/24"), "{text}"),
            _ => panic!("all of it is there"),
        }
        assert!(!path.exists());
        assert_eq!(all_of_eth0(), before);
        assert!(matches!(
            restore(Some(&sim), 0, "eth0"),
            Ok(Restored::Nothing)
        ));
    });
}

#[test]
fn a_name_that_somebody_else_has_is_not_taken_for_ones_own() {
    isolated(|| {
        eth0();
        let saved = capture(0, "eth0").expect("captured");
        ip("link add eth7 type veth peer name wire7");
        let refused = replay(&saved, "eth7", "eth0").expect("replayed");
        assert!(
            refused.iter().any(|line| line.starts_with("its name")),
            "{refused:?}"
        );
    });
}

#[test]
fn flags_and_the_addresses_that_are_answered_for_others_move_along() {
    isolated(|| {
        eth0();
        ip("link set eth0 promisc on allmulticast on multicast off");
        ip("neigh add proxy 10.77.0.99 dev eth0");
        ip("-6 neigh add proxy 2001:db8::99 dev eth0");
        let saved = capture(0, "eth0").expect("captured");
        ip("link del eth0");
        let Some(_tap) = tap("eth0") else { return };
        let refused = replay(&saved, "eth0", "eth0").expect("replayed");
        assert_eq!(refused, Vec::<String>::new());
        let link = ip("link show dev eth0");
        assert!(
            link.contains("PROMISC") && link.contains("ALLMULTI"),
            "{link}"
        );
        assert!(!link.contains(",MULTICAST"), "{link}");
        let proxies = ip("neigh show proxy dev eth0") + &ip("-6 neigh show proxy dev eth0");
        for wanted in ["10.77.0.99", "2001:db8::99"] {
            assert!(proxies.contains(wanted), "{proxies}");
        }
    });
}

/// Why the take-over of eth0 is refused, and what would be lost.
fn tied() -> (String, Vec<String>) {
    let ties = ties::of("eth0").expect("looked");
    (ties.refusal().unwrap_or_default(), ties.lost)
}

/// Runs what this kernel or this machine may not have. False: it has not, and the test goes on without.
fn may(program: &str, arguments: &str) -> bool {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output();
    let done = output.is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("SKIPPED: {program} {arguments}");
    }
    done
}

#[test]
fn an_interface_that_something_is_built_on_or_that_is_part_of_something_is_not_taken_over() {
    isolated(|| {
        eth0();
        assert_eq!(tied(), (String::new(), Vec::new()));
        for (kind, add) in [
            ("vlan", "link add link eth0 name above type vlan id 10"),
            ("macvlan", "link add link eth0 name above type macvlan"),
            (
                "vxlan",
                "link add above type vxlan id 9 dev eth0 dstport 4789",
            ),
        ] {
            if may("ip", add) {
                let (refusal, _) = tied();
                assert!(refusal.contains(&format!("above ({kind})")), "{refusal}");
                assert!(refusal.contains("ip link del above"), "{refusal}");
                ip("link del above");
            }
        }
        for add in [
            "link add above type bridge",
            "link add above type vrf table 10",
        ] {
            if may("ip", add) {
                ip("link set eth0 master above");
                let (refusal, _) = tied();
                assert!(refusal.contains("it is part of above ("), "{refusal}");
                ip("link set eth0 nomaster");
                ip("link del above");
            }
        }
        assert_eq!(tied().0, "");
    });
}

#[test]
fn queueing_disciplines_are_named_and_those_with_filters_refuse_the_take_over() {
    isolated(|| {
        eth0();
        if may(
            "tc",
            "qdisc add dev eth0 root tbf rate 1mbit burst 10k latency 50ms",
        ) {
            let (refusal, lost) = tied();
            assert_eq!(refusal, "");
            assert_eq!(lost.len(), 1, "{lost:?}");
            assert!(lost[0].contains("tbf"), "{lost:?}");
        }
        if may("tc", "qdisc add dev eth0 clsact") {
            let (refusal, _) = tied();
            assert!(
                refusal.contains("tc qdisc del dev eth0 clsact"),
                "{refusal}"
            );
        }
        // What the kernel puts there by itself is no reason for anything.
        assert!(ties::of("wire").expect("looked").lost.is_empty());
    });
}

#[test]
fn an_interface_that_is_not_here_has_no_answer() {
    isolated(|| assert!(ties::of("eth5").is_err()));
}

#[test]
fn a_vif_that_the_kernel_does_not_know_is_free() {
    assert_eq!(not_in_use(4_000_000), Ok(()));
}
