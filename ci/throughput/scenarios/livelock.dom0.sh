# shellcheck shell=sh
# livelock: UDP datagrams of 18 bytes from dom0 at full rate, to three receivers, each in a fresh guest
#
# What comes out is livelock.tsv, a line a receiver; ci/livelock makes the table of it. The sender is the same program each
# time (netfront/examples/datagrams.rs, an ordinary socket), and numbers its datagrams.

# One line a receiver: its name, and who drives the vif. The first is what the others are compared with.
all_receivers() {
    receiver kernel  kernel
    receiver tap     tap
    receiver library library
}

# A few words a line: receiver, seconds, datagrams sent, delivered, lost, out of order, CPU ns of dom0, of the guest, rounds,
# time squeezes, wake-ups of the receiver's threads, why there is none of all this. What is unknown is "-".
measured() { printf '%s\t' "$name" "$@" >>"$RESULTS/livelock.tsv" && echo >>"$RESULTS/livelock.tsv"; }

# receiver NAME WHO
receiver() {
    name=$1
    stage "$SCENARIO: $name"
    guest_start
    guest_must "livelock_up $2"
    within 30 "the guest answers" arping_or_ping "$2"
    # Asking again would find nobody in the middle of a flood.
    ip neigh replace 10.77.0.2 lladdr 00:16:3e:00:00:02 dev xenbr0 nud permanent 2>/dev/null
    # Services of two fresh kernels settle.
    sleep 2
    flood
    xl destroy "$GUEST_NAME" || fail "xl destroy after $name"
    save_results
}

# The library answers ARP and nothing else.
arping_or_ping() {
    if [ "$1" = library ]; then
        ip neigh flush dev xenbr0
        ping -c 1 -W 1 10.77.0.2 >/dev/null 2>&1
        ip neigh show 10.77.0.2 dev xenbr0 | grep -q lladdr
    else
        ping -c 1 -W 1 10.77.0.2
    fi
}

flood() {
    files=$RESULTS/$name
    cpu_times before
    timeout $((TEST_SECONDS * 10 + 60)) /lab/programs/datagrams send 10.77.0.2:9000 --seconds "$TEST_SECONDS" --bytes 18 --json \
        >"$files.sent.json" 2>"$files.sent.err"
    status=$?
    cpu_times after
    GUEST_DEADLINE=60 guest livelock_report >"$files.received.json" 2>"$files.received.err"
    guest livelock_log >"$files.log"
    guest livelock_stats >"$files.stats.json"
    if [ "$status" -ne 0 ] || ! grep -q delivered "$files.received.json"; then
        measured - - - - - - - - - - "the sender ended with $status; the receiver: $(head -n 1 "$files.log")"
        return
    fi
    sent=$(field sent "$files.sent.json")
    delivered=$(field delivered "$files.received.json")
    # By the sender's count: of the last ones that were lost the receiver knows nothing.
    measured "$(field seconds "$files.sent.json")" "$sent" "$delivered" $((sent - delivered)) \
        "$(field out_of_order "$files.received.json")" "$(spent 0)" "$(spent "$DOMID")" \
        "$(of_engine rounds)" "$(of_engine time_squeezes)" "$(wakeups)" ''
}

# field NAME FILE: a number out of JSON in one line, or of a report in lines; "-" if there is none.
field() {
    value=$(sed -n "s/.*\"$1\":[[:space:]]*\\([0-9.]*\\).*/\\1/p" "$2" | head -n 1)
    echo "${value:--}"
}

# of_engine NAME: what the engine counted, the library's by its report, the TAP's by `netfront stats`.
of_engine() {
    case $name in
        library) field "$1" "$files.received.json" ;;
        tap) field "engine_$1" "$files.stats.json" ;;
        *) echo - ;;
    esac
}

wakeups() {
    case $name in
        library) field wakeups "$files.received.json" ;;
        tap) field wakeups "$files.stats.json" ;;
        *) echo - ;;
    esac
}

cpu_times() { netback-sim domains --json >"$files.cpu-$1.json" 2>"$files.cpu-$1.err" || cat "$files.cpu-$1.err"; }

# spent DOMAIN: nanoseconds of CPU between before and after; "-" when one of them could not be had.
spent() {
    before=$(cpu_of "$1" before)
    after=$(cpu_of "$1" after)
    if [ -n "$before" ] && [ -n "$after" ]; then echo $((after - before)); else echo -; fi
}

# cpu_of DOMAIN WHEN: its nanoseconds until then.
cpu_of() {
    awk -F '[:,]' -v domain="$1" '/"domain":/ { is = $2 + 0 } /"cpu_ns":/ && is == domain { gsub(/ /, "", $2); print $2 }' "$files.cpu-$2.json"
}

check_at_least "seconds of each flood (TEST_SECONDS)" 1 "$TEST_SECONDS"
: >"$RESULTS/livelock.tsv"
all_receivers
saw "$(wc -l <"$RESULTS/livelock.tsv") receivers"
