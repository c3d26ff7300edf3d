# shellcheck shell=sh
# livelock: UDP datagrams of 18 bytes from dom0, at several rates, to three receivers; with equal shares, with much work; then the library under each restart limit
#
# What comes out is livelock.tsv, settings.tsv and policies.tsv, a line a flood; ci/livelock makes tables of them. The sender is
# the same program each time (netfront/examples/datagrams.rs, an ordinary socket), and numbers its datagrams.
# CAP, WORK, HEAVY, RATES, POLICIES and PROCESSORS are what ci/livelock was told.

# One line a receiver: its name, and who drives the vif. The first is what the others are compared with.
all_receivers() {
    receiver kernel  kernel
    receiver tap     tap
    receiver library library
    # In the same guest: it has the library's vif.
    all_policies
    destroy
}

# Who works on the datagrams: the thread that takes events, or one of its own beside it on the same processor.
all_policies() {
    [ "$POLICIES" != none ] || return 0
    TABLE=policies
    for who in core worker; do
        workers=0
        [ "$who" = core ] || workers=1
        for policy in $(words "$POLICIES"); do
            name=$policy
            flood full "$who" "--restart-limit $policy --workers $workers"
        done
    done
}

# words LIST: of one whose items have "-" between them, since a setting of the lab is one word.
words() { echo "$1" | tr - ' '; }

# A few words a line: name; asked rate, or who works; seconds; datagrams sent, delivered, lost, out of order; CPU ns of dom0, of
# the guest; rounds, time squeezes, wake-ups of the receiver's threads; datagrams a second by the receiver's clock; those that the
# guest took and dropped; why there is none of all this. What is unknown is "-".
measured() { printf '%s\t' "$name" "$column" "$@" >>"$RESULTS/$TABLE.tsv" && echo >>"$RESULTS/$TABLE.tsv"; }

# receiver NAME WHO
receiver() {
    [ "$name" = - ] || destroy
    name=$1 driver=$2
    TABLE=livelock
    stage "$SCENARIO: $name"
    # Pinned only where there are two: dom0 is on the other one (dom0_vcpus_pin).
    if [ "$PROCESSORS" = 1 ]; then guest_start; else guest_start 'cpus="1"'; fi
    guest_must "livelock_up $driver"
    for rate in $(words "$RATES"); do flood "$rate" "$rate" ''; done
    all_settings
}

# all_settings: the same receiver at full rate where the guest is not bound, so that nobody need be behind; and with so much to do
# for a datagram that none of them, the library's neither, can take what comes.
all_settings() {
    TABLE=settings
    cap=$CAP work=$WORK
    if [ "$cap" != 0 ]; then
        CAP=0
        flood full equal ''
        CAP=$cap
    fi
    if [ "$HEAVY" != 0 ]; then
        WORK=$HEAVY
        flood full heavy ''
        WORK=$work
    fi
}

destroy() {
    xl destroy "$GUEST_NAME" || fail "xl destroy after $name"
    save_results
}

# The library answers ARP and nothing else.
arping_or_ping() {
    if [ "$driver" = library ]; then
        ping -c 1 -W 1 10.77.0.2 >/dev/null 2>&1
        ip neigh show 10.77.0.2 dev xenbr0 | grep -q 'lladdr 00:16:3e:00:00:02'
    else
        ping -c 1 -W 1 10.77.0.2
    fi
}

# flood RATE COLUMN OPTIONS: one receiver for it, with these options, and datagrams at that rate.
flood() {
    column=$2
    files=$RESULTS/$TABLE.$name.$column
    stage "$SCENARIO: $name, $column"
    arp -d 10.77.0.2 2>/dev/null
    ip neigh flush dev xenbr0
    guest_must "livelock_receive $driver --work $WORK $3"
    within 30 "the guest answers" arping_or_ping
    # Asking again would find nobody in the middle of a flood.
    arp -i xenbr0 -s 10.77.0.2 00:16:3e:00:00:02 || fail "the guest's address cannot be kept"
    # Services of fresh kernels settle, and what is left of the last flood is gone.
    sleep 2
    pace=
    [ "$1" = full ] || pace="--rate $1"
    dropped=$(guest livelock_dropped)
    cap "$CAP"
    cpu_times before
    # The backend's thread comes before the sender, whose work is that of a network card: on one processor it would
    # be the backend that is not in time.
    # shellcheck disable=SC2086 # two words or none
    timeout $((TEST_SECONDS * 10 + 60)) sh -c 'renice -n 19 -p $$ >/dev/null && exec "$@"' sh /lab/programs/datagrams send 10.77.0.2:9000 --seconds "$TEST_SECONDS" --bytes 18 $pace \
        --json >"$files.sent.json" 2>"$files.sent.err"
    # Not `status`: that is a variable of `guest`.
    ended=$?
    cpu_times after
    cap 0
    guest livelock_report >"$files.received.json" 2>"$files.received.err"
    guest livelock_log >"$files.log"
    guest livelock_stats >"$files.stats.json"
    if [ "$ended" -ne 0 ] || ! grep -q delivered "$files.received.json"; then
        guest livelock_end
        measured - - - - - - - - - - - - "the sender ended with $ended; the receiver: $(head -n 1 "$files.log")"
        return
    fi
    sent=$(field sent "$files.sent.json")
    delivered=$(field delivered "$files.received.json")
    # By the sender's count: of the last ones that were lost the receiver knows nothing.
    measured "$(field seconds "$files.sent.json")" "$sent" "$delivered" $((sent - delivered)) \
        "$(field out_of_order "$files.received.json")" "$(spent 0)" "$(spent "$DOMID")" \
        "$(of_engine rounds)" "$(of_engine time_squeezes)" "$(wakeups)" "$(field per_second "$files.received.json")" "$(dropped)" ''
}

# cap PERCENT: of one processor, the most that the guest gets; 0: no bound. Only during floods: a guest boots slowly under it.
cap() {
    [ "$CAP" = 0 ] || xl sched-credit -d "$GUEST_NAME" -c "$1" || fail "xl sched-credit -c $1"
}

# field NAME FILE: a number out of JSON in one line, or of a report in lines; "-" if there is none.
field() {
    value=$(sed -n "s/.*\"$1\":[[:space:]]*\\([0-9.]*\\).*/\\1/p" "$2" | head -n 1)
    echo "${value:--}"
}

# of_engine NAME: what the engine counted, the library's by its report. The TAP's counters are of all floods, so they say
# nothing of one.
of_engine() {
    case $driver in
        library) field "$1" "$files.received.json" ;;
        *) echo - ;;
    esac
}

# dropped: by the engine of the library, by the guest's kernel at the socket of the others.
dropped() {
    if [ "$driver" = library ]; then
        field dropped "$files.received.json"
    else
        echo $(($(guest livelock_dropped) - dropped))
    fi
}

wakeups() { of_engine wakeups; }

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
# What comes from a network card waits for nobody. A socket waits while its datagrams lie in the backend's queue (512 KiB of
# them, some 8700 of these): then the sender would be as slow as the guest, and nothing would be offered that it cannot take.
echo 33554432 >/proc/sys/net/core/wmem_default || fail "the sender's buffer cannot be made larger"
: >"$RESULTS/livelock.tsv"
: >"$RESULTS/settings.tsv"
: >"$RESULTS/policies.tsv"
name=-
all_receivers
saw "$(wc -l <"$RESULTS/livelock.tsv") floods of $CAP % of a processor, $(wc -l <"$RESULTS/settings.tsv") with other settings, $(wc -l <"$RESULTS/policies.tsv") under restart limits"
