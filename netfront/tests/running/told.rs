//! What a running driver can be told, and what it answers to nonsense.

use netfront::engine::cores::usable_cpus;
use netfront_tests::until;
use serde_json::Value;

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

#[test]
fn a_kick_of_a_driver_without_a_connection_says_that_it_tries_to_connect() {
    let mut world = World::new(&[]);
    assert_eq!(world.json(&["kick", "--json"])["connected"], true);
    world.end_backend();
    until("the connection to go", || {
        world.json(&["kick", "--json"])["connected"] == false
    });
    let text = world.text(&["kick"]);
    assert_eq!(
        text,
        "vif 0: not connected: the driver tries to connect now\n"
    );
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

/// L-15: the thread of a queue goes to another processor while packets pass, and all queues if none is named.
#[test]
fn a_packet_thread_goes_where_it_is_told_while_packets_pass() {
    let processors = usable_cpus();
    let first = processors[0].to_string();
    let world = World::with_queues(2, &["--cpus", &first]);
    let places = |reply: &Value| -> Vec<String> {
        let queues = reply["queues"].as_array().unwrap().iter();
        let place = |queue: &Value| queue["cpus"].as_str().unwrap().to_owned();
        queues.map(place).collect()
    };
    let now = || world.json(&["affinity", "--json"]);
    assert_eq!(places(&now()), [&*first, &*first], "as it was started");
    for processor in processors {
        let processor = processor.to_string();
        let told = world.json(&["affinity", &processor, "--queue", "1", "--json"]);
        assert_eq!(told["ok"], true);
        assert_eq!(places(&told), [&*first, &*processor]);
        let before = world.received();
        until("packets", || world.received() > before + 300);
    }
    world.text(&["affinity", &first]);
    assert_eq!(places(&now()), [&*first, &*first]);
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["vifs"][0]["queues"][1]["cpus"], *first);
    for (line, wanted) in [
        (
            r#"{"command":"affinity","cpus":"0","queue":9}"#,
            "found 2 queues",
        ),
        (
            r#"{"command":"affinity","cpus":"0","queue":"x"}"#,
            "wanted a number",
        ),
        (r#"{"command":"affinity","cpus":"3-1"}"#, "wanted a list"),
        (
            r#"{"command":"affinity","cpus":""}"#,
            "wanted one CPU at least",
        ),
        (
            r#"{"command":"affinity","cpus":"1000"}"#,
            "wanted CPUs [1000]",
        ),
        (
            r#"{"command":"affinity","cpus":7}"#,
            "wanted a list as text",
        ),
    ] {
        let reply = world.ask(line);
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.contains(wanted), "{line}: {reply}");
    }
    assert_eq!(
        places(&now()),
        [&*first, &*first],
        "nothing of that was done"
    );
}

#[test]
fn processors_that_there_are_not_are_refused_before_anything_is_connected() {
    let world = World::new(&[]);
    let words = ["run", "--vif", "1", "--echo", "--cpus", "1000"];
    let output = world.command(&words);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("--cpus names CPU 1000"), "{errors}");
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
            "stats", "status", "kick", "pause", "resume", "mode", "affinity", "capture", "trace",
            "stop",
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
    // One that is named is not looked for, and what helps is the same.
    for command in ["mode", "kick", "stats"] {
        let named = world.command(&[command, "--vif", "7"]);
        assert_eq!(named.status.code(), Some(69), "{named:?}");
        let errors = String::from_utf8(named.stderr).unwrap();
        assert!(
            errors.contains("vif7") && errors.contains("`netfront run` starts one"),
            "{errors}"
        );
    }
}
