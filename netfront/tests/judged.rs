//! Arguments that are wrong are found before a vif is touched, above all before `--take-over` takes it from whoever uses it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// No machine has so many: with a right command line it ends at that.
const VIF: &str = "4000";

/// The exit code of a take-over with these words more, and what it says.
fn take_over(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_netfront"))
        .args(["run", "--take-over", "--vif", VIF, "--queues", "2"])
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

#[test]
fn a_take_over_with_a_wrong_argument_is_refused_before_the_vif_is_looked_at() {
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = used.local_addr().unwrap().to_string();
    let hash = ["--hash", "toeplitz", "--hash-mapping", "0,2"];
    for (words, told) in [
        (&hash[..], "--hash-mapping names queue 2"),
        (
            &["--tap", "a-name-that-is-too-long"],
            "name of an interface",
        ),
        (&["--tap", "lo"], "it is no TAP"),
        (&["--capture", "/nonexistent/file,128"], "--capture"),
        (&["--capture", "/"], "--capture"),
        (&["--metrics-file", "/nonexistent/file"], "--metrics-file"),
        (&["--metrics-file", "/"], "--metrics-file"),
        (&["--metrics", &port], "--metrics"),
        (&["--control", "/dev/null/folder/socket"], "--control"),
    ] {
        let (code, text) = take_over(words);
        assert!(text.contains(told), "{words:?}: {text}");
        assert!(
            !text.contains("vif-4000") && !text.contains("vif 4000"),
            "{text}"
        );
        assert!(code.is_some_and(|code| code != 0), "{words:?}");
    }
}

#[test]
fn a_right_command_line_is_not_refused_and_no_file_is_made_by_the_judgement() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("packets");
    let capture = format!("{},128", path.display());
    // Its folder is made when the socket is.
    let socket = dir.path().join("folder/socket");
    // Somebody else's file, that is replaced.
    let metrics = dir.path().join("vif.prom");
    fs::write(&metrics, "old").unwrap();
    fs::set_permissions(&metrics, fs::Permissions::from_mode(0o444)).unwrap();
    let files = ["--metrics-file", metrics.to_str().unwrap()];
    let words = [
        &["--capture", &capture, "--metrics", "127.0.0.1:0"],
        &files[..],
        &["--control", socket.to_str().unwrap()],
    ];
    let (code, text) = take_over(&words.concat());
    // There is no such vif, or no right to look for one. 2 is what a wrong command line ends with.
    assert!(code.is_some_and(|code| code != 0 && code != 2), "{text}");
    for flag in ["--capture", "--metrics", "--control"] {
        assert!(!text.contains(flag), "{flag}: {text}");
    }
    assert!(!path.exists() && !socket.parent().unwrap().exists());
    assert_eq!(fs::read_to_string(&metrics).unwrap(), "old");
}
