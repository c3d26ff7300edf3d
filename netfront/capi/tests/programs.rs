//! Programs in C, compiled against the header and linked with both libraries, as guests of a simulated Xen.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hypervisor::{sim, DomId};
use netback_sim::BackendHandle;
use netfront_tests::stage::{all_came, source, Stage, FRONT};
use netfront_tests::{skipped, Guarded};
use tempfile::TempDir;

const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Werror", "-std=c99", "-pedantic"];

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo put the libraries that these tests were built with: beside the tests.
fn libraries() -> PathBuf {
    let mut directory = std::env::current_exe().unwrap();
    directory.pop();
    for library in ["libnetfront_c.so", "libnetfront_c.a"] {
        assert!(
            directory.join(library).is_file(),
            "{library} is not beside the tests"
        );
    }
    directory
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; ci/lib/install.sh installs what these tests need")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{errors}");
    output
}

/// An installation as README.md says: header, both libraries, the pkg-config file.
struct Installed(TempDir);

impl Installed {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let (lib, include) = (root.path().join("lib"), root.path().join("include"));
        fs::create_dir_all(lib.join("pkgconfig")).unwrap();
        fs::create_dir_all(&include).unwrap();
        fs::copy(
            here().join("include/netfront.h"),
            include.join("netfront.h"),
        )
        .unwrap();
        let link = std::os::unix::fs::symlink::<PathBuf, PathBuf>;
        link(
            libraries().join("libnetfront_c.so"),
            lib.join("libnetfront_c.so.0"),
        )
        .unwrap();
        link("libnetfront_c.so.0".into(), lib.join("libnetfront_c.so")).unwrap();
        link(
            libraries().join("libnetfront_c.a"),
            lib.join("libnetfront_c.a"),
        )
        .unwrap();
        let template = fs::read_to_string(here().join("netfront.pc.in")).unwrap();
        let filled = template
            .replace("@prefix@", root.path().to_str().unwrap())
            .replace("@libdir@", "${prefix}/lib")
            .replace("@version@", env!("CARGO_PKG_VERSION"));
        fs::write(lib.join("pkgconfig/netfront.pc"), filled).unwrap();
        Self(root)
    }

    fn lib(&self) -> PathBuf {
        self.0.path().join("lib")
    }

    /// What pkg-config says.
    fn flags(&self, kind: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command
            .env("PKG_CONFIG_PATH", self.lib().join("pkgconfig"))
            .args(kind)
            .arg("netfront");
        let text = String::from_utf8(succeed(&mut command).stdout).unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles a program and links it with the shared library.
    fn shared(&self, source: &str) -> PathBuf {
        let program = self.0.path().join("shared");
        succeed(
            Command::new("cc")
                .args(WARNINGS)
                .args(["-pthread", "-o"])
                .arg(&program)
                .arg(here().join(source))
                .args(self.flags(&["--cflags", "--libs"])),
        );
        program
    }

    /// The same with the static library.
    fn whole(&self, source: &str) -> PathBuf {
        let program = self.0.path().join("static");
        let flags = self.flags(&["--cflags", "--libs", "--static"]);
        // Of two libraries of one name the linker takes the shared one, unless it is told the file.
        let flags = flags.iter().map(|flag| match flag.as_str() {
            "-lnetfront_c" => "-l:libnetfront_c.a",
            other => other,
        });
        succeed(
            Command::new("cc")
                .args(WARNINGS)
                .args(["-pthread", "-o"])
                .arg(&program)
                .arg(here().join(source))
                .args(flags),
        );
        program
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Guarded {
        let mut command = Command::new(program);
        command
            .env("LD_LIBRARY_PATH", self.lib())
            .args(arguments)
            .stdout(Stdio::null());
        Guarded(command.spawn().unwrap())
    }
}

/// A backend that sends so many verifiable frames (0: without end), and checks those that come.
fn backend(stage: &Stage, guest: DomId, count: u64) -> BackendHandle {
    stage.backend_for(guest, 0, source("mix", 5000, count))
}

#[test]
fn echo_in_c_sends_every_frame_back_with_either_library() {
    let installed = Installed::new();
    for program in [
        installed.shared("examples/echo.c"),
        installed.whole("examples/echo.c"),
    ] {
        let stage = Stage::new();
        let serving = backend(&stage, FRONT, 500);
        let arguments = ["--sim", stage.sim(), "--packets", "500"];
        let mut guest = installed.run(&program, &arguments);
        all_came(&serving, 500);
        guest.finish();
        assert_eq!(serving.fault(), None);
    }
}

#[test]
fn echo_in_c_connects_anew_when_the_backend_comes_back() {
    let installed = Installed::new();
    let stage = Stage::new();
    let program = installed.shared("examples/echo.c");
    let first = backend(&stage, FRONT, 100);
    let guest = installed.run(&program, &["--sim", stage.sim()]);
    all_came(&first, 100);
    first.stop().unwrap();
    let second = backend(&stage, FRONT, 100);
    all_came(&second, 100);
    drop(guest);
}

#[test]
fn echo_in_c_goes_on_after_a_restore_and_breaks_no_kernel() {
    let installed = Installed::new();
    let stage = Stage::new();
    let program = installed.shared("examples/echo.c");
    let mut serving = backend(&stage, FRONT, 100);
    let guest = installed.run(&program, &["--sim", stage.sim()]);
    all_came(&serving, 100);
    let mut number = FRONT;
    for next in [DomId(7), DomId(7)] {
        let saved = sim::save(&stage.socket, number).unwrap();
        serving.abandon().unwrap();
        stage.remove_vifs_of(number);
        serving = backend(&stage, next, 100);
        saved.restore(next).unwrap();
        number = next;
        all_came(&serving, 100);
    }
    drop(guest);
    assert_eq!(sim::kernel_bugs(&stage.socket).unwrap(), 0);
}

#[test]
fn what_a_c_program_does_wrong_is_refused_and_does_no_harm() {
    let installed = Installed::new();
    let stage = Stage::new();
    let _backend = backend(&stage, FRONT, 0);
    let program = installed.shared("tests/misuse.c");
    installed.run(&program, &[stage.sim()]).finish();
}

#[test]
fn the_header_is_good_cpp_too() {
    if !skipped::there_is("c++") {
        return;
    }
    let installed = Installed::new();
    let source = installed.0.path().join("header.cpp");
    let text = "#include <netfront.h>\nint main() { return netfront_close(nullptr); }\n";
    fs::write(&source, text).unwrap();
    let program = installed.0.path().join("cpp");
    succeed(
        Command::new("c++")
            .args(["-Wall", "-Wextra", "-Werror", "-std=c++11", "-pedantic"])
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .args(installed.flags(&["--cflags", "--libs"])),
    );
    installed.run(&program, &[]).finish();
}
