# shellcheck shell=bash
# The programs under test: built here unless given, and which image each goes to.

REPOSITORY=$(cd "$LAB/../.." && pwd)

# wanted SCENARIO: is it part of this run?
wanted() {
    local scenario
    for scenario in "${SCENARIOS[@]}"; do [ "$scenario" != "$1" ] || return 0; done
    return 1
}

# Builds what the scenarios of this run need; sets NETFRONT_BIN, NETBACK_SIM_BIN, CONFORMANCE_BIN, ECHO_BIN,
# ECHO_C_BIN, FORWARD_BIN, RECEIVE_BIN, DATAGRAMS_BIN, PACKAGE and NEWER_PACKAGE.
prepare_programs() {
    local target=${CARGO_TARGET_DIR:-$REPOSITORY/target}
    CONFORMANCE_BIN=
    ECHO_BIN=
    ECHO_C_BIN=
    FORWARD_BIN=
    RECEIVE_BIN=
    DATAGRAMS_BIN=
    if [ -z "${NETFRONT_BIN:-}" ] || [ -z "${NETBACK_SIM_BIN:-}" ]; then
        build "netfront and netback-sim" build --release --locked -p netfront -p netback-sim
        NETFRONT_BIN=${NETFRONT_BIN:-$target/release/netfront}
        NETBACK_SIM_BIN=${NETBACK_SIM_BIN:-$target/release/netback-sim}
    fi
    [ -x "$NETFRONT_BIN" ] || die "no program at NETFRONT_BIN=$NETFRONT_BIN" "it must be an executable file"
    [ -x "$NETBACK_SIM_BIN" ] || die "no program at NETBACK_SIM_BIN=$NETBACK_SIM_BIN" "it must be an executable file"
    if wanted library; then
        build "the example echo" build --release --locked -p netfront --example echo
        ECHO_BIN=$target/release/examples/echo
    fi
    if wanted forward; then
        build "the example forward" build --release --locked -p netfront --example forward
        FORWARD_BIN=$target/release/examples/forward
    fi
    if wanted observe; then build_echo_c "$target"; fi
    if wanted livelock || wanted cores; then
        build "the examples receive and datagrams" build --release --locked -p netfront --example receive --example datagrams
        RECEIVE_BIN=$target/release/examples/receive
        DATAGRAMS_BIN=$target/release/examples/datagrams
    fi
    if debian_wanted; then
        build_package
        # shellcheck disable=SC2034 # debian.sh puts it into the guest
        PACKAGE=$BUILT
        # The same program: what an upgrade does is up to the package.
        build_package 99.0
        # shellcheck disable=SC2034
        NEWER_PACKAGE=$BUILT
    fi
    if wanted conformance || wanted store; then build_conformance; fi
}

# build WHAT ARGUMENT...: cargo, with its messages in a log.
build() {
    local what=$1
    shift
    say "programs: cargo $*"
    (cd "$REPOSITORY" && cargo "$@") >"$WORK/cargo.out" 2>"$OUT/cargo.log" || {
        last_lines "$OUT/cargo.log"
        die "the build of $what failed" "or give built programs: NETFRONT_BIN=path NETBACK_SIM_BIN=path $0"
    }
}

# debian_wanted: is a scenario part of this run that starts the Debian guest and installs the package there?
debian_wanted() { wanted newcomer; }

# build_package [VERSION]: the Debian package, with the program under test in it; its path in BUILT.
build_package() {
    local program
    say "programs: ci/package${1:+, as version $1}"
    program=$(realpath "$NETFRONT_BIN")
    # Empty is as not set: the version of the workspace.
    BUILT=$(cd "$REPOSITORY" && PACKAGE_VERSION=${1:-} NETFRONT_BIN=$program CARGO_TARGET_DIR=$WORK ci/package 2>"$OUT/package.log") || {
        last_lines "$OUT/package.log"
        die "the build of the package failed" "its messages: $OUT/package.log"
    }
}

# build_echo_c TARGET: the example in C over the static library, as netfront/capi/README.md says.
build_echo_c() {
    local capi=$REPOSITORY/netfront/capi libraries
    build "the library for C" build --release --locked -p netfront-c
    ECHO_C_BIN=$WORK/echo-c
    read -ra libraries <<<"$(sed -n 's/^Libs.private: //p' "$capi/netfront.pc.in")"
    say "programs: ${CC:-cc} $capi/examples/echo.c"
    "${CC:-cc}" -std=c99 -O2 -pthread -I "$capi/include" -o "$ECHO_C_BIN" "$capi/examples/echo.c" "$1/release/libnetfront_c.a" \
        "${libraries[@]}" 2>"$OUT/cc.log" || {
        last_lines "$OUT/cc.log"
        die "the example in C cannot be built" "its messages: $OUT/cc.log"
    }
}

build_conformance() {
    build "the conformance test" test --release --locked --no-run -p hypervisor --test conformance --message-format=json
    # Cargo names a test's executable with a hash of its own; its messages are the documented way to learn it.
    CONFORMANCE_BIN=$(sed -n '/"name":"conformance"/s/.*"executable":"\([^"]*\)".*/\1/p' "$WORK/cargo.out" | tail -n 1)
    [ -x "$CONFORMANCE_BIN" ] || die "cargo named no executable for the conformance test" "its messages: $WORK/cargo.out (run with --keep)"
}

# put_netfront TREE, put_netback_sim TREE: the driver, for the guest and for dom0; the backend, for dom0.
put_netfront() { put_host_program "$1" "$NETFRONT_BIN" /bin/netfront; }
put_netback_sim() { put_host_program "$1" "$NETBACK_SIM_BIN" /bin/netback-sim; }

# put_guest_programs TREE: the conformance test and the examples, in /lab/programs of the guest; programs of packages that are
# too large for every guest.
put_guest_programs() {
    [ -z "$CONFORMANCE_BIN" ] || put_host_program "$1" "$CONFORMANCE_BIN" /lab/programs/conformance
    [ -z "$ECHO_BIN" ] || put_host_program "$1" "$ECHO_BIN" /lab/programs/echo
    [ -z "$ECHO_C_BIN" ] || put_host_program "$1" "$ECHO_C_BIN" /lab/programs/echo-c
    [ -z "$FORWARD_BIN" ] || put_host_program "$1" "$FORWARD_BIN" /lab/programs/forward
    [ -z "$RECEIVE_BIN" ] || put_host_program "$1" "$RECEIVE_BIN" /lab/programs/receive
    [ -z "$DATAGRAMS_BIN" ] || put_host_program "$1" "$DATAGRAMS_BIN" /lab/programs/datagrams
    if wanted offloads || wanted back-offloads; then put_program "$1" ethtool tcpdump; fi
    if wanted multicast; then put_program "$1" socat; fi
}

# put_extra_programs TREE: the conformance test, the sender of datagrams, ethtool, and what XEN_LAB_EXTRA_DOM0 names, in /lab/programs of dom0.
put_extra_programs() {
    local program
    [ -z "$CONFORMANCE_BIN" ] || put_host_program "$1" "$CONFORMANCE_BIN" /lab/programs/conformance
    [ -z "$DATAGRAMS_BIN" ] || put_host_program "$1" "$DATAGRAMS_BIN" /lab/programs/datagrams
    if wanted offloads || wanted back-offloads || wanted forward; then put_program "$1" ethtool; fi
    for program in ${XEN_LAB_EXTRA_DOM0:-}; do
        [ -f "$program" ] || die "no file $program, named in XEN_LAB_EXTRA_DOM0" "it is a list of paths with spaces between"
        put_host_program "$1" "$program" "/lab/programs/$(basename "$program")"
    done
}
