# shellcheck shell=sh
# compare: the same tests with each driver, each in a fresh guest, and what every domain spent on them
#
# What comes out is measures.tsv, a line a test; ci/throughput/xen makes the table of it. Everything is driven
# from dom0: a guest that drowns in packets would neither start a test nor end one.

# One line a driver: its name, the guest's end (`kernel`, or options of `netfront run`), dom0's end
# (`kernel`, or `netback-sim`). The first is what the others are compared with.
all_drivers() {
    driver kernel     kernel                kernel
    driver pool       "--policy pool"       kernel
    driver per-packet "--policy per-packet" kernel
    driver both       "--policy pool"       netback-sim
}

# A few words a line: driver, test, seconds, datagrams sent, datagrams delivered, bytes delivered, CPU ns of
# dom0, CPU ns of the guest, milliseconds of a ping, why there is none of all this. What is unknown is "-".
measured() { printf '%s\t' "$name" "$@" >>"$RESULTS/measures.tsv" && echo >>"$RESULTS/measures.tsv"; }

# driver NAME GUEST-END DOM0-END
driver() {
    name=$1
    stage "$SCENARIO: $name"
    if [ "$3" = kernel ]; then
        guest_start
    else
        guest_start 'vif=[]'
        backend_start
    fi
    if [ "$2" = kernel ]; then
        guest_must up
    else
        guest_must "front_start $2 && front_wait && front_address"
    fi
    within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
    # Services of two fresh kernels settle.
    sleep 2

    pings
    tcp to-guest
    tcp from-guest -R
    udp to-guest
    udp from-guest -R

    [ "$2" = kernel ] || guest front_log >"$RESULTS/$name.netfront.log"
    [ "$3" = kernel ] || backend_stop
    xl destroy "$GUEST_NAME" || fail "xl destroy after $name"
    modprobe xen-netback
    # What was measured is not lost when the next driver hangs.
    save_results
}

pings() {
    ping -c 20 -i 0.2 -W 2 10.77.0.2 >"$RESULTS/$name.ping.txt" 2>&1
    average=$(sed -n 's|^round-trip min/avg/max = [^/]*/\([^/]*\)/.*|\1|p' "$RESULTS/$name.ping.txt")
    measured ping - - - - - - "${average:--}" "$([ -n "$average" ] || tail -n 1 "$RESULTS/$name.ping.txt")"
}

tcp() { run_test "tcp-$1" ${2:+"$2"}; }

# 18 bytes of payload make the smallest frame of Ethernet; -b 0: as fast as the sender can.
udp() { run_test "udp18-$1" -u -l 18 -b 0 ${2:+"$2"}; }

# run_test TEST OPTION...: one run of iperf3, with the CPU time and the counters before and after it.
run_test() {
    test=$1
    shift
    files=$RESULTS/$name.$test
    stage "$SCENARIO: $name $test"
    # A server whose client went away in the middle answers "busy".
    guest_must 'killall iperf3 2>/dev/null; sleep 0.2; iperf3 -s -D >/dev/null 2>&1; sleep 0.2'
    state before
    timeout $((TEST_SECONDS * 4 + 30)) iperf3 -c 10.77.0.2 -t "$TEST_SECONDS" -J "$@" >"$files.iperf3.json" 2>"$files.iperf3.err"
    status=$?
    state after
    if [ "$status" -ne 0 ]; then
        why=$(sed -n 's/.*"error":[[:space:]]*"\(.*\)".*/\1/p' "$files.iperf3.json" "$files.iperf3.err" | tail -n 1)
        measured "$test" - - - - - - - "iperf3 ended with $status: ${why:-no word why}"
        return
    fi
    case $test in
        tcp-*) measured "$test" "$(told sum_received seconds)" - - "$(told sum_received bytes)" "$(spent 0)" "$(spent "$DOMID")" - '' ;;
        udp18-to-guest) measured "$test" "$(told sum seconds)" "$(grown dom0 5)" "$(grown guest 2)" - "$(spent 0)" "$(spent "$DOMID")" - '' ;;
        udp18-from-guest) measured "$test" "$(told sum seconds)" "$(grown guest 5)" "$(grown dom0 2)" - "$(spent 0)" "$(spent "$DOMID")" - '' ;;
    esac
}

# state WHEN: what the kernels and our driver have counted. The CPU times stand nearest to the test, so that
# reading the others is not in them.
state() {
    [ "$1" = before ] || cpu_times "$1"
    cat /proc/net/snmp >"$files.dom0-$1.snmp"
    guest cat /proc/net/snmp >"$files.guest-$1.snmp"
    guest front_stats_if_ours >"$files.stats-$1.json"
    [ "$1" = after ] || cpu_times "$1"
}

cpu_times() { netback-sim domains --json >"$files.cpu-$1.json" 2>"$files.cpu-$1.err" || cat "$files.cpu-$1.err"; }

# cpu_of DOMAIN WHEN: its nanoseconds until then.
cpu_of() {
    awk -F '[:,]' -v domain="$1" '/"domain":/ { is = $2 + 0 } /"cpu_ns":/ && is == domain { gsub(/ /, "", $2); print $2 }' "$files.cpu-$2.json"
}

# spent DOMAIN: nanoseconds of CPU between before and after.
spent() { difference "$(cpu_of "$1" before)" "$(cpu_of "$1" after)"; }

# udp_counter SIDE WHEN FIELD: of the kernel's line about UDP; 2: datagrams that programs have received, 5: sent.
udp_counter() { awk -v field="$3" '/^Udp: [0-9]/ { print $field }' "$files.$1-$2.snmp"; }

# grown SIDE FIELD
grown() { difference "$(udp_counter "$1" before "$2")" "$(udp_counter "$1" after "$2")"; }

# difference BEFORE AFTER: "-" when one of them could not be had.
difference() { if [ -n "$1" ] && [ -n "$2" ]; then echo $(($2 - $1)); else echo -; fi; }

# told SECTION KEY: a number out of the end of iperf3's report.
told() {
    awk -v section="\"$1\":" -v key="\"$2\":" '
        /"end":[[:space:]]*\{/ { at_end = 1 }
        at_end && index($0, section) { inside = 1 }
        inside && index($0, key) { sub(/.*:[[:space:]]*/, ""); sub(/,.*/, ""); print; exit }' "$files.iperf3.json"
}

check_at_least "seconds for each test (TEST_SECONDS)" 1 "$TEST_SECONDS"
: >"$RESULTS/measures.tsv"
all_drivers
saw "$(wc -l <"$RESULTS/measures.tsv") measures"
