//! What a running driver shows of several queues.

use netfront_tests::until;
use serde_json::Value;

use crate::driver::World;

/// With packets by each of two queues.
fn world() -> World {
    let world = World::with_queues(2, &[]);
    until("packets by each queue", || {
        let report = world.json(&["stats", "--json"]);
        let queues = report["queues"].as_array().unwrap();
        let sent = |queue: &Value| queue["counters"]["tx_packets"].as_u64() > Some(0);
        queues.len() == 2 && queues.iter().all(sent)
    });
    world
}

#[test]
fn each_queue_is_told_beside_the_sum_in_numbers_and_in_words() {
    let world = world();
    let report = world.json(&["stats", "--json"]);
    assert_eq!(report["link"]["queues"], 2);
    for (number, queue) in report["queues"].as_array().unwrap().iter().enumerate() {
        assert_eq!(queue["queue"], number);
        assert_eq!(queue["thread"], format!("nf0q{number}"));
        assert_eq!(queue["counters"]["pool_granted"], 768);
    }
    assert_eq!(report["counters"]["pool_granted"], 2 * 768);
    let stats = world.text(&["stats"]);
    assert!(stats.contains("\n     queue_0_rx_packets: "), "{stats}");
    assert!(stats.contains("\n     queue_1_rx_packets: "), "{stats}");
    let status = world.text(&["status"]);
    assert!(status.contains("of 512 slots posted"), "{status}");
    assert!(status.contains("\n  queue 1   in "), "{status}");
    let words = ["top", "--json", "--count", "1", "--interval", "0.5"];
    let top = world.json(&words);
    let rates = top["vifs"][0]["queues"].as_array().unwrap();
    assert_eq!(rates.len(), 2);
    for queue in rates {
        assert!(queue["rx_packets_per_second"].as_f64() > Some(0.0), "{top}");
    }
}

#[test]
fn a_mapping_of_hashes_that_names_a_queue_that_there_cannot_be_is_refused_with_what_to_change() {
    let words = "run --vif 1 --echo --queues 2 --hash toeplitz --hash-mapping 0,2";
    let words: Vec<&str> = words.split(' ').collect();
    let output = World::new(&[]).command(&words);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("names queue 2"), "{errors}");
    assert!(errors.contains("--queues"), "{errors}");
}

#[test]
fn a_trace_names_the_queue_of_each_line_and_a_pause_stops_both() {
    let world = world();
    let trace = world.text(&["trace", "--json", "--count", "2000"]);
    let mut seen = [false; 2];
    for line in trace.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let queue = line["queue"].as_u64().expect("each line names its queue");
        seen[queue as usize] = true;
    }
    assert_eq!(seen, [true; 2]);
    world.text(&["pause"]);
    let received = || {
        let report = world.json(&["stats", "--json"]);
        let queues = report["queues"].as_array().unwrap().iter();
        let count = |queue: &Value| queue["counters"]["rx_packets"].as_u64().unwrap();
        queues.map(count).collect::<Vec<u64>>()
    };
    let mut before = received();
    until("both to stand still", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = received();
        std::mem::replace(&mut before, now.clone()) == now
    });
    world.text(&["resume"]);
    until("both to go on", || {
        let now = received();
        now.iter().zip(&before).all(|(now, then)| now > then)
    });
}
