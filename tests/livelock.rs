//! What `ci/livelock` makes of the lab's figures: a table, and success only if all of them are there.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the view over these lines, in this form.
fn view(form: &str, lines: &str) -> Output {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let script = repository.join("ci/throughput/lib/livelock.awk");
    let mut awk = Command::new("awk")
        .args(["-v", &format!("form={form}"), "-f"])
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = awk.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    awk.wait_with_output().unwrap()
}

/// A flood at full rate, with these CPU times and this reason for there being no figures, as the scenario writes it.
fn flood(dom0: &str, guest: &str, why: &str) -> String {
    format!(
        "kernel\tfull\t1.00\t40000\t9000\t31000\t0\t{dom0}\t{guest}\t-\t-\t-\t9000\t0\t{why}\t\n"
    )
}

#[test]
fn a_cpu_time_that_could_not_be_read_is_named_and_is_no_success() {
    let good = flood("500000000", "100000000", "");
    assert!(view("judge", &good).status.success());
    for (dom0, guest, why, named) in [
        ("-", "100000000", "", "no figure of the CPU time of dom0"),
        (
            "-",
            "-",
            "",
            "no figure of the CPU time of dom0, the CPU time of the guest",
        ),
        ("500000000", "100000000", "no answer", "no answer"),
    ] {
        let lines = good.clone() + &flood(dom0, guest, why).replace("kernel", "tap");
        assert_eq!(view("judge", &lines).status.code(), Some(1), "{lines}");
        let table = String::from_utf8(view("", &lines).stdout).unwrap();
        assert!(table.contains(&format!("n/a: {named}\n")), "{table}");
        let json = view("json", &lines).stdout;
        let rows: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(rows[0]["error"], serde_json::Value::Null, "{rows}");
        assert_eq!(rows[1]["error"], named, "{rows}");
    }
    assert_eq!(view("judge", "").status.code(), Some(1), "nothing measured");
}
