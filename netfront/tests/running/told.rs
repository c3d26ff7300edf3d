//! What a running driver can be told, and what it answers to nonsense.

use netfront_tests::until;

use crate::driver::World;

#[test]
fn a_paused_driver_moves_no_packet_until_it_is_resumed() {
    let world = World::new(&[]);
    let paused = world.json(&["pause", "--json"]);
    assert_eq!(
        (&paused["ok"], &paused["paused"]),
        (&true.into(), &true.into())
    );
    // A batch may have been on its way.
    let mut last = world.received();
    until("no more packets", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = world.received();
        std::mem::replace(&mut last, now) == now
    });
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["vifs"][0]["paused"], true);
    assert_eq!(status["vifs"][0]["store"]["backend"], "Connected (4)");
    // Neither an event nor a kick moves a packet now.
    world.text(&["kick"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(world.received(), last);
    world.text(&["resume"]);
    until("packets", || world.received() > last + 300);
}

#[test]
fn a_kick_notifies_the_backend_at_once() {
    let world = World::new(&[]);
    world.text(&["pause"]);
    let sent = || {
        let report = world.ask(r#"{"command":"stats"}"#);
        report["counters"]["notify_sent"].as_u64().unwrap()
    };
    let mut before = sent();
    until("silence", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = sent();
        std::mem::replace(&mut before, now) == now
    });
    world.text(&["kick"]);
    // Both event channels.
    until("the kick", || sent() == before + 2);
}

/// L-1: how packets are received is chosen while the driver runs, and packets pass in each mode.
#[test]
fn a_running_driver_changes_its_mode_when_it_is_told_to() {
    let world = World::new(&["--mode", "interrupt", "--restart-limit", "10"]);
    assert_eq!(world.json(&["mode", "--json"])["mode"], "interrupt");
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["vifs"][0]["restart_limit"], "fixed(10)");
    for mode in ["poll", "adaptive", "interrupt"] {
        let told = world.json(&["mode", mode, "--json"]);
        assert_eq!((&told["ok"], &told["mode"]), (&true.into(), &mode.into()));
        let before = world.received();
        until("packets", || world.received() > before + 300);
    }
    let wrong = world.ask(r#"{"command":"mode","mode":"often"}"#);
    let error = wrong["error"].as_str().unwrap();
    assert!(
        error.contains("wanted interrupt, adaptive or poll"),
        "{error}"
    );
    assert_eq!(world.json(&["mode", "--json"])["mode"], "interrupt");
}

#[test]
fn whoever_asks_nonsense_is_told_what_may_be_asked() {
    let world = World::new(&[]);
    for line in [
        "",
        "nonsense",
        "{}",
        r#"{"command":"format"}"#,
        r#"{"command":7}"#,
    ] {
        let answer = world.ask(line);
        assert_eq!(answer["schema"], 1, "{line}: {answer}");
        assert!(answer["error"].is_string(), "{line}: {answer}");
        for name in [
            "stats", "status", "kick", "pause", "resume", "mode", "capture", "trace", "stop",
        ] {
            assert!(answer["known"][name].is_string(), "{name}: {answer}");
        }
    }
    let fileless = world.ask(r#"{"command":"capture"}"#);
    assert!(fileless["error"].as_str().unwrap().contains("file"));
    // And it goes on.
    let before = world.received();
    until("packets", || world.received() > before);
}

#[test]
fn stop_ends_the_driver_in_order_and_later_commands_say_that_none_runs() {
    let mut world = World::new(&[]);
    world.text(&["stop"]);
    assert!(world.driver.0.wait().unwrap().success());
    for command in ["status", "top", "kick", "capture"] {
        let output = world.command(&[command]);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("no netfront runs here"), "{errors}");
    }
    let named = world.command(&["status", "--vif", "0"]);
    assert_eq!(named.status.code(), Some(69), "{named:?}");
}
